"""Regularisers: terms on the vectors of a batch that keep the space wide, centred and undivided.

They are added to a loss by :class:`xmodal.losses.CombinedObjective`. Unless a class says otherwise a term is computed
for the audio and for the texts, and the two are added; a side with too few items gives 0.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from xmodal.losses.base import EmbeddingLoss, Graded, Pairs, PairwiseLoss
from xmodal.losses.items import BatchItems, Need
from xmodal.losses.numerics import check_range, distance, weighted_mean


class SpreadOutRegularizer(EmbeddingLoss):
    """Unrelated vectors should look like random ones: uncorrelated, with squared cosines of 1 / dim.

    For a set of unrelated pairs, ``mean(cosine)**2 + max(0, mean(cosine**2) - 1 / dim)``; one such term each for the
    negatives of the batch, the pairs of audio without a common text, and the pairs of texts without a common audio.

    Args:
        across: Include the negatives between audio and text.
        within: Include the pairs within each side.

    References:
        Zhang et al., "Learning spread-out local feature descriptors", ICCV 2017.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("4.03",)

    def __init__(self, *, across: bool = True, within: bool = True) -> None:
        super().__init__()
        if not (across or within):
            raise ValueError("across and within are both False, which leaves nothing to spread; set one of them")
        self.across, self.within = across, within

    def compute(
        self, audio: Float[Tensor, "audio dim"], text: Float[Tensor, "text dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """The sum of the terms."""
        sets = [(pairs.score, pairs.negative_weight)] if self.across else []
        if self.within:
            sets += [(x @ x.T, unrelated(positive).to(x.dtype)) for x, positive in _sides(audio, text, pairs)]
        dim = audio.shape[1]
        terms = [weighted_mean(s, w).square() + F.relu(weighted_mean(s.square(), w) - 1.0 / dim) for s, w in sets]
        return torch.stack(terms).sum()


class SphericalRegularizer(EmbeddingLoss):
    """Vectors should have one length before they become unit vectors.

    The mean squared difference between a vector's norm and the running mean of norms of its side. A constant for the
    gradient, that mean moves in training mode alone. Needs vectors that are not normalised yet.

    Args:
        momentum: Share of the running mean that stays at each batch.

    References:
        Zhang et al., "Deep metric learning with spherical embedding", NeurIPS 2020.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("1.22",)
    needs_norms: ClassVar[bool] = True
    mean_norms: Tensor

    def __init__(self, momentum: float = 0.9) -> None:
        super().__init__()
        check_range("momentum", momentum, 0.0, 1.0)
        self.momentum = momentum
        self.register_buffer("mean_norms", torch.full((2,), -1.0))  # -1: no batch yet

    def compute(
        self, audio: Float[Tensor, "audio dim"], text: Float[Tensor, "text dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """The sum of both sides."""
        norms = [audio.norm(dim=1), text.norm(dim=1)]
        now = torch.stack([each.detach().mean() for each in norms])
        before = self.mean_norms.to(now.dtype)
        mean = torch.where(before < 0, now, before)
        if self.training:
            mean = torch.where(before < 0, now, self.momentum * before + (1 - self.momentum) * now)
            self.mean_norms.copy_(mean)
        return (norms[0] - mean[0]).square().mean() + (norms[1] - mean[1]).square().mean()


class ZeroMeanRegularizer(EmbeddingLoss):
    """The coordinates of a vector should add up to 0: the mean of ``|sum of coordinates|``.

    References:
        Yuan et al., "Signal-to-noise ratio: a robust distance metric for deep metric learning", CVPR 2019.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("2.08",)

    def compute(
        self, audio: Float[Tensor, "audio dim"], text: Float[Tensor, "text dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """The sum of both sides."""
        return audio.sum(dim=1).abs().mean() + text.sum(dim=1).abs().mean()


class VarianceCovarianceRegularizer(EmbeddingLoss):
    """Every dimension should vary over the batch, and no two together.

    ``mean of max(0, spread - std)`` over dimensions plus ``covariance_weight`` times the sum of squared covariances of
    different dimensions, divided by their number. Vectors come as the projection made them.

    Args:
        spread: Standard deviation below which a dimension costs.
        covariance_weight: Weight of the covariances.

    References:
        Bardes, Ponce and LeCun, "VICReg: variance-invariance-covariance regularization", ICLR 2022.
    """

    needs_norms: ClassVar[bool] = True

    def __init__(self, spread: float = 1.0, *, covariance_weight: float = 0.04) -> None:
        super().__init__()
        check_range("spread", spread, 0.0)
        check_range("covariance_weight", covariance_weight, 0.0)
        self.spread, self.covariance_weight = spread, covariance_weight

    def compute(
        self, audio: Float[Tensor, "audio dim"], text: Float[Tensor, "text dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """The sum of both sides."""
        return self._side(audio) + self._side(text)

    def _side(self, x: Tensor) -> Tensor:
        if len(x) < 2:
            return x.new_zeros(())
        centred = x - x.mean(dim=0)
        covariance = centred.T @ centred / (len(x) - 1)
        variance = covariance.diagonal()
        narrow = F.relu(self.spread - (variance + 1e-4).sqrt()).mean()
        return narrow + self.covariance_weight * (covariance.square().sum() - variance.square().sum()) / x.shape[1]


class AlignmentUniformityLoss(EmbeddingLoss):
    """Positives close, and each side spread evenly over the sphere.

    The mean squared distance of the positive pairs plus, for each side, ``uniformity_weight / 2`` times
    ``log mean exp(-sharpness d**2)`` over its pairs of different items.

    Args:
        uniformity_weight: Weight of the spread.
        sharpness: Factor on the squared distance.

    References:
        Wang and Isola, "Understanding contrastive representation learning through alignment and uniformity on the
        hypersphere", ICML 2020.
    """

    def __init__(self, uniformity_weight: float = 1.0, *, sharpness: float = 2.0) -> None:
        super().__init__()
        check_range("uniformity_weight", uniformity_weight, 0.0)
        check_range("sharpness", sharpness, 0.0, low_open=True)
        self.uniformity_weight, self.sharpness = uniformity_weight, sharpness

    def compute(
        self, audio: Float[Tensor, "audio dim"], text: Float[Tensor, "text dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """Alignment across, uniformity within."""
        loss = weighted_mean(distance(pairs.score, "squared"), pairs.positive_weight)
        for x in (audio, text):
            if len(x) > 1:
                rows, columns = torch.triu_indices(len(x), len(x), offset=1, device=x.device)
                squared = distance((x @ x.T)[rows, columns], "squared")
                spread = (-self.sharpness * squared).logsumexp(dim=0) - math.log(len(rows))
                loss = loss + self.uniformity_weight / 2 * spread
        return loss


class JointRepresentationRegularizer(EmbeddingLoss):
    """Unrelated items should not look alike in all their representations at once.

    For each side the mean, over pairs of items without a common positive, of the product of three kernels: on the
    tower's features before the projection, where they are handed on (in training they are), on the vectors, and on the
    profiles of scores against the other side. A kernel is the mean of Gaussians whose widths are
    powers of two around the mean squared distance of the batch, which is a constant for the gradient.

    Args:
        kernels: Number of widths.

    References:
        Chu et al., "Distance metric learning with joint representation diversification", ICML 2020.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("2.14",)
    needs: ClassVar[frozenset[Need]] = frozenset({"features"})

    def __init__(self, kernels: int = 5) -> None:
        super().__init__()
        check_range("kernels", kernels, 1)
        self.kernels = kernels

    def compute_with(
        self, items: BatchItems, audio: Float[Tensor, "audio dim"], text: Float[Tensor, "text dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """The sum of both sides."""
        loss = audio.new_zeros(())
        profiles = (pairs.score, pairs.score.T)
        features = (items.audio_features, items.text_features)
        for (x, positive), profile, inner in zip(_sides(audio, text, pairs), profiles, features, strict=True):
            product = self._kernel(x) * self._kernel(profile)
            product = product if inner is None else product * self._kernel(inner.to(x.dtype))
            loss = loss + weighted_mean(product, unrelated(positive).to(x.dtype))
        return loss

    def _kernel(self, x: Tensor) -> Tensor:
        squared_norm = x.square().sum(dim=1)
        squared = (squared_norm[:, None] + squared_norm[None, :] - 2 * x @ x.T).clamp(min=0.0)
        middle = squared.detach().sum() / max(len(x) * (len(x) - 1), 1)
        powers = torch.arange(self.kernels, device=x.device) - self.kernels // 2
        widths = middle.clamp(min=1e-6) * 2.0**powers
        return torch.stack([torch.exp(-squared / width) for width in widths]).mean(dim=0)


class HighOrderLoss(EmbeddingLoss):
    """The same loss on random features of higher order, so that the distributions agree in more than their mean.

    Order k compares ``phi_k(x) = prod_{j<=k} W_j x`` with fixed matrices W of random signs, for which the product of
    two items' features is, on average, the k-th power of their product. The losses of orders 2 to ``orders`` are
    averaged. (The paper averages the features over the positions of a feature map; here there is one vector an item.)

    Args:
        loss: A loss on scores, applied to the cosines of the features.
        dim: Dimensions of the vectors.
        features: Dimensions of the features.
        orders: Highest order, 2 to 5.
        seed: Of the random signs.

    References:
        Jacob et al., "Metric learning with HORDE: high-order regularizer for deep embeddings", ICCV 2019.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("4.12",)
    graded: ClassVar[Graded] = "by part"
    signs: Tensor

    def __init__(self, loss: PairwiseLoss, dim: int, *, features: int = 512, orders: int = 5, seed: int = 0) -> None:
        super().__init__()
        check_range("dim", dim, 1)
        check_range("features", features, 1)
        check_range("orders", orders, 2, 5)
        self.loss = loss
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(2, (orders, dim, features), generator=generator) * 2.0 - 1.0
        self.register_buffer("signs", signs, persistent=False)

    def compute(
        self, audio: Float[Tensor, "audio dim"], text: Float[Tensor, "text dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """The mean over the orders."""
        one, other = self.order_features(audio), self.order_features(text)
        values = [
            self.loss(F.normalize(a, dim=1) @ F.normalize(t, dim=1).T, pairs.relevance, pairs.valid, pairs.weight)
            for a, t in zip(one[1:], other[1:], strict=True)
        ]
        return torch.stack(values).mean()

    def order_features(self, x: Float[Tensor, "items dim"]) -> list[Float[Tensor, "items features"]]:
        """The features of order 1, 2, ..., scaled so that their products estimate powers of the product."""
        features = [x @ self.signs[0].to(x.dtype)]
        for signs in self.signs[1:]:
            features.append(features[-1] * (x @ signs.to(x.dtype)))
        return [each / math.sqrt(each.shape[1]) for each in features]


class DiversityRegularizer(EmbeddingLoss):
    """The parts of a vector, as learners of an ensemble, should say different things about an item.

    The vector is cut into equal parts; the mean over items and pairs of parts of ``max(0, cosine - margin)``.

    Args:
        learners: Number of parts.
        margin: Cosine from which two parts are too alike.

    References:
        Kim et al., "Attention-based ensemble for deep metric learning", ECCV 2018.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("4.06",)

    def __init__(self, learners: int = 8, *, margin: float = 0.0) -> None:
        super().__init__()
        check_range("learners", learners, 2)
        check_range("margin", margin, -1.0, 1.0)
        self.learners, self.margin = learners, margin

    def compute(
        self, audio: Float[Tensor, "audio dim"], text: Float[Tensor, "text dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """The sum of both sides."""
        rows, columns = torch.triu_indices(self.learners, self.learners, offset=1, device=audio.device)
        loss = audio.new_zeros(())
        for x in (audio, text):
            parts = F.normalize(equal_parts(x, self.learners), dim=2)
            loss = loss + F.relu((parts @ parts.transpose(1, 2))[:, rows, columns] - self.margin).mean()
        return loss


class DecorrelationRegularizer(EmbeddingLoss):
    """No part of a vector should be predictable from another.

    The vector is cut into equal parts. For each pair of parts a small network guesses the one from the other and is
    trained to be right, while gradients are reversed on their way to the vectors, which are trained to make it wrong:
    the value is ``-mean((part * guess)**2)`` over unit parts, averaged over pairs and sides.

    Args:
        dim: Dimensions of the vectors.
        parts: Number of parts; their heads can be trained by losses of their own.
        hidden: Width of the guessing networks.

    References:
        Roth, Brattoli and Ommer, "MIC: mining interclass characteristics for improved metric learning", ICCV 2019.
        Milbich et al., "DiVA: diverse visual feature aggregation for deep metric learning", ECCV 2020.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("4.13", "4.14")

    def __init__(self, dim: int, parts: int = 2, *, hidden: int = 512) -> None:
        super().__init__()
        check_range("parts", parts, 2)
        check_range("hidden", hidden, 1)
        if dim % parts:
            raise ValueError(f"dim must be a multiple of parts, got dim={dim} and parts={parts}")
        width = dim // parts
        self.parts = parts
        self.guess = nn.ModuleList(
            nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
            for _ in range(parts * (parts - 1) // 2)
        )

    def compute(
        self, audio: Float[Tensor, "audio dim"], text: Float[Tensor, "text dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """The mean over sides and pairs of parts."""
        rows, columns = torch.triu_indices(self.parts, self.parts, offset=1)
        terms = []
        for x in (audio, text):
            reversed_parts = 2 * equal_parts(x, self.parts).detach() - equal_parts(x, self.parts)
            for guess, i, j in zip(self.guess, rows.tolist(), columns.tolist(), strict=True):
                # The networks' weights may be float32 under float64 vectors.
                guessed = guess(reversed_parts[:, i].to(next(guess.parameters()).dtype)).to(x.dtype)
                product = F.normalize(reversed_parts[:, j], dim=1) * F.normalize(guessed, dim=1)
                terms.append(-product.square().mean())
        return torch.stack(terms).mean()


def equal_parts(x: Float[Tensor, "items dim"], parts: int) -> Float[Tensor, "items parts width"]:
    """Vectors cut into equal parts.

    Raises:
        ValueError: If the dimensions do not divide.
    """
    if x.shape[1] % parts:
        raise ValueError(f"vectors must have a multiple of {parts} dimensions, got {x.shape[1]}")
    return x.reshape(len(x), parts, -1)


def unrelated(positive: Bool[Tensor, "items others"]) -> Bool[Tensor, "items items"]:
    """Pairs of different items of one side that have no positive in common."""
    positive = positive.float()
    return (positive @ positive.T == 0).fill_diagonal_(False)


def _sides(audio: Tensor, text: Tensor, pairs: Pairs) -> list[tuple[Tensor, Tensor]]:
    return [(audio, pairs.positive), (text, pairs.positive.T)]
