"""The short-chunk CNN with residual connections (Won et al. 2020, arXiv:2006.00751)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from xmodal.towers.base import AudioTower, frame_mask, only_if_padded, silence_padding
from xmodal.towers.mel import LogMel
from xmodal.towers.pooling import MaxPool, TimePool
from xmodal.towers.spec_augment import SpecAugment


class ShortChunkResNet(AudioTower):
    """Seven residual blocks that each halve time and frequency, then pooling over what is left of time.

    The layers and their sizes are the published ones, without the two dense layers that name tags: the vectors are
    what these would see. The window of the spectrogram is 1,024 samples and not 512, with which the lowest of the
    128 bands would hold no bin of the FFT.

    Args:
        sample_rate: Samples a second of the waveforms.
        n_fft: Window of the spectrogram in samples.
        hop: Samples between two frames.
        bands: Mel bands.
        f_min: Lower edge of the lowest band in Hz.
        f_max: Upper edge of the highest band in Hz; ``None`` means the Nyquist frequency.
        channels: Channels of the first block; the later ones have up to four times as many.
        pooling: Pooling over time; ``None`` means the published :class:`MaxPool`.
        augment: Blanked stripes in training; ``None`` means none.
    """

    def __init__(
        self,
        sample_rate: int = 16_000,
        n_fft: int = 1024,
        hop: int = 256,
        bands: int = 128,
        f_min: float = 0.0,
        f_max: float | None = None,
        channels: int = 128,
        pooling: TimePool | None = None,
        augment: SpecAugment | None = None,
    ) -> None:
        super().__init__(LogMel(sample_rate, n_fft, hop, bands, f_min, f_max), 4 * channels)
        self.augment = augment
        self.spec_bn = nn.BatchNorm2d(1)
        sizes = (1, channels, channels, 2 * channels, 2 * channels, 2 * channels, 2 * channels, 4 * channels)
        self.blocks = nn.ModuleList(_Block(before, after) for before, after in pairwise(sizes))
        self.pooling = pooling or MaxPool()
        self.pooling.prepare(4 * channels)
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
        maps = self.spec_bn(features[:, None])
        if self.augment is not None:
            maps = self.augment(maps[:, 0], valid_frames)[:, None]
        maps = maps.contiguous(memory_format=torch.channels_last)
        depths = []
        for block in self.blocks:
            maps = block(maps, valid_frames)
            valid_frames = None if valid_frames is None else (valid_frames + 1) // 2
            depths.append((maps, valid_frames))
        return depths

    def from_maps(
        self, maps: Float[Tensor, "clips channels bands frames"], valid_frames: Int[Tensor, " clips"] | None
    ) -> Float[Tensor, "clips feature_dim"]:
        """Pooling over time."""
        # 128 bands are one after seven halvings; other numbers of bands leave a few, of which the loudest counts.
        series = maps.amax(dim=2)
        return self.pooling(series, None if valid_frames is None else frame_mask(valid_frames, series.shape[-1]))

    def identity(self) -> dict[str, Any]:
        """The front end and the pooling."""
        return super().identity() | {"pooling": type(self.pooling).__name__}


class _Block(nn.Module):
    """Two 3x3 convolutions, the first of stride 2, beside a strided 3x3 convolution of the input."""

    folds = (("conv_1", "bn_1"), ("conv_2", "bn_2"), ("conv_3", "bn_3"))

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(before, after, 3, stride=2, padding=1)
        self.bn_1 = nn.BatchNorm2d(after)
        self.conv_2 = nn.Conv2d(after, after, 3, padding=1)
        self.bn_2 = nn.BatchNorm2d(after)
        self.conv_3 = nn.Conv2d(before, after, 3, stride=2, padding=1)
        self.bn_3 = nn.BatchNorm2d(after)

    def forward(self, maps: Tensor, valid_frames: Tensor | None) -> Tensor:
        maps = silence_padding(maps, valid_frames)
        half = None if valid_frames is None else (valid_frames + 1) // 2
        inner = silence_padding(F.relu(self.bn_1(self.conv_1(maps))), half)
        return F.relu(self.bn_2(self.conv_2(inner)) + self.bn_3(self.conv_3(maps)))
