"""Exact expectations of ranking metrics when the order is uniformly random and nothing is tied."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xmodal.metrics._common import BLOCK


def none_in_top(count: Int[Tensor, " queries"], candidates: int) -> Float[Tensor, " lengths"]:
    """Chance that the first 0, 1 ... n of a random list hold no right answer, as the mean over queries.

    C(n - r, m) / C(n, m) is the product of 1 - r / (n - i) over i < m.
    """
    counts, frequency = count.unique(return_counts=True)
    share = frequency.double() / len(count)
    left = candidates - torch.arange(candidates, device=count.device).double()
    none = torch.ones(candidates + 1, dtype=torch.float64, device=count.device)
    block = max(1, BLOCK // candidates)
    none[1:] = sum(
        weight @ (-part[:, None] / left).clamp(min=-1).log1p().cumsum(dim=1).exp()
        for part, weight in zip(counts.split(block), share.split(block), strict=True)
    )
    return none


def random_average_precision(count: Tensor, candidates: int | Tensor, k: int | Tensor) -> Float[Tensor, " n"]:
    """Expected average precision in the top ``k``, normalised by min(k, count)."""
    right = count.double()
    n = torch.as_tensor(candidates, device=count.device).double()
    cut = torch.as_tensor(k, device=count.device).double()
    harmonic = torch.digamma(cut + 1) - torch.digamma(torch.ones_like(cut))
    another = (right - 1) / (n - 1).clamp(min=1)
    return right / n * (harmonic + another * (cut - harmonic)) / torch.minimum(cut, right)
