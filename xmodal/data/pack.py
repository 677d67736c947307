"""Tracks into WebDataset shards: the same bytes in the same order give the same shards, and a stopped job goes on.

Every sample is two files, ``000000042.flac`` (the audio's own bytes, never encoded again) and ``000000042.json`` (the
columns of a manifest's row). Beside the shards lie ``manifest.jsonl``, which says where each track's audio is and what
its header declares, and ``shards.json``, with the count, size and SHA-256 of each shard. A shard appears under its name
when it is complete, and both lists when all shards are.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from xmodal.audio import AUDIO_SUFFIXES, AudioInfo, BytesAudio, RangeAudio, StoredAudio, probe
from xmodal.data.corpus import SetAside
from xmodal.data.rows import facts_of, json_line, row_of
from xmodal.data.shards import INDEX_NAME, MANIFEST_NAME, PACK_FORMAT, packed_shards
from xmodal.data.tracks import Track
from xmodal.errors import AudioError, DataError

_SUFFIX_OF = {
    "mp3": ".mp3",
    "ogg": ".ogg",
    "flac": ".flac",
    "wav": ".wav",
    "aiff": ".aiff",
    "mov": ".m4a",
    "aac": ".aac",
}


@dataclass(frozen=True)
class PackReport:
    """What became of a corpus.

    Attributes:
        tracks: Tracks packed.
        shards: Number of shards.
        bytes: Their size together.
        kept: Shards that were there from an earlier run, and still true.
        set_aside: Tracks whose audio could not be read or is no audio.
    """

    tracks: int
    shards: int
    bytes: int
    kept: int
    set_aside: list[SetAside]


def pack(
    tracks: Sequence[Track],
    folder: str | Path,
    *,
    samples_per_shard: int = 1000,
    workers: int = 2,
    progress: Callable[[int], None] = lambda count: None,
) -> PackReport:
    """Write tracks to shards, in the order given; run again, it keeps the shards that are still true.

    A track that is a part of a file gets the whole file with its start and end.

    Args:
        tracks: At least one, with unique ids.
        folder: Where the shards go; made if it is not there.
        samples_per_shard: Tracks to a shard, at least 1.
        workers: Threads that read ahead.
        progress: Called with the number of tracks finished since the last call.

    Raises:
        ValueError: If the tracks or arguments make no shards.
        DataError: If not one track's audio can be read, or the folder holds shards of something else.
    """
    if not tracks:
        raise ValueError("there are no tracks to pack; give at least one")
    if len({track.id for track in tracks}) < len(tracks):
        raise ValueError("every track needs an id of its own; drop the manifest's id column to have them made")
    if samples_per_shard < 1 or workers < 1:
        raise ValueError(f"samples_per_shard and workers must be at least 1, got {samples_per_shard} and {workers}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    parts = folder / ".parts"
    known = _known_shards(folder, parts)
    parts.mkdir(exist_ok=True)
    chunks = [tracks[first : first + samples_per_shard] for first in range(0, len(tracks), samples_per_shard)]
    names = [f"shard-{number:06d}.tar" for number in range(len(chunks))]
    strangers = sorted({path.name for path in folder.glob("*.tar")} - set(names) - known.keys())
    if strangers:
        raise DataError(f"{folder} holds {strangers[0]}, which is not of this corpus; pack into a folder of its own")
    entries: list[dict[str, Any]] = []
    kept = 0
    with ThreadPoolExecutor(workers) as pool:
        for number, (name, chunk) in enumerate(zip(names, chunks, strict=True)):
            fingerprint = _fingerprint(chunk, number * samples_per_shard)
            entry = known.get(name)
            if entry is not None and entry["fingerprint"] == fingerprint and _is_whole(folder / name, entry):
                kept += 1
            else:
                entry = _write_shard(folder / name, chunk, number * samples_per_shard, pool, workers)
                entry["fingerprint"] = fingerprint
                _write(parts / f"{name}.json", json.dumps(entry).encode())
            entries.append(entry)
            progress(len(chunk))
    set_aside = [SetAside(**one) for entry in entries for one in entry["set_aside"]]
    rows = [row for entry in entries for row in entry["rows"]]
    if not rows:
        raise DataError(f"none of the {len(tracks)} tracks could be packed; the first: {set_aside[0].reason}")
    _write(folder / MANIFEST_NAME, b"".join(json_line(row) for row in rows))
    # Last, and with what the next run needs to know that nothing changed.
    _write(folder / INDEX_NAME, json.dumps({"format": PACK_FORMAT, "tracks": len(rows), "shards": entries}).encode())
    for name in known.keys() - set(names):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(parts, ignore_errors=True)
    return PackReport(len(rows), len(entries), sum(entry["bytes"] for entry in entries), kept, set_aside)


def verify_shards(folder: str | Path, progress: Callable[[int], None] = lambda count: None) -> list[SetAside]:
    """The shards of a packed folder that are not what was written: missing, cut short or altered.

    Raises:
        DataError: If the folder's ``shards.json`` is damaged.
    """
    folder = Path(folder)
    altered = []
    for entry in packed_shards(folder):
        name = entry["name"]
        place = folder / name
        if not place.is_file():
            altered.append(SetAside(name, str(place), "the shard is not there"))
        elif place.stat().st_size != entry["bytes"]:
            altered.append(SetAside(name, str(place), f"has {place.stat().st_size} bytes instead of {entry['bytes']}"))
        else:
            with place.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
                    altered.append(SetAside(name, str(place), "its bytes are not those that were written"))
        progress(1)
    return altered


def _write_shard(
    path: Path, tracks: Sequence[Track], first: int, pool: ThreadPoolExecutor, workers: int
) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    aside: list[SetAside] = []
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            hashing = _HashingFile(file)
            with tarfile.open(fileobj=hashing, mode="w", format=tarfile.USTAR_FORMAT) as tar:  # type: ignore[call-overload]
                for position, (track, content) in enumerate(_read_ahead(tracks, pool, 2 * workers)):
                    if isinstance(content, AudioError):
                        aside.append(SetAside(track.id, str(track.path), content.reason))
                        continue
                    data, info = content
                    key = f"{first + position:09d}"
                    member = f"{key}{_suffix(track, info)}"
                    offset = _add(tar, member, data)
                    _add(tar, f"{key}.json", json_line({"id": track.id, **_times(track), **facts_of(track)}))
                    stored = RangeAudio(str(path), member, offset, len(data), info)
                    rows.append(row_of(replace(track, data=stored), path.parent))
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return {
        "name": path.name,
        "tracks": len(rows),
        "bytes": size,
        "sha256": hashing.sha256.hexdigest(),
        "set_aside": [asdict(one) for one in aside],
        "rows": rows,
    }


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Add a file and say where its first byte is. Names, times and owners are the same on every machine."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o644
    offset = tar.offset + tarfile.BLOCKSIZE
    tar.addfile(member, io.BytesIO(content))
    return offset


def _read_ahead(
    tracks: Sequence[Track], pool: ThreadPoolExecutor, ahead: int
) -> Iterator[tuple[Track, tuple[bytes, AudioInfo] | AudioError]]:
    """The tracks' bytes and what their headers declare, in order, with a few read in advance."""
    waiting = [pool.submit(_content, track) for track in tracks[:ahead]]
    for position, track in enumerate(tracks):
        done = waiting.pop(0).result()
        if position + ahead < len(tracks):
            waiting.append(pool.submit(_content, tracks[position + ahead]))
        yield track, done


