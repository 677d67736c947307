"""Values of pytorch-metric-learning; ``golden_pml.py`` says how they were made."""

from __future__ import annotations

import json
import math
from pathlib import Path

import loss_oracles as oracle
import numpy as np
import pytest
import torch
import torch.nn.functional as F

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


THEIRS = GOLDEN["disagreements"]
ALONE = torch.tensor([0, 0, 1, 1, 7, 8])[:, None] == tensor("text_labels")[None, :]  # two audio without a text
TWINS = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], dtype=torch.float64)


def by_loops(case, audio, text, relevance, valid=None):
    valid = np.ones(relevance.shape, bool) if valid is None else valid.numpy()
    score = (F.normalize(audio, dim=1) @ F.normalize(text, dim=1).T).numpy()
    return case(score, relevance.double().numpy(), valid, valid.astype(float))


def triplets_with_swap(texts):
    """FaceNet's triples on distances, the negative's being the smaller of those to the audio and to the positive."""
    text, right = TEXT[:texts], RELEVANCE[:, :texts]
    terms = []
    for i in range(6):
        for p in range(texts):
            for n in range(texts):
                if right[i, p] and not right[i, n]:
                    away = min((AUDIO[i] - text[n]).norm(), (text[p] - text[n]).norm())
                    terms.append(max(0.0, float((AUDIO[i] - text[p]).norm() - away + 0.3)))
    return np.mean([each for each in terms if each > 0])


def smooth_ap(classes):
    twelve = F.normalize(torch.randn((12, 5), generator=torch.Generator().manual_seed(5), dtype=torch.float64), dim=1)
    labels = torch.arange(classes).repeat_interleave(12 // classes)
    right, others = labels[:, None] == labels[None, :], ~torch.eye(12, dtype=torch.bool)
    value = apply_loss(losses.SmoothAPLoss(0.01), twelve, twelve, right, others).item()
    assert value == pytest.approx(by_loops(oracle.smooth_ap(0.01), twelve, twelve, right & others, others))
    return value


def slope_at_equal_vectors():
    x = TWINS[:3].clone().requires_grad_()
    right, others = torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]]), ~torch.eye(3, dtype=torch.bool)
    apply_loss(losses.TupletMarginLoss(), x, x, right, others).backward()
    return x.grad.sum().item()


def n_pair():
    anchors, positives = 5 * SINGLE[::2], 5 * SINGLE[1::2]
    value = losses.NPairLoss(0.0, **ROWS)(anchors, positives, torch.eye(4)).item()
    assert value == pytest.approx(F.cross_entropy(anchors @ positives.T, torch.arange(4)).item(), rel=1e-6)
    return value


OURS = {
    "nca at scale 100": lambda: losses.NCALoss(0.005, **ROWS)(
        torch.tensor([[-1.0, 1.0]]), torch.tensor([[1, 0]])
    ).item(),
    "tuplet margin, slope at a cosine of 1": slope_at_equal_vectors,
    "histogram at a cosine of 1": lambda: apply_loss(
        losses.HistogramLoss(), TWINS, TWINS, TWINS @ TWINS.T, ~torch.eye(4, dtype=torch.bool)
    ).item(),
    "smooth-ap, 3 classes of 4": lambda: smooth_ap(3),
    "smooth-ap, 4 classes of 3": lambda: smooth_ap(4),
    "triplet with swap, as many texts as audio": lambda: triplets_with_swap(6),
    "triplet with swap, more texts than audio": lambda: triplets_with_swap(9),
    "lifted structure": lambda: apply_loss(losses.LiftedStructureLoss(), AUDIO, TEXT, RELEVANCE).item(),
    "angular on long vectors": lambda: apply_loss(
        losses.AngularLoss(40.0, **ROWS), 3 * AUDIO, 3 * TEXT, RELEVANCE
    ).item(),
    "multi-similarity, anchors without positives": lambda: apply_loss(
        losses.MultiSimilarityLoss(**ROWS), AUDIO, TEXT, ALONE
    ).item(),
    "generalized lifted, anchors without positives": lambda: apply_loss(
        losses.GeneralizedLiftedLoss(0.4, **ROWS), AUDIO, TEXT, ALONE
    ).item(),
    "n-pair on long vectors": n_pair,
}
LOOPS = {
    "lifted structure": lambda: by_loops(oracle.lifted(1.0), AUDIO, TEXT, RELEVANCE),
    "multi-similarity, anchors without positives": lambda: by_loops(oracle.multi_similarity(), AUDIO, TEXT, ALONE),
    "generalized lifted, anchors without positives": lambda: by_loops(
        oracle.generalized_lifted(0.4), AUDIO, TEXT, ALONE
    ),
    "angular on long vectors": lambda: GOLDEN["values"]["angular"],
    "nca at scale 100": lambda: 400.0,
    "histogram at a cosine of 1": lambda: 0.0,
}
NOTE = (Path(__file__).parents[2] / "docs" / "pytorch-metric-learning.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", THEIRS)
def test_where_the_other_project_is_not_followed_ours_is_right_and_the_note_has_both_numbers(name):
    ours, theirs = OURS[name](), THEIRS[name]
    assert math.isfinite(ours)
    assert isinstance(theirs, str) or abs(ours - theirs) > 1e-3
    if name in LOOPS:
        assert ours == pytest.approx(LOOPS[name](), rel=1e-5, abs=1e-9)
    (line,) = [line for line in NOTE.splitlines() if line.startswith(f"| {name} |")]
    cells = [cell.strip() for cell in line.split("|")]
    assert cells[2] == (theirs if isinstance(theirs, str) else f"{theirs:.4f}")
    assert float(cells[3]) == pytest.approx(ours, abs=6e-5)
