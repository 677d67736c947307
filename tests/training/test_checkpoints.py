"""Checkpoints on a full disk, cut short, of an older format; and ``--resume``."""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import logging
import os
import subprocess
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from plain_tower import PlainTower
from torch.testing import assert_close
from trainers import quiet_trainer

import xmodal
from xmodal.data.module import AudioTextData
from xmodal.errors import ModelError
from xmodal.losses import InfoNCELoss
from xmodal.towers import HashedBagOfWordsTower, MobileCnn
from xmodal.training import AlignmentModule, Checkpoints, checkpoints, config_folder, main
from xmodal.training.checkpoints import last_good
from xmodal.training.formats import CHECKPOINT_VERSION, MIGRATIONS, migrate

GOLDEN = Path(__file__).parents[1] / "golden"


def tiny_module(**settings) -> AlignmentModule:
    torch.manual_seed(0)
    text = HashedBagOfWordsTower(buckets=50, embed_dim=8, feature_dim=8)
    return AlignmentModule(PlainTower(), text, InfoNCELoss(), 8, window_seconds=1.0, **settings)


def fit(folder, manifest, *callbacks, module=None, epochs=2, ckpt=None, **settings) -> pl.Trainer:
    data = AudioTextData(
        str(manifest), tag_fields=["pitch"], workers=0, decode_seconds=None, batch_size=8, tag_prompts=2
    )
    trainer = quiet_trainer(folder, *callbacks, max_epochs=epochs, enable_checkpointing=True, **settings)
    trainer.fit(module or tiny_module(), datamodule=data, ckpt_path=ckpt)
    return trainer


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_run_keeps_the_newest_the_one_before_and_the_best(tone_tracks, tmp_path):
    keeper = Checkpoints(every_n_steps=2)
    trainer = fit(tmp_path, tone_tracks, keeper, epochs=3)
    folder = tmp_path / "checkpoints"
    assert names(folder) == {"last.ckpt", "previous.ckpt", "best.ckpt"}
    steps = {name: torch.load(folder / name, weights_only=True)["global_step"] for name in names(folder)}
    assert (steps["last.ckpt"], steps["previous.ckpt"]) == (9, 8)
    assert steps["best.ckpt"] == keeper.best_step
    assert keeper.best_model_score == pytest.approx(
        max(float(trainer.callback_metrics[keeper.monitor]), keeper.best_model_score)
    )
    assert keeper.best_model_path == str(folder / "best.ckpt")


def test_less_may_be_better_and_a_metric_that_nobody_logs_is_said_once(tone_tracks, tmp_path, caplog):
    keeper = Checkpoints("validation/text_to_audio/MedR", "min")
    fit(tmp_path / "less", tone_tracks, keeper)
    assert keeper.best_model_score >= 1
    with caplog.at_level(logging.WARNING, "xmodal"):
        fit(tmp_path / "none", tone_tracks, Checkpoints("validation/happiness"))
    said = [record.message for record in caplog.records if "happiness" in record.message]
    assert len(said) == 1
    assert "it logs validation/audio_to_text/MAP@R" in said[0]
    assert names(tmp_path / "none" / "checkpoints") == {"last.ckpt", "previous.ckpt"}


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 300 kB, or a skip where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_on_a_full_disk_training_goes_on_and_the_last_good_checkpoint_stays(tone_tracks, small_disk, caplog):
    class FillUp(pl.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                with contextlib.suppress(OSError), open(small_disk / "others", "wb", buffering=0) as file:
                    while True:
                        file.write(b"x" * 512)

    with caplog.at_level(logging.WARNING, "xmodal"):
        trainer = fit(small_disk, tone_tracks, Checkpoints(), FillUp(), epochs=3)
    assert trainer.global_step == 9
    folder = small_disk / "checkpoints"
    failures = [record.message for record in caplog.records if "could not be written" in record.message]
    assert len(failures) == 2
    assert f"training goes on, and the last good one is {folder / 'last.ckpt'}" in failures[0]
    assert names(folder) == {"last.ckpt", "best.ckpt"}, "no half-written file stays"
    found, problems = last_good(folder)
    assert (found, problems) == (folder / "last.ckpt", [])
    assert torch.load(found, weights_only=True)["global_step"] == 3


def test_a_write_that_fails_at_the_last_moment_is_no_checkpoint_and_no_best_one(
    tone_tracks, tmp_path, monkeypatch, caplog
):
    whole = os.fsync
    calls = []

    def failing(descriptor):
        calls.append(descriptor)
        if len(calls) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    keeper = Checkpoints()
    with caplog.at_level(logging.WARNING, "xmodal"):
        fit(tmp_path, tone_tracks, keeper, epochs=3)
    assert "No space left on device" in caplog.text
    found, _ = last_good(tmp_path / "checkpoints")
    assert torch.load(found, weights_only=True)["global_step"] == 3
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["global_step"] == 3
    assert best["callbacks"]["Checkpoints"]["best_score"] == keeper.best_model_score


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "other"])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_taken(tone_tracks, tmp_path, damage):
    fit(tmp_path, tone_tracks, Checkpoints())
    last = tmp_path / "checkpoints" / "last.ckpt"
    whole = last.read_bytes()
    if damage == "flipped":
        place = whole.index(b"data/5") + 400
        last.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
    elif damage == "other":
        torch.save({"state_dict": {}}, last)
    else:
        last.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"")
    found, problems = last_good(tmp_path / "checkpoints")
    assert found == tmp_path / "checkpoints" / "previous.ckpt"
    assert len(problems) == 1
    assert str(last) in problems[0]


