"""Cnn10 and Cnn14, the audio towers of PANNs (Kong et al. 2020, arXiv:1912.10211, table 1).

The front end, the layers and their sizes are the published ones, and ``load_published`` takes published weights.
Two things differ: the first and last frames of a clip see zeros beyond its ends and not its mirror image, and the
layer that names AudioSet's classes is left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from xmodal.errors import ModelError
from xmodal.towers.base import AudioTower, frame_mask, only_if_padded, silence_padding
from xmodal.towers.mel import LogMel
from xmodal.towers.pooling import MeanMaxPool, TimePool
from xmodal.towers.spec_augment import SpecAugment


class Cnn14(AudioTower):
    """Six blocks of two 3x3 convolutions, 80 million weights, vectors of 2,048.

    Args:
        sample_rate: Samples a second of the waveforms.
        n_fft: Window of the spectrogram in samples.
        hop: Samples between two frames.
        bands: Mel bands (Slaney's scale, filters of equal area).
        f_min: Lower edge of the lowest band in Hz.
        f_max: Upper edge of the highest band in Hz; ``None`` means the Nyquist frequency.
        dropout: Share of values dropped after each block in training.
        head_dropout: Share of values dropped before and after the last layer in training.
        pooling: Pooling over time; ``None`` means the published :class:`MeanMaxPool`.
        augment: Blanked stripes in training; ``None`` means none.
    """

    def __init__(
        self,
        sample_rate: int = 32_000,
        n_fft: int = 1024,
        hop: int = 320,
        bands: int = 64,
        f_min: float = 50.0,
        f_max: float | None = 14_000.0,
        dropout: float = 0.2,
        head_dropout: float = 0.5,
        pooling: TimePool | None = None,
        augment: SpecAugment | None = None,
    ) -> None:
        super().__init__(_front_end(sample_rate, n_fft, hop, bands, f_min, f_max), 2048)
        channels = (64, 128, 256, 512, 1024, 2048)
        self.network = _Network(channels, 5, bands, dropout, head_dropout, pooling or MeanMaxPool(), augment)

    def encode(
        self, features: Float[Tensor, "clips bands frames"], valid_frames: Int[Tensor, " clips"] | None = None
    ) -> Float[Tensor, "clips feature_dim"]:
        """Feature vectors of the first ``valid_frames`` frames of each clip."""
        return self.network(features, valid_frames)

    def load_published(self, weights: Mapping[str, Tensor]) -> None:
        """Take over the state dict of a published Cnn14.

        Raises:
            ModelError: If a weight is missing or of another shape.
        """
        self.network.load_published(weights)

    def identity(self) -> dict[str, Any]:
        """The front end and the pooling."""
        return super().identity() | {"pooling": type(self.network.pooling).__name__}


class Cnn10(AudioTower):
    """Four blocks of two 3x3 convolutions, 5 million weights, vectors of 512.

    Args:
        sample_rate: Samples a second of the waveforms.
        n_fft: Window of the spectrogram in samples.
        hop: Samples between two frames.
        bands: Mel bands (Slaney's scale, filters of equal area).
        f_min: Lower edge of the lowest band in Hz.
        f_max: Upper edge of the highest band in Hz; ``None`` means the Nyquist frequency.
        dropout: Share of values dropped after each block in training.
        head_dropout: Share of values dropped before and after the last layer in training.
        pooling: Pooling over time; ``None`` means the published :class:`MeanMaxPool`.
        augment: Blanked stripes in training; ``None`` means none.
    """

    def __init__(
        self,
        sample_rate: int = 32_000,
        n_fft: int = 1024,
        hop: int = 320,
        bands: int = 64,
        f_min: float = 50.0,
        f_max: float | None = 14_000.0,
        dropout: float = 0.2,
        head_dropout: float = 0.5,
        pooling: TimePool | None = None,
        augment: SpecAugment | None = None,
    ) -> None:
        super().__init__(_front_end(sample_rate, n_fft, hop, bands, f_min, f_max), 512)
        channels = (64, 128, 256, 512)
        self.network = _Network(channels, 4, bands, dropout, head_dropout, pooling or MeanMaxPool(), augment)

    def encode(
        self, features: Float[Tensor, "clips bands frames"], valid_frames: Int[Tensor, " clips"] | None = None
    ) -> Float[Tensor, "clips feature_dim"]:
        """Feature vectors of the first ``valid_frames`` frames of each clip."""
        return self.network(features, valid_frames)

    def load_published(self, weights: Mapping[str, Tensor]) -> None:
        """Take over the state dict of a published Cnn10.

        Raises:
            ModelError: If a weight is missing or of another shape.
        """
        self.network.load_published(weights)

    def identity(self) -> dict[str, Any]:
        """The front end and the pooling."""
        return super().identity() | {"pooling": type(self.network.pooling).__name__}


class _Network(nn.Module):
    """Input normalisation per band, blocks, mean over the bands, pooling over time, one dense layer.

    Args:
        channels: Channels of each block.
        halvings: Blocks that end in a 2x2 average; the published Cnn14 has none after its last.
        bands: Mel bands.
        dropout: After each block.
        head_dropout: Before and after the dense layer.
        pooling: Pooling over time.
        augment: Applied to the normalised input, where 0 is the mean of each band.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        halvings: int,
        bands: int,
        dropout: float,
        head_dropout: float,
        pooling: TimePool,
        augment: SpecAugment | None,
    ) -> None:
        super().__init__()
        if bands < 2**halvings:
            raise ValueError(f"{halvings} halvings need at least {2**halvings} bands, got {bands}")
        self.halvings = halvings
        self.bn0 = nn.BatchNorm1d(bands)
        self.augment = augment
        self.blocks = nn.ModuleList(_Block(before, after) for before, after in pairwise((1, *channels)))
        self.dropout, self.head_dropout = nn.Dropout(dropout), nn.Dropout(head_dropout)
        self.pooling = pooling
        self.pooling.prepare(channels[-1])
        self.fc1 = nn.Linear(channels[-1], channels[-1])
        nn.init.xavier_uniform_(self.fc1.weight)
        nn.init.zeros_(self.fc1.bias)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it

    def forward(self, features: Tensor, valid_frames: Tensor | None) -> Tensor:
        valid_frames = only_if_padded(valid_frames, features.shape[-1])
        features = self.bn0(features)
        if self.augment is not None:
            features = self.augment(features, valid_frames)
        # The halvings drop odd frames at the end, so a clip shorter than one output frame is padded up to one.
        clips, _, frames = features.shape
        missing = 2**self.halvings - frames
        if missing > 0:
            if valid_frames is None:
                valid_frames = torch.full((clips,), frames, device=features.device)
            features = F.pad(features, (0, missing))
        maps = features[:, None].contiguous(memory_format=torch.channels_last)
        for number, block in enumerate(self.blocks):
            maps = block(maps, valid_frames)
            if number < self.halvings:
                maps = F.avg_pool2d(maps, 2)
                if valid_frames is not None:
                    valid_frames = torch.where(valid_frames > 1, valid_frames // 2, valid_frames)
            maps = self.dropout(maps)
        series = maps.mean(dim=2)
        mask = None if valid_frames is None else frame_mask(valid_frames, series.shape[-1])
        return self.head_dropout(F.relu(self.fc1(self.head_dropout(self.pooling(series, mask)))))

    def load_published(self, weights: Mapping[str, Tensor]) -> None:
        """See :meth:`Cnn14.load_published`."""
        renamed = {}
        for name, tensor in weights.items():
            if name.startswith(("bn0.", "fc1.", "conv_block")):
                name = re.sub(r"^conv_block(\d+)", lambda match: f"blocks.{int(match[1]) - 1}", name)
                # Published maps are [time, bands]; ours, like the features, are [bands, time].
                renamed[name] = tensor.transpose(2, 3) if tensor.dim() == 4 else tensor
        own = {name for name in self.state_dict() if name.startswith("pooling.")}
        try:
            report = self.load_state_dict(renamed, strict=False)
        except RuntimeError as error:
            raise ModelError(f"the weights are not those of this network: {error}") from error
        missing, unexpected = set(report.missing_keys) - own, report.unexpected_keys
        if missing or unexpected:
            raise ModelError(f"the weights are not those of this network: missing {missing}, unexpected {unexpected}")


class _Block(nn.Module):
    """Two 3x3 convolutions, each with batch normalisation and ReLU."""

    folds = (("conv1", "bn1"), ("conv2", "bn2"))

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        nn.init.xavier_uniform_(self.conv1.weight)
        nn.init.xavier_uniform_(self.conv2.weight)

    def forward(self, maps: Tensor, valid_frames: Tensor | None) -> Tensor:
        maps = F.relu(self.bn1(self.conv1(silence_padding(maps, valid_frames))))
        return F.relu(self.bn2(self.conv2(silence_padding(maps, valid_frames))))


def _front_end(sample_rate: int, n_fft: int, hop: int, bands: int, f_min: float, f_max: float | None) -> LogMel:
    """The published decibels: relative to a power of 1 in the FFT, no lower than -100, not normalised further."""
    full_scale_db = 20 * math.log10(n_fft / 4)
    return LogMel(
        sample_rate, n_fft, hop, bands, f_min, f_max,
        mel_scale="slaney", unit_area=True, floor_db=-100 - full_scale_db, mean_db=-full_scale_db, std_db=1.0,
    )  # fmt: skip
