"""Training objectives on (score, relevance, valid, weight); :mod:`xmodal.losses.base` states what they share."""

from xmodal.losses.base import EmbeddingLoss, PairwiseLoss, apply_loss
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
    "ContrastiveLoss",
    "EmbeddingLoss",
    "FastAPLoss",
    "GeneralizedLiftedLoss",
    "HardestSupportLoss",
    "HistogramLoss",
    "InfoNCELoss",
    "IntraPairVarianceLoss",
    "LatentCoincidenceLoss",
    "LiftedStructureLoss",
    "LogRatioLoss",
    "MarginLoss",
    "MultiSimilarityLoss",
    "NCALoss",
    "PairwiseLoss",
    "ProxyAnchorLoss",
    "QuadrupletLoss",
    "RankedListLoss",
    "SeraphLoss",
    "SigLIPLoss",
    "SmoothAPLoss",
    "SpreadInstanceLoss",
    "TripletLoss",
    "TripletUpperBoundLoss",
    "TupletMarginLoss",
    "apply_loss",
]
