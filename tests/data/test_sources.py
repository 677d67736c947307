"""Tracks come from tables, shards, saved data sets and URLs, and mean the same wherever they are read."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import tarfile
import warnings
from pathlib import Path

import fsspec
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile

from xmodal.audio import BytesAudio, RangeAudio, RemoteAudio, digest, load, probe
from xmodal.data import Caption, Track, read_corpus, read_tracks, write_tracks
from xmodal.data.shards import find_shards
from xmodal.errors import AudioError, DataError

RATE = 8000


def encoded(number: int, kind: str = "FLAC") -> bytes:
    samples = 0.3 * np.sin(2 * np.pi * (200 + 50 * number) * np.arange(RATE) / RATE)
    content = io.BytesIO()
    soundfile.write(content, samples.astype("float32"), RATE, format=kind)
    return content.getvalue()


FACTS = [
    {"id": "one", "caption": ["first", "second"], "tags": {"mood": ["calm"]}, "artist": "A", "split": "train"},
    {"id": "two", "absent_tags": {"mood": ["calm"]}, "license": "CC0", "source": "made", "split": "test", "bpm": 90},
    {"id": "three", "lyrics": "la", "start": 0.25, "end": 0.75, "split": "test"},
]


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def shard(path: Path, rows: list[dict], kind: str = "FLAC") -> Path:
    with tarfile.open(path, "w") as tar:
        for number, row in enumerate(rows):
            add(tar, f"{row['id']}.{kind.lower()}", encoded(number))
            add(tar, f"{row['id']}.json", json.dumps(row).encode())
    return path


def as_table(folder: Path) -> Path:
    for number, row in enumerate(FACTS):
        (folder / f"{row['id']}.flac").write_bytes(encoded(number))
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({**row, "path": f"{row['id']}.flac"}) + "\n" for row in FACTS))
    return path


def as_shards(folder: Path) -> Path:
    shard(folder / "000.tar", FACTS[:2])
    with tarfile.open(folder / "001.tar", "w") as tar:  # the third sample: its number makes its tone
        add(tar, "three.flac", encoded(2))
        add(tar, "three.json", json.dumps(FACTS[2]).encode())
    return folder


def as_range(folder: Path) -> str:
    as_shards(folder)
    return f"{folder}/{{000..001}}.tar"


def as_remote_shards(folder: Path) -> str:
    as_shards(folder)
    for name in ("000.tar", "001.tar"):
        with fsspec.open(f"memory://{folder.name}/{name}", "wb") as file:
            file.write((folder / name).read_bytes())
    return f"memory://{folder.name}/{{000..001}}.tar"


def as_parquet(folder: Path) -> Path:
    rows = [{**row, "audio": {"bytes": encoded(n), "path": None}} for n, row in enumerate(FACTS)]
    table = pyarrow.table({"path": [row.pop("audio") for row in rows], "json": [json.dumps(row) for row in rows]})
    columns = {name: [row.get(name) for row in FACTS] for name in {key for row in FACTS for key in row}}
    for name in ("tags", "absent_tags"):
        columns[name] = [value and {k: v for k, v in value.items() if v} for value in columns[name]]
    columns["path"] = table["path"].to_pylist()
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "rows.parquet", row_group_size=2)
    return folder / "rows.parquet"


def as_saved_dataset(folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import datasets
    paths = [folder / f"{row['id']}.flac" for row in FACTS]
    for number, path in enumerate(paths):
        path.write_bytes(encoded(number))
    columns = {name: [row.get(name) for row in FACTS] for name in {key for row in FACTS for key in row} - {"split"}}
    whole = datasets.Dataset.from_dict({**columns, "sound": [str(path) for path in paths]})
    whole = whole.cast_column("sound", datasets.Audio())
    parts = {"train": whole.select([0]), "test": whole.select([1, 2])}
    datasets.DatasetDict(parts).save_to_disk(folder / "saved")
    for path in paths:
        path.unlink()
    return folder / "saved"


def as_remote_files(folder: Path) -> Path:
    for number, row in enumerate(FACTS):
        with fsspec.open(f"memory://files/{row['id']}.flac", "wb") as file:
            file.write(encoded(number))
    path = folder / "urls.jsonl"
    rows = [{**row, "path": f"memory://files/{row['id']}.flac"} for row in FACTS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


SOURCES = {
    "table": as_table,
    "folder of shards": as_shards,
    "range of shards": as_range,
    "remote shards": as_remote_shards,
    "parquet with bytes": as_parquet,
    "saved data set": as_saved_dataset,
    "table of URLs": as_remote_files,
}


@pytest.fixture(params=SOURCES)
def source(request, tmp_path):
    return SOURCES[request.param](tmp_path)


def test_every_source_gives_the_same_tracks_and_samples(source):
    tracks = {track.id: track for track in read_tracks(source)}
    assert list(tracks) == ["one", "two", "three"]
    one, two, three = tracks.values()
    assert one.captions == (Caption("first"), Caption("second"))
    assert (one.tags, one.artist, one.split) == ({"mood": ("calm",)}, "A", "train")
    assert (two.absent, two.licence, two.source, two.split) == ({"mood": ("calm",)}, "CC0", "made", "test")
    assert two.extra["bpm"] == 90
    assert (three.lyrics, three.start_seconds, three.end_seconds) == ("la", 0.25, 0.75)
    for number, track in enumerate(tracks.values()):
        again = pickle.loads(pickle.dumps(track))  # as a loader's worker gets it
        assert digest(again.audio) == digest(BytesAudio(encoded(number)))
        assert probe(again.audio).frames == RATE
        samples = load(track.audio, RATE, start_seconds=0.25, duration_seconds=0.5)
        np.testing.assert_array_equal(samples, load(BytesAudio(encoded(number)), RATE)[2000:6000])


def test_every_source_trains_embeds_and_is_judged_alike(source, tmp_path):
    import torch

    from xmodal.audio import WindowPolicy, windows
    from xmodal.data.windows import Features, WindowSet
    from xmodal.towers import MobileCnn

    tower = MobileCnn(sample_rate=RATE, n_fft=256, hop=80, bands=16, width=0.25, feature_dim=8).eval()
    policy = WindowPolicy(0.5)
    tracks = read_tracks(source)
    entries = WindowSet(tracks, tower, policy)
    assert entries.failures == []
    assert [row for row, _ in entries.entries] == [0, 0, 1, 1, 2]
    for entry, (row, start) in enumerate(entries.entries):
        item = entries[entry]
        assert isinstance(item, Features)
        track = tracks[row]
        ends = {"start_seconds": track.start_seconds, "end_seconds": track.end_seconds}
        by_embedder = list(windows(track.audio, RATE, policy, **ends))  # what Embedder cuts
        same = next(w for w in by_embedder if w.start_seconds == pytest.approx(start + track.start_seconds))
        torch.testing.assert_close(
            item.values, tower.features(torch.from_numpy(same.samples)[None])[0], atol=1e-4, rtol=0
        )


def test_a_manifest_can_point_into_shards_and_knows_their_headers(tmp_path):
    folder = as_shards(tmp_path)
    known = []
    for track in read_tracks(folder):
        data = track.data
        info = probe(data)
        with_info = RangeAudio(data.container, data.member, data.offset, data.size, info)
        known.append(Track(**{**vars_of(track), "data": with_info}))
    write_tracks(known, folder / "list.jsonl")
    again = read_tracks(folder / "list.jsonl")
    assert again == known
    (folder / "000.tar").rename(folder / "gone.tar")
    assert probe(again[0].audio).frames == RATE, "a known header needs no reading"
    with pytest.raises(AudioError, match="cannot be read"):
        load(again[0].audio, RATE)
    with pytest.raises(DataError, match="2 set aside"):
        read_tracks(folder / "list.jsonl")
    corpus = read_corpus(folder / "list.jsonl", missing="skip")
    assert [one.id for one in corpus.set_aside] == ["one", "two"]


def vars_of(track: Track) -> dict:
    return {name: getattr(track, name) for name in track.__dataclass_fields__}


def test_audio_in_memory_cannot_be_written_to_a_manifest(tmp_path):
    track = Track("a", Path("a.flac"), data=BytesAudio(b"x"))
    with pytest.raises(ValueError, match=r"'a' is audio in memory, which a manifest cannot point to.*xmodal data pack"):
        write_tracks([track], tmp_path / "m.jsonl")


def test_a_url_is_written_and_read_as_it_is(tmp_path):
    track = Track("a", Path("x"), data=RemoteAudio("memory://nowhere/a.flac"))
    write_tracks([track], tmp_path / "m.jsonl")
    [again] = read_tracks(tmp_path / "m.jsonl")
    assert again.audio == track.audio
    with pytest.raises(AudioError, match="^memory://nowhere/a.flac: cannot be read") as refusal:
        load(again.audio, RATE)
    assert str(pickle.loads(pickle.dumps(refusal.value))) == str(refusal.value)


# Shards


def test_captions_and_classes_may_be_files_of_their_own(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "./x/0.part.wav", encoded(0, "WAV"))
        add(tar, "./x/0.txt", b"slow | quiet\n")
        add(tar, "./x/0.cls", b"piano")
        add(tar, "./x/0.npy", b"\x93NUMPY")
        add(tar, "./x/1.txt", b"no audio here")
        add(tar, "README", b"hello")
    [track] = read_tracks(tmp_path / "a.tar")
    assert (track.id, track.captions, track.tags) == ("x/0", (Caption("slow"), Caption("quiet")), {"tag": ("piano",)})


def test_shards_that_count_anew_get_ids_of_their_own(tmp_path):
    for name in ("a.tar", "b.tar"):
        with tarfile.open(tmp_path / name, "w") as tar:
            add(tar, "000.flac", encoded(0))
    assert [track.id for track in read_tracks(tmp_path)] == ["a/000", "b/000"]


def test_folders_of_shards_named_after_splits_are_splits(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        with tarfile.open(tmp_path / split / f"{split}.tar", "w") as tar:
            add(tar, f"{split}.flac", encoded(0))
    assert {track.id: track.split for track in read_tracks(tmp_path)} == {"test": "test", "train": "train"}


@pytest.mark.parametrize("kept", ["in a file", "between files", "in a header"])
def test_a_shard_that_was_cut_short_is_set_aside_and_its_whole_samples_stay(tmp_path, kept):
    path = shard(tmp_path / "a.tar", FACTS)
    with tarfile.open(path) as tar:
        start = tar.getmember("three.json").offset
    cut = {"in a file": start - 700, "between files": start, "in a header": start + 100}[kept]
    path.write_bytes(path.read_bytes()[:cut])
    shard(tmp_path / "b.tar", [{"id": "other"}])
    with pytest.raises(DataError, match=r"1 set aside, shards are damaged, cut short or not there .*a\.tar"):
        read_tracks(tmp_path)
    corpus = read_corpus(tmp_path, missing="skip")
    assert [track.id for track in corpus.tracks] == ["one", "two", "other"]
    assert [one.id for one in corpus.set_aside] == ["a.tar"]


def test_a_shard_that_is_not_there_is_set_aside(tmp_path):
    shard(tmp_path / "000.tar", FACTS[:1])
    corpus = read_corpus(f"{tmp_path}/{{000..001}}.tar", missing="skip")
    assert [track.id for track in corpus.tracks] == ["one"]
    assert corpus.set_aside[0].path == f"{tmp_path}/001.tar"


def test_ranges_keep_their_zeros_and_multiply():
    assert find_shards("s3://b/{08..10}-{0..1}.tar") == [
        f"s3://b/{n}-{m}.tar" for n in ("08", "09", "10") for m in (0, 1)
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tar.gz", b"", "compressed shard"),
        ("a.tar", b"no tar" * 200, "holds no sample with audio.*shards are damaged"),
        ("none.tar", None, "holds no sample with audio"),
    ],
)
def test_what_is_no_shard_is_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_tracks(tmp_path / name)


def test_damaged_json_in_a_shard_is_refused_by_name(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "0.flac", encoded(0))
        add(tar, "0.json", b"[1]")
    with pytest.raises(DataError, match=r"a\.tar: 0\.json is not readable \(it must be one JSON object\)"):
        read_tracks(tmp_path / "a.tar")


def test_a_size_that_the_shard_does_not_have_is_a_named_error_and_no_memory(tmp_path):
    path = shard(tmp_path / "a.tar", FACTS[:1])
    with pytest.raises(AudioError, match=r"one\.flac: is cut short: .*ends \d+ bytes before it does"):
        load(RangeAudio(str(path), "one.flac", 512, 10**15), RATE)
    with pytest.raises(AudioError, match="is cut short"):
        load(RangeAudio(str(path), "one.flac", 10**9, 10), RATE)


def test_a_sparse_file_in_a_shard_is_no_audio(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "0.flac", encoded(0))
        info = tarfile.TarInfo("1.flac")
        info.type, info.size = tarfile.GNUTYPE_SPARSE, 0
        tar.addfile(info)
    assert [track.id for track in read_tracks(tmp_path / "a.tar")] == ["0"]


def test_an_unknown_protocol_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"nowhere://a\.tar.*Protocol not known"):
        read_tracks("nowhere://a.tar")


# Stored audio


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "MP3", "OGG"])
def test_bytes_are_decoded_like_a_file(tmp_path, kind):
    content = encoded(0, kind)
    path = tmp_path / "a"
    path.write_bytes(content)
    stored = BytesAudio(content)
    assert probe(stored) == probe(path)
    np.testing.assert_array_equal(load(stored, 6000), load(path, 6000))


def test_what_only_the_second_decoder_reads_is_read_from_bytes_too(tmp_path):
    from corrupt_audio import chirp, write

    path = write(tmp_path / "a.m4a", chirp(1.0, RATE), RATE)
    np.testing.assert_array_equal(load(BytesAudio(path.read_bytes()), RATE), load(path, RATE))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "x.wav: is empty"), (b"not audio at all", "x.wav: is not audio"), (encoded(0, "WAV")[:300], "cut short")],
)
def test_bytes_that_are_no_audio_are_refused_by_name(content, message):
    with pytest.raises(AudioError, match=message):
        load(BytesAudio(content, "x.wav"), RATE)


def test_decoding_bytes_leaves_no_descriptor_open():
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for content in (encoded(0), b"not audio"):
        for _ in range(3):
            with contextlib.suppress(AudioError):
                load(BytesAudio(content), RATE)
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert after == before


# Lyrics and labels


def test_timed_lyrics_are_read_back_and_are_the_lyrics(tmp_path):
    (tmp_path / "a.wav").touch()
    lines = [{"text": "la la", "start": 1, "end": 2.5, "words": [{"text": "la", "start": 1.0}]}, "no times"]
    (tmp_path / "m.jsonl").write_text(json.dumps({"path": "a.wav", "timed_lyrics": lines}))
    [track] = read_tracks(tmp_path / "m.jsonl")
    assert track.lyrics == "la la\nno times"
    assert track.timed_lyrics[0].words[0].start_seconds == 1.0
    write_tracks([track], tmp_path / "n.jsonl")
    assert read_tracks(tmp_path / "n.jsonl") == [track]
    assert "lyrics" not in json.loads((tmp_path / "n.jsonl").read_text())


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"text": "la", "start": 3, "end": 2}], "ends at 2 s, before its start at 3 s"),
        ([{"text": "la", "start": -1}], "from 0 on, got -1"),
        ([{"text": "la", "begin": 1}], "has no field 'begin'"),
        ([{"start": 1}], "a line of lyrics is"),
        ([{"text": "la", "words": "la"}], "must be a list"),
        ("la", "must be a list of lines"),
        ([" "], "needs words"),
    ],
)
def test_lyrics_that_make_no_sense_are_refused(tmp_path, lines, message):
    (tmp_path / "m.jsonl").write_text(json.dumps({"path": "a.wav", "timed_lyrics": lines}))
    with pytest.raises(DataError, match=f"line 1: column 'timed_lyrics': .*{message}"):
        read_tracks(tmp_path / "m.jsonl")


def test_a_tag_is_present_absent_or_unknown():
    track = Track(
        "a",
        Path("a"),
        tags={"instrument": ("Piano",), "mood": ("calm",)},
        absent={"instrument": ("flute",), "genre": ()},
    )
    said = {
        ("piano", "instrument"): True,
        ("Flute", "instrument"): False,
        ("drums", "instrument"): None,  # labelled in part
        ("sad", "mood"): False,  # labelled in full
        ("rock", "genre"): None,
        ("fast", "tempo"): None,
        ("piano", None): True,
        ("flute", None): False,
        ("sad", None): None,  # an instrument could be called so
    }
    assert {key: track.has_tag(*key) for key in said} == said
    assert Track("b", Path("b"), tags={"mood": ("calm",)}).has_tag("sad") is False
    assert Track("b", Path("b")).has_tag("sad") is None


def test_a_tag_cannot_be_present_and_absent():
    with pytest.raises(ValueError, match="'piano' is both among the tags of kind 'instrument'"):
        Track("a", Path("a"), tags={"instrument": ("Piano",)}, absent={"instrument": ("piano",)})
