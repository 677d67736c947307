"""What every index promises.

A row is a position in ``ids``; rows close up when something before them is removed. Scores are cosines, higher is
better. Searches may run side by side in many threads; ``add`` and ``remove`` may not run beside anything else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int64

from xmodal.embeddings import Embeddings, metadata_rows, metadata_table, read_parquet, unit_rows, write_parquet
from xmodal.errors import IndexFormatError, SpaceMismatchError
from xmodal.index.folder import REBUILD, checked_data, read_manifest, save_folder

FLAT_LIMIT = 50_000  # above it, "auto" takes the graph: a flat search of 100,000 x 512 already costs 10 ms

# Engines are named, not imported: each brings a library of its own.
ENGINES = {
    "exact": ("xmodal.index.exact", "ExactIndex"),
    "flat": ("xmodal.index.faiss", "FlatIndex"),
    "hnsw": ("xmodal.index.faiss", "HnswIndex"),
}

Scores = Float32[np.ndarray, "queries k"]
Rows = Int64[np.ndarray, "queries k"]


class Index(ABC):
    """Vectors of one space that can be searched.

    The base class keeps ids, metadata and the rules; an engine keeps the vectors and fills in the methods below.
    ``build`` makes an index from an export, ``load`` (or :func:`load_index`) reads one from a folder.

    Args:
        space_id: Identity of the space of all vectors.
        dim: Length of each vector.
    """

    kind: ClassVar[str]

    def __init__(self, space_id: str, dim: int) -> None:
        self.space_id = space_id
        self.dim = dim
        self.ids: list[str] = []
        self.metadata: list[dict[str, Any]] = []
        self.model: str | None = None
        self._row_of: dict[str, int] = {}

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments after ``dim``, as JSON knows them."""

    @abstractmethod
    def vectors(self, rows: Sequence[int] | np.ndarray | None = None) -> Float32[np.ndarray, "rows dim"]:
        """Give the vectors of some rows, or of all, in order; not to be written to."""

    @abstractmethod
    def _append(self, vectors: Float32[np.ndarray, "new dim"]) -> None: ...

    @abstractmethod
    def _keep(self, rows: Int64[np.ndarray, " kept"]) -> None:
        """Forget all rows but these (in order)."""

    @abstractmethod
    def _nearest(self, queries: np.ndarray, k: int, among: Int64[np.ndarray, " allowed"] | None) -> tuple[Scores, Rows]:
        """Find the best ``k`` of at least ``k`` rows, best first; equal scores in the order of their rows."""

    @abstractmethod
    def _write(self, data: Path) -> None:
        """Write the vectors to files in a folder, or raise."""

    @abstractmethod
    def _read(self, data: Path) -> int:
        """Take the vectors from those files and say how many; raise ValueError, RuntimeError or OSError if it fails."""

    @classmethod
    def build(cls, embeddings: Embeddings, **settings: Any) -> Self:
        """Make an index of an export; ``settings`` are the engine's own constructor arguments."""
        index = cls(embeddings.space_id, embeddings.dim, **settings)
        index.model = embeddings.model
        index.add(embeddings)
        return index

    def __len__(self) -> int:
        return len(self.ids)

    def rows_of(self, ids: Sequence[str]) -> Int64[np.ndarray, " ids"]:
        """Find the rows of some ids.

        Raises:
            ValueError: If the index does not hold one of them.
        """
        unknown = [id_ for id_ in ids if id_ not in self._row_of]
        if unknown:
            raise ValueError(f"the index holds no {_some(unknown)}; ids are listed by: xmodal index info DIR --ids")
        return np.array([self._row_of[id_] for id_ in ids], dtype=np.int64)

    def search(
        self,
        queries: Float32[np.ndarray, "queries dim"],
        k: int,
        *,
        space_id: str,
        among: Sequence[int] | np.ndarray | None = None,
    ) -> tuple[Scores, Rows]:
        """Find the best ``k`` rows for each query.

        Args:
            queries: Unit vectors; no query at all gives empty results.
            k: Length of each result list; cut to the number of rows searched.
            space_id: Identity of the space of the queries.
            among: Search only these rows; all by default.

        Returns:
            Cosines and rows, best first; equal scores in the order of their rows.

        Raises:
            ValueError: If ``k`` is below 1, a query is not a finite unit vector, or ``among`` names no row.
            SpaceMismatchError: If the queries are of another space or dimension.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got k={k}")
        queries = np.asarray(queries, dtype=np.float32)
        self._check_space(space_id, queries.shape[-1] if queries.ndim == 2 else self.dim, "the query")
        queries = unit_rows(queries, "queries")
        allowed = None if among is None else self._check_rows(among)
        k = min(k, len(self) if allowed is None else len(allowed))
        if not len(queries) or not k:
            return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        return self._nearest(queries, k, allowed)

    def add(self, embeddings: Embeddings) -> None:
        """Append an export of the same space; nothing is added when one of its ids is there already.

        Raises:
            ValueError: If an id is in the index already.
            SpaceMismatchError: If the export is of another space or dimension.
        """
        self._check_space(embeddings.space_id, embeddings.dim, "the export")
        known = [id_ for id_ in embeddings.ids if id_ in self._row_of]
        if known:
            raise ValueError(f"each id may be in the index once, and it holds {_some(known)} already; remove it first")
        if len(embeddings):
            self._append(embeddings.vectors)
        self._row_of.update((id_, row) for row, id_ in enumerate(embeddings.ids, start=len(self)))
        self.ids.extend(embeddings.ids)
        self.metadata.extend(embeddings.metadata)

    def remove(self, ids: Sequence[str]) -> None:
        """Forget some ids; nothing is removed when the index does not hold one of them (ValueError)."""
        gone = set(self.rows_of(ids).tolist())
        kept = [row for row in range(len(self)) if row not in gone]
        if gone:
            self._keep(np.array(kept, dtype=np.int64))
        self.ids = [self.ids[row] for row in kept]
        self.metadata = [self.metadata[row] for row in kept]
        self._row_of = {id_: row for row, id_ in enumerate(self.ids)}

    def save(self, folder: str | Path) -> None:
        """Write the index to a folder, in place of an index that is there; other files there are left alone.

        Raises:
            ValueError: If a metadata value cannot be written as JSON; the folder's old index stays then.
        """
        facts = {
            "kind": self.kind,
            "space_id": self.space_id,
            "dim": self.dim,
            "count": len(self),
            "model": self.model,
            "settings": self.settings,
        }
        save_folder(folder, facts, self._write_all)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read an index of this kind; :func:`load_index` reads any kind.

        Raises:
            IndexFormatError: If the folder holds no index of this kind, or a damaged one.
        """
        index = load_index(folder)
        if not isinstance(index, cls):
            raise IndexFormatError(f"{folder}: this is an index of kind {index.kind!r}, not {cls.kind!r}; {REBUILD}")
        return index

    def _write_all(self, data: Path) -> None:
        facts = metadata_table(self.metadata)
        fields = pa.schema([pa.field("id", pa.string(), nullable=False), *facts.schema])
        items = pa.table([pa.array(self.ids, pa.string()), *facts.columns], schema=fields)
        write_parquet(items, data / "items.parquet")
        self._write(data)

    def _read_all(self, data: Path) -> int:
        items = read_parquet(data / "items.parquet", remedy=REBUILD)
        self.ids = items["id"].to_pylist()
        self.metadata = metadata_rows(items)
        self._row_of = {id_: row for row, id_ in enumerate(self.ids)}
        return self._read(data)

    def _check_space(self, space_id: str, dim: int, what: str) -> None:
        if (space_id, dim) != (self.space_id, self.dim):
            raise SpaceMismatchError(
                f"the index holds {self.dim}-dim vectors of space {self.space_id} but {what} has {dim}-dim vectors of "
                f"space {space_id}; use the model that made the index, or make a new one with: xmodal embed AUDIO "
                "--model MODEL --out FILE.parquet, then xmodal index build FILE.parquet --out DIR"
            )

    def _check_rows(self, among: Sequence[int] | np.ndarray) -> Int64[np.ndarray, " allowed"]:
        rows = np.unique(np.asarray(among, dtype=np.int64))
        if len(rows) and not 0 <= rows[0] <= rows[-1] < len(self):
            raise ValueError(f"among must name rows from 0 to {len(self) - 1}, got {rows[0]} to {rows[-1]}")
        return rows


