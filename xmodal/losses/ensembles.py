"""Ensembles within one vector: its parts as learners that are trained on different pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from xmodal.losses.base import EmbeddingLoss, Graded, Pairs, PairwiseLoss
from xmodal.losses.concepts import spherical_kmeans
from xmodal.losses.miners import hardest_share
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


class EnsembleLoss(EmbeddingLoss):
    """The mean of a loss over the parts of the vector, each a learner with cosines of its own.

    Behind an audio tower whose parts do not see one another (:class:`xmodal.towers.AttentionEnsemblePool` with
    ``audio_parts``) and beside :class:`xmodal.losses.DiversityRegularizer` it is the attention-based ensemble. The
    whole vector's cosine is the mean of the learners', weighed by their norms.

    Args:
        loss: The learners' loss on scores.
        learners: Number of equal parts.

    References:
        Kim et al., "Attention-based ensemble for deep metric learning", ECCV 2018.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("4.06",)
    graded: ClassVar[Graded] = "by part"

    def __init__(self, loss: PairwiseLoss, learners: int = 4) -> None:
        super().__init__()
        check_range("learners", learners, 1)
        self.loss, self.learners = loss, learners

    def compute(
        self, audio: Float[Tensor, "audio dim"], text: Float[Tensor, "text dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """The mean over the learners."""
        scores = part_scores(audio, text, self.learners)
        return torch.stack([self.loss(score, pairs.relevance, pairs.valid, pairs.weight) for score in scores]).mean()


class CascadedLoss(EmbeddingLoss):
    """Each part of the vector is trained on the pairs that were hardest for the part before it.

    Learner k sees, of the positives and of the negatives that learner k - 1 saw, the share of the highest cost to that
    learner: positives of the lowest cosine, negatives of the highest. The first sees all. The learners' losses are
    added. Behind :class:`xmodal.towers.DepthEnsemble` they are heads of rising depth.

    Args:
        loss: The learners' loss on scores.
        shares: What each learner keeps of the pairs of the one before, the first's being 1 as a rule.

    References:
        Yuan, Yang and Zhang, "Hard-aware deeply cascaded embedding", ICCV 2017.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("4.02",)
    graded: ClassVar[Graded] = "by part"

    def __init__(self, loss: PairwiseLoss, shares: Sequence[float] = (1.0, 0.5, 0.4)) -> None:
        super().__init__()
        if not shares:
            raise ValueError("shares must be one number a learner, got none")
        for share in shares:
            check_range("each of shares", share, 0.0, 1.0, low_open=True)
        self.loss, self.shares = loss, [float(share) for share in shares]

    def compute(
        self, audio: Float[Tensor, "audio dim"], text: Float[Tensor, "text dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """The sum over the learners."""
        seen, before = pairs, part_scores(audio, text, len(self.shares))[0]
        loss = audio.new_zeros(())
        for score, share in zip(part_scores(audio, text, len(self.shares)), self.shares, strict=True):
            ranked = Pairs(before.detach(), seen.relevance, seen.valid, seen.weight)
            seen = seen if share == 1.0 else seen.weighted(hardest_share(ranked, share).to(score.dtype))
            own = score.masked_fill(~seen.valid, 0.0)
            loss = loss + self.loss(own, seen.relevance, seen.valid, seen.weight)
            before = score
        return loss


class DivideAndConquerLoss(EmbeddingLoss):
    """Each cluster of the data trains its own part of the vector.

    The objective keeps the last ``bank`` audio vectors. Every ``every`` steps from ``begin`` on it clusters them by
    k-means, into as many clusters as there are learners; each cluster takes the learner whose centre was closest
    before. A batch is then divided: the audio of cluster k and the texts that are right for one of them are judged by
    the inner loss on part k, and the clusters' losses are averaged by their numbers of audio. Before ``begin``, from
    ``end`` on (the joint fine-tuning) and in evaluation the inner loss sees whole vectors.

    Args:
        loss: The inner loss on scores.
        dim: Dimensions of the vectors.
        learners: Number of clusters and of equal parts.
        bank: How many audio vectors are clustered.
        every: Steps from one clustering to the next.
        begin: The step at which the space is first divided; None: when the bank is full.
        end: The step from which it is whole again; None for never.
        rounds: Of k-means.

    References:
        Sanakoyeu et al., "Divide and conquer the embedding space for metric learning", CVPR 2019.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("4.09",)
    graded: ClassVar[Graded] = "by part"
    centres: Tensor
    divided: Tensor
    recent: Tensor
    steps: Tensor
    seen: Tensor

    def __init__(
        self,
        loss: PairwiseLoss,
        dim: int,
        *,
        learners: int = 4,
        bank: int = 2048,
        every: int = 100,
        begin: int | None = None,
        end: int | None = None,
        rounds: int = 10,
    ) -> None:
        super().__init__()
        check_range("learners", learners, 1)
        check_range("bank", bank, learners)
        check_range("every", every, 1)
        check_range("begin", 0 if begin is None else begin, 0)
        check_range("rounds", rounds, 0)
        if dim % learners:
            raise ValueError(f"dim must be a multiple of learners, got dim={dim} and learners={learners}")
        self.loss, self.learners = loss, learners
        self.every, self.begin, self.end, self.rounds = every, begin, end, rounds
        self.register_buffer("centres", torch.zeros(learners, dim))
        self.register_buffer("divided", torch.zeros((), dtype=torch.bool))
        self.register_buffer("recent", torch.zeros(bank, dim))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def set_centres(self, centres: Float[Tensor, "learners dim"] | None) -> None:
        """Divide the space by these centres, or train it as a whole again (None)."""
        self.divided.fill_(centres is not None)
        if centres is not None:
            self.centres.copy_(centres)

    def compute(
        self, audio: Float[Tensor, "audio dim"], text: Float[Tensor, "text dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """The inner loss of whole vectors, or of the clusters' parts."""
        if self.training:
            self._step(audio.detach())
        if not (self.training and self.divided):
            whole: Tensor = self.loss(pairs.score, pairs.relevance, pairs.valid, pairs.weight)
            return whole
        cluster = (audio.detach() @ F.normalize(self.centres.to(audio.dtype), dim=1).T).argmax(dim=1)
        total = audio.new_zeros(())
        for k, score in enumerate(part_scores(audio, text, self.learners)):
            own = cluster == k
            texts = pairs.positive[own].any(dim=0)
            member = own[:, None] & texts[None, :] & pairs.valid
            judged = self.loss(score.masked_fill(~member, 0.0), pairs.relevance, member, pairs.weight)
            total = total + own.sum() * judged
        return total / len(audio)

    @torch.no_grad()
    def _step(self, audio: Tensor) -> None:
        size = len(self.recent)
        places = torch.arange(int(self.seen), int(self.seen) + len(audio), device=audio.device) % size
        self.recent[places[-size:]] = audio[-size:].to(self.recent.dtype)
        self.seen += len(audio)
        self.steps += 1
        step, filled = int(self.steps), min(int(self.seen), size)
        begun = filled >= size if self.begin is None else step > self.begin
        ended = self.end is not None and step > self.end
        if ended or not begun or filled < self.learners:
            if ended:
                self.set_centres(None)
            return
        if not self.divided or (step - 1) % self.every == 0:
            found = spherical_kmeans(self.recent[:filled], self.learners, self.rounds)
            self.set_centres(_in_the_order_of(self.centres, found) if self.divided else found)


def part_scores(
    audio: Float[Tensor, "audio dim"], text: Float[Tensor, "text dim"], parts: int
) -> list[Float[Tensor, "audio text"]]:
    """Cosines of each of the vectors' equal parts."""
    pieces = zip(equal_parts(audio, parts).unbind(dim=1), equal_parts(text, parts).unbind(dim=1), strict=True)
    return [F.normalize(a, dim=1) @ F.normalize(t, dim=1).T for a, t in pieces]


def _in_the_order_of(before: Tensor, found: Tensor) -> Tensor:
    """The new centres, each at the place of the old one that it took over from."""
    from scipy.optimize import linear_sum_assignment

    likeness = F.normalize(before, dim=1) @ F.normalize(found, dim=1).T
    rows, columns = linear_sum_assignment(-likeness.double().cpu().numpy())
    ordered = torch.empty_like(found)
    ordered[torch.as_tensor(rows)] = found[torch.as_tensor(columns)]
    return ordered
