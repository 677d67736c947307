"""Adapters of published data sets, each on a three-row copy in its published layout, and on the real files."""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from dataset_copies import COPIES, dali_entry, dali_object, table

from xmodal.cli import main
from xmodal.data import adapters, read_tracks, split_tracks, write_tracks
from xmodal.data.adapters import gtzan, magnatagatune
from xmodal.data.adapters.pickles import read_plain_pickle
from xmodal.errors import DataError

OPTIONS = {"FMA": {"subset": "medium"}}


@pytest.fixture
def copy(request, tmp_path):
    return make(request.param, tmp_path)


def make(name, folder, **options):
    COPIES[name](folder)
    return getattr(adapters, name)(str(folder), **{**OPTIONS.get(name, {}), **options})


def by_id(adapter):
    return {track.id: track for track in adapter.read().tracks}


def every(name):
    return pytest.mark.parametrize(name, list(COPIES), indirect=True)


# The contract


@every("copy")
def test_an_adapter_gives_tracks_that_can_be_written_and_read_back(copy, tmp_path):
    corpus = copy.read()
    assert 2 <= len(corpus.tracks) <= 3
    assert all(track.path.is_file() and track.licence and track.source for track in corpus.tracks if copy.name != "FMA")
    assert all(
        track.tags or track.captions or track.lyrics or track.absent for track in corpus.tracks if track.id != "7"
    )
    write_tracks(corpus.tracks, tmp_path / "manifest.jsonl")
    assert read_tracks(tmp_path / "manifest.jsonl") == corpus.tracks
    split_tracks(corpus.tracks)  # the names of the splits are ours


@every("copy")
def test_a_copy_is_compared_with_what_was_published(copy):
    report = copy.check()
    counted = [finding for finding in report.findings if "were published" in finding.what]
    assert bool(counted) == bool(copy.expected and copy.name != "GTZAN"), "three rows are not the whole set"
    assert all(finding.source.startswith("http") for finding in report.findings)


@every("copy")
def test_missing_audio_is_counted_with_where_it_comes_from(copy):
    before = copy.read()
    before.tracks[0].path.unlink()
    corpus = copy.read()
    assert [track.id for track in corpus.tracks] == [track.id for track in before.tracks[1:]]
    assert before.tracks[0].id in {one.id for one in corpus.set_aside}
    missing = [finding for finding in copy.check().findings if finding.what == "audio files are not there"]
    assert missing[0].count == len([one for one in corpus.set_aside if "empty" not in one.reason])
    assert missing[0].source == copy.audio_url
    for track in corpus.tracks:
        track.path.unlink()
    with pytest.raises(DataError, match=r"none of the \d+ audio files is there"):
        copy.read()


@every("copy")
def test_a_missing_list_is_named_with_where_it_comes_from(copy):
    for part in copy.parts:
        if part.needed:
            copy.place(part.path).unlink()
            with pytest.raises(DataError, match=f"is no whole copy of {copy.name}: .*{part.path} comes from http"):
                copy.read()
            return
    assert copy.name in ("GTZAN", "DALI"), "these have no list"


@every("copy")
def test_no_folder_is_refused(copy, tmp_path):
    gone = type(copy)(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=rf"nowhere is no folder; give the folder of your copy of {copy.name}"):
        gone.read()


@every("copy")
def test_a_list_cut_short_is_refused_and_not_guessed(copy):
    lists = [copy.place(part.path) for part in copy.parts if part.needed and part.path.endswith(("csv", "tsv"))]
    for path in lists[:1]:
        content = path.read_bytes()
        path.write_bytes(content[: content.rstrip().rfind(b"\t" if b"\t" in content else b",")])
        if copy.name == "AudioCaps":
            path.write_bytes(content.splitlines(keepends=True)[0] + b"1,x")
        if copy.name == "MTG-Jamendo":  # tags may be many or few
            path.write_bytes(content[: content.rfind(b"124")])
        with pytest.raises(DataError):
            copy.read()


