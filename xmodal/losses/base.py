"""What every objective shares: its arguments, its policies and its two base classes.

Conventions
-----------
``score[i, j]`` is the cosine of audio i and text j; ``relevance[i, j] > 0`` says that they belong together, and a
larger number that they do so more; ``valid[i, j]`` is False where nobody may judge (an unknown tag, a duplicate);
``weight[i, j]`` is how many pairs the pair stands for. Audio is an *anchor* in the row direction and text in the
column direction, which is the row direction of the transposed matrices.

The policies in which libraries silently differ, fixed here once:

1. **Reduction.** A loss is a ratio of sums, ``sum of terms / number of terms``. Each class says what its terms are:
   anchors, pairs or triples. Positive and negative pairs are averaged apart where the paper does so.
2. **Anchors without a positive** are not terms, except where the class says that their negatives count.
   A batch without any term gives 0, with a graph and zero gradients.
3. **Positives in a denominator** are an argument of the soft-max losses (``denominator``), never a hidden choice.
4. **Both directions** are computed and averaged with ``direction_weights`` (audio to text, text to audio), which are
   divided by their sum. Losses whose terms are pairs have no direction.
5. **Normalisation.** Scores are cosines, vectors are made unit vectors before a loss sees them; the few that need
   norms say ``needs_norms``.
6. **Distance** or squared distance is an argument (``distance``) or part of the class's formula, never a hidden
   choice; between unit vectors the squared distance is ``2 - 2 * cosine``.
7. **Graded relevance.** Every class declares in ``graded`` what a relevance between 0 and 1 means to it.
8. **Many processes.** A loss sees the whole gathered matrix; it never gathers by itself.

Also: arithmetic is float32 (float64 stays float64) with autocast off; weights and relevance get no gradient; a
weight at or below 0 takes the pair out exactly as ``valid=False`` does, and what stands at such a place does not
matter, be it NaN. A NaN at a valid place is let through: the loss is NaN, in every class, so that a broken step is
seen and not averaged away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor, nn

from xmodal.configurable import Configurable
from xmodal.losses.items import BatchItems, Need
from xmodal.losses.numerics import above_zero, unit_vectors

Graded = Literal["threshold", "soft target", "weight", "target distance", "by part"]
"""What a relevance between 0 and 1 means to a loss.

``threshold``: anything above 0 is a positive, its size is ignored. ``soft target``: the share or the probability that
the model should give the pair. ``weight``: the positive pair's term counts that much. ``target distance``: the
distance that the pair should have. ``by part``: what it means to the losses inside.
"""


Terms = tuple[Float[Tensor, "anchors *parts"], Float[Tensor, "anchors *parts"]]
"""Sum and number of each anchor's terms; parts, if any, are averaged apart and added."""


@dataclass(frozen=True)
class Pairs:
    """Checked input of one direction: rows are anchors, columns the other side.

    Attributes:
        score: Cosines, float32 or float64; 0 where the pair is not valid.
        relevance: In the score's dtype; 0 where the pair is not valid.
        valid: The pairs that may be judged.
        weight: How many pairs a pair stands for; 0 where it is not valid.
        plain: Every relevance is 0 or 1 and every weight 1, so that a positive's relevance is its weight.
    """

    score: Float[Tensor, "anchors others"]
    relevance: Float[Tensor, "anchors others"]
    valid: Bool[Tensor, "anchors others"]
    weight: Float[Tensor, "anchors others"]
    plain: bool = False

    @property
    def positive(self) -> Bool[Tensor, "anchors others"]:
        """Pairs that belong together."""
        return self.relevance > 0

    @property
    def negative(self) -> Bool[Tensor, "anchors others"]:
        """Pairs that are known not to belong together."""
        return self.valid & ~self.positive

    @cached_property
    def positive_weight(self) -> Float[Tensor, "anchors others"]:
        """Weights of the positives, 0 elsewhere."""
        return self.relevance if self.plain else above_zero(self.relevance).mul_(self.weight)

    @cached_property
    def negative_weight(self) -> Float[Tensor, "anchors others"]:
        """Weights of the negatives, 0 elsewhere."""
        return self.weight - self.positive_weight

    @property
    def has_positive(self) -> Bool[Tensor, " anchors"]:
        """Anchors with a positive."""
        return self.positive_weight.sum(dim=1) > 0

    @property
    def has_negative(self) -> Bool[Tensor, " anchors"]:
        """Anchors with a negative."""
        return self.negative_weight.sum(dim=1) > 0

    @property
    def transposed(self) -> Pairs:
        """The other direction."""
        return Pairs(self.score.T, self.relevance.T, self.valid.T, self.weight.T, self.plain)

    def weighted(self, factor: Float[Tensor, "anchors others"]) -> Pairs:
        """The same pairs with their weights multiplied; those of factor 0 are no longer valid."""
        return make_pairs(self.score, self.relevance, self.valid, self.weight * factor)


