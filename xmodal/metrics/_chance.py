"""Exact expectations of ranking metrics when the order is uniformly random and nothing is tied."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xmodal.metrics._common import BLOCK


def none_in_top(count: Int[Tensor, "*n"], candidates: int, k: int | Tensor) -> Float[Tensor, "*n"]:
    """Chance that a random top ``k`` holds none of ``count`` right answers: C(n - count, k) / C(n, k)."""
    wrong = candidates - count.double()
    top = torch.as_tensor(k, device=count.device).double()
    n = torch.as_tensor(candidates, device=count.device).double()
    remaining = (wrong - top).clamp(min=0)  # where it is negative the answer is 0, set below
    log = torch.lgamma(wrong + 1) - torch.lgamma(remaining + 1) + torch.lgamma(n - top + 1) - torch.lgamma(n + 1)
    return log.exp().masked_fill(wrong < top, 0)


def random_first_place(count: Int[Tensor, " judged"], candidates: int) -> tuple[float, float]:
    """Median place and mean reciprocal place of the first right answer in random lists."""
    counts, frequency = count.unique(return_counts=True)
    share = frequency.double() / len(count)
    top = torch.arange(candidates + 1, device=count.device)
    none = torch.zeros(candidates + 1, dtype=torch.float64, device=count.device)
    block = max(1, BLOCK // candidates)
    for part, weight in zip(counts.split(block), share.split(block), strict=True):
        none += weight @ none_in_top(part[:, None], candidates, top)
    reciprocal = float(((none[:-1] - none[1:]) / top[1:]).sum())
    # Rounding through logarithms must not push a chance of exactly one half to the next place.
    return float((none <= 0.5 + 1e-9).nonzero()[0]), reciprocal


def random_average_precision(count: Tensor, candidates: int | Tensor, k: int | Tensor) -> Float[Tensor, " n"]:
    """Expected average precision in the top ``k``, normalised by min(k, count)."""
    right = count.double()
    n = torch.as_tensor(candidates, device=count.device).double()
    cut = torch.as_tensor(k, device=count.device).double()
    harmonic = torch.digamma(cut + 1) - torch.digamma(torch.ones_like(cut))
    another = (right - 1) / (n - 1).clamp(min=1)
    return right / n * (harmonic + another * (cut - harmonic)) / torch.minimum(cut, right)
