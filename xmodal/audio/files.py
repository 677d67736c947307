"""The front door for audio: probe, load and cut files, find them in folders, and name them by their content."""

from __future__ import annotations

import hashlib
import math
import operator
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
from jaxtyping import Float

from xmodal.audio.decode import SAMPLE_RATES_HZ, Source, open_audio
from xmodal.audio.policy import Window, WindowPolicy, cut_stream
from xmodal.audio.stored import AudioInfo, AudioLike, StoredAudio, place_of
from xmodal.errors import AudioError, AudioTooLargeError

LOAD_LIMIT_SECONDS = 4 * 3600.0
"""What :func:`load` puts into memory at most unless told otherwise: a small file can decompress to days of audio."""

# fmt: off
AUDIO_SUFFIXES = frozenset({
    ".3gp", ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".au", ".caf", ".flac", ".m4a", ".m4b", ".mka",
    ".mp2", ".mp3", ".mpga", ".oga", ".ogg", ".opus", ".snd", ".tta", ".w64", ".wav", ".wave", ".weba", ".webm", ".wma",
    ".wv",
})
# fmt: on
"""Suffixes that :func:`find_audio` takes for audio. :func:`load` itself reads by content, whatever the name."""

# The resampler's filter reaches about 100 samples of the lower rate to either side, and no rate is below 1 kHz.
_MARGIN_SECONDS = 0.25
_LONGEST_SECONDS = 1e9  # 31 years: beyond it, positions would not fit a decoder's 64 bits


def probe(audio: AudioLike) -> AudioInfo:
    """What a file declares about itself, without decoding it where it declares its length.

    Only :func:`load` and :func:`windows` find out whether the declaration is true.

    Raises:
        AudioError: If the file is not readable audio, is visibly cut short, or holds no samples.
    """
    if isinstance(audio, StoredAudio) and audio.info is not None:
        return audio.info
    with open_audio(audio) as source:
        frames = source.declared_frames
        if frames is None:
            frames = sum(len(block) for block in source.blocks(0, None))
        if frames == 0:
            raise AudioError(place_of(audio), "holds no audio samples; get it again")
        return AudioInfo(source.sample_rate, source.channels, frames, frames / source.sample_rate, source.format)


def load(
    audio: AudioLike,
    sample_rate: int,
    *,
    start_seconds: float = 0.0,
    duration_seconds: float | None = None,
    max_seconds: float | None = LOAD_LIMIT_SECONDS,
) -> Float[np.ndarray, " samples"]:
    """Mono samples of a file, or of a part of it.

    A part is reached by seeking in PCM, FLAC, MP3 and Opus; other kinds (Ogg Vorbis, AAC, WMA) are decoded from their
    start, because no seek in them is exact. Keep what you read many small parts of in one of the former.

    Args:
        audio: Any audio file, its suffix does not matter; or stored audio.
        sample_rate: Rate of the result in Hz, from 1,000 to 1,536,000.
        start_seconds: Where to begin.
        duration_seconds: How much to read; None means to the end. A file that ends earlier gives what there is.
        max_seconds: Refuse to load more than this; None means no limit.

    Returns:
        float32 samples in [-1, 1], at least one.

    Raises:
        ValueError: If an argument is out of range.
        AudioError: If the file is missing, unreadable, not audio, cut short, damaged, silent of samples, without audio
            at ``start_seconds``, or longer than ``max_seconds``. Where only a part is asked for, damage elsewhere may
            go unnoticed.
    """
    sample_rate = _checked_rate(sample_rate)
    start = _to_samples("start_seconds", start_seconds, sample_rate)
    stop = None
    if duration_seconds is not None:
        length = _to_samples("duration_seconds", duration_seconds, sample_rate)
        if length < 1:
            raise ValueError(
                f"duration_seconds must be at least one sample at {sample_rate} Hz, got {duration_seconds}"
            )
        stop = start + length
    _check_limit(max_seconds)
    blocks = list(_stream(audio, sample_rate, start, stop, max_seconds))
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


