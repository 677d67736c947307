"""Callbacks that write what users take away from a run: the model folder and exported vectors."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import BasePredictionWriter

from xmodal.data.module import AudioTextData
from xmodal.data.tracks import track_metadata
from xmodal.embeddings import Embeddings
from xmodal.training.gather import gather_rows
from xmodal.training.module import AlignmentModule
from xmodal.training.retrieval import pool_windows

logger = logging.getLogger(__name__)


class ExportModel(pl.Callback):
    """Writes the model folder from the best checkpoint when training has ended.

    Args:
        folder: Where to, relative to the run's folder.
    """

    def __init__(self, folder: str = "model") -> None:
        self.folder = folder

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Load the best weights and save them."""
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        assert isinstance(pl_module, AlignmentModule)
        card = None
        best = next((each for each in trainer.checkpoint_callbacks if getattr(each, "best_model_path", "")), None)
        if best is not None:
            # weights_only: a checkpoint is data, never code.
            checkpoint = torch.load(best.best_model_path, map_location="cpu", weights_only=True)  # type: ignore[attr-defined]
            pl_module.on_load_checkpoint(checkpoint)
            pl_module.load_state_dict(checkpoint["state_dict"], strict=True)
            score = best.best_model_score  # type: ignore[attr-defined]
            if score is not None:
                card = f"Best of the run by `{best.monitor}`: {float(score):.4f}."  # type: ignore[attr-defined]
        folder = run_folder(trainer) / self.folder
        space_id = pl_module.exportable().save(folder, card=card, overwrite=True)
        logger.info("model of space %s saved in %s", space_id, folder)


class WritePredictions(BasePredictionWriter):
    """Writes what ``predict`` embeds as one export, ``embeddings.parquet`` in the run's folder."""

    def __init__(self) -> None:
        super().__init__(write_interval="epoch")

    def write_on_epoch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Pool the windows of each track and save."""
        assert isinstance(pl_module, AlignmentModule)
        data: AudioTextData = trainer.datamodule  # type: ignore[attr-defined]
        tracks = data.evaluation_sets["predict"].tracks
        device = pl_module.device
        vectors, rows = (
            gather_rows(torch.cat([prediction[part] for prediction in predictions]).to(device)).cpu() for part in (0, 1)
        )
        if not trainer.is_global_zero:
            return
        pooled = pool_windows(vectors, rows, len(tracks))
        there = np.unique(rows.numpy())
        path = run_folder(trainer) / "embeddings.parquet"
        Embeddings(
            ids=[tracks[row].id for row in there],
            vectors=pooled[torch.from_numpy(there)].numpy(),
            space_id=pl_module.exportable().space_id(),
            metadata=[track_metadata(tracks[row]) for row in there],
        ).save(path)
        logger.info("%d vectors saved in %s", len(there), path)


def run_folder(trainer: pl.Trainer) -> Path:
    """Where a run keeps its files: its first logger's folder."""
    return Path(trainer.log_dir or trainer.default_root_dir)