def build_index(embeddings: Embeddings, kind: str = "auto", **settings: Any) -> Index:
    """Make an index of an export.

    Args:
        embeddings: Ids, vectors and metadata.
        kind: ``exact`` (the reference), ``flat`` (FAISS, every row compared), ``hnsw`` (FAISS, a graph), or ``auto``:
            flat up to 50,000 rows, then hnsw.
        settings: The engine's own constructor arguments.

    Raises:
        ValueError: If the kind is unknown.
    """
    if kind == "auto":
        kind = "flat" if len(embeddings) <= FLAT_LIMIT else "hnsw"
    return engine(kind).build(embeddings, **settings)


def load_index(folder: str | Path) -> Index:
    """Read an index of any kind and check every file against its hash.

    Raises:
        IndexFormatError: If the folder holds no index, or it is damaged or of another version.
    """
    while True:
        manifest = read_manifest(folder)
        try:
            return _load(folder, manifest)
        except IndexFormatError:
            if read_manifest(folder) == manifest:  # else a save replaced the files under our hands: read the new ones
                raise


def _load(folder: str | Path, manifest: dict[str, Any]) -> Index:
    try:
        data = checked_data(folder, manifest)
        index = engine(manifest["kind"])(manifest["space_id"], manifest["dim"], **manifest["settings"])
        index.model = manifest["model"]
        vectors = index._read_all(data)
        if not vectors == len(index) == manifest["count"]:
            raise ValueError(f"{vectors} vectors, {len(index)} ids and a count of {manifest['count']}")
    except (ValueError, TypeError, LookupError, RuntimeError, OSError) as error:
        raise IndexFormatError(f"{folder}: the parts of the index do not fit together ({error}); {REBUILD}") from error
    return index


def engine(kind: str) -> type[Index]:
    """Import the class behind a kind (ValueError if there is none)."""
    if kind not in ENGINES:
        raise ValueError(f"kind must be one of auto, {', '.join(ENGINES)}, got {kind!r}")
    module, name = ENGINES[kind]
    cls: type[Index] = getattr(import_module(module), name)
    return cls


def _some(ids: Sequence[str]) -> str:
    return repr(ids[0]) if len(ids) == 1 else f"{ids[0]!r} and {len(ids) - 1} more"
