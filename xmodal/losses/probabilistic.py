"""Losses that read a score as the probability that a pair belongs together."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Real
from torch import Tensor, nn

from xmodal.losses.base import Graded, Pairs, PairwiseLoss, Terms, make_pairs
from xmodal.losses.numerics import check_range, distance, log1mexp


class LatentCoincidenceLoss(PairwiseLoss):
    """Two noisy views coincide with a probability that falls like a Gaussian of their distance.

    ``log P = -d**2 / (2 spread) - offset``, where the spread is the sum of the coincidence's and both views' noise
    variances and the offset is what the noise costs even a perfect pair. The loss is the binary cross-entropy of P
    against relevance, positives and negatives averaged apart. The two towers' projections play the part of the
    model's linear maps; spread and offset are learned. Derived from the published model, of which no code is known.

    Args:
        spread: Start of the variance, in squared distance.
        offset: Start of the offset, above 0.

    References:
        Der and Saul, "Latent coincidence analysis: a hidden variable model for distance metric learning", NIPS 2012.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("3.01",)
    graded: ClassVar[Graded] = "soft target"
    directional: ClassVar[bool] = False

    def __init__(self, spread: float = 0.5, *, offset: float = 0.1) -> None:
        super().__init__()
        check_range("spread", spread, 0.0, low_open=True)
        check_range("offset", offset, 0.0, low_open=True)
        self.log_spread = nn.Parameter(torch.tensor(math.log(spread)))
        self.log_offset = nn.Parameter(torch.tensor(math.log(offset)))

    def row_terms(self, pairs: Pairs) -> Terms:
        """Positive pairs and negative pairs, averaged apart."""
        log_p = -distance(pairs.score, "squared") / (2 * self.log_spread.exp()) - self.log_offset.exp()
        right = pairs.relevance.clamp(0.0, 1.0)
        entropy = -right * log_p - (1.0 - right) * log1mexp(log_p)
        weights = (pairs.positive_weight, pairs.negative_weight)
        total = torch.stack([(weight * entropy).sum(dim=1) for weight in weights], dim=1)
        return total, torch.stack([weight.sum(dim=1) for weight in weights], dim=1)


class SeraphLoss(PairwiseLoss):
    """Known pairs get a logistic likelihood, unknown ones are asked to be decided.

    ``P = sigmoid(sharpness * (boundary - d**2))``; the loss is the mean cross-entropy over the pairs with
    ``valid=True`` plus ``unknown_weight`` times the mean binary entropy over the others. It is the one loss that looks
    at pairs that are not valid. The paper's trace norm belongs to the projections (weight decay).

    Args:
        boundary: Squared distance at which a pair is undecided.
        sharpness: Slope of the decision.
        unknown_weight: Weight of the entropy of unknown pairs.

    References:
        Niu et al., "Information-theoretic semi-supervised metric learning via entropy regularization", ICML 2012.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("3.02",)
    graded: ClassVar[Graded] = "soft target"
    directional: ClassVar[bool] = False

    def __init__(self, boundary: float = 1.5, *, sharpness: float = 1.0, unknown_weight: float = 0.1) -> None:
        super().__init__()
        check_range("boundary", boundary, 0.0, 4.0)
        check_range("sharpness", sharpness, 0.0, low_open=True)
        check_range("unknown_weight", unknown_weight, 0.0)
        self.boundary, self.sharpness, self.unknown_weight = boundary, sharpness, unknown_weight

    def forward(
        self,
        score: Float[Tensor, "audio text"],
        relevance: Real[Tensor, "audio text"],
        valid: Bool[Tensor, "audio text"] | None = None,
        weight: Real[Tensor, "audio text"] | None = None,
    ) -> Float[Tensor, ""]:
        """The known pairs' loss as in every class, and the unknown pairs' entropy."""
        known = super().forward(score, relevance, valid, weight)
        with torch.autocast(score.device.type, enabled=False):
            unknown = ~make_pairs(score, relevance, valid, weight).valid
            logits = self._logits(score.to(known.dtype)).masked_fill(~unknown, 0.0)
            entropy = F.softplus(logits) - torch.sigmoid(logits) * logits
            unknown = unknown.to(entropy.dtype)
            return known + self.unknown_weight * (unknown * entropy).sum() / unknown.sum().clamp(min=1.0)

    def row_terms(self, pairs: Pairs) -> Terms:
        """All known pairs."""
        logits = self._logits(pairs.score)
        entropy = F.softplus(logits) - pairs.relevance.clamp(0.0, 1.0) * logits
        return (pairs.weight * entropy).sum(dim=1), pairs.weight.sum(dim=1)

    def _logits(self, score: Tensor) -> Tensor:
        return self.sharpness * (self.boundary - distance(score, "squared"))
