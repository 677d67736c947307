"""FAISS engines: ``flat`` compares every row, ``hnsw`` walks a graph (Malkov and Yashunin 2018).

The only module that imports faiss. What a search may choose goes with each call as search parameters and is never set
on the shared index, so searches in many threads cannot change one another's results.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import faiss as _faiss
import numpy as np
from jaxtyping import Float32, Int64

from xmodal.index.base import Allowed, Index, Rows, Scores, walk_breadth
from xmodal.index.exact import checked_vectors, in_order, scan, scan_single

faiss: Any = _faiss  # its type stubs leave out what its Python side adds

DEAD_SHARE = 0.25  # of the slots; above it a removal builds the structure again
SCAN_SHARE = 0.1  # a search among fewer rows than this, or for more, compares them all: shortcuts lose some there
_SMALL_SCAN = 4_096  # allowed rows up to which they are copied together and compared in double precision
_FEW_QUERIES = 4  # below it FAISS passes over what is not allowed sooner than that it is copied together for products
_ASKED = 16  # times k that a search among some rows asks for: what cannot give them was looking in the wrong place


class FlatIndex(Index):
    """Every row compared, in single precision: exact up to the rounding of float32."""

    kind = "flat"

    def __init__(self, space_id: str, dim: int) -> None:
        super().__init__(space_id, dim)
        self._index = faiss.IndexFlatIP(dim)
        self._mapped = False

    @property
    def settings(self) -> dict[str, Any]:
        """Nothing: a flat search has nothing to choose."""
        return {}

    def vectors(self, rows: Sequence[int] | np.ndarray | None = None) -> Float32[np.ndarray, "rows dim"]:
        """Give the vectors of some rows, or of all, in order; not to be written to."""
        return np.array(stored(self._index) if rows is None else stored(self._index)[np.asarray(rows, np.int64)])

    def _append(self, vectors: Float32[np.ndarray, "new dim"]) -> None:
        refuse_mapped(self._mapped)
        self._index.add(vectors)

    def _keep(self, rows: Int64[np.ndarray, " kept"]) -> None:
        refuse_mapped(self._mapped)
        kept = stored(self._index)[rows]
        self._index = faiss.IndexFlatIP(self.dim)
        self._index.add(kept)

    def _nearest(self, queries: np.ndarray, k: int, among: Allowed | None, breadth: int | None) -> tuple[Scores, Rows]:
        return compare_all(stored(self._index), self._index, queries, k, among)

    def _write(self, data: Path) -> None:
        write_faiss(self._index, data / "vectors.faiss")

    def _read(self, data: Path, mmap: bool) -> int:
        self._index = read_faiss(data / "vectors.faiss", faiss.IndexFlat, self.dim, mmap)
        self._mapped = mmap
        checked_vectors(stored(self._index))
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
        ef_search: Candidates looked at by a search; at least twice ``k`` are. None: one for every 4,000 rows, from 64
            to 512. The more rows there are, the more often a short walk ends in the wrong part of the graph.
    """

    kind = "hnsw"

    def __init__(
        self, space_id: str, dim: int, *, links: int = 32, ef_construction: int = 80, ef_search: int | None = None
    ) -> None:
        super().__init__(space_id, dim)
        if links < 2 or ef_construction < 1 or (ef_search is not None and ef_search < 1):
            raise ValueError(
                "hnsw needs links of at least 2, ef_construction and ef_search of at least 1, got "
                f"links={links}, ef_construction={ef_construction}, ef_search={ef_search}"
            )
        self.links, self.ef_construction, self.ef_search = links, ef_construction, ef_search
        self._graph = self._empty_graph()
        self._slots = Slots(np.empty(0, np.int64), 0)
        self._mapped = False

    @property
    def settings(self) -> dict[str, Any]:
        """The graph's parameters; None stands for what follows from the number of rows."""
        return {"links": self.links, "ef_construction": self.ef_construction, "ef_search": self.ef_search}

    def vectors(self, rows: Sequence[int] | np.ndarray | None = None) -> Float32[np.ndarray, "rows dim"]:
        """Give the vectors of some rows, or of all, in order; not to be written to."""
        return stored(self._graph)[self._slots.of(None if rows is None else np.asarray(rows, np.int64))]

    def _empty_graph(self) -> Any:
        graph = faiss.IndexHNSWFlat(self.dim, self.links, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = self.ef_construction
        return graph

    def _append(self, vectors: Float32[np.ndarray, "new dim"]) -> None:
        refuse_mapped(self._mapped)
        self._graph.add(vectors)
        self._slots = self._slots.extended(int(self._graph.ntotal))

    def _keep(self, rows: Int64[np.ndarray, " kept"]) -> None:
        refuse_mapped(self._mapped)
        if len(rows) >= (1 - DEAD_SHARE) * self._graph.ntotal:
            self._slots = self._slots.kept(rows)
            return
        kept = self.vectors(rows)
        self._graph, self._slots = self._empty_graph(), Slots(np.empty(0, np.int64), 0)
        self._append(kept)

    def _nearest(self, queries: np.ndarray, k: int, among: Allowed | None, breadth: int | None) -> tuple[Scores, Rows]:
        ef = max(breadth or self.ef_search or walk_breadth(len(self)), 2 * k)

        def walk(asked: int, selector: Any) -> tuple[Scores, Rows]:
            # Dead and forbidden nodes lie on the way as well, so the walk must be as much longer.
            make = _parameters if selector is None else _parameters.__wrapped__
            return nearest(self._graph, queries, asked, make(max(ef, asked), selector))

        return search_slots(self._graph, self._slots, queries, k, among, walk)

    def _write(self, data: Path) -> None:
        write_faiss(self._graph, data / "graph.faiss")
        write_array(self._slots.rows, data / "slots.npy")

    def _read(self, data: Path, mmap: bool) -> int:
        self._graph = read_faiss(data / "graph.faiss", faiss.IndexHNSWFlat, self.dim, mmap)
        self._mapped = mmap
        checked_vectors(stored(self._graph))
        self._slots = Slots(np.load(data / "slots.npy", allow_pickle=False), int(self._graph.ntotal))
        return len(self._slots.rows)


@lru_cache(maxsize=64)  # a single query feels it when they are made; a search reads them and nothing changes them
def _parameters(ef: int, selector: Any) -> Any:
    return faiss.SearchParametersHNSW(efSearch=ef, sel=selector)


class Slots:
    """The slot of a structure that each row lies in, rising; slots of no row are dead. It never changes.

    Raises:
        ValueError: If the slots are not rising numbers below ``total``.
    """

    def __init__(self, rows: Int64[np.ndarray, " rows"], total: int) -> None:
        if rows.dtype != np.int64 or not _rising_below(rows, total):
            raise ValueError("the slots do not name places in the index")
        self.rows, self.total = rows, total
        # Made once and not in each search: a bit for every slot of a large index takes longer than the search.
        self.alive = None if len(rows) == total else bitmap(rows, total)

    def of(self, rows: Int64[np.ndarray, " rows"] | None) -> Int64[np.ndarray, " rows"]:
        """Slots of some rows, or of all."""
        return self.rows if rows is None else self.rows[rows]

    def rows_at(self, slots: np.ndarray) -> np.ndarray:
        """The rows in some living slots."""
        return slots if self.alive is None else np.searchsorted(self.rows, slots)

    def extended(self, total: int) -> Slots:
        """With a row more for each new slot."""
        return Slots(np.concatenate([self.rows, np.arange(self.total, total)]), total)

    def kept(self, rows: Int64[np.ndarray, " kept"]) -> Slots:
        """With these rows alone."""
        return Slots(self.rows[rows], self.total)


def search_slots(
    whole: Any, slots: Slots, queries: np.ndarray, k: int, among: Allowed | None, walk: Any
) -> tuple[Scores, Rows]:
    """Search by a shortcut where it is safe, and compare all allowed rows where it is not.

    A shortcut looks at the part of the space around the query. It is not safe if few rows are allowed, if many are
    asked for, or if what is allowed lies elsewhere ("piano" among metal). The last shows in that it finds less than it
    is asked for, so among some rows it is asked for more than ``k``.

    Args:
        whole: A graph or a flat index of FAISS, which holds all slots' vectors.
        slots: Which of them are rows.
        queries: Unit vectors.
        k: From 1 to the number of rows searched.
        among: The rows to search.
        walk: ``walk(k, selector)`` gives scores and slots, a slot of -1 where it found no more.
    """
    pool = len(slots.rows) if among is None else len(among)
    if pool < SCAN_SHARE * len(slots.rows) or k > SCAN_SHARE * pool:
        return _compare_slots(whole, slots, queries, k, among)
    asked = k if among is None else _ASKED * k
    if asked > pool:
        return _compare_slots(whole, slots, queries, k, among)
    scores, found = walk(asked, slots.alive if among is None else bitmap(slots.of(among), slots.total))
    short = found[:, -1] < 0
    if asked > k:
        scores, found = scores[:, :k], found[:, :k]
    rows = slots.rows_at(found)
    if np.count_nonzero(short):  # a third of what any() takes, which a single query feels
        scores, rows = scores.copy(), rows.copy()
        scores[short], rows[short] = _compare_slots(whole, slots, queries[short], k, among)
    return ordered(scores, rows)


def _compare_slots(whole: Any, slots: Slots, queries: np.ndarray, k: int, among: Allowed | None) -> tuple[Scores, Rows]:
    alive = among is not None or slots.alive is not None
    scores, found = compare_all(stored(whole), storage(whole), queries, k, slots.of(among) if alive else None)
    return scores, slots.rows_at(found)


def compare_all(
    vectors: Float32[np.ndarray, "slots dim"], flat: Any, queries: np.ndarray, k: int, among: np.ndarray | None
) -> tuple[Scores, Rows]:
    """Compare every slot, or those in ``among`` (rising), in the way that is quickest for so many of both.

    Args:
        vectors: All slots' vectors.
        flat: The same as a flat index of FAISS.
        queries: Unit vectors.
        k: From 1 to the number of slots compared.
        among: The slots to compare; None for all.
    """
    if among is not None and len(among) <= _SMALL_SCAN:
        return scan(vectors, queries, k, among)
    if among is not None and len(queries) < _FEW_QUERIES:
        chosen = faiss.SearchParameters(sel=bitmap(among, len(vectors)))
        return ordered(*nearest(flat, queries, k, chosen))
    return ordered(*scan_single(vectors, queries, k, among))


def ordered(scores: Scores, rows: Rows) -> tuple[Scores, Rows]:
    """Put rows of equal score in order; FAISS has sorted by score."""
    if scores.shape[1] > 1 and np.count_nonzero(scores[:, 1:] >= scores[:, :-1]):
        return in_order(scores, rows)
    return scores, rows


def nearest(index: Any, queries: np.ndarray, k: int, chosen: Any) -> tuple[Scores, Rows]:
    """FAISS's own search with parameters of its own, whoever else uses FAISS in this process.

    ``faiss.contrib.torch_utils``, which pytorch-metric-learning imports, puts a search in place of it that takes no
    parameters, and keeps it under another name.
    """
    search = index.search_numpy if hasattr(type(index), "search_numpy") else index.search
    found: tuple[Scores, Rows] = search(queries, k, params=chosen)
    return found


def storage(index: Any) -> Any:
    """The flat index inside a graph, or the index itself."""
    return faiss.downcast_index(index.storage) if isinstance(index, faiss.IndexHNSW) else index


def stored(index: Any) -> Float32[np.ndarray, "slots dim"]:
    """See the vectors of a flat index or a graph as an array, without a copy: only until the next one is added."""
    flat = storage(index)
    if not flat.ntotal:
        return np.empty((0, flat.d), np.float32)
    view: np.ndarray = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(flat.ntotal, flat.d)
    return view


def bitmap(slots: Int64[np.ndarray, " allowed"], total: int) -> Any:
    """A selector of some slots."""
    allowed = np.zeros(total, bool)
    allowed[slots] = True
    return faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))


def refuse_mapped(mapped: bool) -> None:
    """Refuse to change an index that lies in its files (ValueError)."""
    if mapped:
        raise ValueError("an index that was opened with mmap=True cannot be changed; open it without to change it")


def _rising_below(slots: np.ndarray, total: int) -> bool:
    return slots.ndim == 1 and (
        not len(slots) or bool(slots[0] >= 0 and slots[-1] < total and (np.diff(slots) > 0).all())
    )


def write_faiss(index: Any, path: Path) -> None:
    """Write an index of FAISS, or raise."""
    # Through Python's own file: faiss's writer does not notice a disk that is full when it closes.
    with path.open("wb") as stream:
        faiss.write_index(index, faiss.PyCallbackIOWriter(stream.write))


def write_array(array: np.ndarray, path: Path) -> None:
    """Write an array, or raise."""
    with path.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)


def read_faiss(path: Path, cls: Any, dim: int, mmap: bool) -> Any:
    """Read an index of FAISS of one class and dimension.

    Raises:
        ValueError: If the file holds another.
    """
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mmap else 0)
    if not isinstance(index, cls) or index.d != dim:
        raise ValueError(f"{path.name} holds a {type(index).__name__} of {index.d} dimensions, {dim} promised")
    return index
