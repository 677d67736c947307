"""How loud a track is from its start to its end, for a picture; remembered, because decoding takes long."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

RATE_HZ = 8_000
_PARTS = 4_000  # more than any screen shows


@dataclass(frozen=True)
class Peaks:
    """The largest sample of each part of a sound.

    Attributes:
        parts: From 0 to 1.
        duration_seconds: Of the sound.
    """

    parts: Float32[np.ndarray, " parts"]
    duration_seconds: float

    @classmethod
    def of(cls, samples: Float32[np.ndarray, " samples"], sample_rate: int) -> Peaks:
        """The peaks of at least one sample."""
        return cls(_largest(np.abs(samples), _PARTS), len(samples) / sample_rate)

    def shown(self, points: int) -> list[float]:
        """``points`` peaks, or as many as there are."""
        return np.round(_largest(self.parts, points).astype(np.float64), 3).tolist()


class Waveforms:
    """The peaks of the files that were asked for last, by file and its time of change.

    Args:
        most: How many are remembered.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._kept: OrderedDict[Hashable, Peaks] = OrderedDict()

    def get(self, key: Hashable) -> Peaks | None:
        """The peaks of a file, or None."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def keep(self, key: Hashable, peaks: Peaks) -> None:
        """Remember the peaks of a file."""
        self._kept[key] = peaks
        while len(self._kept) > self.most:
            self._kept.popitem(last=False)


def _largest(values: np.ndarray, parts: int) -> Float32[np.ndarray, " parts"]:
    """The largest of each of at most ``parts`` runs of nearly equal length."""
    begins = np.linspace(0, len(values), min(parts, len(values)), endpoint=False).astype(np.int64)
    return np.maximum.reduceat(values, begins).astype(np.float32)
