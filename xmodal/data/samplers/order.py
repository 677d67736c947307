"""Batches in a shuffled order, or of tracks that are alike in length or kind of file."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from jaxtyping import Int

from xmodal.data.samplers.base import PlannedBatches
from xmodal.errors import DataError

_LENGTH_STEP = math.log(1.25)  # lengths within a quarter of one another are one group


class ShuffledBatches(PlannedBatches):
    """Every track at most once an epoch, in an order shuffled anew each epoch.

    Args:
        shuffle: Shuffle; else in the order of the manifest.
    """

    def __init__(self, shuffle: bool = True) -> None:
        super().__init__()
        self.shuffle = shuffle

    def plan_epoch(self, rng: np.random.Generator) -> Int[np.ndarray, "batches batch"]:
        """A permutation, cut."""
        order = np.arange(len(self.tracks))
        if self.shuffle:
            rng.shuffle(order)
        return self.deal(order)


class GroupedBatches(PlannedBatches):
    """Every track at most once an epoch, in batches of tracks that are alike; only the seam of two groups is mixed.

    By "length", a batch of short clips is not padded to the longest (with ``data.trim_padding``). By "rate", the
    negatives of a track come from files of the same sample rate, so that the band where a recording ends is no clue;
    the same holds for any column of the manifest, such as a data set's name.

    Args:
        by: "length", "rate", or a column that the manifest keeps in ``extra``.
    """

    def __init__(self, by: Literal["length", "rate"] | str = "length") -> None:
        super().__init__()
        self.by = by
        self._group = np.zeros(0, dtype=np.int64)

    def prepared(self) -> None:
        """Number the tracks' groups.

        Raises:
            DataError: If no track has the column.
            ValueError: If nothing is known of the files.
        """
        super().prepared()
        if self.by in ("length", "rate"):
            if self.facts is None:
                raise ValueError(f"batches by {self.by} need what the files are like; none of it was given")
            if self.by == "length":
                keys = [round(math.log(max(seconds, 1e-3)) / _LENGTH_STEP) for seconds in self.facts.seconds]
            else:
                keys = list(self.facts.sample_rates)
            self._group = np.array(keys, dtype=np.int64)
            return
        names = [track.extra.get(self.by) for track in self.tracks]
        if all(name is None for name in names):
            raise DataError(f"no training track has anything in the column {self.by!r}; name another for the groups")
        self._group = np.unique([str(name) for name in names], return_inverse=True)[1]

    def plan_epoch(self, rng: np.random.Generator) -> Int[np.ndarray, "batches batch"]:
        """The tracks by group, in a new order within each; and the batches in a new order."""
        order = rng.permutation(len(self.tracks))
        # What does not fill a batch is left out by lot, not always from the last group.
        order = order[: len(self) * self.global_batch_size]
        order = order[np.argsort(self._group[order], kind="stable")]
        return rng.permutation(self.deal(order))
