"""The doctor and the guard against NaN, as callbacks of a run."""

from __future__ import annotations

import json
import logging
import math
from io import BytesIO

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from matplotlib.image import imread
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from trainers import quiet_trainer

from xmodal.data.module import AudioTextData
from xmodal.doctor import LIMITS
from xmodal.errors import TrainingError
from xmodal.losses import InfoNCELoss
from xmodal.towers import HashedBagOfWordsTower, MobileCnn
from xmodal.training import AlignmentModule, SpaceDoctor, StopOnNonFinite


def module(**settings):
    torch.manual_seed(0)
    return AlignmentModule(
        MobileCnn(sample_rate=8000, n_fft=256, hop=80, bands=32, width=0.25, feature_dim=32),
        HashedBagOfWordsTower(buckets=300, embed_dim=16, feature_dim=32),
        InfoNCELoss(),
        dim=16,
        window_seconds=1.0,
        **{"learning_rate": 3e-3, "text_learning_rate": 3e-3} | settings,
    )


@pytest.fixture(scope="module")
def data(tone_tracks):
    """Prepared once: what a run sees of it does not change."""
    made = AudioTextData(
        str(tone_tracks),
        tag_fields=["pitch", "motion"],
        batch_size=8,
        workers=0,
        tag_prompts=4,
        cache="memory",
        decode_seconds=None,
    )
    made.prepare("fit", module().network.audio, module().network.windows)
    return made


def trainer(*callbacks, default_root_dir=None, **settings):
    return quiet_trainer(default_root_dir, *callbacks, **{"log_every_n_steps": 1, "max_epochs": 1} | settings)


class Poison(pl.Callback):
    """Puts a NaN where a test wants it, at one step."""

    def __init__(self, step, where):
        self.step, self.where = step, where

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == self.step and self.where == "features":
            batch.features[2, 0, 0] = math.nan

    def on_after_backward(self, trainer, pl_module):
        if trainer.global_step == self.step and self.where == "gradient":
            pl_module.network.audio_projection.layers.weight.grad[0, 0] = math.inf


def test_a_nan_in_the_loss_stops_the_run_and_names_the_batch(data, tmp_path):
    fitted, guard = module(), StopOnNonFinite()
    run = trainer(Poison(1, "features"), guard, default_root_dir=tmp_path, logger=CSVLogger(tmp_path))
    with pytest.raises(TrainingError, match=r"the loss became nan at step 1 \(epoch 0\).*named in .*nonfinite.json"):
        run.fit(fitted, datamodule=data)
    (path,) = tmp_path.rglob("nonfinite.json")
    told = json.loads(path.read_text())
    assert (told["where"], told["value"], told["step"], told["batch_index"]) == ("loss", "nan", 1, 1)
    assert len(told["tracks"]) == 8
    assert told["tracks_with_features_not_finite"] == [told["tracks"][2]]
    assert set(told["tracks"]) <= {track.id for track in data.splits["train"]}
    assert len(told["texts"]) == 8
    assert told["weights_not_finite"] == [], "the optimiser must not have taken it over"


def test_an_infinite_gradient_stops_the_run_before_the_optimisers_step(data, tmp_path):
    fitted = module()
    run = trainer(Poison(2, "gradient"), StopOnNonFinite(), default_root_dir=tmp_path, logger=CSVLogger(tmp_path))
    with pytest.raises(TrainingError, match="the gradient became inf at step 2"):
        run.fit(fitted, datamodule=data)
    told = json.loads(next(tmp_path.rglob("nonfinite.json")).read_text())
    assert told["gradients_not_finite"] == ["network.audio_projection.layers.weight"]
    assert all(bool(torch.isfinite(value).all()) for value in fitted.state_dict().values())


def test_a_healthy_run_is_not_stopped_and_not_changed_by_the_guard(data, tmp_path):
    weights = []
    for callbacks in ([], [StopOnNonFinite(), SpaceDoctor()]):
        fitted = module()
        trainer(*callbacks, default_root_dir=tmp_path).fit(fitted, datamodule=data)
        weights.append(fitted.state_dict())
    assert all(torch.equal(weights[0][name], value) for name, value in weights[1].items())


