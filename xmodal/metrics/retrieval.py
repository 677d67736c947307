"""Retrieval metrics of a score matrix, each one call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from xmodal.metrics._common import median
from xmodal.metrics.places import rank
from xmodal.metrics.ranking import KS, WithoutRight


def recall_at_k(score: Tensor, relevance: Tensor, k: int, *, without_right: WithoutRight = "refuse") -> float:
    """Share of queries with at least one right answer among the top ``k``. Arguments and errors as :func:`rank`."""
    return float(rank(score, relevance, without_right=without_right).hit(k).mean())


def median_rank(score: Tensor, relevance: Tensor, *, without_right: WithoutRight = "refuse") -> float:
    """Median over queries of the best right answer's place, from 1; between two middle places, their mean."""
    return median(rank(score, relevance, without_right=without_right).first_place())


def mean_reciprocal_rank(score: Tensor, relevance: Tensor, *, without_right: WithoutRight = "refuse") -> float:
    """Mean over queries of 1 / the best right answer's place."""
    return float(rank(score, relevance, without_right=without_right).reciprocal_rank().mean())


def map_at_k(
    score: Tensor, relevance: Tensor, k: int | None = None, *, without_right: WithoutRight = "refuse"
) -> float:
    """Mean average precision in the top ``k``, or in the whole list; normalised by min(k, number of right answers)."""
    return float(rank(score, relevance, without_right=without_right).average_precision(k).mean())


def map_at_r(score: Tensor, relevance: Tensor, *, without_right: WithoutRight = "refuse") -> float:
    """Mean average precision in each query's top R, R = its right answers (Musgrave et al., ECCV 2020)."""
    return float(rank(score, relevance, without_right=without_right).average_precision_at_r().mean())


def precision_at_k(score: Tensor, relevance: Tensor, k: int, *, without_right: WithoutRight = "refuse") -> float:
    """Mean share of right answers among the top ``k``."""
    return float(rank(score, relevance, without_right=without_right).precision(k).mean())


def r_precision(score: Tensor, relevance: Tensor, *, without_right: WithoutRight = "refuse") -> float:
    """Mean precision at k = each query's own number of right answers."""
    return float(rank(score, relevance, without_right=without_right).r_precision().mean())


def ndcg_at_k(score: Tensor, relevance: Tensor, k: int, *, without_right: WithoutRight = "refuse") -> float:
    """Normalised discounted cumulative gain of the top ``k``: grades as gains, discount log2(1 + place)."""
    return float(rank(score, relevance, without_right=without_right).ndcg(k).mean())


def retrieval_metrics(
    score: Float[Tensor, "queries candidates"],
    relevance: Shaped[Tensor, "queries candidates"],
    ks: Sequence[int] = KS,
    *,
    without_right: WithoutRight = "refuse",
) -> dict[str, float]:
    """The usual table of one direction: R@k for each k, MedR, MRR, mAP@k, MAP@R and nDCG@k (longest k).

    Args:
        score: Similarities, higher is better. Finite.
        relevance: Right answers, bool, or grades from 0.
        ks: Lengths of the result list, each from 1 to the number of candidates.
        without_right: What to do with a query that has no right answer.

    Raises:
        ValueError: As :func:`rank`, and if a k is out of range.
    """
    return summary(rank(score, relevance, without_right=without_right).values(ks))


def summary(values: dict[str, Float[Tensor, " judged"]]) -> dict[str, float]:
    """Figures of a table of per-query values: the median for "MedR", the mean for everything else."""
    return {name: median(value) if name == "MedR" else float(value.mean()) for name, value in values.items()}


def chance(
    relevance: Shaped[Tensor, "queries candidates"],
    ks: Sequence[int] = KS,
    *,
    without_right: WithoutRight = "refuse",
) -> dict[str, float]:
    """Expected metrics of a uniformly random order without ties, by the names of :func:`retrieval_metrics`.

    With n candidates of which r are right, H the harmonic numbers, and the mean taken over queries:

    * R@k: ``1 - C(n-r, k) / C(n, k)``
    * MRR: ``sum_m 1/m (S(m-1) - S(m))`` with ``S(m) = C(n-m, r) / C(n, r)``, the chance that no right answer is
      among the first m
    * MedR: the smallest m with a mean ``S(m)`` of at most 1/2 (the median of the first place over all queries)
    * mAP@k: ``r/n (H_k + (r-1)/(n-1) (k - H_k)) / min(k, r)``, since place i is right with probability r/n and each
      place before it then with (r-1)/(n-1); MAP@R: the same with k = r
    * nDCG@k: ``mean grade * sum_{i<=k} 1/log2(1+i) / ideal``

    All but MedR are exact expectations.

    Raises:
        ValueError: As :func:`rank`, and if a k is out of range.
    """
    constant = torch.zeros((), device=relevance.device).expand(relevance.shape)
    return rank(constant, relevance, without_right=without_right).chance(ks)
