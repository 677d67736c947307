"""Which tracks make up a batch: the contract of every sampler, and what each one promises."""

from __future__ import annotations

import numpy as np
import pytest

from xmodal.data import Track
from xmodal.data.samplers import BatchSampler, EvaluationBatches, ShuffledBatches

INSTRUMENTS, MOODS = ("piano", "flute", "drums", "cello"), ("calm", "sad", "happy")


@pytest.fixture(scope="module")
def tracks():
    rng = np.random.default_rng(0)
    made = []
    for number in range(150):
        # A long tail: the first instrument is on half of the tracks.
        instruments = [
            name for name, share in zip(INSTRUMENTS, (0.5, 0.2, 0.1, 0.05), strict=True) if rng.random() < share
        ]
        moods = [str(rng.choice(MOODS))] if rng.random() < 0.7 else []
        made.append(
            Track(
                id=f"track{number}",
                path=f"{number}.wav",
                tags={"instrument": tuple(instruments), "mood": tuple(moods)},
                artist=f"artist{number % 40}" if number % 10 else None,
            )
        )
    return made


SAMPLERS: dict[str, BatchSampler] = {
    "shuffled": ShuffledBatches(),
}


def prepared(name, tracks, **options):
    sampler = SAMPLERS[name]
    sampler.prepare(tracks, **({"batch_size": 8} | options))
    sampler.start_at(0, 0)
    return sampler


def order(sampler, epoch, start=0):
    sampler.start_at(epoch, start)
    return list(sampler)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_batches_are_a_pure_function_of_seed_epoch_and_number(name, tracks):
    sampler = prepared(name, tracks)
    first = order(sampler, 3)
    order(sampler, 5)
    assert order(sampler, 3) == first
    assert [sampler.batch(3, number).tolist() for number in (4, 0, 2)] == [
        [index for index, _ in first[number]] for number in (4, 0, 2)
    ]
    assert {epoch for batch in first for _, epoch in batch} == {3}
    assert [[i for i, _ in b] for b in order(sampler, 4)] != [[i for i, _ in b] for b in first]
    assert order(prepared(name, tracks, seed=1), 3) != first


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_start_in_the_middle_gives_the_rest_of_the_epoch_without_planning_what_came_before(name, tracks, monkeypatch):
    sampler = prepared(name, tracks)
    whole = order(sampler, 2)
    planned = []
    batch = type(sampler).batch
    monkeypatch.setattr(type(sampler), "batch", lambda self, *key: planned.append(key) or batch(self, *key))
    assert order(sampler, 2, start=11) == whole[11:]
    assert planned == [(2, number) for number in range(11, len(whole))]
    assert len(sampler) == len(whole), "Lightning counts the whole epoch, also when it begins in its middle"


@pytest.mark.parametrize("name", SAMPLERS)
def test_several_processes_see_the_batches_that_one_sees_each_track_once(name, tracks):
    alone = order(prepared(name, tracks, batch_size=12), 1)
    shares = [order(prepared(name, tracks, batch_size=4, rank=rank, world_size=3), 1) for rank in range(3)]
    assert {len(share) for share in shares} == {len(alone)}
    for whole, *parts in zip(alone, *shares, strict=True):
        assert {len(part) for part in parts} == {4}
        assert sorted(key for part in parts for key in part) == sorted(whole)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("batch_size", [2, 7, 64])
def test_a_batch_is_full_and_holds_no_track_twice(name, tracks, batch_size):
    sampler = prepared(name, tracks, batch_size=batch_size)
    assert len(sampler) == 150 // batch_size
    for batch in order(sampler, 0):
        assert len({index for index, _ in batch}) == len(batch) == batch_size
        assert all(0 <= index < 150 for index, _ in batch)


@pytest.mark.parametrize("name", SAMPLERS)
def test_fewer_tracks_than_a_batch_are_one_short_batch_of_equal_shares(name, tracks):
    shares = [order(prepared(name, tracks[:7], batch_size=64, rank=rank, world_size=2), 0) for rank in range(2)]
    assert [[len(batch) for batch in share] for share in shares] == [[3], [3]]


@pytest.mark.parametrize("name", SAMPLERS)
def test_setting_the_epoch_that_a_start_chose_keeps_it_and_another_one_begins_at_its_first_batch(name, tracks):
    sampler = prepared(name, tracks)
    sampler.start_at(2, 5)
    sampler.set_epoch(2)
    assert (sampler.epoch, sampler.start) == (2, 5)
    sampler.set_epoch(3)
    assert (sampler.epoch, sampler.start) == (3, 0)
    sampler.start_at(3, len(sampler))
    assert (sampler.epoch, sampler.start) == (4, 0)


def test_shuffled_batches_hold_every_track_once_an_epoch(tracks):
    sampler = prepared("shuffled", tracks, batch_size=10)
    assert sorted(index for batch in order(sampler, 0) for index, _ in batch) == list(range(150))
    plain = ShuffledBatches(shuffle=False)
    plain.prepare(tracks, batch_size=50)
    assert [index for batch in plain for index, _ in batch] == list(range(150))


def test_a_place_that_is_not_there_is_refused(tracks):
    sampler = ShuffledBatches()
    with pytest.raises(ValueError, match="rank must be"):
        sampler.prepare(tracks, batch_size=2, rank=2, world_size=2)
    with pytest.raises(ValueError, match="batch_size must be"):
        sampler.prepare(tracks, batch_size=0)
    with pytest.raises(ValueError, match="at least a track each"):
        sampler.prepare(tracks[:1], batch_size=2, world_size=2)
    sampler.prepare(tracks, batch_size=50)
    with pytest.raises(ValueError, match="batch from 0 to 3"):
        sampler.start_at(0, 4)


@pytest.mark.parametrize(
    ("length", "batch_size", "world_size"), [(10, 4, 1), (11, 2, 3), (3, 5, 2), (64, 8, 8), (0, 4, 2)]
)
def test_evaluation_gives_every_item_once_in_as_many_batches_to_each_process(length, batch_size, world_size):
    samplers = [
        EvaluationBatches(length, batch_size=batch_size, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    batches = [list(sampler) for sampler in samplers]
    assert {len(each) for each in batches} == {len(samplers[0])}
    assert sorted(item for each in batches for batch in each for item in batch) == list(range(length))
    sizes = [len(batch) for each in batches for batch in each]
    assert max(sizes, default=0) <= batch_size
    assert max(sizes, default=0) - min(sizes, default=0) <= 1