def make_pairs(
    score: Float[Tensor, "audio text"],
    relevance: Real[Tensor, "audio text"],
    valid: Bool[Tensor, "audio text"] | None = None,
    weight: Real[Tensor, "audio text"] | None = None,
) -> Pairs:
    """Check a loss's arguments and bring them into one form.

    Raises:
        ValueError: If a shape or a dtype is not what the contract says.
    """
    if score.ndim != 2:
        raise ValueError(f"score must be a matrix [audio, text], got shape {tuple(score.shape)}; use audio @ text.T")
    if not score.is_floating_point():
        raise ValueError(f"score must hold cosines in a floating dtype, got {score.dtype}")
    for name, given in (("relevance", relevance), ("valid", valid), ("weight", weight)):
        if given is not None and given.shape != score.shape:
            raise ValueError(
                f"{name} must have the score's shape {tuple(score.shape)} [audio, text], got {tuple(given.shape)}"
            )
    if valid is not None and valid.dtype != torch.bool:
        raise ValueError(f"valid must be boolean, got {valid.dtype}; for pairs that count more or less use weight")
    dtype = torch.float64 if score.dtype == torch.float64 else torch.float32
    score = score.to(dtype)
    relevance = relevance.detach()
    plain = relevance.dtype == torch.bool
    if plain:  # whose bytes are 0 and 1, and numbers are converted much faster than booleans
        relevance = relevance.view(torch.uint8)
    relevance = relevance.to(dtype)
    ones = torch.ones((), dtype=dtype, device=score.device).expand(score.shape)
    everywhere = torch.ones((), dtype=torch.bool, device=score.device).expand(score.shape)
    if valid is None and weight is None:  # the usual case: nothing to mask, and nothing to copy
        return Pairs(score, relevance, everywhere, ones, plain)
    weight = ones if weight is None else weight.detach().to(dtype)
    # `> 0` and not `== 0` below: a NaN weight is no weight, and neither is a negative one.
    valid = weight > 0 if valid is None else valid & (weight > 0)
    return Pairs(
        score=score.masked_fill(~valid, 0.0),
        relevance=relevance.masked_fill(~valid, 0.0),
        valid=valid,
        weight=weight.masked_fill(~valid, 0.0),
    )


def ratio_of_sums(terms: Terms) -> Float[Tensor, ""]:
    """Sum of terms over number of terms, part by part, then the sum of the parts; a part without terms gives 0."""
    total, count = terms[0].sum(dim=0), terms[1].sum(dim=0)
    return torch.where(count > 0, total / torch.where(count > 0, count, 1.0), 0.0).sum()


def check_direction_weights(weights: tuple[float, float]) -> tuple[float, float]:
    """The two weights as floats.

    Raises:
        ValueError: If they are not two numbers from 0 up, one of them above 0.
    """
    if len(weights) != 2 or min(weights) < 0 or not 0 < sum(weights) < math.inf:
        raise ValueError(
            f"direction_weights must be two numbers from 0 up, not both 0 (audio to text, text to audio), got {weights}"
        )
    return float(weights[0]), float(weights[1])


