"""Features or samples on disk, named by the content of the audio and by all that shaped them, never by a file's name.

Layout of the folder::

    files.sqlite     what is known of a file by (path, size, time of change): digest, length, rate
    bytes            how much the entries take together
    entries/ab/…     one file a track and front end: a head, then the windows

An entry's name is a hash of the audio file's digest and of the front end, window policy and part of the file. A renamed
or copied audio file finds its entry again; a changed one, or another front end, does not. Entries are written aside and
renamed, and every window has a checksum: what is damaged is not there, and is made anew.

Several processes may use one folder at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import sqlite3
import struct
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from xmodal.audio import AudioInfo, AudioLike, RangeAudio, StoredAudio, digest
from xmodal.errors import DataError

logger = logging.getLogger(__name__)

_MAGIC = b"xmodal\x00\x01"  # the last byte counts the formats
_HEAD = struct.Struct("<8sIIII")  # magic, windows, rows, columns, kind of number
_WINDOW = struct.Struct("<II")  # valid frames, CRC-32 of the window's bytes
_TYPES = (torch.float16, torch.float32, torch.int16)  # new ones at the end: an entry holds the place
_SETTLED_SECONDS = 2.0  # a file may change twice within its clock's resolution; younger ones are not remembered


class FileMemo:
    """What is known of files, remembered across runs by path, size and time of change.

    Args:
        path: The database; it is made if it is not there, and made anew if it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[AudioLike, str] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._make()
        except sqlite3.DatabaseError as error:
            logger.warning("%s is damaged (%s) and is begun anew; files are hashed again", path, error)
            path.unlink(missing_ok=True)
            self._make()

    def digest(self, audio: AudioLike) -> str:
        """Name of the file's content, :func:`xmodal.audio.digest`; asked for once a run.

        Raises:
            AudioError: If the file cannot be read.
        """
        if audio not in self._known:
            with self._open() as database:
                found = self._find(database, audio, "digest")
            if found is None:
                found = digest(audio)
                self._put("digest", {audio: found})
            self._known[audio] = found
        return self._known[audio]

    def infos(self, files: Iterable[AudioLike]) -> dict[AudioLike, AudioInfo]:
        """What :meth:`remember` was told of these files, where they are as they were then."""
        with self._open() as database:
            found = {audio: self._find(database, audio, "info") for audio in files}
        return {audio: AudioInfo(**json.loads(value)) for audio, value in found.items() if value is not None}

    def remember(self, infos: Mapping[AudioLike, AudioInfo]) -> None:
        """Keep what files declare about themselves."""
        self._put("info", {audio: json.dumps(vars(info)) for audio, info in infos.items()})

    def _make(self) -> None:
        with self._open() as database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS file "
                "(path TEXT, what TEXT, size INTEGER, changed INTEGER, value TEXT, PRIMARY KEY (path, what))"
            )

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(self.path, timeout=60.0)
        try:
            with database:
                yield database
        finally:
            database.close()

    def _find(self, database: sqlite3.Connection, audio: AudioLike, what: str) -> str | None:
        now = _as_it_is_now(audio)
        if now is None:
            return None
        row = database.execute(
            "SELECT value FROM file WHERE path = ? AND what = ? AND size = ? AND changed = ?",
            (now.name, what, now.size, now.changed_ns),
        ).fetchone()
        return None if row is None else str(row[0])

    def _put(self, what: str, values: Mapping[AudioLike, str]) -> None:
        rows = []
        for audio, value in values.items():
            now = _as_it_is_now(audio)
            if now is not None and time.time() - now.changed_ns / 1e9 >= _SETTLED_SECONDS:
                rows.append((now.name, what, now.size, now.changed_ns, value))
        if rows:
            with self._open() as database:
                database.executemany("INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?, ?)", rows)


class _State(NamedTuple):
    """By what a file is known again."""

    name: str
    size: int
    changed_ns: int


