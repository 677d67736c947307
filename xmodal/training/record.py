"""A callback that writes down what a run was made of, so that it can be compared and repeated."""

from __future__ import annotations

import datetime
import json
import os
import time
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl

from xmodal.atomic import written_aside
from xmodal.data.module import AudioTextData
from xmodal.runs import RUN_FILE, data_fingerprint, start_facts
from xmodal.training.callbacks import run_folder
from xmodal.training.health import SpaceDoctor


class RecordRun(pl.Callback):
    """Writes ``run.json`` into the run's folder: what was run, with what, on what, and how it stands.

    The command, versions, the state of the code (git), the seed and a fingerprint of the data are written when
    training starts; step, epoch, best score and status after each validation and at the end, also where that end is
    an error. A run that goes on in the same folder adds an entry to "starts". The resolved configuration is in
    ``config.yaml`` beside it. ``xmodal runs`` reads both.

    Args:
        fingerprint: What of the audio files is hashed: "sizes" (their names and sizes) or "contents" (every byte,
            which takes as long as reading them).
    """

    def __init__(self, fingerprint: Literal["sizes", "contents"] = "sizes") -> None:
        if fingerprint not in ("sizes", "contents"):
            raise ValueError(f"fingerprint must be 'sizes' or 'contents', got {fingerprint!r}")
        self.fingerprint = fingerprint
        self._facts: dict[str, Any] = {}
        self._began = 0.0
        self._before = 0.0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gather and write."""
        if not trainer.is_global_zero or not trainer.loggers:
            return
        data: AudioTextData = trainer.datamodule  # type: ignore[attr-defined]
        # Of shards, the shards themselves are the files.
        everything = [track for tracks in data.read().values() for track in tracks]
        files = [Path(getattr(track.data, "container", None) or track.path) for track in everything]
        before = _read(run_folder(trainer) / RUN_FILE)
        now = _now()
        self._before, self._began = float(before.get("seconds") or 0.0), time.monotonic()
        self._facts = {
            "started": before.get("started", now),
            "starts": [*before.get("starts", []), {"at": now, "step": trainer.global_step}],
            "status": "running",
            **start_facts(),
            "seed": _seed(),
            "data": data_fingerprint(data.manifest, files, self.fingerprint),
            "splits": {name: len(tracks) for name, tracks in data.read().items()},
            "parameters": sum(value.numel() for value in pl_module.parameters()),
            "trainable": sum(value.numel() for value in pl_module.parameters() if value.requires_grad),
            "precision": str(trainer.precision),
            "devices": f"{trainer.num_devices} x {trainer.strategy.root_device.type}",
            "processes": trainer.world_size,
        }
        self._write(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write how far the run is."""
        if not trainer.sanity_checking:
            self._write(trainer)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write that it is done."""
        self._write(trainer, status="stopped" if trainer.interrupted else "finished")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Write what ended it."""
        by_hand = isinstance(exception, KeyboardInterrupt)
        self._write(
            trainer, status="stopped" if by_hand else "failed", error=f"{type(exception).__name__}: {exception}"
        )

    def _write(self, trainer: pl.Trainer, **changes: Any) -> None:
        if not self._facts or not trainer.is_global_zero:
            return
        # Of xmodal's own checkpoints as of Lightning's: what both say of the best is all that is asked.
        best: Any = next((each for each in trainer.checkpoint_callbacks if getattr(each, "monitor", None)), None)
        doctor = next((each for each in trainer.callbacks if isinstance(each, SpaceDoctor)), None)  # type: ignore[attr-defined]
        self._facts |= {
            "step": trainer.global_step,
            "epoch": trainer.current_epoch,
            "seconds": round(self._before + time.monotonic() - self._began, 1),
            "written": _now(),
            **changes,
        }
        if best is not None and best.best_model_score is not None:
            self._facts["best"] = {"monitor": best.monitor, "score": float(best.best_model_score)}
        if doctor is not None and doctor.report is not None:
            self._facts["doctor"] = doctor.report.verdict
        with written_aside(run_folder(trainer) / RUN_FILE) as aside:
            aside.write_text(json.dumps(self._facts, ensure_ascii=False, indent=1, default=str) + "\n", "utf-8")


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _seed() -> int | None:
    seed = os.environ.get("PL_GLOBAL_SEED", "")
    return int(seed) if seed.lstrip("-").isdecimal() else None


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