@every("copy")
def test_an_adapter_survives_pickling(copy):
    assert pickle.loads(pickle.dumps(copy)).read() == copy.read()


# Each data set


def test_magnatagatune_is_split_by_folders_and_leaves_out_its_empty_files(tmp_path):
    adapter = make("MagnaTagATune", tmp_path)
    corpus = adapter.read()
    assert {track.id: (track.split, track.tags.get("tag", ())) for track in corpus.tracks} == {
        "2": ("test", ("no voice", "guitar", "clasical")),
        "6": ("validation", ("female vocal", "guitar", "chant")),
        "7": ("train", ()),
    }
    assert (corpus.tracks[0].title, corpus.tracks[0].group) == ("Gleichwie", "http://he3/1.mp3")
    assert [one.reason for one in corpus.set_aside] == ["is empty in the published archive"]
    assert not [finding for finding in adapter.check().findings if "empty" in finding.what], "so it is in every copy"
    assert {magnatagatune._split(f"{folder}/x.mp3") for folder in "0123456789ab"} == {"train"}


def test_magnatagatunes_synonyms_are_merged_and_its_top_50_named(tmp_path):
    merged = by_id(make("MagnaTagATune", tmp_path, merge_synonyms=True))
    assert merged["2"].tags == {"tag": ("no vocals", "guitar", "classical")}
    assert merged["6"].tags == {"tag": ("female voice", "guitar", "chant")}
    top = by_id(adapters.MagnaTagATune(str(tmp_path), tags="top50", merge_synonyms=True))
    assert top["2"].tags == {"tag": ("no vocals", "guitar")}, "a misspelt tag is not one of the 50"
    assert len(set(magnatagatune.TOP_50)) == 50
    others = [name for names in magnatagatune.SYNONYMS.values() for name in names]
    assert len(others) == len(set(others))
    assert not set(others) & magnatagatune.SYNONYMS.keys(), "a name that stays is no synonym of another"


def test_mtg_jamendos_tags_are_by_kind_and_quotation_marks_stand_for_themselves(tmp_path):
    tracks = by_id(make("MTGJamendo", tmp_path))
    assert tracks["track_0000214"].tags == {"genre": ("punkrock",), "mood": ("fun",)}
    assert tracks["track_0000214"].title == '"Trop'
    assert tracks["track_0000215"].tags == {"genre": ("metal", '"x')}
    assert tracks["track_0000215"].path.name == "215.low.mp3"
    assert [track.split for track in tracks.values()] == ["train", "validation", "test"]
    assert tracks["track_0000214"].group == tracks["track_0000215"].group == "artist_000014"


def test_mtg_jamendos_published_checksums_are_compared(tmp_path):
    adapter = make("MTGJamendo", tmp_path)
    folder = tmp_path / "data" / "download"
    folder.mkdir()
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    (folder / "raw_30s_audio_sha256_tracks.txt").write_text(f"{empty} 14/214.mp3\n{'0' * 64} 24/3524.mp3\n")
    steps = []
    findings = adapter.check(checksums=True, progress=lambda done, total: steps.append((done, total))).findings
    altered = [finding for finding in findings if "sha256" in finding.what]
    assert [Path(finding.examples[0]).name for finding in altered] == ["3524.mp3"]
    assert steps == [(1, 2), (2, 2)]
    assert not [finding for finding in adapter.check().findings if "sha256" in finding.what], "only when asked for"