def _as_it_is_now(audio: AudioLike) -> _State | None:
    """The state of a local file, or of the local file around it; None for bytes, URLs and what is gone."""
    if isinstance(audio, RangeAudio):
        place, member = audio.container, f"#{audio.offset}+{audio.size}"
    elif isinstance(audio, StoredAudio):
        return None
    else:
        place, member = os.fspath(audio), ""
    try:
        status = os.stat(place)
    except (OSError, ValueError):
        return None
    return _State(os.path.abspath(place) + member, status.st_size, status.st_mtime_ns)


class FeatureCache:
    """A folder of features with an upper bound on its size.

    When it is full, entries that no run has asked for since this one began make room, the oldest first. If there are
    none, new ones are not kept: a cache smaller than the corpus serves a part of it in every epoch, where one that
    always took the newest would serve nothing.

    Args:
        folder: Where it lies; made if it is not there.
        gigabytes: What it may take.

    Attributes:
        full: Whether something was not kept for want of room; nothing more is kept then by this process.

    Raises:
        DataError: If the folder cannot be made.
    """

    def __init__(self, folder: str | Path, *, gigabytes: float = 50.0) -> None:
        if not gigabytes > 0:
            raise ValueError(f"a cache needs room, got {gigabytes} gigabytes")
        self.folder = Path(folder).expanduser()
        self.bytes_limit = int(gigabytes * 1e9)
        self.began = time.time()
        try:
            (self.folder / "entries").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"{self.folder} cannot be made for the cache ({error.strerror}); name another folder"
            ) from error
        self.files = FileMemo(self.folder / "files.sqlite")
        self.full = False
        with self._count() as count:
            count(sum(entry.stat().st_size for entry in self._entries()), anew=True)

    # -- entries ------------------------------------------------------------------------------------------------

    def has(self, audio: AudioLike, key: dict[str, Any]) -> bool:
        """Whether the features are here; they then stay for this run.

        Raises:
            AudioError: If the audio file cannot be read.
        """
        try:
            os.utime(self._name(audio, key))
        except FileNotFoundError:
            return False
        return True

    def get(
        self, audio: AudioLike, key: dict[str, Any]
    ) -> tuple[Shaped[Tensor, "windows rows columns"], Int[Tensor, " windows"]] | None:
        """All windows of an audio file and the valid frames of each, or None where they are not here or damaged.

        Raises:
            AudioError: If the audio file cannot be read.
        """
        return self._read(self._name(audio, key), slice(None))

    def window(self, audio: AudioLike, key: dict[str, Any], number: int) -> tuple[Tensor, int] | None:
        """One window and its valid frames, or None."""
        found = self.windows(audio, key, number, number + 1)
        return None if found is None or not len(found[0]) else (found[0][0], int(found[1][0]))

    def windows(
        self, audio: AudioLike, key: dict[str, Any], first: int, stop: int
    ) -> tuple[Shaped[Tensor, "windows rows columns"], Int[Tensor, " windows"]] | None:
        """The windows from ``first`` to before ``stop``, as far as there are any, and their valid frames; or None."""
        return self._read(self._name(audio, key), slice(first, stop))

    def put(
        self,
        audio: AudioLike,
        key: dict[str, Any],
        values: Shaped[Tensor, "windows rows columns"],
        valid_frames: Int[Tensor, " windows"],
    ) -> bool:
        """Keep the features of an audio file; False where there is no room for them.

        Raises:
            AudioError: If the audio file cannot be read.
        """
        name = self._name(audio, key)
        windows, rows, columns = values.shape
        array = np.ascontiguousarray(values.numpy())
        heads = b"".join(
            _WINDOW.pack(int(valid), zlib.crc32(window))
            for valid, window in zip(valid_frames.tolist(), array, strict=True)
        )
        head = _HEAD.pack(_MAGIC, windows, rows, columns, _TYPES.index(values.dtype)) + heads
        size = len(head) + array.nbytes
        if self.full or not self._make_room(size):
            self.full = True
            return False
        aside = name.with_name(f".{name.name}.{os.getpid()}.part")
        try:
            name.parent.mkdir(exist_ok=True)
            with aside.open("wb") as file:
                file.write(head)
                file.write(array.data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, name)
        except OSError as error:
            logger.warning("the cache in %s keeps no more: %s", self.folder, error.strerror)
            self.full = True
            with self._count() as count:
                count(-size)
            return False
        finally:
            aside.unlink(missing_ok=True)
        return True

    # -- size ---------------------------------------------------------------------------------------------------

    def _make_room(self, size: int) -> bool:
        with self._count() as count:
            total = count(0)
            if total + size > self.bytes_limit:
                old = [(entry.stat(), entry.path) for entry in self._entries()]
                for status, place in sorted(old, key=lambda item: item[0].st_mtime):
                    if total + size <= self.bytes_limit or status.st_mtime >= self.began:
                        break
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(place)
                    total = count(-status.st_size)
            if total + size > self.bytes_limit:
                return False
            count(size)
            return True

    @contextlib.contextmanager
    def _count(self) -> Iterator[Any]:
        """Changes the number of bytes in the folder, for one process at a time."""
        with open(self.folder / "bytes", "a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)

            def add(change: int, anew: bool = False) -> int:
                file.seek(0)
                total = change + (0 if anew else int(file.read() or b"0"))
                file.truncate(0)
                file.write(str(total).encode())
                file.flush()
                return total

            yield add

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        for folder in os.scandir(self.folder / "entries"):
            for entry in os.scandir(folder.path):
                # What a killed process left aside; a live one's is seconds old.
                if entry.name.endswith(".part"):
                    if time.time() - entry.stat().st_mtime > 3600:
                        os.unlink(entry.path)
                else:
                    yield entry

    def _name(self, audio: AudioLike, key: dict[str, Any]) -> Path:
        said = json.dumps([self.files.digest(audio), key], sort_keys=True)
        name = hashlib.blake2b(said.encode(), digest_size=16).hexdigest()
        return self.folder / "entries" / name[:2] / name

    def _read(self, name: Path, wanted: slice) -> tuple[Tensor, Tensor] | None:
        try:
            with name.open("rb", buffering=0) as file:
                found = _read_windows(file.fileno(), wanted)
        except FileNotFoundError:
            return None
        if found is None:
            # Out of the way, so that it is made anew.
            logger.warning("%s is damaged and is dropped from the cache", name)
            name.unlink(missing_ok=True)
        return found


def _read_windows(descriptor: int, wanted: slice) -> tuple[Tensor, Tensor] | None:
    """Values and valid frames of some windows of an entry in a row; None if they are not what was written."""
    head = os.pread(descriptor, _HEAD.size, 0)
    if len(head) < _HEAD.size or head[: len(_MAGIC)] != _MAGIC:
        return None
    _, windows, rows, columns, kind = _HEAD.unpack(head)
    if kind >= len(_TYPES):
        return None
    chosen, dtype = range(windows)[wanted], _TYPES[kind]
    if not chosen:
        return torch.empty(0, rows, columns, dtype=dtype), torch.empty(0, dtype=torch.long)
    size = rows * columns * dtype.itemsize
    heads = os.pread(descriptor, _WINDOW.size * len(chosen), _HEAD.size + _WINDOW.size * chosen.start)
    data = bytearray(size * len(chosen))
    place = _HEAD.size + _WINDOW.size * windows + size * chosen.start
    if len(heads) != _WINDOW.size * len(chosen) or os.preadv(descriptor, [data], place) != len(data):
        return None
    valid: list[int] = []
    for position, (frames, checksum) in enumerate(_WINDOW.iter_unpack(heads)):
        if zlib.crc32(memoryview(data)[position * size : (position + 1) * size]) != checksum:
            return None
        valid.append(frames)
    values = torch.frombuffer(data, dtype=dtype).reshape(len(chosen), rows, columns)
    return values, torch.tensor(valid)
