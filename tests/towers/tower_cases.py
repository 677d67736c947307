"""Every tower, small and with random weights: the one list that the contract tests run over."""

from __future__ import annotations

import functools

import torch
from published_models import published
from torch import nn

from xmodal.towers import (
    AstTower,
    AttentionEnsemblePool,
    AttentionPool,
    AutoPool,
    CharNgramTower,
    ClapAudioTower,
    ClapTextTower,
    Cnn10,
    DepthEnsemble,
    Fcn,
    FieldsTower,
    HarmonicCnn,
    HashedBagOfWordsTower,
    MeanPool,
    MobileCnn,
    Musicnn,
    OrderStatisticsPool,
    SegmentPool,
    SentenceTransformerTower,
    ShortChunkCnn,
    ShortChunkResNet,
    WaveformTransformerTower,
)

RATE = 8000
FRONT = {"sample_rate": RATE, "n_fft": 512, "hop": 128, "bands": 32}
AUDIO_TOWERS = {
    "MobileCnn": lambda **more: MobileCnn(**FRONT, width=0.125, feature_dim=24, **more),
    "MobileCnn-attention": lambda **more: MobileCnn(
        **FRONT, width=0.125, feature_dim=24, pooling=AttentionPool(hidden=8), **more
    ),
    "MobileCnn-auto": lambda **more: MobileCnn(**FRONT, width=0.125, feature_dim=24, pooling=AutoPool(), **more),
    "MobileCnn-segments": lambda **more: MobileCnn(
        **FRONT, width=0.125, feature_dim=24, pooling=SegmentPool(3), **more
    ),
    "ShortChunkResNet": lambda **more: ShortChunkResNet(**FRONT, channels=8, **more),
    "ShortChunkResNet-mean": lambda **more: ShortChunkResNet(**FRONT, channels=8, pooling=MeanPool(), **more),
    "MobileCnn-statistics": lambda **more: MobileCnn(
        **FRONT, width=0.125, feature_dim=24, pooling=OrderStatisticsPool(), **more
    ),
    "MobileCnn-ensemble": lambda **more: MobileCnn(
        **FRONT, width=0.125, feature_dim=24, pooling=AttentionEnsemblePool(3, hidden=4), **more
    ),
    "Cnn10": lambda **more: Cnn10(**FRONT, f_max=4000.0, **more),
}
AUGMENTED_TOWERS = list(AUDIO_TOWERS)
AUDIO_TOWERS |= {
    "DepthEnsemble": lambda: DepthEnsemble(MobileCnn(**FRONT, width=0.125, feature_dim=24), (1, 3), width=6),
    "DepthEnsemble-short": lambda: DepthEnsemble(ShortChunkResNet(**FRONT, channels=4), (2,), width=6),
    "Fcn": lambda: Fcn(channels=4),
    "Fcn-jamendo": lambda: Fcn(jamendo=True, channels=4),
    "Musicnn": lambda: Musicnn(),
    "ShortChunkCnn": lambda: ShortChunkCnn(channels=8),
    "ShortChunkCnn-residual": lambda: ShortChunkCnn(channels=8, residual=True),
    "HarmonicCnn": lambda: HarmonicCnn(channels=4),
    "Clap": lambda: ClapAudioTower(published("clap"), trainable=True),
    "Clap-frozen-fusion": lambda: ClapAudioTower(published("clap-fusion")),
    "Ast": lambda: AstTower(published("ast"), trainable=True),
    "Mert": lambda: WaveformTransformerTower(published("mert"), trainable=True, layer=1),
    "Wav2Vec2-attention": lambda: WaveformTransformerTower(
        published("wav2vec2"), trainable=True, pooling=AttentionPool(hidden=8)
    ),
}
TEXT_TOWERS = {
    "clap": lambda _: ClapTextTower(published("clap"), max_tokens=16, chunk_overlap=4),
    "clap-trainable": lambda _: ClapTextTower(published("clap"), trainable=True, max_tokens=16, chunk_overlap=0),
    "bag": lambda _: HashedBagOfWordsTower(buckets=500, embed_dim=16, feature_dim=12),
    "char-ngrams": lambda _: CharNgramTower(buckets=500, embed_dim=16, feature_dim=12, positions=2),
    "fields": lambda _: FieldsTower(
        HashedBagOfWordsTower(buckets=500, embed_dim=16, feature_dim=12),
        heads=True,
        lyrics_pooling="attention",
        lines=2,
    ),
    "fields-frozen": lambda folder: FieldsTower(
        SentenceTransformerTower(str(folder), max_tokens=16, chunk_overlap=4), learn_weights=True, lines=2
    ),
    "bag-words": lambda _: HashedBagOfWordsTower(buckets=500, embed_dim=16, feature_dim=12, pairs=False),
    "frozen": lambda folder: SentenceTransformerTower(str(folder), max_tokens=16, chunk_overlap=4),
    "trainable": lambda folder: SentenceTransformerTower(str(folder), trainable=True, max_tokens=16, chunk_overlap=0),
    "frozen-heads": lambda folder: SentenceTransformerTower(str(folder), max_tokens=16, chunk_overlap=4, token_heads=4),
    "frozen-max": lambda folder: SentenceTransformerTower(
        str(folder), max_tokens=16, chunk_overlap=4, chunk_pooling="max"
    ),
}
LYRIC = " ".join(f"w{number * 7 % 200}" for number in range(1999))
TEXTS = ["w1 w2 w3", "W9!", " ".join(f"w{number}" for number in range(40)), "not in the vocabulary", LYRIC]
TEXTS.append('w9 lyrics: "w1 w2\nw3 w4\nw5" tags: w6, w7 title: "w8" artist: w10 w11 album: "w12"')


def sounds(clips, seconds):
    """Clips that differ in pitch, loudness and noise."""
    generator = torch.Generator().manual_seed(3)
    time = torch.arange(round(seconds * RATE)) / RATE
    number = torch.arange(clips)[:, None]
    tones = torch.sin(2 * torch.pi * 150 * 1.6 ** (number % 7) * time * (1 + 0.1 * time)) * 0.5 ** (number % 5)
    return tones + 0.1 ** (1 + number % 3) * torch.randn(clips, len(time), generator=generator)


@torch.no_grad()
def as_trained(tower):
    """The tower as training leaves it: normalisation far from the identity, so that a forgotten mask shows."""
    generator = torch.Generator().manual_seed(1)
    normalisations = [module for module in tower.modules() if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))]
    for module in normalisations:
        module.momentum = 1.0
        module.weight.copy_(0.5 + torch.rand(module.weight.shape, generator=generator))
        module.bias.copy_(0.5 * torch.rand(module.bias.shape, generator=generator))
    tower.train()(sounds(24, 1.5).roll(5000, dims=1))
    for module in normalisations:
        if isinstance(module, nn.BatchNorm1d):  # 24 clips vary far less than music does, and would blow rounding up
            module.running_var.add_(module.running_mean.square())
    return tower.eval()


@functools.cache
def trained(name):
    torch.manual_seed(0)
    return as_trained(AUDIO_TOWERS[name]())


def assert_same_vectors(found, expected):
    """Equal to 1e-6 in every place of unit vectors of 256 dimensions; places of shorter ones are larger by as much."""
    assert found.shape == expected.shape
    limit = 1e-6 * max(1.0, (256 / found.shape[1]) ** 0.5)
    assert (nn.functional.normalize(found) - nn.functional.normalize(expected)).abs().max() < limit
