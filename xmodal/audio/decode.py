"""From a file to blocks of mono samples at the file's own rate, with every damaged or unfit file refused by name.

libsndfile decodes what it knows, and PyAV (FFmpeg) the rest.

A part of a file must be that slice of the whole, so a seek is used only where it was found to be exact:

* PCM, FLAC and Opus: at once; MP3: after a second, because a frame may draw on bits of many frames before it;
* Vorbis: never. A page says where it ends, and both libraries count back from there, up to 500 samples wrong on the
  last page and on all pages of files whose pages disagree with their packets. It is decoded from the start;
* all that PyAV decodes: never. An AAC decoder that begins in the middle fills its noise bands from another random
  state, and many containers know the time to a millisecond only.

Neither library says that a file was cut short, so this module compares what the file declares with what was decoded:

* WAV and AIFF: the end of the data chunk against the size of the file;
* Ogg: the last page must be whole and carry the end-of-stream mark;
* all others: the declared length against the decoded one, with a tolerance of 0.1 s (libsndfile) or 0.5 s (PyAV), and
  at most a quarter of the length: encoder delay and padding are declared by some writers and not by others.

An MP3 without a Xing or Info header and a raw AAC stream declare no length, and FFmpeg judges that of a WMA by its
size, so that a cut one may be simply a shorter file.
"""

from __future__ import annotations

import math
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
import soundfile
from av.error import FFmpegError
from jaxtyping import Float

from xmodal.audio.headers import WHOLE_FILE, mp3_declares_length, refuse_cut_short
from xmodal.audio.stored import AudioLike, StoredAudio, place_of
from xmodal.errors import AudioError

PEAK_LIMIT = 16.0  # 24 dB over full scale: far above any overshoot or hot float mix, far below unscaled integers
SAMPLE_RATES_HZ = range(1_000, 1_536_001)

