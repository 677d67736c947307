"""Training: the LightningModule, its callbacks and the command line around them.

A checkpoint (``*.ckpt``) is for going on with training. What users load is the model folder that
:class:`ExportModel` writes from the best checkpoint when training ends.
"""

from __future__ import annotations

from xmodal.training.callbacks import ExportModel, WritePredictions, run_folder
from xmodal.training.checkpoints import Checkpoints
from xmodal.training.command import Cli, config_folder, main, run, show_log
from xmodal.training.curves import CsvCurves
from xmodal.training.health import SpaceDoctor, StopOnNonFinite
from xmodal.training.module import AlignmentModule
from xmodal.training.optim import learning_rate_factor
from xmodal.training.progress import TrainingProgress
from xmodal.training.record import RecordRun
from xmodal.training.retrieval import both_directions, pool_windows
from xmodal.training.strategy import FullyShardedStrategy
from xmodal.training.teaching import TeachBatches
from xmodal.training.tuning import TowerTuning

__all__ = [
    "AlignmentModule",
    "Checkpoints",
    "Cli",
    "CsvCurves",
    "ExportModel",
    "FullyShardedStrategy",
    "RecordRun",
    "SpaceDoctor",
    "StopOnNonFinite",
    "TeachBatches",
    "TowerTuning",
    "TrainingProgress",
    "WritePredictions",
    "both_directions",
    "config_folder",
    "learning_rate_factor",
    "main",
    "pool_windows",
    "run",
    "run_folder",
    "show_log",
]
