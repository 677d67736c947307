"""What the metrics share: checks, block size, sorting and the median."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

# Entries of a matrix worked on at once: 8 MB of float32, about 100 MB with the masks, copies and places of one step.
BLOCK = 2**21


def check_matrices(score: Tensor, relevance: Tensor, axes: str) -> None:
    """Refuse a score and a relevance that are not two matrices of one shape."""
    if score.ndim != 2 or score.numel() == 0 or score.shape != relevance.shape:
        raise ValueError(
            f"score and relevance must have one shape {axes} and not be empty, "
            f"got {tuple(score.shape)} and {tuple(relevance.shape)}"
        )
    if not score.is_floating_point():
        raise ValueError(f"score must be a floating-point tensor, got {score.dtype}; convert it with .float()")


def check_finite(score: Tensor) -> None:
    """Refuse NaN, which loses every comparison and so would pass for a candidate that no right answer has to beat."""
    # A finite sum is one quick pass and proof. Finite numbers may have an infinite one; then each is looked at.
    if not bool(score.sum().isfinite()) and not bool(score.isfinite().all()):
        raise ValueError("scores must be finite, got NaN or infinity; look for broken audio or a diverged model")


def sorted_rows(values: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """A copy with every row in rising order, half precision widened to float32."""
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()  # exact, so no ties are made or broken
    if values.device.type == "cpu":
        # torch's sort on a CPU always carries the indices along and takes ten times as long as NumPy's.
        return torch.from_numpy(np.sort(values.numpy(), axis=1))
    return values.sort(dim=1).values


def median(values: Float[Tensor, " n"]) -> float:
    """The middle value, or the mean of the two middle ones (of which ``torch.median`` would give the lower)."""
    ordered = sorted_rows(values[None])[0]
    return float(ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2
