"""Pooling over time: many frames to one vector, where padding has no say.

A pooling is made without knowing the network it will sit on (``AttentionPool(hidden=64)`` in a YAML file), so its
weights are made when the tower calls :meth:`TimePool.prepare` with the number of channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from xmodal.configurable import Configurable


class TimePool(nn.Module, Configurable, ABC):
    """Frames to one vector of as many channels."""

    channels: int | None = None

    def prepare(self, channels: int) -> None:
        """Make the weights for this many channels.

        Raises:
            ValueError: If the pooling already serves another tower.
        """
        if self.channels is not None:
            raise ValueError(f"this {type(self).__name__} already serves a tower; give each tower its own")
        self.channels = channels

    def forward(
        self,
        frames: Float[Tensor, "clips channels frames"],
        mask: Bool[Tensor, "clips frames"] | None = None,
    ) -> Float[Tensor, "clips channels"]:
        """Pool the frames where ``mask`` is True; all frames without a mask.

        Raises:
            ValueError: If a clip has no valid frame.
        """
        if mask is None:
            mask = frames.new_ones(frames.shape[0], frames.shape[2], dtype=torch.bool)
        elif not torch.compiler.is_compiling() and not bool(mask.any(dim=1).all()):
            empty = (~mask.any(dim=1)).nonzero().flatten().tolist()
            raise ValueError(f"every clip needs at least one valid frame; clips {empty} have none")
        return self.pool(frames, mask[:, None, :])

    @abstractmethod
    def pool(
        self, frames: Float[Tensor, "clips channels frames"], mask: Bool[Tensor, "clips 1 frames"]
    ) -> Float[Tensor, "clips channels"]:
        """Pool the frames where ``mask``, which has a True in every clip, is True."""


class MeanPool(TimePool):
    """The average over the valid frames."""

    def pool(
        self, frames: Float[Tensor, "clips channels frames"], mask: Bool[Tensor, "clips 1 frames"]
    ) -> Float[Tensor, "clips channels"]:
        """Average the valid frames."""
        return frames.masked_fill(~mask, 0.0).sum(dim=2) / mask.sum(dim=2)


class MaxPool(TimePool):
    """The largest value of each channel over the valid frames."""

    def pool(
        self, frames: Float[Tensor, "clips channels frames"], mask: Bool[Tensor, "clips 1 frames"]
    ) -> Float[Tensor, "clips channels"]:
        """Take the largest of the valid frames."""
        return frames.masked_fill(~mask, -torch.inf).amax(dim=2)


class MeanMaxPool(TimePool):
    """The sum of the average and the maximum, as in PANNs (Kong et al. 2020, arXiv:1912.10211)."""

    def pool(
        self, frames: Float[Tensor, "clips channels frames"], mask: Bool[Tensor, "clips 1 frames"]
    ) -> Float[Tensor, "clips channels"]:
        """Add the average and the maximum of the valid frames."""
        mean = frames.masked_fill(~mask, 0.0).sum(dim=2) / mask.sum(dim=2)
        return mean + frames.masked_fill(~mask, -torch.inf).amax(dim=2)


class AttentionPool(TimePool):
    """A weighted average whose weights a small network reads off each frame.

    The weight of frame ``t`` is ``softmax_t(w · tanh(V x_t))`` (Ilse et al. 2018, arXiv:1802.04712, equation 8).

    Args:
        hidden: Width of the small network.
    """

    def __init__(self, hidden: int = 128) -> None:
        super().__init__()
        if hidden < 1:
            raise ValueError(f"hidden must be at least 1, got {hidden}")
        self.hidden = hidden

    def prepare(self, channels: int) -> None:
        """Make the network that scores a frame of this many channels."""
        super().prepare(channels)
        self.scorer = nn.Sequential(
            nn.Conv1d(channels, self.hidden, 1), nn.Tanh(), nn.Conv1d(self.hidden, 1, 1, bias=False)
        )

    def pool(
        self, frames: Float[Tensor, "clips channels frames"], mask: Bool[Tensor, "clips 1 frames"]
    ) -> Float[Tensor, "clips channels"]:
        """Average the valid frames by their attention weights."""
        frames = frames.masked_fill(~mask, 0.0)
        weights = self.scorer(frames).masked_fill(~mask, -torch.inf).softmax(dim=2)
        return (frames * weights).sum(dim=2)


class AutoPool(TimePool):
    """A softmax-weighted average with a learned sharpness per channel (McFee et al. 2018, arXiv:1804.10070).

    The weight of frame ``t`` in channel ``c`` is ``softmax_t(alpha_c x_tc)``: 0 is the mean, infinity the maximum.

    Args:
        initial_alpha: Where the sharpness starts; the paper starts at 1.
    """

    def __init__(self, initial_alpha: float = 1.0) -> None:
        super().__init__()
        self.initial_alpha = initial_alpha

    def prepare(self, channels: int) -> None:
        """Make one sharpness a channel."""
        super().prepare(channels)
        self.alpha = nn.Parameter(torch.full((channels,), float(self.initial_alpha)))

    def pool(
        self, frames: Float[Tensor, "clips channels frames"], mask: Bool[Tensor, "clips 1 frames"]
    ) -> Float[Tensor, "clips channels"]:
        """Average the valid frames, the large values weighing more."""
        frames = frames.masked_fill(~mask, 0.0)
        weights = (self.alpha[:, None] * frames).masked_fill(~mask, -torch.inf).softmax(dim=2)
        return (frames * weights).sum(dim=2)


class SegmentPool(TimePool):
    """Averages over equal parts of the clip, one behind the other, and a linear map of all of them together.

    Other poolings forget what came first; with this one a vector can tell "one two" from "two one". A part of a clip
    that has fewer frames than parts takes the frame that lies there.

    Args:
        segments: Number of parts.
    """

    def __init__(self, segments: int = 4) -> None:
        super().__init__()
        if segments < 1:
            raise ValueError(f"segments must be at least 1, got {segments}")
        self.segments = segments

    def prepare(self, channels: int) -> None:
        """Make the map from this many channels in each part to as many in the vector."""
        super().prepare(channels)
        self.mix = nn.Linear(self.segments * channels, channels)

    def pool(
        self, frames: Float[Tensor, "clips channels frames"], mask: Bool[Tensor, "clips 1 frames"]
    ) -> Float[Tensor, "clips channels"]:
        """Average the valid frames of each part and mix the averages."""
        # The valid frames of a clip come first; each counts in the part that its middle lies in.
        place = mask.cumsum(dim=2) - 1  # [clips, 1, frames]
        count = mask.sum(dim=2, keepdim=True)
        edges = torch.arange(self.segments + 1, device=frames.device) / self.segments
        first = (edges[:-1] * count).floor()  # [clips, 1, segments]
        last = torch.maximum((edges[1:] * count).ceil(), first + 1)
        inside = (place[:, 0, :, None] >= first) & (place[:, 0, :, None] < last) & mask[:, 0, :, None]
        weight = inside / inside.sum(dim=1, keepdim=True)  # [clips, frames, segments]
        means = frames.masked_fill(~mask, 0.0) @ weight.to(frames.dtype)
        mixed: Tensor = self.mix(means.flatten(1))
        return mixed
