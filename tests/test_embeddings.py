from __future__ import annotations

import json
import math
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmodal.atomic import written_aside
from xmodal.columns import metadata_rows, metadata_table
from xmodal.embeddings import Embeddings, join, unit_rows
from xmodal.errors import IndexFormatError, SpaceMismatchError

MIXED = [
    {
        "path": "a.flac",
        "tags": ["piano", "calm"],
        "bpm": 90,
        "gain": -1.5,
        "live": True,
        "kinds": {"mood": ["calm"]},
        "year": 1901,
    },
    {"path": "b.flac", "tags": [], "gain": 2, "year": "unknown", "title": "Ein Lied für dich"},
    {},
]


def unit(rows, dim, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(rows, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def export(rows=3, dim=4, **changes):
    arguments = {"ids": [f"t{row}" for row in range(rows)], "vectors": unit(rows, dim), "space_id": "0123456789abcdef"}
    return Embeddings(**(arguments | changes))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out" / "tracks.parquet"


def rewritten(path, change):
    """Write the file again with pyarrow alone, changed: what another tool, or another version, could leave."""
    table = change(pq.read_table(path))
    pq.write_table(table, path)


def test_an_export_comes_back_as_it_was(path):
    before = export(metadata=MIXED, model="models/first")
    before.save(path)
    after = Embeddings.load(path)
    assert (after.ids, after.space_id, after.model, after.metadata) == (
        before.ids,
        before.space_id,
        before.model,
        MIXED,
    )
    np.testing.assert_array_equal(after.vectors, before.vectors)
    assert after.vectors.dtype == np.float32
    assert after.vectors.flags.writeable


def test_an_export_of_no_rows_comes_back(path):
    export(0).save(path)
    after = Embeddings.load(path)
    assert (len(after), after.dim, after.metadata, after.model) == (0, 4, [], None)


def test_other_tools_see_ids_vectors_and_plain_columns(path):
    export(metadata=MIXED).save(path)
    table = pq.read_table(path)
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 4)
    assert table["id"].to_pylist() == ["t0", "t1", "t2"]
    types = {name: str(table.schema.field(name).type) for name in table.column_names[2:]}
    assert types == {
        "path": "string",
        "tags": "list<element: string>",
        "bpm": "int64",
        "gain": "double",
        "live": "bool",
        "kinds": "string",
        "year": "string",
        "title": "string",
    }
    assert json.loads(table["kinds"][0].as_py()) == {"mood": ["calm"]}
    assert table["year"].to_pylist() == ["1901", '"unknown"', None]


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.dictionaries(st.sampled_from(["a", "b", "c"]), values, max_size=3), min_size=1, max_size=4))
def test_metadata_keep_values_and_types_and_lose_only_none(rows):
    after = metadata_rows(metadata_table(rows))
    expected = [{key: value for key, value in row.items() if value is not None} for row in rows]
    # Without metadata there are no columns, and so no rows that could be counted.
    assert after == (expected if any(rows) else [])
    for got, row in zip(after, expected, strict=False):
        assert all(isinstance(got[key], bool) == isinstance(value, bool) for key, value in row.items())


def test_whole_numbers_too_large_for_a_float_stay_exact_beside_floats():
    rows = [{"n": 2**60 + 1}, {"n": 0.5}]
    assert metadata_rows(metadata_table(rows)) == rows


def test_two_saves_write_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        export(metadata=MIXED).save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_double_precision_and_strided_vectors_are_taken():
    vectors = unit(6, 4).astype(np.float64)[::2]
    assert export(vectors=vectors).vectors.flags.c_contiguous


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": ["a", "b"]}, "2 ids, 3 vectors and 3 metadata|2 ids, 3 vectors and 2 metadata"),
        ({"ids": ["a", "b", "a"]}, "unique, got 'a' a second time in row 2"),
        ({"ids": ["a", "", "b"]}, "not empty, got '' in row 1"),
        ({"ids": ["a", 7, "b"]}, "text and not empty, got 7 in row 1"),
        ({"space_id": ""}, "space_id"),
        ({"metadata": [{}]}, "3 vectors and 1 metadata"),
        ({"metadata": [{"id": "x"}, {}, {}]}, "other than id and vector, got 'id'"),
        ({"metadata": [{3: "x"}, {}, {}]}, "got 3"),
        ({"vectors": unit(3, 4)[0]}, r"matrix \[rows, dim\], got shape \[4\]"),
        ({"vectors": unit(3, 4) * [[1], [1], [1.002]]}, "1 of 3 are not: row 2 has length 1.002"),
        ({"vectors": unit(3, 4) * [[1], [np.nan], [1]]}, "row 1 has length nan"),
        ({"vectors": unit(3, 4) * [[np.inf], [1], [1]]}, "row 0 has length"),
        ({"vectors": unit(3, 4) * [[1], [0], [1]]}, "row 1 has length 0"),
    ],
)
def test_rows_that_break_a_rule_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        export(**changes)


