"""Do probabilities mean what they say? Errors and reliability curves over judged pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Bins = Literal["equal_mass", "equal_width"]


@dataclass(frozen=True)
class Reliability:
    """Predicted against observed, bin by bin; empty bins are left out.

    Attributes:
        predicted: Mean probability of each bin's pairs.
        observed: Share of right pairs among them.
        count: How many pairs.
    """

    predicted: Float[Tensor, " bins"]
    observed: Float[Tensor, " bins"]
    count: Int[Tensor, " bins"]

    def error(self) -> float:
        """Expected calibration error: mean of |predicted - observed|, weighted by count (Naeini et al., AAAI 2015)."""
        return float(((self.predicted - self.observed).abs() * self.count).sum() / self.count.sum())


def reliability(
    probability: Float[Tensor, "tracks tags"],
    relevance: Bool[Tensor, "tracks tags"],
    valid: Bool[Tensor, "tracks tags"] | None = None,
    *,
    bins: int = 15,
    binning: Bins = "equal_mass",
) -> Reliability:
    """Reliability curve over all judged pairs.

    Args:
        probability: From 0 to 1, of any shape.
        relevance: What was true, of the same shape.
        valid: Pairs that may be judged. None: all.
        bins: How many.
        binning: "equal_mass" puts as many pairs into each bin (tags are rare, and bins of equal width would put
            nearly all pairs into the first); "equal_width" is [0, 1/bins), ... [1 - 1/bins, 1].

    Raises:
        ValueError: If there is nothing to judge, shapes differ, ``bins`` is below 1 or a probability is outside [0, 1].
    """
    chosen, right = _judged(probability, relevance, valid)
    if bins < 1 or binning not in ("equal_mass", "equal_width"):
        raise ValueError(f"bins must be at least 1 and binning equal_mass or equal_width, got {bins} and {binning!r}")
    order = chosen.argsort(stable=True)
    chosen, right = chosen[order], right[order]
    if binning == "equal_mass":
        bin_of = torch.arange(len(chosen)) * bins // len(chosen)
    else:
        bin_of = (chosen * bins).long().clamp(max=bins - 1)
    count = torch.bincount(bin_of, minlength=bins)
    predicted, observed = (torch.bincount(bin_of, weights, minlength=bins) for weights in (chosen, right))
    filled = count > 0
    return Reliability(predicted[filled] / count[filled], observed[filled] / count[filled], count[filled])


def expected_calibration_error(
    probability: Tensor, relevance: Tensor, valid: Tensor | None = None, *, bins: int = 15, binning: Bins = "equal_mass"
) -> float:
    """:meth:`Reliability.error` of :func:`reliability`; 0 is perfect."""
    return reliability(probability, relevance, valid, bins=bins, binning=binning).error()


def brier_score(probability: Tensor, relevance: Tensor, valid: Tensor | None = None) -> float:
    """Mean squared difference of probability and truth over judged pairs (Brier 1950)."""
    chosen, right = _judged(probability, relevance, valid)
    return float((chosen - right).square().mean())


def log_loss(probability: Tensor, relevance: Tensor, valid: Tensor | None = None) -> float:
    """Mean negative log-likelihood of judged pairs, in nats; probabilities are kept 1e-7 away from 0 and 1."""
    chosen, right = _judged(probability, relevance, valid)
    chosen = chosen.clamp(1e-7, 1 - 1e-7)
    return float(-(right * chosen.log() + (1 - right) * (-chosen).log1p()).mean())


def _judged(probability: Tensor, relevance: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    if probability.shape != relevance.shape or (valid is not None and valid.shape != probability.shape):
        raise ValueError(
            f"probability, relevance and valid must have one shape, got {tuple(probability.shape)}, "
            f"{tuple(relevance.shape)}" + ("" if valid is None else f" and {tuple(valid.shape)}")
        )
    keep = torch.ones_like(relevance, dtype=torch.bool) if valid is None else valid
    chosen, right = probability[keep].double(), (relevance[keep] > 0).double()
    if not len(chosen) or not bool(((chosen >= 0) & (chosen <= 1)).all()):
        raise ValueError("probabilities must be from 0 to 1 and at least one pair must be judged")
    return chosen, right
