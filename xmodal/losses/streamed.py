"""A loss computed block by block of rows, so that neither the scores nor anything of their size is ever whole.

The gradient is made beside the value: a block's scores, the slope of the loss at each of them, and the two products
that carry the slopes to the vectors. That is three products of ``audio * text * dim`` multiplications a direction,
and nothing is kept for the backward pass but the gradients. The two-way soft-max must know the sums of all rows and
columns before it knows any slope; its scores are made twice, so both directions together take four products.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int, Real
from torch import Tensor
from torch.autograd.function import once_differentiable

from xmodal.losses.base import EmbeddingLoss, Graded, PairwiseLoss, in_full_precision, make_pairs
from xmodal.losses.combined import decomposes
from xmodal.losses.items import BatchItems
from xmodal.losses.numerics import check_range
from xmodal.losses.softmax import InfoNCELoss

_SCORES_A_BLOCK = 2**24
_SMALLEST_NORM = 1e-12

Given = tuple[Tensor, Tensor | None, Tensor | None]
"""Relevance, valid and weight of all pairs, or of a block of rows."""

Gradients = tuple[Tensor, Tensor]
"""Of the unit vectors of two sides."""


class StreamedLoss(EmbeddingLoss):
    """A loss on scores, block by block of rows: the same value and gradients in O(block * items) memory.

    Only losses whose rows do not look at each other can be streamed, which are those that define ``row_terms``.
    There is no second derivative.

    Args:
        loss: The loss.
        block: Anchors a block; None for as many as make 16 million scores.

    References:
        Cheng et al., "Breaking the memory barrier: near infinite batch size scaling for contrastive loss", 2024.
    """

    graded: ClassVar[Graded] = "by part"

    def __init__(self, loss: PairwiseLoss, block: int | None = None) -> None:
        super().__init__()
        if block is not None:
            check_range("block", block, 1)
        if not decomposes(loss):
            raise ValueError(
                f"{type(loss).__name__} looks at the whole matrix at once and cannot be streamed; "
                "use it on the whole batch, or a loss that defines row_terms"
            )
        self.loss, self.block = loss, block

    def forward(
        self,
        audio: Float[Tensor, "audio dim"],
        text: Float[Tensor, "text dim"],
        relevance: Real[Tensor, "audio text"],
        valid: Bool[Tensor, "audio text"] | None = None,
        weight: Real[Tensor, "audio text"] | None = None,
        *,
        items: BatchItems | None = None,
    ) -> Float[Tensor, ""]:
        """The loss of a batch of vectors of any norm."""
        with torch.autocast(audio.device.type, enabled=False):
            audio, text = in_full_precision(audio), in_full_precision(text)
            trained = [parameter for parameter in self.loss.parameters() if parameter.requires_grad]
            loss: Tensor = _Streamed.apply(self.loss, self.block, (relevance, valid, weight), audio, text, *trained)
            return loss


class _Streamed(torch.autograd.Function):
    """The value, with the gradients made on the way."""

    @staticmethod
    def forward(ctx: Any, loss: PairwiseLoss, block: int | None, given: Given, *leaves: Tensor) -> Tensor:
        audio, text = _Side(leaves[0]), _Side(leaves[1])
        wanted = any(ctx.needs_input_grad)
        if isinstance(loss, InfoNCELoss) and _is_two_way_softmax(loss):
            value, gradients, slopes = _two_way_softmax(loss, block, given, audio, text, wanted=wanted)
        else:
            value, gradients, slopes = _by_rows(loss, block, given, audio, text, wanted=wanted)
        if gradients is not None:
            ctx.save_for_backward(audio.in_place(gradients[0]), text.in_place(gradients[1]), *slopes)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, *(factor * gradient for gradient in ctx.saved_tensors)


class _Side:
    """The vectors of one side and their norms. Unit vectors are made block by block and never kept."""

    def __init__(self, vectors: Float[Tensor, "items dim"]) -> None:
        self.vectors = vectors
        norms = torch.linalg.vector_norm(vectors, dim=1)
        self.inverse = 1.0 / norms.clamp(min=_SMALLEST_NORM)
        self.turns = norms > _SMALLEST_NORM  # a vector of no length has no direction that could turn

    def __len__(self) -> int:
        return len(self.vectors)

    def unit(self, rows: slice) -> Float[Tensor, "rows dim"]:
        return self.vectors[rows] * self.inverse[rows, None]

    def in_place(self, gradient: Float[Tensor, "items dim"], rows_at_once: int = 4096) -> Float[Tensor, "items dim"]:
        """From the gradient of the unit vectors to that of the vectors."""
        for start in range(0, len(self), rows_at_once):
            rows = slice(start, start + rows_at_once)
            unit, part = self.unit(rows), gradient[rows]
            along = torch.linalg.vecdot(unit, part) * self.turns[rows]
            part.addcmul_(unit, along[:, None], value=-1.0).mul_(self.inverse[rows, None])
        return gradient


def _blocks(block: int | None, anchors: _Side, others: _Side) -> list[slice]:
    size = block or max(1, _SCORES_A_BLOCK // max(len(others), 1))
    return [slice(start, start + size) for start in range(0, len(anchors) if len(others) else 0, size)]


def _rows_of(given: Given, rows: slice) -> Given:
    relevance, valid, weight = given
    return relevance[rows], None if valid is None else valid[rows], None if weight is None else weight[rows]


def _carry(
    slope: Float[Tensor, "rows others"],
    rows: slice,
    anchors: _Side,
    others: _Side,
    gradients: Gradients,
    out: Tensor | None = None,
) -> None:
    """Add what the slopes of a block's cosines are for the unit vectors of both sides."""
    gradients[1].addmm_(slope.T, anchors.unit(rows))
    gradients[0][rows].addmm_(torch.mul(slope, others.inverse, out=out), others.vectors)