def test_mtg_jamendos_published_tags_keep_their_kinds(shared_audio, tmp_path):
    listed = shared_audio.parent / "text" / "mtg_jamendo_tags.jsonl"
    rows = [json.loads(line) for line in listed.read_text().splitlines()]
    assert len(rows) == 195
    adapter = make("MTGJamendo", tmp_path)
    listed = tmp_path / "data" / "splits" / "split-0" / "autotagging-train.tsv"
    lines = listed.read_text().splitlines()[:1]
    for number, row in enumerate(rows):
        kind = row["category"].replace("mood_theme", "mood/theme")
        lines.append(f"track_{number:07d}\tartist_1\talbum_1\t14/214.mp3\t60.0\t{kind}---{row['tag']}")
    listed.write_text("\n".join(lines) + "\n")
    train = [track for track in adapter.read().tracks if track.split == "train"]
    named = [(kind, tag) for track in train for kind, tags in track.tags.items() for tag in tags]
    assert named == [(row["category"].replace("mood_theme", "mood"), row["tag"]) for row in rows]
    assert Counter(kind for kind, _ in named) == {"genre": 95, "instrument": 41, "mood": 59}


def test_musiccaps_finds_clips_by_any_of_their_names_and_knows_few_aspects(tmp_path):
    corpus = make("MusicCaps", tmp_path).read()
    first, second = corpus.tracks
    assert first.tags == {"aspect": ("low quality", "child's voice")}
    assert first.has_tag("guitar song", "aspect") is None
    assert (first.split, second.split) == ("test", "train")
    assert (first.start_seconds, first.end_seconds) == (0.0, None)
    assert [one.id for one in corpus.set_aside] == ["zzz"]
    whole = by_id(adapters.MusicCaps(str(tmp_path), whole_videos=True))["-0Gj8-vB1q4"]
    assert (whole.start_seconds, whole.end_seconds) == (30, 40)


def test_musiccaps_real_captions_are_read_whole(shared_audio, tmp_path):
    listed = shared_audio.parent / "text" / "musiccaps.jsonl"
    rows = [json.loads(line) for line in listed.read_text().splitlines()]
    columns = ["ytid", "start_s", "end_s", "audioset_positive_labels", "aspect_list", "caption", "author_id"]
    cells = [
        [row["id"], 30, 40, "", row["aspects"], row["caption"], row["author"], False, row["split"] == "eval"]
        for row in rows
    ]
    table(tmp_path / "musiccaps-public.csv", [*columns, "is_balanced_subset", "is_audioset_eval"], *cells)
    for row in rows:
        (tmp_path / f"{row['id']}.wav").touch()
    report = adapters.MusicCaps(str(tmp_path)).check()
    assert report.findings == []
    assert report.splits == {"test": 2858, "train": 2663}
    for track, row in zip(report.corpus.tracks, rows, strict=True):
        assert track.captions[0].text == row["caption"]
        assert track.tags.get("aspect", ()) == tuple(dict.fromkeys(filter(None, map(str.strip, row["aspects"]))))


def test_song_describers_captions_are_gathered_by_track(tmp_path):
    tracks = by_id(make("SongDescriber", tmp_path))
    assert [len(track.captions) for track in tracks.values()] == [2, 1]
    assert {track.split for track in tracks.values()} == {"test"}
    valid = by_id(adapters.SongDescriber(str(tmp_path), subset="valid"))
    assert [caption.text for caption in valid["1004034"].captions] == ["A retro-futurist groove."]
    assert list(valid) == ["1004034"]


def test_gtzans_split_is_the_fault_filtered_one(tmp_path):
    import ast
    import importlib.util

    source = Path(importlib.util.find_spec("torchaudio").origin).parent / "datasets" / "gtzan.py"
    if not source.is_file():
        pytest.skip("this torchaudio has no list of the split to compare with")
    theirs = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(source.read_text()).body
        if isinstance(node, ast.Assign) and node.targets[0].id.startswith("filtered_")
    }
    ours: dict[str, set[str]] = {}
    for part, genre, number in gtzan._filtered():
        ours.setdefault(part, set()).add(f"{genre}.{number:05d}")
    for part, name in (("train", "filtered_train"), ("validation", "filtered_valid"), ("test", "filtered_test")):
        assert ours[part] == set(theirs[name])
    assert {part: len(names) for part, names in ours.items()} == adapters.GTZAN(str(tmp_path)).expected


