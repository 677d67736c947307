"""The file formats of an export. Each writer turns some rows into files whose names begin with a stem.

=============  ==========================================================  =====================================
format         files of a shard                                            read with
=============  ==========================================================  =====================================
parquet        ``.parquet``: ids, vectors, metadata                        xmodal, pyarrow, pandas, DuckDB, Spark
npy            ``.npy``: vectors; ``.jsonl``: id and metadata of each row  numpy
safetensors    ``.safetensors``: ``vectors``; ``.jsonl`` as for npy        safetensors
webdataset     ``.tar``: ``NAME.npy`` and ``NAME.json`` for each row       webdataset
datasets       ``.arrow``                                                  ``datasets.load_from_disk(folder)``
=============  ==========================================================  =====================================
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xmodal.atomic import sync, written_aside
from xmodal.embeddings import DType, Embeddings, packed, read_manifest, unpacked
from xmodal.errors import IndexFormatError

Writer = Callable[[Embeddings, Path, DType, Sequence[pa.Field]], list[Path]]


def _write_parquet(rows: Embeddings, stem: Path, dtype: DType, fields: Sequence[pa.Field]) -> list[Path]:
    path = stem.with_name(f"{stem.name}.parquet")
    table = rows.table(dtype=dtype, fields=fields)
    with written_aside(path) as aside:
        # Vectors hardly compress and never repeat: encoding them would only cost time.
        names = [name for name in table.column_names if name != "vector"]
        pq.write_table(table, aside, use_dictionary=names, write_page_checksum=True)
    return [path]


def _write_npy(rows: Embeddings, stem: Path, dtype: DType, fields: Sequence[pa.Field]) -> list[Path]:
    path = stem.with_name(f"{stem.name}.npy")
    with written_aside(path) as aside, aside.open("wb") as stream:
        np.save(stream, packed(rows.vectors, dtype), allow_pickle=False)
    return [path, _write_rows(rows, stem)]


def _write_safetensors(rows: Embeddings, stem: Path, dtype: DType, fields: Sequence[pa.Field]) -> list[Path]:
    from safetensors.numpy import save

    path = stem.with_name(f"{stem.name}.safetensors")
    said = {"format": "np", "space_id": rows.space_id, "view": json.dumps(rows.view), "model": rows.model or ""}
    with written_aside(path) as aside:
        aside.write_bytes(save({"vectors": packed(rows.vectors, dtype)}, metadata=said))
    return [path, _write_rows(rows, stem)]


def _write_rows(rows: Embeddings, stem: Path) -> Path:
    path = stem.with_name(f"{stem.name}.jsonl")
    with written_aside(path) as aside, aside.open("w", encoding="utf-8") as stream:
        for id_, facts in zip(rows.ids, rows.metadata, strict=True):
            stream.write(json.dumps({"id": id_, **facts}, ensure_ascii=False) + "\n")
    return path


def _write_webdataset(rows: Embeddings, stem: Path, dtype: DType, fields: Sequence[pa.Field]) -> list[Path]:
    path = stem.with_name(f"{stem.name}.tar")
    with written_aside(path) as aside, tarfile.open(aside, "w") as tar:
        for number, (id_, vector, facts) in enumerate(
            zip(rows.ids, packed(rows.vectors, dtype), rows.metadata, strict=True)
        ):
            stream = io.BytesIO()
            np.save(stream, vector, allow_pickle=False)
            # Numbers and not ids: in a tar of this kind a dot or a slash in a name would be read as something else.
            name = f"{stem.name}-{number:09d}"
            said = {"id": id_, "space_id": rows.space_id, **facts}
            _put(tar, f"{name}.json", json.dumps(said, ensure_ascii=False).encode())
            _put(tar, f"{name}.npy", stream.getvalue())
    return [path]


def _put(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # its time stays 1970, so that two exports are the same bytes
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _write_arrow(rows: Embeddings, stem: Path, dtype: DType, fields: Sequence[pa.Field]) -> list[Path]:
    path = stem.with_name(f"{stem.name}.arrow")
    table = _for_datasets(rows.table(dtype=dtype, fields=fields))
    with written_aside(path) as aside, pa.ipc.new_stream(str(aside), table.schema) as writer:
        writer.write_table(table)
    return [path]


def _for_datasets(table: pa.Table) -> pa.Table:
    from datasets import Features

    # The library takes the features from the schema's metadata, and warns of any that are not its own.
    features = Features.from_arrow_schema(table.schema)
    return table.cast(features.arrow_schema).replace_schema_metadata(features.arrow_schema.metadata)


FORMATS: dict[str, Writer] = {
    "parquet": _write_parquet,
    "npy": _write_npy,
    "safetensors": _write_safetensors,
    "webdataset": _write_webdataset,
    "datasets": _write_arrow,
}


def check_format(name: str) -> None:
    """Refuse a format that there is not, or whose library is missing (ValueError)."""
    if name not in FORMATS:
        raise ValueError(f"the format must be one of {', '.join(FORMATS)}, got {name!r}")
    if name == "datasets":
        try:
            import datasets  # noqa: F401
        except ImportError as error:
            raise ValueError(
                "the format datasets needs its library; install it with: pip install 'xmodal[datasets]'"
            ) from error


def finish_datasets(
    folder: Path, names: Sequence[str], rows: Embeddings, dtype: DType, fields: Sequence[pa.Field]
) -> None:
    """Write the two files by which ``datasets.load_from_disk`` finds the shards."""
    from datasets import DatasetInfo, Features

    table = _for_datasets(rows.table(dtype=dtype, fields=fields))
    info = DatasetInfo(
        description=f"Embeddings of space {rows.space_id}", features=Features.from_arrow_schema(table.schema)
    )
    state: dict[str, Any] = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": rows.space_id,
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    with written_aside(folder / "dataset_info.json") as aside, aside.open("wb") as stream:
        info._dump_info(stream)
    with written_aside(folder / "state.json") as aside:
        aside.write_text(json.dumps(state, indent=2))
    sync(folder)


def sha256(path: Path) -> str:
    """The hash of a file: of these formats only Parquet would notice a flipped byte itself."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_export(out: Path) -> tuple[Embeddings, DType]:
    """What an export wrote, in any format, and how its components were kept.

    Of the format ``datasets`` metadata that are JSON stay text.

    Raises:
        IndexFormatError: If there is none, or a file of it is missing or has other bytes than were written.
    """
    if not out.is_dir() or read_manifest(out).get("format") == "parquet":
        found = Embeddings.load(out)
        return found, _dtype_of(out)
    manifest = read_manifest(out)
    try:
        parts = []
        for shard in manifest["shards"]:
            files = [out / Path(str(name)).name for name in shard["files"]]
            if [sha256(path) for path in files] != shard["sha256"]:
                raise ValueError("a shard has other bytes than were written")
            parts.append(_READERS[manifest["format"]](files))
        vectors = unpacked(np.concatenate([part for part, _ in parts]))
        rows = [dict(row) for _, of_shard in parts for row in of_shard]
        ids = [row.pop("id") for row in rows]
        known = Embeddings(ids, vectors, manifest["space_id"], rows, manifest["model"], manifest["view"])
        return known, manifest["dtype"]
    except (ValueError, TypeError, LookupError, OSError, tarfile.TarError) as error:
        raise IndexFormatError(f"{out}: these embeddings are damaged ({error}); make them again") from error


