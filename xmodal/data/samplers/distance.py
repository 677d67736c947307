"""Batches by distance: an anchor, and tracks near and far from it in given shares."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from xmodal.data.samplers.base import BatchSampler


class DistanceBinBatches(BatchSampler):
    """An anchor drawn evenly, and other tracks by their distance to it, bin by bin.

    Left to chance nearly all tracks of a batch are about equally far away; here each range of distances has its share
    (Wu et al. 2017, arXiv:1706.07567, draw evenly by distance; Roth et al. 2020, PADS, in 30 bins from 0.1
    to 1.4, which are the defaults). The model teaches the sampler by ``xmodal.training.TeachBatches`` in the callbacks;
    until it has, batches are drawn evenly. What was learnt in an epoch counts from the next one on, and goes along in
    the checkpoint.

    Args:
        nearest: Lower edge of the first bin, a Euclidean distance of unit vectors; nearer tracks belong to no bin.
        farthest: Upper edge of the last bin; farther ones belong to none either.
        bins: Number of bins of equal width.
        weights: How often each bin is drawn from; None for all as often.
    """

    def __init__(
        self, nearest: float = 0.1, farthest: float = 1.4, bins: int = 30, weights: list[float] | None = None
    ) -> None:
        super().__init__()
        if not 0 <= nearest < farthest <= 2:
            raise ValueError(f"distances of unit vectors go from 0 to 2, got bins from {nearest} to {farthest}")
        if bins < 1:
            raise ValueError(f"bins must be at least 1, got {bins}")
        if weights is not None and (len(weights) != bins or min(weights) < 0 or not sum(weights) > 0):
            raise ValueError(f"weights must be {bins} numbers of at least 0 and not all 0, got {weights}")
        self.edges = np.linspace(nearest, farthest, bins + 1)
        self.weights = np.ones(bins) if weights is None else np.array(weights, dtype=float)
        self._vectors: dict[int, np.ndarray] = {}  # by the epoch from which they count

    def learn(self, vectors: Float[np.ndarray, "tracks dim"], *, from_epoch: int) -> None:
        """Take the tracks' places from unit vectors, in the order of ``tracks``.

        Raises:
            ValueError: If there is not one vector a track.
        """
        if len(vectors) != len(self.tracks):
            raise ValueError(f"each of the {len(self.tracks)} tracks needs a vector, got {len(vectors)}")
        earlier = [epoch for epoch in self._vectors if epoch < from_epoch]
        kept = {epoch: self._vectors[epoch] for epoch in earlier[-1:]}
        self._vectors = kept | {from_epoch: vectors.astype(np.float16)}

    def batch(self, epoch: int, number: int) -> Int[np.ndarray, " batch"]:
        """The anchor, and the others in a new order."""
        rng = np.random.default_rng([self.seed, epoch, number])
        known = [start for start in self._vectors if start <= epoch]
        shuffled = rng.permutation(len(self.tracks))
        if not known:
            return shuffled[: self.global_batch_size]
        vectors = self._vectors[max(known)].astype(np.float32)
        anchor, others = shuffled[0], shuffled[1:]
        distance = np.sqrt(np.maximum(2 - 2 * vectors[others] @ vectors[anchor], 0))
        place = np.digitize(distance, self.edges) - 1
        waiting = [others[place == number].tolist() for number in range(len(self.weights))]
        chosen = [int(anchor)]
        while len(chosen) < self.global_batch_size:
            open_bins = [number for number, tracks in enumerate(waiting) if tracks and self.weights[number]]
            if not open_bins:
                break
            weights = self.weights[open_bins]
            chosen.append(waiting[open_bins[rng.choice(len(open_bins), p=weights / weights.sum())]].pop())
        # Where the bins run out, tracks at any distance fill the batch.
        taken = set(chosen)
        rest = [index for index in others.tolist() if index not in taken]
        return rng.permutation(np.array(chosen + rest[: self.global_batch_size - len(chosen)]))

    def memory(self) -> dict[str, Any]:
        """The vectors, in half precision."""
        return {"vectors": {epoch: torch.from_numpy(vectors) for epoch, vectors in self._vectors.items()}}

    def load_memory(self, memory: dict[str, Any]) -> None:
        """Take up the vectors."""
        self._vectors = {int(epoch): vectors.numpy() for epoch, vectors in memory["vectors"].items()}
