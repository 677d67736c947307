from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmodal.data.manifests import read_tracks
from xmodal.data.splits import fold_split, split_tracks
from xmodal.data.tracks import Track
from xmodal.errors import DataError

PARTS = ("train", "validation", "test")


def track(name: str, **fields: object) -> Track:
    return Track(name, Path(f"{name}.wav"), **fields)  # type: ignore[arg-type]


def where(parts: dict[str, list[Track]]) -> dict[str, str]:
    return {item.id: part for part, items in parts.items() for item in items}


corpora = st.lists(
    st.tuples(st.integers(0, 999), st.sampled_from(["group", "artist", None]), st.sampled_from("ABCDE")),
    max_size=30,
    unique_by=lambda row: row[0],
).map(lambda rows: [track(str(name), **({field: key} if field else {})) for name, field, key in rows])


@given(corpora, corpora, st.integers(0, 5))
def test_a_group_is_on_one_side_and_stays_there_when_tracks_are_added(
    tracks: list[Track], more: list[Track], seed: int
) -> None:
    parts = split_tracks(tracks, validation=0.3, test=0.3, seed=seed)
    assert tuple(parts) == PARTS
    assert sorted(where(parts)) == sorted(item.id for item in tracks)
    side: dict[tuple[str | None, str | None], str] = {}
    for part, items in parts.items():
        assert [item for item in tracks if item in items] == items, "each part keeps the order of the manifest"
        for item in items:
            if item.group or item.artist:
                assert side.setdefault((item.group, item.artist), part) == part
    added = [item for item in more if item.id not in {known.id for known in tracks}]
    assert where(split_tracks(added + tracks, validation=0.3, test=0.3, seed=seed)).items() >= where(parts).items()


def test_shares_are_met_on_average_and_the_seed_matters() -> None:
    tracks = [track(str(number)) for number in range(4000)]
    parts = split_tracks(tracks, validation=0.1, test=0.25)
    assert len(parts["validation"]) == pytest.approx(400, abs=60)
    assert len(parts["test"]) == pytest.approx(1000, abs=90)
    assert where(split_tracks(tracks, validation=0.1, test=0.25, seed=1)) != where(parts)
    assert where(split_tracks(tracks, validation=0, test=0)) == {item.id: "train" for item in tracks}


def test_the_division_is_the_same_in_every_process_and_release() -> None:
    # From b2sum -l 64 of "0:id:a" and so on; if this changes, everybody's test sets change.
    parts = split_tracks([track(name) for name in "abcdefghijklmnopqrstuvwxyz"], validation=0.2, test=0.2)
    assert {part: "".join(item.id for item in items) for part, items in parts.items()} == {
        "train": "adghjkrtuz",
        "validation": "cinpvwy",
        "test": "beflmoqsx",
    }


def test_artists_are_told_apart_by_their_words_and_a_group_goes_before_an_artist() -> None:
    names = ["The Band", "the  BAND", "THE BAND"]
    for seed in range(20):
        parts = split_tracks([track(str(n), artist=name) for n, name in enumerate(names)], test=0.4, seed=seed)
        assert sorted(map(len, parts.values())) == [0, 0, 3]
    apart = [track("x", group="1", artist="Someone"), track("y", group="2", artist="Someone")]
    sides = [where(split_tracks(apart, test=0.5, seed=seed)) for seed in range(20)]
    assert any(side["x"] != side["y"] for side in sides)


def test_the_split_column_holds_under_all_its_names() -> None:
    names = {
        "train": ["train", "Training "],
        "validation": ["valid", "VAL", "validation", "dev", "eval"],
        "test": ["test"],
    }
    tracks = [track(name, split=name) for part in PARTS for name in names[part]]
    assert where(split_tracks(tracks)) == {name: part for part in PARTS for name in names[part]}


def test_validation_is_carved_out_of_train_and_never_out_of_test() -> None:
    tracks = [track(str(n), split="train" if n % 2 else "test", group=f"{n % 2}/{n // 4}") for n in range(800)]
    parts = split_tracks(tracks, validation=0.2, test=0.9 - 0.2)
    assert [item.split for item in parts["test"]] == ["test"] * 400
    assert {item.split for item in parts["validation"]} == {"train"}
    assert len(parts["validation"]) == pytest.approx(80, abs=40)
    assert not {item.group for item in parts["validation"]} & {item.group for item in parts["train"]}


def test_test_is_carved_out_of_train_where_only_validation_is_named() -> None:
    tracks = [track(str(n), split="train" if n % 2 else "dev") for n in range(400)]
    parts = split_tracks(tracks, test=0.2)
    assert [item.split for item in parts["validation"]] == ["dev"] * 200
    assert {item.split for item in parts["test"]} == {"train"}
    assert len(parts["test"]) == pytest.approx(40, abs=25)


def test_a_group_on_both_sides_of_a_given_split_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    tracks = [track("a", split="train", group="g"), track("b", split="valid"), track("c", split="test", group="g")]
    with caplog.at_level(logging.WARNING):
        split_tracks(tracks)
    assert "1 groups are both in test and in train or validation (the first is 'g')" in caplog.text


def test_splits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(DataError, match="1 of 2 tracks have no split \\(the first is 'b'\\)"):
        split_tracks([track("a", split="train"), track("b")])
    with pytest.raises(DataError, match="track 'a' is in the split 'holdout', and the names of splits are: train"):
        split_tracks([track("a", split="holdout")])
    for shares in ({"validation": -0.1}, {"test": float("nan")}, {"validation": 0.5, "test": 0.5}):
        with pytest.raises(ValueError, match="together below 1"):
            split_tracks([], **shares)


def test_one_fold_tests_and_the_others_train_and_validate() -> None:
    tracks = [track(str(n), extra={"fold": n % 5 + 1}, group=str(n // 10)) for n in range(500)]
    for fold in (1, "5"):
        parts = fold_split(tracks, "fold", fold, validation=0.2)
        assert [item for item in tracks if item.extra["fold"] == int(fold)] == parts["test"]
        assert len(parts["validation"]) == pytest.approx(80, abs=45)
        assert len(where(parts)) == 500
        assert not {item.group for item in parts["validation"]} & {item.group for item in parts["train"]}


def test_folds_that_are_not_there_are_refused() -> None:
    tracks = [track("a", extra={"fold": 1}), track("b", extra={"fold": 2})]
    with pytest.raises(DataError, match="no track is in fold 3; there are: 1, 2"):
        fold_split(tracks, "fold", 3)
    with pytest.raises(DataError, match="1 tracks have no 'fold' \\(the first is 'c'\\)"):
        fold_split([*tracks, track("c")], "fold", 1)
    with pytest.raises(ValueError, match="below 1"):
        fold_split(tracks, "fold", 1, validation=1.0)


def test_official_folds_keep_their_groups_apart(shared_audio: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracks = read_tracks(shared_audio / "esc10.jsonl", tag_fields=["label"])
    with caplog.at_level(logging.WARNING):
        sizes = [len(fold_split(tracks, "fold", fold)["test"]) for fold in range(1, 6)]
    assert sizes == [79, 79, 80, 80, 80]
    assert not caplog.records


def test_held_out_speakers_stay_held_out(shared_audio: Path) -> None:
    parts = split_tracks(read_tracks(shared_audio / "spoken_digits.jsonl"), validation=0.25)
    speakers = {part: {item.group for item in items} for part, items in parts.items()}
    assert len(speakers["test"]) == 2
    assert speakers["validation"]
    assert not speakers["validation"] & (speakers["train"] | speakers["test"])
