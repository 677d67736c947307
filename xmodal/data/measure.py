"""What a track's audio is like: level, silence, clipping, and three names of its content that find copies of it.

Conventions
-----------
A track is measured at its file's own rate, mono, from its start to its end, in one pass and bounded memory.

* ``file_digest`` names the file's bytes, ``audio_digest`` the track's decoded samples rounded to 16 bits: a WAV and the
  FLAC made of it have the same.
* ``fingerprint`` survives another encoding, another level and another sample rate. It is that of Haitsma and Kalker
  (ISMIR 2002) with coarser steps: 33 bands from 300 to 2,000 Hz, and for each frame of 0.37 s every 32 ms one bit a
  band, whether the band's lead over its neighbour grew since the frame before. Silent frames are marked. It covers the
  first minute.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import soxr
from jaxtyping import Bool, Float, UInt32

from xmodal.audio import digest
from xmodal.audio.decode import open_audio
from xmodal.audio.stored import place_of
from xmodal.data.tracks import Track
from xmodal.errors import AudioError

SILENT_PEAK = 10 ** (-60 / 20)  # of full scale, in a tenth of a second: below, nothing is heard in a recording
CLIPPED_LEVEL = 0.999  # a 16-bit file that clips has its peaks at 32,767/32,768 or one below
CLIPPED_RUN = 3  # one sample at full scale may be a true peak; three in a row are cut off
FINGERPRINT_SECONDS = 60.0

_RATE = 5_512
_FRAME = 2_048
_HOP = 176
_BANDS = 33
_EDGES_HZ = np.geomspace(300.0, 2_000.0, _BANDS + 1)
_SILENT_POWER = 1e-7  # mean square of a frame, 70 dB below full scale


@dataclass(frozen=True)
class Measurement:
    """One track's audio.

    Attributes:
        seconds: Length of the track.
        sample_rate: Of the file, in Hz.
        channels: Of the file.
        format: Container and codec.
        peak: Largest absolute sample, of the mean of the channels.
        silent_share: Share of tenths of a second whose peak is below -60 dB.
        clipped_runs: Runs of at least three samples at full scale.
        file_digest: Name of the file's bytes.
        audio_digest: Name of the samples.
        fingerprint: One word a frame.
        heard: Which frames of the fingerprint are not silent.
    """

    seconds: float
    sample_rate: int
    channels: int
    format: str
    peak: float
    silent_share: float
    clipped_runs: int
    file_digest: str
    audio_digest: str
    fingerprint: UInt32[np.ndarray, " frames"]
    heard: Bool[np.ndarray, " frames"]


def measure(track: Track) -> Measurement:
    """Decode a track from its start to its end, and measure it.

    Raises:
        AudioError: If it cannot be decoded to its end.
    """
    audio = track.audio
    content = digest(audio)
    levels = _Levels()
    with open_audio(audio) as source:
        rate = source.sample_rate
        start = round(track.start_seconds * rate)
        stop = None if track.end_seconds is None else round(track.end_seconds * rate)
        levels.begin(rate)
        heads: list[np.ndarray] = []
        for block in source.blocks(start, stop):
            levels.add(block)
            if sum(map(len, heads)) < FINGERPRINT_SECONDS * rate:
                heads.append(block)
        if levels.samples == 0:
            raise AudioError(place_of(audio), f"has no audio at {track.start_seconds:.2f} s, it ends earlier")
        facts = (source.channels, source.format)
    head = np.concatenate(heads)[: round(FINGERPRINT_SECONDS * rate)]
    fingerprint, heard = fingerprint_of(head, rate)
    return Measurement(
        seconds=levels.samples / rate,
        sample_rate=rate,
        channels=facts[0],
        format=facts[1],
        peak=levels.peak,
        silent_share=levels.silent_share(),
        clipped_runs=levels.clipped_runs,
        file_digest=content,
        audio_digest=levels.digest.hexdigest(),
        fingerprint=fingerprint,
        heard=heard,
    )


def fingerprint_of(
    samples: Float[np.ndarray, " samples"], rate: int
) -> tuple[UInt32[np.ndarray, " frames"], Bool[np.ndarray, " frames"]]:
    """A word for each frame, and which frames are not silent; none for audio shorter than two frames."""
    low = soxr.resample(samples, rate, _RATE, quality="MQ") if rate != _RATE else samples
    if len(low) < _FRAME + _HOP:
        return np.zeros(0, np.uint32), np.zeros(0, bool)
    frames = np.lib.stride_tricks.sliding_window_view(low, _FRAME)[::_HOP]
    window = np.hanning(_FRAME).astype(np.float32)
    bins = np.fft.rfftfreq(_FRAME, 1 / _RATE)
    edges = np.searchsorted(bins, _EDGES_HZ)
    energies = []
    for first in range(0, len(frames), 256):  # a minute at once would be 60 MB
        spectrum = np.abs(np.fft.rfft(frames[first : first + 256] * window, axis=1)) ** 2
        energies.append(np.add.reduceat(spectrum[:, : edges[-1]], edges[:-1], axis=1))
    energy = np.concatenate(energies)
    share = energy[:, :-1] - energy[:, 1:]
    bits = share[1:] - share[:-1] > 0
    words = np.packbits(bits, axis=1).view(">u4").astype(np.uint32)[:, 0]
    power = (frames.astype(np.float32) ** 2).mean(axis=1)
    heard = power > _SILENT_POWER
    return words, heard[1:] & heard[:-1]


class _Levels:
    """Level, silence and clipping of a signal that comes in blocks; its division into blocks changes nothing."""

    def __init__(self) -> None:
        self.samples, self.peak, self.clipped_runs = 0, 0.0, 0
        self.digest = hashlib.blake2b(digest_size=16)
        self._run = 0
        self._tenth = np.zeros(0, np.float32)
        self._tenths, self._silent = 0, 0

    def begin(self, rate: int) -> None:
        self._size = max(1, rate // 10)
        self.digest.update(f"{rate}/".encode())

    def add(self, block: Float[np.ndarray, " samples"]) -> None:
        loud = np.abs(block)
        self.samples += len(block)
        self.peak = max(self.peak, float(loud.max()))
        self.digest.update(np.clip(np.rint(block * 32_768.0), -32_768, 32_767).astype("<i2").tobytes())
        self._clip(loud >= CLIPPED_LEVEL)
        loud = np.concatenate([self._tenth, loud])
        whole = len(loud) // self._size * self._size
        if whole:
            peaks = loud[:whole].reshape(-1, self._size).max(axis=1)
            self._tenths += len(peaks)
            self._silent += int((peaks < SILENT_PEAK).sum())
        self._tenth = loud[whole:]

    def silent_share(self) -> float:
        """Share of tenths of a second that are silent; what is left over at the end counts if there is nothing else."""
        if self._tenths == 0:
            return float(self.peak < SILENT_PEAK)
        return self._silent / self._tenths

    def _clip(self, full: Bool[np.ndarray, " samples"]) -> None:
        if not full.any():
            self._run = 0
            return
        changes = np.flatnonzero(np.diff(np.concatenate([[False], full, [False]]).astype(np.int8)))
        length = 0
        for start, end in zip(changes[::2].tolist(), changes[1::2].tolist(), strict=True):
            before = self._run if start == 0 else 0
            length = before + end - start
            if length >= CLIPPED_RUN > before:  # counted once, also if it goes on in the next block
                self.clipped_runs += 1
        self._run = length if full[-1] else 0


# Copies

NEAR_ERROR_RATE = 0.2
"""Share of different bits up to which two fingerprints are taken for one recording.

