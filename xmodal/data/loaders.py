"""DataLoaders: worker processes that start clean, and an order of batches that a checkpoint can hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from xmodal.data.samplers import BatchSampler

# Workers are forked from a server process that has only imported things, never from a process with threads, a device
# or open locks, which a fork may copy in the middle of something.
_CONTEXT = "forkserver"


class ResumableLoader(DataLoader[Any]):
    """Training batches in a sampler's order, which can begin in the middle of an epoch.

    Args:
        dataset: Makes whole batches by ``__getitems__``.
        sampler: The order.
        workers: Worker processes; 0 loads in this one.
        position: What a checkpoint says of where training stands: ``{"epoch": …, "batch": …}``.
    """

    def __init__(
        self, dataset: Dataset[Any], sampler: BatchSampler, *, workers: int, position: Callable[[], dict[str, int]]
    ) -> None:
        super().__init__(dataset, batch_sampler=sampler, **_options(workers))
        self.order = sampler
        self.position = position

    # Lightning asks for these two names; without them it warns that an epoch cannot be resumed.
    def state_dict(self) -> dict[str, int]:
        """The position, for a checkpoint."""
        return self.position()

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Nothing: the data module has set the sampler before, with what else the order hangs on."""


def make_loader(dataset: Dataset[Any], *, batch_size: int, workers: int) -> DataLoader[Any]:
    """A loader of the items in order, for evaluation."""
    return DataLoader(dataset, batch_size=batch_size, **_options(workers))


def _options(workers: int) -> dict[str, Any]:
    return {
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "multiprocessing_context": _CONTEXT if workers else None,
        "collate_fn": _as_it_is,
        # A generator of its own: a loader that drew its workers' seeds from the global one would change what comes
        # after it by being made, and a resumed run makes one more than an undisturbed run.
        "generator": torch.Generator(),
    }


def _as_it_is(batch: Any) -> Any:
    """The sets' ``__getitems__`` makes whole batches; there is nothing left to collate."""
    return batch
