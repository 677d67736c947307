"""From a tower's features to the joint space: one projection, several in parts, and centring."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from xmodal.configurable import Configurable


class Centring(nn.BatchNorm1d):
    """Batch normalisation without a gain: every dimension of the joint space has mean 0 and variance 1 over a batch.

    Vectors of a network that has just been made lie in a narrow cone, each tower's in another (Liang et al., "Mind the
    gap", NeurIPS 2022), and a loss spends its first hundreds of steps on opening it. Outside of training the running
    mean and variance are used, so that an item's vector depends on the item alone.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim, affine=False)

    def forward(self, vectors: Float[Tensor, "items dim"]) -> Float[Tensor, "items dim"]:
        """The vectors in float32, centred; a single one in training by the running values, as it has no variance."""
        vectors = vectors.float()
        if self.training and len(vectors) < 2:
            return batch_norm(vectors, self.running_mean, self.running_var, eps=self.eps)
        return super().forward(vectors)


class Projection(nn.Module, Configurable):
    """From a tower's features to the joint space, before normalisation.

    Args:
        inputs: Width of the tower's features.
        outputs: Dimension of the joint space.
        hidden: Width of one hidden layer with GELU and layer normalisation; None for a linear map.
        dropout: Share of hidden units dropped in training.
        centred: End with a :class:`Centring`.
    """

    def __init__(
        self, inputs: int, outputs: int, hidden: int | None = None, dropout: float = 0.0, centred: bool = False
    ) -> None:
        super().__init__()
        self.layers: nn.Module
        if hidden is None:
            self.layers = nn.Linear(inputs, outputs, bias=False)
        else:
            self.layers = nn.Sequential(
                nn.Linear(inputs, hidden),
                nn.GELU(),
                nn.LayerNorm(hidden),
                nn.Dropout(dropout),
                nn.Linear(hidden, outputs),
            )
        self.centring = Centring(outputs) if centred else nn.Identity()

    def forward(self, features: Float[Tensor, "items inputs"]) -> Float[Tensor, "items outputs"]:
        """Map features to the joint space; not normalised."""
        projected: Tensor = self.centring(self.layers(features))
        return projected

    def identity(self) -> dict[str, Any]:
        """What shapes a vector besides the weights; models from before there was a centring keep theirs."""
        arguments: dict[str, Any] = self.config["init_args"]
        return {name: value for name, value in arguments.items() if name != "centred" or value}


class PartedProjection(nn.Module, Configurable):
    """A projection for each of the equal parts of the features: part k of the output has seen part k of them alone.

    Args:
        inputs: Width of the tower's features.
        outputs: Dimension of the joint space.
        parts: Number of parts.
        hidden: Width of the hidden layers together; None for linear maps.
        dropout: Share of hidden units dropped in training.
        centred: End each part with a :class:`Centring`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        parts: int,
        hidden: int | None = None,
        dropout: float = 0.0,
        centred: bool = False,
    ) -> None:
        super().__init__()
        for name, width in (("the tower's features", inputs), ("dim", outputs), ("audio_hidden", hidden or 0)):
            if width % parts:
                raise ValueError(f"{name} must be a multiple of audio_parts={parts}, got {width}")
        each = None if hidden is None else hidden // parts
        self.parts = nn.ModuleList(
            Projection(inputs // parts, outputs // parts, each, dropout, centred) for _ in range(parts)
        )

    def forward(self, features: Float[Tensor, "items inputs"]) -> Float[Tensor, "items outputs"]:
        """Map features to the joint space part by part; not normalised."""
        split = features.chunk(len(self.parts), dim=1)
        return torch.cat([project(part) for project, part in zip(self.parts, split, strict=True)], dim=1)

    def identity(self) -> dict[str, Any]:
        """What shapes a vector besides the weights."""
        return dict(self.config["init_args"])
