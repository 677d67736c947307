"""Tables on disk as rows of cells, each with the place that an error can name."""

from __future__ import annotations

import bisect
import csv
import functools
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xmodal.audio import AudioInfo, StoredAudio
from xmodal.errors import AudioError, DataError


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        place: Where it stands: "line 7" of a text file, "row 7" of another.
        cells: JSON-able values by the column's name. In CSV all are text, and empty cells are left out. Audio that is
            in the table itself is a :class:`StoredAudio`.
    """

    place: str
    cells: Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """The rows of a file, at least one.

    Attributes:
        path: The file, or what else was read.
        names: The columns' names in the order of the file.
        rows: The rows in the order of the file.
    """

    path: Path | str
    names: tuple[str, ...]
    rows: tuple[Row, ...]


def read_table(path: Path) -> Table:
    """Read a .csv, .tsv, .jsonl or .parquet file.

    Raises:
        DataError: If the suffix is another, the file is damaged, or it has no rows.
    """
    if path.suffix.lower() not in _READERS:
        raise DataError(f"{path}: a manifest ends in {', '.join(_READERS)}, got {path.suffix!r}; or give a folder")
    try:
        names, rows = _READERS[path.suffix.lower()](path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from error
    if not rows:
        raise DataError(f"{path} has no rows; a manifest needs at least one track")
    return Table(path, tuple(names), tuple(rows))


def parse_cell(column: str, parse: Callable[[Any], Any], value: Any) -> Any:
    """What ``parse`` makes of a cell, with the column's name in its error.

    Raises:
        ValueError: If ``parse`` refuses the value.
    """
    try:
        return parse(value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"column {column!r}: {error}") from error


def parse_text(value: Any) -> str | None:
    """A text or a number as text; None if it is blank.

    Raises:
        ValueError: If it is a list or an object.
    """
    if isinstance(value, (dict, list)):
        raise ValueError(f"must be one text, got {json.dumps(value)[:60]}")
    text = str(value)
    return text if text.strip() else None


def parse_names(value: Any) -> tuple[str, ...]:
    """A list of names; a text may hold a JSON list, or names between semicolons or bars."""
    if isinstance(value, str):
        listed = json_list(value)
        value = [item.strip() for item in value.replace("|", ";").split(";")] if listed is None else listed
    items = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(word for word in (parse_text(item) for item in items if item is not None) if word))


def json_list(text: str) -> list[Any] | None:
    """The list that a text holds as JSON, None if it holds anything else."""
    if not text.lstrip().startswith("["):
        return None
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return None
    return value if isinstance(value, list) else None


def parse_seconds(value: Any) -> float | None:
    """A number of seconds; None if it is blank.

    Raises:
        ValueError: If it is no finite number.
    """
    if isinstance(value, str) and not value.strip():
        return None
    try:
        seconds = float(value)
    except (ValueError, TypeError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise ValueError(f"must be a number of seconds, got {value!r}")
    return seconds


def _read_csv(path: Path) -> tuple[list[str], list[Row]]:
    # utf-8-sig: spreadsheets put a byte-order mark in front of the first column's name.
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        rows = []
        names: list[str] = []
        try:
            for cells in reader:
                cells = [cell.strip() for cell in cells]
                if not any(cells):
                    continue
                if not names:
                    names = cells
                    _check_names(path, names)
                    continue
                if len(cells) != len(names):
                    raise DataError(
                        f"{path}, line {reader.line_num}: the header has {len(names)} columns and this row "
                        f"{len(cells)}; put texts with commas into double quotes"
                    )
                filled = {name: cell for name, cell in zip(names, cells, strict=True) if name and cell}
                rows.append(Row(f"line {reader.line_num}", filled))
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: not readable as CSV ({error})") from error
    return [name for name in names if name], rows


def _read_jsonl(path: Path) -> tuple[list[str], list[Row]]:
    rows = []
    with path.open("rb") as file:  # bytes: only a line feed ends a line, whatever characters the texts hold
        for number, line in enumerate(file, start=1):
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            if not text.strip():
                continue
            try:
                cells = json.loads(text, parse_constant=lambda _: None)  # NaN stands for "no value" here
            except RecursionError as error:
                raise DataError(f"{path}, line {number}: its lists and objects lie too deep in one another") from error
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{path}, line {number}: not readable as JSON ({error.msg}, column {error.colno}); each line "
                    "must be one whole object"
                ) from error
            if not isinstance(cells, dict):
                raise DataError(f"{path}, line {number}: each line must be a JSON object, got {text.strip()[:60]}")
            rows.append(Row(f"line {number}", cells))
    return list(dict.fromkeys(name for row in rows for name in row.cells)), rows


def _read_parquet(path: Path) -> tuple[list[str], list[Row]]:
    import pyarrow  # here, because it is slow to import and most manifests are text
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        names = file.schema_arrow.names
        audio = {name for name in names if _holds_audio(file.schema_arrow.field(name).type)}
        table = file.read(columns=[name for name in names if name not in audio])
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not readable as Parquet ({error})") from error
    _check_names(path, names)
    # Dates and the like have no JSON form; their text has.
    rows = [json.loads(json.dumps(cells, default=str), parse_constant=lambda _: None) for cells in table.to_pylist()]
    if audio == set(names):  # a table without columns has no rows either
        rows = [{} for _ in range(file.metadata.num_rows)]
    for name in audio:
        for number, cells in enumerate(rows):
            cells[name] = ParquetAudio(str(path), name, number)
    return names, [Row(f"row {number}", cells) for number, cells in enumerate(rows, start=1)]


def _holds_audio(type_: Any) -> bool:
    """Whether a column holds files' bytes: as such, or as Hugging Face writes audio, with the name beside them."""
    from pyarrow import types

    if types.is_struct(type_):
        index = type_.get_field_index("bytes")
        return index >= 0 and _holds_audio(type_.field(index).type)
    return bool(types.is_binary(type_) or types.is_large_binary(type_))


