"""Shards: what goes in comes out, the same every time, and a stopped job goes on."""

from __future__ import annotations

import json
import os
import shutil
import tarfile

import numpy as np
import pytest
import soundfile

from xmodal.audio import BytesAudio, digest, load, probe
from xmodal.cli import main
from xmodal.data import Caption, LyricLine, Track, read_corpus, read_tracks
from xmodal.data import pack as pack_module
from xmodal.data.pack import pack, verify_shards
from xmodal.errors import DataError

RATE = 8000


@pytest.fixture
def tracks(tmp_path):
    (tmp_path / "audio").mkdir()
    made = []
    for number, kind in enumerate(["flac", "wav", "mp3", "ogg", "flac", "flac", "wav"]):
        path = tmp_path / "audio" / f"{number}.{kind}"
        soundfile.write(path, 0.3 * np.sin((0.1 + 0.01 * number) * np.arange(RATE)), RATE)
        made.append(
            Track(
                id=f"track {number}",
                path=path,
                start_seconds=0.25 if number == 3 else 0.0,
                end_seconds=0.75 if number == 3 else None,
                captions=(Caption("one", frozenset({"calm"})), Caption("two")),
                tags={"mood": ("calm",)},
                absent={"genre": ()},
                timed_lyrics=(LyricLine("la", 0.1, 0.2),),
                title=f"Title {number}",
                split="train" if number % 2 else "test",
                licence="CC0",
                source="made",
                extra={"text": "would be taken for a caption", "bpm": 90},
            )
        )
    return made


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def without_place(track):
    return {name: getattr(track, name) for name in track.__dataclass_fields__ if name not in ("path", "data")}


@pytest.mark.parametrize("by", ["manifest", "headers"])
def test_what_is_packed_is_read_back(tracks, tmp_path, by):
    report = pack(tracks, tmp_path / "out", samples_per_shard=3)
    assert (report.tracks, report.shards, report.kept, report.set_aside) == (7, 3, 0, [])
    if by == "headers":
        (tmp_path / "out" / "manifest.jsonl").unlink()
    again = read_tracks(tmp_path / "out")
    assert [without_place(track) for track in again] == [without_place(track) for track in tracks]
    for old, new in zip(tracks, again, strict=True):
        assert digest(new.audio) == digest(old.audio)
        assert probe(new.audio) == probe(old.audio)
        part = {"start_seconds": old.start_seconds, "duration_seconds": 0.4}
        np.testing.assert_array_equal(load(new.audio, RATE, **part), load(old.audio, RATE, **part))


def test_the_manifest_knows_the_headers_so_that_probing_reads_nothing(tracks, tmp_path):
    pack(tracks, tmp_path / "out")
    again = read_tracks(tmp_path / "out")
    shutil.move(tmp_path / "out", tmp_path / "elsewhere")
    assert probe(again[0].audio).frames == RATE
    assert digest(read_tracks(tmp_path / "elsewhere")[0].audio) == digest(tracks[0].audio), "the folder can move"


def test_the_same_corpus_gives_the_same_bytes(tracks, tmp_path):
    pack(tracks, tmp_path / "a", samples_per_shard=3, workers=1)
    shutil.copytree(tmp_path / "audio", tmp_path / "copied")
    moved = [Track(**{**without_place(track), "path": tmp_path / "copied" / track.path.name}) for track in tracks]
    pack(moved, tmp_path / "b", samples_per_shard=3, workers=4)
    first, second = content(tmp_path / "a"), content(tmp_path / "b")
    assert sorted(first) == ["manifest.jsonl", *(f"shard-{n:06d}.tar" for n in range(3)), "shards.json"]
    for name in first.keys() - {"shards.json"}:
        assert first[name] == second[name], name


def test_other_tools_read_the_shards_too(tracks, tmp_path):
    pack(tracks, tmp_path / "out", samples_per_shard=4)
    with tarfile.open(tmp_path / "out" / "shard-000001.tar") as tar:
        names = tar.getnames()
        assert names == [
            "000000004.flac",
            "000000004.json",
            "000000005.flac",
            "000000005.json",
            "000000006.wav",
            "000000006.json",
        ]
        row = json.loads(tar.extractfile("000000005.json").read())
    assert (row["id"], row["title"], row["tags"]) == ("track 5", "Title 5", {"mood": ["calm"]})


@pytest.mark.parametrize("stop_at", range(4))
def test_a_stopped_job_goes_on_and_ends_with_the_same_bytes(tracks, tmp_path, monkeypatch, stop_at):
    pack(tracks, tmp_path / "whole", samples_per_shard=2)
    written = []

    def counting(path, *args):
        if len(written) == stop_at:
            raise KeyboardInterrupt
        written.append(path.name)
        return write_shard(path, *args)

    write_shard = pack_module._write_shard
    monkeypatch.setattr(pack_module, "_write_shard", counting)
    with pytest.raises(KeyboardInterrupt):
        pack(tracks, tmp_path / "out", samples_per_shard=2)
    assert not (tmp_path / "out" / "manifest.jsonl").exists()
    monkeypatch.undo()
    report = pack(tracks, tmp_path / "out", samples_per_shard=2)
    assert report.kept == stop_at
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert not (tmp_path / "out" / ".parts").exists()