# Seconds to decode and drop behind a seek, by libsndfile's subtype. What is not here is decoded from the start.
_SEEK_PREROLL_SECONDS = {
    "MPEG_LAYER_III": 1.0,
    **dict.fromkeys(("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "OPUS"), 0.0),
}
_BLOCK_FRAMES = 65_536
_BLOCK_VALUES = 8 * _BLOCK_FRAMES  # frames times channels: a file of 1,024 channels must not make a block of 256 MB
_UNKNOWN_FRAMES = 2**62  # libsndfile says 2**63 - 1 where a FLAC declares no length
_SOUNDFILE_SHORTFALL_SECONDS = 0.1
_AV_SHORTFALL_SECONDS = 0.5

# Only containers of one self-contained file: a playlist could make FFmpeg open other files or addresses.
_AV_CONTAINERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dts,eac3,flac,flv,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,"
    "mp3,mpc,mpc8,mpeg,mpegts,ogg,tak,tta,w64,wav,wv"
)
# Containers whose duration is written down; for the others FFmpeg guesses it from the bit rate.
_AV_DECLARES_LENGTH = frozenset(
    {"aiff", "ape", "asf", "au", "caf", "flac", "mov", "matroska", "ogg", "tta", "w64", "wav"}
)


class Source(Protocol):
    """An open audio file."""

    format: str  # container/codec
    sample_rate: int
    channels: int
    declared_frames: int | None  # None where the file does not say

    def blocks(self, start: int, stop: int | None) -> Iterator[Float[np.ndarray, " frames"]]:
        """Mono blocks of the frames from ``start`` to ``stop`` (None: the end of the file), sharing no memory.

        Raises:
            AudioError: If the file turns out to be damaged or cut short, or holds samples that are no audio.
        """


@contextmanager
def open_audio(audio: AudioLike) -> Iterator[Source]:
    """Open audio with the decoder that its content asks for.

    Raises:
        AudioError: If there is no such file, or it is empty, not audio, cut short, or of an unusable sample rate.
    """
    path = place_of(audio)
    if isinstance(audio, StoredAudio):
        # A file without a name, so that bytes are decoded by the very same code as files.
        descriptor = _nameless_file(path, audio.read())
        readable = f"/dev/fd/{descriptor}"
    else:
        descriptor = _open_regular_file(Path(audio))
        readable = str(path)
    try:
        refuse_cut_short(path, descriptor)
        source = _SoundFileSource.open(path, descriptor)
        if source is not None:
            with source.file:
                _refuse_rate(path, source.sample_rate)
                yield source
            return
        with _av_container(path, readable) as container:
            av_source = _AvSource(path, container)
            _refuse_rate(path, av_source.sample_rate)
            yield av_source
    finally:
        os.close(descriptor)


def _open_regular_file(path: Path) -> int:
    try:
        # Asked before opening: to open a named pipe waits for its writer.
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise AudioError(path, "is a folder, not an audio file; list its files with find_audio")
        if not stat.S_ISREG(status.st_mode):
            raise AudioError(path, "is a device or a pipe, not a file; save the audio to a file first")
        if status.st_size == 0:
            raise AudioError(path, "is empty (0 bytes); get it again")
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        raise AudioError(path, "does not exist; check the path") from None
    except OSError as error:
        raise AudioError(path, f"cannot be opened ({error.strerror}); check the path and its permissions") from error
    except ValueError as error:
        raise AudioError(path, f"is not a possible path ({error}); check the path") from error


def _nameless_file(path: str | Path, content: bytes) -> int:
    """A descriptor of a file that holds the bytes, in memory where the system has such files."""
    if not content:
        raise AudioError(path, "is empty (0 bytes); get it again")
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("audio")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _refuse_rate(path: str | Path, sample_rate: int) -> None:
    if sample_rate not in SAMPLE_RATES_HZ:
        raise AudioError(
            path,
            f"declares a sample rate of {sample_rate} Hz, outside {SAMPLE_RATES_HZ[0]} to {SAMPLE_RATES_HZ[-1]} Hz; "
            "its header is damaged or it is not audio",
        )


# The two decoders


class _SequentialSoundFile(soundfile.SoundFile):
    """A SoundFile that is only read forwards from where it was last set.

    SoundFile.read seeks to its own position after every block, which costs MP3 a tenth of the decoding time, and half
    of it with small blocks; it does not for a file that says it cannot seek. ``seek`` itself works as ever.
    """

    def seekable(self) -> bool:
        return False


class _SoundFileSource:
    def __init__(self, path: str | Path, file: _SequentialSoundFile) -> None:
        self.path = path
        self.file = file
        self.format = f"{file.format}/{file.subtype}".lower()
        self.sample_rate = int(file.samplerate)
        self.channels = int(file.channels)
        self.declared_frames = file.frames if file.frames < _UNKNOWN_FRAMES else None

    @classmethod
    def open(cls, path: str | Path, descriptor: int) -> _SoundFileSource | None:
        """The source, or None where libsndfile does not know the format or would guess the length."""
        try:
            # By descriptor: a name that ends in .raw is taken for headerless samples. libsndfile must not own it,
            # for it does not close it when it refuses a file.
            file = _SequentialSoundFile(descriptor, closefd=False)
        except soundfile.SoundFileError:
            return None
        if file.format == "MP3" and not mp3_declares_length(descriptor):
            # libsndfile takes the first frame's bit rate for all, and stops there: 7 s of a 20-s file, silently.
            file.close()
            return None
        return cls(path, file)

    def blocks(self, start: int, stop: int | None) -> Iterator[np.ndarray]:
        if self.declared_frames is not None and start >= self.declared_frames:
            return
        preroll = _SEEK_PREROLL_SECONDS.get(self.file.subtype)
        position = 0 if preroll is None else max(0, start - math.ceil(preroll * self.sample_rate))
        if position:
            self._seek(position)
        expected = self.declared_frames if stop is None else stop
        limit = max(1, min(_BLOCK_FRAMES, _BLOCK_VALUES // self.channels))
        if expected is not None:
            limit = min(limit, max(1, expected - position))
        buffer = np.empty((limit, self.channels), dtype=np.float32)
        while stop is None or position < stop:
            want = limit if stop is None else min(limit, stop - position)
            try:
                block = self.file.read(out=buffer[:want])
            except soundfile.SoundFileError as error:
                raise _damaged(self.path, position / self.sample_rate, error) from error
            if len(block) == 0:
                _refuse_shortfall(self, position, _SOUNDFILE_SHORTFALL_SECONDS)
                return
            wanted = block[max(0, start - position) :]
            position += len(block)
            if len(wanted):
                yield _mono(self.path, wanted)

    def _seek(self, frame: int) -> None:
        try:
            self.file.seek(frame)
        except soundfile.SoundFileError as error:
            raise AudioError(
                self.path,
                f"has no readable audio at {frame / self.sample_rate:.2f} s ({_words(error)}); it ends before or is "
                "damaged there",
            ) from error


@contextmanager
def _av_container(path: str | Path, readable: str) -> Iterator[Any]:
    try:
        container = av.open(
            f"file:{readable}",  # so that a name such as "http:..." or "concat:..." is a file's name and nothing else
            metadata_errors="replace",
            container_options={"format_whitelist": _AV_CONTAINERS},
        )
    except (FFmpegError, OSError) as error:
        raise AudioError(
            path, f"is not audio that can be decoded, or its header is damaged ({_words(error)}); {WHOLE_FILE}"
        ) from error
    with container:
        yield container


class _AvSource:
    def __init__(self, path: str | Path, container: Any) -> None:
        self.path = path
        if not container.streams.audio:
            raise AudioError(path, "holds no audio stream; choose another file")
        stream = container.streams.audio[0]
        self._decoded = self._decode(container, stream)
        self._first = next(self._decoded, None)
        if self._first is None:
            raise AudioError(path, "holds no audio samples; get it again")
        # Of the first frame, not of the stream: HE-AAC may declare half the rate that it decodes to.
        self.sample_rate = int(self._first.sample_rate)
        self.channels = int(self._first.layout.nb_channels)
        container_name = container.format.name.split(",")[0]
        self.format = f"{container_name}/{stream.codec_context.codec.canonical_name}"
        seconds = None
        if container_name in _AV_DECLARES_LENGTH:
            if stream.duration is not None:
                seconds = float(stream.duration * stream.time_base)
            elif container.duration is not None and len(container.streams) == 1:  # else the longest stream's
                seconds = container.duration / av.time_base
        self.declared_frames = None if seconds is None else round(seconds * self.sample_rate)

    def _decode(self, container: Any, stream: Any) -> Iterator[Any]:
        position = 0
        try:
            for frame in container.decode(stream):
                if frame.samples:
                    position += frame.samples
                    yield frame
        except (FFmpegError, OSError) as error:
            # A stream of a codec that FFmpeg does not know has no rate at all.
            raise _damaged(self.path, position / (getattr(stream, "rate", None) or 1), error) from error

    def blocks(self, start: int, stop: int | None) -> Iterator[np.ndarray]:
        position = 0
        waiting: list[np.ndarray] = []
        waiting_frames = 0
        for frame in chain([self._first], self._decoded):
            if frame.sample_rate != self.sample_rate or frame.layout.nb_channels != self.channels:
                seconds = position / self.sample_rate
                raise AudioError(
                    self.path, f"changes its sample rate or channels at {seconds:.2f} s; {WHOLE_FILE} of one format"
                )
            before = position
            position += frame.samples
            if position <= start:
                continue
            part = _frame_values(frame)[max(0, start - before) :]
            waiting.append(part if stop is None else part[: max(0, stop - max(start, before))])
            waiting_frames += len(waiting[-1])
            if waiting_frames >= _BLOCK_FRAMES or waiting_frames * self.channels >= _BLOCK_VALUES:
                yield _mono(self.path, np.concatenate(waiting))
                waiting, waiting_frames = [], 0
            if stop is not None and position >= stop:
                break
        else:
            _refuse_shortfall(self, position, _AV_SHORTFALL_SECONDS)
        if waiting_frames:
            yield _mono(self.path, np.concatenate(waiting))


def _frame_values(frame: Any) -> Float[np.ndarray, "frames channels"]:
    """The samples of one FFmpeg frame, integers scaled to [-1, 1]."""
    values = frame.to_ndarray()
    values = values.T if frame.format.is_planar else values.reshape(frame.samples, -1)
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / 128
    if np.issubdtype(values.dtype, np.integer):
        return values.astype(np.float32) / -float(np.iinfo(values.dtype).min)
    with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite and is refused as such
        return values.astype(np.float32, copy=False)


def _mono(path: str | Path, block: Float[np.ndarray, "frames channels"]) -> Float[np.ndarray, " frames"]:
    channels = block.shape[1]
    # Column by column: NumPy's mean over so short an axis is ten times slower.
    with np.errstate(over="ignore", invalid="ignore"):
        mono = block[:, 0].copy() if channels == 1 else block[:, 0] + block[:, 1]
        for channel in range(2, channels):
            mono += block[:, channel]
        if channels > 1:
            mono /= channels
    lowest, highest = float(mono.min()), float(mono.max())
    if lowest >= -PEAK_LIMIT and highest <= PEAK_LIMIT:
        return mono
    if np.isfinite(lowest) and np.isfinite(highest):
        peak = max(-lowest, highest)
        raise AudioError(
            path,
            f"holds samples of {peak:.3g}, far outside [-1, 1]: unscaled integers or damage; scale or re-encode it",
        )
    raise AudioError(path, "holds NaN or infinite samples; repair or re-encode it")


def _refuse_shortfall(source: _SoundFileSource | _AvSource, decoded: int, tolerance_seconds: float) -> None:
    declared = source.declared_frames
    if declared is not None and declared - decoded > min(tolerance_seconds * source.sample_rate, declared / 4):
        raise AudioError(
            source.path,
            f"is cut short or damaged: its header declares {declared / source.sample_rate:.2f} s and only "
            f"{decoded / source.sample_rate:.2f} s can be decoded; {WHOLE_FILE}",
        )


def _damaged(path: str | Path, seconds: float, error: Exception) -> AudioError:
    return AudioError(path, f"is damaged at about {seconds:.2f} s ({_words(error)}); {WHOLE_FILE}")


def _words(error: Exception) -> str:
    """What a decoder's error says, without its numbers and paths."""
    return (getattr(error, "strerror", None) or getattr(error, "error_string", None) or str(error)).strip().rstrip(".")
