"""Requests and answers as clients see them, with examples for the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair, which is no character; send valid Unicode") from None
    return text


Words = Annotated[str, AfterValidator(_unicode)]
"""A text that can be written as UTF-8; JSON can say others."""

_SPACE = "29de60a0b334e2d0"
_TAG = {"name": "piano", "kind": "instrument", "probability": 0.91, "given": True}
_TRACK = {
    "id": "clip-00178",
    "title": "Evening by the sea",
    "artist": "A. Composer",
    "album": None,
    "duration_seconds": 31.5,
    "tags": [_TAG],
    "audio": "/v1/audio?id=clip-00178",
    "metadata": {"year": 1998, "file": "clip-00178.wav"},
}
_HIT = {"rank": 1, **_TRACK, "score": 0.47, "start_seconds": 10.0, "end_seconds": 20.0}


def _example(example: Any) -> ConfigDict:
    return ConfigDict(
        extra="forbid", allow_inf_nan=False, protected_namespaces=(), json_schema_extra={"examples": [example]}
    )


class Model(BaseModel):
    """What all schemas share: unknown members of a request are refused, and numbers are finite."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())


class Problem(Model):
    """An error, by RFC 9457."""

    model_config = _example(
        {
            "type": "urn:xmodal:problem:unknown-id",
            "title": "Not Found",
            "status": 404,
            "detail": "the catalogue holds no track 'nobody'",
            "instance": "/v1/track",
        }
    )

    type: str
    title: str
    status: int
    detail: str = Field(description="one sentence: what is wrong and what to do")
    instance: str | None = None
    errors: list[dict[str, str]] | None = Field(None, description="parts of the request: where, and what is wrong")


class Tag(Model):
    """A tag of a track."""

    name: str
    kind: str | None = None
    probability: float | None = Field(None, description="null where there is no vocabulary to judge by")
    given: bool = Field(description="the catalogue's metadata say so")


class Track(Model):
    """A track of the catalogue."""

    model_config = _example(_TRACK)

    id: str
    title: str
    artist: str | None
    album: str | None
    duration_seconds: float | None
    tags: list[Tag]
    audio: str | None = Field(description="where it can be played; null where it cannot")
    metadata: dict[str, Any]


class TrackWindow(Model):
    """A part of a track that has a vector of its own."""

    start_seconds: float
    end_seconds: float


class OneTrack(Track):
    """A track with its windows and the space that it lies in."""

    model_config = _example({"space_id": _SPACE, **_TRACK, "windows": [{"start_seconds": 0.0, "end_seconds": 10.0}]})

    space_id: str
    windows: list[TrackWindow]


class Hit(Track):
    """A track that answers a query."""

    model_config = _example(_HIT)

    rank: int
    score: float = Field(description="cosine with the query; comparable within one query only")
    start_seconds: float | None = Field(description="where the moment that answers starts")
    end_seconds: float | None


class Term(Model):
    """A part of a query: exactly one of text, track, audio and vector."""

    model_config = _example({"text": "slow sad piano", "weight": 1.0})

    text: Words | None = Field(None, description="words, which may name fields: lyrics: … tags: …")
    track: Words | None = Field(None, description="the id of a stored track")
    audio: Words | None = Field(None, description="the name that /v1/uploads gave")
    vector: list[float] | None = Field(None, description="a vector of the same space, of any length above 0")
    weight: float = Field(1.0, ge=-100, le=100, description="how much it counts; below 0: less like this")

    @model_validator(mode="after")
    def _one(self) -> Term:
        if sum(part is not None for part in (self.text, self.track, self.audio, self.vector)) != 1:
            raise ValueError("a term is exactly one of text, track, audio and vector")
        if self.weight == 0:
            raise ValueError("a term of weight 0 says nothing; leave it out")
        return self


class Wishes(Model):
    """What is wanted of the hits of a query."""

    k: int = Field(20, ge=1, description="how many hits")
    offset: int = Field(0, ge=0, description="hits to leave out first")
    where: list[Words] = Field(
        [],
        description="conditions on the metadata, all of which must hold",
        examples=[["genre=rock|jazz", "year>=1990"]],
    )
    moments: bool = Field(True, description="look for the seconds that answer, where windows are indexed")
    group: Words | None = Field(None, description="list one hit of each artist, album …: a key of the metadata")
    diversity: float | None = Field(None, ge=0, le=1, description="near 0 only the score counts, near 1 difference")
    duplicates: float | None = Field(None, gt=0, le=1, description="leave out what is this near to a better hit")
    breadth: int | None = Field(None, ge=1, le=100_000, description="how much an approximate index looks at")
    tags: int = Field(5, ge=0, le=100, description="tags of each hit")


