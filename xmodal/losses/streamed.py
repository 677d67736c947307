"""A loss computed block by block of rows, so that neither the scores nor anything of their size is ever whole.

The gradient is made beside the value: a block's scores, the slope of the loss at each of them, and the two products
that carry the slopes to the vectors. That is three products of ``audio * text * dim`` multiplications a direction,
and nothing is kept for the backward pass but the gradients. InfoNCE in both directions takes four together
(:mod:`xmodal.losses.two_way`), and six at temperatures below 0.025, where its exponentials need maxima, which is not
worth a second way.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor
from torch.autograd.function import once_differentiable

from xmodal.losses.base import EmbeddingLoss, Graded, PairwiseLoss, in_full_precision, make_pairs
from xmodal.losses.combined import decomposes
from xmodal.losses.items import BatchItems
from xmodal.losses.numerics import check_range
from xmodal.losses.sides import Given, Gradients, Side
from xmodal.losses.softmax import InfoNCELoss
from xmodal.losses.two_way import is_two_way_softmax, two_way_softmax

_SCORES_A_BLOCK = 2**24


class StreamedLoss(EmbeddingLoss):
    """A loss on scores, block by block of rows: the same value and gradients in O(block * items) memory.

    Only losses whose rows do not look at each other can be streamed, which are those that define ``row_terms``.
    There is no second derivative, and a value can be gone back through once.

    Args:
        loss: The loss.
        block: Anchors a block; None for as many as make 16 million scores. (Two-way InfoNCE makes tiles of as many
            anchors by 2,048 others, without it 2,048 by 2,048.)

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
        audio, text = Side(leaves[0]), Side(leaves[1])
        wanted = any(ctx.needs_input_grad)
        if isinstance(loss, InfoNCELoss) and is_two_way_softmax(loss, given):
            value, gradients, slopes = two_way_softmax(loss, block, given, audio, text, wanted=wanted)
        else:
            value, gradients, slopes = _by_rows(loss, block, given, audio, text, wanted=wanted)
        if gradients is not None:
            # Not saved but handed over: what is saved would be copied, and these are the largest tensors of a step.
            ctx.gradients = [audio.in_place(gradients[0]), text.in_place(gradients[1]), *slopes]
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("a streamed loss hands its gradients over once; compute it again for a second backward")
        gradients, ctx.gradients = ctx.gradients, None
        return None, None, None, *(gradient.mul_(factor) for gradient in gradients)


def blocks_of(block: int | None, anchors: int, others: int) -> list[slice]:
    """The rows of each block, of ``block`` anchors or as many as make 16 million scores."""
    size = min(block or max(1, _SCORES_A_BLOCK // max(others, 1)), max(anchors, 1))
    return [slice(start, start + size) for start in range(0, anchors if others else 0, size)]


def _rows_of(given: Given, rows: slice) -> Given:
    relevance, valid, weight = given
    return relevance[rows], None if valid is None else valid[rows], None if weight is None else weight[rows]


def _cosines(rows: slice, anchors: Side, others: Side) -> Float[Tensor, "rows others"]:
    return (anchors.unit(rows) @ others.vectors.T).mul_(others.inverse)


def _carry(
    slope: Float[Tensor, "rows others"],
    rows: slice,
    anchors: Side,
    others: Side,
    gradients: Gradients,
) -> None:
    """Fill in and add what the slopes of a block's cosines are for the unit vectors of both sides; uses them up."""
    gradients[1].addmm_(slope.T, anchors.unit(rows))
    torch.mm(slope.mul_(others.inverse), others.vectors, out=gradients[0][rows])


def _by_rows(
    loss: PairwiseLoss, block: int | None, given: Given, audio: Side, text: Side, *, wanted: bool
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
    loss: PairwiseLoss, block: int | None, given: Given, anchors: Side, others: Side, share: float, *, wanted: bool
) -> tuple[Tensor, Gradients | None, list[Tensor]]:
    """``share`` of the loss with the rows as anchors, and its gradients."""
    trained = [parameter for parameter in loss.parameters() if parameter.requires_grad]
    blocks = blocks_of(block, len(anchors), len(others))

    def terms(rows: slice, *, graph: bool) -> tuple[Tensor | None, Tensor, Tensor, Tensor | None]:
        """Scores of a block, sum and number of its terms; slopes in the place of scores where the loss knows them."""
        score = _cosines(rows, anchors, others)
        pairs = make_pairs(score, *_rows_of(given, rows))
        known = loss.row_slopes(pairs) if graph else None
        if known is not None:
            total, count, slope = known
            return None, total + 0.0 * score.sum(), count, slope
        score.requires_grad_(graph)
        with torch.set_grad_enabled(graph):
            pairs = make_pairs(score, *_rows_of(given, rows))
            total, count = loss.row_terms(pairs)
            # The zero holds a graph where no term does, and a NaN that a mask would hide.
            return score, total.sum(dim=0) + 0.0 * pairs.score.sum(), count.detach().sum(dim=0), None

    def gather(
        rows: slice, score: Tensor | None, block_total: Tensor, slope: Tensor | None, weight: Tensor | None
    ) -> None:
        assert gradients is not None
        if score is None or slope is not None:
            assert slope is not None
            _carry(slope if weight is None else slope * weight, rows, anchors, others, gradients)
            return
        slope, *more = torch.autograd.grad(block_total, [score, *trained], weight, allow_unused=True)
        assert slope is not None
        _carry(slope, rows, anchors, others, gradients)
        for own, other in zip(slopes, more, strict=True):
            own.add_(0.0 if other is None else other)

    total = count = anchors.vectors.new_zeros(())
    gradients = None
    if wanted:  # each block fills its anchors' rows, and adds to all of the others'
        unfilled = torch.empty_like(anchors.vectors) if blocks else torch.zeros_like(anchors.vectors)
        gradients = unfilled, torch.zeros_like(others.vectors)
    slopes = [torch.zeros_like(each) for each in trained] if wanted else []
    at_once = wanted and loss.proportional
    for rows in blocks:
        score, block_total, block_count, slope = terms(rows, graph=at_once)
        at_once = at_once and block_total.numel() == 1
        if at_once:
            gather(rows, score, block_total, slope, None)
        total, count = total + block_total.detach(), count + block_count
    weight = torch.where(count > 0, share / torch.where(count > 0, count, 1.0), 0.0)
    if at_once:
        for each in (*(gradients or ()), *slopes):
            each.mul_(weight)
    elif wanted:  # what a term counts for must be known first, at the price of a product
        for rows in blocks:
            score, block_total, _, slope = terms(rows, graph=True)
            gather(rows, score, block_total, slope, weight)
    return (weight * total).sum(), gradients, slopes
