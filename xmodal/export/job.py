"""A long export that nothing can spoil: it survives a kill at any moment and goes on where it was.

Pieces of audio are embedded and put into a :class:`Store` beside the output (``.OUT.parts``) every few seconds. When
all are there, the output is written from them in the order of the tracks, aside, and takes its name in one step. A
second run takes what an older one left, the parts of an interrupted one or the rows of a finished one, if the content
of the audio is still the same; it embeds what is new or changed, and leaves out what is gone.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xmodal.atomic import written_aside
from xmodal.audio import digest
from xmodal.columns import metadata_fields
from xmodal.data.corpus import SetAside
from xmodal.data.tracks import Track, readable_path, track_metadata
from xmodal.embedder import Embedder, Outcome
from xmodal.embeddings import FORMAT_VERSION, MANIFEST, DType, Embeddings, read_manifest, window_ids
from xmodal.errors import AudioError, IndexFormatError
from xmodal.export.formats import FORMATS, check_format, finish_datasets, read_export, sha256
from xmodal.export.store import Finished, Store, piece_key
from xmodal.lanes import in_threads

PART_PIECES = 512  # a part is written when so many pieces are finished,
PART_SECONDS = 10.0  # or so much time has gone by: what a kill can cost
GROUP_ROWS = 16_384  # rows of a file that are in memory at once

Source = Callable[[Sequence[Track]], Iterable[tuple[int, Outcome]]]


@dataclass(frozen=True)
class Report:
    """What became of an export.

    Attributes:
        files: Number of files given.
        failed: Number of files set aside.
        rows: Number of vectors written.
        failures: The JSON-lines file with id, path and reason of each file set aside.
        embedded: Number of files whose vectors were computed by this run.
    """

    files: int
    failed: int
    rows: int
    failures: Path
    embedded: int = 0


def export(
    embedder: Embedder,
    tracks: Sequence[Track],
    out: Path,
    *,
    format: str = "parquet",
    dtype: DType = "float32",
    shard_rows: int = 100_000,
    set_aside: Sequence[SetAside] = (),
    source: Source | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> Report:
    """Embed tracks into files; with no vector at all, only the failures are written.

    Args:
        embedder: The model. With the pooling ``windows`` each window is a row, ``metadata["track"]`` the track's id.
        tracks: Files, or parts of files, in the order of the rows.
        out: A file ending in ``.parquet``, or a folder of shards.
        format: One of :data:`FORMATS`; a file is always Parquet.
        dtype: How components are kept: float32, float16 or int8 (of which only the direction counts).
        shard_rows: Rows of a shard, for a folder.
        set_aside: What the manifest names and could not be used; it is counted and listed with the failures.
        source: What embeds tracks, ``(position, outcome)`` as they finish; by default the embedder on this machine.
        advance: Called with the number of files finished since the last call.

    Raises:
        ValueError: If two tracks have the same id, or an option is out of range.
    """
    check_format(format)
    if shard_rows < 1:
        raise ValueError(f"shard_rows must be at least 1, got {shard_rows}")
    if len({track.id for track in tracks}) < len(tracks):
        raise ValueError("every track needs an id of its own; drop the manifest's id column to have them made")
    one_file = out.suffix == ".parquet"
    if one_file and format != "parquet":
        raise ValueError(f"a file ending in .parquet cannot be {format}; name a folder with --out DIR")
    if not one_file and out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; name a folder, or a file ending in .parquet")
    store = Store(out.with_name(f".{out.name}.parts"), embedder.space_id, embedder.dim)
    known = _Known(store, _rows_of_before(out, embedder, dtype))
    keys = list(_keys(tracks, embedder.workers))
    made = _embed_missing(embedder, tracks, keys, known, source or embedder.iterate_windows, advance)
    failures = [{"id": one.id, "path": one.path, "reason": one.reason} for one in set_aside]
    good = []
    for track, key in zip(tracks, keys, strict=True):
        reason = known[key].reason if isinstance(key, str) else key.reason
        if reason is None:
            good.append((track, str(key)))
        else:
            failures.append({"id": track.id, "path": readable_path(track.path), "reason": reason})
    said = out.with_name(f"{out.name}.failures.jsonl")
    rows = _write(embedder, good, known, out, format, dtype, shard_rows) if good else 0
    if failures:
        with written_aside(said) as aside:
            aside.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in failures), "utf-8")
    else:
        said.unlink(missing_ok=True)
    store.clear()
    for path in out.parent.iterdir():  # of killed runs
        if path.name.startswith(f".{out.name}.") and path.name.endswith(".partial"):
            path.unlink()
    embedded = sum(key in made for _, key in good)
    return Report(len(tracks) + len(set_aside), len(failures), rows, said, embedded)


class _Known:
    """Finished pieces: of an interrupted run, of this one, and of the output that is there."""

    def __init__(self, store: Store, before: dict[str, Finished]) -> None:
        self.store, self._before = store, before

    def __contains__(self, key: str) -> bool:
        return key in self.store or key in self._before

    def __getitem__(self, key: str) -> Finished:
        return self.store[key] if key in self.store else self._before[key]


def _keys(tracks: Sequence[Track], threads: int) -> Iterator[str | AudioError]:
    """What each track is made from; files that several tracks are parts of are read once."""
    places = list(dict.fromkeys(track.audio for track in tracks))

    def read(positions: Iterable[int]) -> Iterator[tuple[int, str | AudioError]]:
        for position in positions:
            try:
                yield position, digest(places[position])
            except AudioError as error:
                yield position, error

    found = dict(in_threads(read, len(places), threads, room=256, name="digest"))
    content = {place: found[position] for position, place in enumerate(places)}
    for track in tracks:
        said = content[track.audio]
        yield piece_key(said, track.start_seconds, track.end_seconds) if isinstance(said, str) else said


def _embed_missing(
    embedder: Embedder,
    tracks: Sequence[Track],
    keys: Sequence[str | AudioError],
    known: _Known,
    source: Source,
    advance: Callable[[int], None],
) -> set[str]:
    """Embed what is not known yet, and say what that was."""
    missing: dict[str, int] = {}
    for position, key in enumerate(keys):
        if isinstance(key, str) and key not in known:
            missing.setdefault(key, position)
    advance(len(tracks) - len(missing))
    work, names = list(missing.values()), list(missing)
    waiting: dict[str, Finished] = {}
    flushed = time.monotonic()
    try:
        for place, outcome in source([tracks[position] for position in work]):
            waiting[names[place]] = Finished.of(outcome, embedder.dim)
            advance(1)
            if len(waiting) >= PART_PIECES or time.monotonic() - flushed > PART_SECONDS:
                known.store.add(waiting)
                waiting, flushed = {}, time.monotonic()
    finally:
        known.store.add(waiting)  # also when it is stopped by hand
    return set(names)


def _rows_of_before(out: Path, embedder: Embedder, dtype: DType) -> dict[str, Finished]:
    """Pieces of an output of the same space that is there, as far as it can be read and was not rounded otherwise."""
    try:
        if out.is_dir() and read_manifest(out)["space_id"] != embedder.space_id:
            return {}
        before, kept = read_export(out)
    except IndexFormatError:
        return {}
    if (before.space_id, before.dim) != (embedder.space_id, embedder.dim) or kept not in ("float32", dtype):
        return {}
    rows: dict[str, list[int]] = {}
    for row, facts in enumerate(before.metadata):
        if isinstance(facts.get("content"), str):
            rows.setdefault(facts["content"], []).append(row)
    found = {}
    for key, at in rows.items():
        starts, end = None, before.metadata[at[0]].get("duration_seconds")
        if embedder.model.pooling == "windows":
            of_track = before.metadata[at[0]].get("track")  # two tracks may be of the same bytes
            at = [row for row in at if before.metadata[row].get("track") == of_track]
            starts = tuple(float(before.metadata[row]["start_seconds"]) for row in at)
        else:
            at = at[:1]
        found[key] = Finished(before.vectors[at], starts, end)
    return found


def _rows(track: Track, key: str, finished: Finished) -> tuple[list[str], list[dict[str, Any]]]:
    facts = {**track_metadata(track), "duration_seconds": finished.end_seconds, "content": key}
    if finished.start_seconds is None:
        return [track.id], [facts]
    facts.pop("end_seconds", None)  # the track's, not the window's
    starts = finished.start_seconds
    return window_ids(track.id, starts), [{**facts, "track": track.id, "start_seconds": start} for start in starts]


def _groups(embedder: Embedder, good: Sequence[tuple[Track, str]], known: _Known, rows: int) -> Iterator[Embeddings]:
    """The rows in the order of the tracks, at most ``rows`` at a time."""
    ids: list[str] = []
    facts: list[dict[str, Any]] = []
    vectors: list[np.ndarray] = []
    model = None if embedder.source is None else str(Path(embedder.source).resolve())

    def group(count: int) -> Embeddings:
        nonlocal ids, facts, vectors
        matrix = np.concatenate(vectors) if vectors else np.empty((0, embedder.dim), np.float32)
        made = Embeddings(ids[:count], matrix[:count], embedder.space_id, facts[:count], model, embedder.view)
        ids, facts, vectors = ids[count:], facts[count:], [matrix[count:]]
        return made

    for track, key in good:
        finished = known[key]
        more_ids, more_facts = _rows(track, key, finished)
        ids += more_ids
        facts += more_facts
        vectors.append(finished.vectors)
        while len(ids) >= rows:
            yield group(rows)
    if ids:
        yield group(len(ids))


def _write(
    embedder: Embedder,
    good: Sequence[tuple[Track, str]],
    known: _Known,
    out: Path,
    format: str,
    dtype: DType,
    shard_rows: int,
) -> int:
    fields = metadata_fields(facts for track, key in good for facts in _rows(track, key, known[key])[1])
    rows = 0
    if out.suffix == ".parquet":
        with written_aside(out) as aside:
            writer = None
            for part in _groups(embedder, good, known, GROUP_ROWS):
                table = part.table(dtype=dtype, fields=fields)
                if writer is None:
                    names = [name for name in table.column_names if name != "vector"]
                    writer = pq.ParquetWriter(aside, table.schema, use_dictionary=names, write_page_checksum=True)
                writer.write_table(table)
                rows += len(part)
            assert writer is not None
            writer.close()
        return rows
    return _write_folder(embedder, _groups(embedder, good, known, shard_rows), fields, out, format, dtype)


def _write_folder(
    embedder: Embedder,
    groups: Iterable[Embeddings],
    fields: Sequence[pa.Field],
    out: Path,
    format: str,
    dtype: DType,
) -> int:
    """Write shards under new names, then the manifest that names them, then remove those of before."""
    out.mkdir(parents=True, exist_ok=True)
    run = uuid.uuid4().hex[:8]
    shards: list[dict[str, Any]] = []
    first = None
    for number, part in enumerate(groups):
        first = first or part
        files = FORMATS[format](part, out / f"shard-{number:05d}-{run}", dtype, fields)
        shard = {"files": [path.name for path in files], "rows": len(part)}
        shards.append(shard if format == "parquet" else shard | {"sha256": [sha256(path) for path in files]})
    assert first is not None
    names = [name for shard in shards for name in shard["files"]]
    if format == "datasets":
        finish_datasets(out, names, first, dtype, fields)
    manifest = {
        "format_version": int(FORMAT_VERSION),
        "format": format,
        "dtype": dtype,
        "space_id": first.space_id,
        "dim": first.dim,
        "rows": sum(shard["rows"] for shard in shards),
        "model": first.model,
        "view": first.view,
        "shards": shards,
    }
    with written_aside(out / MANIFEST) as aside:
        aside.write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
    for path in [*out.glob("shard-*"), *out.glob(".shard-*.partial"), *out.glob(f".{MANIFEST}.*.partial")]:
        if path.name not in names:
            path.unlink()
    if format != "datasets":
        for name in ("state.json", "dataset_info.json"):
            (out / name).unlink(missing_ok=True)
    return int(manifest["rows"])
