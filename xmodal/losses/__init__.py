"""Training objectives on (score, relevance, valid, weight); :mod:`xmodal.losses.base` states what they share."""

from xmodal.losses.anchors import LearnedAnchors, MetaClassLoss, ProxyGraphLoss
from xmodal.losses.auxiliary import AttentionConsistency, DiverseHeads, InterclassHead
from xmodal.losses.base import EmbeddingLoss, PairwiseLoss, apply_loss
from xmodal.losses.combined import CombinedObjective
from xmodal.losses.concepts import (
    ClusterContrastLoss,
    FacilityLocationLoss,
    FStatisticLoss,
    GroupLoss,
    HierarchicalTripletLoss,
)
from xmodal.losses.elements import ElementWeightedTripletLoss
from xmodal.losses.ensembles import BoostedEnsembleLoss, CascadedLoss, DivideAndConquerLoss, EnsembleLoss
from xmodal.losses.episodes import EpisodeLoss
from xmodal.losses.generators import (
    AdversarialNegativeLoss,
    EmbeddingExpansionLoss,
    HardnessAwareLoss,
    SymmetricalSynthesisLoss,
)
from xmodal.losses.geometry import (
    AngularLoss,
    HardConceptLoss,
    NPairLoss,
    PointToSetLoss,
    RobustMarginLoss,
    SNRContrastiveLoss,
)
from xmodal.losses.items import BatchItems, Vocabulary, needs_of
from xmodal.losses.matryoshka import MatryoshkaLoss
from xmodal.losses.memory import CrossModalMemory
from xmodal.losses.miners import (
    DistanceBinMiner,
    DistanceWeightedMiner,
    HardNegativeMiner,
    HardPairMiner,
    Miner,
    MultiSimilarityMiner,
    OnlineSoftMiner,
    RhoMiner,
    SpanningTreeMiner,
)
from xmodal.losses.pairwise import (
    BinomialDevianceLoss,
    ContrastiveLoss,
    MarginLoss,
    RankedListLoss,
    SigLIPLoss,
    TripletUpperBoundLoss,
)
from xmodal.losses.probabilistic import LatentCoincidenceLoss, SeraphLoss
from xmodal.losses.ranking import BlackboxRankLoss, FastAPLoss, HistogramLoss, LogRatioLoss, SmoothAPLoss
from xmodal.losses.regularizers import (
    AlignmentUniformityLoss,
    DecorrelationRegularizer,
    DiversityRegularizer,
    HighOrderLoss,
    JointRepresentationRegularizer,
    SphericalRegularizer,
    SpreadOutRegularizer,
    VarianceCovarianceRegularizer,
    ZeroMeanRegularizer,
)
from xmodal.losses.softmax import (
    CircleLoss,
    HardestSupportLoss,
    InfoNCELoss,
    MultiSimilarityLoss,
    NCALoss,
    ProxyAnchorLoss,
    SpreadInstanceLoss,
)
from xmodal.losses.streamed import StreamedLoss
from xmodal.losses.structured import (
    GeneralizedLiftedLoss,
    IntraPairVarianceLoss,
    LiftedStructureLoss,
    TupletMarginLoss,
)
from xmodal.losses.triple import QuadrupletLoss, TripletLoss

__all__ = [
    "AdversarialNegativeLoss",
    "AlignmentUniformityLoss",
    "AngularLoss",
    "AttentionConsistency",
    "BatchItems",
    "BinomialDevianceLoss",
    "BlackboxRankLoss",
    "BoostedEnsembleLoss",
    "CascadedLoss",
    "CircleLoss",
    "ClusterContrastLoss",
    "CombinedObjective",
    "ContrastiveLoss",
    "CrossModalMemory",
    "DecorrelationRegularizer",
    "DistanceBinMiner",
    "DistanceWeightedMiner",
    "DiverseHeads",
    "DiversityRegularizer",
    "DivideAndConquerLoss",
    "ElementWeightedTripletLoss",
    "EmbeddingExpansionLoss",
    "EmbeddingLoss",
    "EnsembleLoss",
    "EpisodeLoss",
    "FStatisticLoss",
    "FacilityLocationLoss",
    "FastAPLoss",
    "GeneralizedLiftedLoss",
    "GroupLoss",
    "HardConceptLoss",
    "HardNegativeMiner",
    "HardPairMiner",
    "HardestSupportLoss",
    "HardnessAwareLoss",
    "HierarchicalTripletLoss",
    "HighOrderLoss",
    "HistogramLoss",
    "InfoNCELoss",
    "InterclassHead",
    "IntraPairVarianceLoss",
    "JointRepresentationRegularizer",
    "LatentCoincidenceLoss",
    "LearnedAnchors",
    "LiftedStructureLoss",
    "LogRatioLoss",
    "MarginLoss",
    "MatryoshkaLoss",
    "MetaClassLoss",
    "Miner",
    "MultiSimilarityLoss",
    "MultiSimilarityMiner",
    "NCALoss",
    "NPairLoss",
    "OnlineSoftMiner",
    "PairwiseLoss",
    "PointToSetLoss",
    "ProxyAnchorLoss",
    "ProxyGraphLoss",
    "QuadrupletLoss",
    "RankedListLoss",
    "RhoMiner",
    "RobustMarginLoss",
    "SNRContrastiveLoss",
    "SeraphLoss",
    "SigLIPLoss",
    "SmoothAPLoss",
    "SpanningTreeMiner",
    "SphericalRegularizer",
    "SpreadInstanceLoss",
    "SpreadOutRegularizer",
    "StreamedLoss",
    "SymmetricalSynthesisLoss",
    "TripletLoss",
    "TripletUpperBoundLoss",
    "TupletMarginLoss",
    "VarianceCovarianceRegularizer",
    "Vocabulary",
    "ZeroMeanRegularizer",
    "apply_loss",
    "needs_of",
]
