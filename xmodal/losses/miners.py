"""Miners: which pairs of a score matrix a loss should look at, and how much.

A miner sees checked pairs with the rows as anchors and returns them with other weights; a pair of weight 0 is out. It
never lists triples. What it decides is constant for the gradient. A miner that draws at random draws from torch's
generator, so a seeded run repeats it. (Semi-hard negatives belong to a positive and not to an anchor: they are
``TripletLoss(mining="semi-hard")``.)
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from xmodal.configurable import Configurable
from xmodal.losses.base import Pairs
from xmodal.losses.numerics import check_choice, check_range, distance, masked_logsumexp
from xmodal.losses.triple import top


class Miner(nn.Module, Configurable):
    """Base class: a subclass defines :meth:`factor`."""

    method_ids: ClassVar[tuple[str, ...]] = ()

    @torch.no_grad()
    def _factor(self, pairs: Pairs) -> Float[Tensor, "anchors others"]:
        return self.factor(pairs)

    def forward(self, pairs: Pairs) -> Pairs:
        """The pairs with their weights multiplied by the miner's factor."""
        return pairs.weighted(self._factor(pairs)) if pairs.score.numel() else pairs

    def factor(self, pairs: Pairs) -> Float[Tensor, "anchors others"]:
        """What each pair's weight is multiplied by, from 0 up; rows are anchors."""
        raise NotImplementedError(f"{type(self).__name__} must define factor(pairs)")


class HardNegativeMiner(Miner):
    """All positives, and of each anchor's negatives the closest ones.

    Args:
        negatives: How many an anchor keeps.
        positives: How many positives an anchor keeps, the farthest; None for all. 1 and 1 is batch-hard.

    References:
        Hermans, Beyer and Leibe, "In defense of the triplet loss for person re-identification", 2017.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("6.22",)

    def __init__(self, negatives: int = 1, *, positives: int | None = None) -> None:
        super().__init__()
        check_range("negatives", negatives, 1)
        check_range("positives", 1 if positives is None else positives, 1)
        self.negatives, self.positives = negatives, positives

    def factor(self, pairs: Pairs) -> Float[Tensor, "anchors others"]:
        """1 for the chosen pairs."""
        near = pairs.positive if self.positives is None else top(-pairs.score, pairs.positive, self.positives)
        return (near | top(pairs.score, pairs.negative, self.negatives)).to(pairs.score.dtype)


class MultiSimilarityMiner(Miner):
    """Pairs that are not in order yet.

    A negative stays if it scores above the anchor's worst positive less epsilon, a positive if it scores below the
    anchor's best negative plus epsilon. Anchors without positives or without negatives lose all their pairs.

    Args:
        epsilon: Slack in cosines.

    References:
        Wang et al., "Multi-similarity loss with general pair weighting for deep metric learning", CVPR 2019.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("2.09",)

    def __init__(self, epsilon: float = 0.1) -> None:
        super().__init__()
        check_range("epsilon", epsilon, 0.0)
        self.epsilon = epsilon

    def factor(self, pairs: Pairs) -> Float[Tensor, "anchors others"]:
        """1 for the chosen pairs."""
        worst = pairs.score.masked_fill(~pairs.positive, torch.inf).amin(dim=1, keepdim=True)
        best = pairs.score.masked_fill(~pairs.negative, -torch.inf).amax(dim=1, keepdim=True)
        near = pairs.positive & (pairs.score - self.epsilon < best)
        far = pairs.negative & (pairs.score + self.epsilon > worst)
        return (near | far).to(pairs.score.dtype)


