"""Losses that treat the texts of a batch as concepts: a tree of them, shares over them, groups made by them."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from xmodal.losses.base import EmbeddingLoss, Graded, Pairs, PairwiseLoss, ratio_of_sums
from xmodal.losses.numerics import check_range, distance, masked_logsumexp, sum_over_positives
from xmodal.losses.softmax import InfoNCELoss


class HierarchicalTripletLoss(EmbeddingLoss):
    """A triplet loss whose margin grows with how far apart two texts are in a tree of texts.

    The texts of the batch are joined by average linkage on their squared distances, and the heights are rounded up to
    ``levels`` steps between the mean scatter of the audio around their text and 4. With text j of an audio and
    another text k, a triple costs ``max(0, margin + height_jk - scatter_j + d_ij**2 - d_ik**2) / 2``, where
    ``scatter_j`` is the mean squared distance of text j to its audio. Tree and scatter are constants for the gradient.
    Terms are the active triples with audio as the anchor. Written from memory of the paper; with all heights equal to
    the scatter it is the triplet loss.

    Args:
        margin: Least margin, in squared distance.
        levels: Steps of the tree.

    References:
        Ge et al., "Deep metric learning with hierarchical triplet loss", ECCV 2018.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("4.07",)

    def __init__(self, margin: float = 0.1, *, levels: int = 16) -> None:
        super().__init__((1.0, 0.0))
        check_range("margin", margin, 0.0)
        check_range("levels", levels, 1)
        self.margin, self.levels = margin, levels

    def one_direction(
        self, anchors: Float[Tensor, "anchors dim"], others: Float[Tensor, "others dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """Mean over the active triples."""
        margins = self._margins(others.detach(), pairs).to(anchors)
        near_weight, far_weight = pairs.positive_weight, pairs.negative_weight

        def cost(rows: Tensor, columns: Tensor) -> Tensor:
            own = pairs.score[rows, columns, None]
            return F.relu(margins[columns] + 2 * (pairs.score[rows] - own)) / 2

        def total(rows: Tensor, columns: Tensor) -> Tensor:
            return (far_weight[rows] * cost(rows, columns)).sum(dim=1)

        with torch.no_grad():
            count = sum_over_positives(
                lambda rows, columns: (far_weight[rows] * (cost(rows, columns) > 0)).sum(dim=1), near_weight
            )
        return ratio_of_sums((sum_over_positives(total, near_weight), count))

    def _margins(self, texts: Tensor, pairs: Pairs) -> Tensor:
        from scipy.cluster.hierarchy import average, cophenet
        from scipy.spatial.distance import squareform

        weight = pairs.positive_weight
        scatter = (weight * (2.0 - 2.0 * pairs.score.detach())).sum(dim=0) / weight.sum(dim=0).clamp(min=1e-9)
        known = pairs.positive.any(dim=0)
        base = float(scatter[known].mean()) if known.any() else 0.0
        heights = torch.zeros(len(texts), len(texts), dtype=torch.float64)
        if len(texts) > 1:
            squared = (2.0 - 2.0 * texts @ texts.T).clamp(min=0.0).nan_to_num().double().cpu()
            condensed = squareform(squared.fill_diagonal_(0.0).numpy(), checks=False)
            heights = torch.as_tensor(squareform(cophenet(average(condensed))))
        step = max(4.0 - base, 1e-6) / self.levels
        rounded = base + step * ((heights - base) / step).ceil().clamp(min=0.0, max=self.levels)
        return self.margin + rounded.to(scatter) - scatter[:, None]


class GroupLoss(EmbeddingLoss):
    """Audio that sound alike must agree on their texts: labels are refined by replicator dynamics before they count.

    Shares over the texts start as ``X = softmax(cosine / temperature)`` of each audio; with ``W`` the correlations of
    audio vectors, those below 0 taken as 0, ``X <- X * (W X)``, rows divided by their sums, is repeated ``steps``
    times. The loss is the cross-entropy of X against the relevance, divided by its row sums, plus that of the first
    X. Terms are the audio with a positive.

    Args:
        temperature: Of the first shares.
        steps: Rounds of refinement.

    References:
        Elezi et al., "The group loss for deep metric learning", ECCV 2020.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("4.15",)
    graded: ClassVar[Graded] = "soft target"

    def __init__(self, temperature: float = 0.1, *, steps: int = 3) -> None:
        super().__init__((1.0, 0.0))
        check_range("temperature", temperature, 0.0, low_open=True)
        check_range("steps", steps, 0)
        self.temperature, self.steps = temperature, steps

    def one_direction(
        self, anchors: Float[Tensor, "anchors dim"], others: Float[Tensor, "others dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """Mean over the audio."""
        first, last = self.shares(anchors, pairs)
        share = pairs.relevance.clamp(min=0.0) * pairs.weight
        total = share.sum(dim=1, keepdim=True)
        share = share / torch.where(total > 0, total, 1.0)
        counted = (total[:, 0] > 0).to(anchors.dtype)
        entropy = -(share * (last.clamp(min=1e-12).log() + first.clamp(min=1e-12).log())).sum(dim=1)
        return ratio_of_sums((entropy, counted))

    def shares(
        self, anchors: Float[Tensor, "anchors dim"], pairs: Pairs
    ) -> tuple[Float[Tensor, "anchors others"], Float[Tensor, "anchors others"]]:
        """Each row's shares before and after the refinement; a row without a valid text is 0."""
        logits = pairs.score / self.temperature
        log_share = logits - masked_logsumexp(logits, pairs.weight)[:, None]
        first = log_share.masked_fill(~pairs.valid, 0.0).exp() * pairs.weight
        centred = F.normalize(anchors - anchors.mean(dim=1, keepdim=True), dim=1)
        alike = F.relu(centred @ centred.T)
        last = first
        for _ in range(self.steps):
            grown = last * (alike @ last)
            total = grown.sum(dim=1, keepdim=True)
            last = torch.where(total > 1e-12, grown / total.clamp(min=1e-12), last)
        return first, last


class FStatisticLoss(EmbeddingLoss):
    """Some dimensions should tell the audio of a text from the others beyond doubt; the rest are free.

    For a text with positives and negatives and for each dimension, ``x`` is the share of the variance that lies between
    the two groups of audio, the text itself being a member of the first. ``I_x(1/2, (n - 2)/2)`` is then the
    probability of a smaller F statistic if there were no difference. The term is the mean of minus its logarithm over
    the ``dims`` best dimensions; terms are the texts (as anchors: the rows) with a positive and two negatives.

    Args:
        dims: Dimensions that must tell.
        direction_weights: Weights of grouping texts by audio, and audio by text.

    References:
        Ridgeway and Mozer, "Learning deep disentangled embeddings with the F-statistic loss", NeurIPS 2018.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("2.04", "3.03")

    def __init__(self, dims: int = 2, *, direction_weights: tuple[float, float] = (0.0, 1.0)) -> None:
        super().__init__(direction_weights)
        check_range("dims", dims, 1)
        self.dims = dims

    def one_direction(
        self, anchors: Float[Tensor, "anchors dim"], others: Float[Tensor, "others dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """Mean over the rows."""
        counted = pairs.has_positive & (pairs.negative.sum(dim=1) >= 2)
        near_weight, far_weight = pairs.positive.to(others.dtype), pairs.negative.to(others.dtype)
        near_count, far_count = near_weight.sum(dim=1, keepdim=True) + 1.0, far_weight.sum(dim=1, keepdim=True)
        near_mean = (near_weight @ others + anchors) / near_count
        far_mean = far_weight @ others / far_count.clamp(min=1.0)
        # Sums of squares around the group's mean, by the variance identity.
        squares = others.square()
        within = near_weight @ squares + anchors.square() - near_count * near_mean.square()
        within = within + far_weight @ squares - far_count * far_mean.square()
        between = near_count * far_count / (near_count + far_count) * (near_mean - far_mean).square()
        share = between / (between + within.clamp(min=0.0)).clamp(min=1e-12)
        freedom = (near_count + far_count - 2.0).clamp(min=1.0)
        likelihood = _RegularizedBeta.apply(share.clamp(1e-12, 1.0 - 1e-5), (freedom / 2).expand_as(share))
        best = likelihood.clamp(min=1e-37).topk(min(self.dims, others.shape[1]), dim=1).values
        return ratio_of_sums((-best.log().mean(dim=1) * counted, counted.to(others.dtype)))


class ClusterContrastLoss(EmbeddingLoss):
    """Audio and its texts against the centres of audio clusters, for audio without labels.

    The audio vectors of the batch are clustered by k-means; the soft-max cross-entropy of each audio against its own
    cluster's centre is added to that of each text against the centres of its audio. Centres are constants for the
    gradient. The other half of the paper is :class:`xmodal.losses.AttentionConsistency`.

    Args:
        clusters: Number of clusters; at most as many as there are audio.
        temperature: Divides the cosines.
        rounds: Of k-means.

    References:
        Li et al., "Unsupervised deep metric learning with transformed attention consistency and contrastive clustering
        loss", ECCV 2020.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("5.02",)

    def __init__(self, clusters: int = 16, *, temperature: float = 0.1, rounds: int = 10) -> None:
        super().__init__()
        check_range("clusters", clusters, 1)
        check_range("rounds", rounds, 0)
        self.clusters, self.rounds = clusters, rounds
        self.cross_entropy = InfoNCELoss(temperature, learn_temperature=False, direction_weights=(1.0, 0.0))

    def compute(
        self, audio: Float[Tensor, "audio dim"], text: Float[Tensor, "text dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """Both cross-entropies."""
        with torch.no_grad():
            centres = spherical_kmeans(audio, min(self.clusters, len(audio)), self.rounds)
            own = F.one_hot((audio @ centres.T).argmax(dim=1), len(centres)).to(audio.dtype)
            of_texts = pairs.positive_weight.T @ own
        loss: Tensor = self.cross_entropy(audio @ centres.T, own)
        return loss + self.cross_entropy(text @ centres.T, of_texts)


def spherical_kmeans(x: Float[Tensor, "items dim"], clusters: int, rounds: int) -> Float[Tensor, "clusters dim"]:
    """Unit centres of unit vectors, first the item nearest to the mean, then always the farthest from the others."""
    centres = x[(x @ x.mean(dim=0)).argmax()][None]
    for _ in range(clusters - 1):
        centres = torch.cat([centres, x[(x @ centres.T).amax(dim=1).argmin()][None]])
    for _ in range(rounds):
        own = F.one_hot((x @ centres.T).argmax(dim=1), clusters).to(x.dtype)
        sums = own.T @ x
        centres = torch.where(sums.norm(dim=1, keepdim=True) > 1e-6, F.normalize(sums, dim=1), centres)
    return centres


class FacilityLocationLoss(PairwiseLoss):
    """The right texts must serve the audio better than any other choice of as many texts.

    A set S of texts serves an audio at the distance of its nearest member. The loss is
    ``max(0, max_S [margin * wrong(S) - cost(S)] + right)``: ``cost`` is the mean distance to the nearest member,
    ``wrong`` the share of audio whose nearest member is not right, ``right`` the mean distance to the nearest right
    text. S has as many texts as have a positive and is found by greedy choice. The paper's ``wrong``, one minus
    mutual information, needs a partition; here a text may have many audio and an audio many texts. Audio without a
    positive are left out, and weights only choose the pairs.

    Args:
        margin: Cost of a wholly wrong assignment.
        direction_weights: Weights of texts that serve audio, and of audio that serve texts.

    References:
        Oh Song et al., "Deep metric learning via facility location", CVPR 2017.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("1.07",)

    def __init__(self, margin: float = 1.0, *, direction_weights: tuple[float, float] = (1.0, 0.0)) -> None:
        super().__init__(direction_weights)
        check_range("margin", margin, 0.0)
        self.margin = margin

    def one_direction(self, pairs: Pairs) -> Float[Tensor, ""]:
        """The columns serve the rows."""
        served = pairs.has_positive
        if not served.any():
            return pairs.score.new_zeros(())
        # What is not known to be right or wrong serves nobody: farther than any known text.
        away = distance(pairs.score, "euclidean").masked_fill(~pairs.valid, 3.0)[served]
        positive = pairs.positive[served]
        right = away.masked_fill(~positive, 3.0).amin(dim=1).mean()
        with torch.no_grad():
            chosen = self._greedy(away, positive, int(pairs.positive.any(dim=0).sum()))
        return F.relu(self._gain(away[:, chosen], positive[:, chosen]) + right)

    def _gain(self, away: Tensor, positive: Tensor) -> Tensor:
        nearest, server = away.min(dim=1)
        wrong = ~positive.gather(1, server[:, None])[:, 0]
        return self.margin * wrong.to(away.dtype).mean() - nearest.mean()

    def _greedy(self, away: Tensor, positive: Tensor, size: int) -> Tensor:
        """The text that gains most beside those chosen before, again and again; all that are left at once a step."""
        nearest = torch.full_like(away[:, :1], torch.inf)
        wrong = torch.ones_like(nearest)
        wrong_alone = (~positive).to(away.dtype)
        taken = torch.zeros_like(positive[0])
        chosen = []
        for _ in range(size):
            closer = away < nearest  # of two at one distance the earlier one serves
            reach = torch.where(closer, away, nearest)
            gains = self.margin * torch.where(closer, wrong_alone, wrong).mean(dim=0) - reach.mean(dim=0)
            best = gains.masked_fill(taken, -torch.inf).argmax()
            nearest = reach.index_select(1, best[None])
            wrong = torch.where(closer, wrong_alone, wrong).index_select(1, best[None])
            taken = taken.index_fill(0, best[None], True)
            chosen.append(best)
        return torch.stack(chosen)


class _RegularizedBeta(torch.autograd.Function):
    """``I_x(1/2, b)``, with the gradient for x, which torch does not have."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, b: Tensor) -> Tensor:
        from scipy.special import betainc

        ctx.save_for_backward(x, b)
        return torch.as_tensor(betainc(0.5, b.double().cpu().numpy(), x.double().cpu().numpy())).to(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        x, b = ctx.saved_tensors
        half = torch.full_like(b, 0.5)
        log_beta = torch.lgamma(half) + torch.lgamma(b) - torch.lgamma(half + b)
        return gradients[0] * torch.exp(-0.5 * x.log() + (b - 1.0) * torch.log1p(-x) - log_beta), None
