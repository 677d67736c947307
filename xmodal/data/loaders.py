"""DataLoaders: worker processes that start clean, and an order of batches that a checkpoint can hold."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from xmodal.data.samplers import BatchSampler, EvaluationBatches


def multiprocessing_context(workers: int) -> Any:
    """How worker processes start: forked from a server that has only imported things.

    A fork of this process would copy threads' locks and a device's state in the middle of whatever they do; a fresh
    interpreter for each worker would import torch again and again.
    """
    if not workers:
        return None
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["xmodal.data.datasets"])
    return context


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
        super().__init__(dataset, batch_sampler=sampler, **worker_options(workers), persistent_workers=workers > 0)
        self.order = sampler
        self.position = position

    # Lightning asks for these two names; without them it warns that an epoch cannot be resumed.
    def state_dict(self) -> dict[str, int]:
        """The position, for a checkpoint."""
        return self.position()

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Nothing: the data module has set the sampler before, with what else the order hangs on."""


def make_loader(
    dataset: Dataset[Any], *, batch_size: int, workers: int, rank: int = 0, world_size: int = 1
) -> DataLoader[Any]:
    """A loader of this process's share of the items in order, for evaluation."""
    length = len(dataset)  # type: ignore[arg-type]  # torch's base class of data sets has no length
    order = EvaluationBatches(length, batch_size=batch_size, rank=rank, world_size=world_size)
    return DataLoader(dataset, batch_sampler=order, **worker_options(workers), persistent_workers=workers > 0)


def worker_options(workers: int, *, ahead: int = 2) -> dict[str, Any]:
    """What every DataLoader here has in common.

    Args:
        workers: Worker processes; 0 loads in this one.
        ahead: Items that each worker makes before they are asked for.
    """
    return {
        "num_workers": workers,
        "prefetch_factor": ahead if workers else None,
        "multiprocessing_context": multiprocessing_context(workers),
        "collate_fn": _as_it_is,
        # A generator of its own: a loader that drew its workers' seeds from the global one would change what comes
        # after it by being made, and a resumed run makes one more than an undisturbed run.
        "generator": torch.Generator(),
    }


def _as_it_is(batch: Any) -> Any:
    """The sets' ``__getitems__`` makes whole batches; there is nothing left to collate."""
    return batch
