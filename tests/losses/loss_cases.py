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
        exact_gradient: The gradient is that of the value; not so where the paper holds something constant.
        judges_unknown: Looks at pairs that are not valid, which no other loss does.
    """

    name: str
    make: Callable[[], PairwiseLoss]
    oracle: oracle.Oracle
    monotone: bool = True
    counts: bool = True
    shift: bool = False
    exact_gradient: bool = True
    judges_unknown: bool = False


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
    Case(
        "InfoNCE, fixed temperature, margin",
        lambda: losses.InfoNCELoss(0.2, learn_temperature=False, margin=0.3),
        oracle.info_nce(0.2, margin=0.3),
        monotone=False,
        shift=True,
    ),
    Case("NCA", lambda: losses.NCALoss(0.2, learn_temperature=True), oracle.nca(0.2), shift=True),
    Case(
        "Proxy-NCA, negatives alone",
        lambda: losses.NCALoss(0.3, denominator="negatives", direction_weights=(1.0, 0.0)),
        oracle.nca(0.3, "negatives"),
        shift=True,
    ),
    Case("multi-similarity", losses.MultiSimilarityLoss, oracle.multi_similarity()),
    Case(
        "circle",
        lambda: losses.CircleLoss(0.3, scale=10.0),
        oracle.circle(0.3, 10.0),
        exact_gradient=False,
    ),
    Case("proxy anchor", losses.ProxyAnchorLoss, oracle.proxy_anchor()),
    Case(
        "instance spreading",
        lambda: losses.SpreadInstanceLoss(0.4),
        oracle.spread_instance(0.4),
        monotone=False,
        shift=True,
    ),
    Case("hardest support", lambda: losses.HardestSupportLoss(0.3), oracle.hardest_support(0.3), shift=True),
    Case(
        "binomial deviance",
        lambda: losses.BinomialDevianceLoss(2.0, 0.4, cost=5.0),
        oracle.binomial_deviance(2, 0.4, 5),
    ),
    Case("margin", lambda: losses.MarginLoss(0.3, nu=0.1), oracle.margin_loss(0.3, 1.2, 0.1), monotone=False),
    Case(
        "margin, fixed boundary",
        lambda: losses.MarginLoss(beta=0.9, learn_beta=False),
        oracle.margin_loss(0.2, 0.9),
        monotone=False,
    ),
    Case("triplet upper bound", losses.TripletUpperBoundLoss, oracle.triplet_upper_bound),
    Case(
        "ranked list",
        lambda: losses.RankedListLoss(1.3, margin=0.5, negative_sharpness=3.0, positive_sharpness=2.0, balance=0.3),
        oracle.ranked_list(1.3, 0.5, 3.0, 2.0, 0.3),
        monotone=False,
    ),
    Case("lifted structure", losses.LiftedStructureLoss, oracle.lifted(1.0), counts=False),
    Case("generalized lifted", lambda: losses.GeneralizedLiftedLoss(0.2), oracle.generalized_lifted(0.2)),
    Case(
        "tuplet margin",
        lambda: losses.TupletMarginLoss(10.0, margin_degrees=4.0),
        oracle.tuplet_margin(10.0, 4.0),
        monotone=False,
    ),
    Case(
        "intra-pair variance",
        lambda: losses.IntraPairVarianceLoss(0.1, 0.1),
        oracle.intra_pair_variance(0.1),
        monotone=False,
    ),
    Case("histogram", lambda: losses.HistogramLoss(20), oracle.histogram(20), monotone=False),
    Case("FastAP", losses.FastAPLoss, oracle.fast_ap(10), monotone=False),
    Case("Smooth-AP", lambda: losses.SmoothAPLoss(0.2), oracle.smooth_ap(0.2), monotone=False, shift=True),
    Case(
        "black-box recall",
        losses.BlackboxRankLoss,
        oracle.true_ranks("recall", 0.02),
        monotone=False,
        exact_gradient=False,
        shift=True,
    ),
    Case(
        "black-box AP",
        lambda: losses.BlackboxRankLoss("map", margin=0.1),
        oracle.true_ranks("map", 0.1),
        monotone=False,
        exact_gradient=False,
        shift=True,
    ),
    Case("log-ratio", lambda: losses.LogRatioLoss(0.2), oracle.log_ratio(0.2), monotone=False),
    Case(
        "latent coincidence",
        lambda: losses.LatentCoincidenceLoss(0.8, offset=0.2),
        oracle.latent_coincidence(0.8, 0.2),
        monotone=False,
    ),
    Case(
        "SERAPH",
        lambda: losses.SeraphLoss(1.2, sharpness=2.0, unknown_weight=0.3),
        oracle.seraph(1.2, 2.0, 0.3),
        monotone=False,
        judges_unknown=True,
    ),
    Case("quadruplet", losses.QuadrupletLoss, oracle.quadruplet(0.2, 0.1, 0.5), monotone=False),
    Case(
        "hardness-aware",
        lambda: losses.HardnessAwareLoss(losses.ContrastiveLoss(1.5), hardness=0.3),
        oracle.hardness_aware(oracle.contrastive(1.5), 0.3),
        monotone=False,
        exact_gradient=False,
    ),
    Case(
        "facility location",
        lambda: losses.FacilityLocationLoss(0.6),
        oracle.facility_location(0.6),
        monotone=False,
        counts=False,
    ),
]
