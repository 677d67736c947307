"""The LightningModule: what a training step and a validation step do.

One step: a batch of tracks and a text each become unit vectors, their cosines a score matrix, and the loss judges it
against the relevance. Where tracks have tags, a second matrix of tracks against one-tag prompts joins in, so that a
query of one word works as well as a sentence.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from xmodal.data.datasets import EvaluationSet, PairBatch, WindowBatch
from xmodal.data.module import AudioTextData
from xmodal.data.register import KnownText
from xmodal.doctor import Space
from xmodal.errors import ModelError
from xmodal.losses.base import EmbeddingLoss, PairwiseLoss, apply_loss
from xmodal.losses.items import BatchItems, needs_of
from xmodal.model import TwoTower
from xmodal.towers.base import AudioTower, TextTower
from xmodal.training.items import ItemSource, known_prompts, known_texts
from xmodal.training.momentum import MomentumEncoder
from xmodal.training.optim import learning_rate_factor
from xmodal.training.retrieval import both_directions, pool_windows

logger = logging.getLogger(__name__)

CHECKPOINT_VERSION = 1


class AlignmentModule(pl.LightningModule):
    """Aligns two towers in one space. Every argument is a line of YAML.

    Args:
        audio: The audio tower.
        text: The text tower.
        loss: Judges a batch by its scores, or by its vectors; owns its temperature, margin and bias.
        dim: Dimension of the joint space.
        audio_hidden: Hidden width of the audio projection; None for a linear one.
        text_hidden: Hidden width of the text projection; None for a linear one.
        dropout: Dropout in the projections' hidden layers.
        window_seconds: Length of the windows that files are cut into.
        hop_seconds: Step from window to window; None for windows side by side.
        last_window: The last-window rule of :class:`xmodal.audio.WindowPolicy`.
        prompt_loss: Judges tracks against one-tag prompts; None for a copy of ``loss`` with parameters of its own.
        prompt_weight: Weight of that second loss; 0 switches it off.
        learning_rate: Peak rate of AdamW.
        text_learning_rate: Peak rate of a pretrained text encoder, if it is trained; None: ``learning_rate`` / 10.
        weight_decay: Of matrices and kernels; biases, gains and the loss's own scalars have none.
        warmup: Share of all steps over which the rate rises from 0.
        schedule: What follows: "cosine" to 0, or "constant".
        text_cache_gigabytes: Memory for what a frozen text encoder said of the texts it has read.
        proxy_learning_rate: Peak rate of learned anchors; None: ten times ``learning_rate``.
        key_momentum: Momentum of a slow copy of the network whose vectors a memory holds and meets, 0.99 or more;
            None for no copy. It needs a loss with a memory.
    """

    def __init__(
        self,
        audio: AudioTower,
        text: TextTower,
        loss: PairwiseLoss | EmbeddingLoss,
        dim: int = 256,
        *,
        audio_hidden: int | None = None,
        text_hidden: int | None = None,
        dropout: float = 0.0,
        window_seconds: float = 10.0,
        hop_seconds: float | None = None,
        last_window: Literal["shift", "pad", "drop"] = "shift",
        prompt_loss: PairwiseLoss | EmbeddingLoss | None = None,
        prompt_weight: float = 1.0,
        learning_rate: float = 1e-3,
        text_learning_rate: float | None = None,
        weight_decay: float = 0.01,
        warmup: float = 0.05,
        schedule: Literal["cosine", "constant"] = "cosine",
        text_cache_gigabytes: float = 2.0,
        proxy_learning_rate: float | None = None,
        key_momentum: float | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup is a share of all steps, at least 0 and below 1; got {warmup}")
        if prompt_weight < 0:
            raise ValueError(f"prompt_weight must be at least 0, got {prompt_weight}")
        self.network = TwoTower(
            audio,
            text,
            dim,
            audio_hidden=audio_hidden,
            text_hidden=text_hidden,
            dropout=dropout,
            window_seconds=window_seconds,
            hop_seconds=hop_seconds,
            last_window=last_window,
        )
        self.loss = loss
        self.prompt_loss = copy.deepcopy(loss) if prompt_loss is None else prompt_loss
        self.prompt_weight = prompt_weight
        self.needs = needs_of(self.loss) | (needs_of(self.prompt_loss) if prompt_weight else frozenset())
        self.key_encoder: MomentumEncoder | None = None
        if key_momentum is not None:
            if "keys" not in self.needs:
                raise ValueError(
                    "key_momentum makes candidates for a memory, and the loss has none; "
                    "put a CrossModalMemory into a CombinedObjective, or leave key_momentum out"
                )
            self.key_encoder = MomentumEncoder(self.network, key_momentum)
        self.proxy_learning_rate = 10 * learning_rate if proxy_learning_rate is None else proxy_learning_rate
        self.item_source: ItemSource | None = None
        self.learning_rate = learning_rate
        self.text_learning_rate = learning_rate / 10 if text_learning_rate is None else text_learning_rate
        self.weight_decay = weight_decay
        self.warmup = warmup
        self.schedule = schedule
        self.text_cache_gigabytes = text_cache_gigabytes
        self._readings: dict[str, Tensor] = {}
        self._readings_bytes = 0
        self._window_vectors: list[Tensor] = []
        self._window_rows: list[Tensor] = []
        self.space: Space | None = None  # what the last validation or test embedded, for callbacks to look at

    # -- vectors ------------------------------------------------------------------------------------------------

    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "texts dim"]:
        """Unit vectors of texts; a frozen tower reads each text once in a run."""
        return normalize(self.project_texts(texts).float(), dim=-1)

    def project_texts(self, texts: Sequence[str]) -> Float[Tensor, "texts dim"]:
        """Vectors of texts before normalisation."""
        return self.network.project_text(self.encode_texts(texts))

    def encode_texts(self, texts: Sequence[str], network: TwoTower | None = None) -> Float[Tensor, "texts features"]:
        """What the text tower, of the trained network or another one, makes of texts before the projection."""
        tower = (network or self.network).text
        if tower.frozen:
            return tower.combine(self.read_texts(texts))
        return tower.encode(tower.tokenize(texts).to(self.device))

    @torch.no_grad()
    def read_texts(self, texts: Sequence[str], batch_size: int = 128) -> list[Tensor]:
        """What the frozen part of the text tower makes of texts; it reads only those that are new to it."""
        unread = sorted(set(texts) - self._readings.keys(), key=len)
        # In a mixed-precision run token vectors, which are many and kept in 16 bits anyway, are read in bfloat16.
        half = (
            torch.is_autocast_enabled(self.device.type) and getattr(self.network.text, "token_head", None) is not None
        )
        fresh: dict[str, Tensor] = {}
        for first in range(0, len(unread), batch_size):
            chunk = unread[first : first + batch_size]
            read = self.network.text.read(self.network.text.tokenize(chunk).to(self.device), half=half)
            # Token vectors are many, and float16 is exact enough to train on; a single vector is kept as it is.
            fresh |= {
                text: reading.half().cpu() if reading.ndim > 1 else reading.cpu()
                for text, reading in zip(chunk, read, strict=True)
            }
        if self._readings_bytes < self.text_cache_gigabytes * 1e9:
            self._readings |= fresh
            self._readings_bytes += sum(reading.nbytes for reading in fresh.values())
        known = self._readings | fresh if fresh.keys() - self._readings.keys() else self._readings
        return [known[text].float().to(self.device) for text in texts]

    # -- training -----------------------------------------------------------------------------------------------

    def training_step(self, batch: PairBatch, _batch_index: int) -> Tensor | None:
        """Loss of one batch; None, which skips the step, if fewer than two of its tracks could be decoded."""
        size = len(batch.features)
        if size < 2:
            return None
        audio_features = self.network.audio.encode(batch.features, batch.valid_frames)
        audio: Tensor = self.network.audio_projection(audio_features)
        items = None if self.item_source is None else self.item_source.of_audio(batch, audio_features)
        text_features = self.encode_texts(batch.texts)
        of_texts = self._with_texts(items, known_texts(batch.facts), text_features)
        text = self.network.project_text(text_features)
        total = apply_loss(self.loss, audio, text, batch.relevance, items=of_texts)
        self.log("train/caption_loss", total, batch_size=size)
        if batch.prompts and self.prompt_weight:
            prompt_features = self.encode_texts(batch.prompts)
            of_prompts = self._with_texts(items, known_prompts(batch.facts), prompt_features)
            prompt_loss = apply_loss(
                self.prompt_loss,
                audio,
                self.network.project_text(prompt_features),
                batch.prompt_relevance,
                batch.prompt_valid,
                items=of_prompts,
            )
            self.log("train/prompt_loss", prompt_loss, batch_size=size)
            total = total + self.prompt_weight * prompt_loss
        self.log("train/loss", total, prog_bar=True, batch_size=size)
        return total

    def _with_texts(
        self, items: BatchItems | None, known: Sequence[KnownText], text_features: Tensor
    ) -> BatchItems | None:
        if items is None or self.item_source is None:
            return None
        return self.item_source.of_texts(items, known, text_features)

    def setup(self, stage: str) -> None:
        """Tell the objectives the vocabulary, and a memory the training tracks; Lightning calls it."""
        data: Any = getattr(self.trainer, "datamodule", None)
        if stage != "fit" or not self.needs:
            return
        if data is None or data.training_set is None:
            raise ValueError(
                "an objective that looks beyond a batch's vectors needs a data module with training tracks"
            )
        self.item_source = ItemSource(self, data.training_set.tracks)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """The optimiser's step, which the key encoder follows."""
        super().optimizer_step(*args, **kwargs)
        if self.key_encoder is not None:
            self.key_encoder.follow(self.network)

    def configure_optimizers(self) -> Any:
        """AdamW with a warm-up; groups by tower, and without decay where decay means nothing."""
        groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
        pretrained = tuple(f"network.text.{prefix}" for prefix in self.network.text.asset_prefixes) or ("-",)
        for name, parameter in self.named_parameters():
            if not parameter.requires_grad:
                continue
            anchors = name.rpartition(".")[2] == "proxies"
            rate = self.text_learning_rate if name.startswith(pretrained) else self.learning_rate
            rate = self.proxy_learning_rate if anchors else rate
            decay = self.weight_decay if parameter.ndim > 1 and not anchors else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
        optimizer = torch.optim.AdamW(
            [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()]
        )
        steps = int(self.trainer.estimated_stepping_batches)
        factor = learning_rate_factor(steps, round(self.warmup * steps), self.schedule)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    # -- evaluation ---------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Forget the windows of the last round."""
        self._window_vectors.clear()
        self._window_rows.clear()

    def validation_step(self, batch: WindowBatch, _batch_index: int) -> None:
        """Embed windows; they are judged together when all of them are there."""
        if len(batch.rows):
            vectors = self.network.embed_audio_features(batch.features, batch.valid_frames)
            self._window_vectors.append(vectors.float().cpu())
            self._window_rows.append(batch.rows.cpu())

    def on_validation_epoch_end(self) -> None:
        """Retrieval metrics in both directions over the whole validation set."""
        self._log_retrieval("validation")

    def on_test_epoch_start(self) -> None:
        """Forget the windows of the last round."""
        self.on_validation_epoch_start()

    def test_step(self, batch: WindowBatch, batch_index: int) -> None:
        """Embed windows of the test set."""
        self.validation_step(batch, batch_index)

    def on_test_epoch_end(self) -> None:
        """Retrieval metrics in both directions over the whole test set."""
        self._log_retrieval("test")

    def predict_step(self, batch: WindowBatch, _batch_index: int) -> tuple[Tensor, Tensor]:
        """Vectors of windows and the tracks they belong to."""
        if not len(batch.rows):
            return torch.zeros(0, self.network.dim), batch.rows.cpu()
        return self.network.embed_audio_features(batch.features, batch.valid_frames).float().cpu(), batch.rows.cpu()

    def _log_retrieval(self, split: Literal["validation", "test"]) -> None:
        data: AudioTextData = self.trainer.datamodule  # type: ignore[attr-defined]
        judged: EvaluationSet = data.evaluation_sets[split]
        if not self._window_vectors:
            return
        tracks = pool_windows(torch.cat(self._window_vectors), torch.cat(self._window_rows), len(judged.tracks))
        with torch.no_grad():
            texts = self.embed_texts(judged.texts).float().cpu()
        there = tracks.norm(dim=1).nan_to_num(1.0) > 0.5  # a validation cut short has not heard every track
        self.space = Space(
            tracks[there],
            texts,
            judged.relevance[there],
            [track.id for track, heard in zip(judged.tracks, there.tolist(), strict=True) if heard],
            judged.texts,
        )
        score = tracks @ texts.T
        for name, value in both_directions(score, judged.relevance).items():
            self.log(f"{split}/{name}", value, prog_bar=name == "text_to_audio/mAP@10", rank_zero_only=True)

    # -- checkpoints --------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out what a frozen text tower brings of its own, and say how to build the rest."""
        frozen = self._frozen_names()
        checkpoint["state_dict"] = {
            name: value for name, value in checkpoint["state_dict"].items() if name not in frozen
        }
        checkpoint["xmodal"] = {
            "format_version": CHECKPOINT_VERSION,
            "network": self.network.config,
            "text_identity": self.network.text.identity(),
        }
        if self.item_source is not None:
            checkpoint["xmodal"]["remembered_texts"] = self.item_source.remembered_texts()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint was made with this frozen text tower, and take its weights from there."""
        stamp = checkpoint.get("xmodal")
        if not isinstance(stamp, Mapping) or stamp.get("format_version") != CHECKPOINT_VERSION:
            raise ModelError(f"the checkpoint was not written by this version of xmodal (format {CHECKPOINT_VERSION})")
        if stamp["text_identity"] != self.network.text.identity():
            raise ModelError(
                "the checkpoint was trained with another text tower than the config names: "
                f"{stamp['text_identity']} against {self.network.text.identity()}"
            )
        if self.item_source is not None:
            self.item_source.register.load_state(stamp.get("remembered_texts", []))
        current = self.state_dict()
        checkpoint["state_dict"] = {name: current[name] for name in self._frozen_names()} | checkpoint["state_dict"]

    def _frozen_names(self) -> set[str]:
        if not self.network.text.frozen:
            return set()
        homes = ("network.text.", "key_encoder.network.text.")
        prefixes = tuple(home + prefix for home in homes for prefix in self.network.text.asset_prefixes)
        return {name for name in self.state_dict() if prefixes and name.startswith(prefixes)}
