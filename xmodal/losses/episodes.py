"""Episodes: an audio is asked which of the batch's concepts it belongs to, each being a text and some audio."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from xmodal.losses.base import EmbeddingLoss, Pairs, make_pairs, ratio_of_sums
from xmodal.losses.numerics import check_range, masked_logsumexp


class EpisodeLoss(EmbeddingLoss):
    """Soft-max over concepts that are represented by their hardest support.

    Each text of the batch is a concept; its supports are the text and the batch's audio that it is right for, the query
    left out. A query's own concept counts by the farthest of its supports, another by the nearest of them. With logits
    ``l = cosine / temperature`` the term of a right pair is ``log(exp(l_own) + sum of exp(l_other)) - l_own``, to which
    ``length_weight`` times the mean squared length of the vectors is added. Where concepts have no other audio it is
    :class:`xmodal.losses.HardestSupportLoss`; batches of several tracks a tag make it an episode.

    Args:
        temperature: Divides the cosines; the paper's squared distances of unit vectors are 0.5.
        length_weight: Weight of the lengths.
        direction_weights: Weights of audio as queries and of texts as queries.

    References:
        Chen et al., "Deep meta metric learning", ICCV 2019.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("2.10",)
    needs_norms: ClassVar[bool] = True

    def __init__(
        self,
        temperature: float = 0.5,
        *,
        length_weight: float = 0.0005,
        direction_weights: tuple[float, float] = (1.0, 0.0),
    ) -> None:
        super().__init__(direction_weights)
        check_range("temperature", temperature, 0.0, low_open=True)
        check_range("length_weight", length_weight, 0.0)
        self.temperature, self.length_weight = temperature, length_weight

    def one_direction(
        self, anchors: Float[Tensor, "anchors dim"], others: Float[Tensor, "others dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """Mean over the right pairs whose query has a wrong concept, and the lengths."""
        lengths = (anchors.square().sum(dim=1).mean() + others.square().sum(dim=1).mean()) / 2
        anchors, others = F.normalize(anchors, dim=1), F.normalize(others, dim=1)
        pairs = make_pairs(anchors @ others.T, pairs.relevance, pairs.valid, pairs.weight)
        own, other = hardest_supports(pairs.score, anchors @ anchors.T, pairs.positive)
        against = masked_logsumexp(other / self.temperature, pairs.negative_weight)
        weight = pairs.positive_weight * pairs.has_negative[:, None]
        term = F.softplus(against[:, None] - own / self.temperature)
        return ratio_of_sums(((weight * term).sum(dim=1), weight.sum(dim=1))) + self.length_weight * lengths


def hardest_supports(
    score: Float[Tensor, "queries concepts"],
    likeness: Float[Tensor, "queries queries"],
    member: Bool[Tensor, "queries concepts"],
) -> tuple[Float[Tensor, "queries concepts"], Float[Tensor, "queries concepts"]]:
    """Of each concept's supports (its text, and its members but the query) the farthest and the nearest to each query.

    Which supports these are is found member by member without gradient, in the memory of the score matrix; the
    gradient is that of the supports found.
    """
    with torch.no_grad():
        lowest, highest = score.clone(), score.clone()
        farthest = torch.full_like(score, -1, dtype=torch.long)  # -1: the text
        nearest = farthest.clone()
        for support in range(len(score)):
            others = torch.arange(len(score), device=score.device) != support
            counts = others[:, None] & member[support][None, :]
            value = likeness[:, support, None].expand_as(score)
            farther, nearer = counts & (value < lowest), counts & (value > highest)
            lowest, highest = torch.where(farther, value, lowest), torch.where(nearer, value, highest)
            farthest, nearest = (
                torch.where(moved, support, which) for moved, which in ((farther, farthest), (nearer, nearest))
            )
    picked = [torch.where(which < 0, score, likeness.gather(1, which.clamp(min=0))) for which in (farthest, nearest)]
    return picked[0], picked[1]
