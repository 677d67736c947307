"""The LightningModule: what a training step and a validation step do.

One step: a batch of tracks and a text each become unit vectors, their cosines a score matrix, and the loss judges it
against the relevance. Where tracks have tags, a second matrix of tracks against one-tag prompts joins in, so that a
query of one word works as well as a sentence.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal, Self

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from xmodal.data.datasets import BatchFacts, EvaluationSet, PairBatch, WindowBatch
from xmodal.data.module import AudioTextData
from xmodal.data.register import KnownText
from xmodal.doctor import Space
from xmodal.losses import StreamedLoss
from xmodal.losses.base import EmbeddingLoss, PairwiseLoss, apply_loss
from xmodal.losses.items import BatchItems, needs_of
from xmodal.model import TwoTower
from xmodal.towers.base import AudioTower, TextTower
from xmodal.towers.metric import MetricHead
from xmodal.training.averaging import AveragedWeights
from xmodal.training.chunks import checkpoint_layers
from xmodal.training.contrast import Contrast, contrasts_of
from xmodal.training.draws import seed_draws, seeded_draws
from xmodal.training.encoding import BatchEncoder, zero_of
from xmodal.training.gather import gather_rows, process_count, row_counts
from xmodal.training.items import ItemSource, known_prompts, known_texts
from xmodal.training.local import check_local, local_loss
from xmodal.training.memory import give_back_freed_memory, keep_freed_memory
from xmodal.training.momentum import MomentumEncoder
from xmodal.training.optim import learning_rate_factor, parameter_groups
from xmodal.training.readings import ReadingCache
from xmodal.training.retrieval import HeardWindows, both_directions
from xmodal.training.sharding import ShardedAdamW, ShardedNetwork, clip_gradients
from xmodal.training.stamps import digest_frozen, read_stamp, write_stamp
from xmodal.training.strategy import split_weights
from xmodal.training.tuning import TowerTuning, apply_tuning, merge_additions, stacks
from xmodal.view import Pooling

logger = logging.getLogger(__name__)


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
        pooling: How a track's windows become its vector (:func:`xmodal.view.pool`), in validation and in the exported
            model; where only features are kept, validation weighs ``energy`` as ``mean``.
        top_windows: How many windows the pooling ``top_k`` keeps.
        centred: Centre the joint space by batch normalisation, which speeds up every loss (:class:`TwoTower`).
        prompt_loss: Judges tracks against one-tag prompts; None for a copy of ``loss`` with parameters of its own.
        prompt_weight: Weight of that second loss; 0 switches it off.
        learning_rate: Peak rate of AdamW.
        audio_learning_rate: Peak rate of a pretrained audio encoder, if it is trained; None: ``learning_rate`` / 10.
        text_learning_rate: The same of a pretrained text encoder.
        weight_decay: Of matrices and kernels; biases, gains and the loss's own scalars have none.
        warmup: Share of all steps over which the rate rises from 0.
        schedule: What follows: "cosine" to 0, or "constant".
        text_cache_gigabytes: Memory for what a frozen text encoder said of the texts it has read.
        audio_parts: Project the audio tower's features in so many parts that do not see one another: for ensembles.
        metric: A learned map that both sides pass behind their projections; None for none.
        proxy_learning_rate: Peak rate of learned anchors; None: ten times ``learning_rate``.
        key_momentum: Momentum of a slow copy of the network whose vectors a memory holds and meets, 0.99 or more;
            None for no copy. It needs a loss with a memory.
        chunk_size: Tracks, and texts, that a tower encodes at a time in training, so that a batch of any size fits
            (GradCache: same loss and gradients, a third more work); None for the whole batch at once.
        local_loss: Over many processes, let each judge its own tracks and texts against everybody's, so that memory
            grows with N·B and not with its square; for losses that define ``row_terms``.
        ema_decay: Keep a moving average of the weights that validation and the exported model use; None for none.
        audio_tuning: How much of the audio tower is trained, and how fast; None for all of it.
        text_tuning: The same of the text tower; a frozen one stays frozen.
        gradient_checkpointing: Compute the towers' layers again in the backward pass instead of keeping what they made.
        compile: Compile the towers with ``torch.compile``.
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
        pooling: Pooling = "mean",
        top_windows: int = 3,
        centred: bool = False,
        prompt_loss: PairwiseLoss | EmbeddingLoss | None = None,
        prompt_weight: float = 1.0,
        learning_rate: float = 1e-3,
        audio_learning_rate: float | None = None,
        text_learning_rate: float | None = None,
        weight_decay: float = 0.01,
        warmup: float = 0.05,
        schedule: Literal["cosine", "constant"] = "cosine",
        text_cache_gigabytes: float = 2.0,
        audio_parts: int = 1,
        metric: MetricHead | None = None,
        proxy_learning_rate: float | None = None,
        key_momentum: float | None = None,
        chunk_size: int | None = None,
        local_loss: bool = False,
        ema_decay: float | None = None,
        audio_tuning: TowerTuning | None = None,
        text_tuning: TowerTuning | None = None,
        gradient_checkpointing: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup is a share of all steps, at least 0 and below 1; got {warmup}")
        if prompt_weight < 0:
            raise ValueError(f"prompt_weight must be at least 0, got {prompt_weight}")
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(f"chunk_size must be at least 1 (or null for the whole batch), got {chunk_size}")
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
            pooling=pooling,
            top_windows=top_windows,
            centred=centred,
            audio_parts=audio_parts,
            metric=metric,
        )
        self.audio_tuning, self.text_tuning = audio_tuning or TowerTuning(), text_tuning or TowerTuning()
        for side, tuning in (("audio", self.audio_tuning), ("text", self.text_tuning)):
            apply_tuning(getattr(self.network, side), tuning, side)
        if compile and gradient_checkpointing:
            raise ValueError(
                "compile and gradient_checkpointing exclude each other, a compiled tower decides itself what to keep; "
                "choose one, or compile with chunk_size"
            )
        if gradient_checkpointing:
            for tower in (self.network.audio, self.network.text):
                checkpoint_layers(layer for _, layers in stacks(tower) for layer in layers)
        self.compiles = compile
        self.encoder = BatchEncoder(self, chunk_size)
        self.sharded: ShardedNetwork | None = None  # how the weights are split, where the strategy does that
        self.averaged = None if ema_decay is None else AveragedWeights(self.network, ema_decay)
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
        self.audio_learning_rate = learning_rate / 10 if audio_learning_rate is None else audio_learning_rate
        self.text_learning_rate = learning_rate / 10 if text_learning_rate is None else text_learning_rate
        self.weight_decay = weight_decay
        self.warmup = warmup
        self.schedule = schedule
        self.local_loss = local_loss
        if local_loss:
            check_local(self.loss)
            if prompt_weight:
                check_local(self.prompt_loss)
        self._readings = ReadingCache(text_cache_gigabytes)
        self.seed: int | None = None
        self._judged = False  # whether there was a batch to learn from since the last optimiser's step
        self._frozen_weights: dict[str, str | None] | None = None
        self._heard = HeardWindows()
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

    def read_texts(self, texts: Sequence[str]) -> list[Tensor]:
        """What the frozen part of the text tower makes of texts; it reads only those that are new to it."""
        # In a mixed-precision run token vectors, which are many and kept in 16 bits anyway, are read in bfloat16.
        mixed = self._trainer is not None and str(self.trainer.precision).endswith("mixed")
        half = mixed and getattr(self.network.text, "token_head", None) is not None
        return self._readings.read(self.network.text, texts, self.device, half=half)

    # -- training -----------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Agree on the seed from which every step draws; a resumed run keeps its own."""
        if self.seed is None:
            self.seed = self.trainer.strategy.broadcast(torch.initial_seed())
        if self.averaged is not None and not self.averaged.steps:
            self.averaged.restart(self.network)
        if self.compiles:
            self.encoder.compile()
        if self.device.type == "cpu":
            keep_freed_memory()

    def on_fit_end(self) -> None:
        """Give back what training held; Lightning calls it."""
        give_back_freed_memory()

    def train(self, mode: bool = True) -> Self:
        """Set training mode, but for towers that are locked: their statistics and dropout rest too."""
        super().train(mode)
        for tower, tuning in ((self.network.audio, self.audio_tuning), (self.network.text, self.text_tuning)):
            if tuning.train == "none":
                tower.eval()
        return self

    def on_train_batch_start(self, batch: PairBatch, batch_index: int) -> None:
        """Draw what this step draws from its own place in the run, so that a resumed run draws the same."""
        seed_draws(self.seed, self.current_epoch, batch_index, self.global_rank)

    def training_step(self, batch: PairBatch, batch_index: int) -> Tensor | None:
        """Loss of one batch; if fewer than two of all processes' tracks could be decoded, nothing is learnt."""
        size = sum(row_counts(len(batch.features), self.device))
        if size < 2:
            return self._nothing_to_judge()
        self._judged = True
        audio_features, audio = self.encoder.audio(batch)
        text_features, text = self.encoder.texts(batch.texts)
        prompt_features, prompts = self.encoder.texts(batch.prompts if self.prompt_weight else [])
        data: AudioTextData | None = self.trainer.datamodule  # type: ignore[attr-defined]
        judge = None if data is None or data.training_set is None else data.training_set.judge
        contrasts = contrasts_of(batch, audio, text, prompts, judge, local=self.local_loss)
        items = None if self.item_source is None else self.item_source.of_audio(batch, audio_features)
        of_texts = self._with_texts(items, known_texts, batch.facts, contrasts.facts, text_features)
        # Miners and others draw in the loss: every process the same, since each judges the whole batch.
        with seeded_draws(self.device, self.seed, self.current_epoch, batch_index, "loss"):
            total, shown = self._judge(self.loss, contrasts.captions, of_texts)
        self.log("train/caption_loss", shown, batch_size=size)
        if len(contrasts.prompts[0].text) and self.prompt_weight:
            of_prompts = self._with_texts(items, known_prompts, batch.facts, contrasts.facts, prompt_features)
            with seeded_draws(self.device, self.seed, self.current_epoch, batch_index, "prompt loss"):
                prompt_total, prompt_shown = self._judge(self.prompt_loss, contrasts.prompts, of_prompts)
            self.log("train/prompt_loss", prompt_shown, batch_size=size)
            total = total + self.prompt_weight * prompt_total
            shown = shown + self.prompt_weight * prompt_shown
        self.log("train/loss", shown, prog_bar=True, batch_size=size)
        # Processes must agree on which weights got a gradient, also those of a loss that had nothing to judge; one
        # process does the same, for AdamW decays what has a gradient of zero and leaves alone what has none.
        return total + zero_of([self.loss, self.prompt_loss])

    def _nothing_to_judge(self) -> Tensor | None:
        """What stands for a loss where there is none: Lightning lets one process say None, and several not."""
        if process_count() == 1:
            return None
        # DDP waits for a gradient of every weight, and split weights are not even gathered.
        return zero_of([self]) if self.sharded is None else torch.zeros((), device=self.device, requires_grad=True)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Leave out a step for which no batch was judged: AdamW would go on by its moments, and decay the weights."""
        if not self._judged:
            optimizer.zero_grad()
        self._judged = False

    def _judge(
        self, loss: torch.nn.Module, contrast: tuple[Contrast, Contrast], items: BatchItems | None
    ) -> tuple[Tensor, Tensor]:
        """What to differentiate and what to show of a loss, from its rows and its columns."""
        rows, columns = contrast
        if self.local_loss:
            assert isinstance(loss, PairwiseLoss | StreamedLoss)
            return local_loss(loss, rows, columns)
        value = apply_loss(loss, rows.audio, rows.text, rows.relevance, rows.valid, items=items)
        return value, value.detach()

    def _with_texts(
        self,
        items: BatchItems | None,
        known: Callable[[BatchFacts], list[KnownText]],
        own: BatchFacts,
        everything: BatchFacts,
        text_features: Tensor,
    ) -> BatchItems | None:
        """What the objectives need of the batch of all processes, whose texts every process's memory must know."""
        if items is None or self.item_source is None:
            return None
        items = self.item_source.of_texts(items, known(own), text_features)
        if process_count() == 1:
            return items
        self.item_source.register.keys(known(everything))
        return items.gathered(gather_rows)

    def embed_windows(self, batch: PairBatch | WindowBatch) -> Float[Tensor, "windows dim"]:
        """Unit vectors of a batch's windows, whether they come as features or as a frozen tower's vectors."""
        if not len(batch.features):
            if self.sharded is not None:
                self.encoder.follow(encoded=batch.encoded, dtype=batch.features.dtype)
            return torch.zeros(0, self.network.dim, device=self.device)
        if batch.encoded:
            vectors = self.network.embed_encoded(batch.features[:, :, 0])
        else:
            vectors = self.network.embed_audio_features(batch.features, batch.valid_frames)
        return vectors.float()

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

    def configure_model(self) -> None:
        """Split the weights where the strategy does that; Lightning calls it before it makes optimisers."""
        if self.sharded is None:
            self.sharded = split_weights(self)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the norm of all gradients, also where each process has a part of them."""
        if not gradient_clip_val:
            return
        limit, by_value = float(gradient_clip_val), gradient_clip_algorithm == "value"
        if self.sharded is not None:
            clip_gradients(self.parameters(), limit, by_value=by_value)
            return
        # Lightning's own refuses a fused optimiser, whose gradients may be scaled; configure_optimizers sees to that.
        clip = torch.nn.utils.clip_grad_value_ if by_value else torch.nn.utils.clip_grad_norm_
        clip([each for group in optimizer.param_groups for each in group["params"]], limit)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """The optimiser's step, which the key encoder and the average follow."""
        super().optimizer_step(*args, **kwargs)
        if self.key_encoder is not None:
            self.key_encoder.follow(self.network)
        if self.averaged is not None:
            self.averaged.update(self.network)

    def configure_optimizers(self) -> Any:
        """AdamW with a warm-up; groups by tower, and without decay where decay means nothing."""
        optimizer: torch.optim.AdamW
        if self.sharded is None:
            # One kernel for all weights. Where gradients are scaled it would unscale them, after they were clipped.
            scaled = str(self.trainer.precision) == "16-mixed"
            optimizer = torch.optim.AdamW(parameter_groups(self), fused=not scaled)
        else:
            optimizer = ShardedAdamW(parameter_groups(self))
        steps = int(self.trainer.estimated_stepping_batches)
        factor = learning_rate_factor(steps, round(self.warmup * steps), self.schedule)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    # -- evaluation ---------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Forget the windows of the last round, and take the averaged weights if there are any."""
        self._heard.clear()
        self._swap_average(True)

    def validation_step(self, batch: WindowBatch, _batch_index: int) -> None:
        """Embed windows; they are judged together when all of them are there."""
        self._heard.add(self.embed_windows(batch), batch)

    def on_validation_epoch_end(self) -> None:
        """Retrieval metrics in both directions over the whole validation set."""
        self._log_retrieval("validation")
        self._swap_average(False)

    def on_test_epoch_start(self) -> None:
        """Forget the windows of the last round."""
        self.on_validation_epoch_start()

    def test_step(self, batch: WindowBatch, batch_index: int) -> None:
        """Embed windows of the test set."""
        self.validation_step(batch, batch_index)

    def on_test_epoch_end(self) -> None:
        """Retrieval metrics in both directions over the whole test set."""
        self._log_retrieval("test")
        self._swap_average(False)

    def on_predict_epoch_start(self) -> None:
        """Take the averaged weights if there are any."""
        self._swap_average(True)

    def on_predict_epoch_end(self) -> None:
        """Put the weights back."""
        self._swap_average(False)

    def configure_callbacks(self) -> list[pl.Callback]:
        """What hears of exceptions, of which Lightning tells callbacks alone."""
        return [_TellsOfExceptions()]

    def on_exception(self, exception: BaseException) -> None:
        """Put the weights back, should a validation have been cut short, and give back what training held."""
        self._swap_average(False)
        give_back_freed_memory()

    def _swap_average(self, averaged: bool) -> None:
        if self.averaged is not None and self.averaged.steps and self.averaged.swapped != averaged:
            self.averaged.swap(self.network)

    def predict_step(self, batch: WindowBatch, _batch_index: int) -> tuple[Tensor, ...]:
        """Vectors of windows, their places in the set, and what their pooling may weigh them by."""
        return tuple(each.cpu() for each in (self.embed_windows(batch), batch.entries, batch.shares, batch.energies))

    def _log_retrieval(self, split: Literal["validation", "test"]) -> None:
        data: AudioTextData = self.trainer.datamodule  # type: ignore[attr-defined]
        judged: EvaluationSet = data.evaluation_sets[split]
        network = self.network
        tracks = self._heard.tracks(
            len(judged.tracks),
            network.dim,
            pooling=network.pooling,
            top_windows=network.top_windows,
            device=self.device,
        )
        if tracks is None:
            return
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
        """Leave out what frozen towers bring of their own, and say how to build the rest."""
        write_stamp(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Bring the checkpoint to today's format, check the towers it was made with, and add what they bring."""
        read_stamp(self, checkpoint)

    def frozen_weights(self) -> dict[str, str | None]:
        """By side the name of the weights that a checkpoint leaves out; None where it leaves out none. Made once."""
        if self._frozen_weights is None:
            self._frozen_weights = digest_frozen(self)
        return self._frozen_weights

    def exportable(self) -> TwoTower:
        """The network as users get it: the averaged weights if there are any, low-rank additions merged.

        Where weights are split all processes must ask for it together.
        """
        network = copy.deepcopy(self.network) if self.sharded is None else self.sharded.whole()
        if self.averaged is not None and self.averaged.steps and not self.averaged.swapped:
            self.averaged.copy_to(network)
        merge_additions(network)
        return network.float().eval()  # as it is loaded: a space's name hangs on the very bits


class _TellsOfExceptions(pl.Callback):
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        assert isinstance(pl_module, AlignmentModule)
        pl_module.on_exception(exception)
