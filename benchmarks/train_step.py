"""A training step through Lightning and this project against the same towers and loss in a bare PyTorch loop.

    python benchmarks/train_step.py [--quick]

Both see the same random log-mels and texts, in float32 on the CPU, with AdamW; they take turns, and the median of all
steps is compared. It measures no GPU yet.
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


class Clock(pl.Callback):
    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._last = 0.0

    def on_train_batch_end(self, *_: object) -> None:
        now = time.perf_counter()
        if self._last:
            self.seconds.append(now - self._last)
        self._last = now


def ours(data: list[PairBatch]) -> list[float]:
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
    return clock.seconds


def bare(data: list[PairBatch]) -> list[float]:
    made = module()
    network, scale = made.network.train(), torch.nn.Parameter(torch.tensor(2.66))
    optimizer = torch.optim.AdamW([*network.parameters(), scale], lr=1e-3)
    seconds, last = [], 0.0
    for batch in data:
        audio = normalize(network.project_audio(batch.features, batch.valid_frames), dim=1)
        text = normalize(network.project_text(network.text(batch.texts)), dim=1)
        logits = scale.exp() * audio @ text.T
        target = torch.arange(len(logits))
        loss = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        now = time.perf_counter()
        if last:
            seconds.append(now - last)
        last = now
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    warnings.simplefilter("ignore")
    data = batches(6 if quick else 15, 32 if quick else 128)
    found: dict[str, list[float]] = {"ours": [], "bare": []}
    bare(data[:2])
    for _ in range(2 if quick else 3):
        found["ours"] += ours(data)
        found["bare"] += bare(data)
    mine, peer = (1000 * statistics.median(found[name]) for name in ("ours", "bare"))
    print(f"median step: ours {mine:.1f} ms, bare loop {peer:.1f} ms, batch {len(data[0].texts)}, CPU")
    claim = {"claim": "step overhead over a bare PyTorch loop", "ours": round(mine, 2), "peer": round(peer, 2)}
    print(json.dumps(claim | {"ratio": round(mine / peer, 4), "goal": 1.05, "met": mine / peer <= 1.05}))


if __name__ == "__main__":
    main()
