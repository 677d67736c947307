"""Is one model better than another on the same queries, or was it luck?"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xmodal.metrics._common import BLOCK


class PairedTest(NamedTuple):
    """Mean of the differences, and how often chance makes one as large."""

    difference: float
    p_value: float


def paired_permutation_test(
    first: Float[Tensor, " queries"],
    second: Float[Tensor, " queries"],
    *,
    groups: Int[Tensor, " queries"] | None = None,
    resamples: int = 9999,
    seed: int = 0,
) -> PairedTest:
    """Two-sided paired permutation test of the mean difference of per-query values (Fisher 1935; Smucker et al. 2007).

    If the models were alike, each query's two values might as well be exchanged; the p-value is the share of random
    exchanges (the observed one counted among them) whose mean difference is at least as large in size. With up to 12
    groups all exchanges are tried.

    Args:
        first: A value for each query, such as ``Ranking.hit(10)`` of one model.
        second: Of the other model, on the same queries in the same order.
        groups: A number for each query, equal for queries that belong together, which are exchanged together. None:
            every query by itself.
        resamples: Random exchanges.
        seed: Of the exchanges.

    Returns:
        ``first`` - ``second``, and the p-value.

    Raises:
        ValueError: If the values are not two finite rows of one length, or ``resamples`` is below 1.
    """
    if first.ndim != 1 or first.shape != second.shape or not len(first) or resamples < 1:
        raise ValueError(
            f"two values for each query and at least 1 resample are needed, got {tuple(first.shape)}, "
            f"{tuple(second.shape)} and {resamples}"
        )
    difference = (first.double() - second.double()).cpu()
    if not bool(difference.isfinite().all()):
        raise ValueError("per-query values must be finite; leave out queries that one of the models has no value for")
    own = torch.arange(len(difference)) if groups is None else groups.cpu().unique(return_inverse=True)[1]
    if own.shape != difference.shape:
        raise ValueError(f"groups must have one number for each of the {len(difference)} queries, got {len(own)}")
    sums = torch.zeros(int(own.max()) + 1, dtype=torch.float64).index_add_(0, own, difference)
    observed = sums.sum().abs() - 1e-12 * sums.abs().sum()  # sums in another order differ by their rounding
    many = len(sums)
    if many <= 12:
        signs = 1 - 2 * (torch.arange(2**many)[:, None] >> torch.arange(many) & 1).double()
        p_value = float(((signs @ sums).abs() >= observed).double().mean())
    else:
        generator = torch.Generator().manual_seed(seed)
        as_large = 1
        for part in torch.arange(resamples).split(max(1, BLOCK // many)):
            signs = torch.randint(0, 2, (len(part), many), generator=generator).double() * 2 - 1
            as_large += int(((signs @ sums).abs() >= observed).sum())
        p_value = as_large / (resamples + 1)
    return PairedTest(float(difference.mean()), p_value)
