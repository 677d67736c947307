"""Which run ``--resume`` means, where it goes on, and that all processes of a run have one folder."""

from __future__ import annotations

import logging
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from xmodal.errors import ModelError
from xmodal.training.checkpoints import last_good

logger = logging.getLogger(__name__)

NEWEST = "newest"


class OneRunFolder(pl.Callback):
    """Gives the loggers of every process the folder that the first one chose.

    Each process looks for the next free ``version_N`` before it knows of the others. Where another run of the same name
    begins in between, or a network file system shows it late, they would find different ones.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Ask the first process."""
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger | CSVLogger):
                logger._version = trainer.strategy.broadcast(logger.version)


def run_to_resume(runs: Path, wish: str) -> tuple[Path, Path] | None:
    """The folder of the run and its last good checkpoint; None where a new run is to begin.

    What is wrong with newer checkpoints is said in the log.

    Args:
        runs: Folder of all runs of a name.
        wish: :data:`NEWEST` for the newest of them that has a checkpoint, or the folder of a run.

    Raises:
        ModelError: If the folder named is no run's, or holds no checkpoint that can be read.
    """
    if wish == NEWEST:
        for folder in versions(runs):
            checkpoint = _checkpoint_of(folder)
            if checkpoint is not None:
                return folder, checkpoint
        logger.info("no run in %s has a checkpoint to go on from; a new one begins", runs)
        return None
    folder = Path(wish).resolve()
    if not folder.is_dir():
        raise ModelError(f"{wish} is no folder of a run; give one such as runs/base/version_0")
    checkpoint = _checkpoint_of(folder)
    if checkpoint is None:
        raise ModelError(f"{wish} holds no checkpoint that can be read; train anew without --resume")
    return folder, checkpoint


def versions(runs: Path) -> list[Path]:
    """Folders ``version_N`` of a run's name, the newest first."""
    numbered = [path for path in runs.glob("version_*") if path.name.removeprefix("version_").isdigit()]
    return sorted(numbered, key=lambda path: int(path.name.removeprefix("version_")), reverse=True)


def next_version(runs: Path) -> int:
    """The number of a new run."""
    return max((int(path.name.removeprefix("version_")) for path in versions(runs)), default=-1) + 1


def _checkpoint_of(folder: Path) -> Path | None:
    checkpoint, problems = last_good(folder / "checkpoints")
    for problem in problems:
        logger.warning("%s", problem)
    if checkpoint is not None:
        logger.info("going on with %s from %s", folder, checkpoint.name)
    return checkpoint
