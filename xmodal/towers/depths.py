"""An audio tower with heads at several depths: learners of rising reach that share their first layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from xmodal.towers.base import AudioTower, frame_mask


class DepthEnsemble(AudioTower):
    """A tower whose vector has a part for each of some depths, the last part being the tower's own.

    Behind the chosen blocks the maps are averaged over bands and valid frames and mapped to ``width`` numbers; so is
    the tower's vector. Keep the parts apart behind the tower with ``audio_parts``, and train them by
    :class:`xmodal.losses.CascadedLoss`: a shallow learner sees all pairs, a deeper one those that were hard before.

    Args:
        tower: The tower; one that shows its maps (:meth:`AudioTower.depth_maps`).
        depths: After which of its blocks there is a head, from 1.
        width: Numbers a part.

    References:
        Yuan, Yang and Zhang, "Hard-aware deeply cascaded embedding", ICCV 2017.
    """

    def __init__(self, tower: AudioTower, depths: Sequence[int] = (2, 3), *, width: int = 128) -> None:
        super().__init__(tower.front_end, width * (len(depths) + 1))
        was = tower.training
        with torch.no_grad():
            silence = tower.eval().features(torch.zeros(1, tower.sample_rate))
            channels = [maps.shape[1] for maps, _ in tower.depth_maps(silence)]
        tower.train(was)
        rising = list(depths) == sorted(set(depths))
        if not depths or not rising or depths[0] < 1 or depths[-1] > len(channels):
            raise ValueError(
                f"depths must rise, from 1 to at most the tower's {len(channels)} blocks, got {list(depths)}"
            )
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        self.tower, self.depths = tower, list(depths)
        self.heads = nn.ModuleList(nn.Linear(channels[depth - 1], width) for depth in depths)
        self.last = nn.Linear(tower.feature_dim, width)

    def encode(
        self, features: Float[Tensor, "clips bands frames"], valid_frames: Int[Tensor, " clips"] | None = None
    ) -> Float[Tensor, "clips feature_dim"]:
        """The parts, from the shallowest head to the tower's own."""
        depths = self.tower.depth_maps(features, valid_frames)
        parts = [head(_average(*depths[depth - 1])) for head, depth in zip(self.heads, self.depths, strict=True)]
        return torch.cat([*parts, self.last(self.tower.from_maps(*depths[-1]))], dim=1)

    def identity(self) -> dict[str, Any]:
        """The tower inside and where its heads are."""
        return super().identity() | {"inside": self.tower.identity(), "depths": self.depths}


def _average(maps: Tensor, valid_frames: Tensor | None) -> Tensor:
    series = maps.mean(dim=2)
    if valid_frames is None:
        return series.mean(dim=2)
    mask = frame_mask(valid_frames, series.shape[-1])[:, None, :]
    return series.masked_fill(~mask, 0.0).sum(dim=2) / mask.sum(dim=2)
