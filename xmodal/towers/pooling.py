"""Pooling over time: many frames to one vector, where padding has no say.

A pooling is made without knowing the network it will sit on (``AttentionPool(hidden=64)`` in a YAML file), so its
weights are made when the tower calls :meth:`TimePool.prepare` with the number of channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from xmodal.configurable import Configurable

_SKEWNESS_FLOOR = 0.1


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
        self.shares = nn.Softmax(dim=2)  # a module of its own for attention_of to listen to

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
        weights = self.shares(self.scorer(frames).masked_fill(~mask, -torch.inf))
        return (frames * weights).sum(dim=2)


@contextmanager
def attention_of(tower: nn.Module) -> Iterator[list[Float[Tensor, "clips frames"]]]:
    """The weights that a tower's :class:`AttentionPool` gives to the frames, call by call, while the context lasts.

    Raises:
        ValueError: If the tower does not pool by attention.
    """
    pool = next((module for module in tower.modules() if isinstance(module, AttentionPool)), None)
    if pool is None:
        raise ValueError(
            f"{type(tower).__name__} does not pool by attention; "
            "give it pooling: {class_path: xmodal.towers.AttentionPool}"
        )
    heard: list[Tensor] = []
    handle = pool.shares.register_forward_hook(lambda module, given, weights: heard.append(weights[:, 0]))
    try:
        yield heard
    finally:
        handle.remove()


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


class OrderStatisticsPool(TimePool):
    """Mean, standard deviation and skewness over time, each mapped and weighed clip by clip.

    The moments of order 1 to ``orders`` of every channel are mapped linearly, each to an equal part of the vector, and
    part k is multiplied by the root of a gate ``g_k``, a soft-max over the orders that a linear map reads off the mean.
    The product of two such vectors is ``sum_k sqrt(g_k g'_k) <m_k, m'_k>``: a sum of kernels on statistics of rising
    order, weighed by where the two clips lie. (The published metric is made of hand-made image features; this is its
    counterpart on frames.)

    Args:
        orders: 1 for the mean alone, 2 with the standard deviation, 3 with the skewness.

    References:
        Lu, Wang and Moulin, "Image set classification using holistic multiple order statistics features and localized
        multi-kernel metric learning", ICCV 2013.
    """

    def __init__(self, orders: int = 3) -> None:
        super().__init__()
        if not 1 <= orders <= 3:
            raise ValueError(f"orders must be from 1 to 3, got {orders}")
        self.orders = orders

    def prepare(self, channels: int) -> None:
        """Make a linear map an order and the gate."""
        super().prepare(channels)
        if channels < self.orders:
            raise ValueError(f"{self.orders} orders need as many channels at least, got {channels}")
        widths = [channels // self.orders + (k < channels % self.orders) for k in range(self.orders)]
        self.maps = nn.ModuleList(nn.Linear(channels, width) for width in widths)
        self.gate = nn.Linear(channels, self.orders)

    def pool(
        self, frames: Float[Tensor, "clips channels frames"], mask: Bool[Tensor, "clips 1 frames"]
    ) -> Float[Tensor, "clips channels"]:
        """Pool the valid frames by their statistics."""
        moments = order_statistics(frames, mask, self.orders)
        gates = self.gate(moments[0]).softmax(dim=1)
        parts = [
            each(moment) * gate.clamp(min=1e-6).sqrt()[:, None]
            for each, moment, gate in zip(self.maps, moments, gates.unbind(dim=1), strict=True)
        ]
        return torch.cat(parts, dim=1)


def order_statistics(
    frames: Float[Tensor, "clips channels frames"], mask: Bool[Tensor, "clips 1 frames"], orders: int
) -> list[Float[Tensor, "clips channels"]]:
    """Mean, standard deviation and skewness of each channel over the valid frames, as many as asked for.

    A deviation counts as 0.1 more in the skewness, added in squares.
    """
    count = mask.sum(dim=2)
    mean = frames.masked_fill(~mask, 0.0).sum(dim=2) / count
    centred = (frames - mean[:, :, None]).masked_fill(~mask, 0.0)
    variance = centred.square().sum(dim=2) / count
    deviation = (variance + 1e-8).sqrt()  # a constant channel has a slope too
    # The shape of a channel that hardly moves is rounding: without a floor it differs from batch to batch.
    skewness = (centred / (variance + _SKEWNESS_FLOOR**2).sqrt()[:, :, None]).pow(3).sum(dim=2) / count
    return [mean, deviation, skewness][:orders]


class AttentionEnsemblePool(TimePool):
    """Several learners, each with an attention mask of its own over the frames, side by side in one vector.

    Learner k multiplies the frames by ``sigmoid(W_k tanh(V_k x))``, a mask over channels and time, averages over the
    frames and maps the result to its part of the vector; the parts are of equal width. Keep them apart behind the
    tower with ``audio_parts``, judge each by :class:`xmodal.losses.EnsembleLoss`, and hold them apart with
    :class:`xmodal.losses.DiversityRegularizer`.

    Args:
        learners: Number of parts.
        hidden: Width of the small networks that make the masks.

    References:
        Kim et al., "Attention-based ensemble for deep metric learning", ECCV 2018.
    """

    def __init__(self, learners: int = 4, *, hidden: int = 64) -> None:
        super().__init__()
        if learners < 1 or hidden < 1:
            raise ValueError(f"learners and hidden must be at least 1, got {learners} and {hidden}")
        self.learners, self.hidden = learners, hidden

    def prepare(self, channels: int) -> None:
        """Make a mask network and a linear map for each learner."""
        super().prepare(channels)
        if channels % self.learners:
            raise ValueError(f"the channels must be a multiple of {self.learners} learners, got {channels}")
        self.masks = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(channels, self.hidden, 1), nn.Tanh(), nn.Conv1d(self.hidden, channels, 1), nn.Sigmoid()
            )
            for _ in range(self.learners)
        )
        self.maps = nn.ModuleList(nn.Linear(channels, channels // self.learners) for _ in range(self.learners))

    def pool(
        self, frames: Float[Tensor, "clips channels frames"], mask: Bool[Tensor, "clips 1 frames"]
    ) -> Float[Tensor, "clips channels"]:
        """Pool the valid frames once for each learner."""
        frames = frames.masked_fill(~mask, 0.0)
        count = mask.sum(dim=2)
        parts = [
            each((attention(frames) * frames).sum(dim=2) / count)
            for attention, each in zip(self.masks, self.maps, strict=True)
        ]
        return torch.cat(parts, dim=1)
