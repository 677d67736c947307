"""A triplet loss that looks at the dimensions in which the right and the wrong concept differ."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from xmodal.losses.base import EmbeddingLoss, Pairs, ratio_of_sums
from xmodal.losses.numerics import check_range, distance, weighted_mean
from xmodal.losses.triple import top


class ElementWeightedTripletLoss(EmbeddingLoss):
    """Batch-hard triplets, once as they are and once on the dimensions that tell the two others apart.

    With p an anchor's farthest positive, n its closest negative and Euclidean distances d, the term is
    ``max(0, margin + d_p - d_n)`` with d_n held constant, plus ``max(0, margin + w_p - w_n)``, where the distances w
    weigh each dimension by ``|p - n|`` over its largest value plus ``floor``, or by 0 where that ratio is below
    ``threshold``; with ``mean_negative`` also ``max(0, margin + d_p - mean d_N)`` with d_p held constant. Terms are the
    anchors with a positive and a negative. (The paper's dimensions are weighed by a classifier's weights of the two
    classes; here the other side's vectors, constant for the gradient, are what stands for a concept.)

    Args:
        margin: Of all hinges, in Euclidean distance.
        threshold: Ratio from which a dimension counts, 0 to 1.
        floor: What every dimension that counts weighs at least; learned in the paper, where it starts at 1.
        mean_negative: Add the third hinge (NEWTH; without it EWTH).
        direction_weights: Weights of audio-to-text and text-to-audio.

    References:
        Lv, Gu and Liu, "The dilemma of TriHard loss and an element-weighted TriHard loss for person
        re-identification", NeurIPS 2020.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("6.22",)

    def __init__(
        self,
        margin: float = 0.3,
        *,
        threshold: float = 0.1,
        floor: float = 1.0,
        mean_negative: bool = True,
        direction_weights: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        super().__init__(direction_weights)
        check_range("margin", margin, 0.0)
        check_range("threshold", threshold, 0.0, 1.0)
        check_range("floor", floor, 0.0)
        self.margin, self.threshold, self.floor, self.mean_negative = margin, threshold, floor, mean_negative

    def one_direction(
        self, anchors: Float[Tensor, "anchors dim"], others: Float[Tensor, "others dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """Mean over the anchors."""
        away = distance(pairs.score, "euclidean")
        farthest = top(-pairs.score, pairs.positive, 1).int().argmax(dim=1)
        closest = top(pairs.score, pairs.negative, 1).int().argmax(dim=1)
        near, far = (away.gather(1, which[:, None])[:, 0] for which in (farthest, closest))
        element = self.element_weights(others, farthest, closest)
        near_weighted, far_weighted = (
            (element * (anchors - others[which])).square().sum(dim=1).clamp(min=1e-8).sqrt()
            for which in (farthest, closest)
        )
        term = F.relu(self.margin + near - far.detach()) + F.relu(self.margin + near_weighted - far_weighted)
        if self.mean_negative:
            term = term + F.relu(self.margin + near.detach() - weighted_mean(away, pairs.negative_weight, dim=1))
        counted = pairs.has_positive & pairs.has_negative
        return ratio_of_sums((torch.where(counted, term, 0.0), counted.to(term.dtype)))

    @torch.no_grad()
    def element_weights(
        self, others: Float[Tensor, "others dim"], one: Int[Tensor, " anchors"], other: Int[Tensor, " anchors"]
    ) -> Float[Tensor, "anchors dim"]:
        """How much each dimension counts between two of the others."""
        gap = (others[one] - others[other]).abs()
        ratio = gap / (gap.amax(dim=1, keepdim=True) + 1e-12)
        return torch.where(ratio < self.threshold, 0.0, ratio + self.floor)
