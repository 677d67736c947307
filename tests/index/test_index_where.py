"""Filters on metadata: what a user may write, and that columns give what looking at every row gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmodal.index.items import Items
from xmodal.index.where import Condition, facets, holds, parse_where

ROWS = [
    {"genre": "Rock", "year": 1994, "tags": ["Guitar", "loud"], "duration_seconds": 181.5},
    {"genre": "jazz", "year": "1961", "tags": [], "duration": 300},
    {"genre": ["rock", "Folk"], "year": 2001.0, "tags": ["piano"], "live": True},
    {},
    {"tags": {"mood": ["calm", "Sad"]}, "live": False, "year": "about 1980"},
]


def rows_for(where, rows=ROWS):
    items = Items()
    items.append([str(row) for row in range(len(rows))], rows)
    return items.select(parse_where(where)).tolist()


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("genre=rock", [0, 2]),
        ("genre = ROCK|jazz", [0, 1, 2]),
        ("genre!=rock", [1, 3, 4]),
        ("year>=1961", [0, 1, 2]),
        ("year=1961", [1]),
        ("year=1990..1999", [0]),
        ("year<1994", [1]),
        ("year>1994", [2]),
        ("year<=1994", [0, 1]),
        ("year=about 1980", [4]),
        ("tag=piano", [2]),
        ("tags.mood=sad", [4]),
        ("duration<200", [0]),
        ("duration>=200", [1]),
        ("live=true", [2]),
        ("live=false", [4]),
        (["genre=rock", "year>2000"], [2]),
        ("nobody=knows", []),
        ([], [0, 1, 2, 3, 4]),
    ],
)
def test_rows_are_found_by_words_and_numbers(where, rows):
    assert rows_for(where) == rows


def test_a_duration_in_seconds_that_is_given_is_not_that_of_another_unit():
    rows = [{"duration": 300_000, "duration_seconds": 180}, {"duration": 180}]
    assert rows_for("duration<200", rows) == [0, 1]
    assert all(holds(Condition("duration", "<", ("200",)), *facets(row)) for row in rows)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("rock", "'rock' is no condition; write for example genre=rock"),
        ("=rock", "no condition"),
        ("year>", "no condition"),
        ("year>soon", "year> needs one number, got 'soon'"),
        ("year<nan", "needs one number"),
    ],
)
def test_what_is_no_condition_is_refused_with_an_example(where, message):
    with pytest.raises(ValueError, match=message):
        parse_where(where)


@pytest.mark.parametrize(
    ("comparison", "held"), [("<", [1]), ("<=", [1, 2]), (">", [3]), (">=", [2, 3]), ("=", [2]), ("!=", [1, 3])]
)
def test_a_bound_itself_is_in_or_out_as_its_sign_says_for_a_row_and_for_columns(comparison, held):
    condition, rows = Condition("year", comparison, ("2",)), [{"year": number} for number in (1, 2, 3)]
    assert [row["year"] for row in rows if holds(condition, *facets(row))] == held
    assert [rows[row]["year"] for row in rows_for(f"year{comparison}2", rows)] == held


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('artist="Me | You"|Them', ("Me | You", "Them")),
        ('artist=Them | "Me|You" ', ("Them", "Me|You")),
        ('title="1990..1999"', ("1990..1999",)),
        ('title="say ""a"" | b"', ('say "a" | b',)),
        ('title=12" mix|other', ('12" mix', "other")),
        ('title="open|shut', ('"open', "shut")),
        ('title="a" b|c', ('"a" b', "c")),
        ('title="a"b"|c', ('"a"b"', "c")),
        ('title=""', ("",)),
        ("title=a||b|", ("a", "", "b", "")),
    ],
)
def test_a_value_in_quotes_is_taken_as_it_stands(text, values):
    (condition,) = parse_where(text)
    assert condition.values == values


@given(st.lists(st.text(min_size=1), min_size=1, max_size=4))
def test_any_value_can_be_written_in_quotes(values):
    written = "|".join('"{}"'.format(value.replace('"', '""')) for value in values)
    (condition,) = parse_where(f"artist={written}")
    assert condition.values == tuple(values)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([0.5, -1.5, 2.0]),
    st.sampled_from(["a", "A", "b", "2", "-1.5", "a b"]),
    st.lists(st.sampled_from(["a", "B", "2"]), max_size=3),
    st.dictionaries(st.sampled_from(["x", "y"]), st.sampled_from(["a", 2, ["b", "c"]]), max_size=2),
)
METADATA = st.dictionaries(st.sampled_from(["k", "m", "duration", "k.x"]), VALUES, max_size=3)
CONDITIONS = st.builds(
    Condition,
    st.sampled_from(["k", "m", "k.x", "duration"]),
    st.sampled_from(["=", "!="]),
    st.lists(st.sampled_from(["a", "b", "2", "true", "-1.5"]), min_size=1, max_size=2).map(tuple),
) | st.builds(
    Condition,
    st.sampled_from(["k", "m", "k.x", "duration"]),
    st.sampled_from(["<", "<=", ">", ">="]),
    st.sampled_from([("0",), ("2",), ("-1.5",)]),
)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.lists(METADATA, max_size=4), max_size=3), st.lists(CONDITIONS, max_size=2), st.randoms())
def test_columns_give_what_looking_at_every_row_gives(parts, where, random):
    items, kept = Items(), []
    for number, part in enumerate(parts):
        items.append([f"{number}-{row}" for row in range(len(part))], part)
        kept += part
    stay = np.array([row for row in range(len(kept)) if random.random() < 0.8], np.int64)
    items.keep(stay)
    kept = [{key: value for key, value in kept[row].items() if value is not None} for row in stay]
    assert items.metadata == kept
    expected = [row for row, facts in enumerate(kept) if all(holds(one, *facets(facts)) for one in where)]
    assert items.select(where).tolist() == expected
