"""Ensembles within one vector: its parts as learners that are trained on different pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from xmodal.losses.base import EmbeddingLoss, Graded, Pairs, PairwiseLoss
from xmodal.losses.numerics import check_range, weighted_mean
from xmodal.losses.regularizers import equal_parts


class BoostedEnsembleLoss(EmbeddingLoss):
    """Parts of the vector as boosted learners: each looks at the pairs that the ones before it got wrong.

    Learner m minimises the binomial deviance of its part's cosines, each pair weighted by the slope of the deviance at
    the running score of the learners before it, ``(1 - v) before + v own`` with ``v = 2 / (m + 1)``; the first has
    weights 1. Weights are constants for the gradient; the learners' losses are added.

    Args:
        widths: Dimensions of the learners' parts, which must add up to the vector's; larger later ones are usual.
        alpha: As in :class:`xmodal.losses.BinomialDevianceLoss`.
        beta: As there.
        cost: As there.

    References:
        Opitz et al., "BIER: boosting independent embeddings robustly", ICCV 2017.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("4.01",)

    def __init__(self, widths: Sequence[int], *, alpha: float = 2.0, beta: float = 0.5, cost: float = 25.0) -> None:
        super().__init__()
        if not widths or min(widths) < 1:
            raise ValueError(f"widths must be at least one number from 1 up, got {list(widths)}")
        check_range("alpha", alpha, 0.0, low_open=True)
        check_range("cost", cost, 0.0, low_open=True)
        self.widths = list(widths)
        self.alpha, self.beta, self.cost = alpha, beta, cost

    def compute(
        self, audio: Float[Tensor, "audio dim"], text: Float[Tensor, "text dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """The sum over the learners."""
        if sum(self.widths) != audio.shape[1]:
            raise ValueError(f"widths must add up to the vectors' {audio.shape[1]} dimensions, got {self.widths}")
        sharpness = torch.where(pairs.positive, -self.alpha, self.alpha * self.cost)
        running = torch.zeros_like(pairs.score)
        slope = torch.ones_like(pairs.score)
        loss = audio.new_zeros(())
        parts = zip(audio.split(self.widths, dim=1), text.split(self.widths, dim=1), strict=True)
        for learner, (a, t) in enumerate(parts, start=1):
            own = F.normalize(a, dim=1) @ F.normalize(t, dim=1).T
            cost = slope * F.softplus(sharpness * (own - self.beta))
            loss = loss + weighted_mean(cost, pairs.positive_weight) + weighted_mean(cost, pairs.negative_weight)
            share = 2.0 / (learner + 1)
            running = (1 - share) * running + share * own.detach()
            slope = sharpness.abs() * torch.sigmoid(sharpness * (running - self.beta))
        return loss


class DivideAndConquerLoss(EmbeddingLoss):
    """Each cluster of the data trains its own part of the vector.

    Until :meth:`set_centres` is called (every few epochs, with the clusters of the audio's vectors) the inner loss sees
    whole vectors. From then on a batch is taken to come from one cluster, that whose centre is closest to the mean of
    its audio, and the inner loss sees that cluster's part alone; a sampler must make such batches.

    Args:
        loss: The inner loss on scores.
        dim: Dimensions of the vectors.
        learners: Number of clusters and of equal parts.

    References:
        Sanakoyeu et al., "Divide and conquer the embedding space for metric learning", CVPR 2019.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("4.09",)
    graded: ClassVar[Graded] = "by part"
    centres: Tensor
    divided: Tensor

    def __init__(self, loss: PairwiseLoss, dim: int, *, learners: int = 4) -> None:
        super().__init__()
        check_range("learners", learners, 1)
        if dim % learners:
            raise ValueError(f"dim must be a multiple of learners, got dim={dim} and learners={learners}")
        self.loss, self.learners = loss, learners
        self.register_buffer("centres", torch.zeros(learners, dim))
        self.register_buffer("divided", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def set_centres(self, centres: Float[Tensor, "learners dim"] | None) -> None:
        """Divide the space by these centres, or train it as a whole again (None)."""
        self.divided.fill_(centres is not None)
        if centres is not None:
            self.centres.copy_(centres)

    def compute(
        self, audio: Float[Tensor, "audio dim"], text: Float[Tensor, "text dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """The inner loss of whole vectors or of one part."""
        score = pairs.score
        if self.divided:
            middle = audio.detach().mean(dim=0)
            part = int((self.centres.to(middle) - middle).square().sum(dim=1).argmin())
            a, t = (F.normalize(equal_parts(x, self.learners)[:, part], dim=1) for x in (audio, text))
            score = a @ t.T
        return self.loss(score, pairs.relevance, pairs.valid, pairs.weight)
