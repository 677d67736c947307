"""The reference index: every row is compared, in double precision, and equal scores keep the order of their rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from xmodal.embeddings import unit_rows
from xmodal.index.base import Allowed, Index, Rows, Scores

_BLOCK_ROWS = 8_192
_BLOCK_QUERIES = 512
_FIRST_ROWS = 1_024  # the best of a few rows already keep most of the others out
_BLOCK_SCORES = 2**24  # scores held at once; the working memory is about 16 bytes for each


class ExactIndex(Index):
    """All vectors in one matrix. The oracle for the others, and quick enough for some ten thousand rows."""

    kind = "exact"

    def __init__(self, space_id: str, dim: int) -> None:
        super().__init__(space_id, dim)
        self._vectors = np.empty((0, dim), np.float32)

    @property
    def settings(self) -> dict[str, Any]:
        """Nothing: an exact search has nothing to choose."""
        return {}

    def vectors(self, rows: Sequence[int] | np.ndarray | None = None) -> Float32[np.ndarray, "rows dim"]:
        """Give the vectors of some rows, or of all, in order; not to be written to."""
        return self._vectors if rows is None else self._vectors[np.asarray(rows, np.int64)]

    def _append(self, vectors: Float32[np.ndarray, "new dim"]) -> None:
        self._vectors = np.concatenate([self._vectors, vectors])

    def _keep(self, rows: Int64[np.ndarray, " kept"]) -> None:
        self._vectors = self._vectors[rows]

    def _nearest(self, queries: np.ndarray, k: int, among: Allowed | None, breadth: int | None) -> tuple[Scores, Rows]:
        return scan(self._vectors, queries, k, among)

    def _write(self, data: Path) -> None:
        with (data / "vectors.npy").open("wb") as stream:
            np.save(stream, self._vectors, allow_pickle=False)

    def _read(self, data: Path, mmap: bool) -> int:
        vectors = np.load(data / "vectors.npy", mmap_mode="r" if mmap else None, allow_pickle=False)
        vectors = checked_vectors(vectors) if mmap else unit_rows(vectors, "vectors")
        if vectors.shape[1] != self.dim:
            raise ValueError(f"vectors of {vectors.shape[1]} dimensions, {self.dim} promised")
        self._vectors = vectors
        return len(vectors)


def checked_vectors(vectors: np.ndarray) -> Float32[np.ndarray, "rows dim"]:
    """Check as :func:`xmodal.embeddings.unit_rows` does, block by block and without a copy: for arrays in files.

    Raises:
        ValueError: If they are no float32 matrix of unit vectors.
    """
    if vectors.dtype != np.float32 or vectors.ndim != 2:
        raise ValueError(f"vectors must be float32 [rows, dim], got {vectors.dtype} {list(vectors.shape)}")
    for start in range(0, len(vectors), _BLOCK_ROWS):
        unit_rows(vectors[start : start + _BLOCK_ROWS], f"vectors from {start} on")
    return vectors


def scan(
    vectors: Float32[np.ndarray, "rows dim"],
    queries: Float32[np.ndarray, "queries dim"],
    k: int,
    among: Int64[np.ndarray, " allowed"] | None = None,
) -> tuple[Scores, Rows]:
    """Compare every query with every row, or with the rows in ``among`` (rising), and keep the best ``k``.

    Products are summed in float64 and rounded once, so that equal vectors get equal scores whatever their place in a
    matrix product, and a query scores the same alone and in a batch.
    """
    candidates = np.arange(len(vectors)) if among is None else among
    block = max(1, _BLOCK_SCORES // len(candidates))
    found = [
        _scan_block(vectors, queries[start : start + block], k, candidates) for start in range(0, len(queries), block)
    ]
    scores, columns = (np.concatenate(part) for part in zip(*found, strict=True))
    return scores, candidates[columns]


def _scan_block(vectors: np.ndarray, queries: np.ndarray, k: int, candidates: np.ndarray) -> tuple[Scores, Rows]:
    scores = np.empty((len(queries), len(candidates)), np.float32)
    for start in range(0, len(candidates), _BLOCK_ROWS):
        part = vectors[candidates[start : start + _BLOCK_ROWS]].astype(np.float64)
        scores[:, start : start + _BLOCK_ROWS] = queries.astype(np.float64) @ part.T
    return top_k(scores, k)


def scan_single(
    vectors: Float32[np.ndarray, "rows dim"],
    queries: Float32[np.ndarray, "queries dim"],
    k: int,
    among: Int64[np.ndarray, " allowed"] | None = None,
) -> tuple[Scores, Rows]:
    """Compare as :func:`scan` does, in single precision: for many rows, of which no more than a block is copied.

    Matrix products of NumPy, a block of rows at a time. Behind the first block only what beats the worst of the best
    ``k`` so far is looked at, so that hardly more than the products themselves is computed.
    """
    found = [
        _scan_single_block(vectors, queries[start : start + _BLOCK_QUERIES], k, among)
        for start in range(0, len(queries), _BLOCK_QUERIES)
    ]
    scores, rows = (np.concatenate(part) for part in zip(*found, strict=True))
    return scores, rows


def _scan_single_block(
    vectors: np.ndarray, queries: np.ndarray, k: int, among: Int64[np.ndarray, " allowed"] | None
) -> tuple[Scores, Rows]:
    count = len(vectors) if among is None else len(among)

    def compared(start: int, stop: int) -> np.ndarray:
        # Rows first: BLAS is up to a third quicker so when there are few queries.
        scores: np.ndarray = (vectors[start:stop] if among is None else vectors[among[start:stop]]) @ queries.T
        return scores

    seen = min(count, max(k, _FIRST_ROWS))
    best, places = top_k(compared(0, seen).T, k)
    for start in range(seen, count, _BLOCK_ROWS):
        scores = compared(start, min(start + _BLOCK_ROWS, count))
        # A later row of the same score is worse, so only what is above counts.
        row, query = np.divmod(np.flatnonzero(scores > best[:, -1]), len(queries))
        if len(query):
            by_query = np.argsort(query, kind="stable")
            row, query = row[by_query], query[by_query]
            best, places = _merged(best, places, query, row + start, scores[row, query])
    return best, places if among is None else among[places]


def _merged(best: Scores, places: Rows, query: np.ndarray, place: np.ndarray, score: np.ndarray) -> tuple[Scores, Rows]:
    """The best so far and what was found for some queries (rising, and so the places of each), as many as before."""
    k, counts = best.shape[1], np.bincount(query, minlength=len(best))
    column = k + np.arange(len(query)) - (counts.cumsum() - counts)[query]  # behind the best, query by query
    together = np.full((len(best), k + counts.max()), -np.inf, np.float32)
    where = np.zeros(together.shape, np.int64)
    together[:, :k], where[:, :k] = best, places
    together[query, column], where[query, column] = score, place
    # All places so far are lower than the new ones, so of equal scores the lower place wins here too.
    scores, chosen = top_k(together, k)
    return scores, np.take_along_axis(where, chosen, axis=1)


def top_k(scores: Float32[np.ndarray, "queries candidates"], k: int) -> tuple[Scores, Rows]:
    """Find the best ``k`` columns of each row, best first; of equal scores the lower column wins.

    Raises:
        ValueError: If ``k`` is not from 1 to the number of columns.
    """
    columns = scores.shape[1]
    if not 1 <= k <= columns:
        raise ValueError(f"k must be from 1 to the {columns} candidates, got k={k}")
    last = np.partition(scores, columns - k, axis=1)[:, columns - k, None]
    above, level = scores > last, scores == last
    room = k - above.sum(axis=1, keepdims=True)
    chosen = above | (level & (level.cumsum(axis=1) <= room))  # exactly k a row
    best = np.nonzero(chosen)[1].reshape(len(scores), k)
    return in_order(np.take_along_axis(scores, best, axis=1), best)


def in_order(scores: Scores, rows: Rows) -> tuple[Scores, Rows]:
    """Sort each result list: higher scores first, equal scores in the order of their rows."""
    order = np.lexsort((rows, -scores), axis=1)
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)
