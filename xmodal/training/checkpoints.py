"""Checkpoints that a kill, a full disk or a cut file cannot take away.

In ``checkpoints/`` of the run's folder:

``last.ckpt``      the newest
``previous.ckpt``  the one before, should the newest be damaged
``best.ckpt``      the best by the monitored metric; the same file as one of the others while they last

Every one is written beside its name, flushed to the disk and renamed, so a name always stands for a whole file. A write
that fails (a full disk) leaves the earlier files as they are, is said in the log, and training goes on.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import uuid
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint

from xmodal.atomic import sync, written_aside
from xmodal.training.draws import draw_states, restore_draws

logger = logging.getLogger(__name__)

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"


class DurableIO(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all, and reads nothing but data.

    Attributes:
        failure: Why the last write failed; None if it did not.
    """

    def __init__(self) -> None:
        self.failure: Exception | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write beside ``path``, flush, and rename; on failure remember why and leave everything as it was.

        The one process that writes must not raise: the others would wait for it for ever.
        """
        self.failure = None
        try:
            with written_aside(path) as aside, aside.open("wb") as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch says a failed write as a RuntimeError
            self.failure = error

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read plain data; a checkpoint is never code."""
        checkpoint: dict[str, Any] = torch.load(path, map_location=map_location or "cpu", weights_only=True)
        return checkpoint


