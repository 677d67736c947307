"""What :mod:`train_step` compares: the same towers, data and loss in this project's step and in others' training loops.

Each side takes the batches and the setting, trains from the same weights, and gives what its steps took.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch.nn.functional import cross_entropy, normalize

from xmodal.data.datasets import BatchFacts, PairBatch
from xmodal.losses import InfoNCELoss
from xmodal.losses.base import apply_loss
from xmodal.model import TwoTower
from xmodal.towers import HashedBagOfWordsTower, MobileCnn
from xmodal.training import AlignmentModule

FRAMES, BANDS = 301, 64  # six seconds at the tower's hop of 20 ms


@dataclass(frozen=True)
class Setting:
    """How a step is made.

    Attributes:
        device: ``cpu`` or ``cuda``.
        precision: ``32`` or ``bf16-mixed``.
        compiled: Whether ``torch.compile`` makes the audio tower.
        every: Steps from one look at the clock to the next. A device that computes beside the CPU must be waited for
            first, so that more than one lets it be ahead of Python as it is in a training.
        skipped: Steps before the clock starts: for the memory allocator, choosing kernels, and compiling.
    """

    device: str
    precision: str
    compiled: bool
    every: int = 1
    skipped: int = 1

    def __str__(self) -> str:
        return f"{self.device}, {self.precision}, {'compiled' if self.compiled else 'eager'}"

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16-mixed")


Step = tuple[float, float]  # seconds by the clock, seconds of processor time


class StepClock:
    """Told after each step; notes what the steps since its last look took, each."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.steps: list[Step] = []
        self._done = 0
        self._last: Step | None = None

    def step_ended(self) -> None:
        self._done += 1
        counted = self._done - self.setting.skipped
        if counted < 0 or counted % self.setting.every:
            return
        if self.setting.device == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter(), time.process_time()
        if self._last is not None:
            took = [(end - start) / self.setting.every for start, end in zip(self._last, now, strict=True)]
            self.steps.append((took[0], took[1]))
        self._last = now


def make_batches(count: int, size: int, device: str, *, frames: int = FRAMES) -> list[PairBatch]:
    """Random log-mels and texts, on the device already: the step is measured and not the way to it."""
    generator = torch.Generator().manual_seed(0)
    none = torch.zeros(size, 0, dtype=torch.bool, device=device)
    return [
        PairBatch(
            features=torch.randn((size, BANDS, frames), generator=generator).to(device),
            valid_frames=torch.full((size,), frames, device=device),
            texts=[f"a text of some words number {number} {place}" for place in range(size)],
            relevance=torch.eye(size, dtype=torch.bool, device=device),
            prompts=[],
            prompt_relevance=none,
            prompt_valid=none,
            failures=[],
            facts=BatchFacts(),
        )
        for number in range(count)
    ]


def make_module(*, compile: bool = False, chunk_size: int | None = None) -> AlignmentModule:
    torch.manual_seed(0)
    return AlignmentModule(
        MobileCnn(),
        HashedBagOfWordsTower(),
        InfoNCELoss(),
        prompt_weight=0.0,
        compile=compile,
        chunk_size=chunk_size,
    )


class _OnStep(pl.Callback):
    def __init__(self, ended: Callable[[], None]) -> None:
        self.ended = ended

    def on_train_batch_end(self, *_: object) -> None:
        self.ended()


def fit(module: AlignmentModule, data: Sequence[PairBatch], setting: Setting, *callbacks: pl.Callback) -> None:
    """Train as ``train.py`` does, without clipping, logging and checkpoints."""
    for name in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    trainer = pl.Trainer(
        accelerator="gpu" if setting.device == "cuda" else "cpu",
        devices=1,
        precision="bf16-mixed" if setting.precision == "bf16-mixed" else "32-true",
        max_epochs=1,
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=None))  # type: ignore[arg-type]


def ours(data: Sequence[PairBatch], setting: Setting) -> list[Step]:
    clock = StepClock(setting)
    fit(make_module(compile=setting.compiled), data, setting, _OnStep(clock.step_ended))
    return clock.steps


