"""Training objectives on (score, relevance, valid, weight); :mod:`xmodal.losses.base` states what they share."""

from xmodal.losses.base import EmbeddingLoss, PairwiseLoss, apply_loss
from xmodal.losses.pairwise import ContrastiveLoss, SigLIPLoss
from xmodal.losses.softmax import InfoNCELoss
from xmodal.losses.triple import TripletLoss

__all__ = [
    "ContrastiveLoss",
    "EmbeddingLoss",
    "InfoNCELoss",
    "PairwiseLoss",
    "SigLIPLoss",
    "TripletLoss",
    "apply_loss",
]
