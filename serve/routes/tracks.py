"""The catalogue: its tracks page by page, and one of them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from serve.catalogue import Catalogue, given_tags, shown
from serve.problems import Problem
from serve.schemas import Page, Track, Words
from serve.service import Service

router = APIRouter(prefix="/v1", tags=["catalogue"])


@router.get("/tracks", summary="Tracks, page by page", response_model=Page)
async def tracks(
    request: Request,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1)] = 50,
    q: Annotated[Words | None, Query(description="part of the title")] = None,
) -> dict[str, Any]:
    """The tracks in the order of the index."""
    service: Service = request.app.state.service
    if limit > service.settings.max_hits:
        raise Problem(422, f"limit may be {service.settings.max_hits} at most, got {limit}")
    async with service.request() as running:
        catalogue = running.deployed.catalogue
        places = await service.in_thread(_places, catalogue, q)
        shown_places = places[offset : offset + limit]
        views = await service.in_thread(lambda: [_view(catalogue, place) for place in shown_places])
    return {
        "space_id": running.deployed.space_id,
        "tracks": views,
        "total": len(places),
        "next_offset": offset + limit if offset + limit < len(places) else None,
    }


@router.get("/track", summary="One track", response_model=Track)
async def track(
    request: Request, id: Annotated[Words, Query(description="the track's id, whatever characters it holds")]
) -> dict[str, Any]:
    """What the catalogue knows about a track."""
    service: Service = request.app.state.service
    async with service.request() as running:
        catalogue = running.deployed.catalogue
        place = catalogue.place(id)
        if place is None:
            raise Problem(404, f"the catalogue holds no track {id!r}", kind="unknown-id")
        return await service.in_thread(_view, catalogue, place)


def _places(catalogue: Catalogue, part: str | None) -> range | list[int]:
    if not part:
        return range(len(catalogue))
    part = part.casefold()
    return [place for place, title in enumerate(catalogue.titles) if part in title.casefold()]


def _view(catalogue: Catalogue, place: int) -> dict[str, Any]:
    facts = catalogue.facts(place)
    return {**shown(catalogue.ids[place], facts), "tags": given_tags(facts), "audio": None}
