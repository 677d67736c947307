"""Windows whose features are kept: in memory, on disk, or as the vectors that a frozen tower makes of them.

What a frozen audio tower says of a window never changes in training, so that is kept in place of its features: a
thousand numbers where the samples were half a million, and no tower in the step. Vectors on disk are named by the
audio's content, the front end, the tower's settings and its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from xmodal.audio import AudioLike
from xmodal.data.cache import FeatureCache
from xmodal.data.loaders import worker_options
from xmodal.data.windows import Features, TrackFeatures, WindowSet
from xmodal.errors import AudioError, DataError
from xmodal.towers.base import AudioTower, weights_digest

_WINDOWS_AT_ONCE = 64  # that a frozen tower encodes


Progress = Callable[[int, int], None]
"""Called with how many are done, and of how many."""


class CachedWindowSet(Dataset[Features | AudioError]):
    """A :class:`WindowSet` whose features are in memory: decoded once, read every epoch.

    Args:
        windows: The windows to keep.
        workers: Processes that decode.
        cache: Where features are looked for before they are decoded, and put; None for nowhere.
        progress: Hears of the progress, in tracks.
        frozen_tower: Keep what this tower makes of the features; it encodes them where its weights are.

    Attributes:
        encoded: Whether windows are vectors of a frozen tower and not its features.

    Raises:
        DataError: If no track can be decoded.
        ValueError: If a weight of ``frozen_tower`` is trained.
    """

    def __init__(
        self,
        windows: WindowSet,
        *,
        workers: int,
        cache: FeatureCache | None = None,
        progress: Progress | None = None,
        frozen_tower: AudioTower | None = None,
    ) -> None:
        if frozen_tower is not None and not is_frozen(frozen_tower):
            raise ValueError(f"the {type(frozen_tower).__name__} is trained, so its vectors cannot be kept")
        self.encoded = frozen_tower is not None
        self.tracks, self.front_end = windows.tracks, windows.front_end
        self.window_frames = windows.window_frames
        self.seconds, self.file_rates = windows.seconds, windows.file_rates
        self.failures = list(windows.failures)
        self.entries: list[tuple[int, float]] = []
        self._first: dict[int, tuple[int, int]] = {}
        values: Tensor | None = None
        valid: list[Tensor] = []
        if frozen_tower is None:
            items = _decode(windows, workers, cache, progress)
        else:
            items = _encode(windows, frozen_tower, workers, cache, progress)
        for row, item in items:
            if isinstance(item, AudioError):
                self.failures.append(item)
                continue
            if values is None:
                values = torch.empty(len(windows), *item.values.shape[1:], dtype=item.values.dtype)
            first, count = len(self.entries), len(item.values)
            values[first : first + count] = item.values
            valid.append(item.valid_frames)
            self._first[row] = first, count
            self.entries += [(row, start) for start in windows.starts(row)]
        if values is None:
            raise DataError(f"none of the {len(self.tracks)} tracks could be decoded; the first: {self.failures[0]}")
        self.values = values[: len(self.entries)]
        self.valid_frames = torch.cat(valid)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, entry: int) -> Features:
        return _features(self.values[entry], int(self.valid_frames[entry]), self.window_frames)

    def random_window(self, row: int, draw: float) -> Features:
        """One of the track's windows; ``draw`` is uniform in [0, 1)."""
        first, count = self._first[row]
        return self[first + int(draw * count)]


class StoredWindowSet(Dataset[Features | AudioError]):
    """A :class:`WindowSet` whose features are in a cache on disk; what did not fit into it is decoded each time.

    Args:
        windows: The windows to keep.
        workers: Processes that decode what is not in the cache yet.
        cache: The cache.
        progress: Hears of the progress, in tracks.

    Raises:
        DataError: If no track can be decoded.
    """

    encoded = False

    def __init__(
        self, windows: WindowSet, *, workers: int, cache: FeatureCache, progress: Progress | None = None
    ) -> None:
        self.tracks, self.front_end, self.windows, self.cache = windows.tracks, windows.front_end, windows, cache
        self.window_frames = windows.window_frames
        self.seconds, self.file_rates = windows.seconds, windows.file_rates
        self.failures = list(windows.failures)
        failed = set()
        for row, item in _decode(windows, workers, cache, progress, keep=False):
            if isinstance(item, AudioError):
                self.failures.append(item)
                failed.add(row)
        self.entries = [entry for entry in windows.entries if entry[0] not in failed]
        if not self.entries:
            raise DataError(f"none of the {len(self.tracks)} tracks could be decoded; the first: {self.failures[0]}")
        self._first: dict[int, tuple[int, int]] = {}
        for position, (row, _) in enumerate(self.entries):
            first, count = self._first.get(row, (position, 0))
            self._first[row] = first, count + 1

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, entry: int) -> Features | AudioError:
        row, start = self.entries[entry]
        stored = self.cache.window(*_key(self.windows, row), entry - self._first[row][0])
        if stored is not None:
            return _features(*stored, self.window_frames)
        samples = self.windows.samples(row, start)
        return samples if isinstance(samples, AudioError) else self.windows.features(samples)

    def random_window(self, row: int, draw: float) -> Features | AudioError:
        """One of the track's windows; ``draw`` is uniform in [0, 1)."""
        first, count = self._first[row]
        return self[first + int(draw * count)]


