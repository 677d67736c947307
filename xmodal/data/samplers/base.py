"""Which tracks make up each training batch.

Conventions
-----------
The batches of an epoch are a pure function of ``(seed, epoch, number of the batch)``: a sampler can begin at any batch
without having gone through those before it. A batch is planned for all processes together, ``batch_size`` tracks each,
and process r of W takes its places r, r + W, r + 2W, …; so N processes see the very batches that one process with N
times the batch size sees, and no track twice. What does not fill a whole batch for all processes is left out of the
epoch, unless there is no whole batch at all: then the epoch is one short batch, the same number of tracks for each.
A batch is a list of ``(index of the track, epoch)``: the epoch goes along so that what is drawn for a track can depend
on it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int
from torch.utils.data import Sampler

from xmodal.configurable import Configurable
from xmodal.data.tracks import Track

Key = tuple[int, int]
"""Index of a track in the training set, and the epoch."""


class TrackFacts(NamedTuple):
    """What the files of the training tracks are like, in the tracks' order."""

    seconds: Sequence[float]
    sample_rates: Sequence[int]


class BatchSampler(Sampler[list[Key]], Configurable, ABC):
    """Base of the samplers: a subclass says what :meth:`batch` ``number`` of an epoch holds.

    A sampler is made from YAML without knowing the tracks; :meth:`prepare` tells it.

    Attributes:
        tracks: The training tracks.
        batch_size: Tracks to a batch of one process.
        seed: Base of every draw.
        epoch: The epoch that the next iteration gives.
        start: The batch at which it begins.
    """

    tracks: Sequence[Track]
    facts: TrackFacts | None
    batch_size: int
    seed: int
    rank: int
    world_size: int

    def __init__(self) -> None:
        self.epoch = 0
        self.start = 0

    def prepare(
        self,
        tracks: Sequence[Track],
        *,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        facts: TrackFacts | None = None,
    ) -> None:
        """Learn the tracks, what their files are like, and this process's place among all.

        Raises:
            ValueError: If an argument is out of range, or there are fewer tracks than processes.
        """
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be from 0 to {world_size - 1}, got {rank}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if len(tracks) < world_size:
            raise ValueError(f"{world_size} processes need at least a track each, got {len(tracks)} tracks")
        self.tracks, self.facts = tracks, facts
        self.batch_size, self.seed, self.rank, self.world_size = batch_size, seed, rank, world_size
        self.prepared()

    def prepared(self) -> None:
        """Work out what the batches need from the tracks, before the first batch is asked for."""

    @property
    def global_batch_size(self) -> int:
        """Tracks to a batch of all processes together."""
        return min(self.batch_size, len(self.tracks) // self.world_size) * self.world_size

    @abstractmethod
    def batch(self, epoch: int, number: int) -> Int[np.ndarray, " batch"]:
        """Tracks of batch ``number`` of an epoch, for all processes: ``global_batch_size`` different indices."""

    def __len__(self) -> int:
        """Batches in an epoch: as many as make it as long as the tracks are many."""
        return len(self.tracks) // self.global_batch_size

    def __iter__(self) -> Iterator[list[Key]]:
        return self.epoch_from(self.epoch, self.start)

    def epoch_from(self, epoch: int, start: int) -> Iterator[list[Key]]:
        """This process's part of an epoch's batches from number ``start`` on."""
        for number in range(start, len(self)):
            mine = self.batch(epoch, number)[self.rank :: self.world_size]
            yield [(int(index), epoch) for index in mine]

    # -- position -----------------------------------------------------------------------------------------------

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration, which begins at its first batch; Lightning calls it.

        The epoch that :meth:`start_at` chose keeps its start.
        """
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def start_at(self, epoch: int, batch: int) -> None:
        """Begin the next iteration at a batch of an epoch; the batch after the last is the next epoch's first."""
        if epoch < 0 or not 0 <= batch <= len(self):
            raise ValueError(
                f"a start is an epoch of at least 0 and a batch from 0 to {len(self)}, got {epoch}, {batch}"
            )
        self.epoch, self.start = (epoch, batch) if batch < len(self) else (epoch + 1, 0)

    def plan(self) -> dict[str, Any]:
        """What the order of the batches hangs on, besides the epoch; two samplers with equal plans give the same."""
        return {
            "sampler": self.config["class_path"],
            "tracks": len(self.tracks),
            "global_batch_size": self.global_batch_size,
            "seed": self.seed,
        }

    def memory(self) -> dict[str, Any]:
        """What the sampler has learnt in the run and needs to go on; plain values for a checkpoint."""
        return {}

    def load_memory(self, memory: dict[str, Any]) -> None:
        """Take up what :meth:`memory` gave."""

    # PyTorch's DataLoader shows Lightning its batch sampler's ``sampler``, and Lightning sets the epoch on that.
    @property
    def sampler(self) -> BatchSampler:
        """Itself."""
        return self


class PlannedBatches(BatchSampler):
    """Base of the samplers that deal out the tracks for a whole epoch at once: numbers only, no audio."""

    def __init__(self) -> None:
        super().__init__()
        self._planned: tuple[int, np.ndarray] | None = None

    @abstractmethod
    def plan_epoch(self, rng: np.random.Generator) -> Int[np.ndarray, "batches batch"]:
        """All batches of an epoch."""

    def batch(self, epoch: int, number: int) -> Int[np.ndarray, " batch"]:
        """A row of the epoch's plan."""
        if self._planned is None or self._planned[0] != epoch:
            self._planned = epoch, self.plan_epoch(np.random.default_rng([self.seed, epoch]))
        planned: np.ndarray = self._planned[1][number]
        return planned

    def prepared(self) -> None:
        """Forget the plan of other tracks."""
        self._planned = None

    def deal(self, order: Int[np.ndarray, " tracks"]) -> Int[np.ndarray, "batches batch"]:
        """An order of tracks cut into batches; what is over at its end is left out."""
        used = order[: len(self) * self.global_batch_size]
        return used.reshape(len(self), self.global_batch_size)
