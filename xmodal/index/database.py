"""Indexes in a database: the rules they share. What one database does differently is in its own module.

A collection holds the rows of one index. A registry beside it says of each collection which space it is, so that a
query of another space is refused before it is sent. Only one process at a time may write to a collection; any number
may read. Nothing here stores a password: PostgreSQL's own places for it (``PGPASSWORD``, ``~/.pgpass``) and
``MILVUS_TOKEN`` hold.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, Self, overload
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

import numpy as np
from jaxtyping import Float32, Int64

from xmodal.embeddings import Embeddings
from xmodal.errors import IndexFormatError, SpaceMismatchError
from xmodal.index.base import Allowed, Index, Rows, Scores
from xmodal.index.exact import in_order
from xmodal.index.where import Condition

DEFAULT_COLLECTION = "xmodal"


class Database(Protocol):
    """One collection of one database. Rows are keys that rise and are never used again."""

    def facts(self) -> dict[str, Any] | None:
        """What the registry says of the collection; None if there is none."""

    def create(self, facts: dict[str, Any], dim: int) -> None:
        """Make the collection and its entry in the registry."""

    def drop(self) -> None:
        """Remove the collection and its entry."""

    def count(self) -> int:
        """Number of rows."""

    def replace(self, gone: Sequence[int], embeddings: Embeddings) -> None:
        """Put new rows in place of old ones; a kill meanwhile loses none."""

    def rows(self) -> Int64[np.ndarray, " rows"]:
        """All rows, rising."""

    def rows_of(self, ids: Sequence[str]) -> dict[str, int]:
        """Rows of those ids that are there."""

    def select(self, where: Sequence[Condition]) -> Int64[np.ndarray, " rows"]:
        """Rows for which all conditions hold, rising."""

    def get(self, rows: Sequence[int], field: str) -> dict[int, Any]:
        """``id``, ``metadata`` or ``vector`` of those rows that are there."""

    def nearest(
        self,
        queries: Float32[np.ndarray, "queries dim"],
        k: int,
        among: Sequence[int] | None,
        where: Sequence[Condition],
        breadth: int | None,
        exact: bool,
    ) -> list[list[tuple[float, int]]]:
        """For each query cosines and rows, best first; some may be missing, but with ``exact`` all are compared."""

    def close(self) -> None:
        """Give connections back."""


class DatabaseIndex(Index):
    """An index whose rows lie in a database.

    Args:
        space_id: Identity of the space of all vectors.
        dim: Length of each vector.
        url: Address of the database, without a password.
        collection: Name of the collection: letters, digits and underscores.
    """

    def __init__(self, space_id: str, dim: int, *, url: str, collection: str = DEFAULT_COLLECTION) -> None:
        super().__init__(space_id, dim)
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,47}", collection):
            raise ValueError(f"a collection is named by letters, digits and underscores, got {collection!r}")
        if urlsplit(url).password:
            raise ValueError("an index never keeps a password: leave it out of the address and give it to the client")
        self.url, self.collection = url, collection
        self._database = self._connect()

    @abstractmethod
    def _connect(self) -> Database:
        """Reach the collection at ``url``; nothing is made there yet."""

    @classmethod
    def open(cls, address: str) -> Self:
        """Open the collection that an address names (``...?collection=music``).

        Raises:
            IndexFormatError: If there is none.
        """
        url, collection = split_address(address)
        index = cls("unknown", 1, url=url, collection=collection)
        try:
            facts = index._entry()
        except BaseException:
            index.close()
            raise
        index.space_id, index.dim = facts["space_id"], facts["dim"]
        index.model, index.view = facts["model"], dict(facts["view"])
        return index

    @classmethod
    def build(cls, embeddings: Embeddings, **settings: Any) -> Self:
        """Make a new collection of an export.

        Raises:
            ValueError: If the collection is there already.
        """
        index = cls(embeddings.space_id, embeddings.dim, **settings)
        if index._database.facts() is not None:
            index.close()
            raise ValueError(
                f"{index.url} holds a collection {index.collection!r} already; add to it with xmodal index add, or "
                "name another with ?collection=NAME"
            )
        index.model, index.view = embeddings.model, dict(embeddings.view)
        facts = {"space_id": index.space_id, "dim": index.dim, "model": index.model, "view": index.view}
        index._database.create(facts, index.dim)
        index.add(embeddings)
        return index

    @property
    def settings(self) -> dict[str, Any]:
        """Where the rows are."""
        return {"url": self.url, "collection": self.collection}

    def __len__(self) -> int:
        return self._database.count()

    @property
    def ids(self) -> Sequence[str]:
        """The id of each row, asked for when it is looked at."""
        return _Column(self._database, "id")

    @property
    def metadata(self) -> Sequence[dict[str, Any]]:
        """What is known about each row, asked for when it is looked at."""
        return _Column(self._database, "metadata")

    def ids_of(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """The ids of some rows, by one question."""
        return self._of("id", rows)

    def facts(self, rows: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
        """What is known about some rows, by one question."""
        return self._of("metadata", rows)

    def _of(self, field: str, rows: Sequence[int] | np.ndarray) -> list[Any]:
        wanted = np.asarray(rows, np.int64).tolist()
        found = self._database.get(list(dict.fromkeys(wanted)), field) if wanted else {}
        return [found[row] for row in wanted]

    def values(self, key: str, rows: Sequence[int] | np.ndarray) -> list[Any]:
        """One key of the metadata of some rows; None where it is missing."""
        return [facts.get(key) for facts in self.facts(rows)]

    def rows_of_tracks(self, tracks: Sequence[Any]) -> list[Int64[np.ndarray, " rows"]]:
        """Rows whose metadata name each of some tracks, rising."""
        if not len(tracks):
            return []
        # The condition compares words without regard to case, so what it gives is looked at once more.
        rows = self._database.select([Condition("track", "=", tuple(map(str, tracks)))])
        named = self.values("track", rows)
        return [
            np.array([row for row, name in zip(rows, named, strict=True) if name == track], np.int64)
            for track in tracks
        ]

    def vectors(self, rows: Sequence[int] | np.ndarray | None = None) -> Float32[np.ndarray, "rows dim"]:
        """Give the vectors of some rows, or of all, in order."""
        at = self._database.rows() if rows is None else np.asarray(rows, np.int64)
        found = self._database.get(at.tolist(), "vector")
        return np.array([found[row] for row in at.tolist()], np.float32).reshape(-1, self.dim)

    def drop_collection(self) -> None:
        """Remove the collection from the database, for good."""
        with self._lock.writing():
            self._database.drop()

    def close(self) -> None:
        """Give connections back."""
        self._database.close()

    def _entry(self) -> dict[str, Any]:
        facts = self._database.facts()
        if facts is None:
            raise IndexFormatError(
                f"{self.url}: there is no collection {self.collection!r} here; build it with: xmodal index build "
                "FILE.parquet --engine URL"
            )
        return facts

    def _known_rows(self, ids: Sequence[str]) -> list[int | None]:
        found = self._database.rows_of(ids)
        return [found.get(id_) for id_ in ids]

    def _select(self, where: Sequence[Condition]) -> Allowed:
        return self._database.select(where) if where else self._database.rows()

    def _check_rows(self, among: Sequence[int] | np.ndarray) -> Allowed:
        rows = np.unique(np.asarray(among, dtype=np.int64))
        there = self._database.get(rows.tolist(), "id")
        if len(there) < len(rows):
            last = self._database.rows()[-1:].tolist() or [-1]
            raise ValueError(f"among must name rows from 0 to {last[0]}, got {rows[0]} to {rows[-1]}")
        return rows

    def _search(
        self, queries: np.ndarray, k: int, among: Allowed | None, where: Sequence[Condition], breadth: int | None
    ) -> tuple[Scores, Rows]:
        allowed = None if among is None else among.tolist()
        if not len(queries) or allowed == []:
            width = 0 if allowed == [] else k
            return np.empty((len(queries), width), np.float32), np.empty((len(queries), width), np.int64)
        k = k if allowed is None else min(k, len(allowed))
        found = self._database.nearest(queries, k, allowed, where, breadth, exact=False)
        short = [place for place, hits in enumerate(found) if len(hits) < k]
        if short:  # there are no more, or the shortcut did not meet them
            again = self._database.nearest(queries[short], k, allowed, where, None, exact=True)
            for place, hits in zip(short, again, strict=True):
                found[place] = hits
        width = min(map(len, found))
        found = [hits[:width] for hits in found]
        scores = np.array([[score for score, _ in hits] for hits in found], np.float32).reshape(len(queries), width)
        rows = np.array([[row for _, row in hits] for hits in found], np.int64).reshape(len(queries), width)
        return in_order(scores, rows)

    def _add(self, embeddings: Embeddings) -> None:
        self._database.replace([], embeddings)

    def _replace(self, rows: Int64[np.ndarray, " gone"], embeddings: Embeddings) -> None:
        self._database.replace(rows.tolist(), embeddings)

    def _drop(self, rows: Int64[np.ndarray, " gone"]) -> None:
        empty = Embeddings([], np.empty((0, self.dim), np.float32), self.space_id)
        self._database.replace(rows.tolist(), empty)

    def _write_all(self, data: Path) -> None:
        (data / "README").write_text(f"The rows are in the collection {self.collection} of {self.url}.\n", "utf-8")

    def _read_all(self, data: Path, mmap: bool) -> int:
        facts = self._entry()
        if (facts["space_id"], facts["dim"]) != (self.space_id, self.dim):
            raise SpaceMismatchError(
                f"{self.url}: the collection {self.collection!r} holds {facts['dim']}-dim vectors of space "
                f"{facts['space_id']}, and this folder was written for {self.dim}-dim vectors of {self.space_id}; "
                "open the collection by its address"
            )
        return 0

    # The rows are elsewhere, so nothing is left of an embedded engine's duties.
    def _append(self, vectors: Float32[np.ndarray, "new dim"]) -> None:
        raise NotImplementedError

    def _keep(self, rows: Int64[np.ndarray, " kept"]) -> None:
        raise NotImplementedError

    def _nearest(self, queries: np.ndarray, k: int, among: Allowed | None, breadth: int | None) -> tuple[Scores, Rows]:
        raise NotImplementedError

    def _write(self, data: Path) -> None:
        raise NotImplementedError

    def _read(self, data: Path, mmap: bool) -> int:
        raise NotImplementedError


class _Column(Sequence[Any]):
    """A column of the collection: by row when asked for one, in order when gone through."""

    def __init__(self, database: Database, field: str) -> None:
        self._database, self._field = database, field

    def __len__(self) -> int:
        return self._database.count()

    @overload
    def __getitem__(self, row: int) -> Any: ...
    @overload
    def __getitem__(self, row: slice) -> list[Any]: ...
    def __getitem__(self, row: int | slice) -> Any:
        if isinstance(row, slice):
            return list(self)[row]
        if row < 0:
            row = int(self._database.rows()[row])
        found = self._database.get([int(row)], self._field)
        if not found:
            raise IndexError(f"no row {row}")
        return found[int(row)]

    def __iter__(self) -> Iterator[Any]:
        rows = self._database.rows().tolist()
        for first in range(0, len(rows), 1000):
            part = rows[first : first + 1000]
            found = self._database.get(part, self._field)
            yield from (found[row] for row in part if row in found)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return list(self) == list(other)


def split_address(address: str) -> tuple[str, str]:
    """Take the collection's name out of an address.

    Returns:
        The address without it, and the name.
    """
    parts = urlsplit(address)
    query = parse_qs(parts.query)
    collection = query.pop("collection", [DEFAULT_COLLECTION])[0]
    rest = "&".join(f"{name}={quote(value, safe='/')}" for name, values in query.items() for value in values)
    url = urlunsplit(parts._replace(query=rest))
    # urlunsplit leaves out the slashes of an empty host, which a file's address has.
    if "://" not in url:
        url = url.replace(f"{parts.scheme}:", f"{parts.scheme}://", 1)
    return url, collection