AnyWindows = WindowSet | CachedWindowSet | StoredWindowSet


def is_frozen(tower: AudioTower) -> bool:
    """Whether what the tower makes of a clip stays the same all through a training."""
    return tower.frozen and not any(parameter.requires_grad for parameter in tower.parameters())


def _features(values: Float[Tensor, "bands frames"], valid_frames: int, window_frames: int) -> Features:
    return Features(values.float(), valid_frames, valid_frames / window_frames)


class _Tracks(Dataset[Any]):
    """Whole tracks for the workers that fill a cache: ``(row, features or failure, as they were asked for)``.

    Args:
        windows: The tracks' windows.
        rows: Those that are wanted.
        cache: Where they are looked for.
        keep: Hand over what is in the cache, and not only the word that it is.
        of_tower: What names a frozen tower's vectors in the cache; what is not there is handed over for it to encode.
    """

    def __init__(
        self,
        windows: WindowSet,
        rows: list[int],
        cache: FeatureCache | None,
        *,
        keep: bool = True,
        of_tower: dict[str, Any] | None = None,
    ) -> None:
        self.windows, self.rows, self.cache, self.keep, self.of_tower = windows, rows, cache, keep, of_tower

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> tuple[int, TrackFeatures | AudioError | None, bool]:
        row = self.rows[position]
        try:
            if self.cache is not None:
                key = _key(self.windows, row, self.of_tower)
                if self.keep:
                    stored = self.cache.get(*key)
                    if stored is not None:
                        return row, TrackFeatures(*stored), True
                elif self.cache.has(*key):
                    return row, None, True
            item = self.windows.track(row, exact=self.of_tower is not None)
            if self.of_tower is not None:
                return row, item, isinstance(item, AudioError)
            if self.cache is not None and isinstance(item, TrackFeatures):
                self.cache.put(*key, item.values, item.valid_frames)
        except AudioError as error:  # the file went away while it was hashed
            return row, error, True
        return row, item if self.keep or isinstance(item, AudioError) else None, True


def _key(windows: WindowSet, row: int, of_tower: dict[str, Any] | None = None) -> tuple[AudioLike, dict[str, Any]]:
    return windows.tracks[row].audio, windows.cache_key(row) | (of_tower or {})


def _each(tracks: _Tracks, workers: int, progress: Progress | None) -> Iterator[tuple[int, Any, bool]]:
    loader = DataLoader(tracks, batch_size=None, **worker_options(workers, ahead=8))
    for done, item in enumerate(loader, start=1):
        yield item
        if progress is not None and (done % 10 == 0 or done == len(tracks)):
            progress(done, len(tracks))


def _rows(windows: WindowSet) -> list[int]:
    return sorted({row for row, _ in windows.entries})


def _decode(
    windows: WindowSet, workers: int, cache: FeatureCache | None, progress: Progress | None, *, keep: bool = True
) -> Iterator[tuple[int, Any]]:
    """Each track's features, from the cache or decoded and put there; without ``keep`` only the failures."""
    for row, item, _ in _each(_Tracks(windows, _rows(windows), cache, keep=keep), workers, progress):
        yield row, item


def _encode(
    windows: WindowSet, tower: AudioTower, workers: int, cache: FeatureCache | None, progress: Progress | None
) -> Iterator[tuple[int, Any]]:
    """Each track's vectors, from the cache or made by the frozen tower and put there."""
    of_tower = {"tower": tower.identity(), "weights": weights_digest(tower)}
    waiting: list[tuple[int, Any, bool]] = []
    windows_waiting = 0

    def finished() -> Iterator[tuple[int, Any]]:
        vectors = iter(_vectors(tower, [item for _, item, ready in waiting if not ready]))
        for row, item, ready in waiting:
            if not ready:
                item = next(vectors)
                if cache is not None:
                    cache.put(*_key(windows, row, of_tower), item.values, item.valid_frames)
            yield row, item
        waiting.clear()

    for each in _each(_Tracks(windows, _rows(windows), cache, of_tower=of_tower), workers, progress):
        waiting.append(each)
        windows_waiting += 0 if each[2] else len(each[1].values)
        if windows_waiting >= _WINDOWS_AT_ONCE:
            yield from finished()
            windows_waiting = 0
    yield from finished()


@torch.no_grad()
def _vectors(tower: AudioTower, tracks: list[TrackFeatures]) -> list[TrackFeatures]:
    """What the tower makes of the windows of tracks, a column each; in its evaluation mode and full precision."""
    if not tracks:
        return []
    device = next(tower.parameters()).device
    values, valid = torch.cat([each.values for each in tracks]), torch.cat([each.valid_frames for each in tracks])
    modes = {module: module.training for module in tower.modules()}
    tower.eval()
    try:
        parts = [
            tower.encode(some.to(device), frames.to(device)).float().cpu()
            for some, frames in zip(values.split(_WINDOWS_AT_ONCE), valid.split(_WINDOWS_AT_ONCE), strict=True)
        ]
    finally:
        for module, mode in modes.items():
            module.training = mode
    made = torch.cat(parts)[:, :, None].split([len(each.values) for each in tracks])
    return [TrackFeatures(part, each.valid_frames) for part, each in zip(made, tracks, strict=True)]
