"""InfoNCE over rows and columns of a score matrix that is never whole, with its gradient.

A two-way soft-max must know the sums of all rows and columns before it knows any slope, so the scores are made twice,
tile by tile: with the slopes times the vectors of either side that is four products, and one exponential serves both
directions. The tiles are small enough for the processor's cache, where what is done to each score costs little beside
the products.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from xmodal.losses.sides import Given, Gradients, Side
from xmodal.losses.softmax import InfoNCELoss

_TILE = 2048
_LARGEST_LOGIT = 40.0


def is_two_way_softmax(loss: InfoNCELoss, given: Given) -> bool:
    """Whether a soft-max in both directions can do without maxima: its exponentials and their sums stay in float32."""
    plain = type(loss).row_terms is InfoNCELoss.row_terms and loss.denominator == "all" and given[2] is None
    return plain and min(loss.direction_weights) > 0 and float(loss.scale()) * (1.0 + loss.margin) <= _LARGEST_LOGIT


def two_way_softmax(
    loss: InfoNCELoss, block: int | None, given: Given, audio: Side, text: Side, *, wanted: bool
) -> tuple[Tensor, Gradients | None, list[Tensor]]:
    """InfoNCE over rows and columns: first all their sums, then every slope, from scores that are made twice."""
    with torch.enable_grad():
        scale = loss.scale()
    factor = scale.detach()
    unit_text = text.unit(slice(None))
    tiles = list(tiles_of(block, len(audio), len(text)))
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


def tiles_of(block: int | None, anchors: int, others: int) -> Iterator[tuple[slice, list[slice]]]:
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

    def __init__(self, side: Side) -> None:
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
