from __future__ import annotations

import datetime
import json
import logging
import os
import re
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xmodal.data.manifests import COLUMNS, add_tag_captions, read_tracks, write_tracks
from xmodal.data.splits import SPLIT_NAMES
from xmodal.data.tracks import Caption, Track, track_fields
from xmodal.errors import DataError
from xmodal.text import render

AUDIO = ["a.wav", "sub/b.flac", "sub/deep/ç d.ogg"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a few files that have names of audio; reading a manifest does not open them."""
    folder = tmp_path_factory.mktemp("corpus")
    for name in AUDIO:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def write(path: Path, *rows: Any) -> Path:
    """A JSON lines file; a row that is a text is written as it is."""
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path


def read_csv(corpus: Path, text: str, **settings: Any) -> list[Track]:
    path = corpus / "manifest.csv"
    path.write_text(text, "utf-8")
    return read_tracks(path, **settings)


# Formats

FULL_ROW = Track(
    id="one",
    path=Path("a.wav"),
    start_seconds=1.5,
    end_seconds=4.0,
    tags={"tag": ("lo-fi", "rain"), "instrument": ("flute", "piano"), "mood": ("calm",)},
    captions=(Caption("Flute; then rain."), Caption("A calm piece")),
    lyrics="la, la",
    title="Dawn",
    artist="Someone",
    album="Days",
    split="valid",
    group="session 1",
    licence="CC0",
    source="https://example.org/1",
    extra={"note": "x"},
)


def same_but_path(track: Track, corpus: Path) -> bool:
    return track.path == corpus / "a.wav" and {**vars(track), "path": None} == {**vars(FULL_ROW), "path": None}


def test_a_csv_row_becomes_a_track(corpus: Path) -> None:
    [track] = read_csv(
        corpus,
        "\ufeffid, File ,start,END,tags,instrument,mood,text,lyrics,title,Artist,album,subset,group,licence,source,"
        "note\n"
        '\none,a.wav, 1.5,4,lo-fi;rain,"[""flute"", ""piano""]",calm,Flute; then rain.|A calm piece,"la, la",'
        "Dawn,Someone,Days,valid,session 1,CC0,https://example.org/1,x\n",
        tag_fields=["instrument", "mood"],
    )
    assert same_but_path(track, corpus)


def test_a_json_line_becomes_a_track(corpus: Path) -> None:
    row = {
        "id": "one",
        "audio": "a.wav",
        "start_seconds": 1.5,
        "end_seconds": 4,
        "labels": ["lo-fi", "rain", None, ""],
        "instruments": ["flute", "piano"],
        "mood": "calm",
        "description": ["Flute; then rain.", {"text": "A calm piece"}, ""],
        "lyrics": "la, la",
        "title": "Dawn",
        "artist": "Someone",
        "album": "Days",
        "split": "valid",
        "group": "session 1",
        "license": "CC0",
        "source": "https://example.org/1",
        "note": "x",
    }
    manifest = write(corpus / "m.jsonl", "", row, " ")
    [track] = read_tracks(manifest, tag_fields={"instruments": "instrument", "mood": "mood"})
    assert same_but_path(track, corpus)


def test_a_parquet_row_becomes_a_track(corpus: Path) -> None:
    columns = {
        "id": ["one"],
        "path": ["a.wav"],
        "start": [1.5],
        "end": [4.0],
        "tags": [["lo-fi", "rain"]],
        "instrument": ["flute | piano"],
        "mood": [["calm"]],
        "captions": ['["Flute; then rain.", "A calm piece"]'],
        "lyrics": ["la, la"],
        "title": ["Dawn"],
        "artist": ["Someone"],
        "album": ["Days"],
        "split": ["valid"],
        "group": ["session 1"],
        "licence": ["CC0"],
        "source": ["https://example.org/1"],
        "note": ["x"],
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), corpus / "m.parquet")
    [track] = read_tracks(corpus / "m.parquet", tag_fields=["instrument", "mood"])
    assert same_but_path(track, corpus)


def test_values_without_a_json_form_are_kept_as_their_text(corpus: Path) -> None:
    day = datetime.date(2020, 2, 29)
    pyarrow.parquet.write_table(
        pyarrow.table({"path": ["a.wav"], "day": [day], "bpm": [float("nan")]}), corpus / "m.parquet"
    )
    assert read_tracks(corpus / "m.parquet")[0].extra == {"day": "2020-02-29", "bpm": None}


def test_tabs_part_the_columns_of_a_tsv(corpus: Path) -> None:
    (corpus / "m.tsv").write_text("path\ttitle\na.wav\tDawn, again\n", "utf-8")
    assert read_tracks(corpus / "m.tsv")[0].title == "Dawn, again"


def test_the_folders_around_a_file_are_its_tags(tmp_path: Path) -> None:
    for name in ("top.wav", "solo_piano/x.flac", "solo_piano/calm/y.mp3", "solo_piano/cover.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = {track.id: track for track in read_tracks(tmp_path)}
    assert {name: dict(track.tags) for name, track in found.items()} == {
        "top.wav": {},
        "solo_piano/x.flac": {"folder": ("solo piano",)},
        "solo_piano/calm/y.mp3": {"folder": ("solo piano", "calm")},
    }
    assert all(track.path == tmp_path / name and track.split is None for name, track in found.items())


def test_folders_named_after_splits_are_splits_and_no_tags(tmp_path: Path) -> None:
    for name in ("Train/rock/x.wav", "test/rock/y.wav"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    assert [(track.split, track.tags) for track in read_tracks(tmp_path)] == [
        ("Train", {"folder": ("rock",)}),
        ("test", {"folder": ("rock",)}),
    ]
    (tmp_path / "live").mkdir()
    (tmp_path / "live" / "z.wav").touch()
    assert read_tracks(tmp_path)[0].tags == {"folder": ("Train", "rock")}


# Columns


def test_an_exact_name_wins_over_its_synonyms_which_stay_in_extra(corpus: Path) -> None:
    manifest = write(corpus / "m.jsonl", {"file": "b", "path": "a.wav", "text": "second", "captions": ["first"]})
    [track] = read_tracks(manifest)
    assert track.captions == (Caption("first"),)
    assert track.extra == {"file": "b", "text": "second"}


def test_a_column_of_tags_may_be_given_a_kind(corpus: Path) -> None:
    manifest = write(corpus / "m.jsonl", {"path": "a.wav", "tags": ["rock"], "artist": "Someone"})
    [track] = read_tracks(manifest, tag_fields={"tags": "genre", "artist": "artist"})
    assert track.tags == {"genre": ("rock",), "artist": ("Someone",)}
    assert track.artist == "Someone"


def test_tags_by_kind_and_tag_columns_come_together(corpus: Path) -> None:
    row = {"path": "a.wav", "tags": {"mood": ["calm"], "genre": "folk", "era": []}, "mood": "sad", "key": None}
    [track] = read_tracks(write(corpus / "m.jsonl", row), tag_fields=["mood", "key"])
    assert track.tags == {"mood": ("calm", "sad"), "genre": ("folk",)}


def test_another_column_can_hold_the_split(corpus: Path) -> None:
    manifest = write(corpus / "m.jsonl", {"path": "a.wav", "split": "train", "part": "test"})
    [track] = read_tracks(manifest, split_field="part")
    assert track.split == "test"
    assert track.extra == {"split": "train"}


def test_rows_without_an_id_are_called_by_their_path_and_part(corpus: Path) -> None:
    rows = [{"path": "./sub/b.flac"}, {"path": "sub/b.flac", "start": 2}, {"path": "sub/b.flac", "start": 2, "end": 3}]
    tracks = read_tracks(write(corpus / "m.jsonl", *rows))
    assert [track.id for track in tracks] == ["sub/b.flac", "sub/b.flac#t=2.0,", "sub/b.flac#t=2.0,3.0"]


def test_numbers_can_be_ids_and_names(corpus: Path) -> None:
    [track] = read_tracks(write(corpus / "m.jsonl", {"path": "a.wav", "id": 7, "title": 1979, "tags": [120]}))
    assert (track.id, track.title, track.tags) == ("7", "1979", {"tag": ("120",)})


# Where the audio is


def test_paths_start_at_the_manifest_or_one_folder_above_it(corpus: Path) -> None:
    manifest = write(
        corpus / "sub" / "m.jsonl", {"path": "b.flac"}, {"path": "a.wav"}, {"path": str(corpus / "a.wav"), "id": 3}
    )
    assert [track.path for track in read_tracks(manifest)] == [
        corpus / "sub" / "b.flac",
        corpus / "a.wav",
        corpus / "a.wav",
    ]


def test_the_nearer_file_wins(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a.wav", "sub/a.wav"):
        (tmp_path / name).touch()
    assert read_tracks(write(tmp_path / "sub" / "m.jsonl", {"path": "a.wav"}))[0].path == tmp_path / "sub" / "a.wav"


def test_an_audio_root_is_the_only_place_to_look(corpus: Path, tmp_path: Path) -> None:
    manifest = write(tmp_path / "m.jsonl", {"path": "b.flac"})
    assert read_tracks(manifest, audio_root=corpus / "sub")[0].path == corpus / "sub" / "b.flac"
    (tmp_path / "b.flac").touch()
    with pytest.raises(DataError, match=r"1 set aside, the audio file is not under .*corpus[^ ]* \(line 1: b.flac\)"):
        read_tracks(manifest, audio_root=corpus)


def test_missing_audio_is_counted_and_the_places_named(corpus: Path) -> None:
    manifest = write(corpus / "m.jsonl", *({"path": f"{name}.wav"} for name in "awxyz"))
    with pytest.raises(DataError) as refusal:
        read_tracks(manifest)
    assert str(refusal.value) == (
        f"{manifest}: 4 set aside, the audio file is not under {corpus} and {corpus.parent} "
        "(line 2: w.wav; line 3: x.wav; line 4: y.wav; …); give audio_root (--audio-root), the folder where the paths "
        "start, or missing='skip' to go on with the files that are there, if any"
    )
    with pytest.raises(DataError, match=r"\(--audio-root\), the folder where the paths start$"):
        read_tracks(write(corpus / "none.jsonl", {"path": "w.wav"}), missing="skip")


def test_missing_audio_is_left_out_and_reported_when_asked(corpus: Path, caplog: pytest.LogCaptureFixture) -> None:
    manifest = write(corpus / "m.jsonl", {"path": "a.wav"}, {"path": "w.wav"}, {"path": "sub"})
    with caplog.at_level(logging.WARNING):
        assert [track.id for track in read_tracks(manifest, missing="skip")] == ["a.wav"]
    assert "2 set aside, the audio file is not under" in caplog.text
    assert "line 2: w.wav; line 3: sub" in caplog.text


def test_a_manifest_whose_audio_is_all_missing_is_refused_even_so(corpus: Path) -> None:
    with pytest.raises(DataError, match="1 set aside, the audio file is not under"):
        read_tracks(write(corpus / "m.jsonl", {"path": "w.wav"}), missing="skip")


# Refusals


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "has no rows"),
        (['{"path": a.wav}'], r"m\.jsonl, line 1: not readable as JSON \(.*column 10\)"),
        (["", '["a.wav"]'], r'line 2: each line must be a JSON object, got \["a.wav"\]'),
        ([{"wav": "a.wav", "x": 1}], r"no column for the audio file \(path, file, filename, audio\).*: wav, x;"),
        ([{"path": "a.wav"}, {"path": " "}], "line 2: every row needs an audio file, and the column 'path' is empty"),
        ([{"path": ["a.wav"]}], r'line 1: column \'path\': must be one text, got \["a.wav"\]'),
        ([{"path": "a.wav", "id": "x"}, {"path": "a.wav", "id": "x"}], "line 2: .*'x' is already on line 1; rename"),
        ([{"path": "a.wav", "start": 3, "end": 3}], "line 1: end_seconds must be after start_seconds=3, got 3.0"),
        ([{"path": "a.wav", "start": "1:30"}], "line 1: column 'start': must be a number of seconds, got '1:30'"),
        ([{"path": "a.wav", "end_seconds": [1]}], "column 'end_seconds': must be a number of seconds"),
        ([{"path": "a.wav", "captions": [{"words": "x"}]}], 'column \'captions\': .*got {"words": "x"}'),
        ([{"path": "a.wav", "captions": [{"text": 1}]}], "column 'captions': a caption needs words, got 1"),
        ([{"path": "a.wav", "tags": [["x"]]}], r"column 'tags': must be one text, got \[\"x\"\]"),
        ([{"path": "a.wav", "tags": {" ": {"a": 1}}}], r"column 'tags': must be one text"),
    ],
)
def test_a_bad_row_is_refused_by_file_line_and_column(corpus: Path, rows: list[Any], message: str) -> None:
    manifest = write(corpus / "m.jsonl", *rows)
    with pytest.raises(DataError, match=message) as refusal:
        read_tracks(manifest)
    assert str(manifest) in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,title\n", "has no rows"),
        ("", "has no rows"),
        ("path,title\na.wav,Dawn, again\n", "line 2: the header has 2 columns and this row 3; put texts with commas"),
        ("path,title\n\na.wav\n", "line 3: the header has 2 columns and this row 1"),
        ("path,tag,tag\na.wav,x,y\n", "'tag' is there twice"),
        ('path,title\na.wav,"Dawn\n', r"line 2: not readable as CSV \(unexpected end of data\)"),
    ],
)
def test_a_bad_csv_is_refused(corpus: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_csv(corpus, text)


def test_columns_asked_for_must_be_there(corpus: Path) -> None:
    for asked in ({"tag_fields": ["mood"]}, {"tag_fields": {"mood": "m"}}, {"split_field": "mood"}):
        with pytest.raises(DataError, match="no column 'mood'; its columns are: path, title"):
            read_csv(corpus, "path,title\na.wav,Dawn\n", **asked)
    assert read_csv(corpus, "path,mood\na.wav,\n", tag_fields=["mood"])[0].tags == {}


def test_sources_that_are_no_manifest_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no audio; looked for files ending in"):
        read_tracks(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        read_tracks(tmp_path / "m.csv")
    (tmp_path / "m.xlsx").touch()
    with pytest.raises(DataError, match=r"ends in .csv, .tsv, .jsonl, .parquet, got '.xlsx'"):
        read_tracks(tmp_path / "m.xlsx")
    (tmp_path / "m.parquet").write_text("path")
    with pytest.raises(DataError, match="not readable as Parquet"):
        read_tracks(tmp_path / "m.parquet")
    for name, text in (("m.csv", "path\ncafé.wav\n"), ("m.jsonl", '{"path": "café.wav"}\n')):
        (tmp_path / name).write_bytes(text.encode("latin-1"))
        with pytest.raises(DataError, match="is not UTF-8 text"):
            read_tracks(tmp_path / name)


def test_arguments_that_make_no_sense_are_refused(corpus: Path) -> None:
    manifest = write(corpus / "m.jsonl", {"path": "a.wav"})
    with pytest.raises(ValueError, match="'refuse' or 'skip', got 'ignore'"):
        read_tracks(manifest, missing="ignore")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"write \['mood'\]"):
        read_tracks(manifest, tag_fields="mood")


# Writing

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(str.strip)
values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words
known_names = ["path", "Text", "tags", "extra", "end", "split", "licence"]


@st.composite
def any_tracks(draw: st.DrawFn) -> list[Track]:
    ids = draw(st.lists(words, min_size=1, max_size=4, unique=True))
    tracks = []
    for name in ids:
        start = draw(st.floats(0, 100))
        tracks.append(
            Track(
                id=name,
                path=Path(draw(st.sampled_from(AUDIO))),
                start_seconds=start,
                end_seconds=draw(st.none() | st.floats(start, 200, exclude_min=True)),
                tags=draw(st.dictionaries(words, st.lists(words, max_size=3), max_size=3)),
                captions=draw(
                    st.lists(st.builds(Caption, words, st.none() | st.frozensets(words, max_size=2)), max_size=3)
                ),
                extra=draw(
                    st.dictionaries(words | st.sampled_from(known_names), values | st.lists(values), max_size=4)
                ),
                **{
                    field: draw(st.none() | words) for field in ("lyrics", "title", "artist", "album", "split", "group")
                },
            )
        )
    return tracks


@given(any_tracks(), st.sampled_from(["m.jsonl", "new/m.jsonl"]))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_what_is_written_is_read_back(corpus: Path, tracks: list[Track], name: str) -> None:
    tracks = [
        Track(**{field: getattr(track, field) for field in track.__dataclass_fields__} | {"path": corpus / track.path})
        for track in tracks
    ]
    write_tracks(tracks, corpus / name)
    assert read_tracks(corpus / name) == tracks


def test_paths_are_written_relative_so_that_the_folder_can_move(tmp_path: Path) -> None:
    (tmp_path / "old" / "audio").mkdir(parents=True)
    (tmp_path / "old" / "audio" / "a.wav").touch()
    write_tracks([Track("a", tmp_path / "old" / "audio" / "a.wav")], tmp_path / "old" / "m.jsonl")
    (tmp_path / "old").rename(tmp_path / "new")
    assert read_tracks(tmp_path / "new" / "m.jsonl")[0].path == tmp_path / "new" / "audio" / "a.wav"


def test_a_linked_folder_leads_to_the_same_files(tmp_path: Path) -> None:
    (tmp_path / "real" / "lists").mkdir(parents=True)
    (tmp_path / "real" / "a.wav").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "lists")
    for audio in (tmp_path / "real" / "a.wav", tmp_path / "link" / "b.wav"):
        audio.touch()
        write_tracks([Track("a", audio)], tmp_path / "link" / "m.jsonl")
        assert read_tracks(tmp_path / "link" / "m.jsonl")[0].path == audio


def test_a_file_name_that_is_not_unicode_is_written_and_read_back(tmp_path: Path) -> None:
    audio = tmp_path / os.fsdecode(b"caf\xe9.wav")
    try:
        audio.touch()
    except OSError:
        pytest.skip("this file system holds Unicode names only")
    [track] = read_tracks(tmp_path)
    assert track.id == "caf\\xe9.wav"
    write_tracks([track], tmp_path / "m.jsonl")
    assert read_tracks(tmp_path / "m.jsonl") == [track]


def test_a_failed_write_leaves_the_old_manifest_and_nothing_else(corpus: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    write_tracks([Track("a", corpus / "a.wav")], path)
    before = path.read_bytes()
    for value in (Path("x"), float("nan")):
        with pytest.raises(ValueError, match="extra of track 'b' must be JSON-able"):
            write_tracks([Track("a", corpus / "a.wav"), Track("b", corpus / "a.wav", extra={"x": value})], path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["m.jsonl"]


def test_a_manifest_is_as_readable_as_any_new_file(corpus: Path, tmp_path: Path) -> None:
    write_tracks([Track("a", corpus / "a.wav")], tmp_path / "m.jsonl")
    (tmp_path / "other").touch()
    assert stat.S_IMODE((tmp_path / "m.jsonl").stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


def test_tracks_that_make_no_manifest_are_not_written(corpus: Path, tmp_path: Path) -> None:
    track = Track("a", corpus / "a.wav")
    with pytest.raises(ValueError, match="1 different ids for 2 tracks"):
        write_tracks([track, track], tmp_path / "m.jsonl")
    with pytest.raises(ValueError, match="at least one track"):
        write_tracks([], tmp_path / "m.jsonl")
    with pytest.raises(ValueError, match="ending in .jsonl"):
        write_tracks([track], tmp_path / "m.csv")
    assert not list(tmp_path.iterdir())


# Captions from tags


def test_only_tracks_without_captions_get_some_and_each_from_its_own_id() -> None:
    tracks = [
        Track("a", Path("a"), tags={"instrument": ("flute", "piano"), "mood": ("calm",)}),
        Track("b", Path("b"), tags={"mood": ("calm",)}, captions=(Caption("own"),)),
        Track("c", Path("c")),
    ]
    filled = add_tag_captions(tracks, per_track=5)
    assert filled[1:] == tracks[1:]
    assert 1 < len(filled[0].captions) <= 5
    for caption in filled[0].captions:
        assert caption.requires
        assert caption.requires <= tracks[0].all_tags
        assert all(tag in caption.text for tag in caption.requires)
    assert add_tag_captions(tracks[:1], per_track=5) == filled[:1]
    assert add_tag_captions(tracks, per_track=5, seed=1) != filled


# The page for users


def test_the_examples_of_the_page_are_true(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text("utf-8")
    [table] = re.findall(r"```csv\n(.*?)```", page, re.DOTALL)
    for name in ("audio/dawn.flac", "audio/start.ogg", "music/solo_piano/calm/rain.mp3", "music/rock/start.ogg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "manifest.csv").write_text(table, "utf-8")
    tracks = read_tracks(tmp_path / "manifest.csv", tag_fields=["instrument", "mood"])
    assert tracks[0].tags == {"instrument": ("piano",), "mood": ("calm", "warm")}
    assert tracks[1].captions == (Caption("Guitars at full speed"), Caption("A loud rock song"))
    text = render(track_fields(tracks[0]), "{mood} music[ by {artist}][, from {album}]")
    assert text == "calm, warm music by Someone"
    assert {track.id: track.tags for track in read_tracks(tmp_path / "music")} == {
        "rock/start.ogg": {"folder": ("rock",)},
        "solo_piano/calm/rain.mp3": {"folder": ("solo piano", "calm")},
    }
    for names in (*COLUMNS.values(), SPLIT_NAMES):
        assert all(f"`{name}`" in page for name in names if name not in ("training", "testing"))


# Real manifests

KINDS = {
    "esc10": (398, ["label"], {"label": 10}, {None: 398}),
    "cc0notes": (
        1569,
        ["instrument", "family"],
        {"instrument": 22, "family": 6},
        {"train": 1143, "valid": 187, "test": 239},
    ),
    "ccmusic": (105, ["genre", "mood"], {"genre": 15, "mood": 12}, {None: 105}),
    "folkrender": (600, ["instrument"], {"instrument": 20, "tag": 47}, {"train": 420, "valid": 60, "test": 120}),
    "spoken_digits": (3000, ["word"], {"word": 10}, {"train": 2000, "test": 1000}),
}


@pytest.mark.parametrize("name", KINDS)
def test_real_manifests_are_read_whole_and_back(shared_audio: Path, tmp_path: Path, name: str) -> None:
    count, tag_fields, names_by_kind, splits = KINDS[name]
    tracks = read_tracks(shared_audio / f"{name}.jsonl", tag_fields=tag_fields)
    assert len(tracks) == count
    kinds = {kind for track in tracks for kind in track.tags}
    assert {kind: len({tag for track in tracks for tag in track.tags.get(kind, ())}) for kind in kinds} == names_by_kind
    assert Counter(track.split for track in tracks) == splits
    write_tracks(tracks, tmp_path / "m.jsonl")
    assert read_tracks(tmp_path / "m.jsonl") == tracks
