"""A training step through Lightning and this project against the same towers in others' training loops.

    python benchmarks/train_step.py [--quick]

The bare loop is a step as open_clip writes one: two encoders, unit vectors, a learned scale, cross-entropy of rows and
columns, AdamW. The other peer is sentence-transformers' trainer with its symmetric MultipleNegativesRankingLoss, the
same loss at a fixed scale (compared on the first batch); it needs the package accelerate, without which it is left out.
All see the same random log-mels and texts, in float32 on the CPU, from the same weights, without clipping or logging;
they take turns, and the median of all steps is compared, by the clock and by processor time, which tells more on a
machine in use. It measures no GPU yet.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import tempfile
import time
import warnings
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


def batches(count: int, size: int) -> list[PairBatch]:
    generator = torch.Generator().manual_seed(0)
    none = torch.zeros(size, 0, dtype=torch.bool)
    return [
        PairBatch(
            features=torch.randn((size, 64, 301), generator=generator),
            valid_frames=torch.full((size,), 301),
            texts=[f"a text of some words number {number} {place}" for place in range(size)],
            relevance=torch.eye(size, dtype=torch.bool),
            prompts=[],
            prompt_relevance=none,
            prompt_valid=none,
            failures=[],
            facts=BatchFacts(),
        )
        for number in range(count)
    ]


def module(**settings: object) -> AlignmentModule:
    torch.manual_seed(0)
    return AlignmentModule(MobileCnn(), HashedBagOfWordsTower(), InfoNCELoss(), prompt_weight=0.0, **settings)  # type: ignore[arg-type]


Step = tuple[float, float]  # seconds by the clock, seconds of processor time


def clocks() -> Step:
    return time.perf_counter(), time.process_time()


def between(start: Step, end: Step) -> Step:
    return end[0] - start[0], end[1] - start[1]


class Clock(pl.Callback):
    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._last: Step | None = None

    def on_train_batch_end(self, *_: object) -> None:
        now = clocks()
        if self._last:
            self.steps.append(between(self._last, now))
        self._last = now


def ours(data: list[PairBatch]) -> list[Step]:
    clock = Clock()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        callbacks=[clock],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = torch.utils.data.DataLoader(data, batch_size=None)  # type: ignore[arg-type]
    trainer.fit(module(), loader)
    return clock.steps


def bare(data: list[PairBatch]) -> list[Step]:
    made = module()
    network, scale = made.network.train(), torch.nn.Parameter(torch.tensor(2.66))
    optimizer = torch.optim.AdamW([*network.parameters(), scale], lr=1e-3)
    steps: list[Step] = []
    last = None
    for batch in data:
        audio = normalize(network.project_audio(batch.features, batch.valid_frames), dim=1)
        text = normalize(network.project_text(network.text(batch.texts)), dim=1)
        logits = scale.exp() * audio @ text.T
        target = torch.arange(len(logits))
        loss = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        now = clocks()
        if last:
            steps.append(between(last, now))
        last = now
    return steps


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
            vectors = self.network.project_text(self.network.text(features["input_ids"]))
        return {**features, "sentence_embedding": vectors}


def sentence_transformers(data: list[PairBatch]) -> list[Step]:
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
        losses,
    )
    from transformers import TrainerCallback

    class StepClock(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.ends: list[Step] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ends.append(clocks())

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

    made, clock = module(), StepClock()
    model = SentenceTransformer(modules=[BothTowers(made.network)], device="cpu")
    loss = losses.MultipleNegativesRankingLoss(
        model, scale=1 / 0.07, directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction"
    )
    check_same_loss(made, loss, data[0])
    with tempfile.TemporaryDirectory() as folder:
        settings = SentenceTransformerTrainingArguments(
            folder,
            max_steps=len(data),
            per_device_train_batch_size=len(data[0].texts),
            learning_rate=1e-3,
            weight_decay=0.01,
            warmup_steps=1,
            lr_scheduler_type="cosine",
            optim="adamw_torch",
            max_grad_norm=0.0,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        pairs = Dataset.from_dict({"audio": ["a"] * len(data), "text": ["b"] * len(data)})
        ReadyBatches(model, settings, train_dataset=pairs, loss=loss, callbacks=[clock]).train()
    return [between(start, end) for start, end in zip(clock.ends, clock.ends[1:], strict=False)]


def check_same_loss(made: AlignmentModule, theirs: torch.nn.Module, batch: PairBatch) -> None:
    """On the first batch both losses have the same value, with the scale at which ours begins."""
    network = made.network.eval()
    with torch.no_grad():
        sides = [
            network.project_audio(batch.features, batch.valid_frames),
            network.project_text(network.text(batch.texts)),
        ]
        own = float(apply_loss(InfoNCELoss(temperature=0.07), *sides, batch.relevance))
        other = float(theirs.compute_loss_from_embeddings(sides, None))  # type: ignore[operator]
    network.train()
    if abs(own - other) > 1e-4:
        raise SystemExit(f"the losses differ, ours {own} and theirs {other}: nothing is compared")
    print(f"loss of the first batch: ours {own:.6f}, MultipleNegativesRankingLoss {other:.6f}")


PEERS = {"bare": ("a bare PyTorch loop", bare), "trainer": ("sentence-transformers' trainer", sentence_transformers)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    warnings.simplefilter("ignore")
    data = batches(6 if quick else 15, 32 if quick else 128)
    peers = {name: peer for name, peer in PEERS.items() if name == "bare" or importlib.util.find_spec("accelerate")}
    found: dict[str, list[Step]] = {"ours": [], **{name: [] for name in peers}}
    for _, train in peers.values():
        train(data[:2])
    for _ in range(2 if quick else 3):
        found["ours"] += ours(data)
        for name, (_, train) in peers.items():
            found[name] += train(data)
    size = len(data[0].texts)
    print(f"batch {size}, {torch.get_num_threads()} threads, CPU")
    for clock, unit in enumerate(("by the clock", "in processor time")):
        medians = {who: statistics.median(step[clock] for step in steps) for who, steps in found.items()}
        mine = medians["ours"]
        for name, (what, _) in peers.items():
            theirs = medians[name]
            print(
                f"median step {unit}: ours {1000 * mine:.1f} ms ({size / mine:.0f} samples/s), "
                f"{what} {1000 * theirs:.1f} ms ({size / theirs:.0f} samples/s)"
            )
            # Beside the bare loop an overhead, beside another trainer the samples a second.
            if name == "bare":
                claim = {"claim": f"step overhead over {what}, {unit}", "ours": round(1000 * mine, 2)}
                claim |= {"peer": round(1000 * theirs, 2), "ratio": round(mine / theirs, 4)}
                claim |= {"goal": 1.05, "met": mine / theirs <= 1.05}
            else:
                claim = {"claim": f"samples a second beside {what}, {unit}", "ours": round(size / mine, 1)}
                claim |= {"peer": round(size / theirs, 1), "ratio": round(theirs / mine, 4)}
                claim |= {"goal": 1.0, "met": theirs >= mine}
            print(json.dumps(claim))


if __name__ == "__main__":
    main()
