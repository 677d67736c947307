"""Unseen tags, versions of works, people's triplets, and whether a difference is more than luck."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from random_vectors import unit
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from xmodal.evaluation import (
    agreed_triplets,
    evaluate_alike,
    evaluate_zero_shot,
    rank_alike,
    strike_out,
    triplet_agreement,
    zero_shot_split,
)
from xmodal.metrics import paired_permutation_test


@pytest.fixture
def labelled():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(120, 20, generator=generator), torch.rand(120, 20, generator=generator) < 0.12


# -- unseen tags --------------------------------------------------------------------------------------------------


def test_tracks_are_parted_by_the_sort_of_tags_they_have():
    labels = torch.tensor([[1, 0, 0], [1, 0, 1], [0, 0, 1], [0, 0, 0], [0, 1, 0]]).bool()
    split = zero_shot_split(labels, unseen=[2])
    assert split.unseen.tolist() == [False, False, True]
    assert [split.a.int().tolist(), split.b.int().tolist(), split.c.int().tolist()] == [
        [1, 0, 0, 0, 1], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0],
    ]  # fmt: skip


def test_a_share_of_the_tags_is_drawn_evenly_over_their_frequencies(labelled):
    _, labels = labelled
    split = zero_shot_split(labels, unseen=0.25, seed=3)
    assert int(split.unseen.sum()) == 5
    by_frequency = labels.sum(0).argsort(descending=True, stable=True)
    assert split.unseen[by_frequency].reshape(5, 4).sum(1).tolist() == [1, 1, 1, 1, 1]
    assert torch.equal(split.unseen, zero_shot_split(labels, unseen=0.25, seed=3).unseen)
    assert not torch.equal(split.unseen, zero_shot_split(labels, unseen=0.25, seed=4).unseen)


@pytest.mark.parametrize("unseen", [0.0, 1.0, [], list(range(20)), [20], [-1]])
def test_a_split_without_seen_or_unseen_tags_is_refused(labelled, unseen):
    with pytest.raises(ValueError, match="unseen must|some seen|must be seen"):
        zero_shot_split(labelled[1], unseen=unseen)


def test_figures_are_scikit_learn_s_over_unseen_and_over_all_tags(labelled):
    score, labels = labelled
    unseen = torch.arange(20) >= 15
    figures = evaluate_zero_shot(score, labels, unseen)

    def macro(function, columns):
        return np.mean([function(labels[:, c].numpy(), score[:, c].numpy()) for c in columns])

    assert figures["zero-shot"]["ROC-AUC"] == pytest.approx(macro(roc_auc_score, range(15, 20)))
    assert figures["generalised"]["mAP"] == pytest.approx(macro(average_precision_score, range(20)))
    seen, new = (macro(average_precision_score, columns) for columns in (range(15), range(15, 20)))
    assert figures["generalised"]["mAP unseen"] == pytest.approx(new)
    assert figures["generalised"]["harmonic mean"] == pytest.approx(2 * seen * new / (seen + new))
    for way, columns in (("zero-shot", slice(15, 20)), ("generalised", slice(0, 20))):
        hits, precisions = [], []
        for row in range(120):
            right = labels[row, columns]
            if right.any():
                top = right[score[row, columns].argsort(descending=True)[:3]]
                hits.append(float(top.any()))
                precisions.append(float(top.float().mean()))
        assert figures[way]["hit@3"] == pytest.approx(np.mean(hits))
        assert figures[way]["P@3"] == pytest.approx(np.mean(precisions))
        assert figures[way]["tracks"] == len(hits)
    assert "hit@10" not in figures["zero-shot"]
    assert figures["zero-shot"]["tags"] == 5


def test_an_unknown_tag_pushes_nothing_aside():
    score = torch.tensor([[0.9, 0.5, 0.1], [0.1, 0.2, 0.9]])
    labels = torch.tensor([[False, True, False], [True, False, True]])
    valid = torch.tensor([[False, True, True], [True, True, True]])
    figures = evaluate_zero_shot(score, labels, torch.tensor([False, False, True]), valid=valid, ks=(1,))
    assert figures["generalised"]["hit@1"] == 1


def test_struck_out_tags_are_gone_whatever_their_spelling():
    kept = strike_out([{"mood": ("Calm", "sad"), "genre": ("jazz",)}, {"mood": ("calm",)}], ["CALM", "Jazz"])
    assert kept == [{"mood": ("sad",)}, {}]


# -- likeness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("filtered", [False, True])
def test_versions_are_ranked_like_a_plain_loop_without_the_asking_track(filtered):
    vectors = unit(30)
    work, artist = torch.arange(30) // 3, torch.arange(30) % 4
    found = evaluate_alike(vectors, work, exclude=artist if filtered else None, ks=(1, 5))
    precisions, first, hits = [], [], []
    for query in range(30):
        others = [t for t in range(30) if t != query and not (filtered and artist[t] == artist[query])]
        others.sort(key=lambda t: -float(vectors[query] @ vectors[t]))
        right = np.array([bool(work[t] == work[query]) for t in others])
        if right.any():
            places = right.nonzero()[0] + 1
            precisions.append(np.mean(np.arange(1, len(places) + 1) / places))
            first.append(places[0])
            hits.append(right[:5].any())
    assert found["MAP"] == pytest.approx(np.mean(precisions))
    assert found["MR1"] == pytest.approx(np.mean(first))
    assert found["R@5"] == pytest.approx(np.mean(hits))
    assert found["queries"] == len(first)


def test_tracks_without_another_version_do_not_ask():
    ranking = rank_alike(unit(5), torch.tensor([0, 0, 1, 2, 3]))
    assert ranking.rows.tolist() == [0, 1]
    with pytest.raises(ValueError, match="none of the 5 queries has a right answer"):
        rank_alike(unit(5), torch.arange(5))
    with pytest.raises(ValueError, match="one number, got shape"):
        rank_alike(unit(5), torch.arange(4))


def test_triplets_agree_where_the_chosen_track_is_nearer_and_ties_do_not():
    vectors = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.8, 0.6]])
    found = triplet_agreement(vectors, np.array([[0, 1, 2], [0, 2, 1], [2, 1, 0], [0, 1, 3]]))
    assert found.agreement == 0.5
    assert found.triplets == 4
    assert found.interval[0] <= 0.5 <= found.interval[1]
    assert triplet_agreement(vectors, [[0, 1, 2]] @ np.eye(3, dtype=int)).interval is None


def test_votes_keep_what_people_agree_on_and_turn_it_their_way():
    triplets = torch.tensor([[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]])
    votes = torch.tensor([[9, 1], [1, 9], [6, 4], [1, 0]])
    assert agreed_triplets(triplets, votes).tolist() == [[0, 1, 2], [3, 5, 4]]
    assert agreed_triplets(triplets, votes, agreement=0.6, at_least=1).tolist() == [
        [0, 1, 2], [3, 5, 4], [6, 7, 8], [9, 10, 11],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: triplet_agreement(unit(3), torch.zeros(0, 3)), "at least 1, 3"),
        (lambda: triplet_agreement(unit(3), torch.tensor([[0, 1, 3]])), "from 0 to 2"),
        (lambda: agreed_triplets(torch.zeros(2, 3), torch.zeros(1, 2)), r"\[n, 3\] and \[n, 2\]"),
        (lambda: agreed_triplets(torch.zeros(2, 3), torch.zeros(2, 2), agreement=0.5), "above 0.5"),
    ],
)
def test_triplets_that_are_none_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# -- significance -------------------------------------------------------------------------------------------------


def test_few_queries_are_tested_exactly():
    first, second = torch.tensor([1.0, 0.5, 0.9, 0.3]), torch.tensor([0.4, 0.6, 0.2, 0.1])
    difference = (first - second).double()
    sums = [abs(sum(s * d for s, d in zip(signs, difference.tolist(), strict=True)))
            for signs in itertools.product((1, -1), repeat=4)]  # fmt: skip
    expected = np.mean([value >= abs(float(difference.sum())) - 1e-9 for value in sums])
    found = paired_permutation_test(first, second)
    assert found.p_value == pytest.approx(expected)
    assert found.difference == pytest.approx(float(difference.mean()))


def test_many_queries_are_tested_like_scipy():
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(60, generator=generator) + 0.3
    second = torch.randn(60, generator=generator)
    theirs = stats.permutation_test(
        (first.double().numpy(), second.double().numpy()), lambda a, b: np.mean(a - b),
        permutation_type="samples", n_resamples=9999, rng=np.random.default_rng(0),
    )  # fmt: skip
    assert paired_permutation_test(first, second).p_value == pytest.approx(theirs.pvalue, abs=0.015)


def test_equal_models_are_never_significant_and_groups_make_it_harder():
    values = torch.rand(50, generator=torch.Generator().manual_seed(0))
    assert paired_permutation_test(values, values).p_value == 1
    better = values + torch.randn(50, generator=torch.Generator().manual_seed(1)) * 0.2 + 0.08
    alone = paired_permutation_test(better.repeat(10), values.repeat(10)).p_value
    grouped = paired_permutation_test(better.repeat(10), values.repeat(10), groups=torch.arange(50).repeat(10))
    assert alone < 0.001 < grouped.p_value


def test_a_test_of_noise_is_uniform():
    generator = torch.Generator().manual_seed(0)
    found = [
        paired_permutation_test(*torch.randn(2, 30, generator=generator), resamples=199).p_value for _ in range(200)
    ]
    assert 0.02 < np.mean(np.array(found) < 0.1) < 0.18


@pytest.mark.parametrize(
    ("first", "second", "groups"),
    [([], [], None), ([1.0], [1.0, 2.0], None), ([float("nan")], [1.0], None), ([1.0, 2.0], [1.0, 2.0], [1])],
)
def test_values_that_cannot_be_compared_are_refused(first, second, groups):
    with pytest.raises(ValueError, match="two values|finite|one number"):
        paired_permutation_test(
            torch.tensor(first), torch.tensor(second), groups=None if groups is None else torch.tensor(groups)
        )