def _content(track: Track) -> tuple[bytes, AudioInfo] | AudioError:
    try:
        audio = track.audio
        if isinstance(audio, StoredAudio):
            content = audio.read()
        else:
            try:
                content = track.path.read_bytes()
            except OSError as error:
                raise AudioError(track.path, f"cannot be read ({error.strerror}); check the path") from error
        return content, probe(BytesAudio(content, str(track.path)))
    except AudioError as error:
        return error


def _suffix(track: Track, info: AudioInfo) -> str:
    suffix = track.path.suffix.lower()
    return suffix if suffix in AUDIO_SUFFIXES else _SUFFIX_OF.get(info.format.split("/")[0], ".wav")


def _times(track: Track) -> dict[str, float]:
    return {"start_seconds": track.start_seconds} if track.start_seconds else {}


def _fingerprint(tracks: Sequence[Track], first: int) -> str:
    """Of what goes into a shard: the tracks, and the size and time of change of their files."""
    described: list[Any] = [PACK_FORMAT, first]
    for track in tracks:
        known: list[Any] = [track.id, str(track.path), repr(track.data)[:500], _times(track), facts_of(track)]
        try:
            status = Path(getattr(track.data, "container", None) or track.path).stat()
            known += [status.st_size, status.st_mtime_ns]
        except OSError:
            known.append(None)
        described.append(known)
    return hashlib.sha256(json.dumps(described, default=str).encode("utf-8", "surrogatepass")).hexdigest()


def _known_shards(folder: Path, parts: Path) -> dict[str, dict[str, Any]]:
    """What earlier runs, finished or not, say of their shards."""
    known = {entry["name"]: entry for entry in packed_shards(folder)}
    for part in sorted(parts.glob("*.tar.json")) if parts.is_dir() else []:
        try:
            entry = json.loads(part.read_bytes())
            known[entry["name"]] = entry
        except (ValueError, KeyError, TypeError):
            continue  # it will be written again
    return known


def _is_whole(path: Path, entry: dict[str, Any]) -> bool:
    return path.is_file() and path.stat().st_size == entry["bytes"]


def _write(path: Path, content: bytes) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


class _HashingFile:
    """A file that is only written to, and whose bytes are hashed on their way."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.sha256 = hashlib.sha256()

    def write(self, content: bytes) -> int:
        self.sha256.update(content)
        return self.file.write(content)

    def tell(self) -> int:
        return self.file.tell()
