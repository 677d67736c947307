"""The LightningDataModule: a manifest or a folder in, batches for the model's towers out."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
from torch.utils.data import DataLoader

from xmodal.audio import IsolatedDecoder, WindowPolicy
from xmodal.data.augment import AudioAugmentation, MixPairs
from xmodal.data.corpus import TrackSource, refuse_or_report
from xmodal.data.datasets import EvaluationSet, PairBatch, TrainingSet, WindowBatch
from xmodal.data.keeping import Keeping
from xmodal.data.kept import AnyWindows, CachedWindowSet, is_frozen
from xmodal.data.loaders import ResumableLoader, make_loader
from xmodal.data.manifests import read_tracks
from xmodal.data.samplers import BatchSampler, ShuffledBatches, TrackFacts
from xmodal.data.setaside import FILE_NAME, SetAside
from xmodal.data.splits import fold_split, split_tracks
from xmodal.data.texts import TextSource
from xmodal.data.tracks import Track
from xmodal.errors import DataError
from xmodal.towers.base import AudioTower
from xmodal.towers.spec_augment import SpecAugment

logger = logging.getLogger(__name__)


class AudioTextData(pl.LightningDataModule):
    """Tracks from a manifest, a bare folder, shards or a published data set, split once and for good.

    The sample rate, the front end and the window policy are the model's own; they are taken from it when the
    trainer sets up. Validation is a fixed set and never the test set.

    Args:
        manifest: Manifest file, a folder of audio whose folder names are the tags, shards, or a saved data set
            (docs/data.md).
        source: Where the tracks come from instead of a manifest: an adapter of :mod:`xmodal.data.adapters`.
        audio_root: Folder that the manifest's paths are relative to; None for the manifest's own.
        tag_fields: Columns that hold tags, besides ``tags``; a mapping gives the kind of each.
        split_field: Column that names the split. Without it tracks are split by a hash of their group.
        fold_field: Column of official folds, instead of a split: ``test_fold`` is the test set.
        test_fold: The fold to test on.
        validation: Share for validation where the manifest names none.
        test: Share for testing where the manifest names none.
        missing: What to do about files that are not there: "refuse" the manifest, or "skip" them and say so.
        batch_size: Tracks to a training step.
        evaluation_batch_size: Windows to a validation step.
        workers: Loader processes. 0 loads in the main process.
        decode_seconds: What decoding one window may take before its file is set aside. Decoding runs in a process of
            its own beside each loader, so that a file that hangs or crashes it is one bad file; None decodes in the
            loader itself, where such a file ends the run.
        cache: Where the features of every window of the policy are kept, to be decoded once: "memory", "disk" (in
            ``cache_folder``), "auto" for memory if they fit, else for disk if there is a folder. The others give a
            window that may begin anywhere: "samples" from decoded samples in ``cache_folder``, "none" by decoding it.
        cache_gigabytes: What "auto" may take of memory.
        cache_folder: Features on disk, to be found again by later runs, whatever the files are called by then.
        cache_folder_gigabytes: How large the folder may become.
        evaluation_captions: How many captions of each track are validation and test queries; None for all.
        training_captions: How many captions of each track to draw for a training step.
        first_caption: Always draw the first caption of each track, and the others by chance.
        tag_prompts: One-tag prompts added to each training batch.
        texts: Where a track's training texts come from, classes of :mod:`xmodal.data.texts`; None for its captions,
            or its tags if it has none.
        augment: What happens to the samples of a training window, classes of :mod:`xmodal.data.augment` in their
            order; then training windows are decoded anew in each epoch.
        feature_augment: What happens to its features; works on cached ones too.
        mix_pairs: Mixes training tracks, :class:`xmodal.data.augment.MixPairs`; None for never.
        trim_padding: Cut what is padding in every track of a training batch. With ``batches`` by length it saves the
            work on padding of short clips; the statistics of batch normalisation then see less of it, too.
        batches: Which tracks make up each training batch, a class of :mod:`xmodal.data.samplers`; None for
            every track once an epoch in an order shuffled anew.
        seed: Of the split and of every draw.
    """

    def __init__(
        self,
        manifest: str | None = None,
        *,
        source: TrackSource | None = None,
        audio_root: str | None = None,
        tag_fields: list[str] | dict[str, str] | None = None,
        split_field: str = "split",
        fold_field: str | None = None,
        test_fold: int | None = None,
        validation: float = 0.1,
        test: float = 0.1,
        missing: Literal["refuse", "skip"] = "refuse",
        batch_size: int = 64,
        evaluation_batch_size: int = 64,
        workers: int = 2,
        decode_seconds: float | None = 60.0,
        cache: Literal["auto", "memory", "disk", "samples", "none"] = "auto",
        cache_gigabytes: float = 4.0,
        cache_folder: str | None = None,
        cache_folder_gigabytes: float = 50.0,
        evaluation_captions: int | None = None,
        training_captions: int = 1,
        first_caption: bool = False,
        tag_prompts: int = 32,
        texts: list[TextSource] | None = None,
        augment: list[AudioAugmentation] | None = None,
        feature_augment: list[SpecAugment] | None = None,
        mix_pairs: MixPairs | None = None,
        trim_padding: bool = False,
        batches: BatchSampler | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 2:
            raise ValueError(f"batch_size must be at least 2, a contrast needs two pairs; got {batch_size}")
        if training_captions < 1:
            raise ValueError(f"training_captions must be at least 1, got {training_captions}")
        if (fold_field is None) != (test_fold is None):
            raise ValueError("fold_field and test_fold go together; give both or neither")
        if (manifest is None) == (source is None):
            raise ValueError(
                "the data are read from a manifest or from a source; give one of them: --data.manifest FILE_OR_FOLDER, "
                "or --data.source xmodal.data.adapters.NAME --data.source.root FOLDER"
            )
        if source is not None and (audio_root is not None or tag_fields is not None or split_field != "split"):
            raise ValueError("audio_root, tag_fields and split_field say how to read a manifest; leave them out")
        self.manifest = manifest
        self.source = source
        self.audio_root = None if audio_root is None else Path(audio_root)
        self.tag_fields = tag_fields
        self.split_field = split_field
        self.fold_field = fold_field
        self.test_fold = test_fold
        self.validation = validation
        self.test = test
        self.missing = missing
        self.batch_size = batch_size
        self.evaluation_batch_size = evaluation_batch_size
        self.workers = workers
        if augment and cache in ("memory", "disk"):
            raise ValueError(
                f"augment changes samples, and cache: {cache} keeps only their features; set cache: samples, none or "
                "auto, or use feature_augment"
            )
        if cache in ("disk", "samples") and cache_folder is None:
            raise ValueError(f"cache: {cache} needs to know where; set cache_folder")
        self.decoder = None if decode_seconds is None else IsolatedDecoder(time_limit_seconds=decode_seconds)
        self.keeping = Keeping(cache, cache_gigabytes, cache_folder, cache_folder_gigabytes, workers)
        self.set_aside = SetAside()
        self.evaluation_captions = evaluation_captions
        self.training_captions = training_captions
        self.first_caption = first_caption
        self.tag_prompts = tag_prompts
        self.texts = texts
        self.augment = augment or []
        self.feature_augment = feature_augment or []
        self.mix_pairs = mix_pairs
        self.trim_padding = trim_padding
        self.batches = ShuffledBatches() if batches is None else batches
        self.seed = seed
        self.splits: dict[str, list[Track]] = {}
        self.training_set: TrainingSet | None = None
        self.evaluation_sets: dict[str, EvaluationSet] = {}
        self._restored: dict[str, Any] | None = None

    def read(self) -> dict[str, list[Track]]:
        """The tracks by split: "train", "validation" and "test"; read once."""
        if not self.splits:
            tracks = self._read_tracks()
            if self.fold_field is not None and self.test_fold is not None:
                self.splits = fold_split(
                    tracks, self.fold_field, self.test_fold, validation=self.validation, seed=self.seed
                )
            else:
                self.splits = split_tracks(tracks, validation=self.validation, test=self.test, seed=self.seed)
        return self.splits

    def _read_tracks(self) -> list[Track]:
        if self.source is not None:
            advice = "get what is missing, or give data.missing: skip to go on without it"
            return refuse_or_report(self.source, self.source.read(), self.missing, advice).tracks
        assert self.manifest is not None  # the constructor saw to it
        return read_tracks(
            self.manifest,
            audio_root=self.audio_root,
            tag_fields=self.tag_fields,
            split_field=self.split_field,
            missing=self.missing,
        )

    def setup(self, stage: str) -> None:
        """Read the manifest and prepare the sets that the stage needs; Lightning calls it."""
        if self.trainer is None:
            raise RuntimeError("the data module takes its front end from the model, so it must be given to a Trainer")
        network: Any = self.trainer.lightning_module.network
        if self.trainer.loggers:
            rank = self.trainer.global_rank
            name = FILE_NAME if rank == 0 else f"{rank}-{FILE_NAME}"
            self.set_aside.write_to(Path(self.trainer.log_dir or self.trainer.default_root_dir) / name)
        tower = network.audio
        hears_anew = not {"views", "attention"}.isdisjoint(getattr(self.trainer.lightning_module, "needs", ()))
        frozen = tower if is_frozen(tower) and not hears_anew else None
        if frozen is not None:
            frozen.to(self.trainer.strategy.root_device)  # Lightning moves the model there later
        self.prepare(stage, tower, network.windows, frozen_tower=frozen)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Take note of what could not be decoded; Lightning calls it with every batch."""
        if isinstance(batch, PairBatch | WindowBatch):
            assert self.trainer is not None
            self.set_aside.add(batch.failures, "train" if self.trainer.training else self.trainer.state.stage or "?")
        return batch

    def teardown(self, stage: str) -> None:
        """Say how many files were set aside; Lightning calls it at the end."""
        if (said := self.set_aside.summary()) is not None:
            logger.warning("%s", said)
        if self.decoder is not None:
            self.decoder.close()

    def prepare(
        self, stage: str, tower: AudioTower, policy: WindowPolicy, *, frozen_tower: AudioTower | None = None
    ) -> None:
        """What :meth:`setup` does, for a given tower and window policy.

        Args:
            stage: "fit", "validate", "test" or "predict".
            tower: Gives sample rate and front end.
            policy: Where the windows lie.
            frozen_tower: The same tower, if its vectors may be kept in place of its features.
        """
        splits = self.read()
        wanted = {"fit": ["train", "validation"], "validate": ["validation"], "test": ["test"], "predict": []}[stage]
        for split in wanted:
            if not splits.get(split):
                counts = ", ".join(f"{name} {len(tracks)}" for name, tracks in splits.items())
                raise DataError(f"{self.source or self.manifest} has no tracks in its {split} split ({counts})")
            if split == "train" and self.training_set is None:
                windows = self._windows(split, tower, policy, frozen_tower)
                self.training_set = TrainingSet(
                    windows,
                    captions=self.training_captions,
                    first_caption=self.first_caption,
                    tag_prompts=self.tag_prompts,
                    texts=self.texts,
                    augment=self.augment,
                    feature_augment=self.feature_augment,
                    mix_pairs=self.mix_pairs,
                    trim_padding=self.trim_padding,
                    seed=self.seed,
                )
            elif split != "train" and split not in self.evaluation_sets:
                windows = self._windows(split, tower, policy, frozen_tower)
                self.evaluation_sets[split] = EvaluationSet(windows, captions_per_track=self.evaluation_captions)
        if stage == "predict" and "predict" not in self.evaluation_sets:
            everything = [track for tracks in splits.values() for track in tracks]
            windows = self.keeping.survey(everything, tower, policy, self.decoder)
            self.set_aside.add(windows.failures, "predict")
            self.evaluation_sets["predict"] = EvaluationSet(windows, queries=False)

    def train_dataloader(self) -> ResumableLoader:
        """Batches of pairs in the order of ``batches``, from where a restored checkpoint stopped."""
        if self.training_set is None:
            raise RuntimeError("call setup('fit') first")
        rank, world_size = self._place()
        tracks = [self.training_set.tracks[row] for row in self.training_set.rows]
        rows, windows = self.training_set.rows, self.training_set.windows
        facts = TrackFacts([windows.seconds[row] for row in rows], [windows.file_rates[row] for row in rows])
        self.batches.prepare(
            tracks, batch_size=self.batch_size, seed=self.seed, rank=rank, world_size=world_size, facts=facts
        )
        if self._restored is not None:
            self._go_on(self._restored)
            self._restored = None
        workers = self._workers(self.training_set.windows)
        return ResumableLoader(self.training_set, self.batches, workers=workers, position=self.position)

    def position(self) -> dict[str, int]:
        """The epoch and the batch that training does next, as far as this process knows."""
        epoch, batch = self.batches.epoch, self.batches.start
        progress: Any = None if self.trainer is None else self.trainer.fit_loop.epoch_loop.batch_progress
        if progress is not None and progress.current.processed:
            # An epoch may be shorter than the sampler's (limit_train_batches): its last batch ends it all the same.
            epoch, batch = (epoch + 1, 0) if progress.is_last_batch else (epoch, progress.current.processed)
        return {"epoch": epoch, "batch": batch}

    def state_dict(self) -> dict[str, Any]:
        """Where the order of the training batches stands: the position, what it hangs on, what its sampler learnt."""
        if self.training_set is None or not hasattr(self.batches, "tracks"):
            return {}
        return {"position": self.position(), "plan": self.batches.plan(), "memory": self.batches.memory()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Begin the next training loader where :meth:`state_dict` stood; Lightning calls it before it asks for one."""
        self._restored = state_dict or None

    def _go_on(self, state: dict[str, Any]) -> None:
        position, plan = state["position"], self.batches.plan()
        if state["plan"] == plan:
            self.batches.load_memory(state["memory"])
            self.batches.start_at(position["epoch"], position["batch"])
            return
        written = state["plan"]
        changed = [f"{name} {written.get(name)} → {plan[name]}" for name in plan if written.get(name) != plan[name]]
        logger.warning(
            "the checkpoint was written with another order of batches (%s); epoch %d begins anew from its first batch",
            ", ".join(changed),
            position["epoch"],
        )
        self.batches.start_at(position["epoch"], 0)

    def val_dataloader(self) -> DataLoader[WindowBatch]:
        """Windows of the validation set, in order, each in one process."""
        return self._loader(self.evaluation_sets["validation"], self.evaluation_batch_size)

    def test_dataloader(self) -> DataLoader[WindowBatch]:
        """Windows of the test set, in order, each in one process."""
        return self._loader(self.evaluation_sets["test"], self.evaluation_batch_size)

    def predict_dataloader(self) -> DataLoader[WindowBatch]:
        """Windows of every track of the manifest, in order, each in one process."""
        return self._loader(self.evaluation_sets["predict"], self.evaluation_batch_size)

    def _loader(self, dataset: EvaluationSet, batch_size: int) -> DataLoader[Any]:
        rank, world_size = self._place()
        workers = self._workers(dataset.windows)
        return make_loader(dataset, batch_size=batch_size, workers=workers, rank=rank, world_size=world_size)

    def _place(self) -> tuple[int, int]:
        """This process's number, and how many there are."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _workers(self, windows: AnyWindows) -> int:
        """What is in this process's memory is read here."""
        return 0 if isinstance(windows, CachedWindowSet) else self.workers

    def _windows(
        self, split: str, tower: AudioTower, policy: WindowPolicy, frozen_tower: AudioTower | None
    ) -> AnyWindows:
        tracks = self.splits[split]
        windows = self.keeping.survey(tracks, tower, policy, self.decoder)
        if not windows.entries:
            raise DataError(
                f"none of the {len(tracks)} tracks in the {split} split could be read; the first: {windows.failures[0]}"
            )
        # What is augmented is not kept: it is another each time.
        changed = split == "train" and (self.feature_augment or self.mix_pairs is not None)
        kept: AnyWindows = windows
        if split != "train" or not self.augment:
            kept = self.keeping.keep(windows, split, None if changed else frozen_tower)
        self.set_aside.add(kept.failures, split)
        return kept
