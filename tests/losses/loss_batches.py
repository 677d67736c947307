"""Batches on which every objective is tried: ordinary ones, and those that break careless code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    score: Tensor
    relevance: Tensor
    valid: Tensor | None = None
    weight: Tensor | None = None

    def __iter__(self) -> Iterator[Tensor | None]:
        return iter((self.score, self.relevance, self.valid, self.weight))

    @property
    def transposed(self) -> Batch:
        return Batch(*(None if each is None else each.T for each in self))

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Score, relevance, valid and weight for an oracle, with the defaults written out."""
        score = self.score.double().numpy()
        valid = np.ones(score.shape, bool) if self.valid is None else self.valid.numpy()
        weight = np.ones(score.shape) if self.weight is None else self.weight.double().numpy()
        return score, self.relevance.double().numpy(), valid & (weight > 0), np.where(valid, weight, 0.0)


def scores(seed: int, audio: int, text: int) -> Tensor:
    return torch.rand((audio, text), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 1.9 - 0.95


def pick(seed: int, audio: int, text: int, values: list[float]) -> Tensor:
    chosen = torch.randint(len(values), (audio, text), generator=torch.Generator().manual_seed(seed))
    return torch.tensor(values, dtype=torch.float64)[chosen]


def _with_an_anchor_of_each_kind(relevance: Tensor) -> Tensor:
    relevance = relevance.clone()
    relevance[0], relevance[1] = 0.0, 1.0  # one audio without a positive, one without a negative
    return relevance


ORDINARY = {
    "the diagonal": Batch(scores(0, 5, 5), torch.eye(5, dtype=torch.float64)),
    "many positives": Batch(scores(1, 6, 6), pick(2, 6, 6, [0, 0, 1])),
    "more texts than audio": Batch(scores(3, 3, 7), pick(4, 3, 7, [0, 1])),
    "more audio than texts": Batch(scores(5, 7, 2), pick(6, 7, 2, [0, 1])),
    "anchors without positives or negatives": Batch(
        scores(7, 5, 6), _with_an_anchor_of_each_kind(pick(8, 5, 6, [0, 1]))
    ),
    "graded relevance": Batch(scores(9, 5, 6), pick(10, 5, 6, [0, 0, 0.25, 0.5, 1])),
    "unknown pairs": Batch(scores(11, 6, 5), pick(12, 6, 5, [0, 1]), pick(13, 6, 5, [0, 1, 1]).bool()),
    "weighted pairs": Batch(
        scores(14, 6, 5), pick(15, 6, 5, [0, 0.5, 1]), pick(16, 6, 5, [0, 1, 1]).bool(), pick(17, 6, 5, [0, 0.5, 1, 2])
    ),
    "ties": Batch((scores(18, 6, 6) * 2).round() / 2, pick(19, 6, 6, [0, 0, 1])),
}


def _filled(value: float, relevance: Tensor) -> Batch:
    return Batch(torch.full(relevance.shape, value, dtype=torch.float64), relevance.double())


DEGENERATE = {
    "one positive pair": _filled(0.3, torch.ones(1, 1)),
    "one negative pair": _filled(0.3, torch.zeros(1, 1)),
    "one audio": Batch(scores(20, 1, 4), pick(21, 1, 4, [0, 1])),
    "one text": Batch(scores(22, 4, 1), pick(23, 4, 1, [0, 1])),
    "no positives": Batch(scores(24, 4, 4), torch.zeros(4, 4)),
    "no negatives": Batch(scores(25, 4, 4), torch.ones(4, 4)),
    "all scores equal": _filled(0.25, torch.eye(4)),
    "all scores 1": _filled(1.0, torch.eye(4)),
    "all scores -1": _filled(-1.0, torch.eye(4)),
    "scores beyond 1 by rounding": _filled(1.0 + 1e-6, torch.eye(3)),
    "perfect": Batch(2 * torch.eye(4, dtype=torch.float64) - 1, torch.eye(4)),
    "upside down": Batch(1 - 2 * torch.eye(4, dtype=torch.float64), torch.eye(4)),
    "nothing valid": Batch(scores(26, 4, 4), torch.eye(4), torch.zeros(4, 4, dtype=torch.bool)),
    "nothing weighs": Batch(scores(27, 4, 4), torch.eye(4), None, torch.zeros(4, 4)),
    "no audio": Batch(torch.zeros(0, 4, dtype=torch.float64), torch.zeros(0, 4)),
    "no texts": Batch(torch.zeros(4, 0, dtype=torch.float64), torch.zeros(4, 0)),
}
