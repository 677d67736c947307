"""The items of a fixed set, shared out among processes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class EvaluationBatches(Sampler[list[int]]):
    """The items of a fixed set in order, each in exactly one batch of exactly one process.

    Every process has the same number of batches, which differ in size by one at most: where a step must be taken by all
    together, none waits for another, and nothing has to be embedded twice to even them out.

    Args:
        length: Items in the set.
        batch_size: Items to a batch, at most.
        rank: This process.
        world_size: Number of processes.
    """

    def __init__(self, length: int, *, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be from 0 to {world_size - 1}, got {rank}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.length, self.batch_size, self.rank, self.world_size = length, batch_size, rank, world_size

    def __len__(self) -> int:
        longest = -(-self.length // self.world_size)
        return -(-longest // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        own = np.arange(self.rank, self.length, self.world_size)
        yield from (batch.tolist() for batch in np.array_split(own, len(self))) if len(self) else ()
