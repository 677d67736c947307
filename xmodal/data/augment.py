"""What training does to a window of samples so that the model does not learn the recording by heart.

Conventions
-----------
An augmentation is a small function of samples and a random generator. Which draws a track gets is a function of
``(seed, epoch, track)`` alone: the generator is made from these three and handed through the list of augmentations in
its order, on the worker that decoded the window. Each is applied with its ``probability`` and takes one draw to decide.
Samples are mono float32; what comes out may be longer or shorter and beyond full scale: :func:`augmented` cuts it to
the window and clips it. Silence stays silence: noise and mixtures are measured against the signal.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import scipy.signal
import soxr
import torch
from jaxtyping import Float, Int

from xmodal.configurable import Configurable

Samples = Float[np.ndarray, " samples"]
Other = Callable[[np.random.Generator], Samples | None]
"""Gives a window of another track, or None where that one cannot be decoded."""

_SILENCE = 1e-5  # root mean square below which there is nothing to measure against: -100 dB


class AudioAugmentation(Configurable, ABC):
    """Changes samples by chance.

    Args:
        probability: How often it does.

    Attributes:
        reach: Up to how many times its output's length it wants as input.
    """

    reach: float = 1.0

    def __init__(self, probability: float = 1.0) -> None:
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must be from 0 to 1, got {probability}")
        self.probability = probability

    def __call__(self, samples: Samples, sample_rate: int, rng: np.random.Generator, other: Other) -> Samples:
        """The samples, changed with the given probability."""
        if rng.random() >= self.probability:
            return samples
        return self.apply(samples, sample_rate, rng, other)

    @abstractmethod
    def apply(self, samples: Samples, sample_rate: int, rng: np.random.Generator, other: Other) -> Samples:
        """The changed samples; the input is left as it is."""


def augmented(
    samples: Samples,
    sample_rate: int,
    augmentations: Sequence[AudioAugmentation],
    rng: np.random.Generator,
    other: Other,
    *,
    length: int,
) -> Samples:
    """Samples after all augmentations in their order, at most ``length`` of them, in [-1, 1]."""
    for augmentation in augmentations:
        samples = augmentation(samples, sample_rate, rng, other)
    return np.clip(samples[:length], -1.0, 1.0).astype(np.float32, copy=False)


class Gain(AudioAugmentation):
    """Louder or quieter, by a level uniform in decibels, but never so loud that the peak would be clipped.

    Args:
        decibels: Range of the change.
        probability: How often.
    """

    def __init__(self, decibels: tuple[float, float] = (-12.0, 6.0), probability: float = 1.0) -> None:
        super().__init__(probability)
        self.decibels = _range("decibels", decibels)

    def apply(self, samples: Samples, sample_rate: int, rng: np.random.Generator, other: Other) -> Samples:
        """The samples times a factor."""
        gain = 10.0 ** (rng.uniform(*self.decibels) / 20)
        peak = float(np.abs(samples).max(initial=0.0))
        if gain > 1:
            gain = max(1.0, min(gain, 1.0 / peak if peak else gain))
        return samples * np.float32(gain)


class Noise(AudioAugmentation):
    """Noise whose power falls with frequency as ``1/f^exponent``: 0 is white, 1 pink, 2 brown.

    Args:
        snr_db: Range of the signal's power over the noise's.
        exponents: Range of the exponent.
        probability: How often.
    """

    def __init__(
        self,
        snr_db: tuple[float, float] = (5.0, 40.0),
        exponents: tuple[float, float] = (0.0, 2.0),
        probability: float = 0.5,
    ) -> None:
        super().__init__(probability)
        self.snr_db, self.exponents = _range("snr_db", snr_db), _range("exponents", exponents)

    def apply(self, samples: Samples, sample_rate: int, rng: np.random.Generator, other: Other) -> Samples:
        """The samples with noise."""
        snr, exponent = rng.uniform(*self.snr_db), rng.uniform(*self.exponents)
        noise = rng.standard_normal(len(samples), dtype=np.float32)
        if len(samples) > 1:
            spectrum = np.fft.rfft(noise)
            spectrum *= np.maximum(np.arange(len(spectrum)), 1) ** (-exponent / 2)
            noise = np.fft.irfft(spectrum, len(samples)).astype(np.float32)
        return _at_snr(samples, noise, snr)


class MixIn(AudioAugmentation):
    """Another track of the training set behind this one, quiet enough that the words of this one stay true.

    It costs a second window to decode. Where both tracks' texts should be right, use :class:`MixPairs`.

    Args:
        snr_db: Range of the track's power over the other's.
        probability: How often.
    """

    def __init__(self, snr_db: tuple[float, float] = (10.0, 30.0), probability: float = 0.3) -> None:
        super().__init__(probability)
        self.snr_db = _range("snr_db", snr_db)

    def apply(self, samples: Samples, sample_rate: int, rng: np.random.Generator, other: Other) -> Samples:
        """The samples with those of another track, repeated or cut to this one's length."""
        snr, behind = rng.uniform(*self.snr_db), other(rng)
        return samples if behind is None else _at_snr(samples, np.resize(behind, len(samples)), snr)