class HardPairMiner(Miner):
    """The hardest share of the positives and the hardest share of the negatives of the whole batch.

    One level of a cascade; :class:`xmodal.losses.CascadedLoss` is the whole of it.

    Args:
        share: Part that stays, above 0 to 1; at least one pair of a kind.

    References:
        Yuan, Yang and Zhang, "Hard-aware deeply cascaded embedding", ICCV 2017.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("4.02",)

    def __init__(self, share: float = 0.5) -> None:
        super().__init__()
        check_range("share", share, 0.0, 1.0, low_open=True)
        self.share = share

    def factor(self, pairs: Pairs) -> Float[Tensor, "anchors others"]:
        """1 for the chosen pairs."""
        return hardest_share(pairs, self.share).to(pairs.score.dtype)


class DistanceWeightedMiner(Miner):
    """Negatives drawn so that all distances are seen equally often.

    A negative at Euclidean distance d has the weight ``1 / q(d)``, with d taken as ``cutoff`` where it is smaller and
    no weight beyond ``limit``. q is the density of distances: that of points spread evenly on the sphere of ``dim``
    dimensions, ``d**(dim-2) (1 - d**2/4)**((dim-3)/2)``, or that of the batch itself. Audio and texts often fill two
    separate caps of the sphere, where the even density says little: then take ``empirical``. ``cosine`` is the simpler
    weight of tag-based retrieval, ``(cosine + 1) / 2``, which draws the nearer more often; it has no cutoff.

    Args:
        dim: Dimensions of the space.
        density: ``sphere``, ``empirical`` (a histogram of the batch's negatives with 32 bins) or ``cosine``.
        cutoff: Smallest distance told apart.
        limit: Distance beyond which a negative is never drawn.
        draws: Negatives drawn for each anchor, with replacement; 0 gives every negative its expected number of draws
            for one draw an anchor.

    References:
        Wu et al., "Sampling matters in deep embedding learning", ICCV 2017.
        Won et al., "Multimodal metric learning for tag-based music retrieval", ICASSP 2021 (``cosine``).
    """

    method_ids: ClassVar[tuple[str, ...]] = ("1.09",)

    def __init__(
        self,
        dim: int,
        *,
        density: Literal["sphere", "empirical", "cosine"] = "sphere",
        cutoff: float = 0.5,
        limit: float = 1.4,
        draws: int = 1,
    ) -> None:
        super().__init__()
        check_range("dim", dim, 3)
        check_choice("density", density, Literal["sphere", "empirical", "cosine"])
        check_range("cutoff", cutoff, 0.0, 1.99, low_open=True)
        check_range("limit", limit, cutoff, 2.0)
        check_range("draws", draws, 0)
        self.dim, self.density, self.cutoff, self.limit, self.draws = dim, density, cutoff, limit, draws

    def factor(self, pairs: Pairs) -> Float[Tensor, "anchors others"]:
        """1 for positives; for negatives how often they were drawn, or their chance."""
        away = distance(pairs.score, "euclidean")
        member = pairs.negative & (away <= self.limit)
        log_weight = (-self._log_density(away, pairs)).masked_fill(~member, -torch.inf)
        return pairs.positive + _drawn(log_weight, member, self.draws)

    def _log_density(self, away: Tensor, pairs: Pairs) -> Tensor:
        if self.density == "empirical":
            return _histogram_density(away, pairs.negative, bins=32).clamp(min=1e-9).log()
        if self.density == "cosine":
            return -((1 - away.square() / 4).clamp(min=1e-9)).log()
        away = away.clamp(self.cutoff, 2.0 - 1e-4)
        return (self.dim - 2) * away.log() + (self.dim - 3) / 2 * torch.log1p(-away.square() / 4)


class DistanceBinMiner(Miner):
    """Negatives drawn by a table of weights over distance.

    The general form of distance-weighted sampling: whoever can tell which distances help (a schedule, a policy that
    watches the validation set) sets ``bin_weights``, which are saved with the weights of the model. Even weights
    choose evenly among the bins, and within a bin among its negatives.

    Args:
        bins: Number of bins of equal width.
        low: Distance at which the first begins; closer negatives are never drawn.
        high: Distance at which the last ends; farther negatives are never drawn.
        draws: As in :class:`DistanceWeightedMiner`.

    References:
        Roth, Milbich and Ommer, "PADS: policy-adapted sampling for visual similarity learning", CVPR 2020.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("2.16",)
    bin_weights: Tensor

    def __init__(self, bins: int = 30, *, low: float = 0.1, high: float = 1.4, draws: int = 1) -> None:
        super().__init__()
        check_range("bins", bins, 1)
        check_range("low", low, 0.0)
        check_range("high", high, low, 2.0)
        check_range("draws", draws, 0)
        self.bins, self.low, self.high, self.draws = bins, low, high, draws
        self.register_buffer("bin_weights", torch.ones(bins))

    def factor(self, pairs: Pairs) -> Float[Tensor, "anchors others"]:
        """1 for positives; for negatives how often they were drawn, or their chance."""
        away = distance(pairs.score, "euclidean")
        place = ((away - self.low) / (self.high - self.low) * self.bins).nan_to_num()
        member = pairs.negative & (place >= 0) & (place < self.bins)
        cell = place.long().clamp(0, self.bins - 1)
        crowd = torch.zeros(pairs.score.shape[0], self.bins, dtype=away.dtype, device=away.device)
        crowd = crowd.scatter_add(1, cell, member.to(away.dtype)).gather(1, cell).clamp(min=1.0)
        log_weight = (self.bin_weights.to(away.dtype)[cell] / crowd).log()
        member = member & (log_weight > -torch.inf)
        return pairs.positive + _drawn(log_weight.masked_fill(~member, -torch.inf), member, self.draws)


class OnlineSoftMiner(Miner):
    """Soft weights: close positives and close negatives count, and so do items that are sure of their concept.

    Positives weigh ``exp(-d**2 / width**2)``, negatives ``max(0, margin - d)``. With ``attention_temperature`` both are
    multiplied by the lesser of two confidences: the share of its positives in the audio's soft-max over the texts, and
    in the text's over the audio, so that a wrong tag weighs little. Made for ``ContrastiveLoss(margin)``.

    Args:
        margin: Distance from which a negative does not weigh.
        width: Distance at which a positive weighs 1/e.
        attention_temperature: Temperature of the soft-max; None for no attention.

    References:
        Wang et al., "Deep metric learning by online soft mining and class-aware attention", AAAI 2019.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("1.11",)

    def __init__(self, margin: float = 1.2, *, width: float = 0.8, attention_temperature: float | None = 0.18) -> None:
        super().__init__()
        check_range("margin", margin, 0.0, low_open=True)
        check_range("width", width, 0.0, low_open=True)
        check_range("attention_temperature", attention_temperature or 1.0, 0.0, low_open=True)
        self.margin, self.width, self.attention_temperature = margin, width, attention_temperature

    def factor(self, pairs: Pairs) -> Float[Tensor, "anchors others"]:
        """Weights from 0 to 1 for positives and from 0 to the margin for negatives."""
        near = torch.exp(-distance(pairs.score, "squared") / self.width**2)
        far = F.relu(self.margin - distance(pairs.score, "euclidean"))
        weight = torch.where(pairs.positive, near, far)
        if self.attention_temperature is None:
            return weight
        return weight * torch.minimum(self._confidence(pairs)[:, None], self._confidence(pairs.transposed)[None, :])

    def _confidence(self, pairs: Pairs) -> Tensor:
        logits = pairs.score / (self.attention_temperature or 1.0)
        own = masked_logsumexp(logits, pairs.positive_weight) - masked_logsumexp(logits, pairs.weight)
        return own.exp() * pairs.positive.any(dim=1)


class SpanningTreeMiner(Miner):
    """Of the positives, only those of a shortest tree that connects what belongs together.

    The positives are the edges of a graph between audio and texts; of each connected part the edges of a minimum
    spanning tree by distance stay, and all negatives. Positives then need not be close to every other positive.

    References:
        Xu et al., "Deep asymmetric metric learning via rich relationship mining", CVPR 2019.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("2.06",)

    def factor(self, pairs: Pairs) -> Float[Tensor, "anchors others"]:
        """1 for the tree's edges and the negatives."""
        anchors, others = pairs.score.shape
        parent = list(range(anchors + others))

        def root(node: int) -> int:
            while parent[node] != node:
                parent[node] = parent[parent[node]]
                node = parent[node]
            return node

        edges = pairs.positive.nonzero()
        order = pairs.score[edges[:, 0], edges[:, 1]].argsort(descending=True, stable=True)
        chosen = pairs.negative.clone()
        for row, column in edges[order].tolist():
            one, other = root(row), root(anchors + column)
            if one != other:
                parent[one] = other
                chosen[row, column] = True
        return chosen.to(pairs.score.dtype)


class RhoMiner(Miner):
    """Now and then a positive is taken for a negative, so that a concept does not collapse to a point.

    Each anchor, with the given chance, has one of its positives (if there are at least two) turned into a negative.

    Args:
        chance: From 0 to 1; the paper's best are 0.2 to 0.4.

    References:
        Roth et al., "Revisiting training strategies and generalization performance in deep metric learning", ICML 2020.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("2.15",)

    def __init__(self, chance: float = 0.3) -> None:
        super().__init__()
        check_range("chance", chance, 0.0, 1.0)
        self.chance = chance

    def forward(self, pairs: Pairs) -> Pairs:
        """The pairs with some positives' relevance set to 0."""
        if not pairs.score.numel():
            return pairs
        lot = torch.rand(pairs.score.shape, device=pairs.score.device)
        turned = top(lot, pairs.positive, 1) & (pairs.positive.sum(dim=1, keepdim=True) > 1)
        turned &= torch.rand((pairs.score.shape[0], 1), device=pairs.score.device) < self.chance
        return Pairs(pairs.score, pairs.relevance.masked_fill(turned, 0.0), pairs.valid, pairs.weight)


def hardest_share(pairs: Pairs, share: float) -> Bool[Tensor, "anchors others"]:
    """The share of the positives with the lowest scores and of the negatives with the highest; one of a kind at least.

    Of pairs that score the same as the last one chosen all are chosen.
    """
    chosen = torch.zeros_like(pairs.valid)
    for hardness, member in ((-pairs.score, pairs.positive), (pairs.score, pairs.negative)):
        count = member.sum()
        keep = (share * count).ceil().clamp(min=1).long()
        ranked = hardness.masked_fill(~member, -torch.inf).reshape(-1).sort(descending=True).values
        edge = ranked.gather(0, (keep - 1).reshape(1))
        chosen = chosen | (member & (hardness >= edge))
    return chosen


def _drawn(log_weight: Tensor, member: Tensor, draws: int) -> Tensor:
    """How often each member of a row was drawn, or its chance where ``draws`` is 0."""
    any_member = member.any(dim=1, keepdim=True)
    chance = log_weight.masked_fill(~any_member, 0.0).softmax(dim=1) * member
    if not draws:
        return chance
    picked = (chance + ~any_member).multinomial(draws, replacement=True)
    return torch.zeros_like(chance).scatter_add(1, picked, torch.ones_like(chance[:, :1]).expand_as(picked)) * member


def _histogram_density(away: Tensor, member: Tensor, bins: int) -> Tensor:
    cell = (away.nan_to_num() * (bins / 2)).long().clamp(0, bins - 1)
    counts = torch.zeros(bins, dtype=away.dtype, device=away.device)
    counts = counts.scatter_add(0, cell.reshape(-1), member.to(away.dtype).reshape(-1))
    return (counts / counts.sum().clamp(min=1.0))[cell]