def test_gtzan_can_be_whole_and_in_another_encoding(tmp_path):
    tracks = by_id(make("GTZAN", tmp_path, split="none"))
    assert tracks["hiphop.00000"].path.suffix == ".au"
    assert tracks["hiphop.00000"].tags == {"genre": ("hip hop",)}
    assert {track.split for track in tracks.values()} == {None}
    assert by_id(adapters.GTZAN(str(tmp_path)))["blues.00029"].split == "train"


def test_fmas_three_header_rows_genres_and_subsets(tmp_path):
    tracks = by_id(make("FMA", tmp_path))
    assert tracks["000002"].tags == {"genre": ("Hip-Hop",), "tag": ("live", "it's")}
    assert tracks["000005"].tags == {"genre": ("Rock", "Hip-Hop")}
    assert [track.split for track in tracks.values()] == ["train", "validation", "test"]
    assert tracks["000002"].group == tracks["000005"].group == "artist_1"
    (tmp_path / "fma_medium").rename(tmp_path / "fma_small")
    assert list(by_id(adapters.FMA(str(tmp_path), subset="small"))) == ["000002", "000005"]


def test_an_archive_that_was_altered_is_found_by_its_published_checksum(tmp_path):
    adapter = make("FMA", tmp_path)
    with zipfile.ZipFile(tmp_path / "fma_medium.zip", "w") as archive:
        archive.writestr("a", "b")
    findings = adapter.check(checksums=True).findings
    assert any("should be c67b69ea232021025fca9231fc1c7c1a063ab50b" in finding.what for finding in findings)


def test_esc50_keeps_recordings_together_and_has_its_folds(tmp_path):
    tracks = by_id(make("ESC50", tmp_path))
    assert tracks["1-100038-A-14"].tags == {"sound": ("chirping birds",)}
    assert tracks["1-100038-A-14"].path.suffix == ".ogg"
    assert [track.extra["fold"] for track in tracks.values()] == [1, 1, 5]
    assert [track.licence for track in tracks.values()] == ["CC BY 4.0", "CC BY-NC 4.0", "CC BY 4.0"]
    assert list(by_id(adapters.ESC50(str(tmp_path), esc10=True))) == ["1-100032-A-0", "5-9032-A-0"]


def test_esc50_reads_the_real_esc10(shared_audio, tmp_path):
    rows = [json.loads(line) for line in (shared_audio / "esc10.jsonl").read_text().splitlines()]
    columns = ["filename", "fold", "target", "category", "esc10", "src_file", "take"]
    cells = [
        [f"{Path(row['path']).stem}.wav", row["fold"], 0, row["label"], True, row["group"].removeprefix("fs"), "A"]
        for row in rows
    ]
    table(tmp_path / "meta" / "esc50.csv", columns, *cells)
    (tmp_path / "audio").symlink_to(shared_audio / "esc10")
    report = adapters.ESC50(str(tmp_path), esc10=True).check()
    assert len(report.corpus.tracks) == 398
    assert [finding.what for finding in report.findings] == ["the lists name 398 tracks, and 400 were published"]
    assert Counter(track.extra["fold"] for track in report.corpus.tracks) == Counter(row["fold"] for row in rows)


def test_audiocaps_captions_are_gathered_by_clip(tmp_path):
    tracks = by_id(make("AudioCaps", tmp_path))
    assert {name: len(track.captions) for name, track in tracks.items()} == {
        "train/r1nicOVtvkQ_130": 1,
        "val/vfY_TJq7n_U_130": 2,
        "test/7fmOlUlwoNg_20": 1,
    }
    whole = by_id(adapters.AudioCaps(str(tmp_path), whole_videos=True))["train/r1nicOVtvkQ_130"]
    assert (whole.start_seconds, whole.end_seconds) == (130, 140)


