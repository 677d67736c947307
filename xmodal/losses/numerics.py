"""The few places where a loss could overflow, divide by nothing or lose a gradient, each written once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

Distance = Literal["cosine", "euclidean", "squared"]
"""``cosine``: 1 - cosine; ``euclidean``: the chord between unit vectors, 0 to 2; ``squared``: its square, 0 to 4."""

EMPTY = -1e30
"""Log of an empty sum. Finite, so that differences of two of them are numbers, and far below every logit."""

_SMALLEST_DISTANCE = 1e-4
_SMALLEST_NORM = 1e-12
MAX_LOG_SCALE = math.log(100.0)


def masked_logsumexp(
    logits: Float[Tensor, "rows columns"],
    weight: Float[Tensor, "rows columns"],
) -> Float[Tensor, " rows"]:
    """``log(sum of weight * exp(logits))`` of each row over the places of positive weight.

    A row without any gives :data:`EMPTY` and no gradient, where a plain logsumexp gives -inf and NaN.
    """
    result: Tensor = _MaskedLogSumExp.apply(logits, weight)
    return result


class _MaskedLogSumExp(torch.autograd.Function):
    """In one buffer and without boolean masks, which take ten times as long as arithmetic."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, weight: Tensor) -> Tensor:
        buffer = torch.le(weight, 0, out=torch.empty_like(logits)).mul_(EMPTY).add_(logits)
        largest = buffer.amax(dim=1, keepdim=True)
        # Of members no difference is above 0; the others are kept from overflow, and weigh nothing.
        share = torch.sub(logits, largest, out=buffer).clamp_(max=0.0).exp_().mul_(weight)
        total = share.sum(dim=1)
        empty = total == 0
        ctx.save_for_backward(share.div_(torch.where(empty, 1.0, total)[:, None]))
        return torch.where(empty, EMPTY, largest[:, 0] + total.log())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (share,) = ctx.saved_tensors
        return gradients[0][:, None] * share, None


def above_zero(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """1 where a value is above 0 and 0 elsewhere, as numbers and without a gradient."""
    values = values.detach()
    return torch.gt(values, 0, out=torch.empty_like(values))


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
    if kind == "squared":
        return (2.0 - 2.0 * score).clamp(min=0.0)
    chord: Tensor = _Chord.apply(score)
    return chord


class _Chord(torch.autograd.Function):
    """``sqrt(2 - 2 * cosine)``, of which a step keeps nothing but the result."""

    @staticmethod
    def forward(ctx: Any, score: Tensor) -> Tensor:
        chord = (2.0 - 2.0 * score).clamp_(min=_SMALLEST_DISTANCE**2).sqrt_()
        ctx.save_for_backward(chord)
        return chord

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (chord,) = ctx.saved_tensors
        moves = torch.gt(chord, 1.001 * _SMALLEST_DISTANCE, out=torch.empty_like(chord))
        return moves.mul_(gradients[0]).div_(chord).neg_()


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


def gram(vectors: Float[Tensor, "items dim"]) -> Float[Tensor, "items items"]:
    """Products of all vectors of one side with each other, with half the work in the gradient."""
    products: Tensor = _Gram.apply(vectors)
    return products


class _Gram(torch.autograd.Function):
    """The gradients of both factors are one product, since the factors are one tensor."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        ctx.save_for_backward(vectors)
        return vectors @ vectors.T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (vectors,) = ctx.saved_tensors
        return (gradients[0] + gradients[0].T) @ vectors


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
    for block, values in _by_blocks(term, positive_weight, anchors):
        rows, columns = block
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
    for (rows, _), values in _by_blocks(term, positive, positive.shape[0]):
        largest = largest.scatter_reduce(0, rows[:, None].expand_as(values), values, "amax")
    return largest


def _by_blocks(
    term: Callable[[Tensor, Tensor], Tensor], member: Tensor, size: int
) -> Iterator[tuple[tuple[Tensor, Tensor], Tensor]]:
    """Rows and columns of the members in blocks, with their terms; a single block is not worth computing twice."""
    blocks = member.nonzero().split(max(size, 1))
    for block in blocks:
        rows, columns = block.unbind(dim=1)
        if len(blocks) == 1:
            yield (rows, columns), term(rows, columns)
        else:
            values = checkpoint(term, rows, columns, use_reentrant=False, preserve_rng_state=False)
            yield (rows, columns), values


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
