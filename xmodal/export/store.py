"""What an export has finished so far: vectors by the content of what they were made from.

A folder beside the output, named after the space, holds parts: Arrow files that are written aside, flushed and renamed.
A part is some pieces of audio (a file, or a part of one) with the vectors or the failure of each. A piece is known by
the digest of its bytes, so a file that was moved is finished and one that was changed is not.
"""

from __future__ import annotations

import json
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from xmodal import __version__
from xmodal.atomic import written_aside
from xmodal.embedder import Outcome
from xmodal.errors import AudioError


@dataclass(frozen=True)
class Finished:
    """What became of one piece of audio.

    Attributes:
        vectors: ``[rows, dim]``: one, or one for each window; none if it failed.
        start_seconds: Where each window starts; None where the row is the whole.
        end_seconds: Where the audio ends, in its file.
        reason: Why it failed; None if it did not.
    """

    vectors: np.ndarray
    start_seconds: tuple[float, ...] | None = None
    end_seconds: float | None = None
    reason: str | None = None

    @classmethod
    def of(cls, outcome: Outcome, dim: int) -> Finished:
        """Keep what an export needs: all windows, or their pooled vector."""
        if isinstance(outcome, AudioError):
            return cls(np.empty((0, dim), np.float32), reason=outcome.reason)
        if outcome.pooling == "windows":
            return cls(outcome.vectors, outcome.start_seconds, outcome.end_seconds)
        return cls(outcome.pooled()[None], None, outcome.end_seconds)


@dataclass(frozen=True)
class _Part:
    """A part in memory; its vectors are in its file, and come in when they are looked at."""

    facts: list[str]
    offsets: np.ndarray
    flat: np.ndarray


class Store:
    """Finished pieces on disk, found by key.

    Args:
        folder: The folder of all spaces' parts for one output.
        space_id: Parts of other spaces are left alone until the export is done.
        dim: Length of the vectors.
    """

    def __init__(self, folder: Path, space_id: str, dim: int) -> None:
        self.folder, self.dim = folder / space_id, dim
        self._parts: list[_Part] = []
        self._place: dict[str, tuple[int, int]] = {}
        if self.folder.is_dir():
            for path in sorted(self.folder.glob("part-*.arrow")):
                self._take(path)

    def __contains__(self, key: str) -> bool:
        return key in self._place

    def __getitem__(self, key: str) -> Finished:
        number, row = self._place[key]
        part = self._parts[number]
        facts = json.loads(part.facts[row])
        starts = facts["start_seconds"]
        return Finished(
            part.flat[part.offsets[row] : part.offsets[row + 1]].reshape(-1, self.dim),
            None if starts is None else tuple(starts),
            facts["end_seconds"],
            facts["reason"],
        )

    def add(self, finished: dict[str, Finished]) -> None:
        """Write a part; when this returns, it is on the disk."""
        if not finished:
            return
        facts = [
            json.dumps({"start_seconds": one.start_seconds, "end_seconds": one.end_seconds, "reason": one.reason})
            for one in finished.values()
        ]
        lists = [one.vectors.reshape(-1) for one in finished.values()]
        offsets = np.cumsum([0, *map(len, lists)])
        table = pa.table(
            {
                "key": pa.array(list(finished), pa.string()),
                "facts": pa.array(facts, pa.string()),
                "vectors": pa.LargeListArray.from_arrays(
                    pa.array(offsets, pa.int64()), pa.array(np.concatenate(lists), pa.float32())
                ),
            },
        ).replace_schema_metadata({"xmodal": __version__})
        path = self.folder / f"part-{uuid.uuid4().hex}.arrow"
        with written_aside(path) as aside, pa.ipc.new_file(str(aside), table.schema) as writer:
            writer.write_table(table)
        self._take(path)

    def _take(self, path: Path) -> None:
        try:
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            said = (table.schema.metadata or {}).get(b"xmodal")
            lists = table["vectors"].combine_chunks()
            keys, facts = table["key"].to_pylist(), table["facts"].to_pylist()
        except (pa.ArrowException, OSError, LookupError):
            path.unlink()  # nothing that was made here: made again
            return
        for row, (key, said_of) in enumerate(zip(keys, facts, strict=True)):
            # What another version could not read, this one may.
            if said == __version__.encode() or json.loads(said_of)["reason"] is None:
                self._place[key] = (len(self._parts), row)
        self._parts.append(_Part(facts, lists.offsets.to_numpy(), lists.values.to_numpy()))

    def clear(self) -> None:
        """Remove the parts of every space."""
        self._parts, self._place = [], {}
        shutil.rmtree(self.folder.parent, ignore_errors=True)


def piece_key(content: str, start_seconds: float, end_seconds: float | None) -> str:
    """Name of a piece: the digest of its file, and which part of it."""
    if not start_seconds and end_seconds is None:
        return content
    return f"{content}:{start_seconds!r}-{'' if end_seconds is None else repr(end_seconds)}"
