"""Values of pytorch-metric-learning; ``golden_pml.py`` says how they were made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from xmodal import losses
from xmodal.losses import apply_loss
from xmodal.losses.base import make_pairs

GOLDEN = json.loads(Path(__file__).with_name("golden_pml.json").read_text(encoding="utf-8"))


def tensor(name: str) -> torch.Tensor:
    return torch.tensor(GOLDEN[name], dtype=torch.float64)


AUDIO, TEXT, SINGLE, PROXIES = (tensor(name) for name in ("audio", "text", "single", "proxies"))
RELEVANCE = tensor("audio_labels")[:, None] == tensor("text_labels")[None, :]
ROWS = {"direction_weights": (1.0, 0.0)}


@pytest.mark.parametrize(
    ("name", "loss"),
    {
        "contrastive": losses.ContrastiveLoss(1.0, power=1, average="active"),
        "triplet all": losses.TripletLoss(0.3, mining="all", distance="squared", **ROWS),
        "triplet semi-hard": losses.TripletLoss(0.3, mining="semi-hard", distance="squared", **ROWS),
        "triplet batch-hard": losses.TripletLoss(0.3, mining="batch-hard", distance="squared", **ROWS),
        "nt-xent": losses.InfoNCELoss(0.2, learn_temperature=False, denominator="own", **ROWS),
        "supcon": losses.InfoNCELoss(0.2, learn_temperature=False, **ROWS),
        "multi-similarity": losses.MultiSimilarityLoss(**ROWS),
        "circle": losses.CircleLoss(0.3, scale=20.0, **ROWS),
        "generalized lifted": losses.GeneralizedLiftedLoss(0.4, **ROWS),
        "tuplet margin": losses.TupletMarginLoss(16.0, **ROWS),
        "intra-pair variance": losses.IntraPairVarianceLoss(0.05, 0.05),
        "nca": losses.NCALoss(1 / 6, **ROWS),
        "snr contrastive": losses.SNRContrastiveLoss(negative_margin=50.0, **ROWS),
        "angular": losses.AngularLoss(40.0, **ROWS),
    }.items(),
)
def test_two_towers_agree(name, loss):
    value = apply_loss(loss.double(), AUDIO, TEXT, RELEVANCE).item()
    assert value == pytest.approx(GOLDEN["values"][name], rel=1e-6)


def test_the_margin_loss_agrees_when_pairs_count_once_for_each_triple_they_are_in():
    weight = torch.where(RELEVANCE, 6.0, 3.0)  # every anchor has 3 positives and 6 negatives
    value = losses.MarginLoss(0.2, beta=1.1).double()(AUDIO @ TEXT.T, RELEVANCE, None, weight)
    assert value.item() == pytest.approx(GOLDEN["values"]["margin"], rel=1e-6)


@pytest.mark.parametrize(
    ("name", "loss"),
    {
        "fastap": losses.FastAPLoss(10, **ROWS),
        "histogram": losses.HistogramLoss(50),
        "ranked list": losses.RankedListLoss(**ROWS),
        "lifted": losses.LiftedStructureLoss(),
    }.items(),
)
def test_one_tower_agrees_where_every_item_meets_all_others(name, loss):
    labels = tensor("single_labels")
    others = ~torch.eye(8, dtype=torch.bool)
    value = apply_loss(loss, SINGLE, SINGLE, labels[:, None] == labels[None, :], others).item()
    # Not closer: the ranked list loss of the other project adds 1e-5 to its denominators for each column.
    assert value == pytest.approx(GOLDEN["values"][name], rel=1e-4 if name == "ranked list" else 1e-6)


@pytest.mark.parametrize(
    ("name", "loss"),
    {"proxy anchor": losses.ProxyAnchorLoss(), "proxy nca": losses.NCALoss(1 / 6, **ROWS)}.items(),
)
def test_proxies_are_texts(name, loss):
    relevance = tensor("audio_labels")[:, None] == torch.arange(3)[None, :]
    value = apply_loss(loss.double(), AUDIO, PROXIES[:3], relevance).item()
    assert value == pytest.approx(GOLDEN["values"][name], rel=1e-6)


def test_the_multi_similarity_miner_keeps_the_same_pairs():
    mined = losses.MultiSimilarityMiner(0.1)(make_pairs(AUDIO @ TEXT.T, RELEVANCE))
    assert mined.valid.tolist() == GOLDEN["multi_similarity_miner"]
