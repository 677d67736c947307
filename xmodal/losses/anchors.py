"""Proxies: learned text anchors for a fixed vocabulary of concepts, beside or in place of the text tower.

The objectives here are for batches whose texts are the whole vocabulary, always in the same order, so that column j of
the relevance always means concept j. Their parameters move faster than a tower's: give them a learning rate of their
own, by the name of the parameter ``proxies``.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from xmodal.losses.base import EmbeddingLoss, Pairs, PairwiseLoss
from xmodal.losses.numerics import check_range
from xmodal.losses.softmax import InfoNCELoss


class LearnedAnchors(EmbeddingLoss):
    """A loss on scores between audio and learned anchors, several of them a concept if wished.

    With one anchor a concept, ``NCALoss(denominator="negatives")`` makes it Proxy-NCA, ``NCALoss(1/18)`` ProxyNCA++ and
    ``ProxyAnchorLoss()`` Proxy-Anchor. With several, a concept's score is their mean weighted by the soft-max of
    ``cosine / pooling``, and ``InfoNCELoss(1/20, learn_temperature=False, margin=0.01)`` makes it SoftTriple.

    Args:
        loss: A loss on scores.
        concepts: Size of the vocabulary.
        dim: Dimensions of the vectors.
        per_concept: Anchors a concept: senses, wordings, languages.
        pooling: Temperature of the weights among a concept's anchors.
        spread_weight: Weight of the mean distance between a concept's anchors, which draws those together that are
            not needed.
        seed: Of the first anchors.

    References:
        Movshovitz-Attias et al., "No fuss distance metric learning using proxies", ICCV 2017. Qian et al., "SoftTriple
        loss: deep metric learning without triplet sampling", ICCV 2019.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("1.16",)

    def __init__(
        self,
        loss: PairwiseLoss,
        concepts: int,
        dim: int,
        *,
        per_concept: int = 1,
        pooling: float = 0.1,
        spread_weight: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_range("per_concept", per_concept, 1)
        check_range("pooling", pooling, 0.0, low_open=True)
        check_range("spread_weight", spread_weight, 0.0)
        self.loss, self.pooling, self.spread_weight = loss, pooling, spread_weight
        self.proxies = _random_anchors(concepts, per_concept, dim, seed)

    @torch.no_grad()
    def start_from(self, text: Float[Tensor, "concepts dim"]) -> None:
        """Set every anchor of a concept to its text vector; several are told apart by a little noise of their own."""
        noise = 0.01 * self.proxies if self.proxies.shape[1] > 1 else 0.0
        self.proxies.copy_(F.normalize(text, dim=1)[:, None, :] + noise)

    def compute(
        self, audio: Float[Tensor, "audio dim"], text: Float[Tensor, "text dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """The loss of audio and anchors; the text vectors are not looked at."""
        check_vocabulary(pairs, self.proxies.shape[0])
        anchors = F.normalize(self.proxies.to(audio.dtype), dim=2)
        each = torch.einsum("ad,ckd->ack", audio, anchors)
        score = ((each / self.pooling).softmax(dim=2) * each).sum(dim=2)
        loss = self.loss(score, pairs.relevance, pairs.valid, pairs.weight)
        count = anchors.shape[1]
        if not self.spread_weight or count < 2:
            return loss
        rows, columns = torch.triu_indices(count, count, offset=1, device=audio.device)
        cosine = (anchors @ anchors.transpose(1, 2))[:, rows, columns]
        return loss + self.spread_weight * (2.0 - 2.0 * cosine).clamp(min=1e-8).sqrt().mean() / 2


class ProxyGraphLoss(EmbeddingLoss):
    """Soft-max over the concepts of an audio's nearest anchors alone.

    Of all anchors an audio keeps the share ``neighbours`` that is nearest, and those of its own concepts whatever their
    rank. A concept's logit is the sum of the kept cosines; concepts without a kept anchor are out. The cross-entropy
    against the relevance is added to ``anchor_weight`` times that of the anchors themselves against their concepts.

    Args:
        concepts: Size of the vocabulary.
        dim: Dimensions of the vectors.
        per_concept: Anchors a concept.
        neighbours: Share of all anchors that is kept, above 0 to 1.
        anchor_weight: Weight of the anchors' own classification.
        seed: Of the first anchors.

    References:
        Zhu et al., "Fewer is more: a deep graph metric learning perspective using fewer proxies", NeurIPS 2020.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("1.21",)

    def __init__(
        self,
        concepts: int,
        dim: int,
        *,
        per_concept: int = 12,
        neighbours: float = 0.05,
        anchor_weight: float = 0.3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_range("per_concept", per_concept, 1)
        check_range("neighbours", neighbours, 0.0, 1.0, low_open=True)
        check_range("anchor_weight", anchor_weight, 0.0)
        self.neighbours, self.anchor_weight = neighbours, anchor_weight
        self.proxies = _random_anchors(concepts, per_concept, dim, seed)
        self.cross_entropy = InfoNCELoss(1.0, learn_temperature=False, direction_weights=(1.0, 0.0))

    def compute(
        self, audio: Float[Tensor, "audio dim"], text: Float[Tensor, "text dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """Both cross-entropies; the text vectors are not looked at."""
        concepts, per_concept, _ = self.proxies.shape
        check_vocabulary(pairs, concepts)
        anchors = F.normalize(self.proxies.to(audio.dtype), dim=2)
        each = torch.einsum("ad,ckd->ack", audio, anchors)
        # Cosines end at 1, so 4 puts the own concepts' anchors before all others and -4 the unknown ones after them.
        rank = each.detach() + 4.0 * pairs.positive[:, :, None] - 4.0 * ~pairs.valid[:, :, None]
        keep = math.ceil(self.neighbours * concepts * per_concept)
        nearest = rank.flatten(1).topk(keep, dim=1).indices
        kept = torch.zeros_like(rank.flatten(1), dtype=torch.bool).scatter(1, nearest, True).view_as(rank)
        kept = (kept | pairs.positive[:, :, None]) & pairs.valid[:, :, None]
        loss = self.cross_entropy((each * kept).sum(dim=2), pairs.relevance, kept.any(dim=2), pairs.weight)
        own = torch.einsum("ckd,eld->ckel", anchors, anchors).sum(dim=3).flatten(0, 1)
        label = torch.arange(concepts, device=audio.device).repeat_interleave(per_concept)
        return loss + self.anchor_weight * F.cross_entropy(own, label)


class MetaClassLoss(EmbeddingLoss):
    """An ensemble whose heads each learn another random grouping of the concepts.

    The vector is cut into heads of ``groups`` dimensions. Every head puts each concept into one of as many groups, by
    lot, and its d-th dimension stands for group d: the cross-entropy of ``softmax(head / temperature)`` against the
    shares of the audio's relevance in the groups, averaged over the heads.

    Args:
        concepts: Size of the vocabulary.
        heads: Number of heads.
        groups: Groups a head; the vectors need ``heads * groups`` dimensions.
        temperature: Divides the unit heads.
        seed: Of the lots.

    References:
        Xuan, Souvenir and Pless, "Deep randomized ensembles for metric learning", ECCV 2018.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("4.05",)
    groupings: Tensor

    def __init__(self, concepts: int, heads: int, groups: int, *, temperature: float = 0.1, seed: int = 0) -> None:
        super().__init__()
        check_range("concepts", concepts, 1)
        check_range("heads", heads, 1)
        check_range("groups", groups, 2)
        self.cross_entropy = InfoNCELoss(temperature, learn_temperature=False, direction_weights=(1.0, 0.0))
        lots = torch.randint(groups, (heads, concepts), generator=torch.Generator().manual_seed(seed))
        self.register_buffer("groupings", F.one_hot(lots, groups).float(), persistent=False)

    def compute(
        self, audio: Float[Tensor, "audio dim"], text: Float[Tensor, "text dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """The mean over the heads; the text vectors are not looked at."""
        heads, concepts, groups = self.groupings.shape
        check_vocabulary(pairs, concepts)
        if audio.shape[1] != heads * groups:
            raise ValueError(f"vectors must have heads * groups = {heads} * {groups} dimensions, got {audio.shape[1]}")
        share = pairs.relevance.clamp(min=0.0) * pairs.weight
        parts = F.normalize(audio.reshape(len(audio), heads, groups), dim=2)
        values = [
            self.cross_entropy(part, share @ grouping.to(audio.dtype))
            for part, grouping in zip(parts.unbind(dim=1), self.groupings, strict=True)
        ]
        return torch.stack(values).mean()


def check_vocabulary(pairs: Pairs, concepts: int) -> None:
    """Refuse a batch whose texts are not the vocabulary.

    Raises:
        ValueError: If their numbers differ.
    """
    if pairs.score.shape[1] != concepts:
        raise ValueError(
            f"the texts of every batch must be the {concepts} concepts in their order, got {pairs.score.shape[1]} texts"
        )


def _random_anchors(concepts: int, per_concept: int, dim: int, seed: int) -> nn.Parameter:
    check_range("concepts", concepts, 1)
    check_range("dim", dim, 1)
    generator = torch.Generator().manual_seed(seed)
    return nn.Parameter(F.normalize(torch.randn((concepts, per_concept, dim), generator=generator), dim=2))
