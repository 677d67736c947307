"""Which tracks make up a batch: the contract of every sampler, and what each one promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from xmodal.data import Track
from xmodal.data.samplers import (
    ArtistBatches,
    BatchSampler,
    DistanceBinBatches,
    EvaluationBatches,
    GroupedBatches,
    HardTagBatches,
    ShuffledBatches,
    TagBalancedBatches,
    TagGroupBatches,
    TrackFacts,
)
from xmodal.errors import DataError

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
                artist=f"artist{number % 70}" if number % 10 else None,
                extra={"set": ("one", "two")[number % 3 == 0]},
            )
        )
    return made


SAMPLERS: dict[str, BatchSampler] = {
    "shuffled": ShuffledBatches(),
    "by length": GroupedBatches("length"),
    "by rate": GroupedBatches("rate"),
    "by column": GroupedBatches("set"),
    "artists apart": ArtistBatches("apart"),
    "artists together": ArtistBatches("together"),
    "tags balanced": TagBalancedBatches(),
    "tag groups": TagGroupBatches(3),
    "hard tags": HardTagBatches(2),
    "distance bins": DistanceBinBatches(),
}
FACTS = TrackFacts(
    seconds=np.random.default_rng(1).lognormal(2.0, 1.0, 150).tolist(),
    sample_rates=[(8000, 44100, 48000)[number % 3] for number in range(150)],
)


def unit(count, dim=8, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def prepared(name, tracks, **options):
    sampler = SAMPLERS[name]
    sampler.prepare(tracks, **({"batch_size": 8, "facts": FACTS} | options))
    sampler.start_at(0, 0)
    if isinstance(sampler, HardTagBatches):
        sampler.learn(unit(len(sampler.tags)), from_epoch=2)
    if isinstance(sampler, DistanceBinBatches):
        sampler.learn(unit(len(tracks)), from_epoch=2)
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


@pytest.mark.parametrize("name", ["shuffled", "by length", "by rate", "by column", "artists together"])
def test_these_hold_no_track_twice_in_an_epoch(name, tracks):
    heard = [index for batch in order(prepared(name, tracks), 0) for index, _ in batch]
    assert len(heard) == len(set(heard)) == 144
    other = {index for batch in order(prepared(name, tracks), 1) for index, _ in batch}
    assert other != set(heard), "what does not fill a batch is left out by lot"


@pytest.mark.parametrize("name", ["by length", "by rate", "by column"])
def test_only_the_seams_between_groups_are_mixed(name, tracks):
    sampler = prepared(name, tracks, batch_size=5)
    keys = {
        "by length": [round(np.log(seconds) / np.log(1.25)) for seconds in FACTS.seconds],
        "by rate": list(FACTS.sample_rates),
        "by column": [track.extra["set"] for track in tracks],
    }[name]
    batches = order(sampler, 0)
    mixed = sum(len({keys[index] for index, _ in batch}) > 1 for batch in batches)
    assert mixed <= len(set(keys)) - 1
    assert [batch for batch in batches if len({keys[index] for index, _ in batch}) == 1]
    starts = [keys[batch[0][0]] for batch in batches]
    assert starts != sorted(starts), "the batches themselves come in any order"


def test_length_groups_need_less_padding_than_chance(tracks):
    def padding(name):
        batches = order(prepared(name, tracks), 0)
        seconds = [[FACTS.seconds[index] for index, _ in batch] for batch in batches]
        return 1 - sum(map(sum, seconds)) / sum(max(one) * len(one) for one in seconds)

    assert padding("by length") < 0.5 * padding("shuffled")


def artist_of(tracks, index):
    return tracks[index].artist or index


def test_artists_apart_share_no_batch_and_nearly_every_track_is_heard(tracks):
    sampler = prepared("artists apart", tracks, batch_size=30)
    for epoch in range(4):
        batches = order(sampler, epoch)
        for batch in batches:
            assert len({artist_of(tracks, index) for index, _ in batch}) == 30
        heard = {index for batch in batches for index, _ in batch}
        assert len(heard) == 150


def test_an_artist_with_most_of_the_tracks_does_not_break_the_promise():
    tracks = [Track(id=str(n), path="x.wav", artist="everyone" if n < 80 else f"artist{n}") for n in range(100)]
    sampler = ArtistBatches("apart")
    sampler.prepare(tracks, batch_size=10)
    for batch in sampler:
        assert len({tracks[index].artist for index, _ in batch}) == 10
    with pytest.raises(DataError, match="a batch of 30 tracks of different artists needs as many artists"):
        sampler.prepare(tracks, batch_size=30)


def test_artists_together_stand_side_by_side():
    tracks = [Track(id=str(n), path="x.wav", artist=f"artist{n % 10}") for n in range(100)]
    sampler = ArtistBatches("together")
    sampler.prepare(tracks, batch_size=10)
    assert all(len({tracks[index].artist for index, _ in batch}) == 1 for batch in sampler)


def test_spellings_of_an_artist_are_one_and_nameless_tracks_are_nobodys_siblings():
    names = ["Someone", "SOMEONE ", None, None, "Other"]
    tracks = [Track(id=str(n), path="x.wav", artist=name) for n, name in enumerate(names)]
    sampler = ArtistBatches("apart")
    sampler.prepare(tracks, batch_size=4)
    assert sorted(len(indices) for indices in sampler._members) == [1, 1, 1, 2]
    with pytest.raises(DataError, match="anything in the column 'album'"):
        ArtistBatches(field="album").prepare(tracks, batch_size=2)


def share_with(tracks, sampler, tag, epochs=10):
    batches = [batch for epoch in range(epochs) for batch in order(sampler, epoch)]
    return np.mean([tag in tracks[index].all_tags for batch in batches for index, _ in batch])


def test_balanced_tags_come_about_as_often_however_rare_they_are(tracks):
    rare = share_with(tracks, prepared("tags balanced", tracks), "cello")
    common = share_with(tracks, prepared("tags balanced", tracks), "piano")
    assert rare > 2.5 * share_with(tracks, prepared("shuffled", tracks), "cello")
    assert common < 3 * rare
    plain = TagBalancedBatches(balance=0.0)
    plain.prepare(tracks, batch_size=8)
    assert share_with(tracks, plain, "cello") < 0.6 * rare


def test_untagged_tracks_are_not_forgotten(tracks):
    heard = {index for batch in order(prepared("tags balanced", tracks), 0) for index, _ in batch}
    assert any(not tracks[index].all_tags for index in heard)


@pytest.mark.parametrize("each", [2, 4])
def test_every_tag_that_was_chosen_has_m_tracks_in_the_batch(tracks, each):
    sampler = TagGroupBatches(each)
    sampler.prepare(tracks, batch_size=4 * each)
    for batch in order(sampler, 0):
        counts = [sum(tag in tracks[index].all_tags for index, _ in batch) for tag in sampler.tags]
        assert sum(count >= each for count in counts) >= 4
    few = [Track(id=str(n), path="x.wav", tags={"k": ("rare",) if n == 0 else ("common",)}) for n in range(20)]
    sampler.prepare(few, batch_size=12)
    assert all(len({index for index, _ in batch}) == 12 for batch in order(sampler, 0))


def test_a_hard_batch_is_of_a_tag_and_its_nearest_by_the_vectors_product():
    tags = [f"tag{n}" for n in range(30)]
    tracks = [Track(id=f"{tag}-{n}", path="x.wav", tags={"k": (tag,)}) for tag in tags for n in range(4)]
    sampler = HardTagBatches(2, neighbours=7)
    sampler.prepare(tracks, batch_size=8)
    vectors = unit(30)
    sampler.learn(vectors, from_epoch=1)
    product = vectors @ vectors.T
    sets = []
    for batch in order(sampler, 1):
        named = [next(iter(tracks[index].all_tags)) for index, _ in batch]
        there = {sampler.tags.index(tag) for tag in named}
        assert all(named.count(tag) == 2 for tag in named)
        sets.append(there)
        assert any(there == set(np.argsort(-product[seed])[:4]) for seed in there)
    assert len({frozenset(one) for one in sets}) > 4


def test_distances_are_drawn_by_their_bins():
    tracks = [Track(id=str(n), path="x.wav") for n in range(2000)]
    vectors = unit(2000, dim=32)

    def drawn(weights=None):
        sampler = DistanceBinBatches(0.8, 1.6, 4, weights)
        sampler.prepare(tracks, batch_size=21)
        sampler.learn(vectors, from_epoch=0)
        found = []
        for number in range(60):
            anchor = np.random.default_rng([0, 0, number]).permutation(2000)[0]
            rows = sampler.batch(0, number)
            assert anchor in rows
            others = rows[rows != anchor]
            found += np.sqrt(2 - 2 * vectors[others] @ vectors[anchor]).tolist()
        return np.histogram(found, sampler.edges)[0]

    even = drawn()
    assert even.min() > 0.1 * even.max()
    assert drawn([0, 0, 1, 0]).tolist() == [0, 0, 1200, 0]
    two = drawn([0, 0, 3, 1])
    assert 2.3 < two[2] / two[3] < 3.9
    chance = np.histogram(np.sqrt(np.maximum(2 - 2 * vectors[:200] @ vectors.T, 0)), np.linspace(0.8, 1.6, 5))[0]
    assert chance.min() < 0.01 * chance.max()


@pytest.mark.parametrize("name", ["hard tags", "distance bins"])
def test_what_was_learnt_counts_from_the_next_epoch_on_and_survives_a_checkpoint(name, tracks, tmp_path):
    sampler = prepared(name, tracks)
    before, after = order(sampler, 1), order(sampler, 2)
    count = len(sampler.tags) if name == "hard tags" else len(tracks)
    sampler.learn(unit(count, seed=5), from_epoch=3)
    assert order(sampler, 2) == after, "the epoch that runs is not changed"
    learnt = order(sampler, 3)
    torch.save(sampler.memory(), tmp_path / "memory.pt")
    fresh = type(sampler)(2) if name == "hard tags" else type(sampler)()
    fresh.prepare(tracks, batch_size=8, facts=FACTS)
    assert order(fresh, 1) == before
    assert order(fresh, 3) != learnt
    fresh.load_memory(torch.load(tmp_path / "memory.pt", weights_only=True))
    assert order(fresh, 2) == after
    assert order(fresh, 3) == learnt
    with pytest.raises(ValueError, match="needs a vector"):
        sampler.learn(unit(3), from_epoch=1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ArtistBatches("beside"), "mode must be"),
        (lambda: TagBalancedBatches(1.5), "balance must be"),
        (lambda: TagGroupBatches(1), "at least 2"),
        (lambda: HardTagBatches(2, 0), "neighbours must be"),
        (lambda: DistanceBinBatches(1.0, 0.5), "distances of unit vectors"),
        (lambda: DistanceBinBatches(bins=2, weights=[1.0]), "weights must be 2 numbers"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_tracks_that_a_sampler_can_do_nothing_with_are_refused():
    bare = [Track(id=str(n), path="x.wav") for n in range(8)]
    for sampler, message in [
        (TagBalancedBatches(), "no training track has one"),
        (ArtistBatches(), "anything in the column 'artist'"),
        (GroupedBatches("set"), "anything in the column 'set'"),
    ]:
        with pytest.raises(DataError, match=message):
            sampler.prepare(bare, batch_size=4)
    with pytest.raises(ValueError, match="need what the files are like"):
        GroupedBatches("rate").prepare(bare, batch_size=4)