class SearchRequest(Wishes):
    """A query: terms, or all of it on one line."""

    model_config = _example(
        {
            "terms": [
                {"text": "slow sad piano"},
                {"track": "clip-00178", "weight": 0.5},
                {"text": "drums", "weight": -0.5},
            ],
            "k": 10,
            "where": ["year>=1990"],
        }
    )

    terms: list[Term] = []
    query: Words | None = Field(None, description='"piano" + id:clip-1 - 0.5 * "vocals"')

    @model_validator(mode="after")
    def _one(self) -> SearchRequest:
        if bool(self.terms) == (self.query is not None):
            raise ValueError("a search needs either terms or a query on one line")
        return self


class Found(Model):
    """The answer to a search."""

    model_config = _example(
        {
            "space_id": _SPACE,
            "milliseconds": 12.5,
            "hits": [_HIT],
            "next_offset": 1,
            "query": {"query": "slow sad piano", "k": 1},
        }
    )

    space_id: str
    milliseconds: float
    hits: list[Hit]
    next_offset: int | None
    query: dict[str, Any]


class Page(Model):
    """A page of the catalogue."""

    model_config = _example({"space_id": _SPACE, "tracks": [_TRACK], "total": 1, "next_offset": None})

    space_id: str
    tracks: list[Track]
    total: int
    next_offset: int | None


class FacetValue(Model):
    """A value of a field."""

    value: str
    count: int


class Facet(Model):
    """A field that tracks can be filtered by."""

    name: str
    kind: Literal["tags", "text", "number"]
    values: list[FacetValue] | None = Field(None, description="of tags and text: the most frequent first")
    min: float | None = None
    max: float | None = None


class Facets(Model):
    """What tracks can be filtered by."""

    model_config = _example(
        {
            "space_id": _SPACE,
            "fields": [
                {"name": "genre", "kind": "text", "values": [{"value": "jazz", "count": 12}]},
                {"name": "year", "kind": "number", "min": 1950, "max": 2019},
            ],
        }
    )

    space_id: str
    fields: list[Facet]


class CountedTag(Model):
    """A tag of the vocabulary."""

    name: str
    kind: str | None
    tracks: int


class Tags(Model):
    """The vocabulary."""

    model_config = _example({"space_id": _SPACE, "tags": [{"name": "piano", "kind": "instrument", "tracks": 117}]})

    space_id: str
    tags: list[CountedTag]


class TagName(Model):
    """A tag to judge by."""

    name: Words
    kind: Words | None = None


class TagRequest(Model):
    """Which tracks to tag, and with what."""

    model_config = _example({"tracks": ["clip-00178"], "tags": ["calm", {"name": "piano", "kind": "instrument"}]})

    tracks: list[Words] = Field(min_length=1)
    tags: list[Words | TagName] | None = Field(None, description="null: the server's vocabulary")
    top: int | None = Field(None, ge=1, description="at most so many tags a track")


class TaggedTrack(Model):
    """A track and its tags."""

    id: str
    tags: list[Tag]


class Tagged(Model):
    """Tags of tracks."""

    model_config = _example({"space_id": _SPACE, "tracks": [{"id": "clip-00178", "tags": [_TAG]}], "calibrated": False})

    space_id: str
    tracks: list[TaggedTrack]
    calibrated: bool = Field(description="the probabilities were fitted on labels")


class EmbedTexts(Model):
    """Texts to embed."""

    model_config = _example({"texts": ["slow sad piano", "fast banjo"]})

    texts: list[Words]


class TextVectors(Model):
    """Vectors of texts."""

    model_config = _example({"space_id": _SPACE, "model": "demo/model", "dim": 2, "vectors": [[0.6, 0.8]]})

    space_id: str
    model: str
    dim: int
    vectors: list[list[float]]


class WindowVector(TrackWindow):
    """The vector of a part of a sound."""

    vector: list[float]


