"""Losses on three vectors or on distances that are no function of the cosine."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from xmodal.losses.base import EmbeddingLoss, Graded, Pairs, PairwiseLoss, ratio_of_sums
from xmodal.losses.numerics import (
    check_range,
    gram,
    masked_logsumexp,
    max_over_positives,
    sum_over_positives,
)
from xmodal.losses.softmax import InfoNCELoss
from xmodal.losses.triple import top

_LARGEST_SPREAD = 60.0
"""Between the largest and the smallest exponent that float32 sums can hold side by side, with room to spare."""


class NPairLoss(EmbeddingLoss):
    """Soft-max cross-entropy on products of vectors that were not normalised, and a penalty on their lengths.

    :class:`xmodal.losses.InfoNCELoss` without cosine and temperature, plus ``length_weight`` times a quarter of the
    mean squared lengths of both sides. Needs vectors that are not normalised yet.

    Args:
        length_weight: Weight of the penalty.
        direction_weights: Weights of audio-to-text and text-to-audio.

    References:
        Sohn, "Improved deep metric learning with multi-class N-pair loss objective", NIPS 2016.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("1.05",)
    graded: ClassVar[Graded] = "soft target"
    needs_norms: ClassVar[bool] = True

    def __init__(self, length_weight: float = 0.002, *, direction_weights: tuple[float, float] = (1.0, 1.0)) -> None:
        super().__init__(direction_weights)
        check_range("length_weight", length_weight, 0.0)
        self.length_weight = length_weight
        self.cross_entropy = InfoNCELoss(1.0, learn_temperature=False)

    def one_direction(
        self, anchors: Float[Tensor, "anchors dim"], others: Float[Tensor, "others dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """The cross-entropy of the rows and the penalty."""
        lengths = anchors.square().sum(dim=1).mean() + others.square().sum(dim=1).mean()
        return self.cross_entropy.one_direction(pairs) + self.length_weight / 4 * lengths


class AngularLoss(EmbeddingLoss):
    """The angle at the negative, in the triangle with anchor and positive, should be small.

    For a positive pair (a, p), ``log(1 + sum_N exp(4 t (a + p) n - 2 (1 + t) a p))`` with ``t = tan(angle)**2``. Terms
    are the positive pairs whose anchor has a negative.

    Args:
        angle_degrees: Upper bound of the angle, 36 to 55 in the paper.
        direction_weights: Weights of audio-to-text and text-to-audio.

    References:
        Wang et al., "Deep metric learning with angular loss", ICCV 2017.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("1.10",)
    needs_scores: ClassVar[bool] = False

    def __init__(self, angle_degrees: float = 45.0, *, direction_weights: tuple[float, float] = (1.0, 1.0)) -> None:
        super().__init__(direction_weights)
        check_range("angle_degrees", angle_degrees, 0.0, 89.0, low_open=True)
        self.angle_degrees = angle_degrees

    def one_direction(
        self, anchors: Float[Tensor, "anchors dim"], others: Float[Tensor, "others dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """Mean over the positive pairs of the rows."""
        tangent = math.tan(math.radians(self.angle_degrees)) ** 2
        negative_weight = pairs.negative_weight
        weight = pairs.positive_weight * pairs.has_negative[:, None]
        many = int(torch.count_nonzero(weight)) > len(anchors)
        if many and 16 * tangent <= _LARGEST_SPREAD and len(others) <= 2 * len(anchors):
            # An exponential of a sum is a product of two, so that one product of matrices has the sums of all pairs.
            score = anchors @ others.T
            by_anchor = (4 * tangent * (score - 1.0)).exp() * negative_weight
            by_other = (4 * tangent * (gram(others) - 1.0)).exp()
            rows, columns = weight.nonzero(as_tuple=True)
            reach = (by_anchor @ by_other)[rows, columns].log() + 8 * tangent
            terms = F.softplus(reach - 2 * (1 + tangent) * score[rows, columns])
            total = weight.new_zeros(len(weight)).index_add(0, rows, weight[rows, columns] * terms)
            return ratio_of_sums((total, weight.sum(dim=1)))

        def term(rows: Tensor, columns: Tensor) -> Tensor:
            anchor, other = anchors[rows], others[columns]
            reach = masked_logsumexp(4 * tangent * (anchor + other) @ others.T, negative_weight[rows])
            return F.softplus(reach - 2 * (1 + tangent) * torch.linalg.vecdot(anchor, other))

        return ratio_of_sums((sum_over_positives(term, weight), weight.sum(dim=1)))


class SNRContrastiveLoss(EmbeddingLoss):
    """The contrastive loss on the ratio of noise to signal.

    The distance of an anchor a and another vector x is ``var(x - a) / var(a)`` over the coordinates, which differs
    between the directions. A positive costs ``max(0, d - positive_margin)`` and a negative ``max(0, negative_margin -
    d)``; the kinds are averaged apart. As the variance of a difference is ``var a + var x - 2 cov``, no difference is
    formed.

    Args:
        positive_margin: Distance below which a positive costs nothing.
        negative_margin: Distance above which a negative costs nothing.
        direction_weights: Weights of audio-to-text and text-to-audio.

    References:
        Yuan et al., "Signal-to-noise ratio: a robust distance metric for deep metric learning", CVPR 2019.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("2.08",)
    needs_scores: ClassVar[bool] = False

    def __init__(
        self,
        positive_margin: float = 0.0,
        *,
        negative_margin: float = 1.0,
        direction_weights: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        super().__init__(direction_weights)
        check_range("positive_margin", positive_margin, 0.0)
        check_range("negative_margin", negative_margin, 0.0)
        self.positive_margin, self.negative_margin = positive_margin, negative_margin

    def one_direction(
        self, anchors: Float[Tensor, "anchors dim"], others: Float[Tensor, "others dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """Positive pairs and negative pairs, averaged apart."""
        away = snr_distance(anchors, others)
        near, far = F.relu(away - self.positive_margin), F.relu(self.negative_margin - away)
        weights = pairs.positive_weight, pairs.negative_weight
        total = [(weight * cost).sum(dim=1) for weight, cost in zip(weights, (near, far), strict=True)]
        return ratio_of_sums((torch.stack(total, dim=1), torch.stack([w.sum(dim=1) for w in weights], dim=1)))


def snr_distance(
    anchors: Float[Tensor, "anchors dim"], others: Float[Tensor, "others dim"]
) -> Float[Tensor, "anchors others"]:
    """Variance of the difference over the variance of the anchor; at least 1e-6 of it is taken as signal."""
    dim = max(anchors.shape[1], 1)
    anchors, others = anchors - anchors.mean(dim=1, keepdim=True), others - others.mean(dim=1, keepdim=True)
    signal, other = anchors.square().mean(dim=1), others.square().mean(dim=1)
    noise = torch.addmm(signal[:, None] + other[None, :], anchors, others.T, alpha=-2 / dim).clamp(min=0.0)
    return noise / signal.clamp(min=1e-6)[:, None]


class RobustMarginLoss(EmbeddingLoss):
    """How far an anchor may be moved before a negative is closer to it than its positives.

    The distance of anchor a to the plane halfway between positive p and negative n is ``(a p - a n) / |p - n|``. An
    anchor's certified radius is, over its negatives, the smallest of the largest over its positives: the nearest of
    its positives must withstand each negative. The term is ``max(0, margin - radius)``; terms are the anchors with a
    positive and a negative. (The paper optimises a Mahalanobis metric; here the towers are the metric.)

    Args:
        margin: Radius that is enough.
        direction_weights: Weights of audio-to-text and text-to-audio.

    References:
        Wang et al., "Provably robust metric learning", NeurIPS 2020.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("2.19",)

    def __init__(self, margin: float = 0.3, *, direction_weights: tuple[float, float] = (1.0, 1.0)) -> None:
        super().__init__(direction_weights)
        check_range("margin", margin, 0.0)
        self.margin = margin

    def one_direction(
        self, anchors: Float[Tensor, "anchors dim"], others: Float[Tensor, "others dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """Mean over the anchors."""

        def radius(rows: Tensor, columns: Tensor) -> Tensor:
            squared = 2.0 - 2.0 * others[columns] @ others.T
            gap = pairs.score[rows, columns, None] - pairs.score[rows]
            return gap / squared.clamp(min=1e-8).sqrt()

        lowest = torch.full_like(pairs.score, -2e4)  # below every radius: |gap| <= 2 over a distance of 1e-4
        radii = max_over_positives(radius, pairs.positive, lowest)
        counted = pairs.has_positive & pairs.has_negative
        least = radii.masked_fill(~pairs.negative, torch.inf).amin(dim=1).masked_fill(~counted, self.margin)
        return ratio_of_sums((F.relu(self.margin - least), counted.to(least.dtype)))


class PointToSetLoss(EmbeddingLoss):
    """An audio should be close to the span of its texts, and far from that of the others.

    The texts that share an audio's relevance form a set X; the distance of the audio a to it is
    ``min_w |a - X w|**2 + ridge |w|**2``, which has a closed form. The triplet hinge compares the distance to the
    anchor's positives, as one set, with the distance to each negative by itself. Terms are the anchors with a positive
    and a negative. Derived for two towers from the published metric; with one positive and ``ridge`` 0 the distance
    is ``1 - cosine**2``.

    Args:
        margin: In squared distance.
        ridge: Weight of the coefficients, above 0.
        direction_weights: Weights of audio-to-text and text-to-audio.

    References:
        Zhu et al., "From point to set: extend the learning of distance metrics", ICCV 2013.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("1.02",)

    def __init__(
        self, margin: float = 0.2, *, ridge: float = 0.1, direction_weights: tuple[float, float] = (1.0, 1.0)
    ) -> None:
        super().__init__(direction_weights)
        check_range("margin", margin, 0.0)
        check_range("ridge", ridge, 0.0, low_open=True)
        self.margin, self.ridge = margin, ridge

    def one_direction(
        self, anchors: Float[Tensor, "anchors dim"], others: Float[Tensor, "others dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """Mean over the anchors."""
        weight = pairs.negative_weight * pairs.has_positive[:, None]
        near = span_distance(anchors, others, pairs.positive, self.ridge)
        far = 1.0 - pairs.score.square() / (1.0 + self.ridge)
        return ratio_of_sums(((weight * F.relu(self.margin + near[:, None] - far)).sum(dim=1), weight.sum(dim=1)))


def span_distance(
    anchors: Float[Tensor, "anchors dim"],
    others: Float[Tensor, "others dim"],
    member: Bool[Tensor, "anchors others"],
    ridge: float,
) -> Float[Tensor, " anchors"]:
    """Each anchor's ``min_w |a - X w|**2 + ridge |w|**2`` with X the members of its row; 1 for an empty set.

    The systems have as many unknowns as the largest set has members, or as there are dimensions if these are fewer.
    They are solved in blocks of rows whose matrices together are no larger than the score matrix (or one of them is),
    and again for the gradient.
    """
    size, dim = int(member.sum(dim=1).max()) if member.numel() else 0, anchors.shape[1]
    if size == 0:
        return anchors.square().sum(dim=1)

    def distances(a: Tensor, inside: Tensor) -> Tensor:
        inside, places = inside.to(a.dtype).topk(size, dim=1)
        members = others[places] * inside[:, :, None]  # what fills up a smaller set is 0 and changes nothing
        if dim <= size:
            # min_w |a - X w|^2 + r |w|^2 = a^T (I + X X^T / r)^-1 a
            spread = torch.eye(dim, dtype=a.dtype, device=a.device) + members.transpose(1, 2) @ members / ridge
            return (a * torch.linalg.solve(spread, a)).sum(dim=1)
        gram = members @ members.transpose(1, 2) + ridge * torch.eye(size, dtype=a.dtype, device=a.device)
        products = (members @ a[:, :, None])[:, :, 0]
        return a.square().sum(dim=1) - (products * torch.linalg.solve(gram, products)).sum(dim=1)

    block = max(1, member.numel() // max(min(size, dim) ** 2, size * dim))
    blocks = zip(anchors.split(block), member.split(block), strict=True)
    return torch.cat([checkpoint(distances, *each, use_reentrant=False, preserve_rng_state=False) for each in blocks])


class HardConceptLoss(EmbeddingLoss):
    """A loss that meets only the negatives most like its positives.

    Of an anchor's negatives those stay that are closest to one of its positives, as vectors of their own side: the
    tags most easily taken for the right ones, whatever the anchor's own vector says. What is chosen is constant for
    the gradient.

    Args:
        loss: The inner loss on scores; the paper adds a soft-max and a triplet loss.
        negatives: How many an anchor keeps.

    References:
        Suh et al., "Stochastic class-based hard example mining for deep metric learning", CVPR 2019.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("4.10",)
    graded: ClassVar[Graded] = "by part"

    def __init__(self, loss: PairwiseLoss, *, negatives: int = 16) -> None:
        super().__init__(loss.direction_weights)
        check_range("negatives", negatives, 1)
        self.loss, self.negatives = loss, negatives

    def one_direction(
        self, anchors: Float[Tensor, "anchors dim"], others: Float[Tensor, "others dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """The inner loss of the chosen pairs."""
        with torch.no_grad():
            alike = max_over_positives(
                lambda rows, columns: others[columns] @ others.T, pairs.positive, torch.full_like(pairs.score, -2.0)
            )
            chosen = pairs.positive | top(alike, pairs.negative, self.negatives)
            chosen |= ~pairs.has_positive[:, None]  # nothing to be like: all negatives stay
        return self.loss.one_direction(pairs.weighted(chosen.to(pairs.score.dtype)))
