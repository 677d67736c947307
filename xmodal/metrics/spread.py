"""How a set of vectors fills its space: its spectrum, and distances of right pairs against those of wrong ones.

Neither says whether a model is good; they say why it is not: directions that nobody uses, or classes drawn to points so
that new ones find no room.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def rho_spectrum(vectors: Float[Tensor, "items dim"]) -> float:
    """Kullback–Leibler divergence from even singular values to the vectors' own; 0 if every direction is used alike.

    The n = min(items, dim) singular values are divided by their sum: ``rho = sum_k (1 / n) log((1 / n) / s_k)``. Those
    below 1e-12 of the sum count as that (Roth et al., "Revisiting training strategies and generalization performance
    in deep metric learning", ICML 2020).

    Raises:
        ValueError: If there are no vectors, or all are 0.
    """
    if vectors.ndim != 2 or not vectors.numel() or not bool(vectors.any()):
        raise ValueError(f"the spectrum needs vectors that are not all 0, got shape {tuple(vectors.shape)}")
    values = torch.linalg.svdvals(vectors.double())
    share = (values / values.sum()).clamp(min=1e-12)
    return float((-share.log()).mean()) - float(torch.log(torch.tensor(float(len(share)), dtype=torch.float64)))


def distance_ratio(score: Float[Tensor, "audio text"], relevance: Bool[Tensor, "audio text"]) -> float:
    """Mean distance of the right pairs over that of the wrong ones, between unit vectors; NaN without one of the kinds.

    The pi ratio of Roth et al. (ICML 2020): near 0 where classes are points, near 1 where they are mixed.
    """
    away = (2.0 - 2.0 * score.double()).clamp(min=0.0).sqrt()
    return float(away[relevance].mean() / away[~relevance].mean())
