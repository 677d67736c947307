"""Metadata as columns of a table: a dict a row, and back again.

A key whose values are all of one plain type is a column of that type; any other is a column of JSON text, marked as
such in the column's own metadata. A missing key is a null, and so is ``None``: reading gives neither back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

RESERVED_KEYS = frozenset({"id", "vector"})

_JSON_FIELD = {b"xmodal.encoding": b"json"}


def metadata_table(rows: Sequence[dict[str, Any]], fields: Sequence[pa.Field] | None = None) -> pa.Table:
    """Turn metadata into columns, one for each key, typed where all its values are of one plain type.

    Args:
        rows: One dict a row.
        fields: The columns, from :func:`metadata_fields` over these rows and others; by default over these.

    Raises:
        ValueError: If a value is nothing that JSON knows (the message names the key).
    """
    fields = metadata_fields(rows) if fields is None else fields
    columns = []
    for column_field in fields:
        key, values = column_field.name, [row.get(column_field.name) for row in rows]
        if column_field.metadata:
            values = [None if value is None else _as_json(key, value) for value in values]
        columns.append(pa.array(values, column_field.type))
    if not fields:
        return pa.table({})
    return pa.table(columns, schema=pa.schema(fields))


def metadata_fields(rows: Iterable[dict[str, Any]]) -> list[pa.Field]:
    """The columns that hold the metadata of all rows, in order of first use, so that files are reproducible."""
    values: dict[str, list[Any]] = {}
    for row in rows:
        for key, value in row.items():
            kept = values.setdefault(key, [])
            if value is not None:
                kept.append(value)
    fields = []
    for key, found in values.items():
        kind = _plain_type(found)
        if kind is None:
            fields.append(pa.field(key, pa.string(), metadata=_JSON_FIELD))
        else:
            fields.append(pa.field(key, kind))
    return fields


def _plain_type(values: Sequence[Any]) -> pa.DataType | None:
    kinds = {type(value) for value in values}  # exact types: True is an int to isinstance
    if kinds <= {str}:
        return pa.string()
    if kinds == {bool}:
        return pa.bool_()
    if kinds == {int} and all(-(2**63) <= value < 2**63 for value in values):
        return pa.int64()
    # Whole numbers up to 2**53 are exact as float64; NaN and infinity compare false here and JSON then refuses them.
    if kinds == {float} and all(abs(value) < float("inf") for value in values):
        return pa.float64()
    if kinds == {int, float} and all(abs(value) <= 2**53 for value in values):
        return pa.float64()
    if kinds <= {list, tuple} and all(type(item) is str for value in values for item in value):
        return pa.list_(pa.string())
    return None


def _as_json(key: str, value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"metadata must be text, numbers, lists and dicts, but {key!r} holds {value!r}: {error}"
        ) from None


def metadata_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Turn the columns of :func:`metadata_table` back into one dict a row; nulls give no key.

    The columns ``id`` and ``vector``, which may stand beside them, are left out.

    Raises:
        ValueError: If a column that says it is JSON is not.
    """
    rows: list[dict[str, Any]] = [{} for _ in range(table.num_rows)]
    for column_field, column in zip(table.schema, table.columns, strict=True):
        if column_field.name in RESERVED_KEYS:
            continue
        is_json = (column_field.metadata or {}).items() >= _JSON_FIELD.items()
        for row, value in zip(rows, column.to_pylist(), strict=True):
            if value is not None:
                row[column_field.name] = json.loads(value) if is_json else value
    return rows