def test_clothos_lists_are_hashed_and_its_parts_are_the_splits(tmp_path):
    adapter = make("Clotho", tmp_path)
    corpus = adapter.read()
    assert [track.split for track in corpus.tracks] == ["train", "validation", "test"]
    assert len(corpus.tracks[0].captions) == 5
    assert corpus.tracks[0].tags == {"keyword": ("noise", "radio")}
    assert corpus.tracks[0].has_tag("rain", "keyword") is None
    assert corpus.tracks[2].artist == "é"
    altered = [finding for finding in adapter.check().findings if "md5" in finding.what]
    assert len(altered) == 3, "the three lists of captions are not the published ones"


def test_nsynths_notes_were_judged_for_every_quality(tmp_path):
    tracks = list(make("NSynth", tmp_path).read().tracks)
    assert [track.split for track in tracks] == ["train", "valid", "test"]
    assert tracks[0].tags == {"instrument": ("guitar",), "source": ("acoustic",), "quality": ("bright", "fast decay")}
    assert tracks[1].has_tag("bright", "quality") is False
    assert tracks[2].tags["instrument"] == ("synth lead",)
    (tmp_path / "nsynth-train" / "examples.json").unlink()
    (tmp_path / "nsynth-train" / "audio").rename(tmp_path / "x")
    (tmp_path / "nsynth-train").rmdir()
    assert adapters.NSynth(str(tmp_path)).expected == {"validation": 12678, "test": 4096}


def test_openmics_unjudged_instruments_are_unknown(tmp_path):
    tracks = by_id(make("OpenMIC2018", tmp_path))
    first = tracks["000046_3840"]
    assert [first.has_tag(name, "instrument") for name in ("flute", "clarinet", "banjo")] == [True, False, None]
    assert tracks["000178_3840"].has_tag("banjo", "instrument") is False
    assert tracks["000135_483840"].tags == {"instrument": ("mallet percussion",)}
    assert [track.split for track in tracks.values()] == ["train", "train", "test"]
    strict = by_id(adapters.OpenMIC2018(str(tmp_path), threshold=0.9))["000046_3840"]
    assert strict.has_tag("flute", "instrument") is False


# Lyrics

LINES = [("never gonna", 12.5, ["never", "gonna"]), ("give", 15.0, ["give"])]


def test_dali_is_read_alike_in_all_three_ways_in_which_it_is_written(tmp_path):
    tracks = list(make("DALI", tmp_path).read().tracks)
    assert tracks[0].timed_lyrics == tracks[1].timed_lyrics == tracks[2].timed_lyrics
    lines = tracks[0].timed_lyrics
    assert [(line.text, [word.text for word in line.words]) for line in lines] == [(t, w) for t, _, w in LINES]
    assert [(line.start_seconds, line.end_seconds) for line in lines] == [(12.5, 14.0), (0.0, 15.5)]
    assert lines[0].words[1].start_seconds == 13.0
    assert tracks[0].lyrics == "never gonna\ngive"
    assert (tracks[0].title, tracks[0].album, tracks[0].tags) == ("A Song", None, {"genre": ("Pop",)})
    assert tracks[0].source == "https://www.youtube.com/watch?v=NXG-ayocugI"
    assert len(adapters.DALI(str(tmp_path), minimum_score=0.5).read().tracks) == 2


@pytest.mark.parametrize(
    "content", [b"[]", b"{}", b"not json", json.dumps({"info": {}, "annotations": {"annot": {}}}).encode()]
)
def test_annotations_of_another_form_are_refused_by_name(tmp_path, content):
    make("DALI", tmp_path)
    (tmp_path / f"{'b' * 32}.json").write_bytes(content)
    with pytest.raises(DataError, match=f"{'b' * 32}.json (is not written like|cannot be read)"):
        adapters.DALI(str(tmp_path)).read()


