"""Callbacks that write what users take away from a run: the model folder and exported vectors."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from jaxtyping import Float, Int
from pytorch_lightning.callbacks import BasePredictionWriter
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor

from xmodal.data.datasets import EvaluationSet
from xmodal.data.module import AudioTextData
from xmodal.data.tracks import track_metadata
from xmodal.embeddings import Embeddings, window_ids
from xmodal.model import TwoTower
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
        assert isinstance(pl_module, AlignmentModule)
        # Of split weights each process has a part, and all take part in putting them together.
        alone = pl_module.sharded is None
        if trainer.fast_dev_run or (alone and not trainer.is_global_zero):  # type: ignore[attr-defined]
            return
        if not alone:
            trainer.strategy.barrier()  # until the first process has given its last checkpoint a name
        card = None
        best = next((each for each in trainer.checkpoint_callbacks if getattr(each, "best_model_path", "")), None)
        if best is not None:
            # weights_only: a checkpoint is data, never code.
            checkpoint = torch.load(best.best_model_path, map_location="cpu", weights_only=True)  # type: ignore[attr-defined]
            pl_module.on_load_checkpoint(checkpoint)
            trainer.strategy.load_model_state_dict(checkpoint, strict=True)
            score = best.best_model_score  # type: ignore[attr-defined]
            if score is not None:
                card = f"Best of the run by `{best.monitor}`: {float(score):.4f}."  # type: ignore[attr-defined]
        network = pl_module.exportable()
        if not trainer.is_global_zero:
            return
        folder = run_folder(trainer) / self.folder
        space_id = network.save(folder, card=card, overwrite=True)
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
        judged = data.evaluation_sets["predict"]
        parts = [torch.cat([prediction[part] for prediction in predictions]).to(pl_module.device) for part in range(4)]
        vectors, entries, shares, energies = (gather_rows(part).cpu() for part in parts)
        network = pl_module.exportable()
        if not trainer.is_global_zero:
            return
        entries, order = entries.sort()
        windows = FoundWindows(vectors[order], entries, shares[order], energies[order])
        path = run_folder(trainer) / "embeddings.parquet"
        made = _rows(judged, windows, network)
        Embeddings(made[0], made[1], network.space_id(), made[2]).save(path)
        logger.info("%d vectors saved in %s", len(made[0]), path)


class FoundWindows(NamedTuple):
    """Windows that were embedded, in the order of their set."""

    vectors: Float[Tensor, "windows dim"]
    entries: Int[Tensor, " windows"]
    shares: Float[Tensor, " windows"]
    energies: Float[Tensor, " windows"]


def _rows(
    judged: EvaluationSet, windows: FoundWindows, network: TwoTower
) -> tuple[list[str], Float[np.ndarray, "rows dim"], list[dict[str, Any]]]:
    """Ids, vectors and metadata of an export: a row for each track, or for each window if the model keeps them."""
    places = [judged.windows.entries[entry] for entry in windows.entries.tolist()]
    of_row = {row: place for place, row in enumerate(judged.rows)}
    rows = torch.tensor([of_row[row] for row, _ in places])
    there = rows.unique().tolist()
    if network.pooling == "windows":
        starts_of: dict[int, list[float]] = {place: [] for place in there}
        for row, start in places:
            starts_of[of_row[row]].append(judged.tracks[of_row[row]].start_seconds + start)
        ids, facts = [], []
        for place, starts in starts_of.items():
            track = judged.tracks[place]
            ids += window_ids(track.id, starts)
            known = track_metadata(track)
            known.pop("end_seconds", None)  # the track's, not the window's
            facts += [{**known, "track": track.id, "start_seconds": start} for start in starts]
        return ids, windows.vectors.numpy(), facts
    pooled = pool_windows(
        windows.vectors,
        rows,
        len(judged.tracks),
        shares=windows.shares,
        energies=windows.energies,
        pooling=network.pooling,
        top_windows=network.top_windows,
    )
    tracks = [judged.tracks[place] for place in there]
    return [track.id for track in tracks], pooled[there].numpy(), [track_metadata(track) for track in tracks]


def run_folder(trainer: pl.Trainer) -> Path:
    """Where a run keeps its files: its first logger's folder.

    Lightning's ``trainer.log_dir`` says the same, but asks all processes; a callback that acts in the first one alone
    would wait for the others for ever.
    """
    if not trainer.loggers:
        return Path(trainer.default_root_dir)
    first = trainer.loggers[0]
    place = first.log_dir if isinstance(first, TensorBoardLogger | CSVLogger) else first.save_dir
    return Path(place or trainer.default_root_dir)
