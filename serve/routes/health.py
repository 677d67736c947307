"""Is the server alive, is it ready, and what does it serve."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

import xmodal
from serve.problems import Problem
from serve.schemas import Info
from serve.service import Service
from xmodal.audio import AUDIO_SUFFIXES

router = APIRouter()

_EXAMPLES = ("slow sad piano", "fast cheerful banjo folk tune", "dreamy ambient pads", '"strings" - "drums"')


def _example(example: Any) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {"application/json": {"example": example}}}}


@router.get("/health", tags=["server"], summary="The process lives", responses=_example({"status": "ok"}))
async def health() -> dict[str, str]:
    """200 for as long as the process answers at all."""
    return {"status": "ok"}


@router.get(
    "/ready",
    tags=["server"],
    summary="Requests can be answered",
    responses=_example({"status": "ready", "space_id": "29de60a0b334e2d0"}),
)
async def ready(request: Request) -> dict[str, str]:
    """200 when requests can be answered, 503 while loading and while draining."""
    service: Service = request.app.state.service
    if service.draining:
        raise Problem(503, "the server is stopping; send requests to another one", kind="draining")
    return {"status": "ready", "space_id": service.running.deployed.space_id}


@router.get("/metrics", tags=["server"], summary="Figures for Prometheus", response_class=Response)
async def metrics(request: Request) -> Response:
    """Counters and gauges in Prometheus' text format."""
    service: Service = request.app.state.service
    content, media_type = service.metrics.expose()
    return Response(content, headers={"Content-Type": media_type})


@router.get("/v1/info", tags=["server"], summary="What is served, and its limits", response_model=Info)
async def info(request: Request) -> dict[str, Any]:
    """The model, the index and what may be asked of them."""
    service: Service = request.app.state.service
    deployed, settings = service.running.deployed, service.settings
    return {
        "name": "xmodal",
        "version": xmodal.__version__,
        "space_id": deployed.space_id,
        "dim": deployed.embedder.dim,
        "tracks": len(deployed.catalogue),
        "rows": len(deployed.index),
        "engine": deployed.index.kind,
        "model": deployed.name,
        "moments": deployed.catalogue.windowed,
        "audio": bool(deployed.library.roots),
        "upload": {
            "max_bytes": settings.upload_max_bytes,
            "max_seconds": settings.upload_max_seconds,
            "formats": sorted(suffix.removeprefix(".") for suffix in AUDIO_SUFFIXES),
        },
        "limits": {
            "hits": settings.max_hits,
            "text_characters": settings.max_text,
            "texts": settings.max_texts,
            "terms": settings.max_terms,
            "time_seconds": settings.time_limit_seconds,
        },
        "example_queries": list(_EXAMPLES),
        "token_needed": bool(settings.token),
    }
