"""Vectors that mean nothing, the same in every run."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize


def unit(rows: int, dim: int = 6, seed: int = 0) -> Tensor:
    """Unit vectors [rows, dim], evenly over all directions."""
    return normalize(torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)), dim=1)
