"""The export format: ids, unit vectors and metadata of one embedding space, in a Parquet file or a folder of them.

Any Parquet reader sees an ordinary table: a column ``id`` (text), a column ``vector`` (a list of fixed size, float32,
float16 or int8: of int8 only the direction counts, divide each vector by its length) and one column for each metadata
key. Keys whose values are all text, whole numbers, numbers, truth values or lists of text are plain columns of that
type; anything else (nested tags, mixed types) is a column of JSON text, marked as such in the column's own metadata. A
missing key is a null, and so is a value of ``None``: reading gives neither back. The identity of the space, the version
of the format, the model's path and the view of it are in the schema's metadata. A folder holds such files, and
``embeddings.json`` says which of them belong to it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32

from xmodal.atomic import written_aside
from xmodal.columns import RESERVED_KEYS, metadata_fields, metadata_rows, metadata_table
from xmodal.errors import IndexFormatError, SpaceMismatchError

# How metadata become columns and how files appear whole is part of the format, wherever the code lies.
__all__ = [
    "FORMAT_VERSION", "MANIFEST", "NORM_TOLERANCE", "RESERVED_KEYS", "DType", "Embeddings", "check_ids", "join",
    "metadata_fields", "metadata_rows", "metadata_table", "packed", "read_manifest", "read_parquet", "unit_rows",
    "unpacked", "window_ids", "write_parquet", "written_aside",
]  # fmt: skip

FORMAT_VERSION = "2"  # 2: float16 and int8 vectors, views, folders
_READ = (b"1", b"2")
MANIFEST = "embeddings.json"
DType = Literal["float32", "float16", "int8"]
NORM_TOLERANCE = 1e-3

_VERSION_KEY, _SPACE_KEY = b"xmodal.format_version", b"xmodal.space_id"
_MODEL_KEY, _VIEW_KEY = b"xmodal.model", b"xmodal.view"
_REMAKE = "make it again with: xmodal embed AUDIO --model MODEL --out FILE.parquet"


@dataclass
class Embeddings:
    """Unit vectors of one space, with an id and a small dict of facts for each.

    Args:
        ids: One name a row, not empty, none twice.
        vectors: ``[rows, dim]``, finite, of length 1 to within 1e-3; kept as float32.
        space_id: Identity of the space, from the model that made the vectors.
        metadata: One dict a row that JSON can hold (path, title, tags, start_seconds ...); ``id`` and ``vector``
            are no keys. Empty dicts by default.
        model: Where the model was when it made the vectors, so that a search can find it again.
        view: The settings in which that model was used where they differ from what its folder says.

    Raises:
        ValueError: If any of that does not hold.
    """

    ids: list[str]
    vectors: Float32[np.ndarray, "rows dim"]
    space_id: str
    metadata: list[dict[str, Any]] = field(default_factory=list)
    model: str | None = None
    view: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ids = list(self.ids)
        self.vectors = unit_rows(self.vectors, "vectors")
        self.metadata = list(self.metadata) or [{} for _ in self.ids]
        if not len(self.ids) == len(self.vectors) == len(self.metadata):
            raise ValueError(
                "ids, vectors and metadata must have one entry a row, got "
                f"{len(self.ids)} ids, {len(self.vectors)} vectors and {len(self.metadata)} metadata"
            )
        check_ids(self.ids)
        if not self.space_id or not isinstance(self.space_id, str):
            raise ValueError(f"space_id must name the model's space, got {self.space_id!r}; take it from the model")
        for key in {key for row in self.metadata for key in row}:
            if not isinstance(key, str) or key in RESERVED_KEYS:
                raise ValueError(f"metadata keys must be text other than id and vector, got {key!r}; rename it")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dim(self) -> int:
        """Length of each vector."""
        return int(self.vectors.shape[1])

    def save(self, path: str | Path, *, dtype: DType = "float32") -> None:
        """Write one Parquet file; a kill at any moment leaves the old file or the new one.

        Raises:
            ValueError: If a metadata value cannot be written as JSON; nothing is written then.
        """
        write_parquet(self.table(dtype=dtype), path)

    def table(self, *, dtype: DType = "float32", fields: Sequence[pa.Field] | None = None) -> pa.Table:
        """The table of the export format.

        Args:
            dtype: How the components are kept.
            fields: The columns of metadata, so that the parts of one export agree; by default those of these rows.

        Raises:
            ValueError: If a metadata value cannot be written as JSON.
        """
        flat = pa.array(packed(self.vectors, dtype).reshape(-1))
        vectors = pa.FixedSizeListArray.from_arrays(flat, self.dim)
        facts = metadata_table(self.metadata, fields)
        return pa.table(
            [pa.array(self.ids, pa.string()), vectors, *facts.columns],
            schema=pa.schema(
                [pa.field("id", pa.string(), nullable=False), pa.field("vector", vectors.type), *facts.schema],
                metadata=self._schema_metadata(),
            ),
        )

    def _schema_metadata(self) -> dict[bytes, bytes]:
        said = {_VERSION_KEY: FORMAT_VERSION.encode(), _SPACE_KEY: self.space_id.encode()}
        if self.model is not None:
            said[_MODEL_KEY] = self.model.encode()
        if self.view:
            said[_VIEW_KEY] = json.dumps(self.view, sort_keys=True).encode()
        return said

    @classmethod
    def load(cls, path: str | Path) -> Embeddings:
        """Read and check a file that :meth:`save` wrote, or a folder of them that ``xmodal embed`` wrote.

        Raises:
            IndexFormatError: If the file is missing, damaged, of another format or version, or its rows break the
                rules above.
        """
        if Path(path).is_dir():
            return join([cls.load(Path(path) / name) for name in _parquet_files(Path(path))])
        table = read_parquet(path, remedy=_REMAKE)
        said = table.schema.metadata or {}
        if _VERSION_KEY not in said or not RESERVED_KEYS.issubset(table.column_names):
            raise IndexFormatError(f"{path}: this Parquet file holds no embeddings of xmodal; {_REMAKE}")
        if said[_VERSION_KEY] not in _READ:
            raise IndexFormatError(
                f"{path}: embeddings have format version {said[_VERSION_KEY].decode(errors='replace')} but this "
                f"xmodal reads up to {FORMAT_VERSION}; update xmodal or {_REMAKE}"
            )
        column = table["vector"].combine_chunks()
        if not pa.types.is_fixed_size_list(column.type) or column.null_count or table["id"].null_count:
            raise IndexFormatError(f"{path}: some rows have no id or no vector of fixed length; {_REMAKE}")
        model = said.get(_MODEL_KEY)
        try:
            return cls(
                ids=table["id"].to_pylist(),
                vectors=unpacked(column.flatten().to_numpy(zero_copy_only=False).reshape(len(table), -1))
                if len(table)
                else np.empty((0, column.type.list_size), np.float32),
                space_id=said.get(_SPACE_KEY, b"").decode(),
                metadata=metadata_rows(table),
                model=None if model is None else model.decode(),
                view=json.loads(said.get(_VIEW_KEY, b"{}")),
            )
        except ValueError as error:
            raise IndexFormatError(f"{path}: {error}; the file is damaged, {_REMAKE}") from error


def join(parts: Sequence[Embeddings]) -> Embeddings:
    """Put exports of one space behind one another.

    Raises:
        ValueError: If there is no part, or an id is in two of them.
        SpaceMismatchError: If the parts are not of one space.
    """
    if not parts:
        raise ValueError("joining needs at least one export, got none")
    first = parts[0]
    for part in parts:
        if (part.space_id, part.dim) != (first.space_id, first.dim):
            raise SpaceMismatchError(
                f"cannot join {first.dim}-dim vectors of space {first.space_id} with {part.dim}-dim vectors of space "
                f"{part.space_id}; embed all files with one model: xmodal embed AUDIO --model MODEL --out FILE.parquet"
            )
    return Embeddings(
        ids=[id_ for part in parts for id_ in part.ids],
        vectors=np.concatenate([part.vectors for part in parts]),
        space_id=first.space_id,
        metadata=[row for part in parts for row in part.metadata],
        model=first.model,
        view=first.view,
    )


def packed(vectors: Float32[np.ndarray, "rows dim"], dtype: DType) -> np.ndarray:
    """Unit vectors in fewer bytes: float16, or int8 with each row stretched to the full range."""
    if dtype == "int8":
        largest = np.abs(vectors).max(axis=1, keepdims=True, initial=1e-12)
        return np.rint(vectors * (127 / largest)).astype(np.int8)
    return vectors.astype({"float32": np.float32, "float16": np.float16}[dtype])


def unpacked(vectors: np.ndarray) -> Float32[np.ndarray, "rows dim"]:
    """Unit vectors of what :func:`packed` gave; packing them again gives the same bytes."""
    if vectors.dtype == np.int8:
        wide = vectors.astype(np.float32)
        return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return vectors.astype(np.float32, copy=False)


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a folder of embeddings says of itself.

    Raises:
        IndexFormatError: If it holds none, or of a newer version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise IndexFormatError(f"{folder}: there are no embeddings in this folder (no {MANIFEST}); {_REMAKE}")
    try:
        manifest = json.loads(path.read_bytes())
        version = manifest["format_version"]
    except (ValueError, TypeError, LookupError) as error:
        raise IndexFormatError(f"{path}: this is no manifest of embeddings or it is damaged; {_REMAKE}") from error
    if str(version).encode() not in _READ:
        raise IndexFormatError(
            f"{path}: embeddings have format version {version} but this xmodal reads up to {FORMAT_VERSION}; "
            f"update xmodal or {_REMAKE}"
        )
    return dict(manifest)


def _parquet_files(folder: Path) -> list[str]:
    manifest = read_manifest(folder)
    if manifest.get("format") != "parquet":
        raise IndexFormatError(
            f"{folder}: these embeddings are in the format {manifest.get('format')!r}, for other tools; xmodal reads "
            "parquet"
        )
    return [Path(str(name)).name for shard in manifest["shards"] for name in shard["files"]]


def unit_rows(vectors: Any, name: str) -> Float32[np.ndarray, "rows dim"]:
    """Check that ``vectors`` is a matrix of unit vectors, and give it as contiguous float32.

    Raises:
        ValueError: If it is not a matrix, or a row has a NaN, an infinity or a length other than 1 (within 1e-3).
    """
    # Writable, because torch warns of arrays that are not, such as those that lie in Arrow's memory. What fits is seen
    # here, and one row is checked alone: a search for one query feels every call of NumPy.
    fits = type(vectors) is np.ndarray and vectors.dtype == np.float32 and vectors.flags.carray
    matrix = vectors if fits else np.require(vectors, dtype=np.float32, requirements=["C", "W"])
    if matrix.ndim != 2 or matrix.shape[1] == 0:
        raise ValueError(f"{name} must be a matrix [rows, dim], got shape {list(matrix.shape)}")
    # NaN and infinity make the length fail as well, so one pass over the matrix finds all three. In float32: double
    # precision takes ten times as long, which a batch of queries to a graph would feel. einsum does not warn of them.
    squares = np.einsum("rd,rd->r", matrix, matrix)
    if len(matrix) == 1 and abs(math.sqrt(squares[0]) - 1.0) <= NORM_TOLERANCE:
        return matrix
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(squares)
    bad = np.flatnonzero(~(np.abs(lengths - 1.0) <= NORM_TOLERANCE))
    if len(bad):
        length = np.linalg.norm(matrix[bad[0]].astype(np.float64))
        raise ValueError(
            f"{name} must be finite and of length 1, but {len(bad)} of {len(matrix)} are not: row {bad[0]} has "
            f"length {length:.4g}; divide each row by its length"
        )
    return matrix


def window_ids(track_id: str, start_seconds: Sequence[float]) -> list[str]:
    """Ids of a track's windows where each is a row: the track's, and where the window starts."""
    shown = [round(start, 3) for start in start_seconds]
    # The last window, which ends with the audio, may begin less than a millisecond after the one before it.
    return [
        f"{track_id}@{near if shown.count(near) == 1 else start}"
        for near, start in zip(shown, start_seconds, strict=True)
    ]


def check_ids(ids: Sequence[str]) -> None:
    """Refuse ids that are not text, empty or there twice (ValueError names the first)."""
    seen: set[str] = set()
    for row, id_ in enumerate(ids):
        if not isinstance(id_, str) or not id_:
            raise ValueError(f"ids must be text and not empty, got {id_!r} in row {row}")
        if id_ in seen:
            raise ValueError(f"ids must be unique, got {id_!r} a second time in row {row}")
        seen.add(id_)


def write_parquet(table: pa.Table, path: str | Path) -> None:
    """Write a table so that no half-written file ever has its final name; pages carry checksums."""
    # A dictionary of floats that never repeat only costs time.
    names = [column.name for column in table.schema if column.name != "vector"]
    with written_aside(path) as aside:
        pq.write_table(table, aside, use_dictionary=names, write_page_checksum=True)


def read_parquet(path: str | Path, *, remedy: str) -> pa.Table:
    """Read a table and check its pages; the error says ``remedy`` as the next step.

    Raises:
        IndexFormatError: If the file is missing or damaged.
    """
    if not Path(path).is_file():
        raise IndexFormatError(f"{path}: there is no such file; {remedy}")
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read()
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise IndexFormatError(f"{path}: this is no Parquet file or it is damaged ({reason}); {remedy}") from error
