from __future__ import annotations

import json
import random

import pytest
import torch
from torch.testing import assert_close

from xmodal.audio import WindowPolicy
from xmodal.data import Caption, Track
from xmodal.data.datasets import EvaluationSet, TrainingSet, evaluation_texts
from xmodal.data.kept import CachedWindowSet
from xmodal.data.manifests import read_tracks
from xmodal.data.windows import Features, WindowSet
from xmodal.errors import AudioError, DataError
from xmodal.towers import MobileCnn

POLICY = WindowPolicy(1.0)


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    return MobileCnn(sample_rate=8000, n_fft=256, hop=80, bands=16, width=0.25, feature_dim=8).eval()


@pytest.fixture(scope="module")
def tracks(tone_tracks):
    return read_tracks(tone_tracks, tag_fields=["pitch", "motion"])


@pytest.fixture(scope="module")
def windows(tracks, tower):
    return WindowSet(tracks, tower, POLICY)


@pytest.fixture(scope="module")
def cached(windows):
    return CachedWindowSet(windows, workers=0)


def with_a_bad_file(tracks, folder):
    (folder / "bad.wav").write_bytes(b"RIFF is not enough")
    bad = Track(id="bad", path=folder / "bad.wav", captions=(Caption("nothing"),))
    return [tracks[0], bad, *tracks[1:4]]


def test_the_windows_of_a_track_are_those_of_the_policy(windows, tracks):
    for row, track in enumerate(tracks[:8]):
        seconds = 1.2 + 0.1 * (row % 7)
        starts = [start for owner, start in windows.entries if owner == row]
        assert starts == pytest.approx([0.0, seconds - 1.0], abs=1e-4), track.id


def test_a_window_is_the_towers_features_of_those_samples(windows, tower, tracks):
    from xmodal.audio import cut, load

    row, start = windows.entries[3]
    window = next(w for w in cut(load(tracks[row].path, 8000), 8000, POLICY) if w.start_seconds == pytest.approx(start))
    item = windows[3]
    assert isinstance(item, Features)
    assert_close(item.values, tower.features(torch.from_numpy(window.samples)[None])[0], atol=1e-4, rtol=0)
    assert item.valid_frames == int(tower.valid_frames(torch.tensor([8000]))[0])


def test_a_part_of_a_file_has_no_window_outside_of_it(tracks, tower):
    part = Track(id="part", path=tracks[0].path, start_seconds=0.2, end_seconds=0.7, captions=(Caption("x"),))
    part_windows = WindowSet([part], tower, POLICY)
    assert part_windows.entries == [(0, 0.0)]
    item = part_windows[0]
    assert isinstance(item, Features)
    assert item.valid_frames == int(tower.valid_frames(torch.tensor([4000]))[0])


def test_the_cache_holds_the_same_windows(windows, cached):
    assert cached.entries == windows.entries
    for entry in (0, 7, len(windows) - 1):
        assert_close(cached[entry].values, windows[entry].values, atol=5e-3, rtol=1e-3)
        assert cached[entry].valid_frames == windows[entry].valid_frames


def test_the_cache_is_the_same_with_worker_processes(windows, cached):
    parallel = CachedWindowSet(windows, workers=2)
    assert torch.equal(parallel.values, cached.values)


def test_a_file_that_cannot_be_decoded_is_set_aside_and_the_others_stay(tracks, tower, tmp_path):
    windows = WindowSet(with_a_bad_file(tracks, tmp_path), tower, POLICY)
    assert [error.path.name for error in windows.failures] == ["bad.wav"]
    assert {row for row, _ in windows.entries} == {0, 2, 3, 4}
    assert [error.path.name for error in CachedWindowSet(windows, workers=0).failures] == ["bad.wav"]


def test_a_file_that_breaks_later_is_reported_in_its_batch_and_not_replaced(tracks, tower, tmp_path):
    copies = [tmp_path / f"{number}.wav" for number in range(3)]
    for copy, track in zip(copies, tracks, strict=False):
        copy.write_bytes(track.path.read_bytes())
    here = [Track(id=str(n), path=copy, captions=(Caption(f"tone {n}"),)) for n, copy in enumerate(copies)]
    windows = WindowSet(here, tower, POLICY)
    copies[1].write_bytes(b"broken since")
    batch = TrainingSet(windows).__getitems__([(0, 0), (1, 0), (2, 0)])
    assert [error.path.name for error in batch.failures] == ["1.wav"]
    assert batch.texts == ["tone 0", "tone 2"]
    assert batch.features.shape[0] == 2
    judged = EvaluationSet(windows)
    window_batch = judged.__getitems__(list(range(len(windows))))
    assert {int(row) for row in window_batch.rows} == {0, 2}
    assert all(isinstance(error, AudioError) for error in window_batch.failures)
    assert [entry.path.name for entry in CachedWindowSet(windows, workers=0).failures] == ["1.wav"]


def test_no_decodable_track_is_refused(tower, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"no")
    windows = WindowSet([Track(id="a", path=tmp_path / "bad.wav")], tower, POLICY)
    with pytest.raises(DataError, match="caption or tag"):
        TrainingSet(windows)


