"""Losses whose terms are triples: an anchor, a positive and a negative.

No triple is ever listed. A hinge over triples is linear in the scores as long as the same triples are active, so it
is enough to know, for each positive, how many negatives come within the margin, and for each negative the reverse.
The positives of an anchor are sorted and every negative finds its place among them, which gives both counts in
O(N M log P) time and O(N M) memory for P positives an anchor, and the gradient is exact. Of few positives each is
compared with all negatives, which is the same and faster.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from xmodal.losses.base import Pairs, PairwiseLoss, Terms, ratio_of_sums
from xmodal.losses.numerics import Distance, check_choice, check_range, distance

_FEW = 16
"""Positives of an anchor from which a sort is faster than a comparison for each."""

Average = Literal["active", "all"]
Mining = Literal["all", "semi-hard", "hard", "batch-hard"]


class TripletLoss(PairwiseLoss):
    """A positive must be closer to its anchor than a negative, by a margin.

    A triple costs ``max(0, margin + d(anchor, positive) - d(anchor, negative))``. FaceNet's margin 0.2 on squared
    distances is 0.1 on cosines. Positives whose mining finds no negative are not terms.

    Args:
        margin: In units of ``distance``.
        mining: ``all`` triples; ``semi-hard``: the negative is farther than the positive, but within the margin;
            ``hard``: each positive against the ``hardest`` closest negatives of its anchor (VSE++ for 1);
            ``batch-hard``: the anchor's farthest positive against its closest negative.
        distance: In which distance; ``cosine`` compares the scores.
        hardest: How many negatives ``hard`` takes.
        average: Over the ``active`` triples, which cost something, or over ``all`` that mining admits.
        direction_weights: Weights of audio-to-text and text-to-audio.

    References:
        Schroff, Kalenichenko and Philbin, "FaceNet", CVPR 2015. Hermans, Beyer and Leibe, "In defense of the triplet
        loss for person re-identification", 2017. Faghri et al., "VSE++", BMVC 2018.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("1.03", "6.22", "7.38")

    def __init__(
        self,
        margin: float = 0.1,
        *,
        mining: Mining = "semi-hard",
        distance: Distance = "cosine",
        hardest: int = 1,
        average: Average = "active",
        direction_weights: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        super().__init__(direction_weights)
        check_range("margin", margin, 0.0)
        check_range("hardest", hardest, 1)
        check_choice("mining", mining, Mining)
        check_choice("distance", distance, Distance)
        check_choice("average", average, Average)
        self.margin, self.mining, self.distance = margin, mining, distance
        self.hardest, self.average = hardest, average

    def row_terms(self, pairs: Pairs) -> Terms:
        """The triples of each anchor."""
        slope, constant, count = self._triples(pairs)
        factor, closeness, _ = self._scale(pairs.score)
        return factor * (torch.linalg.vecdot(slope, closeness) + constant), count

    def row_slopes(self, pairs: Pairs) -> tuple[Tensor, Tensor, Float[Tensor, "anchors others"]] | None:
        """The triples with their slope at each score, which the counts are."""
        if self.distance == "euclidean":
            return None
        slope, constant, count = self._triples(pairs)
        factor = self._scale(pairs.score)[0]
        total = torch.dot(slope.flatten(), pairs.score.flatten()) + constant.sum()
        return factor * total, count.sum(), slope if factor == 1.0 else slope.mul_(factor)

    def _scale(self, score: Float[Tensor, "anchors others"]) -> tuple[float, Float[Tensor, "anchors others"], float]:
        """The distance as a factor on a closeness, and the margin in units of that closeness."""
        if self.distance == "euclidean":
            return 1.0, -distance(score, "euclidean"), self.margin
        # A squared distance is twice a cosine's: its triples are those of the scores with half the margin.
        return (2.0, score, self.margin / 2) if self.distance == "squared" else (1.0, score, self.margin)

    @torch.no_grad()
    def _triples(self, pairs: Pairs) -> tuple[Float[Tensor, "anchors others"], Tensor, Tensor]:
        """Slopes of the closeness, and each anchor's part of the sum that does not depend on it, and number."""
        _, closeness, margin = self._scale(pairs.score)
        positive_weight, negative_weight = pairs.positive_weight, pairs.negative_weight
        if self.mining in ("hard", "batch-hard"):
            negative_weight = negative_weight * top(closeness, pairs.negative, self.hardest_negatives)
        if self.mining == "batch-hard":
            positive_weight = positive_weight * top(-closeness, pairs.positive, 1)
        slope, active = triple_slopes(
            closeness, positive_weight, negative_weight, margin, semi_hard=self.mining == "semi-hard"
        )
        count = active
        if self.average == "all" and self.mining != "semi-hard":  # semi-hard triples are active by definition
            count = positive_weight.sum(dim=1) * negative_weight.sum(dim=1)
        return slope, margin * active, count

    @property
    def hardest_negatives(self) -> int:
        """How many negatives of an anchor hard mining takes."""
        return self.hardest if self.mining == "hard" else 1


class QuadrupletLoss(PairwiseLoss):
    """A triplet loss, and every positive pair must also be closer than any negative pair of the batch.

    Terms are the triples of both directions, averaged as in :class:`TripletLoss` over the active ones, and the
    quadruples (positive pair, negative pair), likewise; the second mean is weighted. A quadruple may share an item,
    which makes it a triple.

    Args:
        margin: Of the triples, in cosines.
        far_margin: Of the quadruples.
        far_weight: Weight of the quadruples.

    References:
        Chen et al., "Beyond triplet loss: a deep quadruplet network for person re-identification", CVPR 2017.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("1.06",)

    def __init__(
        self,
        margin: float = 0.2,
        *,
        far_margin: float = 0.1,
        far_weight: float = 0.5,
        direction_weights: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        super().__init__(direction_weights)
        check_range("margin", margin, 0.0)
        check_range("far_margin", far_margin, 0.0)
        check_range("far_weight", far_weight, 0.0)
        self.margin, self.far_margin, self.far_weight = margin, far_margin, far_weight

    def one_direction(self, pairs: Pairs) -> Float[Tensor, ""]:
        """Triples with the rows as anchors, and all quadruples."""
        near, far = pairs.positive_weight, pairs.negative_weight
        triples = hinge_over_triples(pairs.score, near, far, self.margin)
        # One long row: all positive pairs against all negative pairs.
        score, near, far = (each.reshape(1, -1) for each in (pairs.score, near, far))
        quadruples = hinge_over_triples(score, near, far, self.far_margin)
        return ratio_of_sums(triples) + self.far_weight * ratio_of_sums(quadruples)


def hinge_over_triples(
    closeness: Float[Tensor, "anchors others"],
    positive_weight: Float[Tensor, "anchors others"],
    negative_weight: Float[Tensor, "anchors others"],
    margin: float,
) -> Terms:
    """Each anchor's sum of ``max(0, margin + c_n - c_p)`` over its triples, and the weight of those above 0."""
    slope, active = triple_slopes(closeness.detach(), positive_weight, negative_weight, margin)
    return torch.linalg.vecdot(slope, closeness) + margin * active, active


@torch.no_grad()
def triple_slopes(
    closeness: Float[Tensor, "anchors others"],
    positive_weight: Float[Tensor, "anchors others"],
    negative_weight: Float[Tensor, "anchors others"],
    margin: float,
    *,
    semi_hard: bool = False,
) -> tuple[Float[Tensor, "anchors others"], Float[Tensor, " anchors"]]:
    """Slope of each anchor's hinges over its triples at each closeness, and the weight of the triples above 0.

    Args:
        closeness: Higher is closer.
        positive_weight: Above 0 at the positives.
        negative_weight: Above 0 at the negatives.
        margin: In units of the closeness.
        semi_hard: Admit only triples with ``c_n < c_p``.
    """
    pairs = positive_weight.nonzero()
    places = int(torch.bincount(pairs[:, 0]).amax()) if len(pairs) else 0
    if places <= _FEW:
        return _slopes_of_few(closeness, positive_weight, negative_weight, margin, pairs, places, semi_hard=semi_hard)
    # Each anchor's positives, the farthest first, with as many places as the anchor with the most of them needs.
    near, where = torch.where(positive_weight > 0, closeness, torch.inf).topk(places, dim=1, largest=False)
    near_weight = positive_weight.gather(1, where)
    push, pull = _counts(near - margin, near_weight, closeness, negative_weight, inclusive=False)
    if semi_hard:  # less those that the negative has passed altogether
        passed_push, passed_pull = _counts(near, near_weight, closeness, negative_weight, inclusive=True)
        push, pull = push.sub_(passed_push).clamp_(min=0.0), (pull - passed_pull).clamp(min=0.0)
    pull = near_weight * pull
    return push.mul_(negative_weight).scatter_add_(1, where, -pull), pull.sum(dim=1)


def _slopes_of_few(
    closeness: Float[Tensor, "anchors others"],
    positive_weight: Float[Tensor, "anchors others"],
    negative_weight: Float[Tensor, "anchors others"],
    margin: float,
    pairs: Int[Tensor, "pairs 2"],
    places: int,
    *,
    semi_hard: bool,
) -> tuple[Float[Tensor, "anchors others"], Float[Tensor, " anchors"]]:
    """The same, one positive of every anchor after the other: two matrices, and no sort."""
    i, j = pairs.unbind(dim=1)
    # The pairs come row by row, so that the first of a row is where a search for the row ends.
    place = torch.arange(len(i), device=i.device) - torch.searchsorted(i, i) if places > 1 else torch.zeros_like(i)
    near = closeness.new_full((len(closeness), places), torch.inf).index_put_((i, place), closeness[i, j])
    near_weight = torch.zeros_like(near).index_put_((i, place), positive_weight[i, j])
    push, pull = torch.zeros_like(closeness), torch.zeros_like(near)
    active = push if places == 1 else torch.empty_like(closeness)
    for edge in range(places):
        own = near[:, edge, None]
        torch.gt(closeness, own - margin, out=active).mul_(negative_weight)
        if semi_hard:
            active.mul_(closeness < own)
        pull[:, edge] = active.sum(dim=1)
        if active is push:
            push.mul_(near_weight)
        else:
            push.addcmul_(active, near_weight[:, edge, None])
    pull.mul_(near_weight)
    push[i, j] = -pull[i, place]  # where no negative is
    return push, pull.sum(dim=1)


def _counts(
    edges: Float[Tensor, "anchors places"],
    edge_weight: Float[Tensor, "anchors places"],
    closeness: Float[Tensor, "anchors others"],
    weight: Float[Tensor, "anchors others"],
    *,
    inclusive: bool,
) -> tuple[Float[Tensor, "anchors others"], Float[Tensor, "anchors places"]]:
    """Weight of the edges that each closeness is above (or equal to, if ``inclusive``), and the reverse of it.

    Both come from one comparison of the same rounded numbers, so that a triple on the edge is active for its positive
    and its negative or for neither. The edges ascend.
    """
    above = torch.searchsorted(edges.contiguous(), closeness.contiguous(), right=inclusive)
    passed = F.pad(edge_weight.cumsum(dim=1), (1, 0)).gather(1, above)
    by_edges = weight.new_zeros(len(edges), edges.shape[1] + 1).scatter_add(1, above, weight)
    return passed, by_edges[:, 1:].flip(1).cumsum(dim=1).flip(1)


def top(
    values: Float[Tensor, "rows columns"], member: Bool[Tensor, "rows columns"], k: int
) -> Bool[Tensor, "rows columns"]:
    """The k largest members of each row, or all where there are fewer; one of equals is as good as another."""
    k = min(k, values.shape[1])
    chosen = values.detach().masked_fill(~member, -torch.inf).topk(k, dim=1).indices
    return torch.zeros_like(member).scatter(1, chosen, True) & member
