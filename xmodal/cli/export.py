"""A long export that nothing can spoil: it survives a kill at any moment and goes on where it was.

Files are embedded in chunks. Each finished chunk is a part in a folder beside the output (``.FILE.parquet.parts``),
whose name is a hash of the space and of the chunk's files with their sizes and times of change. So a second run takes
over exactly the parts that are still true, and does the others again. The output appears when all is done.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xmodal.data.corpus import SetAside
from xmodal.data.tracks import Track
from xmodal.embedder import Embedder, FileWindows
from xmodal.embeddings import Embeddings, join, written_aside
from xmodal.errors import AudioError

CHUNK_FILES = 128


@dataclass(frozen=True)
class Report:
    """What became of an export.

    Attributes:
        files: Number of files given.
        failed: Number of files set aside.
        rows: Number of vectors written.
        failures: The JSON-lines file with id, path and reason of each file set aside.
    """

    files: int
    failed: int
    rows: int
    failures: Path


def export(
    embedder: Embedder,
    tracks: Sequence[Track],
    out: Path,
    *,
    windows: bool = False,
    set_aside: Sequence[SetAside] = (),
    advance: Callable[[int], None] = lambda count: None,
) -> Report:
    """Embed tracks into a Parquet file; with no vector at all, only the failures are written.

    Args:
        embedder: The model.
        tracks: Files, or parts of files, in the order of the rows.
        out: The Parquet file.
        windows: A row for each window instead of one for each track; ``metadata["track"]`` is then the track's id.
        set_aside: What the manifest names and could not be used; it is counted and listed with the failures.
        advance: Called with the number of files finished since the last call.

    Raises:
        ValueError: If two tracks have the same id.
    """
    if len({track.id for track in tracks}) < len(tracks):
        raise ValueError("every track needs an id of its own; drop the manifest's id column to have them made")
    parts_folder = out.with_name(f".{out.name}.parts")
    parts: list[Embeddings] = []
    failures = [{"id": one.id, "path": one.path, "reason": one.reason} for one in set_aside]
    for first in range(0, len(tracks), CHUNK_FILES):
        chunk = tracks[first : first + CHUNK_FILES]
        part = parts_folder / f"{_fingerprint(embedder.space_id, windows, chunk)}.parquet"
        said = part.with_suffix(".failures.jsonl")
        if part.is_file():
            advance(len(chunk))
        else:
            embeddings, errors = _embed(embedder, chunk, windows, advance)
            _write_lines(said, errors)
            embeddings.save(part)  # last: the part's name says that both are complete
        parts.append(Embeddings.load(part))
        failures += [json.loads(line) for line in said.read_text("utf-8").splitlines()]
    rows = sum(map(len, parts))
    report = Report(len(tracks) + len(set_aside), len(failures), rows, out.with_name(f"{out.name}.failures.jsonl"))
    if rows:
        join(parts).save(out)
    if failures:
        _write_lines(report.failures, failures)
    else:
        report.failures.unlink(missing_ok=True)
    shutil.rmtree(parts_folder, ignore_errors=True)
    return report


def _embed(
    embedder: Embedder, tracks: Sequence[Track], windows: bool, advance: Callable[[int], None]
) -> tuple[Embeddings, list[dict[str, str]]]:
    outcomes: dict[int, FileWindows | AudioError] = {}
    for position, outcome in embedder.iterate_windows(tracks):
        outcomes[position] = outcome
        advance(1)
    ids, vectors, metadata, errors = [], [np.empty((0, embedder.dim), np.float32)], [], []
    for track, (_, outcome) in zip(tracks, sorted(outcomes.items()), strict=True):
        facts = _facts(track)
        if isinstance(outcome, AudioError):
            errors.append({"id": track.id, "path": facts["path"], "reason": outcome.reason})
        elif windows:
            ids += [f"{track.id}@{round(start, 3)}" for start in outcome.start_seconds]
            facts.pop("end_seconds", None)  # the track's, not the window's
            metadata += [{**facts, "track": track.id, "start_seconds": start} for start in outcome.start_seconds]
            vectors.append(outcome.vectors)
        else:
            ids.append(track.id)
            metadata.append(facts)
            vectors.append(outcome.pooled()[None])
    model = None if embedder.source is None else str(Path(embedder.source).resolve())
    return Embeddings(ids, np.concatenate(vectors), embedder.space_id, metadata, model), errors


def _facts(track: Track) -> dict[str, Any]:
    known: dict[str, Any] = {
        # A file name need not be Unicode; a column of text must be.
        "path": os.fsencode(track.path).decode("utf-8", "backslashreplace"),
        "title": track.title,
        "artist": track.artist,
        "album": track.album,
        "tags": sorted(track.all_tags),
        "start_seconds": track.start_seconds or None,
        "end_seconds": track.end_seconds,
    }
    return {name: value for name, value in known.items() if value not in (None, [])}


def _fingerprint(space_id: str, windows: bool, tracks: Sequence[Track]) -> str:
    described: list[Any] = [space_id, windows]
    for track in tracks:
        try:
            # A shard's change is a change of all its members.
            status = Path(getattr(track.data, "container", None) or track.path).stat()
        except OSError:
            described.append([track.id, _facts(track)])
        else:
            described.append([track.id, _facts(track), status.st_size, status.st_mtime_ns])
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:32]


def _write_lines(path: Path, rows: Sequence[dict[str, str]]) -> None:
    with written_aside(path) as aside:
        aside.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), "utf-8")