class AudioVector(Model):
    """The vector of a sound."""

    model_config = _example({"space_id": _SPACE, "dim": 2, "vector": [0.6, 0.8], "duration_seconds": 31.5})

    space_id: str
    dim: int
    vector: list[float]
    duration_seconds: float | None
    windows: list[WindowVector] | None = None


class Uploaded(Model):
    """A sound that queries may use."""

    model_config = _example(
        {
            "audio": "u_3mBzYkT0o2m8q5d1",
            "name": "humming.wav",
            "duration_seconds": 4.2,
            "expires_seconds": 3600.0,
            "space_id": _SPACE,
        }
    )

    audio: str
    name: str
    duration_seconds: float
    expires_seconds: float
    space_id: str


class Waveform(Model):
    """How loud a track is from its start to its end."""

    model_config = _example({"space_id": "3f9a1c0de5b27a84", "peaks": [0.1, 0.8, 0.4], "duration_seconds": 31.5})

    space_id: str = Field(description="of the catalogue; peaks are of the file and the same in every space")
    peaks: list[float] = Field(description="largest sample of each part, from 0 to 1")
    duration_seconds: float


class MapPoint(Model):
    """A track on the map."""

    id: str
    x: float
    y: float
    title: str
    artist: str | None
    tags: list[str]


class Map(Model):
    """Tracks on two axes of their vectors."""

    model_config = _example(
        {
            "space_id": _SPACE,
            "method": "the two main axes of their vectors, 31% of the variance",
            "points": [
                {"id": "clip-00178", "x": 0.2, "y": -0.4, "title": "Evening", "artist": None, "tags": ["piano"]}
            ],
        }
    )

    space_id: str
    method: str
    points: list[MapPoint]


class ReloadRequest(Model):
    """What to serve from now on; null is what is served now, read again."""

    model_config = _example({"model": "models/second", "index": "indexes/second"})

    model: Words | None = None
    index: Words | None = None


class Served(Model):
    """A model and an index."""

    space_id: str
    tracks: int
    model: str
    index: str


class Reloaded(Served):
    """What is served now, and what was before."""

    model_config = _example(
        {
            "space_id": _SPACE,
            "tracks": 600,
            "model": "demo/model",
            "index": "index",
            "before": {"space_id": _SPACE, "tracks": 500, "model": "demo/model", "index": "index"},
        }
    )

    before: Served


class UploadRules(Model):
    """What may be uploaded."""

    max_bytes: int
    max_seconds: float
    formats: list[str]


class Info(Model):
    """What is served."""

    model_config = _example(
        {
            "name": "xmodal",
            "version": "0.1.0",
            "space_id": _SPACE,
            "dim": 256,
            "tracks": 600,
            "rows": 600,
            "engine": "flat",
            "model": "demo/model",
            "moments": False,
            "audio": True,
            "upload": {"max_bytes": 52428800, "max_seconds": 900.0, "formats": ["flac", "mp3", "wav"]},
            "limits": {"hits": 1000},
            "example_queries": ["slow sad piano"],
            "token_needed": False,
        }
    )

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


class OpenAIRequest(BaseModel):
    """What OpenAI's clients send to /v1/embeddings; members that say nothing of vectors are passed over."""

    model_config = ConfigDict(
        extra="ignore",
        allow_inf_nan=False,
        json_schema_extra={"examples": [{"input": ["slow sad piano"], "model": "xmodal"}]},
    )

    input: Words | list[Words]
    model: Words | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1)


class OpenAIEmbedding(Model):
    """The vector of one text."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class OpenAIUsage(Model):
    """Words instead of tokens: the tokens of one model say nothing of another's."""

    prompt_tokens: int
    total_tokens: int


class OpenAIAnswer(Model):
    """What OpenAI's clients read."""

    model_config = _example(
        {
            "object": "list",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.6, 0.8]}],
            "model": "demo/model",
            "usage": {"prompt_tokens": 3, "total_tokens": 3},
            "space_id": _SPACE,
        }
    )

    object: Literal["list"] = "list"
    data: list[OpenAIEmbedding]
    model: str
    usage: OpenAIUsage
    space_id: str


class TeiRequest(BaseModel):
    """What clients of text-embeddings-inference send; members that say nothing of vectors are passed over."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [{"inputs": ["slow sad piano"]}]})

    inputs: Words | list[Words]
    normalize: bool = True
    truncate: bool | None = None
