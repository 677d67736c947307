"""Which engines there are, which one fits, and how an index is built and opened.

The rule of ``auto``, measured by ``benchmarks/index.py``: every row is compared (``flat``) up to 50,000 rows; above
that a graph (``hnsw``) for as long as it fits into half of the memory and has at most two million rows, beyond which
its building takes hours; then an inverted file (``ivf``), of which only half a byte for every two components needs to
be in memory: the best candidates are compared again with the whole vectors, which may stay on the disk (``mmap``).
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from xmodal.embeddings import Embeddings
from xmodal.errors import IndexFormatError
from xmodal.index.base import Index
from xmodal.index.folder import REBUILD, checked_data, read_manifest

FLAT_LIMIT = 50_000  # a flat search of 100,000 x 512 already costs 10 ms
GRAPH_LIMIT = 2_000_000

# Engines are named, not imported: each brings a library of its own.
ENGINES = {
    "exact": ("xmodal.index.exact", "ExactIndex"),
    "flat": ("xmodal.index.faiss", "FlatIndex"),
    "hnsw": ("xmodal.index.faiss", "HnswIndex"),
    "ivf": ("xmodal.index.ivf", "IvfIndex"),
    "milvus": ("xmodal.index.milvus", "MilvusIndex"),
    "postgres": ("xmodal.index.postgres", "PostgresIndex"),
}
SCHEMES = {"milvus": "milvus", "postgresql": "postgres", "postgres": "postgres"}  # of an address, and its engine


def choose(rows: int, dim: int, memory_bytes: int | None = None) -> tuple[str, dict[str, Any]]:
    """Kind and settings that ``auto`` takes.

    Args:
        rows: Number of vectors.
        dim: Their length.
        memory_bytes: Memory of the machine; None asks it.
    """
    room = (memory_bytes or machine_memory()) / 2
    if rows <= FLAT_LIMIT:
        return "flat", {}
    if rows <= GRAPH_LIMIT and rows * (4 * dim + 280) <= room:  # 64 links of 4 bytes at the bottom, a few above it
        return "hnsw", {}
    return "ivf", {}


def machine_memory() -> int:
    """Bytes of memory that this machine, or the container around this process, has."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        allowed = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return there
    return min(there, int(allowed)) if allowed.isdecimal() else there


def build_index(embeddings: Embeddings, kind: str = "auto", **settings: Any) -> Index:
    """Make an index of an export.

    Args:
        embeddings: Ids, vectors and metadata.
        kind: ``exact`` (the reference), ``flat`` (FAISS, every row compared), ``hnsw`` (FAISS, a graph), ``ivf``
            (FAISS, an inverted file of codes), or ``auto``: what :func:`choose` says.
        settings: The engine's own constructor arguments.

    Raises:
        ValueError: If the kind is unknown.
    """
    if kind == "auto":
        kind, chosen = choose(len(embeddings), embeddings.dim)
        settings = {**chosen, **settings}
    return engine(kind).build(embeddings, **settings)


def load_index(folder: str | Path, *, mmap: bool = False) -> Index:
    """Open an index of any kind: a folder, whose every file is checked against its hash, or a database.

    Args:
        folder: What :meth:`Index.save` wrote, or an address such as ``postgresql://host/database?collection=music``.
        mmap: Leave vectors and graphs in their files and let the system bring in what is looked at: an index opens
            without taking memory, many processes share it, and it cannot be changed.

    Raises:
        IndexFormatError: If the folder holds no index, or it is damaged or of another version.
    """
    kind = kind_of_address(folder)
    if kind is not None:
        return engine(kind).open(str(folder))  # type: ignore[attr-defined]  # what has an address has it
    while True:
        manifest = read_manifest(folder)
        try:
            return _load(folder, manifest, mmap)
        except IndexFormatError:
            if read_manifest(folder) == manifest:  # else a save replaced the files under our hands: read the new ones
                raise


def _load(folder: str | Path, manifest: dict[str, Any], mmap: bool) -> Index:
    try:
        data = checked_data(folder, manifest)
        index = engine(manifest["kind"])(manifest["space_id"], manifest["dim"], **manifest["settings"])
        index.model, index.view = manifest["model"], dict(manifest.get("view") or {})  # version 1 knew no view
        vectors = index._read_all(data, mmap)
        # A database goes on changing when its folder was written.
        if "url" not in manifest["settings"] and not vectors == len(index) == manifest["count"]:
            raise ValueError(f"{vectors} vectors, {len(index)} ids and a count of {manifest['count']}")
    except (ValueError, TypeError, LookupError, RuntimeError, OSError) as error:
        raise IndexFormatError(f"{folder}: the parts of the index do not fit together ({error}); {REBUILD}") from error
    return index


def kind_of_address(place: str | Path) -> str | None:
    """The engine behind an address; None for what is a path.

    Raises:
        ValueError: If it is an address of something else.
    """
    scheme, found, _ = str(place).partition("://")
    if not found:
        return None
    if scheme not in SCHEMES:
        raise ValueError(f"an index is at milvus://... or postgresql://..., got {place}")
    return SCHEMES[scheme]


def engine(kind: str) -> type[Index]:
    """Import the class behind a kind (ValueError if there is none)."""
    if kind not in ENGINES:
        raise ValueError(f"kind must be one of auto, {', '.join(ENGINES)}, got {kind!r}")
    module, name = ENGINES[kind]
    cls: type[Index] = getattr(import_module(module), name)
    return cls
