"""Queries to ranked hits.

A query is a list of terms: words, audio files or vectors, each with a weight. The query's vector is the weighted sum of
the terms' unit vectors, brought back to length 1. Because every score is a cosine, a track's score is then, up to one
factor that is the same for all tracks, the weighted sum of its cosines with the terms: a term of weight 2 counts
twice, and a term of negative weight pushes away what it describes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Float32, Int64

from xmodal import refine
from xmodal.index import Condition, Index

if TYPE_CHECKING:  # the command line shows an index without loading torch
    from xmodal.embedder import Embedder
    from xmodal.metrics.hubness import HubCorrection

MINUS_WEIGHT = -0.5  # half: two texts are seldom far apart, so a full minus would cancel what is wanted as well
_CANCELLED = 1e-4  # a sum this short, next to the sum of the weights, is rounding and has no direction


@dataclass(frozen=True)
class Hit:
    """A row of an index that answers a query.

    Attributes:
        rank: From 1.
        id: The row's id.
        score: Cosine with the query, from -1 to 1; comparable within one query only.
        metadata: What the index knows about the row.
        start_seconds: Where in the file the row, or the moment that answers the query, starts, if known.
        end_seconds: Where that moment ends, if it was looked for.
    """

    rank: int
    id: str
    score: float
    metadata: dict[str, Any]
    start_seconds: float | None = None
    end_seconds: float | None = None


@dataclass(frozen=True)
class Refinement:
    """What becomes of a shortlist, in this order: hubs, re-ranking, duplicates, groups, diversity.

    Attributes:
        hubs: A correction fitted on a bank of queries against all rows of the index.
        reciprocal: Re-rank by k-reciprocal neighbours.
        duplicates: Leave out what is as near as this to a better hit; None keeps all.
        known: Vectors whose duplicates are left out too, such as the query's own track.
        group: A key of the metadata, such as artist or album, of which at most ``most`` hits are listed.
        most: See ``group``.
        balance: Between score (1) and difference from the hits before (0); None is the order of the scores.
        shortlist: Rows to look at; at least ten times the hits wanted.
    """

    hubs: HubCorrection | None = None
    reciprocal: bool = False
    duplicates: float | None = None
    known: Float32[np.ndarray, "known dim"] | None = None
    group: str | None = None
    most: int = 1
    balance: float | None = None
    shortlist: int = 200


@dataclass(frozen=True)
class Term:
    """A part of a query.

    Attributes:
        what: Words (``str``), which may name fields (:func:`xmodal.text.parse_fields`), an audio file (``Path``) or a
            unit vector ``[dim]`` of the same space.
        weight: How much it counts; below 0: less like this.
    """

    what: str | Path | Float32[np.ndarray, " dim"]
    weight: float = 1.0


def combine(vectors: Float[np.ndarray, "terms dim"], weights: Sequence[float]) -> Float32[np.ndarray, " dim"]:
    """Weighted sum of unit vectors, brought back to length 1.

    Raises:
        ValueError: If there is no vector, the weights are not one finite number each, or the sum has no direction
            because the terms cancel.
    """
    matrix, factors = np.asarray(vectors, np.float64), np.asarray(weights, np.float64)
    if not len(matrix) or factors.shape != (len(matrix),) or not np.isfinite(factors).all():
        raise ValueError(f"each of at least one vector needs a finite weight, got {len(matrix)} and {list(weights)}")
    total = factors @ matrix
    length = float(np.linalg.norm(total))
    if not length > _CANCELLED * np.abs(factors).sum():
        raise ValueError(f"the terms cancel one another (weights {list(weights)}); change a term or its weight")
    return (total / length).astype(np.float32)


def query_vector(embedder: Embedder, terms: Sequence[Term]) -> Float32[np.ndarray, " dim"]:
    """Embed the terms of one query and combine them.

    Args:
        embedder: The model that also made the index.
        terms: At least one of positive weight.

    Raises:
        ValueError: If no term has a positive weight, or the terms cancel.
        AudioError: If an audio file cannot be decoded.
    """
    if not any(term.weight > 0 for term in terms):
        raise ValueError("a query needs at least one term of positive weight; say also what to look for")
    texts = [term.what for term in terms if isinstance(term.what, str)]
    files = [term.what for term in terms if isinstance(term.what, Path)]
    of_texts = iter(embedder.embed_queries(texts) if texts else ())
    of_files = iter(_file_vectors(embedder, files) if files else ())
    vectors = [
        next(of_texts) if isinstance(term.what, str) else next(of_files) if isinstance(term.what, Path) else term.what
        for term in terms
    ]
    return combine(np.stack(vectors), [term.weight for term in terms])


def _file_vectors(embedder: Embedder, files: Sequence[Path]) -> np.ndarray:
    # Ids of our own: one file may well be two terms.
    ids = [str(number) for number in range(len(files))]
    return embedder.embed_files(files, ids=ids, raise_errors=True).embeddings.vectors


def search(
    index: Index,
    query_vectors: Float32[np.ndarray, "queries dim"],
    k: int,
    *,
    space_id: str,
    one_per: str | None = "track",
    among: Sequence[int] | np.ndarray | None = None,
    where: str | Sequence[str | Condition] = (),
    breadth: int | None = None,
) -> list[list[Hit]]:
    """Find the best ``k`` hits for each query.

    Args:
        index: Where to look.
        query_vectors: Unit vectors.
        k: Length of each list; shorter if the index has no more.
        space_id: Identity of the space of the queries.
        one_per: A key of the metadata: of rows with equal values only the best is a hit, so that a track which is
            in the index window by window is listed once, at its best moment. Rows without the key stand alone.
            None lists every row.
        among: Look only at these rows of the index.
        where: Look only at rows whose metadata fulfil these conditions, such as "genre=rock" and "year>=1990".
        breadth: How much to look at (see :meth:`xmodal.index.Index.search`).

    Returns:
        A list a query, best first; equal scores in the order of the index.

    Raises:
        ValueError: If ``k`` is below 1 or a query is not a finite unit vector.
        SpaceMismatchError: If the queries are of another space or dimension than the index.
    """
    wanted = k
    with index.reading():  # rows are looked up after the search, and must still be what they were
        while True:
            scores, rows = index.search(
                query_vectors, wanted, space_id=space_id, among=among, where=where, breadth=breadth
            )
            chosen = _chosen(index, rows, k, one_per)
            if rows.shape[1] < wanted or all(len(places) == k for places in chosen):
                return _hits(index, scores, rows, chosen)
            wanted *= 4  # windows of the same tracks took the places: look deeper


def refined_search(
    index: Index,
    query: Float32[np.ndarray, " dim"],
    k: int,
    refinement: Refinement,
    *,
    space_id: str,
    one_per: str | None = "track",
    where: str | Sequence[str | Condition] = (),
    breadth: int | None = None,
) -> list[Hit]:
    """The best ``k`` hits of one query after a refinement of the shortlist; otherwise as :func:`search`.

    A hit's score stays its cosine with the query, so a refined list need not fall.

    Raises:
        ValueError: If a setting is out of range.
        SpaceMismatchError: If the query is of another space or dimension than the index.
    """
    with index.reading():
        depth = max(refinement.shortlist, 10 * k)
        found = search(index, query[None], depth, space_id=space_id, one_per=one_per, where=where, breadth=breadth)[0]
        if not found:
            return []
        rows = index.rows_of([hit.id for hit in found])
        vectors = np.asarray(index.vectors(rows), np.float32)
        scores = np.asarray([hit.score for hit in found])
        if refinement.hubs is not None:
            scores = refinement.hubs.apply(*_tensors(scores, rows))[0].numpy()
    order = np.argsort(-scores, kind="stable")
    if refinement.reciprocal:
        order = order[refine.reciprocal(scores[order], vectors[order])]
    if refinement.duplicates is not None:
        order = order[refine.without_duplicates(vectors[order], cosine=refinement.duplicates, known=refinement.known)]
    if refinement.group is not None:
        groups = [found[place].metadata.get(refinement.group) for place in order]
        order = order[refine.at_most_per_group(groups, refinement.most)]
    if refinement.balance is not None:
        # Re-ranking gave an order and no scores: there the place counts.
        standing = -np.arange(len(order), dtype=np.float64) if refinement.reciprocal else scores[order]
        order = order[refine.diverse(standing, vectors[order], k, balance=refinement.balance)]
    return [replace(found[place], rank=rank) for rank, place in enumerate(order[:k], start=1)]


def find_moments(
    index: Index,
    query: Float32[np.ndarray, " dim"],
    hits: Sequence[Hit],
    window_seconds: float | None = None,
) -> list[Hit]:
    """The hits with the seconds of their track that answer the query (see :func:`xmodal.refine.moment`).

    Hits that are no windows of a track stay as they are.

    Args:
        index: Where they were found.
        query: The unit vector that they answer.
        hits: Windows of tracks.
        window_seconds: Length of a window; None takes the step from one to the next.
    """
    with index.reading():
        tracks = {hit.metadata.get("track") for hit in hits if hit.start_seconds is not None} - {None}
        windows = dict(zip(tracks, _windows(index, list(tracks), query), strict=True))
    found = []
    for hit in hits:
        starts, scores = windows.get(hit.metadata.get("track"), ([], None))
        if scores is None or not starts:
            found.append(hit)
            continue
        steps = np.diff(starts)
        length = window_seconds or (float(np.median(steps)) if len(steps) else 0.0)
        total = hit.metadata.get("duration_seconds")
        ends = [min(start + length, float(total)) if total else start + length for start in starts]
        start, end = refine.moment(scores, starts, ends)
        found.append(replace(hit, start_seconds=start, end_seconds=end if end > start else None))
    return found


def _windows(
    index: Index, tracks: Sequence[Any], query: Float32[np.ndarray, " dim"]
) -> Iterator[tuple[list[float], np.ndarray]]:
    """For each track where its windows start, rising, and their cosines with a query."""
    groups = index.rows_of_tracks(tracks)
    everything = np.concatenate([np.empty(0, np.int64), *groups])
    starts_of_all = index.values("start_seconds", everything)
    scores_of_all = np.asarray(index.vectors(everything)) @ query
    first = 0
    for rows in groups:
        places = [place for place in range(first, first + len(rows)) if starts_of_all[place] is not None]
        places.sort(key=lambda place: starts_of_all[place])
        yield [float(starts_of_all[place]) for place in places], scores_of_all[places]
        first += len(rows)


def _tensors(scores: np.ndarray, rows: np.ndarray) -> tuple[Any, Any]:
    import torch  # only who corrects hubs pays for it

    return torch.from_numpy(scores[None].astype(np.float32)), torch.from_numpy(np.asarray(rows)[None])


def _chosen(index: Index, rows: Int64[np.ndarray, "queries found"], k: int, one_per: str | None) -> list[list[int]]:
    """For each query the places of its hits in what was found, best first."""
    if one_per is None:
        return [list(range(min(k, rows.shape[1])))] * len(rows)
    groups = iter(index.values(one_per, rows.ravel()))  # one question for all queries
    chosen: list[list[int]] = []
    for found in rows:
        places: list[int] = []
        seen: set[Any] = set()
        for place, group in enumerate([next(groups) for _ in found]):
            if len(places) == k:
                break
            if group is None or group not in seen:
                seen.add(group)
                places.append(place)
        chosen.append(places)
    return chosen


def _hits(
    index: Index,
    scores: Float32[np.ndarray, "queries found"],
    rows: Int64[np.ndarray, "queries found"],
    chosen: list[list[int]],
) -> list[list[Hit]]:
    everything = np.concatenate([np.empty(0, np.int64), *(found[at] for found, at in zip(rows, chosen, strict=True))])
    described = iter(zip(index.ids_of(everything), index.facts(everything), strict=True))
    hits = []
    for scored, places in zip(scores, chosen, strict=True):
        said = zip(scored[places].tolist(), islice(described, len(places)), strict=True)
        hits.append(
            [
                Hit(rank, id_, score, facts, facts.get("start_seconds"))
                for rank, (score, (id_, facts)) in enumerate(said, start=1)
            ]
        )
    return hits
