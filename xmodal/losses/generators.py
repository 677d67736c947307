"""Harder candidates made in the space itself: synthetic negatives by closed forms on the score matrix, or by a network.

Positives keep their scores, a negative takes the highest score of itself and of what was made from it. Any loss on
scores goes inside.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from xmodal.losses.base import EmbeddingLoss, Graded, Pairs, PairwiseLoss, ratio_of_sums
from xmodal.losses.numerics import check_range, distance, max_over_positives
from xmodal.losses.triple import top


class HardnessAwareLoss(PairwiseLoss):
    """Negatives are drawn towards the anchor, the closer the better the model already is.

    With J the inner loss of the batch, and d+ the anchor's farthest positive, a negative at a Euclidean distance d
    beyond d+ is put at ``d+ + (d - d+) exp(-hardness / J)`` on the way to the anchor. J is a constant for the gradient.
    (The paper's network that keeps the label of what was moved is left out: a text cannot be decoded from a vector.)

    Args:
        loss: The inner loss on scores, above 0 where there is something to learn.
        hardness: In units of the inner loss; 0 moves nothing.

    References:
        Zheng et al., "Hardness-aware deep metric learning", CVPR 2019.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("2.07",)
    graded: ClassVar[Graded] = "by part"

    def __init__(self, loss: PairwiseLoss, *, hardness: float = 1.0) -> None:
        super().__init__(loss.direction_weights)
        check_range("hardness", hardness, 0.0)
        self.loss, self.hardness = loss, hardness

    def one_direction(self, pairs: Pairs) -> Float[Tensor, ""]:
        """The inner loss of the moved scores."""
        plain = self.loss.one_direction(pairs).detach()
        kept = torch.exp(-self.hardness / plain.clamp(min=1e-6))
        away = distance(pairs.score, "euclidean")
        farthest = away.masked_fill(~pairs.positive, 0.0).amax(dim=1, keepdim=True)
        moves = pairs.negative & (away > farthest) & pairs.has_positive[:, None]
        moved = 1.0 - (farthest + (away - farthest) * kept).square() / 2
        return self.loss.one_direction(with_negatives(pairs, torch.where(moves, moved, pairs.score)))


class EmbeddingExpansionLoss(EmbeddingLoss):
    """Points between two items that share a partner are negatives too.

    Between two others that have an anchor in common, ``points`` vectors at even steps are put back on the sphere; a
    negative's score becomes the highest of its own and of the points between it and any other negative of the anchor
    that it shares an anchor with.

    Args:
        loss: The inner loss on scores.
        points: Points between two items; 0 gives the inner loss.

    References:
        Ko and Gu, "Embedding expansion: augmentation in embedding space for deep metric learning", CVPR 2020.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("1.19",)
    graded: ClassVar[Graded] = "by part"

    def __init__(self, loss: PairwiseLoss, *, points: int = 2) -> None:
        super().__init__(loss.direction_weights)
        check_range("points", points, 0)
        self.loss, self.points = loss, points

    def one_direction(
        self, anchors: Float[Tensor, "anchors dim"], others: Float[Tensor, "others dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """The inner loss with the points among the columns."""
        shared = pairs.positive.to(others.dtype)
        shared = (shared.T @ shared > 0).fill_diagonal_(False)
        score, negative = pairs.score.T, pairs.negative.T  # a row for each of the others

        def best_point(one: Tensor, other: Tensor) -> Tensor:
            product = (others[one] * others[other]).sum(dim=1)
            best = torch.full_like(score[one], -2.0)
            for step in range(1, self.points + 1):
                near = step / (self.points + 1)
                length = (near**2 + (1 - near) ** 2 + 2 * near * (1 - near) * product).clamp(min=1e-8).sqrt()
                best = torch.maximum(best, (near * score[one] + (1 - near) * score[other]) / length[:, None])
            return best.masked_fill(~negative[other], -2.0)

        return self.loss.one_direction(with_negatives(pairs, max_over_positives(best_point, shared, score).T))


class SymmetricalSynthesisLoss(EmbeddingLoss):
    """The mirror images of a positive pair meet the anchor's negatives too.

    For a positive pair (a, p), p is mirrored about the axis of a, and a about that of p; a negative's score becomes the
    highest of its own with a, and of its products with the two images.

    Args:
        loss: The inner loss on scores.

    References:
        Gu and Ko, "Symmetrical synthesis for deep metric learning", AAAI 2020.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("2.11",)
    graded: ClassVar[Graded] = "by part"

    def __init__(self, loss: PairwiseLoss) -> None:
        super().__init__(loss.direction_weights)
        self.loss = loss

    def one_direction(
        self, anchors: Float[Tensor, "anchors dim"], others: Float[Tensor, "others dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """The inner loss with the images among the candidates."""

        def images(rows: Tensor, columns: Tensor) -> Tensor:
            own = 2.0 * pairs.score[rows, columns, None]
            between = others[columns] @ others.T
            of_positive, of_anchor = own * pairs.score[rows] - between, own * between - pairs.score[rows]
            return torch.maximum(of_positive, of_anchor)

        return self.loss.one_direction(with_negatives(pairs, max_over_positives(images, pairs.positive, pairs.score)))


class AdversarialNegativeLoss(EmbeddingLoss):
    """A network makes a harder negative for each anchor, and the towers must push that away.

    From an anchor a, its farthest positive p and its closest negative n the network makes n~ on the sphere. It is
    trained, on constant vectors, to be close to a (``|n~ - a|**2``), not far from n (``closeness_weight |n~ - n|**2``)
    and to break the margin (``attack_weight max(0, |n~ - a|**2 - |p - a|**2 + margin)``); the towers are trained,
    with the network held constant, by ``max(0, |p - a|**2 - |n~ - a|**2 + margin)``. Written from memory of the paper.
    Terms are the anchors with a positive and a negative.

    Args:
        dim: Dimensions of the vectors.
        hidden: Width of the network.
        margin: In squared distance.
        closeness_weight: Weight of staying near the real negative.
        attack_weight: Weight of breaking the margin.
        direction_weights: Weights of audio-to-text and text-to-audio.

    References:
        Duan et al., "Deep adversarial metric learning", CVPR 2018.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("4.04",)

    def __init__(
        self,
        dim: int,
        *,
        hidden: int = 512,
        margin: float = 0.2,
        closeness_weight: float = 1.0,
        attack_weight: float = 1.0,
        direction_weights: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        super().__init__(direction_weights)
        check_range("dim", dim, 1)
        check_range("hidden", hidden, 1)
        check_range("margin", margin, 0.0)
        check_range("closeness_weight", closeness_weight, 0.0)
        check_range("attack_weight", attack_weight, 0.0)
        self.margin, self.closeness_weight, self.attack_weight = margin, closeness_weight, attack_weight
        self.network = nn.Sequential(nn.Linear(3 * dim, hidden), nn.ReLU(), nn.Linear(hidden, dim))

    def one_direction(
        self, anchors: Float[Tensor, "anchors dim"], others: Float[Tensor, "others dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """The network's and the towers' losses, added."""
        counted = pairs.has_positive & pairs.has_negative
        near = others[top(-pairs.score, pairs.positive, 1).int().argmax(dim=1)]
        far = others[top(pairs.score, pairs.negative, 1).int().argmax(dim=1)]
        a, p, n = anchors.detach(), near.detach(), far.detach()
        made = self._made(a, p, n, self.network)
        gap = _squared(made, a) - _squared(p, a)
        cost = _squared(made, a) + self.closeness_weight * _squared(made, n)
        cost = cost + self.attack_weight * F.relu(gap + self.margin)
        # The same network with constant weights, through which the towers get their gradient.
        frozen = {name: each.detach() for name, each in self.network.named_parameters()}
        hard = self._made(anchors, near, far, lambda x: torch.func.functional_call(self.network, frozen, (x,)))
        cost = cost + F.relu(_squared(near, anchors) - _squared(hard, anchors) + self.margin)
        return ratio_of_sums((torch.where(counted, cost, 0.0), counted.to(cost.dtype)))

    def _made(self, a: Tensor, p: Tensor, n: Tensor, network: nn.Module | object) -> Tensor:
        dtype = next(self.network.parameters()).dtype
        assert callable(network)
        return F.normalize(network(torch.cat([a, p, n], dim=1).to(dtype)).to(a.dtype), dim=1)


def with_negatives(pairs: Pairs, score: Float[Tensor, "anchors others"]) -> Pairs:
    """The pairs with the negatives' scores replaced."""
    return Pairs(torch.where(pairs.negative, score, pairs.score), pairs.relevance, pairs.valid, pairs.weight)


def _squared(one: Tensor, other: Tensor) -> Tensor:
    return (one - other).square().sum(dim=1)
