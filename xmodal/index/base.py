"""What every index promises.

A row is the number by which ``ids``, ``metadata`` and ``vectors`` are looked up. In an embedded engine it is a
position, and rows close up when something before them is removed; in a database it is a key that stays. Scores are
cosines, higher is better. Any number of threads may search, add, remove, update and save at once: searches share the
index, and a change waits for those that are under way and has it alone. What a search gives is a row number, so whoever
looks up ids by rows beside a changing index does both inside ``with index.reading():``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Float32, Int64

from xmodal.embeddings import Embeddings, unit_rows
from xmodal.errors import IndexFormatError, SpaceMismatchError
from xmodal.index.folder import REBUILD, save_folder
from xmodal.index.items import Items
from xmodal.index.locks import ReadWriteLock
from xmodal.index.where import Condition, parse_where

Scores = Float32[np.ndarray, "queries k"]
Rows = Int64[np.ndarray, "queries k"]
Allowed = Int64[np.ndarray, " allowed"]


class Index(ABC):
    """Vectors of one space that can be searched.

    The base class keeps ids, metadata and the rules; an engine keeps the vectors and fills in the methods below.
    ``build`` makes an index from an export, ``xmodal.index.load_index`` reads one from a folder. An engine that keeps
    ids and metadata elsewhere as well (a database) replaces the methods that speak of ``_items``.

    Args:
        space_id: Identity of the space of all vectors.
        dim: Length of each vector.

    Attributes:
        model: Where the model was that made the vectors, if known.
        view: The settings in which that model was used where they differ from its folder's (pooling, hop, dim ...).
    """

    kind: ClassVar[str]

    def __init__(self, space_id: str, dim: int) -> None:
        self.space_id = space_id
        self.dim = dim
        self.model: str | None = None
        self.view: dict[str, Any] = {}
        self._items = Items()
        self._lock = ReadWriteLock()

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
    def _nearest(self, queries: np.ndarray, k: int, among: Allowed | None, breadth: int | None) -> tuple[Scores, Rows]:
        """Find the best ``k`` of at least ``k`` rows, best first; equal scores in the order of their rows."""

    @abstractmethod
    def _write(self, data: Path) -> None:
        """Write the vectors to files in a folder, or raise."""

    @abstractmethod
    def _read(self, data: Path, mmap: bool) -> int:
        """Take the vectors from those files and say how many; raise ValueError, RuntimeError or OSError if it fails."""

    @classmethod
    def build(cls, embeddings: Embeddings, **settings: Any) -> Self:
        """Make an index of an export; ``settings`` are the engine's own constructor arguments."""
        index = cls(embeddings.space_id, embeddings.dim, **settings)
        index.model, index.view = embeddings.model, dict(embeddings.view)
        index.add(embeddings)
        return index

    def __len__(self) -> int:
        return len(self._items.ids)

    @property
    def ids(self) -> Sequence[str]:
        """The id of each row."""
        return self._items.ids

    @property
    def metadata(self) -> Sequence[dict[str, Any]]:
        """What is known about each row."""
        return self._items.metadata

    def __contains__(self, id_: object) -> bool:
        with self.reading():
            return isinstance(id_, str) and self._known_rows([id_])[0] is not None

    def facts(self, rows: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
        """What is known about some rows, asked for at once: far faster than ``metadata`` row by row."""
        return self._items.metadata.take(np.asarray(rows, np.int64))

    def ids_of(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """The ids of some rows, asked for at once."""
        ids = self.ids
        return [ids[row] for row in np.asarray(rows, np.int64).tolist()]

    def values(self, key: str, rows: Sequence[int] | np.ndarray) -> list[Any]:
        """One key of the metadata of some rows; None where it is missing."""
        return self._items.metadata.values(key, np.asarray(rows, np.int64))

    def rows_of_tracks(self, tracks: Sequence[Any]) -> list[Int64[np.ndarray, " rows"]]:
        """Rows whose metadata name each of some tracks (``track``), rising: a track's windows; none gives no row."""
        with self.reading():
            return self._items.rows_of_tracks(tracks)

    def reading(self) -> AbstractContextManager[None]:
        """Keep changes out for as long as the block runs, so that row numbers stay what they are."""
        return self._lock.reading()

    def rows_of(self, ids: Sequence[str]) -> Int64[np.ndarray, " ids"]:
        """Find the rows of some ids.

        Raises:
            ValueError: If the index does not hold one of them.
        """
        with self.reading():
            rows = self._known_rows(ids)
        unknown = [id_ for id_, row in zip(ids, rows, strict=True) if row is None]
        if unknown:
            raise ValueError(f"the index holds no {_some(unknown)}; ids are listed by: xmodal index info DIR --ids")
        return np.array(rows, dtype=np.int64)

    def select(self, where: str | Sequence[str | Condition]) -> Int64[np.ndarray, " rows"]:
        """Rows whose metadata fulfil all conditions, rising (see :mod:`xmodal.index.where`)."""
        conditions = as_conditions(where)
        with self.reading():
            return self._select(conditions)

    def search(
        self,
        queries: Float32[np.ndarray, "queries dim"],
        k: int,
        *,
        space_id: str,
        among: Sequence[int] | np.ndarray | None = None,
        where: str | Sequence[str | Condition] = (),
        breadth: int | None = None,
    ) -> tuple[Scores, Rows]:
        """Find the best ``k`` rows for each query.

        Args:
            queries: Unit vectors; no query at all gives empty results.
            k: Length of each result list; cut to the number of rows searched.
            space_id: Identity of the space of the queries.
            among: Search only these rows; all by default.
            where: Search only rows whose metadata fulfil these conditions ("genre=rock", "year>=1990").
            breadth: How much this search looks at, for engines that do not look at everything: candidates of a graph
                (efSearch), lists of an inverted file (nprobe). None means the engine's own setting. It goes with the
                call and changes nothing for other searches.

        Returns:
            Cosines and rows, best first; equal scores in the order of their rows.

        Raises:
            ValueError: If ``k`` or ``breadth`` is below 1, a query is not a finite unit vector, ``among`` names no row,
                or ``where`` is no condition.
            SpaceMismatchError: If the queries are of another space or dimension.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got k={k}")
        if breadth is not None and breadth < 1:
            raise ValueError(f"breadth must be at least 1, got breadth={breadth}")
        queries = np.asarray(queries, dtype=np.float32)
        self._check_space(space_id, queries.shape[-1] if queries.ndim == 2 else self.dim, "the query")
        queries = unit_rows(queries, "queries")
        conditions = as_conditions(where) if where else ()
        with self.reading():
            allowed = None if among is None else self._check_rows(among)
            return self._search(queries, k, allowed, conditions, breadth)

    def add(self, embeddings: Embeddings) -> None:
        """Append an export of the same space; nothing is added when one of its ids is there already.

        Raises:
            ValueError: If an id is in the index already.
            SpaceMismatchError: If the export is of another space or dimension.
        """
        self._check_space(embeddings.space_id, embeddings.dim, "the export")
        with self._lock.writing():
            rows = self._known_rows(embeddings.ids)
            known = [id_ for id_, row in zip(embeddings.ids, rows, strict=True) if row is not None]
            if known:
                raise ValueError(
                    f"each id may be in the index once, and it holds {_some(known)} already; remove or update it"
                )
            self._add(embeddings)

    def remove(self, ids: Sequence[str]) -> None:
        """Forget some ids; nothing is removed when the index does not hold one of them (ValueError)."""
        with self._lock.writing():
            rows = np.unique(self.rows_of(ids))
            if len(rows):
                self._drop(rows)

    def update(self, embeddings: Embeddings) -> None:
        """Give ids that are there the vectors and metadata of an export of the same space, and add the others.

        Raises:
            SpaceMismatchError: If the export is of another space or dimension.
        """
        self._check_space(embeddings.space_id, embeddings.dim, "the export")
        with self._lock.writing():
            known = [row for row in self._known_rows(embeddings.ids) if row is not None]
            self._replace(np.array(known, np.int64), embeddings)

    def save(self, folder: str | Path) -> None:
        """Write the index to a folder, in place of an index that is there; other files there are left alone.

        Raises:
            ValueError: If a metadata value cannot be written as JSON; the folder's old index stays then.
        """
        with self.reading():
            facts = {
                "kind": self.kind,
                "space_id": self.space_id,
                "dim": self.dim,
                "count": len(self),
                "model": self.model,
                "view": self.view,
                "settings": self.settings,
            }
            save_folder(folder, facts, self._write_all)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read an index of this kind; ``xmodal.index.load_index`` reads any kind.

        Raises:
            IndexFormatError: If the folder holds no index of this kind, or a damaged one.
        """
        from xmodal.index.engines import load_index

        index = load_index(folder)
        if not isinstance(index, cls):
            raise IndexFormatError(f"{folder}: this is an index of kind {index.kind!r}, not {cls.kind!r}; {REBUILD}")
        return index

    def export(self, rows: Sequence[int] | np.ndarray | None = None) -> Embeddings:
        """Give some rows, or all, as an export: to move them to another index, or to a file."""
        with self.reading():
            if rows is None:
                ids, facts = list(self.ids), list(self.metadata)
            else:
                ids, facts = self.ids_of(rows), self.facts(rows)
            return Embeddings(ids, self.vectors(rows), self.space_id, facts, self.model, dict(self.view))

    def close(self) -> None:  # noqa: B027  (an engine in memory has nothing to give back)
        """Give back what the index holds outside of memory, such as connections; it is of no use afterwards."""

    def _known_rows(self, ids: Sequence[str]) -> list[int | None]:
        row_of = self._items.row_of
        return [row_of.get(id_) for id_ in ids]

    def _select(self, where: Sequence[Condition]) -> Allowed:
        return self._items.select(where)

    def _search(
        self, queries: np.ndarray, k: int, among: Allowed | None, where: Sequence[Condition], breadth: int | None
    ) -> tuple[Scores, Rows]:
        if where:
            chosen = self._select(where)
            among = chosen if among is None else np.intersect1d(chosen, among, assume_unique=True)
        k = min(k, len(self) if among is None else len(among))
        if not len(queries) or not k:
            return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        return self._nearest(queries, k, among, breadth)

    def _add(self, embeddings: Embeddings) -> None:
        # Metadata first: they can be refused, and then no vector is there without them.
        self._items.append(embeddings.ids, embeddings.metadata)
        if len(embeddings):
            try:
                self._append(embeddings.vectors)
            except BaseException:
                self._items.keep(np.arange(len(self) - len(embeddings)))
                raise

    def _replace(self, rows: Int64[np.ndarray, " gone"], embeddings: Embeddings) -> None:
        if len(rows):
            self._drop(rows)
        self._add(embeddings)

    def _drop(self, rows: Int64[np.ndarray, " gone"]) -> None:
        kept = np.delete(np.arange(len(self)), rows)
        self._keep(kept)
        self._items.keep(kept)

    def _write_all(self, data: Path) -> None:
        self._items.write(data / "items.parquet")
        self._write(data)

    def _read_all(self, data: Path, mmap: bool) -> int:
        self._items = Items.read(data / "items.parquet", remedy=REBUILD)
        return self._read(data, mmap)

    def _check_space(self, space_id: str, dim: int, what: str) -> None:
        if (space_id, dim) != (self.space_id, self.dim):
            seen = f" as seen by {self.view}" if self.view else ""
            raise SpaceMismatchError(
                f"the index holds {self.dim}-dim vectors of space {self.space_id}{seen} but {what} has {dim}-dim "
                f"vectors of space {space_id}; use the model that made the index, or make a new one with: xmodal embed "
                "AUDIO --model MODEL --out FILE.parquet, then xmodal index build FILE.parquet --out DIR"
            )

    def _check_rows(self, among: Sequence[int] | np.ndarray) -> Allowed:
        rows = np.unique(np.asarray(among, dtype=np.int64))
        if len(rows) and not 0 <= rows[0] <= rows[-1] < len(self):
            raise ValueError(f"among must name rows from 0 to {len(self) - 1}, got {rows[0]} to {rows[-1]}")
        return rows


def walk_breadth(rows: int) -> int:
    """Candidates that a search of a graph of so many rows looks at when nobody says how many."""
    return min(512, max(64, rows // 4_000))


def as_conditions(where: str | Sequence[str | Condition]) -> tuple[Condition, ...]:
    """Read those conditions that are still text."""
    if isinstance(where, str):
        return parse_where(where)
    return tuple(read for one in where for read in (parse_where(one) if isinstance(one, str) else (one,)))


def _some(ids: Sequence[str]) -> str:
    return repr(ids[0]) if len(ids) == 1 else f"{ids[0]!r} and {len(ids) - 1} more"
