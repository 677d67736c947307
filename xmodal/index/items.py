"""Ids and metadata of an index's rows: columns on disk and in memory, dicts only for the rows that are asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float64, Int64

from xmodal.columns import metadata_rows, metadata_table
from xmodal.embeddings import read_parquet, write_parquet
from xmodal.index.where import Condition, facets


class Items:
    """Ids and metadata, row by row.

    Attributes:
        ids: In the order of the rows.
        metadata: A dict a row, made when it is asked for.
    """

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.metadata = MetadataRows()
        self.row_of: dict[str, int] = {}
        self._columns: dict[str, _Column] = {}  # made when a condition first asks for the key
        self._tracks: _Tracks | None = None  # made when rows of a track are first asked for

    def append(self, ids: Sequence[str], metadata: Sequence[dict[str, Any]]) -> None:
        """Add rows at the end; the ids are new."""
        table = metadata_table(metadata)  # refuses what cannot be saved, before anything is changed
        self.row_of.update((id_, row) for row, id_ in enumerate(ids, start=len(self.ids)))
        self.ids.extend(ids)
        self.metadata.append(table, len(ids))
        self._columns, self._tracks = {}, None

    def keep(self, rows: Int64[np.ndarray, " kept"]) -> None:
        """Forget all rows but these (rising)."""
        self.ids = [self.ids[row] for row in rows.tolist()]
        self.row_of = {id_: row for row, id_ in enumerate(self.ids)}
        self.metadata.keep(rows)
        self._columns, self._tracks = {}, None

    def rows_of_tracks(self, tracks: Sequence[Any]) -> list[Int64[np.ndarray, " rows"]]:
        """Rows whose metadata name each of some tracks, rising."""
        found = self._tracks
        if found is None:
            found = self._tracks = _Tracks.of(self.metadata)
        return [found.rows[slice(*found.places.get(track, (0, 0)))] for track in tracks]

    def select(self, where: Sequence[Condition]) -> Int64[np.ndarray, " rows"]:
        """Rows for which all conditions hold, rising."""
        chosen = np.ones(len(self.ids), bool)
        for condition in where:
            chosen &= self._column(condition.key).mask(condition)
        return np.flatnonzero(chosen)

    def _column(self, key: str) -> _Column:
        column = self._columns.get(key)
        if column is None:
            column = self._columns[key] = _Column.of(self.metadata, key)
        return column

    def write(self, path: Path) -> None:
        """Write ids and metadata to a Parquet file."""
        facts = self.metadata.table()
        fields = pa.schema([pa.field("id", pa.string(), nullable=False), *facts.schema])
        write_parquet(pa.table([pa.array(self.ids, pa.string()), *facts.columns], schema=fields), path)

    @classmethod
    def read(cls, path: Path, *, remedy: str) -> Items:
        """Read what :meth:`write` wrote.

        Raises:
            IndexFormatError: If the file is missing or damaged.
            ValueError: If an id is there twice or missing.
        """
        table = read_parquet(path, remedy=remedy)
        items = cls()
        items.ids = table["id"].to_pylist()
        items.row_of = {id_: row for row, id_ in enumerate(items.ids)}
        if len(items.row_of) < len(items.ids) or None in items.row_of:
            raise ValueError("an id is there twice or missing")
        items.metadata.append(table.drop_columns(["id"]), len(table))
        return items


class MetadataRows(Sequence[dict[str, Any]]):
    """Metadata as a sequence of dicts, each made from the columns when it is asked for."""

    def __init__(self) -> None:
        self._tables: list[pa.Table] = []
        self._table_of = np.empty(0, np.int32)
        self._place_in = np.empty(0, np.int64)

    def append(self, table: pa.Table, rows: int) -> None:
        """Add the rows of a table of :func:`xmodal.embeddings.metadata_table`; without a key it has no columns."""
        if not rows:
            return
        self._table_of = np.concatenate([self._table_of, np.full(rows, len(self._tables), np.int32)])
        self._place_in = np.concatenate([self._place_in, np.arange(rows)])
        self._tables = [*self._tables, table.combine_chunks()]

    def keep(self, rows: Int64[np.ndarray, " kept"]) -> None:
        """Forget all rows but these."""
        self._table_of, self._place_in = self._table_of[rows], self._place_in[rows]

    def table(self) -> pa.Table:
        """All rows as one table."""
        if len(self._tables) == 1:
            return self._tables[0].take(pa.array(self._place_in)) if self._tables[0].num_columns else pa.table({})
        return metadata_table(list(self))  # tables of several adds may hold one key in columns of different types

    def column(self, key: str) -> Iterator[tuple[pa.Field, pa.Array, np.ndarray, np.ndarray]]:
        """Give a key's values table by table: field, values, their rows here, their places in the values."""
        for number, table in enumerate(self._tables):
            if key in table.column_names:
                rows = np.flatnonzero(self._table_of == number)
                values = table[key].combine_chunks()
                yield table.schema.field(key), values, rows, self._place_in[rows]

    def take(self, rows: Int64[np.ndarray, " rows"]) -> list[dict[str, Any]]:
        """Give the dicts of some rows, in the order given; far faster than one after the other."""
        found: list[dict[str, Any]] = [{}] * len(rows)
        for table, at, places in self._by_table(rows):
            parts = metadata_rows(table.take(pa.array(places))) if table.num_columns else [{} for _ in places]
            for position, facts in zip(at.tolist(), parts, strict=True):
                found[position] = facts
        return found

    def values(self, key: str, rows: Int64[np.ndarray, " rows"]) -> list[Any]:
        """Give the value of one key in some rows; None where there is none."""
        found: list[Any] = [None] * len(rows)
        for table, at, places in self._by_table(rows):
            if key not in table.column_names:
                continue
            is_json = bool(table.schema.field(key).metadata)
            for position, value in zip(at.tolist(), table[key].take(pa.array(places)).to_pylist(), strict=True):
                found[position] = json.loads(value) if is_json and value is not None else value
        return found

    def _by_table(self, rows: Int64[np.ndarray, " rows"]) -> Iterator[tuple[pa.Table, np.ndarray, np.ndarray]]:
        """The rows that lie in each table: the table, their positions in ``rows``, their places in the table."""
        tables = self._table_of[rows]
        for number in np.unique(tables).tolist():
            at = np.flatnonzero(tables == number)
            yield self._tables[number], at, self._place_in[rows[at]]

    def __len__(self) -> int:
        return len(self._place_in)

    @overload
    def __getitem__(self, row: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, row: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, row: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        table, place = self._tables[self._table_of[row]], int(self._place_in[row])
        if not table.num_columns:
            return {}
        return metadata_rows(table.slice(place, 1))[0]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        decoded: dict[int, list[dict[str, Any]]] = {}
        for number, place in zip(self._table_of.tolist(), self._place_in.tolist(), strict=True):
            if number not in decoded:
                table = self._tables[number]
                decoded[number] = metadata_rows(table) if table.num_columns else [{}] * (place + 1)
            rows = decoded[number]
            yield dict(rows[place]) if place < len(rows) else {}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __repr__(self) -> str:
        return f"MetadataRows({len(self)} rows)"


@dataclass(frozen=True)
class _Tracks:
    """Which rows belong to which track: the rows of a track stand together, rising, at its places."""

    rows: Int64[np.ndarray, " rows"]
    places: dict[Any, tuple[int, int]]

    @classmethod
    def of(cls, metadata: MetadataRows) -> _Tracks:
        numbers: dict[Any, int] = {}
        rows_of_all, codes_of_all = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for field, values, at, places in metadata.column("track"):
            encoded = values.take(pa.array(places)).dictionary_encode()
            distinct = encoded.dictionary.to_pylist()
            if field.metadata:
                distinct = [None if value is None else json.loads(value) for value in distinct]
            # A track is named by a text or a number; what else a key of this name may hold names none.
            known = [isinstance(name, str | int | float) for name in distinct]
            codes = np.array(
                [
                    numbers.setdefault(name, len(numbers)) if fits else -1
                    for name, fits in zip(distinct, known, strict=True)
                ]
                or [-1]
            )
            own = codes[encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)]
            named = encoded.indices.is_valid().to_numpy(zero_copy_only=False) & (own >= 0)
            rows_of_all.append(at[named])
            codes_of_all.append(own[named])
        rows, codes = np.concatenate(rows_of_all), np.concatenate(codes_of_all)
        order = np.lexsort((rows, codes))
        bounds = np.searchsorted(codes[order], np.arange(len(numbers) + 1)).tolist()
        return cls(rows[order], {name: (bounds[code], bounds[code + 1]) for name, code in numbers.items()})


