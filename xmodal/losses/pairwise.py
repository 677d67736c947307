"""Losses whose terms are pairs: a penalty on each positive and on each negative score."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import nn

from xmodal.losses.base import Graded, Pairs, PairwiseLoss, Terms
from xmodal.losses.numerics import Distance, LogitScale, check_choice, check_range, distance

Average = Literal["all", "active"]


class ContrastiveLoss(PairwiseLoss):
    """Positives are drawn together, negatives pushed beyond a margin.

    With distance d and power k, a positive costs ``d**k / k`` and a negative ``max(0, margin - d)**k / k``; the two
    kinds are averaged apart and added. Graded relevance weighs the positives.

    Args:
        margin: Distance from which a negative costs nothing.
        power: 2 as in the paper, or 1.
        distance: In which distance.
        negative_weight: Factor on the negatives' mean.
        average: Over ``all`` pairs of a kind, or over the ``active`` ones, which cost something.

    References:
        Hadsell, Chopra and LeCun, "Dimensionality reduction by learning an invariant mapping", CVPR 2006.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("1.01",)
    graded: ClassVar[Graded] = "weight"
    directional: ClassVar[bool] = False

    def __init__(
        self,
        margin: float = 1.0,
        *,
        power: Literal[1, 2] = 2,
        distance: Distance = "euclidean",
        negative_weight: float = 1.0,
        average: Average = "all",
    ) -> None:
        super().__init__()
        check_range("margin", margin, 0.0)
        check_range("negative_weight", negative_weight, 0.0)
        check_choice("distance", distance, Distance)
        check_choice("average", average, Average)
        if power not in (1, 2):
            raise ValueError(f"power must be 1 or 2, got {power}")
        self.margin, self.power, self.distance = margin, power, distance
        self.negative_weight, self.average = negative_weight, average

    def row_terms(self, pairs: Pairs) -> Terms:
        """Positive pairs and negative pairs, averaged apart."""
        away = distance(pairs.score, self.distance)
        # The square of a Euclidean distance needs no root, and so keeps its slope where two vectors are equal.
        whole = self.power == 2 and self.distance == "euclidean"
        near = distance(pairs.score, "squared") / 2 if whole else away**self.power / self.power
        far = F.relu(self.margin - away) ** self.power / self.power
        near_weight = pairs.positive_weight * pairs.relevance
        far_weight = pairs.negative_weight
        if self.average == "active":
            near_weight, far_weight = near_weight * (near > 0), far_weight * (far > 0)
        total = [(near_weight * near).sum(dim=1), self.negative_weight * (far_weight * far).sum(dim=1)]
        return torch.stack(total, dim=1), torch.stack([near_weight.sum(dim=1), far_weight.sum(dim=1)], dim=1)


class SigLIPLoss(PairwiseLoss):
    """Every pair is its own yes-or-no question, with a learned scale and bias.

    The term of an anchor is the sum over its row of the binary cross-entropy between
    ``sigmoid(cosine / temperature + bias)`` and the relevance, clipped to [0, 1]. Anchors without a positive count:
    their negatives are answers too. On a square batch with weights 1 both directions give the paper's value.

    Args:
        temperature: Start of the learned temperature.
        bias: Start of the learned bias; -10 begins near the prior of one positive among many negatives.
        direction_weights: Weights of the mean over audio and the mean over texts.

    References:
        Zhai et al., "Sigmoid loss for language image pre-training", ICCV 2023.
    """

    graded: ClassVar[Graded] = "soft target"

    def __init__(
        self, temperature: float = 0.1, *, bias: float = -10.0, direction_weights: tuple[float, float] = (1.0, 1.0)
    ) -> None:
        super().__init__(direction_weights)
        self.scale = LogitScale(temperature, learn=True)
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    def row_terms(self, pairs: Pairs) -> Terms:
        """One term for each anchor with a valid pair."""
        bias = self.bias if self.bias.dtype == torch.float64 else self.bias.float()
        logits = self.scale() * pairs.score + bias
        entropy = F.softplus(logits) - pairs.relevance.clamp(0.0, 1.0) * logits
        return (pairs.weight * entropy).sum(dim=1), pairs.valid.any(dim=1).to(logits.dtype)