def test_what_a_kill_left_half_written_is_cleared_away(tone_tracks, tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / ".last.ckpt.0123.partial").write_bytes(b"half")
    fit(tmp_path, tone_tracks, Checkpoints(), epochs=1)
    assert names(folder) == {"last.ckpt", "best.ckpt"}


# -- formats ----------------------------------------------------------------------------------------------------------


def golden_module() -> AlignmentModule:
    audio = MobileCnn(sample_rate=8000, n_fft=256, hop=80, bands=16, width=0.1, feature_dim=8)
    text = HashedBagOfWordsTower(buckets=50, embed_dim=8, feature_dim=8)
    return AlignmentModule(audio, text, InfoNCELoss(), 8, window_seconds=1.0, dropout=0.1)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("checkpoint_v*.ckpt")), ids=lambda path: path.stem)
def test_a_checkpoint_of_every_format_still_says_what_it_said(path):
    module = golden_module()
    checkpoint = torch.load(path, weights_only=True)
    module.on_load_checkpoint(checkpoint)
    module.load_state_dict(checkpoint["state_dict"], strict=True)
    module.eval()
    said = json.loads(path.with_suffix(".json").read_text())
    features = torch.linspace(-1.0, 1.0, 16 * 101).reshape(1, 16, 101)
    with torch.no_grad():
        audio = module.network.embed_audio_features(features, torch.tensor([101]))
        text = module.network.embed_text(["a low tone", "high"])
    assert_close(audio, torch.tensor(said["audio"]), rtol=1e-5, atol=1e-6)
    assert_close(text, torch.tensor(said["text"]), rtol=1e-5, atol=1e-6)
    assert checkpoint["xmodal"]["format_version"] == CHECKPOINT_VERSION


def test_every_older_format_has_a_golden_checkpoint_and_a_migration():
    kept = {int(path.stem.removeprefix("checkpoint_v")) for path in GOLDEN.glob("checkpoint_v*.ckpt")}
    assert kept == set(range(1, CHECKPOINT_VERSION + 1))
    assert set(MIGRATIONS) == set(range(1, CHECKPOINT_VERSION))


def test_a_run_goes_on_from_a_checkpoint_of_format_1_with_its_best_score(tone_tracks, tmp_path):
    keeper = Checkpoints()
    trainer = fit(tmp_path, tone_tracks, keeper, module=golden_module(), epochs=3, ckpt=GOLDEN / "checkpoint_v1.ckpt")
    assert trainer.global_step == 4 + 3
    assert keeper.best_model_score >= 0.75


def test_a_checkpoint_of_a_newer_format_or_of_somebody_else_is_refused():
    with pytest.raises(ModelError, match=r"format version 99, but this xmodal .* reads up to"):
        migrate({"xmodal": {"format_version": 99}})
    with pytest.raises(ModelError, match="not written by xmodal's training"):
        migrate({"state_dict": {}})


# -- the command ------------------------------------------------------------------------------------------------------


def words(folder: Path, manifest: Path, *more: str) -> list[str]:
    configs = [word for name in ("base.yaml", "smoke.yaml") for word in ("--config", str(config_folder() / name))]
    run = ["--data.manifest", str(manifest), "--data.tag_fields", "[pitch]", "--runs", str(folder), "--name", "tones"]
    return ["fit", *configs, *run, "--trainer.accelerator", "cpu", *more]


def test_resume_goes_on_in_the_same_folder_and_keeps_curves_and_the_best_score(tone_tracks, tmp_path, capsys, caplog):
    runs = tmp_path / "tones"
    assert main(words(tmp_path, tone_tracks, "--resume", "--trainer.max_epochs", "3")) == 0, (
        "there is nothing to resume"
    )
    score = torch.load(runs / "version_0" / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]["Checkpoints"]
    last = runs / "version_0" / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])  # as after a crash of the machine
    (runs / "version_7").mkdir()  # a run that never reached a checkpoint
    assert main(words(tmp_path, tone_tracks, "--resume", "--trainer.max_epochs", "4")) == 0
    assert names(runs) == {"version_0", "version_7"}
    assert not any((runs / "version_7").iterdir())
    again = torch.load(last, weights_only=True)
    assert again["global_step"] == 12
    assert again["callbacks"]["Checkpoints"]["best_score"] >= score["best_score"]
    with (runs / "version_0" / "metrics.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert steps == list(range(12))
    assert xmodal.load(runs / "version_0" / "model", device="cpu").model.dim == 32
    assert main(words(tmp_path, tone_tracks, "--resume", str(tmp_path / "absent"))) == 2
    assert "absent is no folder of a run" in capsys.readouterr().err
    assert main(words(tmp_path, tone_tracks, "--resume", str(runs / "version_7"))) == 2
    assert "holds no checkpoint that can be read" in capsys.readouterr().err


def test_checkpoints_refuse_nonsense():
    with pytest.raises(ValueError, match="mode must be"):
        Checkpoints(mode="most")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="every_n_steps must be at least 1"):
        Checkpoints(every_n_steps=0)
    assert checkpoints.LAST == "last.ckpt"
