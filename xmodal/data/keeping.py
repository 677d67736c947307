"""Whether and where a run keeps what it has heard: in memory, on disk, nowhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from xmodal.audio import IsolatedDecoder, WindowPolicy
from xmodal.data.cache import FeatureCache, FileMemo
from xmodal.data.kept import AnyWindows, CachedWindowSet, Progress, StoredWindowSet
from xmodal.data.tracks import Track
from xmodal.data.windows import WindowSet
from xmodal.towers.base import AudioTower

logger = logging.getLogger(__name__)

_SAY_EVERY_SECONDS = 10.0


@dataclass(frozen=True)
class Keeping:
    """What the lines of YAML around ``cache`` say.

    Attributes:
        where: "memory", "disk", "none", or "auto": in memory if there is room, else on disk if there is a folder;
            "samples": decoded samples on disk, and no features.
        gigabytes: Room in memory for a split.
        folder: Of the cache on disk; what is kept in memory is put there too. None for none.
        folder_gigabytes: Room there.
        workers: Processes that decode.
    """

    where: Literal["auto", "memory", "disk", "samples", "none"]
    gigabytes: float
    folder: str | None
    folder_gigabytes: float
    workers: int

    def survey(
        self, tracks: Sequence[Track], tower: AudioTower, policy: WindowPolicy, decoder: IsolatedDecoder | None
    ) -> WindowSet:
        """The tracks' windows; files that were probed in an earlier run and have not changed are not probed again."""
        if self.folder is None:
            return WindowSet(tracks, tower, policy, decoder=decoder)
        memo = FileMemo(Path(self.folder).expanduser() / "files.sqlite")
        known = memo.infos({track.audio for track in tracks})
        cache = FeatureCache(self.folder, gigabytes=self.folder_gigabytes) if self.where == "samples" else None
        windows = WindowSet(tracks, tower, policy, decoder=decoder, facts=known, cache=cache)
        memo.remember({audio: info for audio, info in windows.facts.items() if audio not in known})
        windows.facts.clear()  # the workers get a copy of the windows, and have no use for these
        return windows

    def keep(self, windows: WindowSet, split: str, frozen_tower: AudioTower | None = None) -> AnyWindows:
        """The windows where they are to be kept.

        Args:
            windows: The windows of a split.
            split: Its name, for the log.
            frozen_tower: Keep its vectors in place of the features, if they have room in memory.
        """
        if self.where in ("samples", "none"):
            return windows
        cache = None if self.folder is None else FeatureCache(self.folder, gigabytes=self.folder_gigabytes)
        progress = _log_progress(split)
        if frozen_tower is not None and self._fits(windows, 4 * frozen_tower.feature_dim):
            return CachedWindowSet(
                windows, workers=self.workers, cache=cache, progress=progress, frozen_tower=frozen_tower
            )
        silence = windows.features(np.zeros(1, dtype=np.float32))
        if self.where == "memory" or (self.where == "auto" and self._fits(windows, silence.values.numel() * 2)):
            return CachedWindowSet(windows, workers=self.workers, cache=cache, progress=progress)
        if cache is not None:
            return StoredWindowSet(windows, workers=self.workers, cache=cache, progress=progress)
        return windows

    def _fits(self, windows: WindowSet, bytes_each: int) -> bool:
        return bytes_each * len(windows) <= self.gigabytes * 1e9


def _log_progress(split: str) -> Progress:
    """Says now and then how far the features of a split are; nothing if they are there at once."""
    began = said = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= _SAY_EVERY_SECONDS or (done == total and said > began):
            said = now
            logger.info("features of the %s split: %d of %d tracks", split, done, total)

    return progress
