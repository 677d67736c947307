"""DataLoaders: worker processes that start clean, and an order of batches that a checkpoint can hold."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from xmodal.data.samplers import BatchSampler, EvaluationBatches
from xmodal.data.samplers.base import Key


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

    Workers go on with the next epoch while this one ends and is validated, so that no epoch begins with an empty
    queue: a small corpus has no more than a few batches an epoch. A sampler that learns is not run ahead of, for what
    it learns in an epoch counts from the next one on.

    Args:
        dataset: Makes whole batches by ``__getitems__``.
        sampler: The order.
        workers: Worker processes; 0 loads in this one.
        position: What a checkpoint says of where training stands: ``{"epoch": …, "batch": …}``.
    """

    def __init__(
        self, dataset: Dataset[Any], sampler: BatchSampler, *, workers: int, position: Callable[[], dict[str, int]]
    ) -> None:
        foreseeable = type(sampler).memory is BatchSampler.memory
        self._ahead = _Ahead(sampler) if workers and foreseeable else None
        batches: Any = sampler if self._ahead is None else self._ahead
        super().__init__(dataset, batch_sampler=batches, **worker_options(workers), persistent_workers=workers > 0)
        self.order = sampler
        self.position = position
        self._running: Any = None
        self._next: tuple[int, int] | None = None

    def __iter__(self) -> Any:
        """The rest of the sampler's epoch."""
        return super().__iter__() if self._ahead is None else self._epoch(self._ahead)

    def _epoch(self, ahead: _Ahead) -> Iterator[Any]:
        order, place = self.order, (self.order.epoch, self.order.start)
        # Lightning ends the workers by setting DataLoader's own name for them to None.
        if self._running is None or self._running is not self._iterator or self._next != place:
            ahead.place = place
            self._running = super().__iter__()
        running: Any = self._running
        epoch, start = place
        for number in range(start, len(order)):
            self._next = None  # unless it comes
            batch = next(running)
            self._next = (epoch, number + 1) if number + 1 < len(order) else (epoch + 1, 0)
            yield batch

    # Lightning asks for these two names; without them it warns that an epoch cannot be resumed.
    def state_dict(self) -> dict[str, int]:
        """The position, for a checkpoint."""
        return self.position()

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Nothing: the data module has set the sampler before, with what else the order hangs on."""


class _Ahead:
    """A sampler's batches from a place on, epoch after epoch without an end.

    Attributes:
        sampler: The sampler; Lightning looks for it here, to set its epoch.
        place: Epoch and batch at which the next iteration begins.
    """

    def __init__(self, sampler: BatchSampler) -> None:
        self.sampler = sampler
        self.place = (0, 0)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, start = self.place
        while len(self):
            yield from self.sampler.epoch_from(epoch, start)
            epoch, start = epoch + 1, 0


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
