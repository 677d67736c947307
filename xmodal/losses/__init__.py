"""Training objectives on (score, relevance, valid, weight); :mod:`xmodal.losses.base` states what they share."""

from xmodal.losses.base import EmbeddingLoss, PairwiseLoss, apply_loss
from xmodal.losses.combined import CombinedObjective, StreamedLoss
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
from xmodal.losses.softmax import (
    CircleLoss,
    HardestSupportLoss,
    InfoNCELoss,
    MultiSimilarityLoss,
    NCALoss,
    ProxyAnchorLoss,
    SpreadInstanceLoss,
)
from xmodal.losses.structured import (
    GeneralizedLiftedLoss,
    IntraPairVarianceLoss,
    LiftedStructureLoss,
    TupletMarginLoss,
)
from xmodal.losses.triple import QuadrupletLoss, TripletLoss

__all__ = [
    "BinomialDevianceLoss",
    "BlackboxRankLoss",
    "CircleLoss",
    "CombinedObjective",
    "ContrastiveLoss",
    "CrossModalMemory",
    "DistanceBinMiner",
    "DistanceWeightedMiner",
    "EmbeddingLoss",
    "FastAPLoss",
    "GeneralizedLiftedLoss",
    "HardNegativeMiner",
    "HardPairMiner",
    "HardestSupportLoss",
    "HistogramLoss",
    "InfoNCELoss",
    "IntraPairVarianceLoss",
    "LatentCoincidenceLoss",
    "LiftedStructureLoss",
    "LogRatioLoss",
    "MarginLoss",
    "Miner",
    "MultiSimilarityLoss",
    "MultiSimilarityMiner",
    "NCALoss",
    "OnlineSoftMiner",
    "PairwiseLoss",
    "ProxyAnchorLoss",
    "QuadrupletLoss",
    "RankedListLoss",
    "RhoMiner",
    "SeraphLoss",
    "SigLIPLoss",
    "SmoothAPLoss",
    "SpanningTreeMiner",
    "SpreadInstanceLoss",
    "StreamedLoss",
    "TripletLoss",
    "TripletUpperBoundLoss",
    "TupletMarginLoss",
    "apply_loss",
]
