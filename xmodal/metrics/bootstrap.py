"""Confidence intervals of means and medians of per-query values."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xmodal.metrics._common import BLOCK


def bootstrap_interval(
    values: Float[Tensor, " judged"],
    *,
    statistic: Literal["mean", "median"] = "mean",
    groups: Int[Tensor, " judged"] | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean or median of per-query values (Efron 1979).

    Queries are drawn again with replacement while the candidates stay: the interval says how much the figure depends
    on the choice of queries, not on the choice of the catalogue. Queries that belong together (five captions of one
    track, takes of one session) are not independent and would make it too narrow: name their group, and whole groups
    are drawn.

    Args:
        values: One finite value a query.
        statistic: What the interval is of.
        groups: A number for each value, equal for values that belong together; at least two different ones. None:
            every value by itself.
        confidence: Probability mass inside, between 0 and 1.
        resamples: How many times the queries are drawn.
        seed: The same seed gives the same interval.

    Returns:
        Lower and upper end.

    Raises:
        ValueError: If an argument is out of its range.
    """
    if values.ndim != 1 or not bool(values.isfinite().all()):
        raise ValueError(f"values must be one row of finite numbers, got shape {tuple(values.shape)}")
    if statistic not in ("mean", "median"):
        raise ValueError(f"statistic must be 'mean' or 'median', got {statistic!r}")
    if not 0 < confidence < 1 or resamples < 1:
        raise ValueError(
            f"confidence must be between 0 and 1 and resamples at least 1, got {confidence} and {resamples}"
        )
    values, order = values.detach().double().cpu().sort()
    group = torch.arange(len(values)) if groups is None else groups.cpu().unique(return_inverse=True)[1]
    if group.shape != values.shape:
        raise ValueError(f"groups must have one number for each of the {len(values)} values, got {len(group)}")
    many = len(group.unique())
    if many < 2:
        raise ValueError(f"an interval needs at least 2 values or groups to draw from, got {many}")
    group = group[order]
    generator = torch.Generator().manual_seed(seed)
    figures = []
    for part in torch.arange(resamples).split(max(1, BLOCK // len(values))):
        drawn = torch.randint(many, (len(part), many), generator=generator)
        times = torch.zeros(len(part), many, dtype=torch.float64)
        times.scatter_add_(1, drawn, torch.ones(drawn.shape, dtype=torch.float64))
        figures.append(_medians(values, times[:, group]) if statistic == "median" else _means(values, times[:, group]))
    tail = (1 - confidence) / 2
    low, high = torch.quantile(torch.cat(figures), torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high


def _means(values: Float[Tensor, " n"], times: Float[Tensor, "rounds n"]) -> Float[Tensor, " rounds"]:
    return times @ values / times.sum(dim=1)


def _medians(rising: Float[Tensor, " n"], times: Float[Tensor, "rounds n"]) -> Float[Tensor, " rounds"]:
    """Medians of the lists in which each value stands so many times."""
    up_to = times.cumsum(dim=1)
    total = up_to[:, -1:]
    middle = torch.cat([((total - 1) / 2).floor(), (total / 2).floor()], dim=1)  # the same place for an odd total
    return rising[torch.searchsorted(up_to, middle, right=True)].mean(dim=1)
