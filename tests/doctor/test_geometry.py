"""The figures of a space against brute force and against what is known of special spaces."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn.functional import normalize

from xmodal.doctor import geometry


def directions(items, dim, seed=0):
    return normalize(torch.randn(items, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


GROUPS = torch.tensor([0, 0, 1, 2, 1, 3, 3, 3])


@pytest.mark.parametrize("groups", [None, GROUPS])
def test_mean_cosine_uniformity_and_twins_are_those_of_a_loop_over_pairs(groups):
    vectors = directions(8, 3)
    vectors[6] = vectors[1]
    vectors[7] = vectors[5]  # of one group
    own = torch.arange(8) if groups is None else groups
    pairs = [(i, j) for i in range(8) for j in range(8) if own[i] != own[j]]
    cosines = [float(vectors[i] @ vectors[j]) for i, j in pairs]
    assert geometry.mean_cosine(vectors, groups) == pytest.approx(np.mean(cosines), abs=1e-6)
    kernel = [math.exp(-2 * float((vectors[i] - vectors[j]).square().sum())) for i, j in pairs]
    assert geometry.uniformity(vectors, groups) == pytest.approx(math.log(np.mean(kernel)), abs=1e-5)
    assert geometry.twins(vectors, groups) == ([(1, 6), (5, 7)] if groups is None else [(1, 6)])


def test_evenly_drawn_directions_have_the_figures_of_theory():
    vectors = directions(3000, 64)
    assert geometry.mean_cosine(vectors) == pytest.approx(0, abs=0.002)
    assert geometry.uniformity(vectors) == pytest.approx(-4 + 8 / 64, abs=0.02)
    assert geometry.effective_rank(geometry.singular_values(vectors)) > 63
    assert len(geometry.dead_dimensions(vectors)) == 0


def test_the_effective_rank_counts_directions():
    assert geometry.effective_rank(torch.ones(5)) == pytest.approx(5)
    assert geometry.effective_rank(torch.tensor([3.0, 0, 0])) == pytest.approx(1)
    assert geometry.effective_rank(torch.zeros(4)) == 0
    weights = torch.tensor([2.0, 1.0, 1.0])
    assert geometry.effective_rank(weights) == pytest.approx(math.exp(stats.entropy([0.5, 0.25, 0.25])))
    # Moving all items together uses no direction.
    vectors = directions(50, 6)
    shifted = vectors + 3
    torch.testing.assert_close(geometry.singular_values(vectors), geometry.singular_values(shifted), atol=1e-5, rtol=0)


def test_dimensions_that_stand_still_are_dead():
    vectors = directions(100, 8)
    vectors[:, [2, 5]] = 0.7
    assert geometry.dead_dimensions(vectors).tolist() == [2, 5]
    # Evenly spread, a dimension of 64 has a deviation of 1/8; a hundredth of that is where it is dead.
    wide = directions(100, 64)
    for dimension, deviation in ((3, 0.0012), (4, 0.0013)):
        wide[:, dimension] = deviation * torch.tensor([1.0, -1.0]).repeat(50)
    assert geometry.dead_dimensions(wide).tolist() == [3]


def test_the_gap_is_the_distance_of_the_means():
    audio, text = torch.eye(3)[[0, 0]], torch.eye(3)[[1, 2]]
    assert geometry.modality_gap(audio, text) == pytest.approx(math.sqrt(1 + 0.25 + 0.25))
    assert geometry.modality_gap(audio, audio) == 0


def test_alignment_and_the_cosines_of_pairs_are_those_of_a_mask():
    audio, text = directions(7, 4), directions(5, 4, seed=1)
    relevance = torch.rand(7, 5, generator=torch.Generator().manual_seed(2)) < 0.3
    score = (audio @ text.T).double()
    right, wrong = score[relevance], score[~relevance]
    expected = (right.mean(), right.std(correction=0), wrong.mean(), wrong.std(correction=0))
    assert geometry.pair_cosines(audio, text, relevance) == pytest.approx([float(each) for each in expected], abs=1e-6)
    squared = (audio[:, None] - text).square().sum(dim=2)[relevance].mean()
    assert geometry.alignment(audio, text, relevance) == pytest.approx(float(squared), abs=1e-5)
    with pytest.raises(ValueError, match="right ones and wrong ones"):
        geometry.pair_cosines(audio, text, torch.ones(7, 5, dtype=torch.bool))


def test_k_occurrence_counts_lists_and_its_skewness_is_scipys():
    queries, candidates = directions(30, 5), directions(12, 5, seed=1)
    counts = geometry.k_occurrence(queries, candidates, 3)
    best = np.argsort(-(queries @ candidates.T).numpy(), axis=1)[:, :3]
    assert counts.tolist() == np.bincount(best.ravel(), minlength=12).tolist()
    assert int(counts.sum()) == 90
    assert geometry.skewness(counts) == pytest.approx(float(stats.skew(counts.numpy())))
    assert geometry.skewness(torch.full((9,), 2)) == 0
    assert geometry.chance_skewness(100, 50, 10) == pytest.approx(float(stats.binom(100, 0.2).stats("s")))
    with pytest.raises(ValueError, match="k must be from 1 to the 12 candidates, got 13"):
        geometry.k_occurrence(queries, candidates, 13)


def test_items_with_the_same_right_answers_are_one_group_and_those_without_are_alone():
    relevance = torch.tensor([[1, 0], [1, 0], [0, 1], [0, 0], [0, 0], [1, 1]]).bool()
    groups = geometry.to_be_told_apart(relevance).tolist()
    assert groups[0] == groups[1]
    assert len(set(groups)) == 5
    assert sorted(set(groups)) == list(range(5))


def test_one_group_or_one_item_is_refused():
    with pytest.raises(ValueError, match="at least two groups"):
        geometry.mean_cosine(directions(4, 3), torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match="at least 2 items"):
        geometry.singular_values(directions(1, 3))