class Checkpoints(Checkpoint):
    """Keeps the newest, the one before and the best checkpoint of a run, and what a run needs to go on exactly.

    Args:
        monitor: The metric of validation that says which is best; None to keep no best one.
        mode: Whether more of it is better, or less.
        every_n_steps: Steps from checkpoint to checkpoint; None for one at the end of each epoch alone.
        folder: Where to, relative to the run's folder.
    """

    def __init__(
        self,
        monitor: str | None = "validation/text_to_audio/mAP@10",
        mode: Literal["max", "min"] = "max",
        *,
        every_n_steps: int | None = None,
        folder: str = "checkpoints",
    ) -> None:
        if mode not in ("max", "min"):
            raise ValueError(f"mode must be 'max' or 'min', got {mode!r}")
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"every_n_steps must be at least 1 (or null for each epoch's end), got {every_n_steps}")
        self.monitor, self.mode, self.every_n_steps, self.folder = monitor, mode, every_n_steps, folder
        self.best_model_score: float | None = None
        self.best_step: int | None = None
        self.directory: Path | None = None
        self._io = DurableIO()
        self._saved_step = -1
        self._score_before: float | None = None
        self._is_best = False
        self._due = False
        self._device = torch.device("cpu")
        self._draws: dict[str, Any] | None = None
        self._said_missing = False

    @property
    def best_model_path(self) -> str:
        """The best checkpoint's file, empty if there is none; the name by which Lightning asks."""
        path = None if self.directory is None or self.best_model_score is None else self.directory / BEST
        return str(path) if path is not None and path.is_file() else ""

    # -- when ---------------------------------------------------------------------------------------------------

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Take over how the run's checkpoints are written, and clear away what a kill left half-written."""
        if stage != "fit":
            return
        home = trainer.strategy.broadcast(str(trainer.log_dir or trainer.default_root_dir))
        self.directory = Path(home) / self.folder
        self._device = trainer.strategy.root_device
        trainer.strategy.checkpoint_io = self._io
        if trainer.is_global_zero:
            for left in self.directory.glob(".*.partial"):
                left.unlink(missing_ok=True)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the generators back where the checkpoint found them."""
        if self._draws is not None:
            restore_draws(self._draws, pl_module.device)
            self._draws = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save every so many steps and at the end of each epoch.

        Where validation comes next, after it: a run that goes on from between the two would leave it out.
        """
        step, loop = trainer.global_step, trainer.fit_loop.epoch_loop
        fetcher = trainer.fit_loop._data_fetcher
        assert fetcher is not None
        every = self.every_n_steps is not None and step > 0 and step % self.every_n_steps == 0
        # Gradients that wait for more batches are in no checkpoint.
        every = every and (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if every or loop.batch_progress.is_last_batch:
            self._due = True
            if not loop._should_check_val_fx(fetcher):
                self._save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """See whether this is the best so far, and save if it is, or if it was time to."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if self._improves(trainer):
            self.best_step, self._is_best = trainer.global_step, True
        if self._is_best or self._due:
            self._saved_step = -1  # what was saved within this step knows nothing of the validation
            self._save(trainer)

    # -- what ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The best score, and where every generator stands."""
        draws = draw_states(self._device)
        return {"best_score": self.best_model_score, "best_step": self.best_step, "draws": draws}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the best score of the run so far."""
        self.best_model_score, self.best_step = state_dict["best_score"], state_dict["best_step"]
        self._draws = state_dict["draws"]

    def _improves(self, trainer: pl.Trainer) -> bool:
        if self.monitor is None:
            return False
        if self.monitor not in trainer.callback_metrics and not self._said_missing:
            self._said_missing = True
            known = ", ".join(sorted(name for name in trainer.callback_metrics if name.startswith("validation")))
            logger.warning("no best checkpoint is kept: validation does not log %s; it logs %s", self.monitor, known)
        score = trainer.strategy.broadcast(float(trainer.callback_metrics.get(self.monitor, math.nan)))
        if not math.isfinite(score):
            return False
        better = self.best_model_score is None or (
            score > self.best_model_score if self.mode == "max" else score < self.best_model_score
        )
        if better:
            self._score_before, self.best_model_score = self.best_model_score, score
        return better

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.fast_dev_run or trainer.global_step == self._saved_step:  # type: ignore[attr-defined]
            return
        assert self.directory is not None
        for each in trainer.loggers:
            each.save()  # curves up to here, should the run be killed
        aside = self.directory / f".{LAST}.partial"
        trainer.save_checkpoint(aside, weights_only=False)  # all of it; said, or Lightning says it each time
        if trainer.is_global_zero:
            try:
                if self._io.failure is not None:
                    raise self._io.failure
                self._name(aside)
            except (OSError, RuntimeError) as error:
                aside.unlink(missing_ok=True)
                self._say_failed(trainer.global_step, error)
                if self._is_best:
                    self.best_model_score = self._score_before
        self._saved_step, self._is_best, self._due = trainer.global_step, False, False

    def _name(self, aside: Path) -> None:
        """Give a finished file its names; at every moment between there is a whole newest one or the one before."""
        assert self.directory is not None
        last, previous = self.directory / LAST, self.directory / PREVIOUS
        if self._is_best:
            _also_as(aside, self.directory / BEST)
        if last.exists():
            os.replace(last, previous)
        os.replace(aside, last)
        sync(self.directory)

    def _say_failed(self, step: int, error: Exception) -> None:
        assert self.directory is not None
        last = self.directory / LAST
        logger.warning(
            "the checkpoint of step %d could not be written (%s); training goes on, and %s",
            step,
            str(error).splitlines()[0],
            f"the last good one is {last}" if last.is_file() else f"there is none in {self.directory} yet",
        )


def last_good(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint of a run that can be read, and what is wrong with those that are newer.

    Args:
        folder: The run's ``checkpoints/``.
    """
    named = [folder / LAST, folder / PREVIOUS, folder / BEST]
    others = sorted(set(folder.glob("*.ckpt")) - set(named), key=lambda path: path.stat().st_mtime, reverse=True)
    problems = []
    for path in [*named, *others]:
        if not path.is_file():
            continue
        try:
            with zipfile.ZipFile(path) as parts:  # torch itself does not look at the check sums
                damaged = parts.testzip()
            if damaged is not None:
                raise ValueError(f"{damaged} in it is damaged")
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
            if not isinstance(checkpoint, Mapping) or "xmodal" not in checkpoint:
                raise ValueError("it is no checkpoint of xmodal")
        except Exception as error:  # whatever torch makes of a damaged file
            problems.append(f"{path} cannot be read ({(str(error) or type(error).__name__).splitlines()[0][:120]})")
            continue
        return path, problems
    return None, problems


def _also_as(file: Path, name: Path) -> None:
    """Give a file a second name, or a copy where the file system has no second names."""
    aside = name.with_name(f".{name.name}.{uuid.uuid4().hex}.partial")
    try:
        try:
            os.link(file, aside)
        except OSError:
            shutil.copyfile(file, aside)
            sync(aside)
        os.replace(aside, name)
    finally:
        aside.unlink(missing_ok=True)