Unrelated audio has about 0.5, and a low-bit-rate MP3 of music or field recordings at most 0.13 in 95 of 100 cases.
Takes of one note on one instrument come down to 0.15: keep single notes together by their group."""
NEAR_FRAMES = 100
"""Frames that two fingerprints must share, three and a half seconds: fewer say too little."""

_SHIFTS = range(-4, 5)  # frames: an encoder's delay, or a little silence cut off, up to 0.13 s
_CROWDED = 64  # a word that more tracks have than this says nothing


def near_copies(
    fingerprints: Sequence[tuple[UInt32[np.ndarray, " frames"], Bool[np.ndarray, " frames"]]],
) -> list[tuple[int, int, float]]:
    """Pairs of tracks that are one recording, also in another encoding, level or sample rate.

    The two must begin at the same place, within 0.13 s, and be heard there for three and a half seconds at least.
    Candidates are the pairs that have an equal word at nearly the same place; each is compared bit by bit.

    Returns:
        ``(first, second, share of different bits)``, first < second.
    """
    pairs = []
    for first, second in sorted(_candidates(fingerprints)):
        rate = error_rate(fingerprints[first], fingerprints[second])
        if rate is not None and rate <= NEAR_ERROR_RATE:
            pairs.append((first, second, rate))
    return pairs


def error_rate(
    one: tuple[UInt32[np.ndarray, " frames"], Bool[np.ndarray, " frames"]],
    other: tuple[UInt32[np.ndarray, " frames"], Bool[np.ndarray, " frames"]],
) -> float | None:
    """Share of different bits at the best shift; None if too little of both is heard together."""
    best = None
    for shift in _SHIFTS:
        left, right = (one[0][max(0, shift) :], other[0][max(0, -shift) :])
        heard_left, heard_right = one[1][max(0, shift) :], other[1][max(0, -shift) :]
        length = min(len(left), len(right))
        both = heard_left[:length] & heard_right[:length]
        if both.sum() < NEAR_FRAMES:
            continue
        different = np.bitwise_count((left[:length] ^ right[:length])[both]).mean() / 32
        best = float(different) if best is None else min(best, float(different))
    return best


def _candidates(
    fingerprints: Iterable[tuple[UInt32[np.ndarray, " frames"], Bool[np.ndarray, " frames"]]],
) -> set[tuple[int, int]]:
    words, places, owners = [], [], []
    for owner, (fingerprint, heard) in enumerate(fingerprints):
        rows = np.flatnonzero(heard)
        words.append(fingerprint[rows])
        places.append(rows.astype(np.int32))
        owners.append(np.full(len(rows), owner, np.int32))
    if not words:
        return set()
    word, place, owner_of = np.concatenate(words), np.concatenate(places), np.concatenate(owners)
    order = np.argsort(word, kind="stable")
    word, place, owner_of = word[order], place[order], owner_of[order]
    bounds = np.flatnonzero(np.diff(word)) + 1
    pairs: set[tuple[int, int]] = set()
    for first, last in zip(np.r_[0, bounds].tolist(), np.r_[bounds, len(word)].tolist(), strict=True):
        if not 2 <= last - first <= _CROWDED:
            continue
        for left in range(first, last):
            for right in range(left + 1, last):
                pair = (int(owner_of[left]), int(owner_of[right]))
                if pair[0] != pair[1] and abs(int(place[left]) - int(place[right])) <= _SHIFTS.stop:
                    pairs.add((min(pair), max(pair)))
    return pairs
