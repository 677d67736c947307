"""An audio tower without batch normalisation: what it says of a clip hangs on no other clip, also in training."""

from __future__ import annotations

import torch
from torch import nn

from xmodal.towers.base import AudioTower, frame_mask
from xmodal.towers.mel import LogMel


class PlainTower(AudioTower):
    """Two layers on the mean of the frames.

    Args:
        dropout: Between the layers.
    """

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__(LogMel(8000, 256, 80, 16, 0.0, None), 8)
        self.blocks = nn.ModuleList([nn.Linear(16, 12), nn.Linear(12, 8)])
        self.dropout = nn.Dropout(dropout)

    def encode(self, features, valid_frames=None):
        frames = features.shape[-1]
        if valid_frames is None:
            valid_frames = torch.full((len(features),), frames, device=features.device)
        mask = frame_mask(valid_frames, frames)[:, None]
        mean = (features * mask).sum(dim=2) / valid_frames[:, None]
        return self.blocks[1](self.dropout(torch.tanh(self.blocks[0](mean))))