# -- any loss of rows --------------------------------------------------------------------------------------------------


def _by_rows(
    loss: PairwiseLoss, block: int | None, given: Given, audio: _Side, text: _Side, *, wanted: bool
) -> tuple[Tensor, Gradients | None, list[Tensor]]:
    """One direction after the other, each block by a small graph of its own."""
    row_weight, column_weight = loss.direction_weights if loss.directional else (1.0, 0.0)
    whole = row_weight + column_weight
    if not column_weight:
        return _direction(loss, block, given, audio, text, 1.0, wanted=wanted)
    relevance, valid, weight = given
    turned = relevance.T, None if valid is None else valid.T, None if weight is None else weight.T
    value, gradients, slopes = _direction(loss, block, turned, text, audio, column_weight / whole, wanted=wanted)
    gradients = None if gradients is None else (gradients[1], gradients[0])
    if row_weight:
        # What a term counts for is known when all are seen, so the directions gather apart.
        more, others, other_slopes = _direction(loss, block, given, audio, text, row_weight / whole, wanted=wanted)
        value = value + more
        for own, other in zip((*(gradients or ()), *slopes), (*(others or ()), *other_slopes), strict=True):
            own.add_(other)
    return value, gradients, slopes


def _direction(
    loss: PairwiseLoss, block: int | None, given: Given, anchors: _Side, others: _Side, share: float, *, wanted: bool
) -> tuple[Tensor, Gradients | None, list[Tensor]]:
    """``share`` of the loss with the rows as anchors, and its gradients."""
    trained = [parameter for parameter in loss.parameters() if parameter.requires_grad]
    blocks = _blocks(block, anchors, others)

    def terms(rows: slice, *, graph: bool) -> tuple[Tensor, Tensor, Tensor]:
        score = (anchors.unit(rows) @ others.vectors.T).mul_(others.inverse).requires_grad_(graph)
        with torch.set_grad_enabled(graph):
            pairs = make_pairs(score, *_rows_of(given, rows))
            total, count = loss.row_terms(pairs)
            # The zero holds a graph where no term does, and a NaN that a mask would hide.
            return score, total.sum(dim=0) + 0.0 * pairs.score.sum(), count.detach().sum(dim=0)

    total = count = anchors.vectors.new_zeros(())
    gradients = (torch.zeros_like(anchors.vectors), torch.zeros_like(others.vectors)) if wanted else None
    slopes = [torch.zeros_like(each) for each in trained] if wanted else []

    def gather(rows: slice, block_total: Tensor, score: Tensor, weight: Tensor | None) -> None:
        assert gradients is not None
        slope, *more = torch.autograd.grad(block_total, [score, *trained], weight, allow_unused=True)
        _carry(slope, rows, anchors, others, gradients)
        for own, other in zip(slopes, more, strict=True):
            own.add_(0.0 if other is None else other)

    at_once = wanted and loss.proportional
    for rows in blocks:
        score, block_total, block_count = terms(rows, graph=at_once)
        at_once = at_once and block_total.numel() == 1
        if at_once:
            gather(rows, block_total, score, None)
        total, count = total + block_total.detach(), count + block_count
    weight = torch.where(count > 0, share / torch.where(count > 0, count, 1.0), 0.0)
    if at_once:
        for each in (*(gradients or ()), *slopes):
            each.mul_(weight)
    elif wanted:  # what a term counts for must be known first, at the price of a product
        for rows in blocks:
            score, block_total, _ = terms(rows, graph=True)
            gather(rows, block_total, score, weight)
    return (weight * total).sum(), gradients, slopes


