"""Losses of the soft-max family: an anchor's positives against log-sum-exps over its row."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F

from xmodal.losses.base import Graded, Pairs, PairwiseLoss, Terms
from xmodal.losses.numerics import LogitScale, above_zero, check_choice, check_range, log1mexp, masked_logsumexp

Denominator = Literal["all", "own", "negatives"]


class InfoNCELoss(PairwiseLoss):
    """Cross-entropy between an anchor's soft-max over the batch and its relevance.

    For anchor i with logits ``l = cosine / temperature`` and targets ``q`` (its positives' relevance, divided by
    their sum) the term is ``sum_j q_j * (log D_j - l_j)``. With one positive a row and ``denominator="all"`` it is
    CLIP's symmetric cross-entropy; with several equal ones it is SupCon's outer form and the multi-label N-pair
    loss on cosines. Terms are the anchors that have a positive, and with ``denominator="negatives"`` a negative.

    Args:
        temperature: Start of the temperature, or its value.
        learn_temperature: Train it (its inverse never passes 100).
        denominator: ``all``: D is the sum of ``exp(l)`` over the whole row. ``own``: over the negatives and the
            positive itself, so that positives do not compete (NT-Xent). ``negatives``: over the negatives alone
            (decoupled contrastive loss, which can be negative).
        margin: Taken from the positives' cosines, so that they must win by it (CosFace).
        direction_weights: Weights of audio-to-text and text-to-audio.

    References:
        Sohn, "Improved deep metric learning with multi-class N-pair loss objective", NIPS 2016. van den Oord et al.,
        "Representation learning with contrastive predictive coding", 2018. Khosla et al., "Supervised contrastive
        learning", NeurIPS 2020. Radford et al., "Learning transferable visual models from natural language
        supervision", ICML 2021. Yeh et al., "Decoupled contrastive learning", ECCV 2022.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("1.05", "7.02")
    graded: ClassVar[Graded] = "soft target"

    def __init__(
        self,
        temperature: float = 0.07,
        *,
        learn_temperature: bool = True,
        denominator: Denominator = "all",
        margin: float = 0.0,
        direction_weights: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        super().__init__(direction_weights)
        check_choice("denominator", denominator, Denominator)
        check_range("margin", margin, 0.0)
        self.scale = LogitScale(temperature, learn=learn_temperature)
        self.denominator, self.margin = denominator, margin

    def row_terms(self, pairs: Pairs) -> Terms:
        """One term for each anchor with a positive."""
        score = pairs.score - self.margin * above_zero(pairs.relevance) if self.margin else pairs.score
        logits = self.scale() * score
        share = pairs.relevance.clamp(min=0.0) * pairs.weight
        total = share.sum(dim=1, keepdim=True)
        share = share / torch.where(total > 0, total, 1.0)
        counted = total[:, 0] > 0
        if self.denominator == "own":
            against = masked_logsumexp(logits, pairs.negative_weight)
            term = (share * (torch.logaddexp(logits, against[:, None]) - logits)).sum(dim=1)
        else:
            alone = self.denominator == "negatives"
            against = masked_logsumexp(logits, pairs.negative_weight if alone else pairs.weight)
            term = against - (share * logits).sum(dim=1)
            counted = counted & pairs.has_negative if alone else counted
        return torch.where(counted, term, 0.0), counted.to(term.dtype)


class NCALoss(PairwiseLoss):
    """The probability that a neighbour drawn by soft-max is one of the positives, whichever.

    With logits ``l = cosine / temperature`` the term of an anchor is ``log sum_D exp(l) - log sum_P exp(l)``: one good
    positive is enough, where InfoNCE asks for all of them. Proxy-NCA's ``exp(-k * squared distance)`` is a temperature
    of ``1 / (2 k)``. With the clips of a track or its captions as positives it is MIL-NCE.

    Args:
        temperature: Start of the temperature, or its value; ProxyNCA++ has 1/18.
        learn_temperature: Train it.
        denominator: ``all``: D is the whole row (NCA, ProxyNCA++, never negative). ``negatives``: D is the negatives
            (Proxy-NCA as first written, which can be negative and is not bounded below); anchors without one are
            no terms.
        direction_weights: Weights of audio-to-text and text-to-audio; (1, 0) where the texts are proxies.

    References:
        Goldberger et al., "Neighbourhood components analysis", NIPS 2004. Movshovitz-Attias et al., "No fuss distance
        metric learning using proxies", ICCV 2017. Teh, DeVries and Taylor, "ProxyNCA++", ECCV 2020. Miech et al.,
        "End-to-end learning of visual representations from uncurated instructional videos", CVPR 2020.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("1.08", "1.20")

    def __init__(
        self,
        temperature: float = 0.07,
        *,
        learn_temperature: bool = False,
        denominator: Literal["all", "negatives"] = "all",
        direction_weights: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        super().__init__(direction_weights)
        check_choice("denominator", denominator, Literal["all", "negatives"])
        self.scale = LogitScale(temperature, learn=learn_temperature)
        self.denominator = denominator

    def row_terms(self, pairs: Pairs) -> Terms:
        """One term for each anchor with a positive."""
        logits = self.scale() * pairs.score
        alone = self.denominator == "negatives"
        against = masked_logsumexp(logits, pairs.negative_weight if alone else pairs.weight)
        counted = pairs.has_positive
        counted = counted & pairs.has_negative if alone else counted
        term = against - masked_logsumexp(logits, pairs.positive_weight)
        return torch.where(counted, term, 0.0), counted.to(term.dtype)


class MultiSimilarityLoss(PairwiseLoss):
    """Soft-max weighting of positives and of negatives, each by its own sharpness.

    The term of an anchor is ``log(1 + sum_P exp(-alpha (s - base))) / alpha + log(1 + sum_N exp(beta (s - base))) /
    beta``. Terms are the anchors with a positive. Its miner is :class:`xmodal.losses.MultiSimilarityMiner`.

    Args:
        alpha: Sharpness on positives.
        beta: Sharpness on negatives.
        base: The cosine that separates them.
        direction_weights: Weights of audio-to-text and text-to-audio.

    References:
        Wang et al., "Multi-similarity loss with general pair weighting for deep metric learning", CVPR 2019.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("2.09",)

    def __init__(
        self,
        alpha: float = 2.0,
        beta: float = 50.0,
        *,
        base: float = 0.5,
        direction_weights: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        super().__init__(direction_weights)
        check_range("alpha", alpha, 0.0, low_open=True)
        check_range("beta", beta, 0.0, low_open=True)
        self.alpha, self.beta, self.base = alpha, beta, base

    def row_terms(self, pairs: Pairs) -> Terms:
        """One term for each anchor with a positive."""
        centred = pairs.score - self.base
        near = F.softplus(masked_logsumexp(-self.alpha * centred, pairs.positive_weight)) / self.alpha
        far = F.softplus(masked_logsumexp(self.beta * centred, pairs.negative_weight)) / self.beta
        counted = pairs.has_positive
        return torch.where(counted, near + far, 0.0), counted.to(near.dtype)


class CircleLoss(PairwiseLoss):
    """Each score is pulled to its own optimum, the harder the farther it is from there.

    The term of an anchor is ``softplus(lse_N(scale a_n (s - m)) + lse_P(-scale a_p (s - 1 + m)))`` with
    ``a_n = max(0, s + m)`` and ``a_p = max(0, 1 + m - s)``, which are constants for the gradient. Terms are the anchors
    with a positive and a negative.

    Args:
        margin: m: positives aim above 1 - m, negatives below m.
        scale: Sharpness.
        direction_weights: Weights of audio-to-text and text-to-audio.

    References:
        Sun et al., "Circle loss: a unified perspective of pair similarity optimization", CVPR 2020.
    """

    def __init__(
        self, margin: float = 0.25, *, scale: float = 80.0, direction_weights: tuple[float, float] = (1.0, 1.0)
    ) -> None:
        super().__init__(direction_weights)
        check_range("margin", margin, 0.0)
        check_range("scale", scale, 0.0, low_open=True)
        self.margin, self.sharpness = margin, scale

    def row_terms(self, pairs: Pairs) -> Terms:
        """One term for each anchor with a positive and a negative."""
        score, margin = pairs.score, self.margin
        pull, push = F.relu(1.0 + margin - score.detach()), F.relu(score.detach() + margin)
        near = masked_logsumexp(-self.sharpness * pull * (score - 1.0 + margin), pairs.positive_weight)
        far = masked_logsumexp(self.sharpness * push * (score - margin), pairs.negative_weight)
        counted = pairs.has_positive & pairs.has_negative
        return torch.where(counted, F.softplus(near + far), 0.0), counted.to(score.dtype)


class ProxyAnchorLoss(PairwiseLoss):
    """Each text, as a proxy, gathers its audio and drives the others away, the hardest most.

    With texts as anchors: the mean over anchors with a positive of ``log(1 + sum_P exp(-alpha (s - margin)))`` plus the
    mean over all anchors of ``log(1 + sum_N exp(alpha (s + margin)))``. Several tags an audio are normal.

    Args:
        alpha: Sharpness.
        margin: Distance that positives and negatives keep from 0.
        direction_weights: Weights of audio as the proxy and of text as the proxy.

    References:
        Kim et al., "Proxy anchor loss for deep metric learning", CVPR 2020.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("1.18",)

    def __init__(
        self, alpha: float = 32.0, *, margin: float = 0.1, direction_weights: tuple[float, float] = (0.0, 1.0)
    ) -> None:
        super().__init__(direction_weights)
        check_range("alpha", alpha, 0.0, low_open=True)
        check_range("margin", margin, 0.0)
        self.alpha, self.margin = alpha, margin

    def row_terms(self, pairs: Pairs) -> Terms:
        """Anchors with a positive, and all anchors with a valid pair, averaged apart."""
        near = F.softplus(masked_logsumexp(-self.alpha * (pairs.score - self.margin), pairs.positive_weight))
        far = F.softplus(masked_logsumexp(self.alpha * (pairs.score + self.margin), pairs.negative_weight))
        counted = torch.stack([pairs.has_positive, pairs.valid.any(dim=1)], dim=1)
        return torch.where(counted, torch.stack([near, far], dim=1), 0.0), counted.to(near.dtype)


class SpreadInstanceLoss(PairwiseLoss):
    """InfoNCE, and every negative is told that it was not chosen either.

    With ``p = softmax(cosine / temperature)`` over an anchor's row, the term is the InfoNCE term plus
    ``-sum_N log(1 - p)``. Terms are the anchors with a positive.

    Args:
        temperature: Divides the cosines.
        direction_weights: Weights of audio-to-text and text-to-audio.

    References:
        Ye et al., "Unsupervised embedding learning via invariant and spreading instance feature", CVPR 2019.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("5.01",)
    graded: ClassVar[Graded] = "soft target"

    def __init__(self, temperature: float = 0.1, *, direction_weights: tuple[float, float] = (1.0, 1.0)) -> None:
        super().__init__(direction_weights)
        self.scale = LogitScale(temperature, learn=False)

    def row_terms(self, pairs: Pairs) -> Terms:
        """One term for each anchor with a positive."""
        logits = self.scale() * pairs.score
        log_p = logits - masked_logsumexp(logits, pairs.weight)[:, None]
        share = pairs.relevance.clamp(min=0.0) * pairs.weight
        total = share.sum(dim=1, keepdim=True)
        share = share / torch.where(total > 0, total, 1.0)
        spread = pairs.negative_weight * log1mexp(torch.where(pairs.negative, log_p, -1.0))
        counted = total[:, 0] > 0
        return torch.where(counted, -(share * log_p + spread).sum(dim=1), 0.0), counted.to(logits.dtype)


class HardestSupportLoss(PairwiseLoss):
    """Soft-max in which an anchor's own concept is represented by its farthest positive.

    The episodic loss of deep meta metric learning, each text being a concept with one support: the term is
    ``log(exp(l_p) + sum_N exp(l_n)) - l_p`` with p the positive of the smallest logit. The same soft-max over
    prototypes where every anchor has one positive. Terms are the anchors with a positive.

    Args:
        temperature: Divides the cosines; the paper's squared distances of unit vectors are 0.5.
        direction_weights: Weights of audio-to-text and text-to-audio.

    References:
        Chen et al., "Deep meta metric learning", ICCV 2019.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("2.10",)

    def __init__(self, temperature: float = 0.5, *, direction_weights: tuple[float, float] = (1.0, 1.0)) -> None:
        super().__init__(direction_weights)
        self.scale = LogitScale(temperature, learn=False)

    def row_terms(self, pairs: Pairs) -> Terms:
        """One term for each anchor with a positive."""
        logits = self.scale() * pairs.score
        counted = pairs.has_positive
        farthest = logits.masked_fill(~pairs.positive, torch.inf).amin(dim=1).masked_fill(~counted, 0.0)
        term = F.softplus(masked_logsumexp(logits, pairs.negative_weight) - farthest)
        return torch.where(counted, term, 0.0), counted.to(term.dtype)
