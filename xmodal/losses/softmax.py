"""Losses of the soft-max family: an anchor's positives against log-sum-exps over its row."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from xmodal.losses.base import Graded, Pairs, PairwiseLoss, Terms
from xmodal.losses.numerics import LogitScale, check_choice, masked_logsumexp

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
        direction_weights: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        super().__init__(direction_weights)
        check_choice("denominator", denominator, Denominator)
        self.scale = LogitScale(temperature, learn=learn_temperature)
        self.denominator = denominator

    def row_terms(self, pairs: Pairs) -> Terms:
        """One term for each anchor with a positive."""
        logits = self.scale() * pairs.score
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
            counted = counted & pairs.negative.any(dim=1) if alone else counted
        return torch.where(counted, term, 0.0), counted.to(term.dtype)
