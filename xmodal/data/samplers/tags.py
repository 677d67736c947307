"""Batches by tag: rare tags as often as common ones, several tracks of each, or tags that are hard to tell apart.

These samplers draw each batch anew: a track may come twice in an epoch and another not at all. An epoch is as many
batches as it takes to hear as many tracks as there are. Tags are compared whatever their kind, as in every relevance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from xmodal.data.samplers.base import BatchSampler
from xmodal.errors import DataError


class TagSampler(BatchSampler):
    """Base of the samplers that choose tags first and then tracks that have them.

    Attributes:
        tags: The tags of the training tracks, sorted.
        members: The tracks of each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.members: list[np.ndarray] = []

    def prepared(self) -> None:
        """Sort the tracks by tag.

        Raises:
            DataError: If no track has a tag.
        """
        members: dict[str, list[int]] = {}
        for index, track in enumerate(self.tracks):
            for tag in track.all_tags:
                members.setdefault(tag, []).append(index)
        if not members:
            raise DataError("batches by tag need tags, and no training track has one; name data.tag_fields")
        self.tags = sorted(members)
        self.members = [np.array(members[tag]) for tag in self.tags]

    def rng(self, epoch: int, number: int) -> np.random.Generator:
        """The chance of one batch."""
        return np.random.default_rng([self.seed, epoch, number])

    def fill(
        self, groups: Sequence[Int[np.ndarray, " tracks"]], each: int, rng: np.random.Generator
    ) -> Int[np.ndarray, " batch"]:
        """A batch of up to ``each`` tracks of every group in turn, no track twice, the rest drawn from all tracks."""
        size = self.global_batch_size
        taken = np.zeros(len(self.tracks), dtype=bool)
        chosen: list[int] = []
        for group in groups:
            free = group[~taken[group]]
            drawn = rng.permutation(free)[: min(each, size - len(chosen))]
            taken[drawn] = True
            chosen += drawn.tolist()
        free = np.flatnonzero(~taken)
        chosen += rng.permutation(free)[: size - len(chosen)].tolist()
        # In a new order, so that each process gets some of every tag.
        return rng.permutation(np.array(chosen))


class TagBalancedBatches(TagSampler):
    """Rare tags as often as common ones: each place of a batch draws a tag, then a track that has it.

    The balanced sampler of Won et al. 2020, "Multimodal metric learning for tag-based music retrieval". Tracks without
    any tag count as tracks of one more tag.

    Args:
        balance: 1: every tag as often; 0: tags as often as tracks have them; between: in between, by their counts to
            the power of ``1 - balance``.
    """

    def __init__(self, balance: float = 1.0) -> None:
        super().__init__()
        if not 0 <= balance <= 1:
            raise ValueError(f"balance must be from 0 to 1, got {balance}")
        self.balance = balance

    def prepared(self) -> None:
        """Sort the tracks by tag."""
        super().prepared()
        untagged = np.array([index for index, track in enumerate(self.tracks) if not track.all_tags], dtype=np.int64)
        self._groups = [*self.members, *([untagged] if len(untagged) else [])]
        weights = np.array([len(group) for group in self._groups], dtype=float) ** (1 - self.balance)
        self._weights = weights / weights.sum()

    def batch(self, epoch: int, number: int) -> Int[np.ndarray, " batch"]:
        """Tracks of tags drawn by weight."""
        rng = self.rng(epoch, number)
        drawn = rng.choice(len(self._groups), self.global_batch_size, p=self._weights)
        return self.fill([self._groups[group] for group in drawn], 1, rng)


class TagGroupBatches(TagSampler):
    """M tracks of each of several tags, drawn evenly: every tag of a batch has positives enough.

    The M-per-class batches of the metric-learning literature. A track has other tags besides, so a batch can hold
    more than M of a tag. Tags with fewer tracks than M give those that they have.

    Args:
        tracks_per_tag: M, at least 2.
    """

    def __init__(self, tracks_per_tag: int = 4) -> None:
        super().__init__()
        if tracks_per_tag < 2:
            raise ValueError(f"tracks_per_tag must be at least 2, a tag needs a pair; got {tracks_per_tag}")
        self.tracks_per_tag = tracks_per_tag

    def batch(self, epoch: int, number: int) -> Int[np.ndarray, " batch"]:
        """M tracks of each tag, for as many tags as fit."""
        rng = self.rng(epoch, number)
        return self.fill([self.members[tag] for tag in self.choose(epoch, rng)], self.tracks_per_tag, rng)

    def choose(self, epoch: int, rng: np.random.Generator) -> Int[np.ndarray, " tags"]:
        """The tags of a batch, more than fill it if there are: some of their tracks may be taken already."""
        return rng.permutation(len(self.tags))


class HardTagBatches(TagGroupBatches):
    """M tracks of a tag drawn evenly, and of the tags nearest to it: those that are hard to tell apart.

    A tag's vector is its signature, and its neighbours in the joint space are its hard negatives (as in Suh et al.
    2019, with class signatures). The model teaches the sampler by ``xmodal.training.TeachBatches`` in the callbacks;
    until it has, tags are drawn as by :class:`TagGroupBatches`. What was learnt in an epoch counts from the next one
    on, and goes along in the checkpoint, so that a run that goes on draws the same batches.

    Args:
        tracks_per_tag: M, at least 2.
        neighbours: How many tags are remembered for each.
    """

    def __init__(self, tracks_per_tag: int = 4, neighbours: int = 32) -> None:
        super().__init__(tracks_per_tag)
        if neighbours < 1:
            raise ValueError(f"neighbours must be at least 1, got {neighbours}")
        self.neighbours = neighbours
        self._near: dict[int, np.ndarray] = {}  # by the epoch from which it counts

    def learn(self, vectors: Float[np.ndarray, "tags dim"], *, from_epoch: int) -> None:
        """Take the neighbours of each tag from unit vectors, in the order of ``tags``.

        Raises:
            ValueError: If there is not one vector a tag.
        """
        if len(vectors) != len(self.tags):
            raise ValueError(f"each of the {len(self.tags)} tags needs a vector, got {len(vectors)}")
        similarity = vectors @ vectors.T
        np.fill_diagonal(similarity, np.inf)  # itself first
        near = np.argsort(-similarity, axis=1, kind="stable")[:, : self.neighbours + 1]
        # The epoch that runs goes on with what it began with.
        earlier = [epoch for epoch in self._near if epoch < from_epoch]
        self._near = {epoch: self._near[epoch] for epoch in earlier[-1:]} | {from_epoch: near}

    def choose(self, epoch: int, rng: np.random.Generator) -> Int[np.ndarray, " tags"]:
        """A tag and its neighbours, the nearest first, then any others."""
        anyone = super().choose(epoch, rng)
        known = [start for start in self._near if start <= epoch]
        if not known:
            return anyone
        near = self._near[max(known)][anyone[0]]
        return np.concatenate([near, anyone[~np.isin(anyone, near)]])

    def memory(self) -> dict[str, Any]:
        """The neighbours."""
        return {"near": {epoch: near.tolist() for epoch, near in self._near.items()}}

    def load_memory(self, memory: dict[str, Any]) -> None:
        """Take up the neighbours."""
        self._near = {int(epoch): np.array(near) for epoch, near in memory["near"].items()}
