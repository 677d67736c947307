"""Towers: the networks that turn audio and text into feature vectors.

Each name is importable from here and is loaded from its module when it is first used, so that a model without a
pretrained text encoder never pays for importing one.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xmodal.towers.bag_of_words import HashedBagOfWordsTower
    from xmodal.towers.base import AudioTower, TextBatch, TextTower
    from xmodal.towers.char_ngrams import CharNgramTower
    from xmodal.towers.clap import ClapAudioTower, ClapTextTower
    from xmodal.towers.depths import DepthEnsemble
    from xmodal.towers.fields import FieldsTower
    from xmodal.towers.mel import LogMel
    from xmodal.towers.metric import CurvilinearHead, MetricHead
    from xmodal.towers.mobile_cnn import MobileCnn
    from xmodal.towers.panns import Cnn10, Cnn14
    from xmodal.towers.pooling import (
        AttentionEnsemblePool,
        AttentionPool,
        AutoPool,
        MaxPool,
        MeanMaxPool,
        MeanPool,
        OrderStatisticsPool,
        SegmentPool,
        TimePool,
    )
    from xmodal.towers.sentence_transformer import SentenceTransformerTower
    from xmodal.towers.short_chunk import ShortChunkResNet
    from xmodal.towers.spec_augment import SpecAugment
    from xmodal.towers.spectrogram_transformer import AstTower
    from xmodal.towers.tagging_cnns import Fcn, HarmonicCnn, Musicnn, ShortChunkCnn
    from xmodal.towers.waveform_transformer import WaveformTransformerTower

_HOMES = {
    "AstTower": "spectrogram_transformer",
    "AttentionEnsemblePool": "pooling",
    "AttentionPool": "pooling",
    "AudioTower": "base",
    "AutoPool": "pooling",
    "CharNgramTower": "char_ngrams",
    "ClapAudioTower": "clap",
    "ClapTextTower": "clap",
    "Cnn10": "panns",
    "Cnn14": "panns",
    "CurvilinearHead": "metric",
    "DepthEnsemble": "depths",
    "Fcn": "tagging_cnns",
    "FieldsTower": "fields",
    "HarmonicCnn": "tagging_cnns",
    "HashedBagOfWordsTower": "bag_of_words",
    "LogMel": "mel",
    "MaxPool": "pooling",
    "MeanMaxPool": "pooling",
    "MeanPool": "pooling",
    "MetricHead": "metric",
    "MobileCnn": "mobile_cnn",
    "Musicnn": "tagging_cnns",
    "OrderStatisticsPool": "pooling",
    "SegmentPool": "pooling",
    "SentenceTransformerTower": "sentence_transformer",
    "ShortChunkCnn": "tagging_cnns",
    "ShortChunkResNet": "short_chunk",
    "SpecAugment": "spec_augment",
    "TextBatch": "base",
    "TextTower": "base",
    "TimePool": "pooling",
    "WaveformTransformerTower": "waveform_transformer",
}
__all__ = [
    "AstTower",
    "AttentionEnsemblePool",
    "AttentionPool",
    "AudioTower",
    "AutoPool",
    "CharNgramTower",
    "ClapAudioTower",
    "ClapTextTower",
    "Cnn10",
    "Cnn14",
    "CurvilinearHead",
    "DepthEnsemble",
    "Fcn",
    "FieldsTower",
    "HarmonicCnn",
    "HashedBagOfWordsTower",
    "LogMel",
    "MaxPool",
    "MeanMaxPool",
    "MeanPool",
    "MetricHead",
    "MobileCnn",
    "Musicnn",
    "OrderStatisticsPool",
    "SegmentPool",
    "SentenceTransformerTower",
    "ShortChunkCnn",
    "ShortChunkResNet",
    "SpecAugment",
    "TextBatch",
    "TextTower",
    "TimePool",
    "WaveformTransformerTower",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'xmodal.towers' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"xmodal.towers.{_HOMES[name]}"), name)
