"""The vectors of one side of a streamed loss, which are never all made unit vectors at once."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_SMALLEST_NORM = 1e-12

Given = tuple[Tensor, Tensor | None, Tensor | None]
"""Relevance, valid and weight of all pairs, or of a block of rows."""

Gradients = tuple[Tensor, Tensor]
"""Of the unit vectors of two sides."""


class Side:
    """The vectors of one side and their norms. Unit vectors are made block by block and never kept."""

    def __init__(self, vectors: Float[Tensor, "items dim"]) -> None:
        self.vectors = vectors
        norms = torch.linalg.vector_norm(vectors, dim=1)
        self.inverse = 1.0 / norms.clamp(min=_SMALLEST_NORM)
        self.turns = norms > _SMALLEST_NORM  # a vector of no length has no direction that could turn

    def __len__(self) -> int:
        return len(self.vectors)

    def unit(self, rows: slice) -> Float[Tensor, "rows dim"]:
        """Unit vectors of some of the items."""
        return self.vectors[rows] * self.inverse[rows, None]

    def in_place(self, gradient: Float[Tensor, "items dim"]) -> Float[Tensor, "items dim"]:
        """From the gradient of the unit vectors to that of the vectors."""
        rows_at_once = max(1, 2**15 // max(gradient.shape[1], 1))
        for start in range(0, len(self), rows_at_once):
            rows = slice(start, start + rows_at_once)
            unit, part = self.unit(rows), gradient[rows]
            along = torch.linalg.vecdot(unit, part) * self.turns[rows]
            part.addcmul_(unit, along[:, None], value=-1.0).mul_(self.inverse[rows, None])
        return gradient
