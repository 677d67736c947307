"""A small model and small sounds for exports."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch

from xmodal.embedder import Embedder
from xmodal.model import TwoTower
from xmodal.towers import HashedBagOfWordsTower, MobileCnn


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    torch.manual_seed(0)
    audio = MobileCnn(8000, n_fft=256, hop=80, bands=16, width=0.25, feature_dim=24)
    model = TwoTower(audio, HashedBagOfWordsTower(64, 12), dim=16, window_seconds=0.5)
    folder = tmp_path_factory.mktemp("model") / "model"
    model.save(folder)
    return folder


@pytest.fixture
def embedder(model_folder):
    return Embedder(TwoTower.load(model_folder), device="cpu", batch_size=8, workers=2, source=model_folder)


@pytest.fixture
def tones():
    return write_tones


def write_tones(folder, count, broken=(), seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        seconds = rng.uniform(0.3, 1.4)
        samples = 0.3 * np.sin(np.arange(int(8000 * seconds)) * rng.uniform(0.05, 0.5))
        soundfile.write(folder / f"{number:02d}.wav", samples, 8000)
        if number in broken:
            (folder / f"{number:02d}.wav").write_text("broken")
    return folder
