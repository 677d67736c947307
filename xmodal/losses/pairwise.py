"""Losses whose terms are pairs: a penalty on each positive and on each negative score."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmodal.losses.base import Graded, Pairs, PairwiseLoss, Terms
from xmodal.losses.numerics import Distance, LogitScale, above_zero, check_choice, check_range, distance, weighted_mean

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
        near = distance(pairs.score, "squared") / 2 if whole else self._cost(away)
        far = self._cost(F.relu(self.margin - away))
        near_weight = pairs.positive_weight if pairs.plain else pairs.positive_weight * pairs.relevance
        far_weight = pairs.negative_weight
        total = [(near_weight * near).sum(dim=1), self.negative_weight * (far_weight * far).sum(dim=1)]
        if self.average == "active":  # a pair that costs nothing adds nothing to the total
            near_weight, far_weight = near_weight * above_zero(near), far_weight * above_zero(far)
        return torch.stack(total, dim=1), torch.stack([near_weight.sum(dim=1), far_weight.sum(dim=1)], dim=1)

    def _cost(self, away: Tensor) -> Tensor:
        return away if self.power == 1 else away.square() / 2


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


class BinomialDevianceLoss(PairwiseLoss):
    """A logistic penalty on every pair; the cost weighs negatives against positives.

    A positive costs ``softplus(-alpha (s - beta))`` and a negative ``softplus(alpha cost (s - beta))``; the two kinds
    are averaged apart and added. Graded relevance weighs the positives.

    Args:
        alpha: Sharpness.
        beta: The cosine that separates positives from negatives.
        cost: Factor on the negatives' sharpness.

    References:
        Yi, Lei and Li, "Deep metric learning for practical person re-identification", ICPR 2014.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("2.02",)
    graded: ClassVar[Graded] = "weight"
    directional: ClassVar[bool] = False

    def __init__(self, alpha: float = 2.0, beta: float = 0.5, *, cost: float = 25.0) -> None:
        super().__init__()
        check_range("alpha", alpha, 0.0, low_open=True)
        check_range("cost", cost, 0.0, low_open=True)
        self.alpha, self.beta, self.cost = alpha, beta, cost

    def row_terms(self, pairs: Pairs) -> Terms:
        """Positive pairs and negative pairs, averaged apart."""
        centred = self.alpha * (pairs.score - self.beta)
        near_weight, far_weight = pairs.positive_weight * pairs.relevance, pairs.negative_weight
        total = [
            (near_weight * F.softplus(-centred)).sum(dim=1),
            (far_weight * F.softplus(self.cost * centred)).sum(dim=1),
        ]
        return torch.stack(total, dim=1), torch.stack([near_weight.sum(dim=1), far_weight.sum(dim=1)], dim=1)


class MarginLoss(PairwiseLoss):
    """Positives within, negatives beyond a learned distance, both by a margin.

    A positive costs ``max(0, margin + d - beta)``, a negative ``max(0, margin + beta - d)``, with d the Euclidean
    distance; terms are the pairs of both kinds that cost something. Its sampler is
    :class:`xmodal.losses.DistanceWeightedMiner`.

    Args:
        margin: Half the width of the gap between positives and negatives.
        beta: Start of the boundary, or its value.
        learn_beta: Train it.
        nu: Weight of the boundary itself, which keeps a learned one from growing.

    References:
        Wu et al., "Sampling matters in deep embedding learning", ICCV 2017.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("1.09",)
    directional: ClassVar[bool] = False
    beta: Tensor

    def __init__(self, margin: float = 0.2, *, beta: float = 1.2, learn_beta: bool = True, nu: float = 0.0) -> None:
        super().__init__()
        check_range("margin", margin, 0.0)
        check_range("beta", beta, 0.0, 2.0)
        check_range("nu", nu, 0.0)
        self.margin, self.nu = margin, nu
        if learn_beta:
            self.beta = nn.Parameter(torch.tensor(float(beta)))
        else:
            self.register_buffer("beta", torch.tensor(float(beta)), persistent=False)

    def row_terms(self, pairs: Pairs) -> Terms:
        """Active pairs of both kinds, averaged together, and the boundary's own cost."""
        beyond = distance(pairs.score, "euclidean") - self.beta
        near, far = F.relu(self.margin + beyond), F.relu(self.margin - beyond)
        near_weight, far_weight = pairs.positive_weight * above_zero(near), pairs.negative_weight * above_zero(far)
        total = (near_weight * near + far_weight * far).sum(dim=1)
        judged = pairs.valid.any(dim=1).to(total.dtype)
        return (
            torch.stack([total, self.nu * self.beta * judged], dim=1),
            torch.stack([(near_weight + far_weight).sum(dim=1), judged], dim=1),
        )