def _dtype_of(out: Path) -> DType:
    if out.is_dir():
        said: DType = read_manifest(out)["dtype"]
        return said
    kept = pq.read_schema(out).field("vector").type.value_type
    return _DTYPE_OF[kept]


_DTYPE_OF: dict[pa.DataType, DType] = {pa.float32(): "float32", pa.float16(): "float16", pa.int8(): "int8"}
Shard = tuple[np.ndarray, Iterable[Mapping[str, Any]]]


def _read_npy(files: Sequence[Path]) -> Shard:
    return np.load(files[0], allow_pickle=False), map(json.loads, files[1].read_text("utf-8").splitlines())


def _read_safetensors(files: Sequence[Path]) -> Shard:
    from safetensors.numpy import load

    return load(files[0].read_bytes())["vectors"], map(json.loads, files[1].read_text("utf-8").splitlines())


def _read_webdataset(files: Sequence[Path]) -> Shard:
    rows, vectors = [], []
    with tarfile.open(files[0]) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            if member.name.endswith(".json"):
                rows.append({key: value for key, value in json.load(file).items() if key != "space_id"})
            else:
                vectors.append(np.load(io.BytesIO(file.read()), allow_pickle=False))
    return np.stack(vectors), rows


def _read_arrow(files: Sequence[Path]) -> Shard:
    with pa.memory_map(str(files[0])) as source, pa.ipc.open_stream(source) as reader:
        table = reader.read_all()
        vectors = table["vector"].combine_chunks()
        flat = np.array(vectors.flatten().to_numpy(zero_copy_only=False))
        return flat.reshape(len(table), -1), table.drop_columns(["vector"]).to_pylist()


_READERS: dict[str, Callable[[Sequence[Path]], Shard]] = {
    "npy": _read_npy,
    "safetensors": _read_safetensors,
    "webdataset": _read_webdataset,
    "datasets": _read_arrow,
}
