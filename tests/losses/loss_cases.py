"""The table of objectives: a line here, and the loss inherits every test of ``test_loss_contract.py``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import loss_oracles as oracle

from xmodal import losses
from xmodal.losses import PairwiseLoss


@dataclass(frozen=True)
class Case:
    """One loss with one choice of arguments.

    Attributes:
        make: Makes the loss.
        oracle: The same value by loops, one direction.
        monotone: A better positive or a worse negative never costs more.
        counts: A pair of weight 2 is the pair twice (for rows as anchors).
        shift: Adding one number to every score changes nothing.
    """

    name: str
    make: Callable[[], PairwiseLoss]
    oracle: oracle.Oracle
    monotone: bool = True
    counts: bool = True
    shift: bool = False


CASES = [
    Case("InfoNCE", lambda: losses.InfoNCELoss(0.2), oracle.info_nce(0.2), monotone=False, shift=True),
    Case(
        "InfoNCE, own denominator",
        lambda: losses.InfoNCELoss(0.3, learn_temperature=False, denominator="own"),
        oracle.info_nce(0.3, "own"),
        shift=True,
    ),
    Case(
        "InfoNCE, decoupled",
        lambda: losses.InfoNCELoss(0.3, denominator="negatives"),
        oracle.info_nce(0.3, "negatives"),
        shift=True,
    ),
    Case(
        "InfoNCE, directions 2:1",
        lambda: losses.InfoNCELoss(0.5, direction_weights=(2.0, 1.0)),
        oracle.info_nce(0.5),
        monotone=False,
        shift=True,
    ),
    Case("SigLIP", lambda: losses.SigLIPLoss(0.5, bias=-1.0), oracle.siglip(0.5, -1.0), monotone=False),
    Case("contrastive", losses.ContrastiveLoss, oracle.contrastive()),
    Case(
        "contrastive, power 1, active pairs",
        lambda: losses.ContrastiveLoss(0.8, power=1, average="active", negative_weight=0.5),
        oracle.contrastive(0.8, 1, average="active", negative_weight=0.5),
        monotone=False,
    ),
    Case(
        "contrastive on cosines",
        lambda: losses.ContrastiveLoss(0.7, distance="cosine"),
        oracle.contrastive(0.7, kind="cosine"),
    ),
    Case("triplet, semi-hard", lambda: losses.TripletLoss(0.4), oracle.triplet(0.4, "semi-hard"), monotone=False),
    Case("triplet, all", lambda: losses.TripletLoss(0.3, mining="all"), oracle.triplet(0.3), monotone=False),
    Case(
        "triplet, all, Euclidean, mean over all",
        lambda: losses.TripletLoss(0.3, mining="all", distance="euclidean", average="all"),
        oracle.triplet(0.3, kind="euclidean", average="all"),
    ),
    Case(
        "triplet, 2 hardest, squared",
        lambda: losses.TripletLoss(0.6, mining="hard", distance="squared", hardest=2, average="all"),
        oracle.triplet(0.6, "hard", "squared", "all", 2),
        counts=False,
    ),
    Case(
        "triplet, batch-hard",
        lambda: losses.TripletLoss(0.3, mining="batch-hard", average="all"),
        oracle.triplet(0.3, "batch-hard", average="all"),
        counts=False,
    ),
]
