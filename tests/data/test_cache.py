"""Features on disk: found by content and front end, whole or not at all, within their bound."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from xmodal.audio import WindowPolicy
from xmodal.data.cache import FeatureCache, FileMemo
from xmodal.data.kept import CachedWindowSet, StoredWindowSet
from xmodal.data.manifests import read_tracks
from xmodal.data.module import AudioTextData
from xmodal.data.windows import WindowSet
from xmodal.errors import AudioError, DataError
from xmodal.towers import MobileCnn

KEY = {"front_end": "mel", "window_seconds": 1.0}


@pytest.fixture(scope="module")
def tower():
    return MobileCnn(sample_rate=8000, n_fft=256, hop=80, bands=16, width=0.25, feature_dim=8).eval()


@pytest.fixture
def corpus(tone_tracks, tmp_path):
    """Twelve tones that a test may damage, an hour old."""
    shutil.copytree(tone_tracks.parent, tmp_path / "tones")
    for path in (tmp_path / "tones").iterdir():
        os.utime(path, (time.time() - 3600,) * 2)
    return read_tracks(tmp_path / "tones" / "tones.jsonl", tag_fields=["pitch", "motion"])[:12]


def audio(tmp_path, name="a.wav", content=b"some bytes"):
    path = tmp_path / name
    path.write_bytes(content)
    os.utime(path, (time.time() - 3600,) * 2)
    return path


def values(windows=3, fill=None):
    torch.manual_seed(0)
    made = torch.randn(windows, 4, 5).half() if fill is None else torch.full((windows, 4, 5), fill).half()
    return made, torch.arange(1, windows + 1)


def entries(folder):
    return [path for path in (Path(folder) / "entries").rglob("*") if path.is_file()]


def test_what_was_put_is_got_whole_and_window_by_window(tmp_path):
    path, (put, valid) = audio(tmp_path), values()
    cache = FeatureCache(tmp_path / "cache")
    assert cache.get(path, KEY) is None
    assert not cache.has(path, KEY)
    assert cache.put(path, KEY, put, valid)
    assert cache.has(path, KEY)
    again = FeatureCache(tmp_path / "cache")
    got = again.get(path, KEY)
    assert torch.equal(got[0], put)
    assert got[0].dtype == torch.float16
    assert got[1].tolist() == [1, 2, 3]
    one, frames = again.window(path, KEY, 1)
    assert torch.equal(one, put[1])
    assert frames == 2
    assert again.window(path, KEY, 3) is None
    precise = torch.randn(2, 1, 7)
    again.put(path, {"embedding": 1}, precise, torch.tensor([1, 1]))
    assert torch.equal(again.get(path, {"embedding": 1})[0], precise)


def test_the_name_is_the_content_and_what_shaped_the_features_and_not_the_files_name(tmp_path):
    cache, path = FeatureCache(tmp_path / "cache"), audio(tmp_path)
    cache.put(path, KEY, *values())
    moved = tmp_path / "elsewhere.mp3"
    shutil.copy(path, moved)
    assert cache.get(moved, KEY) is not None
    assert cache.get(path, KEY | {"window_seconds": 2.0}) is None
    assert cache.get(audio(tmp_path, "b.wav", b"other bytes"), KEY) is None
    audio(tmp_path, "a.wav", b"SOME bytes")  # the same name and size, other content
    os.utime(path, (time.time() - 1800,) * 2)
    assert FeatureCache(tmp_path / "cache").get(path, KEY) is None
    with pytest.raises(AudioError, match="gone.wav"):
        cache.get(tmp_path / "gone.wav", KEY)


@pytest.mark.parametrize("place", ["head", "checksum", "payload", "end", "empty"])
def test_a_damaged_entry_is_dropped_and_not_believed(tmp_path, place, caplog):
    cache, path, (put, valid) = FeatureCache(tmp_path / "cache"), audio(tmp_path), values()
    cache.put(path, KEY, put, valid)
    (entry,) = entries(tmp_path / "cache")
    data = bytearray(entry.read_bytes())
    at = {"head": 3, "checksum": 30, "payload": len(data) - 90, "end": 0, "empty": 0}[place]
    data[at] ^= 1
    entry.write_bytes({"end": bytes(data[:-1]), "empty": b""}.get(place, bytes(data)))
    with caplog.at_level(logging.WARNING):
        assert cache.get(path, KEY) is None
    assert "is damaged" in caplog.text
    assert not entries(tmp_path / "cache")
    assert cache.put(path, KEY, put, valid)
    assert torch.equal(cache.get(path, KEY)[0], put)


def test_the_bound_holds_and_what_this_run_uses_is_not_thrown_out_for_more(tmp_path):
    size = 24 + 3 * 8 + 3 * 4 * 5 * 2
    folder = tmp_path / "cache"
    paths = [audio(tmp_path, f"{n}.wav", bytes([n])) for n in range(5)]
    first = FeatureCache(folder, gigabytes=3.5 * size / 1e9)
    assert [first.put(path, KEY, *values()) for path in paths] == [True, True, True, False, False]
    assert sum(entry.stat().st_size for entry in entries(folder)) == 3 * size
    for age, path in enumerate(paths[:3]):
        os.utime(first._name(path, KEY), (time.time() - 1000 + age,) * 2)
    # A later run that hears paths 1, 3 and 4: the two that it does not ask for make room, the oldest first.
    second = FeatureCache(folder, gigabytes=3.5 * size / 1e9)
    assert second.has(paths[1], KEY)
    assert second.put(paths[3], KEY, *values())
    assert [second.has(path, KEY) for path in paths] == [False, True, True, True, False]
    os.utime(second._name(paths[2], KEY), (time.time() - 1000,) * 2)
    assert second.put(paths[4], KEY, *values())
    assert [second.has(path, KEY) for path in paths] == [False, True, False, True, True]
    assert sum(entry.stat().st_size for entry in entries(folder)) == 3 * size
    with pytest.raises(ValueError, match="needs room"):
        FeatureCache(folder, gigabytes=0)


def test_a_full_disk_costs_the_cache_and_not_the_run(tmp_path, monkeypatch, caplog):
    cache, path = FeatureCache(tmp_path / "cache"), audio(tmp_path)

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with caplog.at_level(logging.WARNING):
        assert not cache.put(path, KEY, *values())
        assert not cache.put(path, KEY, *values())
    assert caplog.text.count("No space left on device") == 1
    assert not entries(tmp_path / "cache")


def test_a_writer_killed_in_the_middle_leaves_nothing_under_a_final_name(tmp_path):
    path = audio(tmp_path)
    code = f"""
