"""Files that could not be used: counted, said in the log, and written down as they are found."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from xmodal.errors import AudioError

logger = logging.getLogger(__name__)

FILE_NAME = "set_aside.jsonl"


class SetAside:
    """The bad files of a run, each once however often it is met.

    Attributes:
        reasons: Why each file is left out, by path.
        file: Where they are written down, a line of JSON each; None for nowhere.
    """

    def __init__(self) -> None:
        self.reasons: dict[Path, str] = {}
        self.file: Path | None = None
        self._splits: dict[Path, str] = {}
        self._written: set[Path] = set()

    def write_to(self, file: Path | None) -> None:
        """Write to this file from now on, also what is known already."""
        self.file = file
        self._written.clear()
        self._write()

    def add(self, errors: Sequence[AudioError], split: str) -> None:
        """Take note of files, and say so of those that are new: three by name, and how many."""
        new = [error for error in errors if error.path not in self.reasons]
        if not new:
            return
        for error in new:
            self.reasons.setdefault(error.path, error.reason)
            self._splits.setdefault(error.path, split)
        first = "; ".join(str(error) for error in new[:3])
        logger.warning(
            "%d files of the %s split are set aside, they cannot be decoded (%d in all): %s",
            len(new),
            split,
            len(self.reasons),
            first,
        )
        self._write()

    def summary(self) -> str | None:
        """One sentence for the end of a run; None where every file was good."""
        if not self.reasons:
            return None
        where = f"; the list with the reasons is {self.file}" if self.file is not None else ""
        count = "1 file was" if len(self.reasons) == 1 else f"{len(self.reasons)} files were"
        return f"{count} set aside: neither trained nor judged on{where}"

    def _write(self) -> None:
        fresh = [path for path in self.reasons if path not in self._written]
        if self.file is None or not fresh:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        # Appended as they come: a run that is killed has written down what it had met. One write a line, which a
        # reader never sees half.
        with self.file.open("ab", buffering=0) as file:
            for path in fresh:
                row = {"path": str(path), "reason": self.reasons[path], "split": self._splits[path]}
                file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        self._written.update(fresh)
