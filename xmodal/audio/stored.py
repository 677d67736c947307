"""Audio that is not a file of its own: bytes in memory, behind a URL, or inside a larger file such as a tar shard.

Every function of :mod:`xmodal.audio` that takes a path takes one of these in its place, and gives the same samples
as it would for a file with these bytes. They are small and picklable, hold no open files, and read when asked to,
so that a list of a million of them is cheap and a loader's worker gets a copy. Of a local file only the wanted bytes
are read; of a URL too, by a range request, where its file system can (fsspec's S3, GCS, HTTP and others can).
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xmodal.errors import AudioError


@dataclass(frozen=True)
class AudioInfo:
    """What a file declares about itself.

    Attributes:
        sample_rate: In Hz, of the file.
        channels: Number of channels.
        frames: Samples per channel as declared; counted by decoding where nothing is declared.
        duration_seconds: ``frames / sample_rate``.
        format: Container and codec, such as ``"flac/pcm_16"``, ``"ogg/vorbis"``, ``"mov/aac"``.
    """

    sample_rate: int
    channels: int
    frames: int
    duration_seconds: float
    format: str


class StoredAudio(ABC):
    """Encoded audio (the bytes of a wav, flac, mp3 ... file) that is kept somewhere else than in a file of its own.

    Attributes:
        name: What messages call it.
        info: What its header declares, where that is known without reading it: :func:`xmodal.audio.probe` of a
            million clips behind a URL then costs nothing.
    """

    name: str
    info: AudioInfo | None

    @abstractmethod
    def read(self) -> bytes:
        """The bytes of the audio file.

        Raises:
            AudioError: If they cannot be read.
        """

    def __str__(self) -> str:
        return self.name


AudioLike = str | os.PathLike[str] | StoredAudio
"""Where audio is: the path of a file, or audio stored elsewhere."""


@dataclass(frozen=True)
class BytesAudio(StoredAudio):
    """An audio file's bytes in memory.

    Args:
        content: The bytes of a wav, flac, mp3 ... file.
        name: What messages call it.
    """

    content: bytes = field(repr=False)
    name: str = "audio in memory"
    info: AudioInfo | None = field(default=None, compare=False)

    def read(self) -> bytes:
        """The bytes."""
        return self.content


@dataclass(frozen=True)
class RemoteAudio(StoredAudio):
    """An audio file behind a URL that fsspec can open (``s3://``, ``gs://``, ``https://``, ``memory://`` ...).

    Args:
        url: Of the file, as fsspec takes it; ``simplecache::s3://…`` keeps a local copy.
    """

    url: str
    info: AudioInfo | None = field(default=None, compare=False)

    @property
    def name(self) -> str:  # type: ignore[override]
        """The URL."""
        return self.url

    def read(self) -> bytes:
        """The whole file.

        Raises:
            AudioError: If it cannot be read.
        """
        return read_range(self.url, 0, None, name=self.url)


@dataclass(frozen=True)
class RangeAudio(StoredAudio):
    """An audio file that lies whole and uncompressed inside a larger one, such as a member of a tar shard.

    Args:
        container: Path or URL of the larger file.
        member: Its name there.
        offset: Where its first byte is.
        size: Number of its bytes, at least 1.
        info: What its header declares, if known.
    """

    container: str
    member: str
    offset: int
    size: int
    info: AudioInfo | None = field(default=None, compare=False)

    @property
    def name(self) -> str:  # type: ignore[override]
        """The container and the member."""
        return f"{self.container}/{self.member}"

    def read(self) -> bytes:
        """The member's bytes.

        Raises:
            AudioError: If the container cannot be read or ends before the member does.
        """
        content = read_range(self.container, self.offset, self.size, name=self.name)
        if len(content) < self.size:
            raise AudioError(
                self.name,
                f"is cut short: {self.container} ends {self.size - len(content)} bytes before it does; "
                "get the shard again",
            )
        return content


def is_url(text: str) -> bool:
    """Whether a text is a URL and no path; ``a:b.wav`` and ``C:/x`` are paths."""
    return "://" in text


def open_anywhere(place: str | os.PathLike[str]) -> Any:
    """A seekable binary file, opened for reading: of a path, or of a URL through fsspec.

    Raises:
        OSError: If it cannot be opened.
    """
    if not is_url(os.fspath(place)):
        return open(place, "rb")
    import fsspec  # here: a local corpus does not need it

    try:
        return fsspec.open(os.fspath(place), "rb").open()
    except (ImportError, ValueError) as error:  # an unknown protocol, or one whose package is not installed
        raise OSError(f"{place} cannot be opened ({error})") from error


def read_range(place: str, offset: int, size: int | None, *, name: str) -> bytes:
    """``size`` bytes (None: all) of a path or URL from ``offset`` on; fewer where it ends earlier.

    Raises:
        AudioError: If they cannot be read; ``name`` is what the message calls them.
    """
    try:
        with open_anywhere(place) as file:
            if size is not None and not is_url(place):  # a false size must not reserve memory for what is not there
                size = max(0, min(size, file.seek(0, os.SEEK_END) - offset))
            file.seek(offset)
            return bytes(file.read() if size is None else file.read(size))
    except Exception as error:  # each remote file system has errors of its own, and all mean the same here
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise AudioError(
            name, f"cannot be read ({reason}); check the place, its permissions and the network"
        ) from error


def place_of(audio: AudioLike) -> str | Path:
    """What messages call it: the path, or the stored audio's name."""
    return audio.name if isinstance(audio, StoredAudio) else Path(audio)
