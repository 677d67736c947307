"""A training step through Lightning and this project against the same towers and loss in a bare PyTorch loop.

    python benchmarks/train_step.py [--quick]

The loop is a step as open_clip writes one: two encoders, unit vectors, a learned scale, cross-entropy of rows and
columns, AdamW. Both see the same random log-mels and texts, in float32 on the CPU; they take turns, and the median of
all steps is compared, by the clock and by processor time, which tells more on a machine in use. It measures no GPU yet.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings

import pytorch_lightning as pl
import torch
from torch.nn.functional import cross_entropy, normalize

from xmodal.data.datasets import BatchFacts, PairBatch
from xmodal.losses import InfoNCELoss
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    warnings.simplefilter("ignore")
    data = batches(6 if quick else 15, 32 if quick else 128)
    found: dict[str, list[Step]] = {"ours": [], "bare": []}
    bare(data[:2])
    for _ in range(2 if quick else 3):
        found["ours"] += ours(data)
        found["bare"] += bare(data)
    print(f"batch {len(data[0].texts)}, {torch.get_num_threads()} threads, CPU")
    for clock, name in enumerate(("by the clock", "in processor time")):
        mine, peer = (1000 * statistics.median(step[clock] for step in found[who]) for who in ("ours", "bare"))
        print(f"median step {name}: ours {mine:.1f} ms, bare loop {peer:.1f} ms")
        claim = {"claim": f"step overhead over a bare PyTorch loop, {name}", "ours": round(mine, 2)}
        claim |= {"peer": round(peer, 2), "ratio": round(mine / peer, 4), "goal": 1.05, "met": mine / peer <= 1.05}
        print(json.dumps(claim))


if __name__ == "__main__":
    main()
