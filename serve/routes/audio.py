"""The sound of tracks: to be played from any second, and to be looked at."""

from __future__ import annotations

import logging
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from serve import logs
from serve.library import AudioResponse, NotInLibraryError
from serve.problems import Problem
from serve.routes.answers import Answer, service_of
from serve.schemas import Waveform, Words
from serve.searching import place_of
from serve.waveforms import RATE_HZ, Peaks
from xmodal.audio import AudioLimits

router = APIRouter(prefix="/v1", tags=["audio"])
_LIMITS = AudioLimits(seconds=3600.0, channels=64, rate_hz=384_000)
_NONE = "there is no audio of this track here"


@router.head("/audio", include_in_schema=False)
@router.get(
    "/audio",
    summary="The file of a track, whole or in ranges",
    response_class=Response,
    responses={
        200: {"description": "The file", "content": {"audio/*": {"schema": {"type": "string", "format": "binary"}}}},
        206: {"description": "The bytes of a Range", "content": {"audio/*": {}}},
        304: {"description": "It is what the ETag in If-None-Match stands for"},
    },
)
async def audio(request: Request, id: Annotated[Words, Query(examples=["clip-00178"])]) -> Response:
    """A player asks for ranges, so it may begin in the middle."""
    service = service_of(request)
    async with service.request() as running:
        place = place_of(running.deployed, id)
        (facts,) = await running.in_thread(running.deployed.catalogue.facts, [place])
        if not facts.get("path"):
            raise Problem(404, _NONE, kind="no-audio")
        try:
            opened = await running.in_thread(running.deployed.library.open, str(facts["path"]))
        except NotInLibraryError as refusal:
            logs.log("audio refused", {"row": place, "reason": refusal.reason}, level=logging.WARNING)
            raise
    return AudioResponse(opened)


@router.get("/waveform", summary="The peaks of a track", response_model=Waveform)
async def waveform(
    request: Request,
    id: Annotated[Words, Query(examples=["clip-00178"])],
    points: Annotated[int, Query(ge=1, le=4000, description="parts to divide the track into")] = 200,
) -> Response:
    """The largest sample of each of some equal parts of the file."""
    service = service_of(request)
    async with service.request() as running:
        place = place_of(running.deployed, id)
        path = await running.in_thread(running.file_of, place)
        if path is None:
            raise Problem(404, _NONE, kind="no-audio")
        status = path.stat()
        key = (str(path), status.st_mtime_ns, status.st_size)
        peaks = service.peaks.get(key)
        service.metrics.cache("waveform", peaks is not None)
        if peaks is None:
            async with service.drawing:
                decoded = await service.decoders.decode(path, RATE_HZ, name=path.name, limits=_LIMITS)
            peaks = await running.in_thread(Peaks.of, decoded.samples, RATE_HZ)
            service.peaks.keep(key, peaks)
    return Answer(
        {
            "space_id": running.deployed.space_id,
            "peaks": peaks.shown(points),
            "duration_seconds": peaks.duration_seconds,
        },
        headers={"Cache-Control": "private, max-age=600"},
    )
