"""A loss computed block by block of rows, so that neither the scores nor anything of their size is ever whole.

The gradient is made beside the value: a block's scores, the slope of the loss at each of them, and the two products
that carry the slopes to the vectors. That is three products of ``audio * text * dim`` multiplications a direction,
and nothing is kept for the backward pass but the gradients. The two-way soft-max must know the sums of all rows and
columns before it knows any slope; its scores are made twice, so both directions together take four products (six
at temperatures below 0.025, where its exponentials need maxima, which is not worth a second way).
"""

from __future__ import annotations

from collections.abc import Iterator
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
_TILE = 1024
_SMALLEST_NORM = 1e-12
_LARGEST_LOGIT = 40.0

Given = tuple[Tensor, Tensor | None, Tensor | None]
"""Relevance, valid and weight of all pairs, or of a block of rows."""

Gradients = tuple[Tensor, Tensor]
"""Of the unit vectors of two sides."""


class StreamedLoss(EmbeddingLoss):
    """A loss on scores, block by block of rows: the same value and gradients in O(block * items) memory.

    Only losses whose rows do not look at each other can be streamed, which are those that define ``row_terms``.
    There is no second derivative, and a value can be gone back through once.

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
        if isinstance(loss, InfoNCELoss) and _is_two_way_softmax(loss, given):
            value, gradients, slopes = _two_way_softmax(loss, block, given, audio, text, wanted=wanted)
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

    def in_place(self, gradient: Float[Tensor, "items dim"]) -> Float[Tensor, "items dim"]:
        """From the gradient of the unit vectors to that of the vectors."""
        rows_at_once = max(1, 2**15 // max(gradient.shape[1], 1))
        for start in range(0, len(self), rows_at_once):
            rows = slice(start, start + rows_at_once)
            unit, part = self.unit(rows), gradient[rows]
            along = torch.linalg.vecdot(unit, part) * self.turns[rows]
            part.addcmul_(unit, along[:, None], value=-1.0).mul_(self.inverse[rows, None])
        return gradient


def blocks_of(block: int | None, anchors: int, others: int) -> list[slice]:
    """The rows of each block, of ``block`` anchors or as many as make 16 million scores."""
    size = min(block or max(1, _SCORES_A_BLOCK // max(others, 1)), max(anchors, 1))
    return [slice(start, start + size) for start in range(0, anchors if others else 0, size)]


def _rows_of(given: Given, rows: slice) -> Given:
    relevance, valid, weight = given
    return relevance[rows], None if valid is None else valid[rows], None if weight is None else weight[rows]


def _cosines(rows: slice, anchors: _Side, others: _Side) -> Float[Tensor, "rows others"]:
    return (anchors.unit(rows) @ others.vectors.T).mul_(others.inverse)


def _carry(
    slope: Float[Tensor, "rows others"],
    rows: slice,
    anchors: _Side,
    others: _Side,
    gradients: Gradients,
) -> None:
    """Add what the slopes of a block's cosines are for the unit vectors of both sides; uses the slopes up."""
    gradients[1].addmm_(slope.T, anchors.unit(rows))
    gradients[0][rows].addmm_(slope.mul_(others.inverse), others.vectors)


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
    blocks = blocks_of(block, len(anchors), len(others))

    def terms(rows: slice, *, graph: bool) -> tuple[Tensor | None, Tensor, Tensor, Tensor | None]:
        """Scores of a block, sum and number of its terms; slopes in the place of scores where the loss knows them."""
        score = _cosines(rows, anchors, others)
        pairs = make_pairs(score, *_rows_of(given, rows))
        known = loss.row_slopes(pairs) if graph else None
        if known is not None:
            (total, count), slope = known
            return None, total.sum(dim=0) + 0.0 * score.sum(), count.sum(dim=0), slope
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
    gradients = (torch.zeros_like(anchors.vectors), torch.zeros_like(others.vectors)) if wanted else None
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


# -- InfoNCE in both directions ----------------------------------------------------------------------------------------


def _is_two_way_softmax(loss: InfoNCELoss, given: Given) -> bool:
    """Whether a soft-max in both directions can do without maxima: its exponentials and their sums stay in float32."""
    plain = type(loss).row_terms is InfoNCELoss.row_terms and loss.denominator == "all" and given[2] is None
    return plain and min(loss.direction_weights) > 0 and float(loss.scale()) * (1.0 + loss.margin) <= _LARGEST_LOGIT


