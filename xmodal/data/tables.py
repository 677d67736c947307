"""Tables on disk as rows of cells, each with the place that an error can name."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xmodal.errors import DataError


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        place: Where it stands: "line 7" of a text file, "row 7" of another.
        cells: JSON-able values by the column's name. In CSV all are text, and empty cells are left out.
    """

    place: str
    cells: Mapping[str, Any]


def read_table(path: Path) -> list[Row]:
    """Read a .csv, .tsv, .jsonl or .parquet file.

    Raises:
        DataError: If the suffix is another, the file is damaged, or it has no rows.
    """
    if path.suffix.lower() not in _READERS:
        raise DataError(f"{path}: a manifest ends in {', '.join(_READERS)}, got {path.suffix!r}; or give a folder")
    try:
        rows = _READERS[path.suffix.lower()](path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from error
    if not rows:
        raise DataError(f"{path} has no rows; a manifest needs at least one track")
    return rows


def _read_csv(path: Path) -> list[Row]:
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
    return rows


def _read_jsonl(path: Path) -> list[Row]:
    rows = []
    with path.open("rb") as file:  # bytes: only a line feed ends a line, whatever characters the texts hold
        for number, line in enumerate(file, start=1):
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            if not text.strip():
                continue
            try:
                cells = json.loads(text, parse_constant=lambda _: None)  # NaN stands for "no value" here
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{path}, line {number}: not readable as JSON ({error.msg}, column {error.colno}); each line "
                    "must be one whole object"
                ) from error
            if not isinstance(cells, dict):
                raise DataError(f"{path}, line {number}: each line must be a JSON object, got {text.strip()[:60]}")
            rows.append(Row(f"line {number}", cells))
    return rows


def _read_parquet(path: Path) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not readable as Parquet ({error})") from error
    _check_names(path, table.column_names)
    # Dates and the like have no JSON form; their text has.
    return [
        Row(f"row {number}", json.loads(json.dumps(cells, default=str), parse_constant=lambda _: None))
        for number, cells in enumerate(table.to_pylist(), start=1)
    ]


_READERS: Mapping[str, Callable[[Path], list[Row]]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}


def _check_names(path: Path, names: Sequence[str]) -> None:
    twice = {name for name in names if name and names.count(name) > 1}
    if twice:
        raise DataError(f"{path}: column names must differ, and {sorted(twice)[0]!r} is there twice; rename one")
