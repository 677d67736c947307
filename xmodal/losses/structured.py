"""Losses that set a positive pair against the negatives of both of its ends, or pairs against their batch."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from xmodal.losses.base import Pairs, PairwiseLoss, Terms
from xmodal.losses.numerics import EMPTY, check_range, distance, masked_logsumexp, weighted_mean


class LiftedStructureLoss(PairwiseLoss):
    """Each positive pair against all negatives of its audio and all negatives of its text at once.

    With Euclidean distances d, ``J_ij = d_ij + log(sum_N(i) exp(margin - d_ik) + sum_N(j) exp(margin - d_kj))`` and the
    loss is the mean of ``max(0, J)**2 / 2`` over the positive pairs that have a negative at either end.

    Args:
        margin: Distance that negatives should keep.

    References:
        Oh Song et al., "Deep metric learning via lifted structured feature embedding", CVPR 2016.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("1.04",)
    directional: ClassVar[bool] = False

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        check_range("margin", margin, 0.0)
        self.margin = margin

    def one_direction(self, pairs: Pairs) -> Float[Tensor, ""]:
        """Mean over positive pairs; a pair looks along its row and its column."""
        away = distance(pairs.score, "euclidean")
        rows = masked_logsumexp(self.margin - away, pairs.negative_weight)
        columns = masked_logsumexp(self.margin - away.T, pairs.negative_weight.T)
        against = torch.logaddexp(rows[:, None], columns[None, :])
        weight = pairs.positive_weight * (against > EMPTY / 2)
        return weighted_mean(F.relu(away + against).square() / 2, weight)


class GeneralizedLiftedLoss(PairwiseLoss):
    """All positives of an anchor against all its negatives, both by log-sum-exp.

    With Euclidean distances d, the term of an anchor is ``max(0, log sum_P exp(d) + log sum_N exp(margin - d))``;
    terms are the anchors with a positive and a negative.

    Args:
        margin: Distance between positives and negatives.
        direction_weights: Weights of audio-to-text and text-to-audio.

    References:
        Hermans, Beyer and Leibe, "In defense of the triplet loss for person re-identification", 2017.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("1.04",)

    def __init__(self, margin: float = 1.0, *, direction_weights: tuple[float, float] = (1.0, 1.0)) -> None:
        super().__init__(direction_weights)
        check_range("margin", margin, 0.0)
        self.margin = margin

    def row_terms(self, pairs: Pairs) -> Terms:
        """One term for each anchor with a positive and a negative."""
        away = distance(pairs.score, "euclidean")
        near = masked_logsumexp(away, pairs.positive_weight)
        far = masked_logsumexp(self.margin - away, pairs.negative_weight)
        counted = pairs.has_positive & pairs.has_negative
        return torch.where(counted, F.relu(near + far), 0.0), counted.to(away.dtype)


class TupletMarginLoss(PairwiseLoss):
    """A positive pair against all negatives of its anchor, with a margin on the angle.

    With theta the angle of a positive pair, its term is
    ``log(1 + sum_N exp(scale (s_n - cos(theta - margin))))``; terms are the positive pairs whose anchor has a negative.

    Args:
        scale: Sharpness.
        margin_degrees: Slack on the positive's angle.
        direction_weights: Weights of audio-to-text and text-to-audio.

    References:
        Yu and Tao, "Deep metric learning with tuplet margin loss", ICCV 2019.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("4.11",)

    def __init__(
        self,
        scale: float = 64.0,
        *,
        margin_degrees: float = 5.73,
        direction_weights: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        super().__init__(direction_weights)
        check_range("scale", scale, 0.0, low_open=True)
        check_range("margin_degrees", margin_degrees, 0.0, 90.0)
        self.scale, self.margin_degrees = scale, margin_degrees

    def row_terms(self, pairs: Pairs) -> Terms:
        """One term for each positive pair whose anchor has a negative."""
        cosine, margin = pairs.score, math.radians(self.margin_degrees)
        # cos(theta - margin) without acos, whose slope at a cosine of 1 is infinite.
        sine = (1.0 - cosine.square()).clamp(min=1e-12).sqrt()
        eased = cosine * math.cos(margin) + sine * math.sin(margin)
        against = masked_logsumexp(self.scale * cosine, pairs.negative_weight)
        weight = pairs.positive_weight * pairs.has_negative[:, None]
        term = F.softplus(against[:, None] - self.scale * eased)
        return (weight * term).sum(dim=1), weight.sum(dim=1)


class IntraPairVarianceLoss(PairwiseLoss):
    """Positives that fall below the positives' mean cosine, and negatives that rise above theirs.

    ``mean_P max(0, (1 - spread) mu_P - s)**2 + mean_N max(0, s - (1 + spread) mu_N)**2`` with the batch's own means:
    a regulariser beside another loss, since it does not tell positives from negatives.

    Args:
        positive_spread: Part of the positives' mean by which a positive may fall below it.
        negative_spread: Part of the negatives' mean by which a negative may rise above it.

    References:
        Yu and Tao, "Deep metric learning with tuplet margin loss", ICCV 2019.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("4.11",)
    directional: ClassVar[bool] = False

    def __init__(self, positive_spread: float = 0.01, negative_spread: float = 0.01) -> None:
        super().__init__()
        check_range("positive_spread", positive_spread, 0.0, 1.0)
        check_range("negative_spread", negative_spread, 0.0, 1.0)
        self.positive_spread, self.negative_spread = positive_spread, negative_spread

    def one_direction(self, pairs: Pairs) -> Float[Tensor, ""]:
        """Both variances over the whole batch."""
        below = (1 - self.positive_spread) * weighted_mean(pairs.score, pairs.positive_weight) - pairs.score
        above = pairs.score - (1 + self.negative_spread) * weighted_mean(pairs.score, pairs.negative_weight)
        near = weighted_mean(F.relu(below).square(), pairs.positive_weight)
        return near + weighted_mean(F.relu(above).square(), pairs.negative_weight)
