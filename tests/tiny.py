"""A small random model for the tests of the doors to other tools."""

from __future__ import annotations

import torch

from xmodal.model import TwoTower
from xmodal.towers import HashedBagOfWordsTower, MobileCnn


def tiny_model(sample_rate: int = 8000, seed: int = 0) -> TwoTower:
    torch.manual_seed(seed)
    audio = MobileCnn(sample_rate=sample_rate, n_fft=256, hop=80, bands=16, width=0.25, feature_dim=32)
    text = HashedBagOfWordsTower(buckets=500, embed_dim=16, feature_dim=24)
    return TwoTower(audio, text, dim=12, window_seconds=0.5).eval()
