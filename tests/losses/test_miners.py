"""Miners against loops, and the chances of those that draw."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from loss_batches import DEGENERATE, ORDINARY

from xmodal import losses
from xmodal.configurable import instantiate
from xmodal.losses import InfoNCELoss, Miner
from xmodal.losses.base import make_pairs

MINERS = {
    "hard negatives": losses.HardNegativeMiner,
    "batch-hard": lambda: losses.HardNegativeMiner(positives=1),
    "multi-similarity": losses.MultiSimilarityMiner,
    "hard pairs": losses.HardPairMiner,
    "distance-weighted, expected": lambda: losses.DistanceWeightedMiner(16, draws=0),
    "distance-weighted, empirical": lambda: losses.DistanceWeightedMiner(16, density="empirical", draws=2),
    "distance bins": lambda: losses.DistanceBinMiner(5, high=2.0),
    "online soft": losses.OnlineSoftMiner,
    "spanning tree": losses.SpanningTreeMiner,
    "rho": lambda: losses.RhoMiner(0.5),
}
every_miner = pytest.mark.parametrize("make", MINERS.values(), ids=MINERS.keys())


@every_miner
def test_a_miner_only_takes_away_or_weighs_and_the_loss_stays_finite(make):
    for name, batch in {**ORDINARY, **DEGENERATE}.items():
        score = batch.score.clone().requires_grad_()
        pairs = make_pairs(score, *list(batch)[1:])
        mined = make()(pairs)
        assert not (mined.valid & ~pairs.valid).any(), name
        assert (mined.weight >= 0).all(), name
        assert mined.weight.isfinite().all(), name
        assert not mined.weight.requires_grad, name
        assert not score.numel() or InfoNCELoss().double().compute(mined).isfinite(), name


@every_miner
def test_a_miner_made_again_from_its_config_has_the_same_settings(make):
    miner = make()
    again = instantiate(miner.config)
    assert again.config == miner.config
    pairs = make_pairs(*ORDINARY["weighted pairs"])
    torch.manual_seed(0)
    first = miner(pairs)
    torch.manual_seed(0)
    assert torch.equal(first.weight, again(pairs).weight)


@every_miner
def test_every_miner_cites_its_source(make):
    assert type(make()).method_ids
    assert "References:" in type(make()).__doc__


def test_a_miner_without_a_rule_says_what_to_define():
    with pytest.raises(NotImplementedError, match=r"Miner must define factor\(pairs\)"):
        Miner()(make_pairs(*ORDINARY["ties"]))


def loops(name):
    score, relevance, valid, _ = ORDINARY[name].arrays()
    return score, valid & (relevance > 0), valid & (relevance <= 0)


def kept(miner, name):
    return miner(make_pairs(*ORDINARY[name])).valid.numpy()


@pytest.mark.parametrize("name", ["many positives", "unknown pairs"])
def test_hard_negatives_are_the_closest(name):
    score, positive, negative = loops(name)
    expected = positive.copy()
    for i in range(len(score)):
        expected[i, sorted(np.flatnonzero(negative[i]), key=lambda j: -score[i, j])[:2]] = True
    assert (kept(losses.HardNegativeMiner(2), name) == expected).all()


@pytest.mark.parametrize("name", ["many positives", "anchors without positives or negatives"])
def test_the_multi_similarity_miner_keeps_pairs_out_of_order(name):
    score, positive, negative = loops(name)
    expected = np.zeros_like(positive)
    for i in range(len(score)):
        for j in range(score.shape[1]):
            if positive[i, j]:
                expected[i, j] = any(score[i, j] - 0.2 < score[i, k] for k in np.flatnonzero(negative[i]))
            if negative[i, j]:
                expected[i, j] = any(score[i, j] + 0.2 > score[i, k] for k in np.flatnonzero(positive[i]))
    assert (kept(losses.MultiSimilarityMiner(0.2), name) == expected).all()


def test_hard_pairs_are_the_hardest_share_of_each_kind():
    score, positive, negative = loops("many positives")
    chosen = kept(losses.HardPairMiner(0.25), "many positives")
    for member, sign in ((positive, -1), (negative, 1)):
        count = int(np.ceil(0.25 * member.sum()))
        assert (chosen & member).sum() == count
        assert (sign * score[chosen & member]).min() >= np.sort(sign * score[member])[-count]


def test_distance_weights_are_one_over_the_density_on_the_sphere():
    score, _, negative = loops("many positives")
    factor = losses.DistanceWeightedMiner(6, draws=0, limit=1.6).factor(make_pairs(*ORDINARY["many positives"]))
    for i in range(len(score)):
        away = np.clip(np.sqrt(2 - 2 * score[i]), 0.5, 2)
        weight = np.where(negative[i] & (np.sqrt(2 - 2 * score[i]) <= 1.6), 1.0, 0.0)
        weight = weight / (away**4 * (1 - away**2 / 4) ** 1.5)
        if weight.sum():
            np.testing.assert_allclose(factor[i].numpy()[negative[i]], (weight / weight.sum())[negative[i]], rtol=1e-6)


def test_the_weights_of_tag_based_retrieval_grow_with_the_cosine():
    """Won et al.: a negative is drawn with a chance in proportion to (cosine + 1) / 2."""
    score, _, negative = loops("many positives")
    miner = losses.DistanceWeightedMiner(6, density="cosine", draws=0, limit=2.0)
    factor = miner.factor(make_pairs(*ORDINARY["many positives"])).numpy()
    for i in range(len(score)):
        weight = np.where(negative[i], (score[i] + 1) / 2, 0.0)
        if weight.sum():
            np.testing.assert_allclose(factor[i][negative[i]], (weight / weight.sum())[negative[i]], rtol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda draws: losses.DistanceWeightedMiner(6, density="cosine", draws=draws, limit=2.0),
        lambda draws: losses.DistanceWeightedMiner(6, draws=draws, limit=1.8),
        lambda draws: losses.DistanceWeightedMiner(6, density="empirical", draws=draws, limit=1.8),
        lambda draws: losses.DistanceBinMiner(4, high=1.8, draws=draws),
    ],
)
def test_negatives_are_drawn_as_often_as_their_chances_say(make):
    torch.manual_seed(1)
    pairs = make_pairs(*ORDINARY["many positives"])
    chance = make(0).factor(pairs) * pairs.negative
    drawn = make(4000).factor(pairs) * pairs.negative
    some = chance.sum(dim=1) > 0
    assert some.any()
    # Chi-square of each row: its mean is the number of chances less one, far below 25 for at most six of them.
    expected = 4000 * chance
    cells = torch.where(expected > 0, (drawn - expected) ** 2 / expected.clamp(min=1e-9), 0.0)
    assert (drawn[expected == 0] == 0).all()
    assert (cells.sum(dim=1)[some] < 25).all()
    assert (drawn.sum(dim=1)[some] == 4000).all()


def test_even_bins_choose_evenly_among_the_bins():
    score = torch.tensor([[0.9, 0.95, 0.0, 1.0]], dtype=torch.float64)  # two in the first bin, one in the second
    pairs = make_pairs(score, torch.tensor([[0.0, 0.0, 0.0, 1.0]]))
    chance = losses.DistanceBinMiner(2, low=0.0, high=2.0, draws=0).factor(pairs)
    torch.testing.assert_close(chance, torch.tensor([[0.25, 0.25, 0.5, 1.0]], dtype=torch.float64))


def test_a_bin_without_weight_is_never_drawn():
    score = torch.tensor([[0.9, 0.95, 0.0, 1.0]], dtype=torch.float64)
    miner = losses.DistanceBinMiner(2, low=0.0, high=2.0)
    miner.bin_weights[0] = 0.0
    factor = miner.factor(make_pairs(score, torch.tensor([[0.0, 0.0, 0.0, 1.0]])))
    assert factor.tolist() == [[0.0, 0.0, 1.0, 1.0]]


@pytest.mark.parametrize("temperature", [None, 0.3])
def test_soft_weights_and_attention_are_what_loops_say(temperature):
    score, positive, negative = loops("unknown pairs")
    factor = losses.OnlineSoftMiner(1.1, width=0.7, attention_temperature=temperature).factor(
        make_pairs(*ORDINARY["unknown pairs"])
    )
    valid = positive | negative

    def confidence(score, positive, valid, i):
        whole = np.exp(score[i] / (temperature or 1.0)) * valid[i]
        return whole[positive[i]].sum() / whole.sum() if valid[i].any() else 0.0

    for i, j in zip(*np.nonzero(valid), strict=True):
        squared = 2 - 2 * score[i, j]
        expected = np.exp(-squared / 0.49) if positive[i, j] else max(0.0, 1.1 - np.sqrt(squared))
        if temperature:
            expected *= min(confidence(score, positive, valid, i), confidence(score.T, positive.T, valid.T, j))
        assert factor[i, j].item() == pytest.approx(expected, abs=1e-9)


def test_soft_mining_makes_the_weighted_contrastive_loss_of_its_paper():
    score, positive, negative = loops("many positives")
    miner, loss = losses.OnlineSoftMiner(attention_temperature=None), losses.ContrastiveLoss(1.2)
    away = np.sqrt(2 - 2 * score)
    near, far = np.exp(-(away**2) / 0.64) * positive, np.clip(1.2 - away, 0, None) * negative
    expected = (near * away**2).sum() / near.sum() / 2 + (far * np.clip(1.2 - away, 0, None) ** 2).sum() / far.sum() / 2
    assert loss.compute(miner(make_pairs(*ORDINARY["many positives"]))).item() == pytest.approx(expected)


def test_the_spanning_tree_has_the_least_total_distance():
    from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

    score, positive, negative = loops("many positives")
    graph = np.zeros((12, 12))
    graph[:6, 6:] = np.where(positive, 1 - score, 0.0)
    tree = minimum_spanning_tree(graph)
    chosen = kept(losses.SpanningTreeMiner(), "many positives")
    assert ((1 - score) * (chosen & positive)).sum() == pytest.approx(tree.sum())
    assert (chosen & positive).sum() == 12 - connected_components(graph, directed=False)[0]
    assert (chosen[negative]).all()


def test_rho_turns_one_positive_of_an_anchor_with_two_into_a_negative():
    pairs = make_pairs(torch.zeros(3, 4), torch.tensor([[1.0, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]]))
    turned = (pairs.positive & losses.RhoMiner(1.0)(pairs).negative).sum(dim=1)
    assert turned.tolist() == [1, 0, 1]
    assert torch.equal(losses.RhoMiner(0.0)(pairs).relevance, pairs.relevance)
