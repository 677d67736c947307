"""A query to hits: its vector, what the index finds, and how hits are shown."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
from jaxtyping import Float32

from serve.asked import check_texts, refusals
from serve.catalogue import given_tags, shown
from serve.deployed import Deployed
from serve.problems import Problem
from serve.running import Lookup, Running
from serve.schemas import Term, Wishes
from serve.settings import Settings
from serve.uploads import Uploads
from xmodal.index import Condition
from xmodal.query import parse_query, stored_vector
from xmodal.search import Hit, Refinement, combine, find_moments, refined_search


@dataclass(frozen=True)
class Asked:
    """A query.

    Attributes:
        vector: Its unit vector.
        known: Vectors of the stored tracks and sounds that it names, whose duplicates are no answer.
    """

    vector: Float32[np.ndarray, " dim"]
    known: list[Float32[np.ndarray, " dim"]]


async def asked_by_terms(running: Running, terms: Sequence[Term], settings: Settings, uploads: Uploads) -> Asked:
    """The query of some terms.

    Raises:
        Problem: If there are too many, a track or an upload is not known, a vector does not fit, no term has a
            positive weight, or they cancel.
    """
    if len(terms) > settings.max_terms:
        raise Problem(422, f"a query may have {settings.max_terms} terms, got {len(terms)}")
    if not any(term.weight > 0 for term in terms):
        raise Problem(422, "a query needs at least one term of positive weight; say also what to look for")
    texts = [term.text for term in terms if term.text is not None]
    if texts:
        check_texts(settings, texts)
    of_texts = iter(await _embedded(running, texts))
    vectors, known = [], []
    for term in terms:
        if term.text is not None:
            vectors.append(next(of_texts))
            continue
        if term.track is not None:
            vector = await vector_of_track(running, term.track)
        elif term.audio is not None:
            vector = uploads.get(term.audio, running.deployed.space_id).vector
        else:
            vector = _checked(term.vector or [], running.deployed)
        vectors.append(vector)
        known.append(vector)
    with refusals():
        return Asked(combine(np.stack(vectors), [term.weight for term in terms]), known)


async def asked_by_line(running: Running, line: str, settings: Settings) -> Asked:
    """The query of one line, by the rule of :mod:`xmodal.query`; no term of it is a file.

    Raises:
        Problem: As :func:`asked_by_terms`.
    """
    check_texts(settings, [line])
    index = running.deployed.index
    with refusals():
        if "id:" in line:  # it may ask the index, which may be a database
            terms = await running.in_thread(parse_query, line, index, files=False)
        else:
            terms = parse_query(line, index, files=False)
    if len(terms) > settings.max_terms:
        raise Problem(422, f"a query may have {settings.max_terms} terms, got {len(terms)}")
    if not any(term.weight > 0 for term in terms):
        raise Problem(422, "a query needs at least one term of positive weight; say also what to look for")
    of_texts = iter(await _embedded(running, [term.what for term in terms if isinstance(term.what, str)]))
    stored = [term.what for term in terms if isinstance(term.what, np.ndarray)]
    vectors = [next(of_texts) if isinstance(term.what, str) else np.asarray(term.what) for term in terms]
    with refusals():
        return Asked(combine(np.stack(vectors), [term.weight for term in terms]), stored)


async def vector_of_track(running: Running, id_: str) -> Float32[np.ndarray, " dim"]:
    """The unit vector of a stored track.

    Raises:
        Problem: 404 if there is none.
    """
    place_of(running.deployed, id_)
    vector = (await running.in_thread(stored_vector, running.deployed.index, id_)).what
    assert isinstance(vector, np.ndarray)
    return vector


def place_of(deployed: Deployed, id_: str) -> int:
    """Where a track stands in the catalogue.

    Raises:
        Problem: 404 if there is none.
    """
    place = deployed.catalogue.place(id_)
    if place is None:
        raise Problem(
            404, f"the catalogue holds no track {id_[:100]!r}; ids are listed by /v1/tracks", kind="unknown-id"
        )
    return place


async def find(
    running: Running, asked: Asked, wishes: Wishes, where: tuple[Condition, ...], *, without: Collection[str] = ()
) -> tuple[list[dict[str, Any]], bool]:
    """The page of hits that is wanted, as clients see them, and whether more follow.

    Args:
        running: Model and index.
        asked: The query.
        wishes: Which hits, and what of them.
        where: Conditions on the metadata.
        without: Tracks that are no answer.
    """
    end = wishes.offset + wishes.k
    depth = end + 1 + len(without)
    with refusals():
        if wishes.group is None and wishes.diversity is None and wishes.duplicates is None:
            hits = await running.look_up(Lookup(asked.vector, (depth, where, wishes.breadth)))
        else:
            hits = await running.in_thread(_refined, running.deployed, asked, wishes, where, depth)
    hits = [hit for hit in hits if id_of(hit) not in without]
    page = await running.in_thread(_views, running.deployed, asked, wishes, hits[wishes.offset : end])
    return page, len(hits) > end


def id_of(hit: Hit) -> str:
    """The id of a hit's track."""
    return str(hit.metadata.get("track", hit.id))


