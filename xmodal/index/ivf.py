"""An inverted file of short codes, and whole vectors to compare the best candidates with.

The vectors are divided into lists by k-means (Sivic and Zisserman 2003); a search reads the lists nearest to the query.
In the lists lie codes: a byte a component, or product-quantised half bytes (Jégou et al. 2011; the four-bit kernel of
André et al. 2015). The best candidates by code are compared once more with the whole vectors, so scores are exact
cosines, and only the codes need to be in memory: the vectors may stay in their file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float32, Int64

from xmodal.index.base import Allowed, Index, Rows, Scores
from xmodal.index.exact import checked_vectors
from xmodal.index.faiss import (
    DEAD_SHARE,
    Slots,
    faiss,
    nearest,
    read_faiss,
    refuse_mapped,
    search_slots,
    stored,
    write_array,
    write_faiss,
)

Codes = Literal["int8", "pq"]
_TRAINING_ROWS_A_LIST = 40  # with fewer k-means warns; with more it only takes longer
_LEAST = {"int8": 40, "pq": 256}  # candidates compared with whole vectors, however small k: a row must find itself
_ROUNDS = 10  # of k-means; the lists hardly move after them
_GROWTH = 4  # times the rows it was trained on; then the lists are too long and are made again


class IvfIndex(Index):
    """Lists of codes in memory, whole vectors to refine with.

    Lists and codes are learned from the first vectors that are added, and again when there are four times as many. A
    removed row stays as a dead slot until a quarter is dead.

    Args:
        space_id: Identity of the space of all vectors.
        dim: Length of each vector.
        codes: ``pq`` (``dim / 4`` bytes a row, compared sixteen at a time) or ``int8`` (``dim`` bytes a row, four times
            slower, and nearer to the truth where vectors lie in no clusters).
        lists: Number of lists; None: four times the root of the number of rows.
        probes: Lists that a search reads; None: a thirty-second of the lists, at least 8.
        refine: Candidates by code, as a multiple of ``k``, that are compared with their whole vectors; None: 4 for
            ``int8`` and 16 for ``pq``.
    """

    kind = "ivf"

    def __init__(
        self,
        space_id: str,
        dim: int,
        *,
        codes: Codes = "pq",
        lists: int | None = None,
        probes: int | None = None,
        refine: int | None = None,
    ) -> None:
        super().__init__(space_id, dim)
        if codes not in get_args(Codes):
            raise ValueError(f"codes must be int8 or pq, got {codes!r}")
        for name, value in (("lists", lists), ("probes", probes), ("refine", refine)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.codes, self.lists, self.probes, self.refine = codes, lists, probes, refine
        self._codes: Any = None  # made when the first vectors are there to learn from
        self._exact = faiss.IndexFlatIP(dim)
        self._both: Any = None  # codes and vectors as one index of FAISS, which searches share
        self._slots = Slots(np.empty(0, np.int64), 0)
        self._trained_on = 0
        self._mapped = False

    @property
    def settings(self) -> dict[str, Any]:
        """What was chosen; None stands for what follows from the number of rows."""
        return {"codes": self.codes, "lists": self.lists, "probes": self.probes, "refine": self.refine}

    def vectors(self, rows: Sequence[int] | np.ndarray | None = None) -> Float32[np.ndarray, "rows dim"]:
        """Give the vectors of some rows, or of all, in order; not to be written to."""
        return stored(self._exact)[self._slots.of(None if rows is None else np.asarray(rows, np.int64))]

    def _append(self, vectors: Float32[np.ndarray, "new dim"]) -> None:
        refuse_mapped(self._mapped)
        self._exact.add(vectors)
        self._slots = self._slots.extended(int(self._exact.ntotal))
        if self._codes is None or len(self._slots.rows) > _GROWTH * self._trained_on:
            self._learn(stored(self._exact))
        else:
            self._codes.add(vectors)
        self._both = faiss.IndexRefine(self._codes, self._exact)

    def _keep(self, rows: Int64[np.ndarray, " kept"]) -> None:
        refuse_mapped(self._mapped)
        if len(rows) >= (1 - DEAD_SHARE) * self._slots.total:
            self._slots = self._slots.kept(rows)
            return
        kept = self.vectors(rows)
        self._exact = faiss.IndexFlatIP(self.dim)
        self._codes, self._both, self._slots, self._trained_on = None, None, Slots(np.empty(0, np.int64), 0), 0
        if len(kept):
            self._append(kept)

    def _learn(self, vectors: Float32[np.ndarray, "rows dim"]) -> None:
        lists = min(self.lists or round(4 * math.sqrt(len(vectors))), max(1, len(vectors) // 39))
        code = "SQ8" if self.codes == "int8" else f"PQ{_sub_quantisers(self.dim)}x4fs"
        if self.codes == "pq" and len(vectors) < 16 * 39:
            code = "SQ8"  # too few to learn sixteen centres from
        index = faiss.index_factory(self.dim, f"IVF{lists},{code}", faiss.METRIC_INNER_PRODUCT)
        index.cp.max_points_per_centroid = _TRAINING_ROWS_A_LIST
        index.cp.niter = _ROUNDS
        index.cp.min_points_per_centroid = 1  # small indexes are allowed to be coarse
        # An even stride and not the head: exports are often sorted.
        step = max(1, len(vectors) // max(_TRAINING_ROWS_A_LIST * lists, 65_536))
        index.train(np.ascontiguousarray(vectors[::step]))
        index.add(vectors)
        self._codes, self._trained_on = index, len(vectors)

    def _nearest(self, queries: np.ndarray, k: int, among: Allowed | None, breadth: int | None) -> tuple[Scores, Rows]:
        lists = int(self._codes.nlist)
        probes = breadth or self.probes or max(8, lists // 32)
        if among is not None:  # as many of the allowed rows as a search of all would see
            probes = probes * len(self) // len(among)
        times = self.refine or (4 if self.codes == "int8" else 16)
        least = _LEAST[self.codes]

        def look(asked: int, selector: Any) -> tuple[Scores, Rows]:
            make = _parameters if selector is None else _parameters.__wrapped__
            return nearest(self._both, queries, asked, make(min(lists, probes), max(times, least / asked), selector))

        return search_slots(self._exact, self._slots, queries, k, among, look)

    def _write(self, data: Path) -> None:
        write_faiss(self._exact, data / "vectors.faiss")
        write_array(self._slots.rows, data / "slots.npy")
        write_array(np.array([self._trained_on]), data / "trained_on.npy")
        if self._codes is not None:
            write_faiss(self._codes, data / "codes.faiss")

    def _read(self, data: Path, mmap: bool) -> int:
        self._exact = read_faiss(data / "vectors.faiss", faiss.IndexFlat, self.dim, mmap)
        checked_vectors(stored(self._exact))
        self._slots = Slots(np.load(data / "slots.npy", allow_pickle=False), int(self._exact.ntotal))
        self._trained_on = int(np.load(data / "trained_on.npy", allow_pickle=False)[0])
        if self._slots.total:
            self._codes = read_faiss(data / "codes.faiss", faiss.IndexIVF, self.dim, mmap=False)
            if self._codes.ntotal != self._slots.total:
                raise ValueError(f"{self._codes.ntotal} codes of {self._slots.total} vectors")
            self._both = faiss.IndexRefine(self._codes, self._exact)
        self._mapped = mmap
        return len(self._slots.rows)


@lru_cache(maxsize=64)  # a single query feels it when they are made; a search reads them and nothing changes them
def _parameters(probes: int, factor: float, selector: Any) -> Any:
    inner = faiss.SearchParametersIVF(nprobe=probes, sel=selector)
    return faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=inner)


def _sub_quantisers(dim: int) -> int:
    """Half bytes of a product-quantised row: one for every two components, or as near to it as divides ``dim``."""
    return next(parts for parts in range(max(1, dim // 2), 0, -1) if dim % parts == 0)
