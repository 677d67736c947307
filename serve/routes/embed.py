"""Texts and sounds to vectors, and sounds that are kept for queries."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request, Response

from serve.asked import check_texts, refusals
from serve.problems import Problem
from serve.routes.answers import UPLOAD_BODY, Answer, hear, is_form, service_of
from serve.running import Running
from serve.schemas import AudioVector, EmbedTexts, TextVectors, Uploaded, Words
from serve.searching import place_of, vector_of_track
from serve.service import Service
from xmodal.embedder import FileWindows

router = APIRouter(prefix="/v1", tags=["embed"])
Url = Annotated[
    Words | None,
    Query(description="where the sound is to be fetched, if the server was started with --fetch-host for its host"),
]


@router.post("/embed/text", summary="Texts to vectors", response_model=TextVectors)
async def embed_text(request: Request, body: EmbedTexts) -> Response:
    """Unit vectors of texts, which may name fields: `lyrics: "…" tags: jazz`."""
    service = service_of(request)
    check_texts(service.settings, body.texts)
    async with service.request() as running:
        with refusals():
            vectors = await running.texts.of(body.texts)
    return Answer(
        {
            "space_id": running.deployed.space_id,
            "model": running.deployed.name,
            "dim": running.deployed.embedder.dim,
            "vectors": np.stack(vectors).tolist(),
        }
    )


@router.post(
    "/embed/audio",
    summary="A sound, or a stored track, to a vector",
    response_model=AudioVector,
    response_model_exclude_none=True,
    openapi_extra={"requestBody": {"required": False, "content": UPLOAD_BODY}},
)
async def embed_audio(
    request: Request,
    id: Annotated[Words | None, Query(description="a stored track, instead of a file", examples=["clip-00178"])] = None,
    windows: Annotated[bool, Query(description="give the vector of each window too")] = False,
    url: Url = None,
) -> Response:
    """The unit vector of a sound that is sent, or of a track by its id."""
    service = service_of(request)
    if (id is not None) + (url is not None) + is_form(request) != 1:
        raise Problem(
            415 if id is None and url is None and request.headers.get("content-type") else 422,
            "send either a sound as multipart/form-data with the field file, or ?id=… of a stored track, or a ?url=…",
        )
    async with service.request() as running:
        deployed = running.deployed
        answer: dict[str, Any] = {"space_id": deployed.space_id, "dim": deployed.embedder.dim}
        heard: FileWindows | None
        if id is None:
            _, _, heard = await hear(request, running, url)
            answer |= {"vector": heard.pooled().tolist(), "duration_seconds": heard.end_seconds}
        else:
            place = place_of(deployed, id)
            answer["vector"] = (await vector_of_track(running, id)).tolist()
            answer["duration_seconds"] = await running.in_thread(_duration, running, place)
            heard = await _heard_again(service, running, place) if windows else None
        if windows and heard is not None:
            answer["windows"] = _windows(heard, deployed.embedder.model.windows.window_seconds)
    return Answer(answer)


@router.post(
    "/uploads",
    summary="A sound to search by",
    response_model=Uploaded,
    status_code=201,
    openapi_extra={"requestBody": {"required": False, "content": UPLOAD_BODY}},
)
async def upload(request: Request, url: Url = None) -> Response:
    """Embed a sound once; the name that comes back is a term of queries for a while. The sound itself is not kept."""
    service = service_of(request)
    if url is not None and is_form(request):
        raise Problem(422, "send either a sound as multipart/form-data with the field file, or a url")
    async with service.request() as running:
        name, _, heard = await hear(request, running, url)
    space_id = running.deployed.space_id
    key = service.uploads.keep(name, space_id, heard.pooled(), heard.end_seconds)
    return Answer(
        {
            "audio": key,
            "name": name,
            "duration_seconds": heard.end_seconds,
            "expires_seconds": service.settings.upload_keep_seconds,
            "space_id": space_id,
        },
        status_code=201,
    )


async def _heard_again(service: Service, running: Running, place: int) -> FileWindows:
    """The windows of a stored track, from its file."""
    path = await running.in_thread(running.file_of, place)
    if path is None:
        raise Problem(404, "there is no audio of this track here, so its windows are not known", kind="no-audio")
    deployed = running.deployed
    (facts,) = await running.in_thread(deployed.catalogue.facts, [place])
    # A track that is a part of a file says so, except where its metadata are those of a window.
    start, end = (0.0, None) if deployed.catalogue.windowed else (facts.get("start_seconds"), facts.get("end_seconds"))
    decoded = await service.decoders.decode(
        path,
        deployed.embedder.model.sample_rate,
        name=path.name,
        start_seconds=float(start or 0.0),
        end_seconds=None if end is None else float(end),
    )
    return await running.embed(decoded, start_seconds=float(start or 0.0))


def _duration(running: Running, place: int) -> float | None:
    (facts,) = running.deployed.catalogue.facts([place])
    seconds = facts.get("duration_seconds", facts.get("duration"))
    return float(seconds) if isinstance(seconds, int | float) else None


def _windows(heard: FileWindows, length: float) -> list[dict[str, Any]]:
    return [
        {"start_seconds": start, "end_seconds": min(start + length, heard.end_seconds), "vector": vector.tolist()}
        for start, vector in zip(heard.start_seconds, heard.vectors, strict=True)
    ]