@dataclass(frozen=True)
class AudioLimits:
    """What a file may be, for :func:`load_within`.

    Attributes:
        seconds: Its length.
        channels: Their number.
        rate_hz: Its own sample rate.
    """

    seconds: float = LOAD_LIMIT_SECONDS
    channels: int = 1024
    rate_hz: int = SAMPLE_RATES_HZ[-1]

    def __post_init__(self) -> None:
        _check_limit(self.seconds)
        for name in ("channels", "rate_hz"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


def load_within(
    audio: AudioLike,
    sample_rate: int,
    limits: AudioLimits,
    *,
    start_seconds: float = 0.0,
    end_seconds: float | None = None,
) -> tuple[AudioInfo, Float[np.ndarray, " samples"]]:
    """What :func:`probe` and :func:`load` give, read in one go: what a file declares is refused before it is decoded.

    Where a file declares no length, its frames are counted as they are decoded, as far as it is read.

    Args:
        audio: As for :func:`load`.
        sample_rate: As for :func:`load`.
        limits: What the file may be; of a part, its length.
        start_seconds: Where to begin.
        end_seconds: Where to end; None, or beyond the file, means its end.

    Raises:
        ValueError: If an argument is out of range.
        AudioTooLargeError: If the file is beyond the limits, or turns out to be while it is decoded.
        AudioError: As :func:`load`.
    """
    opened: list[Source] = []

    def admit(source: Source) -> None:
        opened.append(source)
        for name, value, limit in (
            ("channels", source.channels, limits.channels),
            ("Hz", source.sample_rate, limits.rate_hz),
        ):
            if value > limit:
                raise AudioTooLargeError(place_of(audio), f"has {value} {name}, more than the limit of {limit}")

    sample_rate = _checked_rate(sample_rate)
    start, stop = _span(start_seconds, end_seconds, sample_rate)
    blocks = list(_stream(audio, sample_rate, start, stop, limits.seconds, admit))
    samples = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    source = opened[0]
    frames = source.declared_frames or round((start + len(samples)) * source.sample_rate / sample_rate)
    info = AudioInfo(source.sample_rate, source.channels, frames, frames / source.sample_rate, source.format)
    return info, samples


def windows(
    audio: AudioLike,
    sample_rate: int,
    policy: WindowPolicy,
    *,
    start_seconds: float = 0.0,
    end_seconds: float | None = None,
    max_seconds: float | None = None,
) -> Iterator[Window]:
    """The windows of a file, or of a part of it, in bounded memory: about two windows, however long the file is.

    Args:
        audio: Any audio file, its suffix does not matter; or stored audio.
        sample_rate: Rate of the windows in Hz, from 1,000 to 1,536,000.
        policy: Where the windows lie, counted from ``start_seconds``.
        start_seconds: Where to begin.
        end_seconds: Where to end; None, or beyond the file, means its end.
        max_seconds: Refuse to go on after this much audio; None means no limit.

    Returns:
        An iterator over the windows in order; their ``start_seconds`` count from the start of the file.

    Raises:
        ValueError: If an argument is out of range; at once, before the iteration.
        AudioError: As for :func:`load`, and during the iteration. That a file was cut short may show only at its end,
            after good windows: who catches the error must set the whole file aside.
    """
    sample_rate = _checked_rate(sample_rate)
    start, stop = _span(start_seconds, end_seconds, sample_rate)
    # Asked for here because a generator would refuse a bad policy or limit only when its first window is taken.
    policy.hop_samples(sample_rate)
    policy.window_samples(sample_rate)
    _check_limit(max_seconds)
    return cut_stream(_stream(audio, sample_rate, start, stop, max_seconds), sample_rate, policy, start)


def _stream(
    audio: AudioLike,
    sample_rate: int,
    start: int,
    stop: int | None,
    max_seconds: float | None,
    admit: Callable[[Source], None] | None = None,
) -> Iterator[Float[np.ndarray, " samples"]]:
    """Blocks of samples ``start`` to ``stop`` of the file at ``sample_rate``; at least one sample or an error."""
    path = place_of(audio)
    with open_audio(audio) as source:
        if admit is not None:
            admit(source)
        declared = source.declared_frames
        if declared is not None:
            total = declared * sample_rate / source.sample_rate
            _refuse_too_long(path, min(total, stop or total) - start, sample_rate, max_seconds)
        samples = 0
        for block in _at_rate(source, sample_rate, start, stop):
            samples += len(block)
            _refuse_too_long(path, samples, sample_rate, max_seconds)
            if len(block):
                yield np.clip(block, -1.0, 1.0, out=block)
        if samples == 0:
            raise AudioError(path, _why_nothing(source, sample_rate, start))


def _at_rate(source: Source, sample_rate: int, start: int, stop: int | None) -> Iterator[np.ndarray]:
    """Blocks, some of them empty, of samples ``start`` to ``stop`` at ``sample_rate``."""
    rate = source.sample_rate
    if rate == sample_rate:
        yield from source.blocks(start, stop)
        return
    # Begin a margin early, at a frame that falls on a sample of the whole file's result: one such every `step` frames.
    # Then the filter stands on the same grid and has settled where the part begins; and read a margin more at the end.
    step = rate // math.gcd(rate, sample_rate)
    margin = math.ceil(_MARGIN_SECONDS * rate)
    first = max(0, start * rate // sample_rate - margin)
    first -= first % step
    last = None if stop is None else -(-stop * rate // sample_rate) + margin
    position = first * sample_rate // rate
    for block in _resampled(source.blocks(first, last), rate, sample_rate):
        yield block[max(0, start - position) : None if stop is None else max(0, stop - position)]
        position += len(block)


def _resampled(blocks: Iterator[np.ndarray], rate: int, sample_rate: int) -> Iterator[np.ndarray]:
    # The stream's output does not depend on how its input is divided into blocks.
    resampler = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield resampler.resample_chunk(block)
    yield resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True)


def _refuse_too_long(path: str | Path, samples: float, sample_rate: int, max_seconds: float | None) -> None:
    if max_seconds is not None and samples > max_seconds * sample_rate:
        raise AudioTooLargeError(
            path,
            f"holds more audio than the limit of {max_seconds:g} s (at least {samples / sample_rate:.1f} s); read it "
            "with windows(), ask for a part of it, or raise max_seconds",
        )


def _why_nothing(source: Source, sample_rate: int, start: int) -> str:
    if start:
        return f"has no audio at {start / sample_rate:.2f} s, it ends earlier; correct the start"
    if source.declared_frames:
        return f"is shorter than one sample at {sample_rate} Hz; it is no usable audio"
    return "holds no audio samples; get it again"


def _checked_rate(sample_rate: int) -> int:
    rate = operator.index(sample_rate)
    if rate not in SAMPLE_RATES_HZ:
        raise ValueError(
            f"sample_rate must be from {SAMPLE_RATES_HZ[0]} to {SAMPLE_RATES_HZ[-1]} Hz, got {sample_rate}"
        )
    return rate


def _check_limit(max_seconds: float | None) -> None:
    if max_seconds is not None and not max_seconds > 0:
        raise ValueError(f"max_seconds must be a positive number of seconds, or None for no limit, got {max_seconds}")


def _span(start_seconds: float, end_seconds: float | None, sample_rate: int) -> tuple[int, int | None]:
    start = _to_samples("start_seconds", start_seconds, sample_rate)
    if end_seconds is None:
        return start, None
    stop = _to_samples("end_seconds", end_seconds, sample_rate)
    if stop <= start:
        raise ValueError(f"end_seconds must be after start_seconds={start_seconds}, got {end_seconds}")
    return start, stop


def _to_samples(name: str, seconds: float, sample_rate: int) -> int:
    if not 0 <= seconds <= _LONGEST_SECONDS:
        raise ValueError(f"{name} must be from 0 to {_LONGEST_SECONDS:g} seconds, got {seconds}")
    return round(seconds * sample_rate)


def find_audio(folder: str | os.PathLike[str]) -> list[Path]:
    """Audio files of a folder and its subfolders, by suffix (:data:`AUDIO_SUFFIXES`, in any case).

    Hidden files and folders (names that begin with a dot) are left out. Links are followed, and a folder is listed
    once however many links lead to it, under its own place if that is inside ``folder``; so loops of links end.

    Returns:
        Sorted paths, which begin with ``folder`` as given.

    Raises:
        AudioError: If the folder does not exist, is not a folder, or one in it cannot be listed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise AudioError(folder, "is not a folder; give an existing folder of audio files")
    found: list[Path] = []
    visited: set[tuple[int, int]] = set()
    pending = [folder]
    while pending:
        links: list[Path] = []
        for root in pending:
            for place, subfolders, names in os.walk(root, onerror=_cannot_list):
                status = os.stat(place)
                if (status.st_dev, status.st_ino) in visited:
                    subfolders.clear()
                    continue
                visited.add((status.st_dev, status.st_ino))
                subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
                links += [Path(place, name) for name in subfolders if os.path.islink(os.path.join(place, name))]
                found += [
                    Path(place, name)
                    for name in names
                    if not name.startswith(".") and os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES
                ]
        pending = links  # os.walk does not follow them; real folders come first, so that they win
    return sorted(path for path in found if path.is_file())


def _cannot_list(error: OSError) -> None:
    raise AudioError(error.filename or "?", f"cannot be listed ({error.strerror}); check its permissions") from error


def digest(audio: AudioLike) -> str:
    """Name of a file's content: 32 hex digits of BLAKE2b over its bytes, read in a stream.

    Two files have the same digest if and only if they hold the same bytes, so it can key a cache that survives
    renames and copies, also into a shard. What the bytes are does not matter; a damaged file has a digest too.

    Raises:
        AudioError: If the file cannot be read.
    """
    if isinstance(audio, StoredAudio):
        return hashlib.blake2b(audio.read(), digest_size=16).hexdigest()
    try:
        with open(audio, "rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise AudioError(
            Path(audio), f"cannot be read ({error.strerror}); check the path and its permissions"
        ) from error
