"""Losses on ranks: histograms of scores, smoothed or black-box ranks, and ratios of distances."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from xmodal.losses.base import Graded, Pairs, PairwiseLoss, Terms
from xmodal.losses.numerics import check_choice, check_range, distance, sum_over_positives, weight_below


def soft_histogram(
    place: Float[Tensor, "rows members"], weight: Float[Tensor, "rows members"], nodes: int
) -> Float[Tensor, "rows nodes"]:
    """Each row's weights, each shared between the two nodes (0 to ``nodes - 1``) around its place.

    A scatter-add: O(members + nodes) a row, where a kernel evaluated at every node takes their product.
    """
    place = place.clamp(0.0, nodes - 1.0)
    # A NaN has no cell; the base class brings it back into the loss.
    left = place.detach().nan_to_num().floor().clamp(max=nodes - 2)
    right_share = place - left
    cell = left.long()
    histogram = place.new_zeros((place.shape[0], nodes))
    histogram = histogram.scatter_add(1, cell, weight * (1.0 - right_share))
    return histogram.scatter_add(1, cell + 1, weight * right_share)


class HistogramLoss(PairwiseLoss):
    """The probability that a random negative scores at least as high as a random positive.

    Both score distributions are estimated by histograms with linear interpolation; with many bins it is one minus the
    area under the ROC curve of the whole batch. 0 where positives or negatives are missing.

    Args:
        bins: Number of bins on [-1, 1].

    References:
        Ustinova and Lempitsky, "Learning deep embeddings with histogram loss", NIPS 2016.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("2.03",)
    directional: ClassVar[bool] = False

    def __init__(self, bins: int = 100) -> None:
        super().__init__()
        check_range("bins", bins, 1)
        self.bins = bins

    def one_direction(self, pairs: Pairs) -> Float[Tensor, ""]:
        """The value over all pairs of the batch."""
        place = ((pairs.score + 1.0) * (self.bins / 2)).reshape(1, -1)
        near, far = (
            soft_histogram(place, weight.reshape(1, -1), self.bins + 1)[0] / torch.where(total > 0, total, 1.0)
            for weight in (pairs.positive_weight, pairs.negative_weight)
            for total in (weight.sum(),)
        )
        return (far * near.cumsum(dim=0)).sum()