@pytest.mark.parametrize("factor", [0.0, 0.99, 2.0, 1e38, np.nan, np.inf, -np.inf])
def test_a_single_row_that_is_no_unit_vector_is_refused_without_a_warning(factor):
    row = np.zeros((1, 4), np.float32)
    row[0, 1] = factor
    with pytest.raises(ValueError, match="query must be finite and of length 1, but 1 of 1 are not: row 0"):
        unit_rows(row, "query")


def test_a_single_unit_vector_is_taken_as_it_is_and_what_nobody_may_write_is_copied():
    row = np.array([[0, 1, 0, 0]], np.float32)
    assert unit_rows(row, "query") is row
    row.flags.writeable = False
    assert unit_rows(row, "query").flags.writeable
    assert unit_rows(row.astype(np.float64), "query").dtype == np.float32
    assert unit_rows(np.ones((4, 1), np.float32)[:, :1].T[:, ::4], "query").flags.carray


def test_a_length_within_a_thousandth_of_one_is_taken():
    assert len(export(vectors=unit(3, 4) * 1.0009)) == 3


@pytest.mark.parametrize("value", [object(), math.nan, {1, 2}, b"bytes"])
def test_metadata_that_json_cannot_hold_are_refused_by_name_and_the_old_file_stays(path, value):
    export().save(path)
    old = path.read_bytes()
    with pytest.raises(ValueError, match="'odd'"):
        export(metadata=[{"odd": value}, {}, {}]).save(path)
    assert path.read_bytes() == old
    assert os.listdir(path.parent) == [path.name]


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(IndexFormatError, match=r"none\.parquet: there is no such file; .*xmodal embed"):
        Embeddings.load(tmp_path / "none.parquet")


def test_a_file_of_another_kind_is_refused(path):
    export().save(path)
    path.write_bytes(b"not Parquet at all")
    with pytest.raises(IndexFormatError, match=r"tracks\.parquet: this is no Parquet file or it is damaged"):
        Embeddings.load(path)
    pq.write_table(pa.table({"id": ["a"], "price": [3]}), path)
    with pytest.raises(IndexFormatError, match="holds no embeddings of xmodal"):
        Embeddings.load(path)


def test_a_cut_file_and_a_flipped_byte_in_a_vector_are_found(path):
    export(200, 16).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(IndexFormatError, match="damaged"):
        Embeddings.load(path)
    place = whole.index(export(200, 16).vectors[100].tobytes()[:8])
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(IndexFormatError, match="damaged"):
        Embeddings.load(path)


def test_another_version_is_refused_with_both_versions(path):
    export().save(path)
    rewritten(
        path, lambda table: table.replace_schema_metadata({**table.schema.metadata, b"xmodal.format_version": b"7"})
    )
    with pytest.raises(IndexFormatError, match="version 7 but this xmodal reads up to 2"):
        Embeddings.load(path)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("id", pa.array(["t0", "t0", "t2"]), "unique"),
        ("id", pa.array(["t0", None, "t2"]), "no id or no vector"),
        ("vector", pa.array([[1.0, 0, 0, 0]] * 2 + [None], pa.list_(pa.float32(), 4)), "no id or no vector"),
        ("vector", pa.array([[1.0], [1.0, 0.0], [1.0]], pa.list_(pa.float32())), "fixed length"),
        ("vector", pa.array([[3.0, 0, 0, 0]] * 3, pa.list_(pa.float32(), 4)), "length 3"),
        ("kinds", pa.array(["{", None, None]), "damaged"),
    ],
)
def test_rows_that_another_tool_broke_are_refused_with_the_file(path, column, values, message):
    export(metadata=MIXED).save(path)

    def change(table):
        position = table.column_names.index(column)
        return table.set_column(position, table.schema.field(column).with_type(values.type).with_nullable(True), values)

    rewritten(path, change)
    with pytest.raises(IndexFormatError, match=message) as refused:
        Embeddings.load(path)
    assert str(path) in str(refused.value)


def test_parts_join_in_order_and_only_within_one_space():
    first, second = export(2), export(2, ids=["u0", "u1"], vectors=unit(2, 4, seed=1), metadata=[{"n": 1}, {"n": 2}])
    whole = join([first, second])
    assert whole.ids == ["t0", "t1", "u0", "u1"]
    assert whole.metadata == [{}, {}, {"n": 1}, {"n": 2}]
    np.testing.assert_array_equal(whole.vectors[2:], second.vectors)
    with pytest.raises(SpaceMismatchError, match=r"space 0123456789abcdef with .* space other; embed all files"):
        join([first, export(space_id="other")])
    with pytest.raises(SpaceMismatchError, match="4-dim .* with 5-dim"):
        join([first, export(dim=5)])
    with pytest.raises(ValueError, match="unique"):
        join([first, first])
    with pytest.raises(ValueError, match="at least one"):
        join([])


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "file"
    target.write_text("old")

    def write_half():
        with written_aside(target) as aside:
            aside.write_text("half")
            assert target.read_text() == "old"
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_the_bytes_are_on_the_disk_before_the_name_changes(tmp_path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (steps.append("sync"), fsync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda *names: (steps.append("replace"), replace(*names)))
    with written_aside(tmp_path / "file") as aside:
        aside.write_text("new")
    assert steps == ["sync", "replace", "sync"]
