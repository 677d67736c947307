"""Auxiliary heads on the audio tower: tasks that captions do not set, from which the joint space is held apart.

They read the tower's features before the projection (and a second hearing of the audio), which the training step hands
them. Heads are part of the objective and not of the model: they shape the tower in training and are left out of what
is exported. Each is a term beside a loss in :class:`xmodal.losses.CombinedObjective`.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from xmodal.losses.base import EmbeddingLoss, Pairs
from xmodal.losses.concepts import spherical_kmeans
from xmodal.losses.items import BatchItems, Need
from xmodal.losses.numerics import check_range
from xmodal.losses.softmax import InfoNCELoss
from xmodal.losses.triple import TripletLoss


class InterclassHead(EmbeddingLoss):
    """A head for what the texts do not say, told apart from the joint space.

    The audio tower's features of each item, less the mean of the items that share a text with it and divided by their
    spread (those of the whole batch where it shares none), are clustered within the batch: what is left when the named
    content is taken out (a singer, a room, a way of recording). The head is trained by the soft-max cross-entropy of
    its vectors against the mean vectors of their clusters. A :class:`Decorrelation` keeps the joint vector from saying
    what the head says.

    Args:
        features: Width of the audio tower's features.
        dim: Dimensions of the joint space.
        width: Dimensions of the head.
        clusters: Surrogate classes a batch.
        temperature: Of the cross-entropy.
        decorrelation_weight: Weight of the decorrelation.

    References:
        Roth, Brattoli and Ommer, "MIC: mining interclass characteristics for improved metric learning", ICCV 2019.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("4.13",)
    needs: ClassVar[frozenset[Need]] = frozenset({"features"})

    def __init__(
        self,
        features: int,
        dim: int,
        *,
        width: int = 128,
        clusters: int = 8,
        temperature: float = 0.1,
        decorrelation_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_range("features", features, 1)
        check_range("width", width, 1)
        check_range("clusters", clusters, 2)
        check_range("decorrelation_weight", decorrelation_weight, 0.0)
        self.head = nn.Linear(features, width)
        self.clusters, self.decorrelation_weight = clusters, decorrelation_weight
        self.cross_entropy = InfoNCELoss(temperature, learn_temperature=False, direction_weights=(1.0, 0.0))
        self.decorrelation = Decorrelation(dim, width)

    def compute_with(
        self, items: BatchItems, audio: Float[Tensor, "audio dim"], text: Float[Tensor, "text dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """The head's cross-entropy and the decorrelation."""
        features = features_of(items, self).to(audio.dtype)
        own = F.normalize(_run(self.head, features), dim=1)
        with torch.no_grad():
            labels = F.one_hot(self.surrogate_classes(features, pairs), self.clusters).to(own.dtype)
        size = labels.sum(dim=0)
        # An item that is alone in its cluster has nothing to be like, and an empty cluster is nothing.
        counted = (labels @ size > 1)[:, None] & (size > 0)[None, :]
        centres = F.normalize(labels.T @ own, dim=1)
        loss: Tensor = self.cross_entropy(own @ centres.T, labels, counted)
        return loss + self.decorrelation_weight * self.decorrelation(audio, own)

    def surrogate_classes(self, features: Float[Tensor, "audio width"], pairs: Pairs) -> Tensor:
        """The cluster of each item when the mean and spread of those that share a text with it are taken out."""
        positive = pairs.positive.to(features.dtype)
        shares = (positive @ positive.T > 0).to(features.dtype)
        alone = shares.sum(dim=1, keepdim=True) - shares.diagonal()[:, None] < 1
        shares = torch.maximum(shares, alone.to(shares.dtype))
        count = shares.sum(dim=1, keepdim=True)
        mean = shares @ features / count
        spread = (shares @ features.square() / count - mean.square()).clamp(min=0.0).sqrt()
        left = F.normalize((features - mean) / (spread + 1e-4), dim=1)
        centres = spherical_kmeans(left, min(self.clusters, len(left)), 10)
        return (left @ centres.T).argmax(dim=1)


class DiverseHeads(EmbeddingLoss):
    """Three heads beside the joint space: what concepts share, what varies within them, what is an item's own.

    The heads are linear maps of the audio tower's features. *Shared*: triples whose positive is the nearest audio that
    has no text in common with the anchor, and whose negatives are the other such audio, so that only what runs across
    concepts helps. *Within*: triples among audio that share a text, the second hearing of the anchor being the
    positive. *Own*: InfoNCE between the two hearings of every item. Each counts ``head_weight``. Decorrelations keep
    the joint vector and the heads from predicting one another.

    Args:
        features: Width of the audio tower's features.
        dim: Dimensions of the joint space.
        width: Dimensions of a head.
        head_weight: Weight of each head's loss.
        decorrelation_weight: Weight of the mean decorrelation.
        margin: Of the triples, in cosines.
        temperature: Of InfoNCE.

    References:
        Milbich et al., "DiVA: diverse visual feature aggregation for deep metric learning", ECCV 2020.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("4.14",)
    needs: ClassVar[frozenset[Need]] = frozenset({"features", "views"})

    def __init__(
        self,
        features: int,
        dim: int,
        *,
        width: int = 128,
        head_weight: float = 0.3,
        decorrelation_weight: float = 1.0,
        margin: float = 0.2,
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        check_range("features", features, 1)
        check_range("width", width, 1)
        check_range("head_weight", head_weight, 0.0)
        check_range("decorrelation_weight", decorrelation_weight, 0.0)
        self.head_weight, self.decorrelation_weight = head_weight, decorrelation_weight
        self.shared, self.within, self.own = (nn.Linear(features, width) for _ in range(3))
        self.triplet = TripletLoss(margin, mining="all", direction_weights=(1.0, 0.0))
        self.info_nce = InfoNCELoss(temperature, learn_temperature=False)
        self.decorrelations = nn.ModuleList(Decorrelation(dim, width) for _ in range(3))

    def compute_with(
        self, items: BatchItems, audio: Float[Tensor, "audio dim"], text: Float[Tensor, "text dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """The heads' losses and their decorrelation from the joint vector."""
        features = features_of(items, self).to(audio.dtype)
        second = features if items.second_audio_features is None else items.second_audio_features.to(audio.dtype)
        positive = pairs.positive.to(audio.dtype)
        alike = (positive @ positive.T > 0).fill_diagonal_(True)
        one, other = (
            [F.normalize(_run(head, each), dim=1) for head in (self.shared, self.within, self.own)]
            for each in (features, second)
        )
        eye = torch.eye(len(audio), device=audio.device)
        stranger = (~alike).to(audio.dtype)
        with torch.no_grad():
            # The nearest stranger is what the anchor shares something with; all other strangers are pushed away.
            across = one[0] @ one[0].T
            nearest = across.masked_fill(alike, -torch.inf).argmax(dim=1)
            bridge = F.one_hot(nearest, len(audio)).to(audio.dtype) * stranger
        of_shared = self.triplet(one[0] @ one[0].T, bridge, ~alike)
        of_within = self.triplet(one[1] @ other[1].T, eye, alike)
        of_own = self.info_nce(one[2] @ other[2].T, eye)
        apart = [each(audio, head) for each, head in zip(self.decorrelations, one, strict=True)]
        loss = self.head_weight * (of_shared + of_within + of_own)
        return loss + self.decorrelation_weight * torch.stack(apart).mean()


class AttentionConsistency(EmbeddingLoss):
    """What the audio tower attends to stays the same when the clip is turned round in time.

    Every clip is heard twice, once begun elsewhere and going round; the weights that the tower's attention pooling
    gives the frames must have moved along. The term of a clip is the mean squared difference of the two, in units of
    the weight that each frame would have under even attention. It takes no label, and two more passes of the tower.

    For a tower that pools by :class:`xmodal.towers.AttentionPool`. SpecAugment, where the tower has it, is drawn anew
    in each pass, so that attention must not depend on what is blanked. :class:`xmodal.losses.ClusterContrastLoss` is
    the other half of the paper, whose pictures are turned and mirrored in space.

    References:
        Li et al., "Unsupervised deep metric learning with transformed attention consistency and contrastive clustering
        loss", ECCV 2020.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("5.02",)
    needs: ClassVar[frozenset[Need]] = frozenset({"attention"})
    needs_scores: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()

    def compute_with(
        self, items: BatchItems, audio: Float[Tensor, "audio dim"], text: Float[Tensor, "text dim"], pairs: Pairs
    ) -> Float[Tensor, ""]:
        """Mean over the clips."""
        if items.attention_gap is None:
            raise ValueError("AttentionConsistency needs attention_gap of the batch's items; train it with train.py")
        return items.attention_gap.to(audio.dtype).mean()


class Decorrelation(nn.Module):
    """Trains a network to guess one vector from another, and through reversed gradients both to make it fail.

    The value is ``-mean((x * guess(y))**2)`` over unit vectors of equal width.

    Args:
        dim: Dimensions of the first vector, which is mapped to the second's width.
        width: Dimensions of the second.
        hidden: Width of the guessing network.
    """

    def __init__(self, dim: int, width: int, *, hidden: int = 512) -> None:
        super().__init__()
        self.guess = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, width))

    def forward(self, one: Float[Tensor, "items dim"], other: Float[Tensor, "items width"]) -> Float[Tensor, ""]:
        """How well the second is guessed from the first, with a minus."""
        turned, against = (2 * each.detach() - each for each in (one, other))
        guessed = F.normalize(_run(self.guess, turned), dim=1)
        return -(F.normalize(against, dim=1) * guessed).square().mean()


def features_of(items: BatchItems, loss: nn.Module) -> Float[Tensor, "audio width"]:
    """The audio tower's features.

    Raises:
        ValueError: If they were not handed on.
    """
    if items.audio_features is None:
        raise ValueError(f"{type(loss).__name__} looks at the audio tower's features; give items with audio_features")
    return items.audio_features


def _run(network: nn.Module, x: Tensor) -> Tensor:
    """A network of float32 weights on vectors that may be float64."""
    made: Tensor = network(x.to(next(network.parameters()).dtype))
    return made.to(x.dtype)