@dataclass(frozen=True)
class _Column:
    """One key as conditions see it: words as (row, code) pairs, and a number a row (NaN where there is none)."""

    vocabulary: dict[str, int]
    rows: list[Int64[np.ndarray, " words"]]
    codes: list[Int64[np.ndarray, " words"]]
    numbers: Float64[np.ndarray, " rows"]

    @classmethod
    def of(cls, metadata: MetadataRows, key: str) -> _Column:
        """Gather a key's column; ``key`` may lead into dicts ("tags.mood")."""
        column = cls({}, [], [], np.full(len(metadata), np.nan))
        if key == "duration_seconds":  # "duration" stands in where it is missing
            for field, values, at, places in metadata.column("duration"):
                column._take("duration", field, values.take(pa.array(places)), at, words=False)
        for source in dict.fromkeys((key.partition(".")[0], key)):
            for field, values, at, places in metadata.column(source):
                column._take(key, field, values.take(pa.array(places)), at)
        return column

    def _take(self, key: str, field: pa.Field, values: pa.Array, at: np.ndarray, words: bool = True) -> None:
        # Each distinct value is looked at once: words cost far more in Python than rows in numpy.
        if pa.types.is_list(values.type):
            at = at[pc.list_parent_indices(values).to_numpy()]
            values, whole = values.flatten(), False
        else:
            whole = True
        at, values = at[values.is_valid().to_numpy(zero_copy_only=False)], values.drop_null()
        encoded = values.dictionary_encode()
        distinct = encoded.dictionary.to_pylist()
        if field.metadata:  # JSON text
            seen = [facets({field.name: json.loads(value)}) for value in distinct]
        else:
            seen = [facets({field.name: value if whole else [value]}) for value in distinct]
        indices = encoded.indices.to_numpy()
        numbers = np.array([counted.get(key, np.nan) for _, counted in seen] or [np.nan])
        known = ~np.isnan(numbers[indices])
        self.numbers[at[known]] = numbers[indices][known]
        if not words:
            return
        said = [
            [self.vocabulary.setdefault(word, len(self.vocabulary)) for word in texts.get(key, ())] for texts, _ in seen
        ]
        for nth in range(max(map(len, said), default=0)):  # one pass, but for lists within JSON
            codes = np.array([found[nth] if nth < len(found) else -1 for found in said])[indices]
            self.rows.append(at[codes >= 0])
            self.codes.append(codes[codes >= 0])

    def mask(self, condition: Condition) -> Bool[np.ndarray, " rows"]:
        """Rows that fulfil a condition on this key; agrees with :func:`xmodal.index.where.holds`."""
        if condition.comparison in ("=", "!="):
            equal = np.isin(self.numbers, condition.numbers)
            wanted = [self.vocabulary[word] for word in condition.words if word in self.vocabulary]
            for rows, codes in zip(self.rows, self.codes, strict=True):
                equal[rows[np.isin(codes, wanted)]] = True
            return equal if condition.comparison == "=" else ~equal
        compare = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}[condition.comparison]
        mask: np.ndarray = compare(self.numbers, condition.bound)  # NaN fulfils none
        return mask