import os, signal, torch
from pathlib import Path
from xmodal.data.cache import FeatureCache
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
FeatureCache({str(tmp_path / "cache")!r}).put(Path({str(path)!r}), {KEY!r}, torch.zeros(3, 4, 5), torch.ones(3))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    cache = FeatureCache(tmp_path / "cache")
    assert cache.get(path, KEY) is None
    assert cache.put(path, KEY, *values())


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be made for the cache"):
        FeatureCache(tmp_path / "file" / "cache")


def test_a_file_is_hashed_once_and_again_when_it_changed_and_never_trusted_while_it_is_young(tmp_path, monkeypatch):
    from xmodal.data import cache as module

    path, hashed = audio(tmp_path), []
    digest = module.digest
    monkeypatch.setattr(module, "digest", lambda path: hashed.append(path) or digest(path))

    def ask():
        return FileMemo(tmp_path / "files.sqlite").digest(path)

    assert ask() == ask()
    assert len(hashed) == 1
    path.write_bytes(b"written a moment ago")
    first = ask()
    path.write_bytes(b"and in the same tick")
    assert ask() != first
    assert len(hashed) == 3


def test_a_damaged_memo_is_begun_anew(tmp_path, caplog):
    (tmp_path / "files.sqlite").write_bytes(b"no database " * 100)
    with caplog.at_level(logging.WARNING):
        memo = FileMemo(tmp_path / "files.sqlite")
    assert "begun anew" in caplog.text
    assert memo.digest(audio(tmp_path))


