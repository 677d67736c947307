"""Callbacks that watch over a run: the doctor at each validation, and a stop at the first NaN or infinity."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from xmodal.atomic import written_aside
from xmodal.data.datasets import PairBatch
from xmodal.data.module import AudioTextData
from xmodal.doctor import Finding, Report, examine_scales, examine_space
from xmodal.doctor.findings import judge
from xmodal.errors import TrainingError
from xmodal.training.callbacks import run_folder
from xmodal.training.module import AlignmentModule
from xmodal.training.sharding import local, total_norm

logger = logging.getLogger(__name__)

_NAMED = 5


class SpaceDoctor(pl.Callback):
    """Examines the validation set's vectors after each validation, as ``xmodal doctor`` does.

    The figures go to every logger as ``doctor/check/side``, the newest report to ``doctor.json`` in the run's folder,
    and what turned ill is said in the log, once, with advice.

    Args:
        patience: Validations that pass before it says aloud that something is ill: a model that has hardly begun
            is at chance by right.
        pictures: Draw ``doctor.png`` (and TensorBoard's image) after "each" validation, after the "last", or "none".
    """

    def __init__(self, patience: int = 1, pictures: Literal["each", "last", "none"] = "last") -> None:
        if patience < 0:
            raise ValueError(f"patience must be at least 0, got {patience}")
        if pictures not in ("each", "last", "none"):
            raise ValueError(f"pictures must be 'each', 'last' or 'none', got {pictures!r}")
        self.patience, self.pictures = patience, pictures
        self.report: Report | None = None
        self._seen = 0
        self._said: set[tuple[str, str]] = set()
        self._start: dict[str, str] = {}
        self._first_step = 0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember what every trainable weight was, as a hash."""
        self._start = {name: _digest(value) for name, value in _trainable(pl_module)}
        self._first_step = trainer.global_step

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Examine, log and, if it must be, warn."""
        assert isinstance(pl_module, AlignmentModule)
        if trainer.sanity_checking or not trainer.is_global_zero or pl_module.space is None:
            return
        self._seen += 1
        found = examine_space(pl_module.space, pl_module.loss)
        found += examine_scales({name: value for name, value in pl_module.state_dict().items() if "loss" in name})
        if trainer.global_step > self._first_step and self._start:
            found.append(self._never_updated(pl_module))
        self.report = Report(found, {"step": trainer.global_step, "epoch": trainer.current_epoch})
        for each in trainer.loggers:
            each.log_metrics(
                {f"doctor/{name}": value for name, value in self.report.figures().items()}, trainer.global_step
            )
        if trainer.loggers:
            _write_json(run_folder(trainer) / "doctor.json", self.report.as_json())
        self._speak()
        if self.pictures == "each":
            self._draw(trainer, pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the last picture and sum up."""
        assert isinstance(pl_module, AlignmentModule)
        if self.report is None or not trainer.is_global_zero:
            return
        if self.pictures == "last":
            self._draw(trainer, pl_module)
        worst = self.report.of("ill") or self.report.of("warning")
        named = ", ".join(f"{finding.check} of {finding.about}" for finding in worst[:_NAMED])
        logger.info("doctor: %s%s", self.report.verdict, f" ({named})" if named else "")

    def _speak(self) -> None:
        assert self.report is not None
        ill = {(finding.check, finding.about): finding for finding in self.report.of("ill")}
        if self._seen > self.patience:
            for key, finding in ill.items():
                if key not in self._said:
                    logger.warning("doctor: %s of %s: %s. %s", *key, finding.detail, finding.advice)
            self._said = set(ill)  # what got well may be said again

    def _never_updated(self, module: AlignmentModule) -> Finding:
        same = [name for name, value in _trainable(module) if self._start.get(name) == _digest(value)]
        detail = f"{len(same)} of {len(self._start)} trainable weights are as they were when the run began"
        return judge("untrained weights", "since the start", float(len(same)), detail, same[:_NAMED])

    def _draw(self, trainer: pl.Trainer, module: AlignmentModule) -> None:
        if not trainer.loggers or module.space is None or self.report is None:
            return
        from xmodal.doctor.pictures import draw_space, pixels, save_picture  # matplotlib, needed only here

        if min(module.space.finite().relevance.shape) < 2:
            return
        title = f"step {self.report.facts['step']}: {self.report.verdict}"
        picture = pixels(draw_space(module.space, title=title))
        save_picture(picture, run_folder(trainer) / "doctor.png")
        for each in trainer.loggers:
            if isinstance(each, TensorBoardLogger):
                each.experiment.add_image("doctor", picture, self.report.facts["step"], dataformats="HWC")


class StopOnNonFinite(pl.Callback):
    """Stops at the first NaN or infinity, before the optimiser takes it over, and says which batch it was.

    The loss is looked at before its backward pass and the gradients before the optimiser's step, each by one number
    that the host waits for. ``nonfinite.json`` in the run's folder then holds the batch's ids and texts and the names
    of all tensors that are not finite. Under float16 with a gradient scaler, infinite gradients are ordinary, and the
    scaler skips the step: there only the loss is looked at.

    Args:
        every_n_steps: Look at each n-th batch only.
    """

    def __init__(self, every_n_steps: int = 1) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps must be at least 1, got {every_n_steps}")
        self.every_n_steps = every_n_steps
        self._batch: Any = None
        self._index = 0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the batch at hand."""
        self._batch, self._index = batch, batch_idx

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Let the batch go."""
        self._batch = None

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Look at the loss.

        Raises:
            TrainingError: If it is not finite.
        """
        if self._index % self.every_n_steps == 0 and not bool(torch.isfinite(loss).all()):
            self._stop(trainer, pl_module, "loss", float(loss.detach()))

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        """Look at the gradients.

        Raises:
            TrainingError: If one of them is not finite.
        """
        if self._index % self.every_n_steps or getattr(trainer.precision_plugin, "scaler", None) is not None:
            return
        gradients = [
            parameter.grad
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        norm = float(total_norm(gradients)) if gradients else 0.0
        if not math.isfinite(norm):
            self._stop(trainer, pl_module, "gradient", norm)

    def _stop(self, trainer: pl.Trainer, module: pl.LightningModule, where: str, value: float) -> None:
        many = trainer.world_size > 1
        name = f"nonfinite-rank{trainer.global_rank}.json" if many else "nonfinite.json"
        path = run_folder(trainer) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        facts = {
            "where": where,
            "value": str(value),
            "step": trainer.global_step,
            "epoch": trainer.current_epoch,
            "batch_index": self._index,
            "rank": trainer.global_rank,
            "precision": str(trainer.precision),
            "learning_rates": [group["lr"] for each in trainer.optimizers for group in each.param_groups],
            **_batch_facts(self._batch, trainer),
            "weights_not_finite": _broken((name, value.detach()) for name, value in module.named_parameters()),
            "gradients_not_finite": _broken(
                (name, value.grad) for name, value in module.named_parameters() if value.grad is not None
            ),
        }
        _write_json(path, facts)
        if many and where == "loss":
            return  # the other processes know nothing of it; the gradients that they share will stop them all
        raise TrainingError(
            f"the {where} became {value} at step {trainer.global_step} (epoch {trainer.current_epoch}); the batch's "
            f"tracks and texts are named in {path}; look at these files, lower the learning rate, clip gradients "
            "(trainer.gradient_clip_val) or train with trainer.precision 32-true, and go on from the last checkpoint"
        )


def _batch_facts(batch: Any, trainer: pl.Trainer) -> dict[str, Any]:
    if not isinstance(batch, PairBatch):
        return {"batch": type(batch).__name__}
    data: AudioTextData = trainer.datamodule  # type: ignore[attr-defined]
    assert data.training_set is not None
    ids = [data.training_set.tracks[row].id for row in batch.facts.rows]
    broken = ~torch.isfinite(batch.features).flatten(1).all(dim=1)
    return {
        "tracks": ids,
        "tracks_with_features_not_finite": [ids[row] for row in broken.nonzero().flatten().tolist()],
        "texts": list(batch.texts),
        "prompts": list(batch.prompts),
    }


def _broken(tensors: Iterable[tuple[str, Tensor]]) -> list[str]:
    return [name for name, value in tensors if not bool(torch.isfinite(local(value)).all())]


def _trainable(module: pl.LightningModule) -> Iterable[tuple[str, Tensor]]:
    network: torch.nn.Module = module.network  # type: ignore[assignment]
    return ((name, value) for name, value in network.named_parameters() if value.requires_grad)


def _digest(value: Tensor) -> str:
    array = local(value).cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha1(array.data, usedforsecurity=False).hexdigest()


def _write_json(path: Path, facts: Mapping[str, Any]) -> None:
    with written_aside(path) as aside:
        aside.write_text(json.dumps(facts, ensure_ascii=False, indent=1) + "\n", "utf-8")