class Filter(AudioAugmentation):
    """A Butterworth filter of second order: what a small speaker, a telephone or a wall would leave.

    Args:
        kinds: Which filters to choose from: "low" passes lows, "high" passes highs, "band" both cut off.
        low_hz: Range of the lower edge, for "high" and "band".
        high_hz: Range of the upper edge, for "low" and "band"; held below 95 % of the Nyquist frequency.
        probability: How often.
    """

    def __init__(
        self,
        kinds: list[Literal["low", "high", "band"]] | None = None,
        low_hz: tuple[float, float] = (50.0, 500.0),
        high_hz: tuple[float, float] = (1500.0, 8000.0),
        probability: float = 0.3,
    ) -> None:
        super().__init__(probability)
        self.kinds = list(kinds or ("low", "high", "band"))
        if not set(self.kinds) <= {"low", "high", "band"}:
            raise ValueError(f"kinds must be some of 'low', 'high' and 'band', got {kinds}")
        self.low_hz, self.high_hz = _range("low_hz", low_hz), _range("high_hz", high_hz)
        if self.low_hz[0] <= 0 or self.low_hz[1] >= self.high_hz[0]:
            raise ValueError(f"the edges must be positive and low ones below high ones, got {low_hz} and {high_hz} Hz")

    def apply(self, samples: Samples, sample_rate: int, rng: np.random.Generator, other: Other) -> Samples:
        """The filtered samples."""
        kind = self.kinds[int(rng.integers(len(self.kinds)))]
        top = 0.475 * sample_rate
        low, high = (min(math.exp(rng.uniform(*np.log(edge))), top) for edge in (self.low_hz, self.high_hz))
        if kind == "band" and low >= high:
            return samples
        edges, name = {"low": (high, "lowpass"), "high": (low, "highpass"), "band": ((low, high), "bandpass")}[kind]
        sections = scipy.signal.butter(2, edges, name, fs=sample_rate, output="sos")
        return np.asarray(scipy.signal.sosfilt(sections, samples), dtype=np.float32)


class Equalise(AudioAugmentation):
    """A smooth change of timbre: gains drawn at points over the octaves, and straight lines between them.

    Args:
        decibels: Largest boost or cut.
        points: How many gains are drawn, from 30 Hz to the Nyquist frequency.
        probability: How often.
    """

    def __init__(self, decibels: float = 6.0, points: int = 6, probability: float = 0.5) -> None:
        super().__init__(probability)
        if decibels <= 0 or points < 2:
            raise ValueError(f"decibels must be positive and points at least 2, got {decibels} and {points}")
        self.decibels, self.points = decibels, points

    def apply(self, samples: Samples, sample_rate: int, rng: np.random.Generator, other: Other) -> Samples:
        """The samples with their spectrum bent; phases stay."""
        gains = rng.uniform(-self.decibels, self.decibels, self.points)
        places = np.linspace(math.log(30.0), math.log(sample_rate / 2), self.points)
        hertz = np.fft.rfftfreq(len(samples), 1 / sample_rate)
        curve = np.interp(np.log(np.maximum(hertz, 30.0)), places, gains)
        return np.fft.irfft(np.fft.rfft(samples) * 10.0 ** (curve / 20), len(samples)).astype(np.float32)


class PitchShift(AudioAugmentation):
    """Higher or lower at the same tempo, by :func:`stretch`. It changes key and register: mind what the texts say.

    Args:
        semitones: Range of the shift, uniform.
        probability: How often.
    """

    def __init__(self, semitones: tuple[float, float] = (-2.0, 2.0), probability: float = 0.3) -> None:
        super().__init__(probability)
        self.semitones = _range("semitones", semitones)

    def apply(self, samples: Samples, sample_rate: int, rng: np.random.Generator, other: Other) -> Samples:
        """The shifted samples, as many as before."""
        ratio = 2.0 ** (rng.uniform(*self.semitones) / 12)
        longer = stretch(samples, 1 / ratio, sample_rate)
        return _length(soxr.resample(longer, sample_rate * ratio, sample_rate, quality="MQ"), len(samples))


class TimeStretch(AudioAugmentation):
    """Faster or slower at the same pitch, by :func:`stretch`. It changes the tempo: mind what the texts say.

    Args:
        rates: Range of the speed, uniform in its logarithm; above 1 is faster.
        probability: How often.
    """

    def __init__(self, rates: tuple[float, float] = (0.9, 1.1), probability: float = 0.3) -> None:
        super().__init__(probability)
        self.rates = _range("rates", rates)
        if self.rates[0] <= 0:
            raise ValueError(f"rates must be positive, got {rates}")
        self.reach = max(1.0, self.rates[1])

    def apply(self, samples: Samples, sample_rate: int, rng: np.random.Generator, other: Other) -> Samples:
        """The stretched samples."""
        return stretch(samples, math.exp(rng.uniform(*np.log(self.rates))), sample_rate)