def test_jamendolyrics_words_become_lines(tmp_path):
    tracks = list(make("JamendoLyrics", tmp_path).read().tracks)
    lines = tracks[0].timed_lyrics
    assert [(line.text, line.start_seconds, [word.text for word in line.words]) for line in lines] == LINES
    assert [line.end_seconds for line in lines] == [14.25, 15.5]
    assert [track.licence for track in tracks] == ["CC BY-ND", "CC BY-NC", "CC BY"]
    assert [track.id for track in adapters.JamendoLyrics(str(tmp_path), language="german").read().tracks] == ["1_Freak"]
    with pytest.raises(DataError, match="no song in 'Greek'"):
        adapters.JamendoLyrics(str(tmp_path), language="Greek").read()


def test_jamendolyrics_lines_alone_are_enough_and_words_must_match_their_times(tmp_path):
    adapter = make("JamendoLyrics", tmp_path)
    words = tmp_path / "lyrics" / "1_Freak.words.txt"
    words.write_text("one\ntwo")
    with pytest.raises(DataError, match=r"1_Freak\.csv has 3 times for the 2 words of .*1_Freak\.words\.txt"):
        adapter.read()
    words.unlink()
    with pytest.raises(DataError, match="is not there, nor"):
        adapter.read()
    folder = tmp_path / "annotations" / "lines"
    folder.mkdir()
    (folder / "1_Freak.csv").write_text("start_time,end_time,lyrics_line\n1.5,3.0,auf und ab\n")
    [line] = by_id(adapter)["1_Freak"].timed_lyrics
    assert (line.text, line.start_seconds, line.end_seconds, line.words) == ("auf und ab", 1.5, 3.0, ())


# Pickles are read, never run


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("/tmp/xmodal-ran-a-pickle"),))


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_of_a_pickle_is_what_was_written(protocol):
    value = {
        "text": "ü", "numbers": [1, -2, 2**70, 1.5, True, None], "pair": (1, (2,), ()), "bytes": b"\x00\xff",
        "shared": [[1]] * 2, "many": list(range(2000)), "triple": (1, 2, 3), "four": (1, 2, 3, 4), "set": {1, 2},
    }  # fmt: skip
    if protocol < 4:
        value.pop("set")  # older protocols call set()
    assert read_plain_pickle(pickle.dumps(value, protocol=protocol)) == value


@pytest.mark.parametrize("protocol", range(2, 6))
def test_numpys_scalars_are_numbers(protocol):
    value = [np.float64(0.8098), np.int64(-3), np.float32(0.5), np.bool_(True)]
    read = read_plain_pickle(pickle.dumps(value, protocol=protocol))
    assert read == value
    assert [type(item) for item in read] == [float, int, float, bool]


@pytest.mark.parametrize("protocol", range(6))
def test_an_object_is_its_attributes_and_a_call_is_refused(protocol):
    entry = dali_entry("x")
    read = read_plain_pickle(dali_object(entry, protocol))
    assert {"info": read["info"], "annotations": read["annotations"]} == entry
    with pytest.raises(ValueError, match="calls|instruction|no sound pickle"):
        read_plain_pickle(pickle.dumps(Bomb(), protocol=protocol))
    assert not Path("/tmp/xmodal-ran-a-pickle").exists()


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x02}", b"cos\nsystem\n(S'true'\ntR.", b"0.", b"\x80\x02K\x01a.", b"garbage"]
)
def test_a_damaged_pickle_is_refused(content):
    with pytest.raises(ValueError, match="it "):
        read_plain_pickle(content)


def test_every_cut_of_a_pickle_is_refused():
    whole = dali_object(dali_entry("x"))
    for length in range(0, len(whole), 7):
        with pytest.raises(ValueError, match="it "):
            read_plain_pickle(whole[:length])


# In use


