"""The trainer of the tests: on the CPU, and nothing is said or written that a test does not ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl


def quiet_trainer(folder: Path | None, *callbacks: pl.Callback, **settings: Any) -> pl.Trainer:
    """A trainer without logger, checkpoints, progress bar and trial validation; ``settings`` are Lightning's."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "num_sanity_val_steps": 0, "accelerator": "cpu"}
    return pl.Trainer(default_root_dir=folder, callbacks=list(callbacks), **quiet | settings)