def test_an_item_depends_on_seed_epoch_and_track_alone(cached):
    pairs = TrainingSet(cached, tag_prompts=3, seed=1)
    alone = [pairs.__getitems__([(index, 4)]) for index in range(6)]
    together = pairs.__getitems__([(index, 4) for index in range(6)])
    assert together.texts == [batch.texts[0] for batch in alone]
    assert torch.equal(together.features, torch.cat([batch.features for batch in alone]))
    other_epoch = pairs.__getitems__([(index, 5) for index in range(6)])
    other_seed = TrainingSet(cached, seed=2).__getitems__([(index, 4) for index in range(6)])
    assert together.texts != other_epoch.texts
    assert together.texts != other_seed.texts


def test_relevance_pairs_each_track_with_its_text_and_with_equal_words(cached, tracks):
    pairs = TrainingSet(cached, tag_prompts=0)
    batch = pairs.__getitems__([(index, 0) for index in range(len(pairs))])
    assert batch.relevance.diagonal().all()
    for i, j in [(0, 4), (1, 2), (3, 11)]:
        same_kind = tracks[i].tags == tracks[j].tags
        assert bool(batch.relevance[i, j]) == same_kind
    assert batch.prompts == []
    assert batch.prompt_relevance.shape == (len(pairs), 0)


def test_prompts_name_tags_of_the_batch_and_an_unknown_kind_is_not_a_negative(cached, tracks):
    pairs = TrainingSet(cached, tag_prompts=10)
    mixed = list(tracks)
    mixed[2] = Track(id="untagged", path=tracks[2].path, captions=(Caption("something"),))
    pairs.tracks = mixed
    batch = pairs.__getitems__([(index, 0) for index in range(6)])
    words = {"low", "high", "steady", "pulsing"}
    assert len(batch.prompts) == 4
    named = [next(word for word in words if word in prompt) for prompt in batch.prompts]
    assert set(named) == words
    for column, word in enumerate(named):
        assert batch.prompt_relevance[:, column].tolist() == [word in mixed[row].all_tags for row in range(6)]
    assert batch.prompt_valid.all(dim=1).tolist() == [True, True, False, True, True, True]
    assert not batch.prompt_valid[2].any()


def test_a_track_without_captions_gets_a_text_from_its_tags(tracks, cached):
    bare = Track(id="bare", path=tracks[0].path, tags={"mood": ("calm",), "instrument": ("flute",)})
    draw = TrainingSet(cached).draw
    drawn = [draw(bare, random.Random(seed))[0] for seed in range(20)]
    assert any("calm" in caption.text for caption in drawn)
    assert any("flute" in caption.text for caption in drawn)
    assert all(caption.requires for caption in drawn)


def test_several_texts_of_a_track_are_all_right_for_it(cached):
    batch = TrainingSet(cached, captions=2).__getitems__([(index, 0) for index in range(4)])
    assert len(batch.texts) == 8
    assert batch.texts[0] != batch.texts[1]
    assert batch.features.shape[0] == 4
    for text in range(8):
        assert batch.relevance[text // 2, text]
    more = TrainingSet(cached, captions=9).__getitems__([(0, 0)])
    assert sorted(more.texts) == ["a steady low tone", "low and steady"]


def test_the_first_caption_is_always_drawn_when_asked_for(cached):
    pairs = TrainingSet(cached, captions=1, first_caption=True)
    assert {pairs.__getitems__([(0, epoch)]).texts[0] for epoch in range(8)} == {"a steady low tone"}
    two = TrainingSet(cached, captions=2, first_caption=True).__getitems__([(0, 0)])
    assert two.texts == ["a steady low tone", "low and steady"]


def test_evaluation_texts_are_distinct_and_keep_every_right_track(tracks):
    texts, relevance = evaluation_texts(tracks)
    assert len(texts) == len(set(texts)) == 8
    assert relevance.shape == (40, 8)
    assert relevance.sum(dim=0).tolist() == [10] * 8
    first_only, relevance = evaluation_texts(tracks, 1)
    assert first_only == ["a steady low tone", "a steady high tone", "a pulsing low tone", "a pulsing high tone"]
    assert relevance.sum().item() == 40


def test_an_evaluation_set_gives_every_window_once_with_its_track(cached, tracks):
    judged = EvaluationSet(cached)
    rows = torch.cat([judged.__getitems__([entry]).rows for entry in range(len(judged))])
    assert rows.tolist() == [row for row, _ in cached.entries]
    assert EvaluationSet(cached, queries=False).texts == []


def test_the_manifest_of_tones_is_what_the_tests_think(tone_tracks):
    rows = [json.loads(line) for line in tone_tracks.read_text().splitlines()]
    assert len(rows) == 40
    assert {row["split"] for row in rows} == {"train", "valid", "test"}


def test_padding_that_no_track_of_a_batch_needs_is_cut_and_the_vectors_stay(tracks, tower):
    long_windows = CachedWindowSet(WindowSet(tracks[:8], tower, WindowPolicy(4.0)), workers=0)
    keys = [(index, 0) for index in range(4)]
    plain, trimmed = (TrainingSet(long_windows, trim_padding=cut).__getitems__(keys) for cut in (False, True))
    assert trimmed.features.shape[-1] == trimmed.valid_frames.max() < plain.features.shape[-1]
    with torch.no_grad():
        assert_close(
            tower.encode(trimmed.features, trimmed.valid_frames),
            tower.encode(plain.features, plain.valid_frames),
            atol=1e-5,
            rtol=1e-5,
        )