def test_a_kill_in_the_middle_of_a_shard_leaves_nothing_under_its_name(tracks, tmp_path):
    child = os.fork()
    if child == 0:
        original = pack_module._add

        def killed(tar, name, data):
            if name.startswith("000000003"):
                os.kill(os.getpid(), 9)
            return original(tar, name, data)

        pack_module._add = killed
        pack(tracks, tmp_path / "out", samples_per_shard=2)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 9
    assert sorted(path.name for path in (tmp_path / "out").glob("*.tar")) == ["shard-000000.tar"]
    assert pack(tracks, tmp_path / "out", samples_per_shard=2).kept == 1
    pack(tracks, tmp_path / "whole", samples_per_shard=2)
    assert content(tmp_path / "whole").items() <= content(tmp_path / "out").items()


def test_only_shards_whose_tracks_changed_are_written_again(tracks, tmp_path):
    pack(tracks, tmp_path / "out", samples_per_shard=2)
    assert pack(tracks, tmp_path / "out", samples_per_shard=2).kept == 4
    soundfile.write(tracks[3].path, np.zeros(RATE), RATE)
    tracks[6] = Track(**{**without_place(tracks[6]), "path": tracks[6].path, "title": "Other"})
    assert pack(tracks, tmp_path / "out", samples_per_shard=2).kept == 2
    again = read_tracks(tmp_path / "out")
    assert not load(again[3].audio, RATE).any()
    assert again[6].title == "Other"
    assert pack(tracks[:2], tmp_path / "out", samples_per_shard=2).shards == 1
    assert [track.id for track in read_tracks(tmp_path / "out")] == ["track 0", "track 1"]


def test_bad_files_are_set_aside_and_the_others_keep_their_names(tracks, tmp_path):
    tracks[1].path.write_bytes(b"no audio")
    tracks[2].path.unlink()
    report = pack(tracks, tmp_path / "out", samples_per_shard=3)
    assert [(one.id, one.reason.split(" (")[0][:12]) for one in report.set_aside] == [
        ("track 1", "is not audio"),
        ("track 2", "cannot be re"),
    ]
    assert [track.id for track in read_tracks(tmp_path / "out")] == [f"track {n}" for n in (0, 3, 4, 5, 6)]
    for track in tracks:
        track.path.unlink(missing_ok=True)
    with pytest.raises(DataError, match="none of the 7 tracks could be packed"):
        pack(tracks, tmp_path / "other")


def test_an_altered_shard_is_found(tracks, tmp_path):
    pack(tracks, tmp_path / "out", samples_per_shard=2)
    assert verify_shards(tmp_path / "out") == []
    shards = sorted((tmp_path / "out").glob("*.tar"))
    altered = bytearray(shards[0].read_bytes())
    altered[700] ^= 1
    shards[0].write_bytes(altered)
    shards[1].write_bytes(shards[1].read_bytes()[:-512])
    shards[2].unlink()
    assert [(one.id, one.reason[:20]) for one in verify_shards(tmp_path / "out")] == [
        ("shard-000000.tar", "its bytes are not th"),
        ("shard-000001.tar", "has 9728 bytes inste"),
        ("shard-000002.tar", "the shard is not the"),
    ]


def test_a_shard_that_the_manifest_does_not_know_is_refused(tracks, tmp_path):
    pack(tracks, tmp_path / "out", samples_per_shard=4)
    shutil.copy(tmp_path / "out" / "shard-000000.tar", tmp_path / "out" / "z.tar")
    with pytest.raises(DataError, match=r"manifest\.jsonl does not know .*z\.tar"):
        read_tracks(tmp_path / "out")
    with pytest.raises(DataError, match=r"holds z\.tar, which is not of this corpus"):
        pack(tracks, tmp_path / "out", samples_per_shard=4)
    (tmp_path / "out" / "z.tar").unlink()
    (tmp_path / "out" / "shard-000001.tar").unlink()
    assert len(read_corpus(tmp_path / "out", missing="skip").tracks) == 4


def test_shards_can_be_packed_from_shards(tracks, tmp_path):
    pack(tracks, tmp_path / "a", samples_per_shard=2)
    pack(read_tracks(tmp_path / "a"), tmp_path / "b", samples_per_shard=5)
    again = read_tracks(tmp_path / "b")
    assert [(track.id, digest(track.audio)) for track in again] == [(track.id, digest(track.audio)) for track in tracks]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tracks: ([], {}), "no tracks to pack"),
        (lambda tracks: (tracks[:1] * 2, {}), "an id of its own"),
        (lambda tracks: (tracks, {"samples_per_shard": 0}), "at least 1, got 0 and 2"),
    ],
)
def test_what_makes_no_shards_is_refused(tracks, tmp_path, change, message):
    given, options = change(tracks)
    with pytest.raises(ValueError, match=message):
        pack(given, tmp_path / "out", **options)


def test_bytes_in_memory_can_be_packed(tracks, tmp_path):
    from pathlib import Path

    made = [Track("a", Path("no name"), data=BytesAudio(tracks[2].path.read_bytes()))]
    pack(made, tmp_path / "out")
    assert read_tracks(tmp_path / "out")[0].data.member == "000000000.mp3"


def test_the_command_packs_and_says_what_it_left_out(tracks, tmp_path, capsys):
    tracks[1].path.write_bytes(b"no audio")
    out = str(tmp_path / "out")
    words = ["data", "pack", str(tmp_path / "audio"), "--out", out, "--samples", "3", "--shuffle", "1"]
    assert main(words) == 1
    said = capsys.readouterr().out
    assert said.startswith("6 tracks in 3 shards (")
    assert "1.wav" in said
    assert main([*words, "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert (facts["tracks"], facts["kept"]) == (6, 3)
    assert facts["set_aside"][0]["id"] == "1.wav"
    assert [track.id for track in read_tracks(out)] != sorted(track.id for track in read_tracks(out))
