"""How far a run is: a bar in a terminal, lines in a file."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar

_AT_LEAST_SECONDS = 5.0  # between two lines: a run of a thousand short epochs is not a thousand lines


class TrainingProgress(RichProgressBar):
    """Lightning's bar where output goes to a terminal; elsewhere a line at the end of an epoch, and now and then.

    A line says where the run stands, the metrics that are logged for the bar, and how long it has taken and will take.
    What validation found stands in the first line after it, and in no later one that would only say it again.

    Args:
        refreshes_per_second: How often the bar is drawn; drawing takes time from training on a CPU.
        seconds: The longest time between two lines within an epoch.
    """

    def __init__(self, refreshes_per_second: int = 4, seconds: float = 60.0) -> None:
        super().__init__(refresh_rate=refreshes_per_second)
        self.seconds = seconds
        self._began = self._last = 0.0
        self._first_step = 0
        self._validated = False
        self.writes_lines = not sys.stdout.isatty()
        if self.writes_lines:
            self.disable()

    def enable(self) -> None:
        """Show the bar, if there is a terminal."""
        if not self.writes_lines:
            super().enable()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count."""
        super().on_train_start(trainer, pl_module)
        self._began = self._last = time.monotonic()
        self._first_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar, or write a line if there was none for long."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if time.monotonic() - self._last >= self.seconds:
            self._write(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember that there is something new to say."""
        super().on_validation_end(trainer, pl_module)
        self._validated = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write a line."""
        super().on_train_epoch_end(trainer, pl_module)
        last = trainer.max_epochs is not None and trainer.current_epoch + 1 == trainer.max_epochs
        if last or time.monotonic() - self._last >= _AT_LEAST_SECONDS:
            self._write(trainer, pl_module)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """What is logged for the bar, without the run's number."""
        metrics: dict[str, Any] = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics

    def _write(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.writes_lines or not trainer.is_global_zero:
            return
        self._last = time.monotonic()
        metrics = self.get_metrics(trainer, pl_module)
        if not self._validated:
            metrics = {name: value for name, value in metrics.items() if not name.startswith("validation/")}
        self._validated = False
        step, steps, epochs = trainer.global_step, float(trainer.estimated_stepping_batches), trainer.max_epochs
        of_epochs = "" if epochs is None or epochs < 0 else f" of {epochs}"
        of_steps = f" of {steps:.0f}" if math.isfinite(steps) else ""
        line = [f"epoch {trainer.current_epoch + 1}{of_epochs}", f"step {step}{of_steps}"]
        for name, value in metrics.items():
            line.append(f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}")
        taken, done = self._last - self._began, step - self._first_step
        line.append(duration(taken))
        if math.isfinite(steps) and done and step < steps:
            line[-1] += f", about {duration(taken / done * (steps - step))} to go"
        sys.stdout.write("  " + " · ".join(line) + "\n")
        sys.stdout.flush()


def duration(seconds: float) -> str:
    """A time in a few letters: "40 s", "3 min", "5 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"
