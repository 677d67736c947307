"""The few places where a loss could overflow, divide by nothing or lose a gradient, each written once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Distance = Literal["cosine", "euclidean", "squared"]
"""``cosine``: 1 - cosine; ``euclidean``: the chord between unit vectors, 0 to 2; ``squared``: its square, 0 to 4."""

EMPTY = -1e30
"""Log of an empty sum. Finite, so that differences of two of them are numbers, and far below every logit."""

_SMALLEST_SQUARED_DISTANCE = 1e-8
_SMALLEST_NORM = 1e-12
MAX_LOG_SCALE = math.log(100.0)


def masked_logsumexp(
    logits: Float[Tensor, "rows columns"],
    weight: Float[Tensor, "rows columns"],
) -> Float[Tensor, " rows"]:
    """``log(sum of weight * exp(logits))`` of each row over the places of positive weight.

    A row without any gives :data:`EMPTY` and no gradient, where a plain logsumexp gives -inf and NaN.
    """
    member = weight > 0
    weighted = torch.where(member, logits + torch.where(member, weight, 1.0).log(), -torch.inf)
    empty = ~member.any(dim=1)
    return torch.where(empty, EMPTY, weighted.masked_fill(empty[:, None], 0.0).logsumexp(dim=1))


def weighted_mean(values: Tensor, weight: Tensor, dim: int | None = None) -> Tensor:
    """Weighted mean over one dimension or over all; 0 where nothing weighs."""
    total = weight.sum(dim=dim)
    return (weight * values).sum(dim=dim) / torch.where(total > 0, total, 1.0)


def log1mexp(log_p: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """``log(1 - exp(log_p))`` for a log probability, exact near 0 and near 1; a probability of 1 counts as 1 - 1e-7."""
    log_p = log_p.clamp(max=-1e-7)
    small = log_p < -math.log(2.0)
    return torch.where(
        small,
        torch.log1p(-torch.where(small, log_p, -1.0).exp()),
        torch.log(-torch.expm1(torch.where(small, -1.0, log_p))),
    )


def distance(score: Float[Tensor, "*shape"], kind: Distance) -> Float[Tensor, "*shape"]:
    """Distance of unit vectors from their cosine.

    The root has no slope at 0, so below a distance of 1e-4 (two copies of one vector) it is held constant.
    """
    if kind == "cosine":
        return 1.0 - score
    squared = (2.0 - 2.0 * score).clamp(min=0.0)
    return squared if kind == "squared" else squared.clamp(min=_SMALLEST_SQUARED_DISTANCE).sqrt()


def unit_vectors(vectors: Float[Tensor, "items dim"]) -> Float[Tensor, "items dim"]:
    """The vectors divided by their norms, or by 1e-12 where those are smaller, with half the work in the gradient."""
    unit: Tensor = _UnitVectors.apply(vectors)
    return unit


class _UnitVectors(torch.autograd.Function):
    """A unit vector's gradient turns it and nothing else: what points along it is taken out."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        norms = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        unit = vectors / norms.clamp(min=_SMALLEST_NORM)
        ctx.save_for_backward(unit, norms)
        return unit

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        unit, norms = ctx.saved_tensors
        (gradient,) = gradients
        # A vector of no length has no direction that could turn.
        along = torch.linalg.vecdot(unit, gradient)[:, None] * (norms > _SMALLEST_NORM)
        return torch.addcmul(gradient, unit, along, value=-1.0) / norms.clamp(min=_SMALLEST_NORM)


def check_choice(name: str, value: str, choices: Any) -> None:
    """Refuse a value that is not one of a Literal's.

    Raises:
        ValueError: With the argument's name, the value and the choices.
    """
    if value not in get_args(choices):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, get_args(choices)))}, got {value!r}")


def check_range(name: str, value: float, low: float, high: float = math.inf, *, low_open: bool = False) -> None:
    """Refuse a number outside a range that includes ``low`` (unless ``low_open``) and ``high``.

    Raises:
        ValueError: With the argument's name, the value and the range.
    """
    if not (low < value or (low == value and not low_open)) or not value <= high:
        above = "above" if low_open else "at least"
        limit = "" if high == math.inf else f" and at most {high:g}"
        raise ValueError(f"{name} must be {above} {low:g}{limit}, got {value}")


