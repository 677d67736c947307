"""The model tells the sampler which tags and tracks are near, and a run that goes on draws the same batches."""

from __future__ import annotations

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from trainers import quiet_trainer

from xmodal.data.module import AudioTextData
from xmodal.data.samplers import DistanceBinBatches, HardTagBatches, ShuffledBatches
from xmodal.losses import InfoNCELoss
from xmodal.towers import HashedBagOfWordsTower, MobileCnn
from xmodal.training import AlignmentModule, TeachBatches


class Recording(AlignmentModule):
    def training_step(self, batch, index):
        self.seen.append(batch.facts.rows)
        return super().training_step(batch, index)


class StopAfter(pl.Callback):
    def __init__(self, steps, path):
        self.steps, self.path = steps, path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.steps:
            trainer.save_checkpoint(self.path)
            raise InterruptedError


def fit(manifest, folder, batches, *, epochs=4, stop=None, ckpt_path=None):
    torch.manual_seed(0)
    module = Recording(
        MobileCnn(sample_rate=8000, n_fft=256, hop=80, bands=16, width=0.25, feature_dim=8),
        HashedBagOfWordsTower(buckets=100, embed_dim=8, feature_dim=8),
        InfoNCELoss(),
        dim=8,
        window_seconds=1.0,
        schedule="constant",
        warmup=0.0,
    )
    module.seen = []
    data = AudioTextData(
        str(manifest), tag_fields=["pitch", "motion"], batch_size=8, workers=0, decode_seconds=None, batches=batches
    )
    stopping = [] if stop is None else [StopAfter(stop, folder / "stopped.ckpt")]
    trainer = quiet_trainer(
        folder, TeachBatches(), *stopping, max_epochs=epochs, limit_val_batches=0, use_distributed_sampler=False
    )
    try:
        trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
    except InterruptedError:
        assert stop is not None
    return module, data


def make(kind):
    return HardTagBatches(2) if kind == "hard tags" else DistanceBinBatches(0.0, 2.0, 10)


@pytest.mark.parametrize("kind", ["hard tags", "distance bins"])
def test_a_taught_sampler_goes_on_in_the_middle_and_at_the_end_of_an_epoch(tone_tracks, tmp_path, kind):
    whole, _ = fit(tone_tracks, tmp_path, make(kind))
    assert len(whole.seen) == 12
    for stop in (5, 6):
        first, _ = fit(tone_tracks, tmp_path, make(kind), stop=stop)
        second, _ = fit(tone_tracks, tmp_path, make(kind), ckpt_path=tmp_path / "stopped.ckpt")
        assert first.seen + second.seen == whole.seen
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_what_is_taught_is_what_the_model_says_and_the_model_is_left_as_it_was(tone_tracks, tmp_path):
    taught = []

    class Listening(HardTagBatches):
        def learn(self, vectors, *, from_epoch):
            taught.append((vectors, from_epoch))
            super().learn(vectors, from_epoch=from_epoch)

    module, data = fit(tone_tracks, tmp_path, Listening(2), epochs=2)
    assert [epoch for _, epoch in taught] == [1, 2]
    assert data.batches.tags == ["high", "low", "pulsing", "steady"]
    assert np.allclose(np.linalg.norm(taught[0][0], axis=1), 1, atol=1e-5)
    assert not np.allclose(taught[0][0], taught[1][0])
    assert module.training
    plain, _ = fit(tone_tracks, tmp_path, ShuffledBatches(), epochs=1)  # nothing to teach
    assert len(plain.seen) == 3


def test_never_teaching_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        TeachBatches(every_n_epochs=0)
