"""Which tracks make up each training batch; :mod:`xmodal.data.samplers.base` has the contract."""

from xmodal.data.samplers.artists import ArtistBatches
from xmodal.data.samplers.base import BatchSampler, Key, PlannedBatches, TrackFacts
from xmodal.data.samplers.distance import DistanceBinBatches
from xmodal.data.samplers.evaluation import EvaluationBatches
from xmodal.data.samplers.order import GroupedBatches, ShuffledBatches
from xmodal.data.samplers.tags import HardTagBatches, TagBalancedBatches, TagGroupBatches

__all__ = [
    "ArtistBatches",
    "BatchSampler",
    "DistanceBinBatches",
    "EvaluationBatches",
    "GroupedBatches",
    "HardTagBatches",
    "Key",
    "PlannedBatches",
    "ShuffledBatches",
    "TagBalancedBatches",
    "TagGroupBatches",
    "TrackFacts",
]