class FastAPLoss(PairwiseLoss):
    """One minus average precision, over a soft histogram of squared distances.

    With ``h_l`` the histogram of an anchor's distances, ``h+_l`` of its positives', and capitals their running sums,
    ``AP = sum_l h+_l H+_l / H_l / N+``. Terms are the anchors with a positive.

    Args:
        bins: Number of bins on squared distances from 0 to 4.
        direction_weights: Weights of audio-to-text and text-to-audio.

    References:
        Cakir et al., "Deep metric learning to rank", CVPR 2019.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("1.15",)

    def __init__(self, bins: int = 10, *, direction_weights: tuple[float, float] = (1.0, 1.0)) -> None:
        super().__init__(direction_weights)
        check_range("bins", bins, 1)
        self.bins = bins

    def row_terms(self, pairs: Pairs) -> Terms:
        """One term for each anchor with a positive."""
        place = distance(pairs.score, "squared") * (self.bins / 4)
        near = soft_histogram(place, pairs.positive_weight, self.bins + 1)
        every = near + soft_histogram(place, pairs.negative_weight, self.bins + 1)
        so_far = every.cumsum(dim=1)
        precision = near.cumsum(dim=1) / torch.where(so_far > 0, so_far, 1.0)
        total = near.sum(dim=1)
        term = 1.0 - (near * precision).sum(dim=1) / torch.where(total > 0, total, 1.0)
        counted = pairs.has_positive
        return torch.where(counted, term, 0.0), counted.to(term.dtype)


class SmoothAPLoss(PairwiseLoss):
    """One minus average precision, with the steps of the rank replaced by sigmoids.

    The rank of a positive p is ``1 + sum of sigmoid((s_k - s_p) / temperature)`` over the other valid items k, and
    likewise among the positives; an anchor's precision is the mean of their ratio. Terms are the anchors with a
    positive.

    Args:
        temperature: Width of the step; towards 0 the value is that of average precision.
        direction_weights: Weights of audio-to-text and text-to-audio.

    References:
        Brown et al., "Smooth-AP: smoothing the path towards large-scale image retrieval", ECCV 2020.
    """

    def __init__(self, temperature: float = 0.01, *, direction_weights: tuple[float, float] = (1.0, 1.0)) -> None:
        super().__init__(direction_weights)
        check_range("temperature", temperature, 0.0, low_open=True)
        self.temperature = temperature

    def row_terms(self, pairs: Pairs) -> Terms:
        """One term for each anchor with a positive."""
        near_weight = pairs.positive_weight

        def precision(rows: Tensor, columns: Tensor) -> Tensor:
            ahead = torch.sigmoid((pairs.score[rows] - pairs.score[rows, columns, None]) / self.temperature)
            # The item itself stands at half a place before itself, which the 0.5 completes to 1.
            return (0.5 + (near_weight[rows] * ahead).sum(dim=1)) / (0.5 + (pairs.weight[rows] * ahead).sum(dim=1))

        total = near_weight.sum(dim=1)
        counted = total > 0
        term = 1.0 - sum_over_positives(precision, near_weight) / torch.where(counted, total, 1.0)
        return torch.where(counted, term, 0.0), counted.to(term.dtype)


class BlackboxRankLoss(PairwiseLoss):
    """Recall or average precision on true ranks, with a gradient by black-box differentiation.

    The ranks come from a sort, in which ties count against the positive. Their gradient is the finite difference
    between the ranks of the scores and of the scores moved against the incoming gradient. Terms are the anchors with
    a positive. Because of that gradient the value does not fall smoothly along it.

    Args:
        objective: ``recall``: the mean over positives of ``log(1 + log(1 + negatives ranked above))``. ``map``: one
            minus average precision.
        step: How far the scores are moved for the gradient, in units of ``1 / gradient``.
        margin: Positives lose half of it and negatives gain half of it before they are ranked.
        direction_weights: Weights of audio-to-text and text-to-audio.

    References:
        Rolinek et al., "Optimizing rank-based metrics with blackbox differentiation", CVPR 2020. Vlastelica et al.,
        "Differentiation of blackbox combinatorial solvers", ICLR 2020.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("2.12",)
    proportional: ClassVar[bool] = False

    def __init__(
        self,
        objective: Literal["recall", "map"] = "recall",
        *,
        step: float = 0.2,
        margin: float = 0.02,
        direction_weights: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        super().__init__(direction_weights)
        check_choice("objective", objective, Literal["recall", "map"])
        check_range("step", step, 0.0, low_open=True)
        check_range("margin", margin, 0.0)
        self.objective, self.step, self.margin = objective, step, margin

    def row_terms(self, pairs: Pairs) -> Terms:
        """One term for each anchor with a positive."""
        near_weight = pairs.positive_weight
        score = pairs.score - self.margin * (pairs.positive.to(pairs.score.dtype) - 0.5)
        among_all: Tensor = _Ranks.apply(score, pairs.weight, self.step)
        among_positives: Tensor = _Ranks.apply(score, near_weight, self.step)
        if self.objective == "recall":
            term = torch.log1p(torch.log1p((among_all - among_positives).clamp(min=0.0)))
        else:
            term = 1.0 - among_positives / torch.where(pairs.positive, among_all, 1.0)
        total = near_weight.sum(dim=1)
        counted = total > 0
        return (near_weight * term).sum(dim=1) / torch.where(counted, total, 1.0), counted.to(term.dtype)


class _Ranks(torch.autograd.Function):
    """Weight of each row's members that score at least as high as each column."""

    @staticmethod
    def forward(ctx: Any, score: Tensor, weight: Tensor, step: float) -> Tensor:
        ranks = _ranks(score, weight)
        ctx.save_for_backward(score, weight, ranks)
        ctx.step = step
        return ranks

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        score, weight, ranks = ctx.saved_tensors
        moved = _ranks(score + ctx.step * gradients[0], weight)
        return -(ranks - moved) / ctx.step, None, None


def _ranks(score: Tensor, weight: Tensor) -> Tensor:
    return weight.sum(dim=1, keepdim=True) - weight_below(score, weight, score, inclusive=False)


class LogRatioLoss(PairwiseLoss):
    """Distances in the space should be to each other as the dissimilarities of the labels.

    For an anchor and two others j and k the term is ``(log(d_j / d_k) - log(y_j / y_k))**2`` with Euclidean distances d
    and dissimilarities ``y = 1 - relevance``: it is made for graded relevance. The mean over all pairs (j, k) is twice
    the variance of ``log d - log y``, so no triple is formed. Terms are the triples.

    Args:
        nearest: Dissimilarity of a pair of relevance 1, where the logarithm of 0 would stand.
        direction_weights: Weights of audio-to-text and text-to-audio.

    References:
        Kim et al., "Deep metric learning beyond binary supervision", CVPR 2019.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("1.12",)
    graded: ClassVar[Graded] = "target distance"

    def __init__(self, nearest: float = 0.1, *, direction_weights: tuple[float, float] = (1.0, 1.0)) -> None:
        super().__init__(direction_weights)
        check_range("nearest", nearest, 0.0, 1.0, low_open=True)
        self.nearest = nearest

    def row_terms(self, pairs: Pairs) -> Terms:
        """The triples of each anchor."""
        target = (1.0 - pairs.relevance).clamp(self.nearest, 1.0)
        gap = distance(pairs.score, "euclidean").log() - target.log()
        total = pairs.weight.sum(dim=1, keepdim=True)
        centred = gap - (pairs.weight * gap).sum(dim=1, keepdim=True) / torch.where(total > 0, total, 1.0)
        total = total[:, 0]
        spread = (pairs.weight * centred.square()).sum(dim=1)
        # W items make W (W - 1) / 2 pairs; weights that do not add up to two items make none.
        counted = total > 1.0
        return torch.where(counted, total * spread, 0.0), torch.where(counted, total * (total - 1.0) / 2, 0.0)
