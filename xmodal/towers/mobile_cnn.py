"""A small convolutional audio tower that trains fast on a CPU."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from xmodal.towers.base import AudioTower, frame_mask, only_if_padded, silence_padding
from xmodal.towers.mel import LogMel
from xmodal.towers.pooling import MeanMaxPool, TimePool
from xmodal.towers.spec_augment import SpecAugment

_CHANNELS = (32, 64, 128, 256)


class MobileCnn(AudioTower):
    """Four strided 3x3 convolutions, a convolution over all bands that are left, and pooling over time.

    Ordinary convolutions and not depth-wise ones: on a CPU with bfloat16 units these take half the time a step. The
    last convolution spans the bands, so the vector knows in which register something sounds, which an average over
    the bands would forget.

    Args:
        sample_rate: Samples a second of the waveforms.
        n_fft: Window of the spectrogram in samples.
        hop: Samples between two frames.
        bands: Mel bands.
        f_min: Lower edge of the lowest band in Hz.
        f_max: Upper edge of the highest band in Hz; ``None`` means the Nyquist frequency.
        width: Multiplies every number of channels.
        feature_dim: Length of the vectors.
        pooling: Pooling over time; ``None`` means :class:`MeanMaxPool`.
        augment: Blanked stripes in training; ``None`` means none.
    """

    def __init__(
        self,
        sample_rate: int = 16_000,
        n_fft: int = 1024,
        hop: int = 320,
        bands: int = 64,
        f_min: float = 0.0,
        f_max: float | None = None,
        width: float = 1.0,
        feature_dim: int = 512,
        pooling: TimePool | None = None,
        augment: SpecAugment | None = None,
    ) -> None:
        super().__init__(LogMel(sample_rate, n_fft, hop, bands, f_min, f_max), feature_dim)
        if width <= 0 or feature_dim < 1:
            raise ValueError(f"width and feature_dim must be positive, got {width} and {feature_dim}")
        self.augment = augment
        channels = [1, *(max(1, round(count * width)) for count in _CHANNELS)]
        self.blocks = nn.ModuleList(
            _Block(
                nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            )
            for before, after in pairwise(channels)
        )
        for _ in _CHANNELS:
            bands = (bands + 1) // 2
        self.head = _Block(
            nn.Conv2d(channels[-1], feature_dim, kernel_size=(bands, 1), bias=False),
            nn.BatchNorm2d(feature_dim),
            nn.ReLU(inplace=True),
        )
        self.pooling = pooling or MeanMaxPool()
        self.pooling.prepare(feature_dim)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it

    def encode(
        self, features: Float[Tensor, "clips bands frames"], valid_frames: Int[Tensor, " clips"] | None = None
    ) -> Float[Tensor, "clips feature_dim"]:
        """Feature vectors of the first ``valid_frames`` frames of each clip."""
        return self.from_maps(*self.depth_maps(features, valid_frames)[-1])

    def depth_maps(
        self, features: Float[Tensor, "clips bands frames"], valid_frames: Int[Tensor, " clips"] | None = None
    ) -> list[tuple[Tensor, Tensor | None]]:
        """The maps behind each block."""
        valid_frames = only_if_padded(valid_frames, features.shape[-1])
        if self.augment is not None:
            features = self.augment(features, valid_frames)
        maps = features[:, None].contiguous(memory_format=torch.channels_last)
        depths = []
        for block in self.blocks:
            maps = block(silence_padding(maps, valid_frames))
            valid_frames = None if valid_frames is None else (valid_frames + 1) // 2
            depths.append((maps, valid_frames))
        return depths

    def from_maps(
        self, maps: Float[Tensor, "clips channels bands frames"], valid_frames: Int[Tensor, " clips"] | None
    ) -> Float[Tensor, "clips feature_dim"]:
        """The convolution over all bands, and pooling."""
        frames = self.head(maps).squeeze(2)
        return self.pooling(frames, None if valid_frames is None else frame_mask(valid_frames, frames.shape[-1]))

    def identity(self) -> dict[str, Any]:
        """The front end and the pooling."""
        return super().identity() | {"pooling": type(self.pooling).__name__}


class _Block(nn.Sequential):
    """A convolution, its batch normalisation, and what follows."""

    folds = (("0", "1"),)