class PairwiseLoss(nn.Module, Configurable):
    """An objective that needs the scores alone.

    A new one is a subclass with :meth:`row_terms`, or with :meth:`one_direction` where the value is not a ratio of
    sums over rows. Constructor arguments are plain typed values.

    Args:
        direction_weights: Weights of audio-to-text (rows) and text-to-audio (columns).
    """

    method_ids: ClassVar[tuple[str, ...]] = ()
    """Entries of the project's list of methods that the class implements."""
    graded: ClassVar[Graded] = "threshold"
    directional: ClassVar[bool] = True
    """False where the terms are pairs, so that rows and columns would give the same sums."""
    proportional: ClassVar[bool] = True
    """False where the gradient is not in proportion to the one that comes from above, as with a black box."""

    def __init__(self, direction_weights: tuple[float, float] = (1.0, 1.0)) -> None:
        super().__init__()
        self.direction_weights = check_direction_weights(direction_weights)

    def forward(
        self,
        score: Float[Tensor, "audio text"],
        relevance: Real[Tensor, "audio text"],
        valid: Bool[Tensor, "audio text"] | None = None,
        weight: Real[Tensor, "audio text"] | None = None,
    ) -> Float[Tensor, ""]:
        """The loss of a batch.

        Args:
            score: Cosines in [-1, 1]; the loss applies its own temperature, bias and margin.
            relevance: Above 0 where audio and text belong together; what its size means is the class's ``graded``.
            valid: Pairs that may be judged; None for all.
            weight: How many pairs each pair stands for, from 0 up; None for one each.

        Returns:
            A scalar in float32 (float64 for a float64 score), finite for every batch of finite scores.

        Raises:
            ValueError: If a shape or a dtype is not what the contract says.
        """
        with torch.autocast(score.device.type, enabled=False):
            pairs = make_pairs(score, relevance, valid, weight)
            # A zero that holds the graph of a batch without terms, and the NaN that a mask or a maximum would hide.
            zero = 0.0 * pairs.score.sum()
            if score.numel() == 0:
                return zero + sum(0.0 * parameter.sum() for parameter in self.parameters())
            return self.compute(pairs) + zero

    def compute(self, rows: Pairs, columns: Pairs | None = None) -> Float[Tensor, ""]:
        """The mean of both directions.

        Args:
            rows: Pairs with audio as the anchor.
            columns: Pairs with text as the anchor, where a miner or a memory made them differ from ``rows``.
        """
        if not self.directional:
            return (
                self.one_direction(rows)
                if columns is None
                else (self.one_direction(rows) + self.one_direction(columns)) / 2
            )
        columns = rows.transposed if columns is None else columns
        row_weight, column_weight = self.direction_weights
        loss = rows.score.new_zeros(())
        if row_weight:
            loss = loss + row_weight * self.one_direction(rows)
        if column_weight:
            loss = loss + column_weight * self.one_direction(columns)
        return loss / (row_weight + column_weight)

    def one_direction(self, pairs: Pairs) -> Float[Tensor, ""]:
        """The loss with the rows as anchors."""
        return ratio_of_sums(self.row_terms(pairs))

    def row_terms(self, pairs: Pairs) -> Terms:
        """Sum and number of each anchor's terms.

        A row must not look at other rows: this is what lets long matrices be streamed in blocks of rows.
        """
        raise NotImplementedError(f"{type(self).__name__} must define row_terms(pairs) or one_direction(pairs)")

    def row_slopes(self, pairs: Pairs) -> tuple[Tensor, Tensor, Float[Tensor, "anchors others"]] | None:
        """Sum and number of all terms, and the sum's slope at each score, for streaming; None leaves it to autograd.

        Only for a loss without parts and without parameters.
        """
        return None


