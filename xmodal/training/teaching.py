"""What the model has learnt so far, told to the sampler that chooses the next batches by it."""

from __future__ import annotations

import numpy as np
import pytorch_lightning as pl
import torch
from jaxtyping import Float

from xmodal.data.module import AudioTextData
from xmodal.data.samplers import DistanceBinBatches, HardTagBatches
from xmodal.data.windows import Features
from xmodal.text import tag_prompts
from xmodal.training.module import AlignmentModule


class TeachBatches(pl.Callback):
    """Embeds tags for :class:`~xmodal.data.samplers.HardTagBatches`, tracks for ``DistanceBinBatches``.

    At the start of an epoch; what the sampler learns then counts from the next epoch on. So every checkpoint that is
    written in an epoch holds what the next one needs, and a run that goes on has the batches of an undisturbed run.

    Args:
        every_n_epochs: How often.
        batch_size: Windows to embed at a time.
    """

    def __init__(self, every_n_epochs: int = 1, batch_size: int = 128) -> None:
        if every_n_epochs < 1 or batch_size < 1:
            raise ValueError(f"every_n_epochs and batch_size must be at least 1, got {every_n_epochs} and {batch_size}")
        self.every_n_epochs, self.batch_size = every_n_epochs, batch_size

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Teach."""
        data: AudioTextData = trainer.datamodule  # type: ignore[attr-defined]
        sampler = data.batches
        if trainer.current_epoch % self.every_n_epochs or not isinstance(sampler, HardTagBatches | DistanceBinBatches):
            return
        assert isinstance(pl_module, AlignmentModule)
        modes = {module: module.training for module in pl_module.modules()}
        pl_module.eval()
        try:
            with torch.no_grad():
                if isinstance(sampler, HardTagBatches):
                    prompts = [tag_prompts(tag)[0] for tag in sampler.tags]
                    vectors = pl_module.embed_texts(prompts).float().cpu().numpy()
                else:
                    vectors = self._embed_tracks(pl_module, data)
        finally:
            for module, mode in modes.items():
                module.training = mode
        # All processes must choose alike, and their arithmetic may differ in the last bit.
        sampler.learn(trainer.strategy.broadcast(vectors), from_epoch=trainer.current_epoch + 1)

    def _embed_tracks(self, pl_module: AlignmentModule, data: AudioTextData) -> Float[np.ndarray, "tracks dim"]:
        """Vectors of each training track's first window; zeros, which are near to nothing, where there is none."""
        assert data.training_set is not None
        windows, rows = data.training_set.windows, data.training_set.rows
        first: dict[int, int] = {}
        for entry, (row, _) in enumerate(windows.entries):
            first.setdefault(row, entry)
        vectors = np.zeros((len(rows), pl_module.network.dim), dtype=np.float32)
        for begin in range(0, len(rows), self.batch_size):
            places = range(begin, min(begin + self.batch_size, len(rows)))
            heard = [(place, windows[first[rows[place]]]) for place in places]
            good = [(place, item) for place, item in heard if isinstance(item, Features)]
            if good:
                features = torch.stack([item.values for _, item in good]).to(pl_module.device)
                valid = torch.tensor([item.valid_frames for _, item in good], device=pl_module.device)
                network = pl_module.network
                made = (
                    network.embed_encoded(features[:, :, 0])
                    if windows.encoded
                    else network.embed_audio_features(features, valid)
                )
                vectors[[place for place, _ in good]] = made.float().cpu().numpy()
        return vectors
