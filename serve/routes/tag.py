"""The tags of tracks and of sounds."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from serve.problems import Problem
from serve.routes.answers import UPLOAD_BODY, Answer, hear, is_form, service_of
from serve.running import Running
from serve.schemas import Tagged, TagName, TagRequest
from serve.searching import place_of
from serve.settings import Settings
from serve.tagger import Tagger
from xmodal.tagging import Tag

router = APIRouter(prefix="/v1", tags=["tag"])
_MOST_NAMES = 200


@router.post(
    "/tag",
    summary="The tags of tracks, or of a sound",
    response_model=Tagged,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/TagRequest"}},
                **UPLOAD_BODY,
            },
        }
    },
)
async def tag(request: Request) -> Response:
    """Each tag with its probability, by the server's vocabulary or by names that come with the request.

    Probabilities are measured (`calibrated`) where the server has a calibration. Elsewhere each tag is assumed to be as
    frequent as the catalogue's metadata say, or on a tenth of the tracks.
    """
    service = service_of(request)
    if is_form(request):
        async with service.request() as running:
            name, _, heard = await hear(request, running)
            tagger = _known(running)
            (found,) = await running.in_thread(tagger.tags_of, heard.pooled()[None], [{}], top=None)
        tracks = [{"id": name, "tags": found}]
    else:
        body = await _body(request, service.settings)
        async with service.request() as running:
            tagger = _known(running) if body.tags is None else await running.tagger_for(_tags(body.tags))
            tracks = await running.in_thread(_tagged, running, tagger, body)
    return Answer({"space_id": running.deployed.space_id, "tracks": tracks, "calibrated": tagger.calibrated})


async def _body(request: Request, settings: Settings) -> TagRequest:
    if not request.headers.get("content-type", "").lower().startswith("application/json"):
        raise Problem(415, "send the tracks as application/json, or a sound as multipart/form-data with the field file")
    try:
        body = TagRequest.model_validate_json(await request.body())
    except ValidationError as error:
        raise RequestValidationError(
            [{**one, "loc": ("body", *one["loc"])} for one in error.errors(include_url=False, include_input=False)]
        ) from error
    if len(body.tracks) > settings.max_hits:
        raise Problem(422, f"at most {settings.max_hits} tracks may be tagged at once, got {len(body.tracks)}")
    if body.tags is not None and not 1 <= len(body.tags) <= _MOST_NAMES:
        raise Problem(422, f"from 1 to {_MOST_NAMES} tags may be asked for, got {len(body.tags)}")
    for name in (one.name if isinstance(one, TagName) else one for one in body.tags or ()):
        if len(name) > settings.max_text:
            raise Problem(422, f"a tag may have {settings.max_text} characters, got {len(name)}")
    return body


def _tags(names: list[Any]) -> list[Tag]:
    try:
        return [Tag(one.name, one.kind) if isinstance(one, TagName) else Tag(one) for one in names]
    except ValueError as error:
        raise Problem(422, str(error)) from error


def _known(running: Running) -> Tagger:
    if running.deployed.tagger is None:
        raise Problem(
            422, "the server has no vocabulary, as its tracks have no tags; name the tags, or start it with --tags"
        )
    return running.deployed.tagger


def _tagged(running: Running, tagger: Tagger, body: TagRequest) -> list[dict[str, Any]]:
    catalogue = running.deployed.catalogue
    places = [place_of(running.deployed, id_) for id_ in body.tracks]
    tags = tagger.tags_of(catalogue.vectors(places), catalogue.facts(places), top=body.top, beyond=body.tags is None)
    return [{"id": id_, "tags": own} for id_, own in zip(body.tracks, tags, strict=True)]
