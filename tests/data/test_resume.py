"""A run that stops in the middle of an epoch and goes on sees the batches that an undisturbed run sees."""

from __future__ import annotations

import logging

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from trainers import quiet_trainer

from xmodal.audio import WindowPolicy
from xmodal.data.module import AudioTextData
from xmodal.towers import MobileCnn


class Recorder(pl.LightningModule):
    """Trains nothing, and writes down what it is given."""

    def __init__(self, seen):
        super().__init__()
        self.network = nn.Module()
        self.network.audio = MobileCnn(sample_rate=8000, n_fft=256, hop=80, bands=16, width=0.25, feature_dim=8)
        self.network.windows = WindowPolicy(1.0)
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen = seen

    def training_step(self, batch, _index):
        self.seen.append((batch.texts, batch.prompts, batch.features.sum().item()))
        return self.weight * 1.0

    def validation_step(self, _batch, _index):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Stopped(Exception):
    pass


class StopAfter(pl.Callback):
    def __init__(self, steps, path):
        self.steps, self.path = steps, path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.steps:
            trainer.save_checkpoint(self.path)
            raise Stopped


def data(manifest, **options):
    defaults = {
        "tag_fields": ["pitch", "motion"],
        "batch_size": 4,
        "workers": 0,
        "decode_seconds": None,
        "tag_prompts": 3,
        "seed": 7,
    }
    return AudioTextData(str(manifest), **(defaults | options))


def fit(manifest, folder, seen, *, stop=None, ckpt_path=None, epochs=3, **options):
    stopping = [] if stop is None else [StopAfter(stop, folder / "stopped.ckpt")]
    trainer = quiet_trainer(folder, *stopping, max_epochs=epochs, limit_val_batches=0, use_distributed_sampler=False)
    try:
        trainer.fit(Recorder(seen), datamodule=data(manifest, **options), ckpt_path=ckpt_path)
    except Stopped:
        assert stop is not None
    return trainer


@pytest.fixture(scope="module")
def undisturbed(tone_tracks, tmp_path_factory):
    seen = []
    fit(tone_tracks, tmp_path_factory.mktemp("whole"), seen)
    return seen


@pytest.mark.parametrize("stop", [1, 4, 6, 11, 12, 17])  # 6 batches an epoch
def test_a_run_stopped_at_any_batch_goes_on_with_the_next_one(tone_tracks, tmp_path, undisturbed, stop):
    first, second = [], []
    fit(tone_tracks, tmp_path, first, stop=stop)
    fit(tone_tracks, tmp_path, second, ckpt_path=tmp_path / "stopped.ckpt")
    assert len(undisturbed) == 18
    assert first == undisturbed[:stop]
    assert first + second == undisturbed


def test_workers_that_read_ahead_do_not_move_the_position(tone_tracks, tmp_path):
    whole, first, second = [], [], []
    options = {"cache": "none", "workers": 2}
    fit(tone_tracks, tmp_path, whole, epochs=2, **(options | {"workers": 0}))
    fit(tone_tracks, tmp_path, first, stop=8, epochs=2, **options)
    fit(tone_tracks, tmp_path, second, ckpt_path=tmp_path / "stopped.ckpt", epochs=2, **options)
    assert first + second == whole


def test_a_changed_order_is_said_and_its_epoch_begun_anew(tone_tracks, tmp_path, caplog):
    seen = []
    fit(tone_tracks, tmp_path, [], stop=8)
    with caplog.at_level(logging.WARNING):
        fit(tone_tracks, tmp_path, seen, ckpt_path=tmp_path / "stopped.ckpt", seed=8, epochs=2)
    assert "seed 7 → 8" in caplog.text
    assert "epoch 1 begins anew" in caplog.text
    assert seen


def test_making_loaders_and_iterating_them_leaves_the_global_random_state_alone(tone_tracks):
    corpus = data(tone_tracks)
    corpus.prepare("fit", MobileCnn(sample_rate=8000, n_fft=256, hop=80, bands=16, width=0.25), WindowPolicy(1.0))
    before = torch.get_rng_state()
    list(corpus.train_dataloader())
    list(corpus.val_dataloader())
    assert torch.equal(torch.get_rng_state(), before)
