"""The rows of all processes under one another, with gradients.

Conventions
-----------
Every process runs the same step on its own part of the batch, and the strategy (DDP, FSDP) *averages* the gradients of
the processes. A process may have any number of rows, also none. Without process groups every function here gives back
what it was given, so that the step reads the same on one device and on a hundred.

What a process does with the gathered rows decides their gradient. If every process computes the same thing from all
rows (the whole loss), its gradient for its own rows is the whole one already, and is multiplied by the number of
processes against the strategy's average. If each computes a part of it (:mod:`xmodal.training.local`), the parts'
gradients are added up. Either way the result is that of one process with the whole batch; no rate depends on how many
there are.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def process_count() -> int:
    """How many processes train together; 1 without process groups."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_rank() -> int:
    """This process's place among them."""
    return dist.get_rank() if process_count() > 1 else 0


def gather_objects(value: T) -> list[T]:
    """What each process has, in the order of the processes; small things, they travel by pickle."""
    if process_count() == 1:
        return [value]
    everything: list[Any] = [None] * process_count()
    dist.all_gather_object(everything, value)
    return everything


def gather_rows(rows: Tensor, *, parts: bool = False) -> Tensor:
    """The rows of every process, in the order of the processes.

    Args:
        rows: ``[own rows, ...]``; all but the number of rows must agree among the processes.
        parts: Each process goes on to compute another part of the loss; otherwise all compute the whole of it.
    """
    if process_count() == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows, parts)
    return gathered


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum of a tensor over the processes, without gradient."""
    total = values.detach().clone()
    if process_count() > 1:
        dist.all_reduce(total)
    return total


def row_counts(rows: int, device: torch.device) -> list[int]:
    """How many rows each process has."""
    if process_count() == 1:
        return [rows]
    counts = [torch.zeros(1, dtype=torch.long, device=device) for _ in range(process_count())]
    dist.all_gather(counts, torch.tensor([rows], device=device))
    return [int(count) for count in torch.cat(counts).tolist()]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, parts: bool) -> Tensor:
        counts = row_counts(len(rows), rows.device)
        ctx.parts = parts
        ctx.own = slice(sum(counts[: process_rank()]), sum(counts[: process_rank() + 1]))
        # Collectives want equal shapes: the short ones are padded and cut again.
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        everyone = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(everyone, padded)
        return torch.cat([each[:count] for each, count in zip(everyone, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        if ctx.parts:
            gradient = gradient.contiguous()
            dist.all_reduce(gradient)
            return gradient[ctx.own], None
        return gradient[ctx.own] * process_count(), None
