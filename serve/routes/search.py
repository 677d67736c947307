"""Words to tracks."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from serve.problems import Problem
from serve.schemas import Found, Words
from serve.searching import find, hit_view
from serve.service import Service

router = APIRouter(prefix="/v1", tags=["search"])


@router.get("/search", summary="One line to tracks", response_model=Found)
async def search_line(
    request: Request,
    q: Annotated[Words, Query(description="what to look for", examples=["slow sad piano"])],
    k: Annotated[int, Query(ge=1)] = 20,
    offset: Annotated[int, Query(ge=0)] = 0,
    where: Annotated[list[Words] | None, Query(description="conditions that tracks must fulfil")] = None,
    moments: Annotated[bool, Query(description="look for the seconds that answer")] = True,
) -> dict[str, Any]:
    """The tracks that a text describes best."""
    service: Service = request.app.state.service
    begun = time.perf_counter()
    if offset + k > service.settings.max_hits:
        raise Problem(422, f"offset and k together may be {service.settings.max_hits} at most, got {offset + k}")
    if len(q) > service.settings.max_text:
        raise Problem(422, f"a query may have {service.settings.max_text} characters, got {len(q)}")
    async with service.request() as running:
        try:
            (vector,) = await running.texts.of([q])
            hits = await service.in_thread(
                find, running.deployed, vector, offset + k + 1, where=where or (), moments=moments
            )
        except ValueError as error:
            raise Problem(422, str(error)) from error
    return {
        "space_id": running.deployed.space_id,
        "milliseconds": round((time.perf_counter() - begun) * 1000, 3),
        "hits": [hit_view(hit) for hit in hits[offset : offset + k]],
        "next_offset": offset + k if len(hits) > offset + k else None,
        "query": {"query": q, "k": k, "offset": offset, "where": where or []},
    }
