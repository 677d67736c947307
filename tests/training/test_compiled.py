"""Compiled towers: the same losses, weights and names as without."""

from __future__ import annotations

import shutil

import pytest
import pytorch_lightning as pl
import torch
from plain_tower import PlainTower
from safetensors.torch import load_file
from torch import nn
from torch._inductor import config as inductor_config
from trainers import quiet_trainer

from xmodal.data.module import AudioTextData
from xmodal.losses import InfoNCELoss
from xmodal.towers import HashedBagOfWordsTower
from xmodal.training import AlignmentModule

COMPILER = pytest.mark.skipif(not shutil.which("g++"), reason="inductor compiles with g++, which is not here")
CASES = [("aot_eager", None), ("aot_eager", 3), pytest.param("inductor", 3, marks=COMPILER)]


class LayeredText(HashedBagOfWordsTower):
    """A text tower with a stack of layers, which is what is compiled of a text tower."""

    def __init__(self) -> None:
        super().__init__(buckets=50, embed_dim=8, feature_dim=8)
        self.layers = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])

    def encode(self, tokens):
        values = super().encode(tokens)
        for layer in self.layers:
            values = torch.tanh(layer(values))
        return values


class Losses(pl.Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer, *_) -> None:
        self.values.append(float(trainer.callback_metrics["train/loss"]))


def fit(manifest, folder, **settings) -> tuple[list[float], AlignmentModule]:
    """Losses of two epochs, and what was trained."""
    torch.manual_seed(0)
    module = AlignmentModule(
        PlainTower(), LayeredText(), InfoNCELoss(), 8, window_seconds=1.0, learning_rate=1e-2, ema_decay=0.9, **settings
    )
    data = AudioTextData(
        manifest,
        tag_fields=["pitch", "motion"],
        workers=0,
        cache="none",
        decode_seconds=None,
        batch_size=8,
        tag_prompts=3,
        seed=3,
    )
    losses = Losses()
    quiet_trainer(folder, losses, max_epochs=2).fit(module, datamodule=data)
    return losses.values, module


@pytest.fixture(scope="module")
def plain(tone_tracks, tmp_path_factory):
    return fit(tone_tracks, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize(("backend", "chunk_size"), CASES)
def test_compiled_towers_learn_what_plain_ones_learn(backend, chunk_size, plain, tone_tracks, tmp_path, monkeypatch):
    calls = []

    def compile_with(function, **settings):
        compiled = compiled_once(function, backend=backend, **settings)

        def call(*arguments, **named):
            calls.append(function)
            return compiled(*arguments, **named)

        return call

    compiled_once = torch.compile
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(torch, "compile", compile_with)
    torch._dynamo.reset()
    wanted, reference = plain
    # No pool of compilers for a few small graphs, and scalar code: trying out vector instructions takes as long again.
    with inductor_config.patch({"compile_threads": 1, "cpp.vec_isa_ok": False}):
        losses, module = fit(tone_tracks, tmp_path, compile=True, chunk_size=chunk_size)
    assert len(losses) > 4
    assert losses == pytest.approx(wanted, abs=1e-5)
    assert len(calls) > 3 * len(losses)  # the tower, and both layers of the texts
    averages = reference.exportable().state_dict()
    exported = module.exportable()
    assert exported.state_dict().keys() == averages.keys()
    assert module.state_dict().keys() == reference.state_dict().keys()
    exported.save(tmp_path / "model")
    (file,) = (tmp_path / "model").rglob("*.safetensors")
    saved = load_file(file)
    assert len(saved) > 8
    for name, value in saved.items():  # under the names of one that was never compiled
        assert (value - averages[name]).abs().max() < 1e-5, name
