"""Requests and answers as clients see them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair, which is no character; send valid Unicode") from None
    return text


Words = Annotated[str, AfterValidator(_unicode)]
"""A text that can be written as UTF-8; JSON can say others."""


class Model(BaseModel):
    """What all schemas share: unknown members of a request are refused, and numbers are finite."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())


class Tag(Model):
    """A tag of a track."""

    name: str
    kind: str | None = None
    probability: float | None = Field(None, description="null where there is no vocabulary to judge by")
    given: bool = Field(description="the catalogue's metadata say so")


class Track(Model):
    """A track of the catalogue."""

    id: str
    title: str
    artist: str | None
    album: str | None
    duration_seconds: float | None
    tags: list[Tag]
    audio: str | None = Field(description="where it can be played; null where it cannot")
    metadata: dict[str, Any]


class Hit(Track):
    """A track that answers a query."""

    rank: int
    score: float = Field(description="cosine with the query; comparable within one query only")
    start_seconds: float | None = Field(description="where the moment that answers starts")
    end_seconds: float | None


class Found(Model):
    """The answer to a search."""

    space_id: str
    milliseconds: float
    hits: list[Hit]
    next_offset: int | None
    query: dict[str, Any]


class Page(Model):
    """A page of the catalogue."""

    space_id: str
    tracks: list[Track]
    total: int
    next_offset: int | None


class UploadRules(Model):
    """What may be uploaded."""

    max_bytes: int
    max_seconds: float
    formats: list[str]


class Info(Model):
    """What is served."""

    name: Literal["xmodal"]
    version: str
    space_id: str
    dim: int
    tracks: int
    rows: int
    engine: str
    model: str
    moments: bool
    audio: bool
    upload: UploadRules
    limits: dict[str, float]
    example_queries: list[str]
    token_needed: bool