def weight_below(
    values: Float[Tensor, "rows members"],
    weight: Float[Tensor, "rows members"],
    queries: Float[Tensor, "rows queries"],
    *,
    inclusive: bool,
) -> Float[Tensor, "rows queries"]:
    """Weight of each row's values that are below each query (or equal to it, if ``inclusive``).

    One sort and one binary search: O(members) memory a row, where a comparison table takes members * queries.
    """
    ordered, order = values.sort(dim=1)
    prefix = F.pad(weight.gather(1, order).cumsum(dim=1), (1, 0))
    return prefix.gather(1, torch.searchsorted(ordered.contiguous(), queries.contiguous(), right=inclusive))


def sum_over_positives(
    term: Callable[[Tensor, Tensor], Tensor], positive_weight: Float[Tensor, "anchors others"]
) -> Float[Tensor, " anchors"]:
    """Each anchor's weighted sum of a term that looks, for each positive pair, along a whole row.

    The pairs are taken in blocks of as many as there are anchors, and a block's intermediate results are computed
    again for the gradient: O(anchors * others) memory, however many positives there are.

    Args:
        term: From the pairs' rows and columns (index vectors) to one value a pair.
        positive_weight: Above 0 at the positive pairs.
    """
    anchors = positive_weight.shape[0]
    total = positive_weight.new_zeros(anchors)
    for block in positive_weight.nonzero().split(max(anchors, 1)):
        rows, columns = block.unbind(dim=1)
        values = checkpoint(term, rows, columns, use_reentrant=False, preserve_rng_state=False)
        total = total.index_add(0, rows, positive_weight[rows, columns] * values)
    return total


def max_over_positives(
    term: Callable[[Tensor, Tensor], Tensor],
    positive: Bool[Tensor, "anchors others"],
    start: Float[Tensor, "anchors k"],
) -> Float[Tensor, "anchors k"]:
    """Each anchor's largest value, column by column, of a term that makes a whole row for each positive pair.

    Blocks and memory as in :func:`sum_over_positives`.

    Args:
        term: From the pairs' rows and columns (index vectors) to one row of values a pair.
        positive: The positive pairs.
        start: What the largest value is at least.
    """
    largest = start
    for block in positive.nonzero().split(max(positive.shape[0], 1)):
        rows, columns = block.unbind(dim=1)
        values = checkpoint(term, rows, columns, use_reentrant=False, preserve_rng_state=False)
        largest = largest.scatter_reduce(0, rows[:, None].expand_as(values), values, "amax")
    return largest


class LogitScale(nn.Module):
    """A positive factor on the scores, the inverse of a temperature; learned ones stay at or below 100.

    Args:
        temperature: Its start; the factor is ``1 / temperature``.
        learn: Train the factor's logarithm.
    """

    log_scale: Tensor

    def __init__(self, temperature: float, *, learn: bool) -> None:
        super().__init__()
        check_range("temperature", temperature, 0.01 if learn else 0.0, low_open=not learn)
        start = torch.tensor(-math.log(temperature))
        self.learn = learn
        if learn:
            self.log_scale = nn.Parameter(start)
        else:  # part of the config, so not of the weights
            self.register_buffer("log_scale", start, persistent=False)

    def forward(self) -> Float[Tensor, ""]:
        """The factor, in float32 or better."""
        log_scale = self.log_scale if self.log_scale.dtype == torch.float64 else self.log_scale.float()
        return (_BoundedAbove.apply(log_scale) if self.learn else log_scale).exp()


class _BoundedAbove(torch.autograd.Function):
    """``min(x, ln 100)`` that can come back.

    A clamp has no gradient beyond its bound, so a scale that an optimiser's momentum carried past it would stay
    there for good. Here a step that leads back has its gradient; only one that leads further away has none.
    """

    @staticmethod
    def forward(ctx: Any, log_scale: Tensor) -> Tensor:
        ctx.save_for_backward(log_scale)
        return log_scale.clamp(max=MAX_LOG_SCALE)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (log_scale,) = ctx.saved_tensors
        (gradient,) = gradients
        return torch.where((log_scale > MAX_LOG_SCALE) & (gradient < 0), 0.0, gradient)