class BareStep:
    """A step as open_clip writes one: two encoders, unit vectors, a learned scale, cross-entropy both ways, AdamW."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.network = make_module().network.to(setting.device).train()
        self.scale = torch.nn.Parameter(torch.tensor(2.66, device=setting.device))
        self.optimizer = torch.optim.AdamW([*self.network.parameters(), self.scale], lr=1e-3, fused=True)
        self.audio = torch.compile(self.network.audio.encode) if setting.compiled else self.network.audio.encode

    def __call__(self, batch: PairBatch) -> None:
        network = self.network
        with self.setting.autocast():
            audio = normalize(network.project_encoded(self.audio(batch.features, batch.valid_frames)), dim=1)
            text = normalize(network.project_text(network.text(batch.texts)), dim=1)
            logits = self.scale.exp() * audio @ text.T
            target = torch.arange(len(logits), device=logits.device)
            loss = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def bare(data: Sequence[PairBatch], setting: Setting) -> list[Step]:
    clock, step = StepClock(setting), BareStep(setting)
    for batch in data:
        step(batch)
        clock.step_ended()
    return clock.steps


class BothTowers(torch.nn.Module):
    """The network as a module of sentence-transformers: a column of log-mels, and a column of texts."""

    def __init__(self, network: TwoTower) -> None:
        super().__init__()
        self.network = network

    def tokenize(self, texts: list[str]) -> dict[str, Any]:
        """The trainer asks for it when it describes its data; the batches themselves are ready."""
        return {"input_ids": texts}

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        if "input_features" in features:
            vectors = self.network.project_audio(features["input_features"], features["valid_frames"])
        else:
            vectors = self._of_texts(features["input_ids"])
        return {**features, "sentence_embedding": vectors}

    @torch.compiler.disable  # no side compiles this: strings would be compiled in anew for each text
    def _of_texts(self, texts: list[str]) -> torch.Tensor:
        return self.network.project_text(self.network.text(texts))


def sentence_transformers(data: Sequence[PairBatch], setting: Setting) -> list[Step]:
    """Its trainer with the symmetric MultipleNegativesRankingLoss: the same loss, at a fixed scale."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
        losses,
    )
    from transformers import TrainerCallback

    clock = StepClock(setting)

    class Ended(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.step_ended()

    class ReadyBatches(SentenceTransformerTrainer):  # type: ignore[misc]
        def get_train_dataloader(self) -> torch.utils.data.DataLoader[Any]:
            columns = [
                {
                    "audio_input_features": batch.features,
                    "audio_valid_frames": batch.valid_frames,
                    "text_input_ids": batch.texts,
                }
                for batch in data
            ]
            return torch.utils.data.DataLoader(columns, batch_size=None)  # type: ignore[arg-type]

    network = make_module().network.to(setting.device)
    model = SentenceTransformer(modules=[BothTowers(network)], device=setting.device)
    loss = losses.MultipleNegativesRankingLoss(
        model, scale=1 / 0.07, directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction"
    )
    refuse_another_loss(network, loss, data[0])
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            folder,
            max_steps=len(data),
            per_device_train_batch_size=len(data[0].texts),
            learning_rate=1e-3,
            weight_decay=0.01,
            warmup_steps=1,
            lr_scheduler_type="cosine",
            max_grad_norm=0.0,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=setting.device == "cpu",
            bf16=setting.precision == "bf16-mixed",
            torch_compile=setting.compiled,
        )
        pairs = Dataset.from_dict({"audio": ["a"] * len(data), "text": ["b"] * len(data)})
        ReadyBatches(model, arguments, train_dataset=pairs, loss=loss, callbacks=[Ended()]).train()
    return clock.steps


def refuse_another_loss(network: TwoTower, theirs: torch.nn.Module, batch: PairBatch) -> None:
    """On the first batch both losses have the same value, with the scale at which ours begins."""
    network.eval()
    with torch.no_grad():
        sides = [
            network.project_audio(batch.features, batch.valid_frames),
            network.project_text(network.text(batch.texts)),
        ]
        own = float(apply_loss(InfoNCELoss(temperature=0.07).to(sides[0].device), *sides, batch.relevance))
        other = float(theirs.compute_loss_from_embeddings(sides, None))  # type: ignore[operator]
    network.train()
    if abs(own - other) > 1e-4:
        raise SystemExit(f"the losses differ, ours {own} and theirs {other}: nothing is compared")