def test_only_every_nth_batch_is_looked_at(data, tmp_path):
    fitted = module()
    run = trainer(
        Poison(1, "features"), StopOnNonFinite(every_n_steps=2), limit_val_batches=0, default_root_dir=tmp_path
    )
    with pytest.raises(TrainingError, match="at step 2"):
        run.fit(fitted, datamodule=data)


@pytest.mark.filterwarnings("ignore:Experiment logs directory")  # two loggers share the folder
def test_the_doctor_logs_writes_and_draws(data, tmp_path):
    doctor = SpaceDoctor()
    board = TensorBoardLogger(tmp_path, name="run", version=0)
    curves = CSVLogger(tmp_path, name="run", version=0)
    trainer(doctor, logger=[board, curves], default_root_dir=tmp_path, max_epochs=2).fit(module(), datamodule=data)
    folder = tmp_path / "run" / "version_0"
    told = json.loads((folder / "doctor.json").read_text())
    assert (told["step"], told["verdict"]) == (6, doctor.report.verdict)
    events = EventAccumulator(str(folder))
    events.Reload()
    assert len(events.Scalars("doctor/modality_gap/audio_and_text")) == 2
    (shown,) = events.Images("doctor")
    assert shown.step == 6
    drawn, written = (imread(picture) for picture in (BytesIO(shown.encoded_image_string), folder / "doctor.png"))
    assert 0.5 < drawn[..., :3].mean() < 1, "a page that is white for the most part"
    np.testing.assert_array_equal(drawn[..., :3], written[..., :3])
    assert "doctor/collapse/audio" in (folder / "metrics.csv").read_text().splitlines()[0]
    checks = {finding["check"] for finding in told["findings"]}
    assert checks == set(LIMITS) - {"weights file"}


def test_a_tower_that_the_optimiser_never_moves_is_named(data, tmp_path):
    class LostTower(AlignmentModule):
        """As when an optimiser was given the wrong parameters."""

        def configure_optimizers(self):
            return torch.optim.SGD(self.network.audio.parameters(), lr=1e-2)

    fitted = module()
    fitted.__class__ = LostTower
    doctor = SpaceDoctor(pictures="none")
    trainer(doctor, default_root_dir=tmp_path).fit(fitted, datamodule=data)
    finding = next(each for each in doctor.report.findings if each.about == "since the start")
    assert finding.verdict == "ill"
    assert "text.table.weight" in finding.examples
    assert not any(name.startswith("audio.") for name in finding.examples)
    healthy = SpaceDoctor(pictures="none")
    trainer(healthy, default_root_dir=tmp_path).fit(module(), datamodule=data)
    assert next(each for each in healthy.report.findings if each.about == "since the start").figure == 0


def test_an_illness_is_said_once_and_after_the_patience(data, tmp_path, caplog):
    """Nothing learns at a rate of 0, so the space is at chance in each of four validations."""
    caplog.set_level(logging.WARNING, logger="xmodal.training.health")
    doctor = SpaceDoctor(patience=1, pictures="none")
    idle = module(learning_rate=0.0, text_learning_rate=0.0, weight_decay=0.0)
    trainer(doctor, default_root_dir=tmp_path, max_epochs=4).fit(idle, datamodule=data)
    said = [record.getMessage() for record in caplog.records if "untrained weights" in record.getMessage()]
    assert len(said) == 1
    assert LIMITS["untrained weights"].advice in said[0]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: SpaceDoctor(patience=-1), "patience"),
        (lambda: SpaceDoctor(pictures="all"), "pictures"),  # type: ignore[arg-type]
        (lambda: StopOnNonFinite(every_n_steps=0), "every_n_steps"),
    ],
)
def test_nonsense_settings_are_refused(made, message):
    with pytest.raises(ValueError, match=message):
        made()