# -- InfoNCE in both directions ----------------------------------------------------------------------------------------


def _is_two_way_softmax(loss: InfoNCELoss) -> bool:
    known = type(loss).row_terms is InfoNCELoss.row_terms
    return known and loss.denominator == "all" and min(loss.direction_weights) > 0


def _two_way_softmax(
    loss: InfoNCELoss, block: int | None, given: Given, audio: _Side, text: _Side, *, wanted: bool
) -> tuple[Tensor, Gradients | None, list[Tensor]]:
    """InfoNCE over rows and columns: first all their sums, then every slope, from scores that are made twice."""
    with torch.enable_grad():
        scale = loss.scale()
    blocks = _blocks(block, audio, text)
    logits_of = _Logits(loss.margin, scale.detach(), given, audio, text, blocks[0].stop if blocks else 0)
    sums = _Sums(len(audio), audio.vectors), _Sums(len(text), text.vectors)
    spare = torch.empty_like(logits_of.buffer)
    for rows in blocks:
        logits, (i, j), target, plain = logits_of.block(rows)
        out = spare[: len(logits)]
        sums[0].exponentials[rows] = _logsumexp(logits, 1, out)
        sums[1].exponentials = torch.logaddexp(sums[1].exponentials, _logsumexp(logits, 0, out))
        sums[0].add(i + rows.start, target, plain)
        sums[1].add(j, target, plain)
    whole = sum(loss.direction_weights)
    value = sum(
        (each.loss(share / whole) for each, share in zip(sums, loss.direction_weights, strict=True)), 0.0 * scale
    )
    value = value.detach()
    if not wanted:
        return value, None, []
    gradients = torch.zeros_like(audio.vectors), torch.zeros_like(text.vectors)
    slope_of_scale = torch.zeros_like(scale)
    slopes = torch.empty_like(spare)
    for rows in blocks:
        logits, (i, j), target, _ = logits_of.block(rows)
        slope, out = slopes[: len(logits)], spare[: len(logits)]
        torch.sub(logits, sums[0].shift[rows, None], out=slope).exp_()
        slope.add_(torch.sub(logits, sums[1].shift, out=out).exp_())
        slope[i, j] -= target * (sums[0].per_target[i + rows.start] + sums[1].per_target[j])
        slope_of_scale += logits_of.dot(slope, logits, rows)
        _carry(slope.mul_(scale.detach()), rows, audio, text, gradients, out)
    trained = [parameter for parameter in loss.parameters() if parameter.requires_grad]
    with torch.enable_grad():
        slopes_of_loss = torch.autograd.grad(scale, trained, slope_of_scale) if trained else ()
    return value, gradients, list(slopes_of_loss)


