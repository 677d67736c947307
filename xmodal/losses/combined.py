"""Objectives made of objectives: a weighted sum with a miner and a memory, and a loss streamed over blocks of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from xmodal.losses.base import EmbeddingLoss, Graded, Pairs, PairwiseLoss, apply_loss, in_full_precision, make_pairs
from xmodal.losses.items import BatchItems
from xmodal.losses.memory import CrossModalMemory
from xmodal.losses.miners import Miner
from xmodal.losses.numerics import unit_vectors


class CombinedObjective(EmbeddingLoss):
    """A weighted sum of losses and regularisers; the miner and the memory serve the losses on scores.

    Args:
        losses: Losses of both kinds.
        weights: One a loss; None for 1 each.
        miner: Chooses pairs for every loss on scores, each direction by itself. (Only SeraphLoss, which also looks
            at pairs that are not valid, is given the batch without miner and memory.)
        memory: Adds the last batches' items to every loss on scores; needs the batch's keys. With a momentum encoder
            its vectors are what the batch meets, and what is remembered.
    """

    graded: ClassVar[Graded] = "by part"
    needs_norms: ClassVar[bool] = True

    def __init__(
        self,
        losses: Sequence[PairwiseLoss | EmbeddingLoss],
        weights: Sequence[float] | None = None,
        *,
        miner: Miner | None = None,
        memory: CrossModalMemory | None = None,
    ) -> None:
        super().__init__()
        weights = [1.0] * len(losses) if weights is None else [float(weight) for weight in weights]
        if not losses or len(weights) != len(losses):
            raise ValueError(
                f"weights must be one number a loss, got {len(weights)} for {len(losses)} losses; "
                "leave weights out to add the losses as they are"
            )
        self.losses, self.weights = nn.ModuleList(losses), weights
        self.miner, self.memory = miner, memory

    def forward(
        self,
        audio: Float[Tensor, "audio dim"],
        text: Float[Tensor, "text dim"],
        relevance: Real[Tensor, "audio text"],
        valid: Bool[Tensor, "audio text"] | None = None,
        weight: Real[Tensor, "audio text"] | None = None,
        *,
        items: BatchItems | None = None,
    ) -> Float[Tensor, ""]:
        """The weighted sum; in training mode the memory then remembers the batch.

        Args:
            audio: Vectors of any norm.
            text: Vectors of any norm.
            relevance: As in every loss.
            valid: As in every loss.
            weight: As in every loss.
            items: The keys for the memory, and what the losses need.

        Raises:
            ValueError: If there is a memory and no keys, or a shape is not what the contract says.
        """
        parts = self.parts(audio, text, relevance, valid, weight, items=items)
        if self.memory is not None and self.training and items is not None:
            self.memory.remember_batch(audio, text, items)
        return torch.stack([each * factor for each, factor in zip(parts, self.weights, strict=True)]).sum()

    def parts(
        self,
        audio: Float[Tensor, "audio dim"],
        text: Float[Tensor, "text dim"],
        relevance: Real[Tensor, "audio text"],
        valid: Bool[Tensor, "audio text"] | None = None,
        weight: Real[Tensor, "audio text"] | None = None,
        *,
        items: BatchItems | None = None,
    ) -> list[Float[Tensor, ""]]:
        """Every loss by itself, not weighted, in the order of ``losses``; for logs."""
        values = []
        with torch.autocast(audio.device.type, enabled=False):
            unit_audio, unit_text = (unit_vectors(in_full_precision(each)) for each in (audio, text))
            if self.memory is None:
                rows = make_pairs(unit_audio @ unit_text.T, relevance, valid, weight)
                columns = rows.transposed
            else:
                rows, columns = self.memory.directions(
                    unit_audio, unit_text, relevance, valid, weight, items or BatchItems()
                )
            changed = relevance.numel() > 0 and (self.miner is not None or self.memory is not None)
            for loss in self.losses:
                # A loss with its own front door (SeraphLoss) wants the pairs that are not valid too.
                if changed and isinstance(loss, PairwiseLoss) and type(loss).forward is PairwiseLoss.forward:
                    values.append(loss.compute(*self._mined(rows, columns)) + 0.0 * rows.score.sum())
                else:
                    values.append(apply_loss(loss, audio, text, relevance, valid, weight, items=items))
        return values

    def _mined(self, rows: Pairs, columns: Pairs) -> tuple[Pairs, Pairs]:
        return (rows, columns) if self.miner is None else (self.miner(rows), self.miner(columns))


def decomposes(loss: nn.Module) -> bool:
    """Whether a loss is a ratio of sums over anchors that do not look at one another, and nothing else."""
    return isinstance(loss, PairwiseLoss) and all(
        getattr(type(loss), name) is getattr(PairwiseLoss, name) for name in ("forward", "compute", "one_direction")
    )


def summed_terms(
    loss: PairwiseLoss,
    anchors: Float[Tensor, "anchors dim"],
    others: Float[Tensor, "others dim"],
    given: tuple[Tensor | None, ...],
    block: int,
) -> tuple[Float[Tensor, "*parts"], Float[Tensor, "*parts"]]:
    """Sum and number of the terms of all anchors, block by block; several are computed again for the gradient.

    Args:
        loss: One that :func:`decomposes`.
        anchors: Unit vectors.
        others: Unit vectors, at least one.
        given: Relevance, valid and weight with the anchors as rows.
        block: Anchors a block.
    """

    def terms(rows: Tensor, *parts: Tensor | None) -> tuple[Tensor, Tensor]:
        relevance, valid, weight = parts
        assert relevance is not None
        pairs = make_pairs(rows @ others.T, relevance, valid, weight)
        total, count = loss.row_terms(pairs)
        return total.sum(dim=0) + 0.0 * pairs.score.sum(), count.sum(dim=0)

    totals, counts = [], []
    for start in range(0, max(len(anchors), 1), block):
        rows = slice(start, start + block)
        parts = [None if each is None else each[rows] for each in given]
        if len(anchors) <= block:  # a single block saves nothing by being computed twice
            return terms(anchors, *parts)
        total, count = checkpoint(terms, anchors[rows], *parts, use_reentrant=False, preserve_rng_state=False)
        totals.append(total)
        counts.append(count)
    return torch.stack(totals).sum(dim=0), torch.stack(counts).sum(dim=0)
