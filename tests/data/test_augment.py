"""Augmentation: each does what its name says, and draws by seed, epoch and track alone."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from xmodal.audio import WindowPolicy
from xmodal.data.augment import (
    Equalise,
    Filter,
    Gain,
    MixIn,
    MixPairs,
    Noise,
    PitchShift,
    TimeStretch,
    augmented,
    stretch,
)
from xmodal.data.datasets import TrainingSet
from xmodal.data.kept import CachedWindowSet
from xmodal.data.manifests import read_tracks
from xmodal.data.module import AudioTextData
from xmodal.data.windows import WindowSet
from xmodal.towers import MobileCnn, SpecAugment

RATE = 16000
ALL = [Gain(), Noise(), MixIn(), Filter(), Equalise(), PitchShift(), TimeStretch()]


def sine(hertz=440.0, seconds=1.0, level=0.3):
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def rng(seed=0):
    return np.random.default_rng(seed)


def nobody(_rng):
    return None


def db(samples):
    return 10 * np.log10(np.mean(np.square(samples, dtype=np.float64)))


def peak_hz(samples):
    middle = samples[len(samples) // 4 : 3 * len(samples) // 4]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 8 * RATE))
    return np.argmax(spectrum) / 8


@pytest.mark.parametrize("augmentation", ALL, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("samples", [sine(), np.zeros(RATE, np.float32), sine(seconds=0.01), np.ones(1, np.float32)])
def test_each_gives_finite_float32_repeats_itself_leaves_its_input_alone_and_keeps_silence(augmentation, samples):
    augmentation = pickle.loads(pickle.dumps(augmentation))
    augmentation.probability = 1.0
    before = samples.copy()

    def other(_rng):
        return sine(1000.0)

    for seed in range(3):
        made = augmentation(samples, RATE, rng(seed), other)
        assert np.array_equal(samples, before)
        assert made.dtype == np.float32
        assert made.ndim == 1
        assert len(made) >= 1
        assert np.isfinite(made).all()
        assert np.array_equal(augmentation(samples, RATE, rng(seed), other), made)
        if not samples.any():
            assert not made.any()


@pytest.mark.parametrize("augmentation", ALL, ids=lambda one: type(one).__name__)
def test_the_probability_is_how_often_it_acts(augmentation):
    augmentation = pickle.loads(pickle.dumps(augmentation))
    samples = sine(seconds=0.2)

    def share(probability):
        augmentation.probability = probability
        made = [augmentation(samples, RATE, rng(seed), lambda _: sine(1000.0, 0.2)) for seed in range(100)]
        return sum(not np.array_equal(one, samples) for one in made) / 100

    assert share(0.0) == 0
    assert share(1.0) > 0.9
    assert 0.15 < share(0.3) < 0.45


def test_gain_changes_the_level_within_its_range_and_never_clips():
    changes = [
        db(Gain((-20.0, 6.0))(sine(level=0.1), RATE, rng(seed), nobody)) - db(sine(level=0.1)) for seed in range(80)
    ]
    assert -20 <= min(changes) < -15
    assert 3 < max(changes) <= 6
    loud = Gain((20.0, 20.0))(sine(level=0.5), RATE, rng(), nobody)
    assert np.abs(loud).max() == pytest.approx(1.0, abs=1e-6)
    beyond = 2 * sine(level=1.0)
    assert np.array_equal(Gain((6.0, 6.0))(beyond, RATE, rng(), nobody), beyond)


def test_noise_has_the_level_and_the_colour_asked_for():
    samples = sine(seconds=4.0)
    for exponent in (0.0, 1.0, 2.0):
        made = Noise((12.0, 12.0), (exponent, exponent), 1.0)(samples, RATE, rng(), nobody)
        noise = made - samples
        assert db(samples) - db(noise) == pytest.approx(12.0, abs=0.01)
        power = np.abs(np.fft.rfft(noise)) ** 2
        hertz = np.fft.rfftfreq(len(noise), 1 / RATE)
        low, high = (power[(hertz > edge) & (hertz < 2 * edge)].mean() for edge in (100, 1600))
        assert np.log2(low / high) / 4 == pytest.approx(exponent, abs=0.25)


def test_another_track_is_mixed_in_at_the_level_asked_for():
    samples, behind = sine(440.0), sine(1000.0, 0.3, level=0.9)
    made = MixIn((20.0, 20.0), 1.0)(samples, RATE, rng(), lambda _: behind)
    added = made - samples
    assert db(samples) - db(added) == pytest.approx(20.0, abs=0.01)
    assert_close(added[:4800] / added[:4800].max(), behind / behind.max(), atol=1e-3, rtol=0)
    assert MixIn((20.0, 20.0), 1.0)(samples, RATE, rng(), nobody) is samples


def test_filters_pass_what_their_names_say():
    def left(kind, hertz):
        made = Filter([kind], (200.0, 200.0), (2000.0, 2000.0), 1.0)(sine(hertz), RATE, rng(), nobody)
        return db(made[RATE // 4 :]) - db(sine(hertz)[RATE // 4 :])

    assert left("low", 100.0) > -1 > -15 > left("low", 6000.0)
    assert left("high", 6000.0) > -1 > -15 > left("high", 50.0)
    assert left("band", 700.0) > -1.5
    assert max(left("band", 20.0), left("band", 7900.0)) < -15
    made = Filter(["low"], high_hz=(9000.0, 9000.0), probability=1.0)(sine(), RATE, rng(), nobody)  # above Nyquist
    assert np.isfinite(made).all()


def test_equalising_changes_the_level_of_a_tone_within_its_range_and_not_its_pitch():
    changes = []
    for seed in range(40):
        made = Equalise(6.0, probability=1.0)(sine(), RATE, rng(seed), nobody)
        changes.append(db(made) - db(sine()))
        assert peak_hz(made) == pytest.approx(440.0, abs=1)
    assert -6.1 < min(changes) < -2
    assert 2 < max(changes) < 6.1


@pytest.mark.parametrize("semitones", [-12.0, -3.0, 4.0, 12.0])
def test_a_pitch_shift_moves_the_pitch_and_keeps_length_and_level(semitones):
    made = PitchShift((semitones, semitones), 1.0)(sine(), RATE, rng(), nobody)
    assert len(made) == RATE
    assert peak_hz(made) == pytest.approx(440.0 * 2 ** (semitones / 12), rel=0.005)
    assert db(made[2000:-2000]) == pytest.approx(db(sine()), abs=1.5)


@pytest.mark.parametrize("speed", [0.5, 0.8, 1.0, 1.3, 2.0])
def test_a_time_stretch_changes_the_length_and_keeps_the_pitch(speed):
    made = TimeStretch((speed, speed), 1.0)(sine(), RATE, rng(), nobody)
    assert len(made) == round(RATE / speed)
    assert peak_hz(made) == pytest.approx(440.0, rel=0.005)
    assert db(made[2000:-2000]) == pytest.approx(db(sine()), abs=1.0)


def test_a_stretch_moves_events_in_time():
    clicks = np.zeros(2 * RATE, np.float32)
    clicks[RATE : RATE + 400] = sine(2000.0, 400 / RATE, 0.9)
    slow = stretch(clicks, 0.5, RATE)
    assert np.argmax(np.convolve(np.abs(slow), np.ones(400), "same")) / RATE == pytest.approx(2.0, abs=0.05)
    assert_close(stretch(sine(), 1.0, RATE)[1000:-1000], sine()[1000:-1000], atol=1e-3, rtol=0)


def test_what_comes_out_of_a_list_is_a_window_within_full_scale():
    made = augmented(
        sine(seconds=2.0, level=0.9), RATE, [Noise((0.0, 0.0), probability=1.0)], rng(), nobody, length=RATE
    )
    assert len(made) == RATE
    assert np.abs(made).max() == 1.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gain((3.0, -3.0)), r"decibels must be a range \[from, to\]"),
        (lambda: Gain(probability=1.5), "probability must be from 0 to 1"),
        (lambda: Noise(snr_db=(0.0, float("nan"))), "snr_db must be a range"),
        (lambda: Filter(["notch"]), "kinds must be"),
        (lambda: Filter(low_hz=(50.0, 2000.0)), "low ones below high ones"),
        (lambda: Equalise(points=1), "points at least 2"),
        (lambda: TimeStretch((0.0, 1.0)), "rates must be positive"),
        (lambda: MixPairs(alpha=0.0), "alpha must be positive"),
        (lambda: MixPairs(probability=0.0), "probability must be above 0"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# In the training set


@pytest.fixture(scope="module")
def windows(tone_tracks):
    tracks = read_tracks(tone_tracks, tag_fields=["pitch", "motion"])
    tower = MobileCnn(sample_rate=8000, n_fft=256, hop=80, bands=16, width=0.25, feature_dim=8)
    return WindowSet(tracks[:12], tower, WindowPolicy(1.0))


@pytest.fixture(scope="module")
def cached(windows):
    return CachedWindowSet(windows, workers=0)


def keys(epoch, rows=range(6)):
    return [(row, epoch) for row in rows]


def test_an_augmented_item_depends_on_seed_epoch_and_track_alone(windows):
    def batch(epoch=2, rows=range(6), seed=0):
        return TrainingSet(
            windows, augment=ALL, feature_augment=[SpecAugment()], mix_pairs=MixPairs(), seed=seed
        ).__getitems__(keys(epoch, rows))

    together = batch()
    alone = [batch(rows=[row]) for row in range(6)]
    assert torch.equal(together.features, torch.cat([one.features for one in alone]))
    assert together.texts == [text for one in alone for text in one.texts]
    assert together.facts.partners == tuple(one.facts.partners[0] for one in alone)
    assert not torch.equal(batch(epoch=3).features, together.features)
    assert not torch.equal(batch(seed=1).features, together.features)


def test_an_augmentation_more_changes_neither_windows_nor_texts_nor_partners(windows):
    plain = TrainingSet(windows).__getitems__(keys(1))
    quiet = TrainingSet(windows, augment=[Gain((-6.0, -6.0))]).__getitems__(keys(1))
    assert quiet.texts == plain.texts
    # 6 dB of the 20 dB that are one unit, wherever the floor is not reached.
    heard = quiet.features > -1.9
    assert_close((plain.features - quiet.features)[heard], torch.full((int(heard.sum()),), 0.3), atol=0.02, rtol=0)


def test_a_time_stretch_reads_further_so_that_the_window_stays_full(windows):
    fast = TrainingSet(windows, augment=[TimeStretch((1.15, 1.15), 1.0)])
    plain = TrainingSet(windows)
    long = [row for row, seconds in enumerate(windows.seconds) if seconds > 1.6]
    assert len(long) >= 2
    whole = plain.__getitems__(keys(0, long)).valid_frames
    # At the end of a track there is nothing further to read, and the rest is padding.
    assert (fast.__getitems__(keys(0, long)).valid_frames >= 0.86 * whole).all()
    assert any((fast.__getitems__(keys(epoch, long)).valid_frames == whole).any() for epoch in range(4))


def test_blanked_stripes_on_the_worker_are_those_of_the_track_and_the_epoch(cached):
    plain = TrainingSet(cached).__getitems__(keys(0))
    blanked = TrainingSet(cached, feature_augment=[SpecAugment(2, 0.3, 2, 0.3)]).__getitems__(keys(0))
    changed = blanked.features != plain.features
    assert changed.any(dim=(1, 2)).sum() >= 5
    assert (blanked.features[changed] == 0).all()


def test_a_mixture_has_the_energies_of_both_and_their_texts_in_part(cached):
    pairs = TrainingSet(cached, mix_pairs=MixPairs(1.0, 1.0), tag_prompts=4)
    batch = pairs.__getitems__(keys(0))
    plain = TrainingSet(cached).__getitems__(keys(0, range(12)))
    assert len(batch.facts.partners) == 6
    mixed = [place for place, (partner, _) in enumerate(batch.facts.partners) if partner != place]
    assert len(mixed) >= 4
    for place in mixed:
        partner, share = batch.facts.partners[place]
        assert 0.5 <= share < 1
        parts = ((place, share), (partner, 1 - share))
        energy = sum(part * 10 ** (plain.features[row].double() * 20 / 10) for row, part in parts)
        assert_close(batch.features[place].double(), 10 * torch.log10(energy) / 20, atol=1e-4, rtol=0)
        own, other = (cached.tracks[row] for row in (place, partner))
        for column, (text, owner) in enumerate(zip(batch.facts.captions, batch.facts.owners, strict=True)):
            expected = share * (own.id == owner or (bool(text.requires) and text.requires <= own.all_tags))
            expected += (1 - share) * (other.id == owner or (bool(text.requires) and text.requires <= other.all_tags))
            same_words = [
                part
                for part, track in ((share, own), (1 - share, other))
                if text.text in {caption.text for caption in track.captions}
            ]
            assert batch.relevance[place, column].item() == pytest.approx(max(expected, sum(same_words)), abs=1e-6)
    assert batch.relevance.dtype == torch.float32
    assert TrainingSet(cached).__getitems__(keys(0)).relevance.dtype == torch.bool


def test_samples_of_cached_windows_cannot_be_augmented(cached, tone_tracks):
    with pytest.raises(ValueError, match="set cache: none"):
        TrainingSet(cached, augment=[Gain()])
    with pytest.raises(ValueError, match="cache: memory keeps only their features"):
        AudioTextData(str(tone_tracks), cache="memory", augment=[Gain()])


def test_with_augmentation_training_decodes_and_validation_is_cached_untouched(tone_tracks, windows):
    data = AudioTextData(str(tone_tracks), tag_fields=["pitch"], workers=0, decode_seconds=None, augment=[Gain()])
    tower = MobileCnn(sample_rate=8000, n_fft=256, hop=80, bands=16, width=0.25, feature_dim=8)
    data.prepare("fit", tower, WindowPolicy(1.0))
    assert isinstance(data.training_set.windows, WindowSet)
    assert isinstance(data.evaluation_sets["validation"].windows, CachedWindowSet)
