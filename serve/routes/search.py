"""Words, sounds and tracks to tracks."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from serve.asked import check_page, conditions
from serve.problems import Problem
from serve.routes.answers import Answer, service_of
from serve.running import Running
from serve.schemas import Found, SearchRequest, Wishes, Words
from serve.searching import Asked, asked_by_line, asked_by_terms, find, vector_of_track
from serve.service import Service
from serve.settings import Settings

router = APIRouter(prefix="/v1", tags=["search"])
_REFINED = 200  # hits up to which a shortlist is compared with itself


class Line(Wishes):
    """A query in an address."""

    q: Words = Field(description="what to look for", examples=["slow sad piano", '"piano" - 0.5 * "vocals"'])


class Likeness(Wishes):
    """Tracks like one of them, in an address."""

    id: Words = Field(description="the track", examples=["clip-00178"])


@router.post("/search", summary="Text, tracks, sounds and vectors to tracks", response_model=Found)
async def search(request: Request, body: SearchRequest) -> Response:
    """The tracks nearest to the weighted sum of all terms; a negative weight pushes away."""

    async def ask(running: Running, service: Service) -> Asked:
        if body.query is not None:
            return await asked_by_line(running, body.query, service.settings)
        return await asked_by_terms(running, body.terms, service.settings, service.uploads)

    return await _answer(request, body, ask)


@router.get("/search", summary="One line to tracks", response_model=Found)
async def search_line(request: Request, line: Annotated[Line, Query()]) -> Response:
    """The same for a query on one line: `"piano" + id:clip-1 - 0.5 * "vocals"`."""

    async def ask(running: Running, service: Service) -> Asked:
        return await asked_by_line(running, line.q, service.settings)

    return await _answer(request, line, ask)


@router.get("/similar", summary="Tracks like a track", response_model=Found)
async def similar(request: Request, line: Annotated[Likeness, Query()]) -> Response:
    """The tracks nearest to a stored one, which is left out itself."""

    async def ask(running: Running, service: Service) -> Asked:
        vector = await vector_of_track(running, line.id)
        return Asked(vector, [vector])

    return await _answer(request, line, ask, without={line.id})


async def _answer(
    request: Request,
    wishes: Wishes,
    ask: Callable[[Running, Service], Awaitable[Asked]],
    *,
    without: Collection[str] = (),
) -> Response:
    """Checks the wishes before any work, looks up what is asked in one deployment, and says how long it took."""
    service, begun = service_of(request), time.perf_counter()
    where = _checked(service.settings, wishes)
    async with service.request() as running:
        hits, more = await find(running, await ask(running, service), wishes, where, without=without)
    return _found(running, hits, more, wishes, begun)


def _checked(settings: Settings, wishes: Wishes) -> Any:
    check_page(settings, wishes.k, wishes.offset)
    refined = wishes.group is not None or wishes.diversity is not None or wishes.duplicates is not None
    if refined and wishes.k + wishes.offset > _REFINED:
        raise Problem(422, f"with group, diversity or duplicates offset and k together may be {_REFINED} at most")
    return conditions(settings, wishes.where)


def _found(running: Running, hits: list[dict[str, Any]], more: bool, wishes: Wishes, begun: float) -> Response:
    echo = wishes.model_dump(exclude_defaults=True)
    for term in echo.get("terms", ()):
        if term.get("vector") is not None:
            term["vector"] = f"{len(term['vector'])} numbers"
    return Answer(
        {
            "space_id": running.deployed.space_id,
            "milliseconds": round((time.perf_counter() - begun) * 1000, 3),
            "hits": hits,
            "next_offset": wishes.offset + wishes.k if more else None,
            "query": echo,
        }
    )