@dataclass(frozen=True)
class ParquetAudio(StoredAudio):
    """An audio file's bytes in a cell of a Parquet table.

    Args:
        table: The Parquet file.
        column: Its column of bytes, or of structs with a field "bytes".
        row: From 0.
    """

    table: str
    column: str
    row: int
    info: AudioInfo | None = field(default=None, compare=False)

    @property
    def name(self) -> str:  # type: ignore[override]
        """The table and the row, counted from 1 as in messages about its other cells."""
        return f"{self.table}/row {self.row + 1}"

    def read(self) -> bytes:
        """The bytes. They share a row group with their neighbours, which is read whole.

        Raises:
            AudioError: If the table cannot be read, or the cell is empty.
        """
        import pyarrow

        try:
            starts = _row_group_starts(self.table)
            group = bisect.bisect_right(starts, self.row) - 1
            value = _row_group(self.table, self.column, group)[self.row - starts[group]].as_py()
        except (pyarrow.ArrowException, OSError, IndexError) as error:
            raise AudioError(self.name, f"cannot be read ({error}); check the table {self.table}") from error
        content = value.get("bytes") if isinstance(value, dict) else value
        if not content:
            raise AudioError(self.name, f"has no bytes in the column {self.column!r}; get the table again")
        return bytes(content)


@functools.lru_cache(maxsize=64)
def _row_group_starts(table: str) -> list[int]:
    import pyarrow.parquet

    metadata = pyarrow.parquet.ParquetFile(table).metadata
    counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    return [0, *itertools.accumulate(counts)][:-1]


@functools.lru_cache(maxsize=2)  # neighbours are read after one another, and a group may hold 100 MB
def _row_group(table: str, column: str, group: int) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(table).read_row_group(group, columns=[column]).column(0)


_READERS: Mapping[str, Callable[[Path], tuple[list[str], list[Row]]]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}


def _check_names(path: Path, names: Sequence[str]) -> None:
    twice = {name for name in names if name and names.count(name) > 1}
    if twice:
        raise DataError(f"{path}: column names must differ, and {sorted(twice)[0]!r} is there twice; rename one")