def test_features_from_disk_are_those_in_memory_and_are_decoded_once_in_all_runs(corpus, tower, tmp_path, monkeypatch):
    windows = WindowSet(corpus, tower, WindowPolicy(1.0))
    cache = FeatureCache(tmp_path / "cache")
    memory = CachedWindowSet(windows, workers=0, cache=cache)
    monkeypatch.setattr(WindowSet, "samples", None)  # whatever decodes now, fails
    stored = StoredWindowSet(windows, workers=0, cache=FeatureCache(tmp_path / "cache"))
    again = CachedWindowSet(windows, workers=0, cache=FeatureCache(tmp_path / "cache"))
    assert stored.entries == memory.entries == windows.entries
    assert torch.equal(again.values, memory.values)
    for entry in range(len(stored)):
        assert torch.equal(stored[entry].values, memory[entry].values)
        assert stored[entry].valid_frames == memory[entry].valid_frames
    for row, draw in [(0, 0.0), (3, 0.6), (11, 0.999)]:
        assert torch.equal(stored.random_window(row, draw).values, memory.random_window(row, draw).values)


def test_another_front_end_policy_or_part_of_the_file_has_entries_of_its_own(corpus, tower, tmp_path):
    from dataclasses import replace

    cache = FeatureCache(tmp_path / "cache")

    def fill(tower=tower, policy=WindowPolicy(1.0), tracks=corpus[:2]):  # noqa: B008
        before = len(entries(tmp_path / "cache"))
        CachedWindowSet(WindowSet(tracks, tower, policy), workers=0, cache=cache)
        return len(entries(tmp_path / "cache")) - before

    assert fill() == 2
    assert fill() == 0
    assert fill(tower=MobileCnn(sample_rate=8000, n_fft=256, hop=80, bands=16, width=0.5, feature_dim=8)) == 0
    assert fill(tower=MobileCnn(sample_rate=8000, n_fft=256, hop=40, bands=16, width=0.25, feature_dim=8)) == 2
    assert fill(policy=WindowPolicy(0.5)) == 2
    assert fill(tracks=[replace(corpus[0], end_seconds=0.8)]) == 1


def test_what_does_not_fit_into_the_cache_is_decoded_each_time(corpus, tower, tmp_path):
    windows = WindowSet(corpus, tower, WindowPolicy(1.0))
    whole = CachedWindowSet(windows, workers=0)
    cache = FeatureCache(tmp_path / "cache", gigabytes=3e-5)
    stored = StoredWindowSet(windows, workers=0, cache=cache)
    assert 0 < len(entries(tmp_path / "cache")) < len(corpus)
    for entry in range(len(stored)):
        torch.testing.assert_close(stored[entry].values, whole[entry].values, atol=5e-3, rtol=1e-3)


def test_several_processes_fill_one_cache_within_its_bound(corpus, tower, tmp_path):
    windows = WindowSet(corpus, tower, WindowPolicy(1.0))
    cache = FeatureCache(tmp_path / "cache", gigabytes=3e-5)
    StoredWindowSet(windows, workers=2, cache=cache)
    size = sum(entry.stat().st_size for entry in entries(tmp_path / "cache"))
    assert 1e4 < size <= 3e4


def test_a_second_run_neither_probes_nor_decodes(corpus, tower, tmp_path, monkeypatch):
    def prepared(**options):
        data = AudioTextData(
            str(corpus[0].path.parent / "tones.jsonl"),
            tag_fields=["pitch"],
            workers=0,
            decode_seconds=None,
            cache_folder=str(tmp_path / "cache"),
            **options,
        )
        data.prepare("fit", tower, WindowPolicy(1.0))
        return data.training_set.__getitems__([(0, 0), (1, 0)])

    first = prepared(cache="disk")
    monkeypatch.setattr("xmodal.data.windows.probe", None)
    monkeypatch.setattr("xmodal.data.windows.load", None)
    assert torch.equal(prepared(cache="disk").features, first.features)
    assert torch.equal(prepared(cache="memory").features, first.features)
    assert torch.equal(prepared(cache="auto", cache_gigabytes=1e-9).features, first.features)


def test_a_disk_cache_without_a_folder_is_refused(tone_tracks):
    with pytest.raises(ValueError, match="set cache_folder"):
        AudioTextData(str(tone_tracks), cache="disk")
