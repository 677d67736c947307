"""The windows of tracks as the tower's features, decoded when asked for or kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from xmodal.audio import WindowPolicy, load, probe
from xmodal.data.tracks import Track
from xmodal.errors import AudioError, DataError
from xmodal.towers.base import AudioTower


@dataclass
class Features:
    """One window's log-mel and how many of its frames are audio."""

    values: Float[Tensor, "bands frames"]
    valid_frames: int


class WindowSet(Dataset[Features | AudioError]):
    """The windows of a list of tracks, as the tower's features, decoded when asked for.

    Args:
        tracks: The tracks; each is probed once, here, for its length.
        tower: Gives sample rate and front end.
        policy: Where the windows lie.

    Attributes:
        entries: ``(row of the track, start in seconds within the track)`` of each window.
        failures: Tracks that could not even be probed; they have no windows.
    """

    def __init__(self, tracks: Sequence[Track], tower: AudioTower, policy: WindowPolicy) -> None:
        self.tracks = list(tracks)
        self.tower = tower
        self.policy = policy
        self.entries: list[tuple[int, float]] = []
        self.failures: list[AudioError] = []
        self.seconds: list[float] = []
        rate = tower.sample_rate
        for row, track in enumerate(self.tracks):
            try:
                end = probe(track.audio).duration_seconds
            except AudioError as error:
                self.failures.append(error)
                self.seconds.append(0.0)
                continue
            if track.end_seconds is not None:
                end = min(end, track.end_seconds)
            seconds = end - track.start_seconds
            self.seconds.append(max(seconds, 0.0))
            samples = max(round(seconds * rate), 1)
            self.entries += [(row, start / rate) for start in policy.starts(samples, rate)]

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, entry: int) -> Features | AudioError:
        row, start = self.entries[entry]
        return self.window(row, start)

    def window(self, row: int, start_seconds: float) -> Features | AudioError:
        """Features of the window of track ``row`` that begins at ``start_seconds`` of the track."""
        track = self.tracks[row]
        rate = self.tower.sample_rate
        length = round(self.policy.window_seconds * rate)
        wanted = self.policy.window_seconds
        if track.end_seconds is not None:
            wanted = min(wanted, track.end_seconds - track.start_seconds - start_seconds)
        try:
            samples = load(
                track.audio,
                rate,
                start_seconds=track.start_seconds + start_seconds,
                duration_seconds=max(wanted, 1 / rate),
            )[:length]
        except AudioError as error:
            return error
        valid = len(samples)
        padded = np.zeros(length, dtype=np.float32)
        padded[:valid] = samples
        with torch.no_grad():
            values = self.tower.features(torch.from_numpy(padded)[None])[0]
            valid_frames = int(self.tower.valid_frames(torch.tensor([valid]))[0])
        return Features(values, valid_frames)

    def random_start(self, row: int, draw: float) -> float:
        """A start for a training window, uniform over the track; ``draw`` is uniform in [0, 1)."""
        return draw * max(self.seconds[row] - self.policy.window_seconds, 0.0)


class CachedWindowSet(Dataset[Features | AudioError]):
    """A :class:`WindowSet` whose features are in memory as float16: decoded once, read every epoch.

    Log-mel of the tower is normalised to a few units, where float16 is exact to about 0.1 %, less than the noise
    of any recording. Exported vectors never come from here.
    """

    def __init__(self, windows: WindowSet, *, workers: int, progress: Callable[[int, int], None] | None = None) -> None:
        self.tracks = windows.tracks
        self.tower = windows.tower
        self.failures = list(windows.failures)
        self.entries: list[tuple[int, float]] = []
        values: Tensor | None = None
        valid: list[int] = []
        failed_rows: set[int] = set()
        loader = DataLoader(
            windows,
            batch_size=None,
            num_workers=workers,
            prefetch_factor=64 if workers else None,
            collate_fn=_as_half,
            generator=torch.Generator(),
        )
        for done, (entry, item) in enumerate(zip(windows.entries, loader, strict=True), start=1):
            if isinstance(item, AudioError):
                if entry[0] not in failed_rows:  # one report a file, however many windows it has
                    failed_rows.add(entry[0])
                    self.failures.append(item)
            else:
                if values is None:
                    values = torch.empty(len(windows), *item.values.shape, dtype=torch.float16)
                values[len(valid)] = item.values
                valid.append(item.valid_frames)
                self.entries.append(entry)
            if progress is not None and (done % 50 == 0 or done == len(windows)):
                progress(done, len(windows))
        if values is None:
            raise DataError(f"none of the {len(self.tracks)} tracks could be decoded; the first: {self.failures[0]}")
        self.values = values[: len(valid)]
        self.valid_frames = torch.tensor(valid)
        self._first: dict[int, list[int]] = {}
        for position, (row, _) in enumerate(self.entries):
            self._first.setdefault(row, []).append(position)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, entry: int) -> Features:
        return Features(self.values[entry].float(), int(self.valid_frames[entry]))

    def random_window(self, row: int, draw: float) -> Features:
        """One of the track's windows; ``draw`` is uniform in [0, 1)."""
        entries = self._first[row]
        return self[entries[int(draw * len(entries))]]


def _as_half(item: Any) -> Features | AudioError:
    return item if isinstance(item, AudioError) else Features(item.values.half(), item.valid_frames)