class MixPairs(Configurable):
    """Mixup of pairs: a window becomes the mixture of two tracks', and the texts of both are right for it in part.

    Energies are mixed, as sounds do, and not decibels: ``share`` of the track's own and the rest of a partner's. The
    relevance of a text is the share of the track that it is right for; what a share means to a loss is the loss's
    ``graded`` (Zhang et al. 2018, arXiv:1710.09412, there for classes). It works on log-mel, also from a cache.

    Args:
        probability: How often a track gets a partner.
        alpha: The share is drawn from Beta(alpha, alpha), and is at least a half: the first track stays the first.
    """

    def __init__(self, probability: float = 0.5, alpha: float = 0.4) -> None:
        if not 0 < probability <= 1:
            raise ValueError(f"probability must be above 0 and at most 1, got {probability}")
        if alpha <= 0:
            raise ValueError(f"alpha must be positive, got {alpha}")
        self.probability, self.alpha = probability, alpha

    def share(self, rng: np.random.Generator) -> float:
        """The part of the mixture's energy that is the track's own; 1 where it gets no partner."""
        if rng.random() >= self.probability:
            return 1.0
        drawn = float(rng.beta(self.alpha, self.alpha))
        return max(drawn, 1 - drawn)


def stretch(samples: Samples, rate: float, sample_rate: int) -> Samples:
    """Samples at another speed and the same pitch, by a phase vocoder with identity phase locking.

    Each bin takes its phase from the nearest spectral peak, as Laroche and Dolson (1999) found: bins that run freely
    drift apart, and a tone between two bins loses half of its level.

    Args:
        samples: Mono.
        rate: Speed; 2 is twice as fast and half as long.
        sample_rate: In Hz; frames are about 50 ms.

    Returns:
        ``len(samples) / rate`` samples, rounded.
    """
    size = 2 ** round(math.log2(0.05 * sample_rate))
    length = max(1, round(len(samples) / rate))
    if len(samples) <= size:  # too short for a frame to have a neighbour
        return _length(samples, length)
    hop, window = size // 4, torch.hann_window(size)
    waveform = torch.from_numpy(np.ascontiguousarray(samples))
    # Frames in rows: the loop below goes from frame to frame.
    spectrum = torch.stft(waveform, size, hop, window=window, return_complex=True).T.numpy()
    places = np.arange(0, len(spectrum), rate)
    before = np.minimum(places.astype(int), len(spectrum) - 2)
    part = np.clip(places - before, 0, 1).astype(np.float32)[:, None]
    sizes, angles = np.abs(spectrum), np.angle(spectrum)
    magnitude = sizes[before] * (1 - part) + sizes[before + 1] * part
    # How far each bin's phase runs in one hop: what its centre says, and what the phases say, within half a turn.
    expected = (2 * np.pi * hop / size) * np.arange(size // 2 + 1)
    surplus = np.diff(angles, axis=0) - expected
    advance = (expected + surplus - 2 * np.pi * np.round(surplus / (2 * np.pi)))[before]
    peaks = _nearest_peaks(magnitude)
    above_peak = angles[before] - np.take_along_axis(angles[before], peaks, axis=1)
    phase = np.empty_like(magnitude, dtype=np.float64)
    phase[0] = angles[0]
    for frame in range(1, len(phase)):
        # At its peak a phase runs on from where it was; the bins around keep the distance that they had.
        at_peak = phase[frame - 1, peaks[frame]] + advance[frame - 1, peaks[frame]]
        phase[frame] = at_peak + above_peak[frame]
    made = torch.from_numpy((magnitude * np.exp(1j * np.mod(phase, 2 * np.pi))).astype(np.complex64).T)
    return torch.istft(made, size, hop, window=window, length=length).numpy()


def _nearest_peaks(magnitude: Float[np.ndarray, "frames bins"]) -> Int[np.ndarray, "frames bins"]:
    """For each bin the nearest bin of its frame that is no smaller than its two neighbours on either side."""
    bins = magnitude.shape[1]
    around = np.pad(magnitude, ((0, 0), (2, 2)))
    highest = np.max([around[:, shift : shift + bins] for shift in range(5)], axis=0)
    place = np.broadcast_to(np.arange(bins), magnitude.shape)
    is_peak = magnitude >= highest
    below = np.maximum.accumulate(np.where(is_peak, place, -bins), axis=1)
    above = np.minimum.accumulate(np.where(is_peak, place, 2 * bins)[:, ::-1], axis=1)[:, ::-1]
    return np.where(place - below <= above - place, below, above)


def _at_snr(samples: Samples, added: Samples, snr_db: float) -> Samples:
    signal, noise = (math.sqrt(float(np.mean(np.square(part, dtype=np.float64)))) for part in (samples, added))
    if signal < _SILENCE or noise < _SILENCE:
        return samples
    return samples + added * np.float32(signal / noise * 10.0 ** (-snr_db / 20))


def _length(samples: Samples, length: int) -> Samples:
    return samples[:length] if len(samples) >= length else np.pad(samples, (0, length - len(samples)))


def _range(name: str, values: tuple[float, float]) -> tuple[float, float]:
    low, high = (float(value) for value in values)
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"{name} must be a range [from, to] with from <= to, got {list(values)}")
    return low, high
