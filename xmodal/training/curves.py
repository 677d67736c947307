"""A CSV logger that goes on where a resumed run stopped."""

from __future__ import annotations

import csv
from pathlib import Path

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter

from xmodal.atomic import written_aside


class CsvCurves(CSVLogger):
    """Metrics in ``metrics.csv`` of the run's folder, each line on the disk as soon as it is logged.

    Lightning's own deletes the file of an earlier start. This one keeps its lines up to the step at which the resumed
    run goes on, and drops those that the run is about to log again.

    Args:
        save_dir: Folder of all runs.
        name: Name of the run.
        version: Folder of this run within; an int becomes ``version_N``.
    """

    def __init__(self, save_dir: str, name: str | None = "base", version: int | str | None = None) -> None:
        super().__init__(save_dir, name, version, flush_logs_every_n_steps=1)

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """The writer of the file, in the first process; the others have none, and make no folder."""
        if self._experiment is None:
            self._experiment = _GoingOn(log_dir=self.log_dir)
        return self._experiment  # type: ignore[return-value]


class _GoingOn(ExperimentWriter):
    _earlier: list[dict[str, str]] | None

    def _check_log_dir_exists(self) -> None:
        # Where Lightning's writer deletes what it finds.
        path = Path(self.metrics_file_path)
        self._earlier = None
        if path.is_file():
            with path.open(newline="") as file:
                self._earlier = list(csv.DictReader(file))

    def save(self) -> None:
        """Write what was logged, after the earlier run's lines."""
        if self.metrics and self._earlier is not None:
            first = min(int(row["step"]) for row in self.metrics)
            kept = [row for row in self._earlier if (row.get("step") or "").isdigit() and int(row["step"]) < first]
            self.metrics_keys = sorted({name for row in kept for name in row if name} | {"step"})
            with written_aside(self.metrics_file_path) as aside, aside.open("w", newline="") as file:
                writer = csv.DictWriter(file, fieldnames=self.metrics_keys, extrasaction="ignore")
                writer.writeheader()
                writer.writerows(kept)
            self._earlier = None
        super().save()