def track_view(deployed: Deployed, id_: str, facts: dict[str, Any]) -> dict[str, Any]:
    """A track as clients see it, with the tags that the metadata give."""
    playable = deployed.library.path_of(facts) is not None
    return {
        **shown(id_, facts),
        "tags": given_tags(facts),
        "audio": f"/v1/audio?id={quote(id_, safe='')}" if playable else None,
    }


def _refined(deployed: Deployed, asked: Asked, wishes: Wishes, where: tuple[Condition, ...], depth: int) -> list[Hit]:
    refinement = Refinement(
        duplicates=wishes.duplicates,
        known=np.stack(asked.known) if asked.known and wishes.duplicates is not None else None,
        group=wishes.group,
        balance=None if wishes.diversity is None else 1 - wishes.diversity,
    )
    return refined_search(
        deployed.index,
        asked.vector,
        depth,
        refinement,
        space_id=deployed.space_id,
        where=where,
        breadth=wishes.breadth,
    )


def _views(deployed: Deployed, asked: Asked, wishes: Wishes, hits: list[Hit]) -> list[dict[str, Any]]:
    catalogue = deployed.catalogue
    if wishes.moments and catalogue.windowed:
        window_seconds = deployed.embedder.model.windows.window_seconds
        hits = find_moments(deployed.index, asked.vector, hits, window_seconds)
    found = []
    for rank, hit in enumerate(hits, start=wishes.offset + 1):
        moment = {"start_seconds": hit.start_seconds, "end_seconds": hit.end_seconds}
        found.append({"rank": rank, **track_view(deployed, id_of(hit), hit.metadata), "score": hit.score, **moment})
    if hits and wishes.tags and deployed.tagger is not None:
        places = [place_of(deployed, view["id"]) for view in found]
        facts = [hit.metadata for hit in hits]
        for view, tags in zip(
            found, deployed.tagger.tags_of(catalogue.vectors(places), facts, top=wishes.tags), strict=True
        ):
            view["tags"] = tags
    else:
        for view in found:
            view["tags"] = view["tags"][: wishes.tags]
    return found


async def _embedded(running: Running, texts: Sequence[str]) -> list[Float32[np.ndarray, " dim"]]:
    with refusals():
        return await running.texts.of(texts)


def _checked(vector: Sequence[float], deployed: Deployed) -> Float32[np.ndarray, " dim"]:
    if len(vector) != deployed.embedder.dim:
        raise Problem(
            422,
            f"a vector of space {deployed.space_id} has {deployed.embedder.dim} numbers, got {len(vector)}; embed it "
            "with the model that is served",
        )
    found = np.asarray(vector, np.float64)
    with np.errstate(over="ignore"):  # numbers whose squares are none give no length, and are refused as such
        length = float(np.linalg.norm(found))
    if not 0 < length < np.inf:
        raise Problem(422, f"a vector needs a direction, and this one has the length {length:g}")
    return (found / length).astype(np.float32)
