"""FAISS engines: ``flat`` compares every row, ``hnsw`` walks a graph (Malkov and Yashunin 2018).

The only module that imports faiss. What a search may choose goes with each call as search parameters and is never set
on the shared index, so searches in many threads cannot change one another's results.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss as _faiss
import numpy as np
from jaxtyping import Float32, Int64

from xmodal.embeddings import unit_rows
from xmodal.index.base import Index, Rows, Scores
from xmodal.index.exact import in_order, scan

faiss: Any = _faiss  # its type stubs leave out what its Python side adds

_DEAD_SHARE = 0.25  # of the graph's nodes; above it a removal builds the graph again
_SCAN_SHARE = 0.1  # a search among fewer rows than this, or for more, compares them all: the graph loses some there


class FlatIndex(Index):
    """Every row compared, by FAISS: exact up to the rounding of float32."""

    kind = "flat"

    def __init__(self, space_id: str, dim: int) -> None:
        super().__init__(space_id, dim)
        self._index = faiss.IndexFlatIP(dim)

    @property
    def settings(self) -> dict[str, Any]:
        """Nothing: a flat search has nothing to choose."""
        return {}

    def vectors(self, rows: Sequence[int] | np.ndarray | None = None) -> Float32[np.ndarray, "rows dim"]:
        """Give the vectors of some rows, or of all, in order; not to be written to."""
        stored = _stored(self._index)
        return stored.copy() if rows is None else stored[np.asarray(rows, np.int64)]

    def _append(self, vectors: Float32[np.ndarray, "new dim"]) -> None:
        self._index.add(vectors)

    def _keep(self, rows: Int64[np.ndarray, " kept"]) -> None:
        kept = _stored(self._index)[rows]
        self._index = faiss.IndexFlatIP(self.dim)
        self._index.add(kept)

    def _nearest(self, queries: np.ndarray, k: int, among: Int64[np.ndarray, " allowed"] | None) -> tuple[Scores, Rows]:
        chosen = None if among is None else faiss.SearchParameters(sel=_selector(among, len(self)))
        return in_order(*self._index.search(queries, k, params=chosen))

    def _write(self, data: Path) -> None:
        _write_faiss(self._index, data / "vectors.faiss")

    def _read(self, data: Path) -> int:
        self._index = _read_faiss(data / "vectors.faiss", faiss.IndexFlat, self.dim)
        return int(self._index.ntotal)


class HnswIndex(Index):
    """A graph of neighbours: finds nearly all of the best rows while it looks at few.

    FAISS cannot take a node out of such a graph. A removed row therefore stays as a dead node that searches pass
    through but never return, until a quarter of the nodes are dead and the graph is built again.

    Args:
        space_id: Identity of the space of all vectors.
        dim: Length of each vector.
        links: Neighbours a node keeps on each level (M in the paper).
        ef_construction: Candidates looked at when a node is linked.
        ef_search: Candidates looked at by a search; at least twice ``k`` are.
    """

    kind = "hnsw"

    def __init__(
        self, space_id: str, dim: int, *, links: int = 32, ef_construction: int = 80, ef_search: int = 64
    ) -> None:
        super().__init__(space_id, dim)
        if links < 2 or ef_construction < 1 or ef_search < 1:
            raise ValueError(
                "hnsw needs links of at least 2, ef_construction and ef_search of at least 1, got "
                f"links={links}, ef_construction={ef_construction}, ef_search={ef_search}"
            )
        self.links, self.ef_construction, self.ef_search = links, ef_construction, ef_search
        self._graph = self._empty_graph()
        self._slots = np.empty(0, np.int64)  # the graph's node of each row, rising

    @property
    def settings(self) -> dict[str, Any]:
        """The graph's parameters."""
        return {"links": self.links, "ef_construction": self.ef_construction, "ef_search": self.ef_search}

    def vectors(self, rows: Sequence[int] | np.ndarray | None = None) -> Float32[np.ndarray, "rows dim"]:
        """Give the vectors of some rows, or of all, in order; not to be written to."""
        return _stored(self._graph)[self._slots if rows is None else self._slots[np.asarray(rows, np.int64)]]

    def _empty_graph(self) -> Any:
        graph = faiss.IndexHNSWFlat(self.dim, self.links, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = self.ef_construction
        return graph

    def _append(self, vectors: Float32[np.ndarray, "new dim"]) -> None:
        first = self._graph.ntotal
        self._graph.add(vectors)
        self._slots = np.concatenate([self._slots, np.arange(first, self._graph.ntotal)])

    def _keep(self, rows: Int64[np.ndarray, " kept"]) -> None:
        if len(rows) >= (1 - _DEAD_SHARE) * self._graph.ntotal:
            self._slots = self._slots[rows]
            return
        kept = self.vectors(rows)
        self._graph, self._slots = self._empty_graph(), np.empty(0, np.int64)
        self._append(kept)

    def _nearest(self, queries: np.ndarray, k: int, among: Int64[np.ndarray, " allowed"] | None) -> tuple[Scores, Rows]:
        pool = len(self) if among is None else len(among)
        if pool < _SCAN_SHARE * len(self) or k > _SCAN_SHARE * pool:
            return self._scan(queries, k, among)
        chosen = faiss.SearchParametersHNSW(efSearch=max(self.ef_search, 2 * k))
        if pool < self._graph.ntotal:
            slots = self._slots if among is None else self._slots[among]
            chosen = faiss.SearchParametersHNSW(efSearch=chosen.efSearch, sel=_selector(slots, self._graph.ntotal))
        scores, slots = self._graph.search(queries, k, params=chosen)
        rows = np.searchsorted(self._slots, slots)
        short = (slots < 0).any(axis=1)  # the walk ended early: too many of the nodes on its way may not be returned
        if short.any():
            scores[short], rows[short] = self._scan(queries[short], k, among)
        return in_order(scores, rows)

    def _scan(self, queries: np.ndarray, k: int, among: Int64[np.ndarray, " allowed"] | None) -> tuple[Scores, Rows]:
        slots = self._slots if among is None else self._slots[among]
        scores, found = scan(_stored(self._graph), queries, k, slots)
        return scores, np.searchsorted(self._slots, found)

    def _write(self, data: Path) -> None:
        _write_faiss(self._graph, data / "graph.faiss")
        with (data / "slots.npy").open("wb") as stream:
            np.save(stream, self._slots, allow_pickle=False)

    def _read(self, data: Path) -> int:
        self._graph = _read_faiss(data / "graph.faiss", faiss.IndexHNSWFlat, self.dim)
        self._slots = np.load(data / "slots.npy", allow_pickle=False)
        if self._slots.dtype != np.int64 or not _rising_below(self._slots, self._graph.ntotal):
            raise ValueError("the slots do not name nodes of the graph")
        return len(self._slots)


def _stored(index: Any) -> Float32[np.ndarray, "slots dim"]:
    """See the vectors of a flat index or a graph as an array, without a copy: only until the next one is added."""
    flat = faiss.downcast_index(index.storage) if isinstance(index, faiss.IndexHNSW) else index
    if not flat.ntotal:
        return np.empty((0, flat.d), np.float32)
    view: np.ndarray = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(flat.ntotal, flat.d)
    return view


def _selector(slots: Int64[np.ndarray, " allowed"], total: int) -> Any:
    allowed = np.zeros(total, bool)
    allowed[slots] = True
    return faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))


def _rising_below(slots: np.ndarray, total: int) -> bool:
    return slots.ndim == 1 and (
        not len(slots) or bool(slots[0] >= 0 and slots[-1] < total and (np.diff(slots) > 0).all())
    )


def _write_faiss(index: Any, path: Path) -> None:
    # Through Python's own file: faiss's writer does not notice a disk that is full when it closes.
    with path.open("wb") as stream:
        faiss.write_index(index, faiss.PyCallbackIOWriter(stream.write))


def _read_faiss(path: Path, cls: Any, dim: int) -> Any:
    index = faiss.read_index(str(path))
    if not isinstance(index, cls) or index.d != dim:
        raise ValueError(f"{path.name} holds a {type(index).__name__} of {index.d} dimensions, {dim} promised")
    unit_rows(_stored(index), "vectors")
    return index
