"""The catalogue: its tracks page by page, what they can be filtered by, their tags, and a map of them."""

from __future__ import annotations

import gzip
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from serve.asked import check_page, conditions
from serve.deployed import Deployed
from serve.routes.answers import Answer, service_of
from serve.schemas import Facets, Map, OneTrack, Page, Tags, Words
from serve.searching import place_of, track_view
from xmodal.index import Condition
from xmodal.maps import tag_list

router = APIRouter(prefix="/v1", tags=["catalogue"])


@router.get("/tracks", summary="Tracks, page by page", response_model=Page)
async def tracks(
    request: Request,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1)] = 50,
    where: Annotated[
        list[Words] | None, Query(description="conditions on the metadata", examples=[["genre=rock|jazz"]])
    ] = None,
    q: Annotated[Words | None, Query(description="part of the title")] = None,
) -> Response:
    """The tracks in the order of the index, or those of them that fulfil all conditions."""
    service = service_of(request)
    check_page(service.settings, limit, 0, "limit")
    wanted = conditions(service.settings, where)
    async with service.request() as running:
        deployed = running.deployed
        total, views = await running.in_thread(_page, deployed, q, wanted, offset, limit)
    return Answer(
        {
            "space_id": deployed.space_id,
            "tracks": views,
            "total": total,
            "next_offset": offset + limit if offset + limit < total else None,
        }
    )


@router.get("/track", summary="One track", response_model=OneTrack)
async def track(
    request: Request,
    id: Annotated[Words, Query(description="the track's id, whatever characters it holds", examples=["clip-00178"])],
) -> Response:
    """What the catalogue knows about a track, and the tags that the model hears."""
    service = service_of(request)
    async with service.request() as running:
        return Answer(await running.in_thread(_one, running.deployed, id))


@router.get(
    "/facets", summary="What tracks can be filtered by", response_model=Facets, response_model_exclude_none=True
)
async def facets(request: Request) -> Response:
    """The keys of the metadata with their values and how many tracks have each, or their range."""
    service = service_of(request)
    async with service.request() as running:
        fields = await running.in_thread(lambda: running.deployed.catalogue.facets)
    return Answer({"space_id": running.deployed.space_id, "fields": fields})


@router.get("/tags", summary="The vocabulary", response_model=Tags)
async def tags(request: Request) -> Response:
    """Every tag, and how many tracks have it: by their metadata, or, where these have no tags, by ear."""
    service = service_of(request)
    async with service.request() as running:
        found = await running.once("tags", _tags)
    return Answer(
        {
            "space_id": running.deployed.space_id,
            "tags": [{"name": name, "kind": kind, "tracks": count} for name, kind, count in found],
        }
    )


@router.get("/map", summary="Tracks on two axes", response_model=Map)
async def map_(request: Request) -> Response:
    """Where the tracks lie by the two main axes of their vectors; of a large catalogue an even choice."""
    service = service_of(request)
    points = service.settings.map_points
    async with service.request() as running:
        plain, packed = await running.once("map", lambda deployed: _map(deployed, points))
    headers = {"Cache-Control": "private, no-cache", "Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(packed, media_type="application/json", headers={**headers, "Content-Encoding": "gzip"})
    return Response(plain, media_type="application/json", headers=headers)


def _page(
    deployed: Deployed, part: str | None, where: tuple[Condition, ...], offset: int, limit: int
) -> tuple[int, list[dict[str, Any]]]:
    catalogue = deployed.catalogue
    places = catalogue.places(where)
    if part:
        sought = part.casefold()
        places = [place for place in places if sought in catalogue.titles[place].casefold()]
    page = list(places[offset : offset + limit])
    facts = catalogue.facts(page)
    return len(places), [
        track_view(deployed, catalogue.ids[place], own) for place, own in zip(page, facts, strict=True)
    ]


def _one(deployed: Deployed, id_: str) -> dict[str, Any]:
    catalogue, place = deployed.catalogue, place_of(deployed, id_)
    (facts,) = catalogue.facts([place])
    view = track_view(deployed, id_, facts)
    if deployed.tagger is not None:
        (view["tags"],) = deployed.tagger.tags_of(catalogue.vectors([place]), [facts], top=None)
    length = deployed.embedder.model.windows.window_seconds
    starts = catalogue.starts(place)
    ends = [start + length for start in starts]
    if view["duration_seconds"] is not None:
        ends = [min(end, view["duration_seconds"]) for end in ends]
    windows = [{"start_seconds": start, "end_seconds": end} for start, end in zip(starts, ends, strict=True)]
    return {"space_id": deployed.space_id, **view, "windows": windows}


def _tags(deployed: Deployed) -> list[tuple[str, str | None, int]]:
    given = deployed.catalogue.tags
    return given if given or deployed.tagger is None else deployed.tagger.counts(deployed.catalogue)


def _map(deployed: Deployed, points: int) -> tuple[bytes, bytes]:
    catalogue = deployed.catalogue
    method, places, at = catalogue.map(points)
    found = [
        {
            "id": catalogue.ids[place],
            "x": x,
            "y": y,
            "title": catalogue.titles[place],
            "artist": None if facts.get("artist") is None else str(facts["artist"]),
            "tags": tag_list(facts.get("tags"))[:12],
        }
        for place, (x, y), facts in zip(places, at, catalogue.facts(places), strict=True)
    ]
    plain = bytes(Answer({"space_id": deployed.space_id, "method": method, "points": found}).body)
    return plain, gzip.compress(plain, 5)