def _two_way_softmax(
    loss: InfoNCELoss, block: int | None, given: Given, audio: _Side, text: _Side, *, wanted: bool
) -> tuple[Tensor, Gradients | None, list[Tensor]]:
    """InfoNCE over rows and columns: first all their sums, then every slope, from scores that are made twice."""
    with torch.enable_grad():
        scale = loss.scale()
    factor = scale.detach()
    unit_text = text.unit(slice(None))
    tiles = list(_tiles(block, len(audio), len(text)))
    size = min(block or _TILE, len(audio)), min(_TILE, len(text))
    spare = [audio.vectors.new_empty(size) for _ in range(2)]
    exponentials = _Exponentials(given, loss.margin * factor if loss.margin else None, spare[0])

    rows_sums, column_sums = _Sums(audio), _Sums(text)
    for rows, several in tiles:
        scaled = audio.unit(rows) * factor
        for columns in several:
            made, (i, j), target, logit = exponentials(rows, columns, scaled, unit_text)
            rows_sums.exponentials[rows] += made.sum(dim=1)
            column_sums.exponentials[columns] += made.sum(dim=0)
            rows_sums.add(i + rows.start, target, logit)
            column_sums.add(j + columns.start, target, logit)
    whole = sum(loss.direction_weights)
    shares = [share / whole for share in loss.direction_weights]
    value = rows_sums.loss(shares[0]) + column_sums.loss(shares[1])
    if not wanted:
        return value, None, []
    gradients = torch.zeros_like(audio.vectors), torch.zeros_like(text.vectors)
    of_factor = torch.zeros_like(factor)
    for rows, several in tiles:
        unit = audio.unit(rows)
        scaled = unit * factor
        for columns in several:
            slope, (i, j), target, _ = exponentials(rows, columns, scaled, unit_text)
            per_pair = spare[1][: slope.shape[0], : slope.shape[1]]
            slope.mul_(
                torch.add(rows_sums.per_exponential[rows, None], column_sums.per_exponential[columns], out=per_pair)
            )
            slope[i, j] -= target * (rows_sums.per_target[i + rows.start] + column_sums.per_target[j + columns.start])
            if loss.margin:
                of_factor -= loss.margin * slope[i, j].sum()
            gradients[0][rows].addmm_(slope, unit_text[columns])
            gradients[1][columns].addmm_(slope.T, unit)
        of_factor += (gradients[0][rows] * unit).sum()  # slopes times cosines, since the cosines are what unit was in
    for each in gradients:
        each.mul_(factor)
    trained = [parameter for parameter in loss.parameters() if parameter.requires_grad]
    with torch.enable_grad():
        slopes = torch.autograd.grad(scale, trained, of_factor) if trained else ()
    return value, gradients, list(slopes)


class _Exponentials:
    """Exponentials of the logits of a tile, and what its positives are.

    Args:
        given: Relevance and valid of all pairs.
        margin: What is taken from the positives' logits, None for nothing.
        spare: Where the exponentials are made.
    """

    def __init__(self, given: Given, margin: Tensor | None, spare: Tensor) -> None:
        self.relevance, self.valid, _ = given
        self.margin, self.spare = margin, spare

    def __call__(
        self, rows: slice, columns: slice, scaled: Float[Tensor, "rows dim"], unit_text: Float[Tensor, "text dim"]
    ) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor, Tensor]:
        """Exponentials of a tile, and the places in it, the targets and the logits of its positives."""
        relevance = self.relevance[rows, columns]
        valid = None if self.valid is None else self.valid[rows, columns]
        logits = torch.mm(scaled, unit_text[columns].T, out=self.spare[: relevance.shape[0], : relevance.shape[1]])
        positive = relevance if relevance.dtype == torch.bool else relevance > 0
        i, j = _places(positive if valid is None else positive & valid)
        if self.margin is not None:
            logits[i, j] -= self.margin
        logit = logits[i, j]
        if valid is None:
            made = logits.exp_()
        else:
            made = logits.masked_fill_(~valid, 0.0).exp_().masked_fill_(~valid, 0.0)
        return made, (i, j), relevance[i, j].to(logits.dtype), logit


def _tiles(block: int | None, anchors: int, others: int) -> Iterator[tuple[slice, list[slice]]]:
    """Blocks of rows, each with its blocks of columns: tiles that stay in the processor's cache."""
    height = block or _TILE
    for start in range(0, anchors if others else 0, height):
        columns = [slice(first, min(first + _TILE, others)) for first in range(0, others, _TILE)]
        yield slice(start, min(start + height, anchors)), columns


class _Sums:
    """What is summed over each anchor's pairs in one direction.

    Attributes:
        exponentials: Sum of the exponentials of the logits.
        targets: Sum of the targets.
        products: Sum of targets times logits.
        per_exponential: What a pair's slope is for an exponential of 1.
        per_target: What the slope of a positive is less for a target of 1.
    """

    def __init__(self, side: _Side) -> None:
        zeros = side.vectors.new_zeros(len(side))
        self.exponentials, self.targets, self.products = zeros, zeros.clone(), zeros.clone()
        self.per_exponential = self.per_target = zeros

    def add(self, anchor: Int[Tensor, " pairs"], target: Tensor, logit: Tensor) -> None:
        """Add the positives of a block."""
        self.targets.index_add_(0, anchor, target)
        self.products.index_add_(0, anchor, target * logit)

    def loss(self, share: float) -> Tensor:
        """``share`` of the mean over the anchors with a positive; sets what their slopes need."""
        counted = self.targets > 0
        weight = share / counted.sum().clamp(min=1)
        total = torch.where(counted, self.exponentials, 1.0)
        targets = torch.where(counted, self.targets, 1.0)
        self.per_exponential = torch.where(counted, weight / total, 0.0)
        self.per_target = torch.where(counted, weight / targets, 0.0)
        # Anchors that are no terms must not hide a NaN.
        return (
            weight * torch.where(counted, total.log() - self.products / targets, 0.0).sum()
            + 0.0 * self.exponentials.sum()
        )


def _places(chosen: Bool[Tensor, "rows others"]) -> tuple[Tensor, Tensor]:
    """Rows and columns of what is chosen; eight at a time where they are few, which takes an eighth of the time."""
    by_eight = chosen.shape[1] % 8 == 0 and chosen.stride(1) == 1 and chosen.stride(0) % 8 == 0
    if not by_eight or chosen.data_ptr() % 8:
        i, j = chosen.nonzero(as_tuple=True)
        return i, j
    i, eighth = chosen.view(torch.int64).nonzero(as_tuple=True)
    which, place = chosen.unflatten(1, (-1, 8))[i, eighth].nonzero(as_tuple=True)
    return i[which], eighth[which] * 8 + place
