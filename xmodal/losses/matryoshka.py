"""Vectors that can be cut short: the same loss over the first 32, 64, 128 … dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor

from xmodal.losses.base import EmbeddingLoss, Graded, PairwiseLoss, apply_loss
from xmodal.losses.items import BatchItems


class MatryoshkaLoss(EmbeddingLoss):
    """A loss of the first dimensions, of more, and of all, added up.

    Trained so, the first dimensions say most, and a space may be cut after export: ``xmodal embed --dim 64``. Each
    length is brought to unit length by itself; the loss and what it learns (temperature, bias) serve all of them.

    Args:
        loss: A loss on scores or on vectors that does not ask for a width.
        dims: Lengths, rising; the last is the model's ``dim``.
        weights: One a length; None for 1 each. Their sum is brought to 1, so that what suits ``loss`` suits this.

    References:
        Kusupati et al., Matryoshka Representation Learning, NeurIPS 2022, https://arxiv.org/abs/2205.13147.
    """

    graded: ClassVar[Graded] = "by part"
    needs_norms: ClassVar[bool] = True

    def __init__(
        self,
        loss: PairwiseLoss | EmbeddingLoss,
        dims: Sequence[int] = (32, 64, 128, 256),
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        lengths = [int(dim) for dim in dims]
        if not lengths or lengths[0] < 1 or any(b <= a for a, b in pairwise(lengths)):
            raise ValueError(f"dims must be rising and at least 1, got {list(dims)}")
        shares = [1.0] * len(lengths) if weights is None else [float(weight) for weight in weights]
        if len(shares) != len(lengths) or min(shares) < 0 or not sum(shares) > 0:
            raise ValueError(f"weights must be one number a length, not negative, not all 0, got {weights}")
        self.loss, self.dims = loss, lengths
        self.weights = [share / sum(shares) for share in shares]

    def forward(
        self,
        audio: Float[Tensor, "audio dim"],
        text: Float[Tensor, "text dim"],
        relevance: Real[Tensor, "audio text"],
        valid: Bool[Tensor, "audio text"] | None = None,
        weight: Real[Tensor, "audio text"] | None = None,
        *,
        items: BatchItems | None = None,
    ) -> Float[Tensor, ""]:
        """The weighted sum over all lengths; arguments as in every loss, vectors of any norm.

        Raises:
            ValueError: If the last length is not the vectors' own, or a shape is not what the contract says.
        """
        if audio.ndim != 2 or audio.shape[1] != self.dims[-1]:
            raise ValueError(
                f"the last of dims must be the model's dim, got dims={self.dims} and vectors of shape "
                f"{list(audio.shape)}"
            )
        parts = [
            share * apply_loss(self.loss, audio[:, :dim], text[:, :dim], relevance, valid, weight, items=items)
            for dim, share in zip(self.dims, self.weights, strict=True)
        ]
        return torch.stack(parts).sum()