class _Sums:
    """What is summed over each anchor's pairs in one direction.

    Attributes:
        exponentials: Log of the sum of the weighted exponentials.
        targets: Sum of the targets.
        shift: What a logit is less, so that its exponential is its slope.
        per_target: What the slope at a positive is less, for a target of 1.
    """

    def __init__(self, items: int, like: Tensor) -> None:
        self.exponentials = like.new_full((items,), -torch.inf)
        self.targets, self.products = like.new_zeros(items), like.new_zeros(items)
        self.shift = self.per_target = like.new_zeros(items)

    def add(self, anchor: Int[Tensor, " pairs"], target: Tensor, logit: Tensor) -> None:
        """Add the positives of a block."""
        self.targets.index_add_(0, anchor, target)
        self.products.index_add_(0, anchor, target * logit)

    def loss(self, share: float) -> Tensor:
        """``share`` of the mean over the anchors with a positive; sets what their slopes need."""
        counted = self.targets > 0
        weight = share / counted.sum().clamp(min=1)
        self.per_target = torch.where(counted, weight / torch.where(counted, self.targets, 1.0), 0.0)
        self.shift = torch.where(counted, self.exponentials - weight.log(), torch.inf)
        term = torch.where(counted, self.exponentials - self.products / torch.where(counted, self.targets, 1.0), 0.0)
        # Anchors that are no terms must not hide a NaN either.
        return weight * term.sum() + 0.0 * self.exponentials.masked_fill(self.exponentials == -torch.inf, 0.0).sum()


class _Logits:
    """Blocks of logits in one buffer, with the places and targets of their positives."""

    def __init__(self, margin: float, scale: Tensor, given: Given, audio: _Side, text: _Side, rows: int) -> None:
        self.margin, self.scale, self.given, self.audio, self.text = margin, scale, given, audio, text
        self.buffer = audio.vectors.new_empty(rows, len(text))

    def block(self, rows: slice) -> tuple[Tensor, Int[Tensor, "2 positives"], Tensor, Tensor]:
        """Logits, with -inf where a pair is not valid; the positives' places, targets and logits without weights."""
        relevance, valid, weight = _rows_of(self.given, rows)
        logits = torch.mm(self.audio.unit(rows) * self.scale, self.text.vectors.T, out=self.buffer[: len(relevance)])
        logits.mul_(self.text.inverse)
        admitted = self.admitted(valid, weight)
        positive = relevance if relevance.dtype == torch.bool else relevance > 0
        places = (positive if admitted is None else positive & admitted).nonzero().T
        i, j = places
        target = relevance[i, j].to(logits.dtype)
        if self.margin:
            logits[i, j] -= self.margin * self.scale
        plain = logits[i, j]
        if weight is not None:
            target = target * weight[i, j]
            logits.add_(self.log_weight(weight))
        if admitted is not None:
            logits.masked_fill_(~admitted, -torch.inf)
        return logits, places, target, plain

    def dot(self, slope: Tensor, logits: Tensor, rows: slice) -> Tensor:
        """The slope of the scale from those of a block's logits; the logits are used up."""
        _, valid, weight = _rows_of(self.given, rows)
        admitted = self.admitted(valid, weight)
        if weight is not None:
            logits.sub_(self.log_weight(weight))
        if admitted is not None:
            logits.masked_fill_(~admitted, 0.0)
        return torch.dot(slope.flatten(), logits.flatten()) / self.scale

    def log_weight(self, weight: Tensor) -> Tensor:
        """Logs of the weights, 0 where there is none."""
        return torch.where(weight > 0, weight, 1.0).to(self.buffer.dtype).log()

    @staticmethod
    def admitted(valid: Tensor | None, weight: Tensor | None) -> Tensor | None:
        """The pairs that may be judged; None for all."""
        if weight is None:
            return valid
        return weight > 0 if valid is None else valid & (weight > 0)


def _logsumexp(logits: Tensor, dim: int, out: Tensor) -> Tensor:
    """``logits.logsumexp(dim)`` in a buffer that is there already."""
    highest = logits.amax(dim=dim, keepdim=True)
    highest = highest.masked_fill(highest == -torch.inf, 0.0)
    return torch.sub(logits, highest, out=out).exp_().sum(dim=dim).log_().add_(highest.squeeze(dim))
