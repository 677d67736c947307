"""Samples kept on disk: what decoding gives, in 16 bits, from anywhere in a file that is decoded once."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
import soundfile
import torch
from trainers import quiet_trainer

from xmodal.audio import WindowPolicy, load
from xmodal.data import samples as samples_module
from xmodal.data.augment import Gain
from xmodal.data.cache import FeatureCache
from xmodal.data.manifests import read_tracks
from xmodal.data.module import AudioTextData
from xmodal.data.samples import SampleCache
from xmodal.data.tracks import Track
from xmodal.data.windows import WindowSet
from xmodal.errors import AudioError
from xmodal.losses import InfoNCELoss
from xmodal.towers import HashedBagOfWordsTower, MobileCnn
from xmodal.training import AlignmentModule

RATE, SECONDS = 8000, 3.3
STEP = 1 / 32_767


def sound(folder, name="a.wav", rate=22_050, seconds=SECONDS, seed=0):
    """Stereo noise, an hour old."""
    path = folder / name
    noise = np.random.default_rng(seed).uniform(-0.9, 0.9, (round(seconds * rate), 2))
    soundfile.write(path, noise, rate, subtype="FLOAT")
    os.utime(path, (time.time() - 3600,) * 2)
    return path


class Counted:
    """``load``, and what it was asked for."""

    def __init__(self) -> None:
        self.calls: list[dict] = []

    def __call__(self, audio, sample_rate, /, **part):
        self.calls.append(part)
        return load(audio, sample_rate, **part)


def kept(folder, decode, **settings):
    return SampleCache(FeatureCache(folder / "cache", **settings), decode)


def part(cache, path, start=0.0, duration=1.0, seconds=SECONDS):
    return cache.load(path, RATE, start_seconds=start, duration_seconds=duration, file_seconds=seconds)


@pytest.mark.parametrize("start", [0.0, 0.9999, 1.0, 1.37, 2.2, 2.31, 3.0, 3.2999])
@pytest.mark.parametrize("duration", [0.5, 1.0, 2.5])
def test_a_part_is_that_of_the_decoder_to_16_bits_read_or_just_decoded(tmp_path, start, duration):
    path = sound(tmp_path)
    decode = Counted()
    new = part(kept(tmp_path, decode), path, start, duration)
    read = part(kept(tmp_path, decode), path, start, duration)
    assert decode.calls == [{}]  # once, and all of it
    assert new.dtype == read.dtype == np.float32
    np.testing.assert_array_equal(read, new)
    wanted = load(path, RATE, start_seconds=start, duration_seconds=duration)
    assert read.shape == wanted.shape
    np.testing.assert_allclose(read, wanted, atol=0.5 * STEP + 1e-5)


def test_a_copy_under_another_name_is_not_decoded_again(tmp_path):
    decode = Counted()
    first = part(kept(tmp_path, decode), sound(tmp_path), 1.1)
    again = part(kept(tmp_path, decode), sound(tmp_path, "b.wav"), 1.1)
    np.testing.assert_array_equal(first, again)
    assert len(decode.calls) == 1


def test_files_that_cannot_be_decoded_and_places_beyond_the_end_have_the_decoders_own_error(tmp_path):
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"RIFF and no more")
    cache = kept(tmp_path, load)
    with pytest.raises(AudioError, match="bad.wav"):
        part(cache, bad)
    with pytest.raises(AudioError) as own:
        load(sound(tmp_path), RATE, start_seconds=7.0, duration_seconds=1.0)
    for _ in range(2):  # decoded, and from the cache
        with pytest.raises(AudioError) as error:
            part(cache, tmp_path / "a.wav", 7.0)
        assert str(error.value) == str(own.value)


def test_a_full_cache_decodes_the_window_and_keeps_what_it_has(tmp_path):
    decode = Counted()
    room = 4.2 * RATE * 2 / 1e9  # of one file, four blocks of a second
    cache = kept(tmp_path, decode, gigabytes=room)
    files = [sound(tmp_path, f"{seed}.wav", seed=seed) for seed in range(3)]
    for path in files:
        part(cache, path)
    assert [bool(call) for call in decode.calls] == [False, False, True]  # the second one found no room, the third none
    decode.calls.clear()
    np.testing.assert_array_equal(
        part(cache, files[1], 1.0), load(files[1], RATE, start_seconds=1.0, duration_seconds=1.0)
    )
    part(cache, files[0], 2.0)
    assert decode.calls == [{"start_seconds": 1.0, "duration_seconds": 1.0}]


def test_what_this_run_asked_for_makes_no_room_and_what_nobody_asked_for_does(tmp_path):
    room = 2 * 4.2 * RATE * 2 / 1e9
    files = [sound(tmp_path, f"{seed}.wav", seed=seed) for seed in range(3)]
    first = kept(tmp_path, load, gigabytes=room)
    for seed, age in ((1, 900), (0, 600)):  # by a run before; the one that is asked for again is the older one
        before = set((tmp_path / "cache" / "entries").rglob("*"))
        part(first, files[seed])
        for path in set((tmp_path / "cache" / "entries").rglob("*")) - before:
            os.utime(path, (time.time() - age,) * 2)
    decode = Counted()
    second = kept(tmp_path, decode, gigabytes=room)
    part(second, files[1])
    part(second, files[2])  # in the place of the file that was not asked for
    third = kept(tmp_path, decode, gigabytes=room)
    part(third, files[1])
    part(third, files[2])
    assert decode.calls == [{}]


def test_a_damaged_block_is_made_anew(tmp_path, caplog):
    path, decode = sound(tmp_path), Counted()
    before = part(kept(tmp_path, decode), path, 1.5)
    (entry,) = (each for each in (tmp_path / "cache" / "entries").rglob("*") if each.is_file())
    content = bytearray(entry.read_bytes())
    content[-3 * 2 * RATE + 5] ^= 1  # of the second block of four
    entry.write_bytes(content)
    np.testing.assert_array_equal(part(kept(tmp_path, decode), path, 1.5), before)
    np.testing.assert_array_equal(part(kept(tmp_path, decode), path, 1.5), before)
    assert decode.calls == [{}, {}]
    assert "damaged" in caplog.text


def test_very_long_files_are_decoded_window_by_window(tmp_path, monkeypatch):
    monkeypatch.setattr(samples_module, "LONGEST_SECONDS", 2.0)
    decode, path = Counted(), sound(tmp_path)
    cache = kept(tmp_path, decode)
    for _ in range(2):
        np.testing.assert_array_equal(part(cache, path), load(path, RATE, duration_seconds=1.0))
    assert decode.calls == [{"start_seconds": 0.0, "duration_seconds": 1.0}] * 2


def test_windows_of_a_part_of_a_file_are_those_that_are_decoded(tmp_path):
    tower = MobileCnn(sample_rate=RATE, n_fft=256, hop=80, bands=16, width=0.25, feature_dim=8)
    tracks = [Track(id="part", path=sound(tmp_path), start_seconds=0.7, end_seconds=2.9)]
    policy = WindowPolicy(1.0)
    decoded = WindowSet(tracks, tower, policy)
    read = WindowSet(tracks, tower, policy, cache=FeatureCache(tmp_path / "cache"))
    assert read.entries == decoded.entries
    for draw in (0.0, 0.31, 0.999):
        ours, theirs = read.random_window(0, draw), decoded.random_window(0, draw)
        torch.testing.assert_close(ours.values, theirs.values, atol=1e-3, rtol=0)
        assert ours.valid_frames == theirs.valid_frames


def test_training_with_samples_augments_them_and_a_warm_cache_gives_the_weights_of_a_cold_one(tone_tracks, tmp_path):
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        module = AlignmentModule(
            MobileCnn(sample_rate=RATE, n_fft=256, hop=80, bands=32, width=0.25, feature_dim=16),
            HashedBagOfWordsTower(buckets=300, embed_dim=16, feature_dim=16),
            InfoNCELoss(),
            8,
            window_seconds=0.6,
        )
        cache = {"cache": "samples", "cache_folder": str(tmp_path / "cache")}
        data = AudioTextData(
            str(tone_tracks),
            tag_fields=["pitch"],
            batch_size=8,
            workers=0,
            augment=[Gain()],
            decode_seconds=None,
            **cache,
        )
        quiet_trainer(tmp_path, max_epochs=1).fit(module, datamodule=data)
        found.append(module.state_dict())
    assert all(torch.equal(weight, found[1][name]) for name, weight in found[0].items())
    used = [track for track in read_tracks(tone_tracks, tag_fields=["pitch"]) if track.split != "test"]
    entries = [each for each in (tmp_path / "cache" / "entries").rglob("*") if each.is_file()]
    assert 0 < len(entries) <= len({track.path for track in used})


def test_kept_samples_need_a_folder(tone_tracks):
    with pytest.raises(ValueError, match="cache: samples needs to know where; set cache_folder"):
        AudioTextData(str(tone_tracks), cache="samples")
