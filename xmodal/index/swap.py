"""Another index in place of one that is being searched: swapped in at one moment, and noticed by who searches."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path

from xmodal.errors import IndexFormatError
from xmodal.index.base import Index
from xmodal.index.engines import load_index
from xmodal.index.folder import read_manifest, save_folder


def swap_in(new: str | Path, live: str | Path) -> None:
    """Give ``live`` the contents of ``new`` in one step; ``new`` stays as it is.

    Files are linked where both are on one file system, else copied. Who has the old index open goes on with it; who
    opens ``live`` gets the old one or the new one, whole. A kill at any moment leaves one of the two.

    Raises:
        IndexFormatError: If ``new`` holds no index, or a damaged one; ``live`` is not touched then.
        ValueError: If both are the same folder, or ``live`` holds something that is no index.
    """
    new, live = Path(new), Path(live)
    if live.exists() and live.resolve() == new.resolve():
        raise ValueError(f"{new} and {live} are the same folder; build the new index in another one")
    if live.exists() and not (live / "index.json").is_file() and any(live.iterdir()):
        raise ValueError(f"{live} is not empty and holds no index; name the folder of an index, or a new one")
    manifest = read_manifest(new)
    load_index(new, mmap=True).close()  # every byte is that which was saved, and what they say is an index
    data = new / manifest["data"]

    def link(aside: Path) -> None:
        for name in manifest["files"]:
            try:
                os.link(data / name, aside / name)
            except OSError:  # another file system, or one without links
                shutil.copy2(data / name, aside / name)

    own = ("format_version", "data", "files")
    save_folder(live, {name: value for name, value in manifest.items() if name not in own}, link)


class LiveIndex:
    """The index that is in a folder now: opened again when another was saved or swapped in there.

    Any number of threads may ask for :attr:`current`. The first that sees a change opens the new index while the others
    go on with the old one; searches under way finish on the index that they began with.

    Args:
        folder: The index folder.
        mmap: As for :func:`xmodal.index.load_index`.
        every_seconds: How often to look for a change.
    """

    def __init__(self, folder: str | Path, *, mmap: bool = True, every_seconds: float = 1.0) -> None:
        self.folder, self.mmap, self.every_seconds = Path(folder), mmap, every_seconds
        self.error: IndexFormatError | None = None
        self._opening = threading.Lock()
        self._seen = self._stamp()
        self._index = load_index(folder, mmap=mmap)
        self._looked = time.monotonic()

    @property
    def current(self) -> Index:
        """The index as it is now; the old one if the new one cannot be read, and ``error`` then says why."""
        if time.monotonic() - self._looked >= self.every_seconds and self._opening.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._looked = time.monotonic()
                self._opening.release()
        return self._index

    def _look(self) -> None:
        stamp = self._stamp()
        if stamp == self._seen:
            return
        try:
            self._index = load_index(self.folder, mmap=self.mmap)
        except IndexFormatError as error:
            self.error = error
        else:
            self.error = None
        self._seen = stamp

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = os.stat(self.folder / "index.json")
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size