class TripletUpperBoundLoss(PairwiseLoss):
    """A bound of the triplet loss that is linear in the batch, for anchors on fixed targets.

    The term of an anchor is its positives' mean distance minus a third of its negatives' mean distance. Made for a
    frozen side: text vectors that do not move, or orthonormal ones. Terms are the anchors with a positive.

    Args:
        direction_weights: Weights of audio-to-text and text-to-audio; (1, 0) with a frozen text tower.

    References:
        Do et al., "A theoretically sound upper bound on the triplet loss for improving the efficiency of deep distance
        metric learning", CVPR 2019.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("1.13",)

    def __init__(self, direction_weights: tuple[float, float] = (1.0, 0.0)) -> None:
        super().__init__(direction_weights)

    def row_terms(self, pairs: Pairs) -> Terms:
        """One term for each anchor with a positive."""
        away = distance(pairs.score, "euclidean")
        near, far = pairs.positive_weight, pairs.negative_weight
        term = weighted_mean(away, near, dim=1) - weighted_mean(away, far, dim=1) / 3
        counted = pairs.has_positive
        return torch.where(counted, term, 0.0), counted.to(term.dtype)


class RankedListLoss(PairwiseLoss):
    """Positives into a ball, negatives out of a larger one, the far-off negatives counting little.

    With Euclidean distances d, positives beyond ``alpha - margin`` cost their excess, weighted by
    ``exp(positive_sharpness * excess)``, and negatives within ``alpha`` their lack, weighted by
    ``exp(negative_sharpness * lack)``. An anchor's term is ``(1 - balance)`` times the first weighted mean plus
    ``balance`` times the second; anchors with a positive, and anchors with a negative, are averaged apart.

    Args:
        alpha: Distance beyond which negatives are left alone.
        margin: Positives are left alone within ``alpha - margin``.
        negative_sharpness: How much closer negatives count more.
        positive_sharpness: How much farther positives count more.
        balance: Share of the negatives, 0 to 1.
        direction_weights: Weights of audio-to-text and text-to-audio.

    References:
        Wang et al., "Ranked list loss for deep metric learning", CVPR 2019.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("1.14",)

    def __init__(
        self,
        alpha: float = 1.2,
        *,
        margin: float = 0.4,
        negative_sharpness: float = 10.0,
        positive_sharpness: float = 0.0,
        balance: float = 0.5,
        direction_weights: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        super().__init__(direction_weights)
        check_range("alpha", alpha, 0.0, 2.0, low_open=True)
        check_range("margin", margin, 0.0, alpha)
        check_range("balance", balance, 0.0, 1.0)
        self.alpha, self.margin, self.balance = alpha, margin, balance
        self.negative_sharpness, self.positive_sharpness = negative_sharpness, positive_sharpness

    def row_terms(self, pairs: Pairs) -> Terms:
        """Anchors with a positive and anchors with a negative, averaged apart."""
        away = distance(pairs.score, "euclidean")
        excess, lack = F.relu(away - (self.alpha - self.margin)), F.relu(self.alpha - away)
        near = pairs.positive_weight * above_zero(excess) * (self.positive_sharpness * excess).exp()
        far = pairs.negative_weight * above_zero(lack) * (self.negative_sharpness * lack).exp()
        terms = [
            (1 - self.balance) * weighted_mean(excess, near, dim=1),
            self.balance * weighted_mean(lack, far, dim=1),
        ]
        counted = torch.stack([pairs.has_positive, pairs.has_negative], dim=1)
        return torch.stack(terms, dim=1), counted.to(away.dtype)