def test_the_command_checks_a_copy_and_writes_its_manifest(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    make("GTZAN", tmp_path / "copy")
    out = tmp_path / "gtzan.jsonl"
    assert main(["data", "import", "gtzan", str(tmp_path / "copy"), "--out", str(out)]) == 1
    said = capsys.readouterr().out
    assert "GTZAN in" in said
    assert "audio files are not there" in said
    assert "927" in said
    assert len(read_tracks(out)) == 3
    assert main(["data", "import", "GTZAN", str(tmp_path / "copy"), "--json", "--option", "split=none"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts["tracks"] == 3
    assert facts["findings"][0]["count"] == 997


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing", "DIR"], "there is no adapter 'nothing'; there are: AudioCaps, Clotho, DALI"),
        (["fma", "DIR", "--option", "subset=tiny"], "subset must be one of small, medium, large, full; got 'tiny'"),
        (["fma", "DIR", "--option", "size=1"], "--option 'size=1': FMA takes subset=…"),
        (["gtzan", "DIR", "--out", "x.csv"], "must name a file ending in .jsonl"),
        (["audiocaps", "DIR", "--option", "version=2.0"], "dataset2.0"),
        (["esc-50", "DIR"], "meta/esc50.csv comes from https://github.com/karolpiczak/ESC-50"),
    ],
)
def test_a_wrong_import_is_one_sentence(words, message, tmp_path, capsys):
    assert main(["data", "import", *[str(tmp_path) if word == "DIR" else word for word in words]]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_training_reads_a_source_from_yaml(tmp_path):
    from jsonargparse import ArgumentParser

    from xmodal.data.module import AudioTextData

    make("ESC50", tmp_path)
    config = tmp_path / "data.yaml"
    config.write_text(
        "data:\n  source:\n    class_path: xmodal.data.adapters.ESC50\n"
        f"    init_args: {{root: {tmp_path}}}\n  fold_field: fold\n  test_fold: 5\n"
    )
    parser = ArgumentParser()
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(AudioTextData, "data")
    data = parser.instantiate_classes(parser.parse_args(["--config", str(config)])).data
    assert {name: len(tracks) for name, tracks in data.read().items()} == {"train": 2, "validation": 0, "test": 1}


def test_a_source_with_missing_files_is_refused_or_skipped_as_a_manifest_is(tmp_path):
    from xmodal.data.module import AudioTextData

    source = make("MusicCaps", tmp_path)
    with pytest.raises(DataError, match="MusicCaps in .*: 1 set aside, audio file is not there .*data.missing: skip"):
        AudioTextData(source=source).read()
    assert sum(map(len, AudioTextData(source=source, missing="skip").read().values())) == 2
    with pytest.raises(ValueError, match="give one of them"):
        AudioTextData()
    with pytest.raises(ValueError, match="leave them out"):
        AudioTextData(source=source, tag_fields=["x"])


def test_the_page_shows_an_adapter_that_works_and_names_them_all(tmp_path):
    docs = Path(__file__).parents[2] / "docs"
    code = re.findall(r"```python\n(.*?)```", (docs / "howto-data.md").read_text("utf-8"), re.DOTALL)[-1]
    names: dict = {}
    exec(compile(code, "howto-data.md", "exec"), names)
    table(tmp_path / "list.csv", ["name", "kind", "split"], ["a", "bell", "train"])
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "a.wav").touch()
    report = names["MySounds"](str(tmp_path)).check()
    assert [track.tags for track in report.corpus.tracks] == [{"sound": ("bell",)}]
    assert len(report.findings) == 2
    page = (docs / "data.md").read_text("utf-8")
    assert all(f"| `{name}` |" in page for name in COPIES)
    assert COPIES.keys() == set(adapters.__all__) - {"Adapter", "CopyReport", "Finding", "Part"}


def test_the_report_is_plain(tmp_path):
    report = make("ESC50", tmp_path).check()
    json.dumps([dataclasses.asdict(finding) for finding in report.findings])
