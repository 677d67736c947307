from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xmodal.data.tracks import Caption, Track, relevance_matrix, track_fields
from xmodal.text import render

TAGS = ["piano", "Piano", "flute", "calm", "ﬂute"]  # the last one with a ligature: NFKC makes it "flute"
TEXTS = ["A calm tune", "a  calm tune", "solo piano", "Solo Piano", "drums"]

captions = st.builds(
    Caption, st.sampled_from(TEXTS), st.none() | st.frozensets(st.sampled_from([*TAGS, "bassoon"]), max_size=3)
)
tracks = st.builds(
    Track,
    id=st.sampled_from("abcd"),
    path=st.just(Path("a.wav")),
    tags=st.dictionaries(st.sampled_from(["instrument", "mood"]), st.lists(st.sampled_from(TAGS)), max_size=2),
    captions=st.lists(captions, max_size=2),
)


def spoken(text: str) -> str:
    return " ".join(text.replace("ﬂ", "fl").lower().split())


def is_right(row: int, track: Track, text: Caption, owner: int | str | None) -> bool:
    """The rule, pair by pair."""
    if owner in (row, track.id):
        return True
    if any(spoken(own.text) == spoken(text.text) for own in track.captions):
        return True
    named = {spoken(tag) for tag in text.requires or ()}
    return bool(named) and named <= {spoken(tag) for names in track.tags.values() for tag in names}


@given(
    st.lists(tracks, max_size=5).flatmap(
        lambda rows: st.tuples(
            st.just(rows),
            st.lists(
                st.tuples(captions, st.sampled_from([None, "a", "b", "elsewhere", *range(len(rows))])), max_size=5
            ),
        )
    )
)
def test_relevance_is_the_documented_rule(case: tuple[list[Track], list[tuple[Caption, int | str | None]]]) -> None:
    rows, columns = case
    texts = [text for text, _ in columns]
    owners = [owner for _, owner in columns]
    relevance = relevance_matrix(rows, texts, owners)
    assert relevance.dtype == torch.bool
    assert relevance.shape == (len(rows), len(texts))
    expected = [[is_right(i, row, text, owner) for text, owner in columns] for i, row in enumerate(rows)]
    assert relevance.tolist() == expected


def test_a_text_that_names_tags_is_right_for_every_track_that_has_them_all() -> None:
    rows = [
        Track("both", Path("a"), tags={"instrument": ("Flute",), "mood": ("calm",)}),
        Track("one", Path("b"), tags={"instrument": ("flute",)}),
        Track("none", Path("c")),
    ]
    texts = [
        Caption("calm flute", frozenset({"flute", "Calm"})),
        Caption("flute", frozenset({"flute"})),
        Caption("music", frozenset()),
        Caption("bassoon", frozenset({"bassoon"})),
    ]
    assert relevance_matrix(rows, texts, [None] * 4).tolist() == [
        [True, True, False, False],
        [False, True, False, False],
        [False, False, False, False],
    ]


def test_an_owner_id_is_right_in_every_row_of_that_track() -> None:
    rows = [Track("a", Path("a")), Track("b", Path("b")), Track("a", Path("a"))]
    assert relevance_matrix(rows, [Caption("x"), Caption("y")], ["a", 1]).tolist() == [
        [True, False],
        [False, True],
        [True, False],
    ]


@pytest.mark.parametrize("owner", [-1, 1])
def test_an_owner_outside_the_tracks_is_refused(owner: int) -> None:
    with pytest.raises(ValueError, match=f"from 0 to 0, got {owner}"):
        relevance_matrix([Track("a", Path("a"))], [Caption("x")], [owner])


def test_texts_without_owners_are_refused() -> None:
    with pytest.raises(ValueError, match="got 1 texts and 0 owners"):
        relevance_matrix([], [Caption("x")], [])


def test_a_track_survives_pickling_and_counts_in_sets() -> None:
    track = Track("a", Path("a.wav"), tags={"mood": ("calm",)}, captions=(Caption("x", frozenset({"calm"})),))
    assert track.all_tags == {"calm"}
    assert pickle.loads(pickle.dumps(track)) == track
    assert len({track, dataclasses.replace(track), dataclasses.replace(track, id="b")}) == 2
    assert dataclasses.replace(track, tags={"mood": ("sad",)}).all_tags == {"sad"}


def test_tags_are_compared_without_case_but_kept_as_written() -> None:
    track = Track("a", Path("a"), tags={"genre": ["Lo-Fi  Hip Hop", "Lo-Fi  Hip Hop"], "mood": []})
    assert track.tags == {"genre": ("Lo-Fi  Hip Hop",)}
    assert track.all_tags == {"lo-fi hip hop"}
    assert Caption("beats", frozenset({"LO-FI hip hop"})).requires == track.all_tags


def test_a_template_can_name_everything_known_about_a_track() -> None:
    track = Track(
        "a",
        Path("a"),
        title="Dawn",
        tags={"mood": ("calm", "warm"), "instrument": ("flute",), "title": ("no",)},
        captions=(Caption("A calm tune"),),
        extra={"bpm": 90, "mood": "no"},
    )
    template = "{id}: {caption} / {title}[ by {artist}], {mood}, {tags}, {bpm} bpm"
    assert render(track_fields(track), template) == "a: A calm tune / Dawn, calm, warm, calm, warm, flute, no, 90 bpm"
    assert track_fields(Track("b", Path("b")))["caption"] is None


def test_blank_fields_are_no_fields() -> None:
    track = Track("a", Path("a"), title=" ", lyrics="", artist="Someone")
    assert (track.title, track.lyrics, track.artist) == (None, None, "Someone")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": " "}, "needs an id"),
        ({"start_seconds": -1}, "start_seconds must be 0 or later, got -1"),
        ({"start_seconds": float("nan")}, "start_seconds must be 0 or later, got nan"),
        ({"start_seconds": 2, "end_seconds": 2}, "after start_seconds=2, got 2"),
        ({"end_seconds": float("inf")}, "after start_seconds=0, got inf"),
        ({"tags": {"mood": "calm"}}, r"write \['calm'\]"),
        ({"tags": {"mood": ["calm", ""]}}, "a tag must be a name, got ''"),
        ({"captions": ["a calm tune"]}, r"wrap a text as Caption\(text\)"),
        ({"title": 1979}, "title must be a text or None, got 1979"),
    ],
)
def test_a_track_that_makes_no_sense_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Track(**{"id": "a", "path": Path("a.wav")} | fields)


@pytest.mark.parametrize(
    ("text", "requires", "message"),
    [("  ", None, "needs words"), ("x", "piano", "set of tags"), ("x", frozenset({" "}), "a tag must be a name")],
)
def test_a_caption_that_makes_no_sense_is_refused(text: str, requires: frozenset[str] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Caption(text, requires)