class EmbeddingLoss(nn.Module, Configurable):
    """An objective that needs the vectors: angles between three of them, regularisers, generators.

    A new one is a subclass with :meth:`one_direction`, or with :meth:`compute` where both sides are treated together.

    Args:
        direction_weights: Weights of audio-to-text and text-to-audio.
    """

    method_ids: ClassVar[tuple[str, ...]] = ()
    graded: ClassVar[Graded] = "threshold"
    needs_norms: ClassVar[bool] = False
    """True where the vectors must come as the projection made them, before they became unit vectors."""
    needs_scores: ClassVar[bool] = True
    """False where no cosine of audio and text is used, or only now and then: ``pairs.score`` is 0 everywhere."""
    needs: ClassVar[frozenset[Need]] = frozenset()
    """What of the batch's items it needs. One that needs the vocabulary sees it in the place of the batch's texts."""

    def __init__(self, direction_weights: tuple[float, float] = (1.0, 1.0)) -> None:
        super().__init__()
        self.direction_weights = check_direction_weights(direction_weights)

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
        """The loss of a batch of vectors; ``items`` for those that need more, the rest as in :class:`PairwiseLoss`.

        Raises:
            ValueError: If a shape or a dtype is not what the contract says, or something that it needs is not there.
        """
        if items is not None and items.vocabulary is not None and "vocabulary" in self.needs:
            text, relevance = items.vocabulary.text, items.vocabulary.relevance
            valid, weight = items.vocabulary.valid, None
        if audio.ndim != 2 or text.ndim != 2 or audio.shape[1] != text.shape[1]:
            raise ValueError(
                "audio and text must be matrices [items, dim] of one dim, "
                f"got {tuple(audio.shape)} and {tuple(text.shape)}"
            )
        with torch.autocast(audio.device.type, enabled=False):
            audio, text = in_full_precision(audio), in_full_precision(text)
            if not self.needs_norms:
                audio, text = unit_vectors(audio), unit_vectors(text)
            score = audio @ text.T if self.needs_scores else audio.new_zeros(()).expand(len(audio), len(text))
            pairs = make_pairs(score, relevance, valid, weight)
            zero = 0.0 * (audio.sum() + text.sum())
            if relevance.numel() == 0:
                return zero + sum(0.0 * parameter.sum() for parameter in self.parameters())
            return self.compute_with(items or BatchItems(), audio, text, pairs) + zero

    def meet_vocabulary(self, text: Float[Tensor, "concepts dim"]) -> None:
        """Told once, before training begins, to those that need the vocabulary; the vectors have any norm."""

    def compute_with(
        self, items: BatchItems, audio: Float[Tensor, "audio dim"], text: Float[Tensor, "text dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """What :meth:`compute` says, for the few that also need ``items``."""
        return self.compute(audio, text, pairs)

    def compute(
        self, audio: Float[Tensor, "audio dim"], text: Float[Tensor, "text dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """The mean of both directions; ``pairs.score`` holds the products ``audio @ text.T`` if it ``needs_scores``."""
        row_weight, column_weight = self.direction_weights
        loss = audio.new_zeros(())
        if row_weight:
            loss = loss + row_weight * self.one_direction(audio, text, pairs)
        if column_weight:
            loss = loss + column_weight * self.one_direction(text, audio, pairs.transposed)
        return loss / (row_weight + column_weight)

    def one_direction(
        self, anchors: Float[Tensor, "anchors dim"], others: Float[Tensor, "others dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """The loss with the rows as anchors."""
        raise NotImplementedError(
            f"{type(self).__name__} must define one_direction(anchors, others, pairs) or compute(audio, text, pairs)"
        )


def apply_loss(
    loss: nn.Module,
    audio: Float[Tensor, "audio dim"],
    text: Float[Tensor, "text dim"],
    relevance: Real[Tensor, "audio text"],
    valid: Bool[Tensor, "audio text"] | None = None,
    weight: Real[Tensor, "audio text"] | None = None,
    *,
    items: BatchItems | None = None,
) -> Float[Tensor, ""]:
    """Call an objective of either kind with vectors; they may have any norm.

    Args:
        loss: The objective.
        audio: Vectors of the audio.
        text: Vectors of the texts.
        relevance: As in every loss.
        valid: As in every loss.
        weight: As in every loss.
        items: What the objective needs besides (:func:`xmodal.losses.items.needs_of`).

    Raises:
        ValueError: If the loss is of neither kind, or a shape or a dtype is not what the contract says.
    """
    if isinstance(loss, EmbeddingLoss):
        return loss(audio, text, relevance, valid, weight, items=items)
    if not isinstance(loss, PairwiseLoss):
        raise ValueError(f"a loss must be a PairwiseLoss or an EmbeddingLoss, got {type(loss).__name__}")
    with torch.autocast(audio.device.type, enabled=False):
        audio, text = unit_vectors(in_full_precision(audio)), unit_vectors(in_full_precision(text))
        return loss(audio @ text.T, relevance, valid, weight)


def in_full_precision(vectors: Tensor) -> Tensor:
    """Half precision as float32; float64 stays."""
    return vectors if vectors.dtype == torch.float64 else vectors.float()
