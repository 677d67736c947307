"""WebDataset shards: uncompressed tar files in which the files of one sample follow one another.

The files of a sample share their name up to its first dot (``a/0001.flac``, ``a/0001.json``, ``a/0001.txt``). One of
them is the audio; ``.json`` holds the columns of a manifest's row; ``.txt`` is a caption and ``.cls`` a tag. Reading a
shard looks at the headers and at the small files; the audio stays where it is, and a track knows where that is, so
that tracks can be shuffled, split and sampled as those of any other source. A list of shards that comes without a
``manifest.jsonl`` (which ``xmodal data pack`` writes beside them) is read through once for that.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xmodal.audio import AUDIO_SUFFIXES, RangeAudio
from xmodal.audio.stored import is_url, open_anywhere
from xmodal.data.corpus import SetAside
from xmodal.data.splits import SPLIT_NAMES
from xmodal.data.tables import Row, Table
from xmodal.errors import DataError

MANIFEST_NAME = "manifest.jsonl"
"""The table of contents that ``xmodal data pack`` writes beside its shards."""

INDEX_NAME = "shards.json"
"""The counts, sizes and hashes of the shards, beside it."""

PACK_FORMAT = 1
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_LARGEST_TEXT = 64_000_000


@dataclass
class _Sample:
    key: str
    audio: RangeAudio | None = None
    cells: dict[str, Any] = field(default_factory=dict)


def find_shards(source: str | os.PathLike[str]) -> list[str]:
    """The shards that a source names: none if it is something else.

    Args:
        source: A .tar file, a folder with .tar files in it or in folders named after splits, or names with ranges:
            ``shard-{000..041}.tar``; a path or a URL that fsspec opens.

    Raises:
        DataError: If the shards are compressed, so that no sample can be read by itself.
    """
    text = os.fspath(source)
    if text.lower().endswith(_COMPRESSED):
        raise DataError(
            f"{text}: in a compressed shard no sample can be read by itself, and audio is compressed already; unpack "
            "it to a plain .tar (gunzip)"
        )
    if text.lower().endswith(".tar"):
        return list(_expanded(text))
    if is_url(text) or not os.path.isdir(text):
        return []
    folder = Path(text)
    split_folders = [one for one in folder.iterdir() if one.is_dir() and one.name.lower() in SPLIT_NAMES]
    found = [shard for place in (folder, *split_folders) for shard in place.glob("*.tar") if shard.is_file()]
    return [str(shard) for shard in sorted(found) if not shard.name.startswith(".")]


def read_shards(source: str | os.PathLike[str], shards: Sequence[str]) -> tuple[Table, list[SetAside]]:
    """Read what shards hold, as rows in the order of the shards.

    Args:
        source: What the user named, for messages.
        shards: Paths or URLs of .tar files.

    Returns:
        A row for each sample with audio; and the shards that are cut short or are not there. What lies whole before
        the cut is among the rows.

    Raises:
        DataError: If no shard holds a sample with audio, or a sample's JSON is damaged.
    """
    samples: list[tuple[str, _Sample]] = []
    set_aside: list[SetAside] = []
    for shard in shards:
        try:
            samples += [(shard, sample) for sample in _samples(shard) if sample.audio is not None]
        except (OSError, tarfile.TarError) as error:
            reason = f"shards are damaged, cut short or not there ({error})"
            set_aside.append(SetAside(Path(shard).name, shard, reason))
            samples += [(shard, sample) for sample in _whole_samples(shard) if sample.audio is not None]
    if not samples:
        reason = f"; the first: {set_aside[0].reason}" if set_aside else ""
        raise DataError(
            f"{os.fspath(source)} holds no sample with audio (a file ending in .flac, .mp3, .wav ...){reason}; give "
            "WebDataset shards with audio in them"
        )
    # Many sets count anew in every shard; then a key alone names several samples.
    keys = Counter(sample.key for _, sample in samples)
    ambiguous = any(count > 1 for count in keys.values())
    rows = []
    for shard, sample in samples:
        key = f"{Path(shard).stem}/{sample.key}" if ambiguous else sample.key
        split = Path(shard).parent.name
        cells = {"id": key, **({"split": split} if split.lower() in SPLIT_NAMES else {}), **sample.cells}
        cells.pop("stored", None)
        cells["path"] = sample.audio
        rows.append(Row(f"sample {sample.key} of {shard}", cells))
    names = tuple(dict.fromkeys(name for row in rows for name in row.cells))
    return Table(os.fspath(source), names, tuple(rows)), set_aside


def packed_shards(folder: Path) -> list[dict[str, Any]]:
    """What ``shards.json`` says of each shard of a folder; nothing if there is none.

    Raises:
        DataError: If it is damaged or of another version.
    """
    path = folder / INDEX_NAME
    if not path.is_file():
        return []
    try:
        index = json.loads(path.read_bytes())
        if index["format"] != PACK_FORMAT:
            raise ValueError(f"it has format {index['format']}, and this version reads {PACK_FORMAT}")
        return [dict(entry, name=str(entry["name"]), bytes=int(entry["bytes"])) for entry in index["shards"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged or of another version ({error}); pack the corpus again") from error


def _expanded(text: str) -> Iterator[str]:
    """The names that ``{000..041}`` stands for; leading zeros count."""
    found = _RANGE.search(text)
    if found is None:
        yield text
        return
    first, last = found.groups()
    for number in range(int(first), int(last) + 1):
        yield from _expanded(f"{text[: found.start()]}{number:0{len(first)}d}{text[found.end() :]}")


def _whole_samples(shard: str) -> list[_Sample]:
    """The samples before the place where the shard breaks; the last one may lack files and is left out."""
    whole: list[_Sample] = []
    try:
        whole.extend(_samples(shard))
    except (OSError, tarfile.TarError):
        return whole
    return whole


def _samples(shard: str) -> Iterator[_Sample]:
    with open_anywhere(shard) as file, tarfile.open(fileobj=file, mode="r:") as tar:
        current: _Sample | None = None
        for member in tar:
            if not member.isreg() or member.issparse():  # a sparse file's bytes do not lie one after another
                continue
            folder, _, name = member.name.rpartition("/")
            stem, _, suffix = name.partition(".")
            if not stem or member.size == 0:
                continue
            key = f"{folder}/{stem}".removeprefix("./").lstrip("/")
            if current is None or current.key != key:
                if current is not None:
                    yield current
                current = _Sample(key)
            _add(current, shard, tar, member, f".{suffix.lower()}")
        # A tar ends with blocks of zeros. Without them it was cut off between two files, which nothing else shows.
        file.seek(tar.offset)
        end = file.read(tarfile.BLOCKSIZE)
        if len(end) < tarfile.BLOCKSIZE or end.strip(b"\0"):
            raise tarfile.ReadError("it does not end as a tar file ends")
        if current is not None:
            yield current


def _add(sample: _Sample, shard: str, tar: tarfile.TarFile, member: tarfile.TarInfo, suffix: str) -> None:
    # "0001.left.flac" is a file of sample 0001 as well; the last suffix says what it is.
    kind = f".{suffix.rpartition('.')[2]}"
    if kind in AUDIO_SUFFIXES:
        if sample.audio is None:
            sample.audio = RangeAudio(shard, member.name, member.offset_data, member.size)
        return
    if kind not in (".json", ".txt", ".cls") or member.size > _LARGEST_TEXT:
        return
    content = tar.extractfile(member)
    assert content is not None  # it is a regular file
    try:
        text = content.read().decode("utf-8-sig")
        if kind == ".json":
            cells = json.loads(text, parse_constant=lambda _: None)
            if not isinstance(cells, dict):
                raise ValueError("it must be one JSON object")
            lower = {name.lower() for name in ("path", "file", "filename", "audio")}
            sample.cells |= {name: value for name, value in cells.items() if name.strip().lower() not in lower}
        elif text.strip():
            sample.cells.setdefault("caption" if kind == ".txt" else "tag", text.strip())
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise DataError(f"{shard}: {member.name} is not readable ({error}); make the shard again") from error
