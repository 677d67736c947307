"""How an index lies on disk: a folder that is saved in one step and checked when it is read.

::

    index.json               what the index is, and the SHA-256 of every file and of itself
    data-<random>/           items.parquet (ids, metadata) and the engine's own files

A save writes a new ``data-`` folder, waits until it is on the disk, replaces ``index.json`` in one step and only then
removes the old folder. So a kill at any moment leaves the old index or the new one, and a flipped byte is found.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from xmodal.atomic import sync, written_aside
from xmodal.errors import IndexFormatError

FORMAT_VERSION = 2  # 2: the engines ivf, milvus and postgres, and the view of the model
_READ = (1, FORMAT_VERSION)
REBUILD = "build it with: xmodal index build FILE.parquet --out DIR"


def save_folder(folder: str | Path, facts: Mapping[str, Any], write: Callable[[Path], None]) -> None:
    """Put a new index in place of what is in ``folder``; files that are not an index's are left alone.

    Only one process at a time may save to a folder. Reading may go on meanwhile.

    Args:
        folder: Made if it is missing.
        facts: What the index is, as JSON knows it.
        write: Writes the index's files into the empty folder it is given. What it raises leaves the old index.
    """
    folder = Path(folder)
    data = folder / f"data-{uuid.uuid4().hex}"
    data.mkdir(parents=True)
    try:
        write(data)
        files = sorted(data.iterdir())
        for path in files:
            sync(path)
        sync(data)
        manifest = {"format_version": FORMAT_VERSION, **facts, "data": data.name}
        manifest["files"] = {path.name: _sha256(path) for path in files}
        with written_aside(folder / "index.json") as aside:
            aside.write_text(json.dumps({**manifest, "sha256": _digest(manifest)}, indent=2) + "\n", "utf-8")
    except BaseException:
        shutil.rmtree(data)
        raise
    for other in folder.glob("data-*"):  # the old index, and what killed saves left behind
        if other != data and _is_data_name(other.name) and not other.is_symlink():
            shutil.rmtree(other)
    for aside in folder.glob(".index.json.*.partial"):
        aside.unlink()


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """Read and check ``index.json``.

    Raises:
        IndexFormatError: If it is missing, damaged or of another version.
    """
    path = Path(folder) / "index.json"
    if not path.is_file():
        raise IndexFormatError(f"{folder}: there is no index here (no index.json); {REBUILD}")
    try:
        manifest = json.loads(path.read_bytes())
        version, found = manifest["format_version"], manifest.pop("sha256")
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise IndexFormatError(f"{path}: this is no index of xmodal or it is damaged; {REBUILD}") from error
    if version not in _READ:
        raise IndexFormatError(
            f"{path}: the index has format version {version} but this xmodal reads up to {FORMAT_VERSION}; "
            f"update xmodal or {REBUILD}"
        )
    if found != _digest(manifest):
        raise IndexFormatError(f"{path}: its bytes are not those that were saved; {REBUILD}")
    return manifest


def checked_data(folder: str | Path, manifest: Mapping[str, Any]) -> Path:
    """Check every file of an index against its hash and give the folder they are in.

    Raises:
        IndexFormatError: If a file is missing or has other bytes than were saved.
    """
    name = manifest["data"]
    if not _is_data_name(name):  # a manifest from a stranger must not lead out of its folder
        raise IndexFormatError(f"{folder}: index.json names {name!r}, which is no part of an index; {REBUILD}")
    data = Path(folder) / name
    for file, saved in manifest["files"].items():
        path = data / Path(file).name
        if not path.is_file():
            raise IndexFormatError(f"{path}: this file of the index is missing; {REBUILD}")
        if _sha256(path) != saved:
            raise IndexFormatError(f"{path}: its bytes are not those that were saved; {REBUILD}")
    return data


def _digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_data_name(name: str) -> bool:
    return re.fullmatch(r"data-[0-9a-f]{32}", name) is not None
