"""The table of objectives on vectors: a line here inherits every test of ``test_embedding_contract.py``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import embedding_oracles as oracle
from loss_oracles import contrastive, info_nce

from xmodal import losses
from xmodal.losses import EmbeddingLoss

DIM = 6


@dataclass(frozen=True)
class Case:
    """One objective with one choice of arguments.

    Attributes:
        make: Makes the objective for vectors of ``DIM`` dimensions.
        oracle: The same value by loops; of one direction if ``directional``. None where a test of its own has it.
        directional: The value is the weighted mean of both directions.
        exact_gradient: The gradient is that of the value; not so where something is held constant or reversed.
        symmetric: Audio and text may change places.
    """

    name: str
    make: Callable[[], EmbeddingLoss]
    oracle: oracle.Oracle | None
    directional: bool = False
    exact_gradient: bool = True
    symmetric: bool = True


EMBEDDING_CASES = [
    Case("N-pair", lambda: losses.NPairLoss(0.1), oracle.n_pair(0.1), directional=True),
    Case("angular", lambda: losses.AngularLoss(40.0), oracle.angular(40.0), directional=True),
    # Its exponents are too far apart for sums side by side.
    Case("angular, wide", lambda: losses.AngularLoss(65.0), oracle.angular(65.0), directional=True),
    Case(
        "SNR contrastive",
        lambda: losses.SNRContrastiveLoss(0.5, negative_margin=2.5),
        oracle.snr(0.5, 2.5),
        directional=True,
    ),
    Case(
        "element-weighted triplet",
        lambda: losses.ElementWeightedTripletLoss(0.3, threshold=0.3, floor=0.7),
        oracle.element_weighted(0.3, 0.3, 0.7, True),
        directional=True,
        exact_gradient=False,
    ),
    Case(
        "element-weighted triplet, without the mean",
        lambda: losses.ElementWeightedTripletLoss(mean_negative=False),
        oracle.element_weighted(0.3, 0.1, 1.0, False),
        directional=True,
        exact_gradient=False,
    ),
    Case("robust margin", losses.RobustMarginLoss, oracle.robust_margin(0.3), directional=True),
    Case(
        "point to set",
        lambda: losses.PointToSetLoss(0.3, ridge=0.2),
        oracle.point_to_set(0.3, 0.2),
        directional=True,
    ),
    Case(
        "hierarchical triplet",
        lambda: losses.HierarchicalTripletLoss(0.2, levels=5),
        oracle.hierarchical_triplet(0.2, 5),
        directional=True,
        exact_gradient=False,
    ),
    Case("group", lambda: losses.GroupLoss(0.5, steps=2), oracle.group(0.5, 2), directional=True),
    Case("F statistic", losses.FStatisticLoss, oracle.f_statistic(2), directional=True),
    Case("spread-out", losses.SpreadOutRegularizer, oracle.spread_out(True, True)),
    Case("spread-out, across", lambda: losses.SpreadOutRegularizer(within=False), oracle.spread_out(True, False)),
    Case("spherical", losses.SphericalRegularizer, oracle.spherical, exact_gradient=False),
    Case("zero mean", losses.ZeroMeanRegularizer, oracle.zero_mean),
    Case(
        "variance and covariance",
        lambda: losses.VarianceCovarianceRegularizer(1.2, covariance_weight=0.5),
        oracle.variance_covariance(1.2, 0.5),
    ),
    Case("alignment and uniformity", losses.AlignmentUniformityLoss, oracle.alignment_uniformity(1.0, 2.0)),
    Case(
        "joint representation",
        lambda: losses.JointRepresentationRegularizer(3),
        oracle.joint_representation(3),
        exact_gradient=False,
    ),
    Case("diversity", lambda: losses.DiversityRegularizer(3, margin=0.1), oracle.diversity(3, 0.1)),
    Case("decorrelation", lambda: losses.DecorrelationRegularizer(DIM, hidden=4), None, exact_gradient=False),
    Case("high order", lambda: losses.HighOrderLoss(losses.InfoNCELoss(0.5), DIM, features=8, orders=3), None),
    Case("sum", lambda: losses.CombinedObjective([losses.InfoNCELoss(), losses.AngularLoss()], [1.0, 0.2]), None),
    Case("matryoshka", lambda: losses.MatryoshkaLoss(losses.InfoNCELoss(0.4), [2, DIM]), None),
    # It hands its gradients over once, and gradcheck asks twice: test_combined.py holds them against the dense ones.
    Case("streamed", lambda: losses.StreamedLoss(losses.TripletLoss(mining="all"), 2), None, exact_gradient=False),
    Case(
        "embedding expansion",
        lambda: losses.EmbeddingExpansionLoss(losses.InfoNCELoss(0.3)),
        oracle.embedding_expansion(info_nce(0.3), 2),
        directional=True,
    ),
    Case(
        "symmetrical synthesis",
        lambda: losses.SymmetricalSynthesisLoss(losses.ContrastiveLoss(1.3)),
        oracle.symmetrical_synthesis(contrastive(1.3)),
        directional=True,
    ),
    Case("adversarial negative", lambda: losses.AdversarialNegativeLoss(DIM, hidden=5), None, exact_gradient=False),
    Case(
        "boosted ensemble",
        lambda: losses.BoostedEnsembleLoss([1, 2, 3], cost=3.0),
        oracle.boosted_ensemble([1, 2, 3], 2.0, 0.5, 3.0),
        exact_gradient=False,
    ),
    Case("divide and conquer", lambda: losses.DivideAndConquerLoss(losses.SigLIPLoss(), DIM, learners=3), None),
    Case("cluster contrast", lambda: losses.ClusterContrastLoss(3), None, exact_gradient=False, symmetric=False),
    Case(
        "hard concepts",
        lambda: losses.HardConceptLoss(losses.InfoNCELoss(0.3), negatives=2),
        oracle.hard_concept(info_nce(0.3), 2),
        directional=True,
    ),
    Case(
        "ensemble",
        lambda: losses.EnsembleLoss(losses.ContrastiveLoss(1.3), 3),
        oracle.ensemble(contrastive(1.3), 3),
    ),
    Case(
        "cascade",
        lambda: losses.CascadedLoss(losses.ContrastiveLoss(1.3), (1.0, 0.5, 0.4)),
        oracle.cascade(contrastive(1.3), (1.0, 0.5, 0.4)),
        exact_gradient=False,
    ),
    Case("episode", lambda: losses.EpisodeLoss(0.3, length_weight=0.1), oracle.episode(0.3, 0.1), directional=True),
]
