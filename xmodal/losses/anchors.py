"""Proxies: learned text anchors for a fixed vocabulary of concepts, beside or in place of the text tower.

The objectives here judge a batch's audio against the whole vocabulary, always in the same order, so that column j of
the relevance always means concept j. In training they are given it (``needs`` the vocabulary) and nobody has to count
its concepts: :meth:`LearnedAnchors.meet_vocabulary` makes the anchors from the text tower's vectors. By themselves
they want batches whose texts are the vocabulary. Anchors move faster than a tower: the training step gives the
parameters called ``proxies`` a learning rate of their own.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from xmodal.losses.base import EmbeddingLoss, Graded, Pairs, PairwiseLoss, make_pairs
from xmodal.losses.items import Need
from xmodal.losses.numerics import check_range
from xmodal.losses.softmax import InfoNCELoss


class ConceptAnchors(nn.Module):
    """Learned vectors, a few for each concept of a vocabulary.

    Args:
        concepts: Size of the vocabulary; None if it is to be told by :meth:`start_from` or by loaded weights.
        dim: Dimensions of the vectors.
        per_concept: Anchors a concept.
        seed: Of the first anchors, and of what tells several of one concept apart.
    """

    proxies: nn.Parameter | None

    def __init__(self, concepts: int | None, dim: int, per_concept: int, seed: int) -> None:
        super().__init__()
        check_range("concepts", 1 if concepts is None else concepts, 1)
        check_range("dim", dim, 1)
        check_range("per_concept", per_concept, 1)
        self.concepts, self.dim, self.per_concept, self.seed = concepts, dim, per_concept, seed
        self.register_parameter("proxies", None if concepts is None else self._random(concepts))

    @torch.no_grad()
    def start_from(self, text: Float[Tensor, "concepts dim"]) -> None:
        """Set every anchor of a concept to its text vector; several are told apart by a little noise of their own.

        Raises:
            ValueError: If the vocabulary has another size, or the vectors another dimension.
        """
        if text.shape[1] != self.dim or self.concepts not in (None, len(text)):
            raise ValueError(
                f"the anchors were made for {self.concepts or 'any number of'} concepts of {self.dim} dimensions, "
                f"got {len(text)} of {text.shape[1]}; leave concepts out, and give the model's dim"
            )
        noise = 0.01 * self._random(len(text)) if self.per_concept > 1 else torch.zeros(1, 1, self.dim)
        start = F.normalize(text, dim=1)[:, None, :] + noise.to(text)
        if self.proxies is None:
            self.proxies = nn.Parameter(start.float().clone())
        else:
            self.proxies.copy_(start)

    def forward(self, like: Tensor) -> Float[Tensor, "concepts per_concept dim"]:
        """Unit anchors in the dtype of ``like``.

        Raises:
            ValueError: If nobody has said how many concepts there are.
        """
        if self.proxies is None:
            raise ValueError("the number of concepts is not known yet; give concepts=, or call meet_vocabulary(texts)")
        return F.normalize(self.proxies.to(like.dtype), dim=2)

    def _random(self, concepts: int) -> nn.Parameter:
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randn((concepts, self.per_concept, self.dim), generator=generator)
        return nn.Parameter(F.normalize(drawn, dim=2))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        stored = state_dict.get(f"{prefix}proxies")
        if stored is not None and self.proxies is None:
            self.proxies = nn.Parameter(torch.empty_like(stored, dtype=torch.float32))
        super()._load_from_state_dict(state_dict, prefix, *rest)


class LearnedAnchors(EmbeddingLoss):
    """A loss on scores between audio and learned anchors, several of them a concept if wished.

    With one anchor a concept, ``NCALoss(denominator="negatives")`` makes it Proxy-NCA, ``NCALoss(1/18)`` ProxyNCA++ and
    ``ProxyAnchorLoss()`` Proxy-Anchor. With several, a concept's score is their mean weighted by the soft-max of
    ``cosine / pooling``, and ``InfoNCELoss(1/20, learn_temperature=False, margin=0.01)`` makes it SoftTriple. The
    papers have one tower; here the text tower's vector of a concept is a further item of that concept alone, with a
    loss of its own against the anchors, so that audio and text meet there.

    Args:
        loss: A loss on scores.
        dim: Dimensions of the vectors.
        concepts: Size of the vocabulary; None: told by :meth:`meet_vocabulary`.
        per_concept: Anchors a concept: senses, wordings, languages.
        pooling: Temperature of the weights among a concept's anchors.
        spread_weight: Weight of the mean distance between a concept's anchors, which draws those together that are
            not needed.
        text_weight: Weight of the texts' own loss; 0 for the papers' value.
        seed: Of the first anchors.

    References:
        Movshovitz-Attias et al., "No fuss distance metric learning using proxies", ICCV 2017. Qian et al., "SoftTriple
        loss: deep metric learning without triplet sampling", ICCV 2019.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("1.16",)
    graded: ClassVar[Graded] = "by part"
    needs: ClassVar[frozenset[Need]] = frozenset({"vocabulary"})

    def __init__(
        self,
        loss: PairwiseLoss,
        dim: int,
        *,
        concepts: int | None = None,
        per_concept: int = 1,
        pooling: float = 0.1,
        spread_weight: float = 0.0,
        text_weight: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_range("pooling", pooling, 0.0, low_open=True)
        check_range("spread_weight", spread_weight, 0.0)
        check_range("text_weight", text_weight, 0.0)
        self.loss, self.pooling = loss, pooling
        self.spread_weight, self.text_weight = spread_weight, text_weight
        self.anchors = ConceptAnchors(concepts, dim, per_concept, seed)

    def meet_vocabulary(self, text: Float[Tensor, "concepts dim"]) -> None:
        """Start the anchors from the texts, as :meth:`ConceptAnchors.start_from`."""
        self.anchors.start_from(text)

    def compute(
        self, audio: Float[Tensor, "audio dim"], text: Float[Tensor, "text dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """The losses of audio and of texts against the anchors, and the anchors' spread."""
        anchors = self.anchors(audio)
        check_vocabulary(pairs, anchors.shape[0])
        loss: Tensor = self.loss(self._score(audio, anchors), pairs.relevance, pairs.valid, pairs.weight)
        if self.text_weight:
            own = torch.eye(len(text), device=text.device)
            loss = loss + self.text_weight * self.loss(self._score(text, anchors), own)
        count = anchors.shape[1]
        if not self.spread_weight or count < 2:
            return loss
        rows, columns = torch.triu_indices(count, count, offset=1, device=audio.device)
        cosine = (anchors @ anchors.transpose(1, 2))[:, rows, columns]
        return loss + self.spread_weight * (2.0 - 2.0 * cosine).clamp(min=1e-8).sqrt().mean() / 2

    def _score(self, items: Tensor, anchors: Tensor) -> Tensor:
        each = torch.einsum("ad,ckd->ack", items, anchors)
        return ((each / self.pooling).softmax(dim=2) * each).sum(dim=2)


class ProxyGraphLoss(EmbeddingLoss):
    """Soft-max over the concepts of an audio's nearest anchors alone.

    Of all anchors an audio keeps the share ``neighbours`` that is nearest, and those of its own concepts whatever their
    rank. A concept's logit is the sum of the kept cosines; concepts without a kept anchor are out. The cross-entropy
    against the relevance is added to ``anchor_weight`` times that of the anchors themselves against their concepts, and
    to ``text_weight`` times that of the concepts' texts, which the paper has not.

    Args:
        dim: Dimensions of the vectors.
        concepts: Size of the vocabulary; None: told by :meth:`meet_vocabulary`.
        per_concept: Anchors a concept.
        neighbours: Share of all anchors that is kept, above 0 to 1.
        anchor_weight: Weight of the anchors' own classification.
        text_weight: Weight of the texts' own loss; 0 for the paper's value.
        seed: Of the first anchors.

    References:
        Zhu et al., "Fewer is more: a deep graph metric learning perspective using fewer proxies", NeurIPS 2020.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("1.21",)
    graded: ClassVar[Graded] = "soft target"
    needs: ClassVar[frozenset[Need]] = frozenset({"vocabulary"})

    def __init__(
        self,
        dim: int,
        *,
        concepts: int | None = None,
        per_concept: int = 12,
        neighbours: float = 0.05,
        anchor_weight: float = 0.3,
        text_weight: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_range("neighbours", neighbours, 0.0, 1.0, low_open=True)
        check_range("anchor_weight", anchor_weight, 0.0)
        check_range("text_weight", text_weight, 0.0)
        self.neighbours, self.anchor_weight, self.text_weight = neighbours, anchor_weight, text_weight
        self.anchors = ConceptAnchors(concepts, dim, per_concept, seed)
        self.cross_entropy = InfoNCELoss(1.0, learn_temperature=False, direction_weights=(1.0, 0.0))

    def meet_vocabulary(self, text: Float[Tensor, "concepts dim"]) -> None:
        """Start the anchors from the texts, as :meth:`ConceptAnchors.start_from`."""
        self.anchors.start_from(text)

    def compute(
        self, audio: Float[Tensor, "audio dim"], text: Float[Tensor, "text dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """The cross-entropies of audio, anchors and texts."""
        anchors = self.anchors(audio)
        concepts, per_concept, _ = anchors.shape
        check_vocabulary(pairs, concepts)
        loss = self._nearest(audio, anchors, pairs)
        own = torch.einsum("ckd,eld->cke", anchors, anchors).flatten(0, 1)
        label = torch.arange(concepts, device=audio.device).repeat_interleave(per_concept)
        loss = loss + self.anchor_weight * F.cross_entropy(own, label)
        if self.text_weight:
            score = text.new_zeros(len(text), concepts)
            loss = loss + self.text_weight * self._nearest(
                text, anchors, make_pairs(score, torch.eye(len(text)).to(text))
            )
        return loss

    def _nearest(self, items: Tensor, anchors: Tensor, pairs: Pairs) -> Tensor:
        each = torch.einsum("ad,ckd->ack", items, anchors)
        # Cosines end at 1, so 4 puts the own concepts' anchors before all others and -4 the unknown ones after them.
        rank = each.detach() + 4.0 * pairs.positive[:, :, None] - 4.0 * ~pairs.valid[:, :, None]
        keep = math.ceil(self.neighbours * anchors.shape[0] * anchors.shape[1])
        nearest = rank.flatten(1).topk(keep, dim=1).indices
        kept = torch.zeros_like(rank.flatten(1), dtype=torch.bool).scatter(1, nearest, True).view_as(rank)
        kept = (kept | pairs.positive[:, :, None]) & pairs.valid[:, :, None]
        loss: Tensor = self.cross_entropy((each * kept).sum(dim=2), pairs.relevance, kept.any(dim=2), pairs.weight)
        return loss


class MetaClassLoss(EmbeddingLoss):
    """An ensemble whose heads each learn another random grouping of the concepts.

    The vector is cut into heads of ``groups`` dimensions. Every head puts each concept into one of as many groups, by
    lot, and its d-th dimension stands for group d: the cross-entropy of ``softmax(head / temperature)`` against the
    shares of the audio's relevance in the groups, averaged over the heads. The papers' models have one tower; here a
    concept's text is an item of that concept, so that both towers learn the same fixed targets.

    Args:
        heads: Number of heads.
        groups: Groups a head; the vectors need ``heads * groups`` dimensions.
        concepts: Size of the vocabulary; None: told by :meth:`meet_vocabulary`, or by the first batch.
        temperature: Divides the unit heads.
        seed: Of the lots.
        direction_weights: Weights of the audio's mean and of the texts'; (1, 0) is the paper's value.

    References:
        Xuan, Souvenir and Pless, "Deep randomized ensembles for metric learning", ECCV 2018.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("4.05",)
    graded: ClassVar[Graded] = "soft target"
    needs: ClassVar[frozenset[Need]] = frozenset({"vocabulary"})
    groupings: Tensor

    def __init__(
        self,
        heads: int,
        groups: int,
        *,
        concepts: int | None = None,
        temperature: float = 0.1,
        seed: int = 0,
        direction_weights: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        super().__init__(direction_weights)
        check_range("heads", heads, 1)
        check_range("groups", groups, 2)
        check_range("concepts", 1 if concepts is None else concepts, 1)
        self.heads, self.groups, self.concepts, self.seed = heads, groups, concepts, seed
        self.cross_entropy = InfoNCELoss(temperature, learn_temperature=False, direction_weights=(1.0, 0.0))
        self.register_buffer("groupings", self._lots(concepts or 0), persistent=False)

    def meet_vocabulary(self, text: Float[Tensor, "concepts dim"]) -> None:
        """Draw the lots for a vocabulary of this size.

        Raises:
            ValueError: If it has another size than was said.
        """
        if self.concepts not in (None, len(text)):
            raise ValueError(f"the lots were made for {self.concepts} concepts, got {len(text)}; leave concepts out")
        self.groupings = self._lots(len(text)).to(text)

    def compute(
        self, audio: Float[Tensor, "audio dim"], text: Float[Tensor, "text dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """The mean over the heads of the audio's cross-entropy and the texts'."""
        if audio.shape[1] != self.heads * self.groups:
            raise ValueError(
                f"vectors must have heads * groups = {self.heads} * {self.groups} dimensions, got {audio.shape[1]}"
            )
        if self.groupings.shape[1] == 0:
            self.meet_vocabulary(text.detach())
        check_vocabulary(pairs, self.groupings.shape[1])
        audio_weight, text_weight = self.direction_weights
        loss = audio_weight * self._side(audio, pairs.relevance.clamp(min=0.0) * pairs.weight)
        loss = loss + text_weight * self._side(text, torch.eye(len(text)).to(text))
        return loss / (audio_weight + text_weight)

    def _side(self, items: Tensor, share: Tensor) -> Tensor:
        parts = F.normalize(items.reshape(len(items), self.heads, self.groups), dim=2)
        values = [
            self.cross_entropy(part, share @ grouping.to(items.dtype))
            for part, grouping in zip(parts.unbind(dim=1), self.groupings, strict=True)
        ]
        return torch.stack(values).mean()

    def _lots(self, concepts: int) -> Tensor:
        lots = torch.randint(self.groups, (self.heads, concepts), generator=torch.Generator().manual_seed(self.seed))
        return F.one_hot(lots, self.groups).float()


def check_vocabulary(pairs: Pairs, concepts: int) -> None:
    """Refuse a batch whose texts are not the vocabulary.

    Raises:
        ValueError: If their numbers differ.
    """
    if pairs.score.shape[1] != concepts:
        raise ValueError(
            f"the texts of every batch must be the {concepts} concepts in their order, got {pairs.score.shape[1]} texts"
        )
