"""Metrics against scikit-learn, plain loops, identities and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    average_precision_score,
    label_ranking_average_precision_score,
    ndcg_score,
    roc_auc_score,
)

from xmodal import metrics
from xmodal.metrics import _common, rank, rank_vectors, retrieval_metrics

AT_K = [metrics.recall_at_k, metrics.precision_at_k, metrics.map_at_k, metrics.ndcg_at_k]
WHOLE_LIST = [metrics.map_at_k, metrics.map_at_r, metrics.mean_reciprocal_rank, metrics.r_precision]


# -- plain loops, the oracle --------------------------------------------------------------------------------------


def result_list(scores, grades):
    """Grades in the order of the list: falling score, and the lowest grade first among equal scores."""
    return [grade for _, grade in sorted(zip(scores, grades, strict=True), key=lambda pair: (-pair[0], pair[1]))]


def loop_average_precision(grades, k, normaliser):
    hits, total = 0, 0.0
    for place, grade in enumerate(grades[:k], start=1):
        if grade > 0:
            hits += 1
            total += hits / place
    return total / normaliser


def loop_gain(grades, k):
    return sum(grade / math.log2(1 + place) for place, grade in enumerate(grades[:k], start=1))


def loop_metrics(score, relevance, k):
    """Every metric of every query."""
    table = []
    for scores, grades in zip(score.tolist(), relevance.tolist(), strict=True):
        listed = result_list(scores, grades)
        right = sum(grade > 0 for grade in listed)
        first = next(place for place, grade in enumerate(listed, start=1) if grade > 0)
        table.append(
            {
                "hit": float(first <= k),
                "first_place": first,
                "reciprocal_rank": 1 / first,
                "precision": sum(grade > 0 for grade in listed[:k]) / k,
                "r_precision": sum(grade > 0 for grade in listed[:right]) / right,
                "average_precision": loop_average_precision(listed, len(listed), right),
                "average_precision_at_k": loop_average_precision(listed, k, min(k, right)),
                "average_precision_at_r": loop_average_precision(listed, right, right),
                "ndcg": loop_gain(listed, k) / loop_gain(sorted(listed, reverse=True), k),
            }
        )
    return {name: [row[name] for row in table] for name in table[0]}


@st.composite
def problems(draw, graded=True):
    """A small score matrix full of ties and negative scores, grades with a right answer in every row, and a k."""
    queries, candidates = draw(st.integers(1, 5)), draw(st.integers(1, 8))
    values = st.sampled_from([-1.0, -0.5, -0.0, 0.0, 0.25, 1.0])
    grades = st.integers(0, 3 if graded else 1)

    def rows(row):
        return draw(st.lists(row, min_size=queries, max_size=queries))

    score = rows(st.lists(values, min_size=candidates, max_size=candidates))
    relevance = rows(st.lists(grades, min_size=candidates, max_size=candidates).filter(any))
    return torch.tensor(score), torch.tensor(relevance), draw(st.integers(1, candidates))


@settings(max_examples=300, deadline=None)
@given(problems())
def test_every_metric_of_every_query_equals_a_plain_loop(problem):
    score, relevance, k = problem
    expected = loop_metrics(score, relevance, k)
    ranking = rank(score, relevance)
    found = {
        "hit": ranking.hit(k),
        "first_place": ranking.first_place(),
        "reciprocal_rank": ranking.reciprocal_rank(),
        "precision": ranking.precision(k),
        "r_precision": ranking.r_precision(),
        "average_precision": ranking.average_precision(),
        "average_precision_at_k": ranking.average_precision(k),
        "average_precision_at_r": ranking.average_precision_at_r(),
        "ndcg": ranking.ndcg(k),
    }
    assert found.keys() == expected.keys()
    for name, values in found.items():
        assert values.tolist() == pytest.approx(expected[name], abs=1e-9), name


def test_every_function_is_the_mean_of_its_per_query_values():
    score = torch.tensor([[0.9, 0.1, -0.3, -0.4], [0.2, 0.3, 0.1, 0.0], [0.0, 0.1, 0.2, 0.3]])
    relevance = torch.tensor([[0, 2, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    expected = {name: np.asarray(values) for name, values in loop_metrics(score, relevance, 2).items()}
    for function, name in [
        (metrics.recall_at_k, "hit"),
        (metrics.precision_at_k, "precision"),
        (metrics.map_at_k, "average_precision_at_k"),
        (metrics.ndcg_at_k, "ndcg"),
    ]:
        assert function(score, relevance, 2) == pytest.approx(expected[name].mean()), name
    for function, name in [
        (metrics.mean_reciprocal_rank, "reciprocal_rank"),
        (metrics.map_at_k, "average_precision"),
        (metrics.map_at_r, "average_precision_at_r"),
        (metrics.r_precision, "r_precision"),
    ]:
        assert function(score, relevance) == pytest.approx(expected[name].mean()), name
    assert metrics.median_rank(score, relevance) == np.median(expected["first_place"])


# -- ties, signs, worked examples ---------------------------------------------------------------------------------


def test_negative_scores_are_ordinary_scores():
    score, relevance = torch.tensor([[0.9, -0.1, -0.2, -0.3]]), torch.tensor([[False, True, True, False]])
    assert metrics.map_at_k(score, relevance) == pytest.approx((1 / 2 + 2 / 3) / 2)
    shifted = retrieval_metrics(score - 5, relevance, ks=(1, 3))
    assert shifted == retrieval_metrics(score, relevance, ks=(1, 3))


def test_tied_right_answers_stand_after_the_tied_wrong_ones_and_after_each_other():
    score = torch.tensor([[0.9, 0.5, 0.5, 0.5, 0.5, 0.1]])
    relevance = torch.tensor([[False, True, False, True, False, True]])
    assert rank(score, relevance).place.tolist() == [4, 5, 6]


def test_tied_grades_stand_with_the_lowest_first():
    score, relevance = torch.tensor([[0.5, 0.5, 0.5]]), torch.tensor([[3, 1, 2]])
    assert rank(score, relevance).gain.tolist() == [1, 2, 3]
    assert rank(score, relevance).ideal.tolist() == [3, 2, 1]


@pytest.mark.parametrize("function", WHOLE_LIST)
def test_constant_scores_do_not_look_perfect(function):
    relevance = torch.eye(10, dtype=torch.bool)
    assert function(torch.zeros(10, 10), relevance) <= 0.1
    assert metrics.recall_at_k(torch.zeros(10, 10), relevance, 9) == 0
    assert metrics.median_rank(torch.zeros(10, 10), relevance) == 10


def test_median_rank_between_two_middle_places_is_their_mean():
    score, relevance = torch.eye(4), torch.tensor([[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [1, 0, 0, 0]]).bool()
    assert rank(score, relevance).first_place().tolist() == [1, 4, 1, 4]
    assert metrics.median_rank(score, relevance) == 2.5


def test_map_at_r_punishes_what_r_precision_forgives():
    """Musgrave et al. 2020: only right answers within R count, each with the precision at its place."""
    relevance = torch.tensor([[True, True, True, False, False, False]])
    first_right = torch.tensor([[6.0, 1.0, 0.0, 5.0, 4.0, 3.0]])
    last_right = torch.tensor([[4.0, 1.0, 0.0, 6.0, 5.0, 3.0]])
    for score in (first_right, last_right):
        assert metrics.r_precision(score, relevance) == pytest.approx(1 / 3)
    assert metrics.map_at_r(first_right, relevance) == pytest.approx(1 / 3)
    assert metrics.map_at_r(last_right, relevance) == pytest.approx(1 / 9)


# -- scikit-learn -------------------------------------------------------------------------------------------------


def untied_problem(seed, queries=40, candidates=60, right=0.2):
    generator = torch.Generator().manual_seed(seed)
    score = torch.randperm(queries * candidates, generator=generator).reshape(queries, candidates).double() / 1000 - 1
    relevance = torch.rand(queries, candidates, generator=generator) < right
    relevance[:, 0] = True
    return score, relevance


def test_average_precision_equals_scikit_learn():
    score, relevance = untied_problem(0)
    expected = [average_precision_score(r, s) for r, s in zip(relevance.numpy(), score.numpy(), strict=True)]
    assert rank(score, relevance).average_precision().tolist() == pytest.approx(expected)
    assert metrics.map_at_k(score, relevance) == pytest.approx(label_ranking_average_precision_score(relevance, score))


@pytest.mark.parametrize("k", [1, 7, 60])
def test_graded_ndcg_equals_scikit_learn(k):
    score, _ = untied_problem(1)
    grades = torch.randint(0, 5, score.shape, generator=torch.Generator().manual_seed(2))
    assert metrics.ndcg_at_k(score, grades, k) == pytest.approx(ndcg_score(grades.numpy(), score.numpy(), k=k))


@settings(max_examples=100, deadline=None)
@given(problems(graded=False), st.randoms(use_true_random=False))
def test_tag_areas_equal_scikit_learn_with_ties_and_unknown_tags(problem, random):
    score, relevance, _ = problem
    valid = torch.tensor([[random.random() < 0.7 for _ in row] for row in score.tolist()])
    roc, pr = metrics.roc_auc_per_tag(score, relevance, valid), metrics.pr_auc_per_tag(score, relevance, valid)
    for tag in range(score.shape[1]):
        judged = valid[:, tag].numpy()
        right, scores = relevance[:, tag].numpy()[judged], score[:, tag].numpy()[judged]
        if right.any() and not right.all():
            assert roc[tag].item() == pytest.approx(roc_auc_score(right, scores))
            assert pr[tag].item() == pytest.approx(average_precision_score(right, scores))
        else:
            assert roc[tag].isnan()
            assert pr[tag].isnan()


def test_tag_metrics_are_macro_means_that_count_what_they_leave_out():
    score, relevance = untied_problem(3, queries=50, candidates=6)
    relevance[:, 0] = True  # no negative
    relevance[:, 1] = False  # no positive
    kept = relevance[:, 2:].numpy(), score[:, 2:].numpy()
    assert metrics.tag_metrics(score, relevance) == {
        "ROC-AUC": pytest.approx(roc_auc_score(*kept, average="macro")),
        "PR-AUC": pytest.approx(average_precision_score(*kept, average="macro")),
        "tags": 4,
        "tags left out": 2,
    }
    assert metrics.roc_auc(score, relevance) == pytest.approx(roc_auc_score(*kept, average="macro"))
    assert metrics.pr_auc(score, relevance) == pytest.approx(average_precision_score(*kept, average="macro"))


def test_an_unknown_tag_is_not_a_negative():
    score = torch.tensor([[0.9], [0.8], [0.1]])
    relevance = torch.tensor([[False], [True], [False]])
    assert metrics.roc_auc(score, relevance) == 0.5
    assert metrics.roc_auc(score, relevance, valid=torch.tensor([[False], [True], [True]])) == 1


def test_constant_tag_scores_are_at_chance():
    relevance = torch.tensor([[True], [False], [False], [False]])
    assert metrics.roc_auc(torch.zeros(4, 1), relevance) == 0.5
    assert metrics.pr_auc(torch.zeros(4, 1), relevance) == 0.25


# -- identities ---------------------------------------------------------------------------------------------------


def test_a_perfect_ranking_scores_one_everywhere():
    _, relevance = untied_problem(4)
    score = relevance.double() + torch.rand(relevance.shape, generator=torch.Generator().manual_seed(0)) / 2
    figures = retrieval_metrics(score, relevance)
    assert list(figures) == ["R@1", "R@5", "R@10", "MedR", "MRR", "mAP@10", "MAP@R", "nDCG@10"]
    assert figures == {name: pytest.approx(1) for name in figures}
    assert metrics.map_at_k(score, relevance) == metrics.r_precision(score, relevance) == 1
    assert metrics.roc_auc(score[:, 1:], relevance[:, 1:]) == metrics.pr_auc(score[:, 1:], relevance[:, 1:]) == 1


def test_recall_never_falls_with_k_and_ends_at_one():
    score, relevance = untied_problem(5, right=0.01)
    recall = [metrics.recall_at_k(score, relevance, k) for k in range(1, 61)]
    assert all(before <= after for before, after in itertools.pairwise(recall))
    assert recall[0] < 0.5
    assert recall[-1] == 1


@settings(max_examples=60, deadline=None)
@given(problems(), st.randoms(use_true_random=False))
def test_the_order_of_queries_and_candidates_does_not_matter(problem, random):
    score, relevance, k = problem
    rows, columns = list(range(score.shape[0])), list(range(score.shape[1]))
    random.shuffle(rows)
    random.shuffle(columns)
    moved = rank(score[rows][:, columns], relevance[rows][:, columns]).values((k,))
    for name, values in rank(score, relevance).values((k,)).items():
        assert moved[name].tolist() == pytest.approx(values[rows].tolist()), name


def test_a_rising_function_of_the_scores_changes_nothing():
    score, relevance = untied_problem(6)
    assert retrieval_metrics(torch.exp(3 * score), relevance) == retrieval_metrics(score, relevance)


def test_the_transposed_matrix_gives_the_other_direction():
    score, relevance = untied_problem(7, queries=30, candidates=20)
    relevance[0] = True
    expected = loop_metrics(score.T, relevance.T.int(), 5)
    assert metrics.map_at_k(score.T, relevance.T, 5) == pytest.approx(np.mean(expected["average_precision_at_k"]))
    assert metrics.map_at_k(score.T, relevance.T, 5) != pytest.approx(metrics.map_at_k(score, relevance, 5))


def test_grades_above_zero_are_right_answers_for_everything_but_ndcg():
    score, relevance = untied_problem(8)
    grades = relevance * torch.randint(1, 4, relevance.shape, generator=torch.Generator().manual_seed(0))
    binary, graded = retrieval_metrics(score, relevance), retrieval_metrics(score, grades)
    assert binary.pop("nDCG@10") != graded.pop("nDCG@10")
    assert binary == graded


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
def test_relevance_of_zeros_and_ones_may_have_any_dtype(dtype):
    score, relevance = untied_problem(9)
    assert retrieval_metrics(score, relevance.to(dtype)) == retrieval_metrics(score, relevance)
    assert metrics.tag_metrics(score, relevance.to(dtype)) == metrics.tag_metrics(score, relevance)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_scores_are_ranked_as_the_numbers_they_are(dtype):
    score, relevance = untied_problem(10)
    score = score.to(dtype)
    assert retrieval_metrics(score, relevance) == retrieval_metrics(score.double(), relevance)
    assert metrics.tag_metrics(score, relevance) == metrics.tag_metrics(score.double(), relevance)


def test_the_metrics_leave_their_arguments_alone():
    score, relevance = untied_problem(11)
    score.requires_grad_()
    before = score.detach().clone()
    retrieval_metrics(score, relevance)
    metrics.tag_metrics(score, relevance)
    assert torch.equal(score, before)


@pytest.mark.parametrize("block", [1, 100, 10**6])
def test_the_size_of_a_block_changes_nothing(block, monkeypatch):
    score, relevance = untied_problem(12)
    relevance[5] = False
    grades = relevance * torch.randint(1, 4, relevance.shape, generator=torch.Generator().manual_seed(0))
    expected = rank(score, grades, without_right="leave_out")
    areas = metrics.roc_auc_per_tag(score, relevance), metrics.pr_auc_per_tag(score, relevance)
    for module in (metrics.places, metrics.tags):
        monkeypatch.setattr(module, "BLOCK", block)
    found = rank(score, grades, without_right="leave_out")
    for name in ("place", "gain", "ideal", "count", "rows", "query", "nth"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    for function, expected_areas in zip((metrics.roc_auc_per_tag, metrics.pr_auc_per_tag), areas, strict=True):
        torch.testing.assert_close(function(score, relevance), expected_areas, rtol=1e-12, atol=0, equal_nan=True)


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("most", [3, 30])
def test_a_sparse_relevance_is_ranked_like_the_dense_one(graded, most):
    """Few right answers a query are counted, many are sorted; queries without one lie between the others."""
    generator = torch.Generator().manual_seed(most)
    queries, candidates = (torch.randint(-2, 3, (n, 4), generator=generator).float() for n in (23, 40))
    relevance = torch.zeros(23, 40)
    for row in range(0, 23, 2):
        right = torch.randperm(40, generator=generator)[: 1 + row * most // 23]
        relevance[row, right] = torch.randint(1, 4, (len(right),), generator=generator).float()
    relevance = relevance if graded else relevance > 0
    dense = rank_vectors(queries, candidates, relevance, without_right="leave_out")
    entries = relevance.nonzero()[torch.randperm(int((relevance > 0).sum()), generator=generator)]
    sparse = torch.sparse_coo_tensor(entries.T, relevance[tuple(entries.T)], relevance.shape, check_invariants=True)
    found = rank_vectors(queries, candidates, sparse, without_right="leave_out")
    for name in ("place", "gain", "ideal", "count", "rows"):
        torch.testing.assert_close(getattr(found, name), getattr(dense, name), rtol=0, atol=0)
    with pytest.raises(ValueError, match="11 of 23 have none, the first is query 1;"):
        rank_vectors(queries, candidates, sparse)


@pytest.mark.parametrize("most", [3, 30])
def test_ties_can_count_for_us(most):
    generator = torch.Generator().manual_seed(most)
    score = torch.randint(0, 4, (20, 50), generator=generator).float()
    relevance = torch.rand(20, 50, generator=generator) < most / 60
    relevance[:, 0] = True
    found = rank(score, relevance, ties="for")
    for row, places in zip(range(20), found.place.split(found.count.tolist()), strict=True):
        best = score[row, relevance[row]].sort(descending=True).values
        wrong = score[row, ~relevance[row]]
        assert places.tolist() == [int((wrong > value).sum()) + nth for nth, value in enumerate(best, start=1)]
    with pytest.raises(ValueError, match="'against' or 'for', got 'both'"):
        rank(score, relevance, ties="both")


def test_scores_whose_sum_overflows_are_still_finite():
    assert metrics.recall_at_k(torch.tensor([[3e38, 2e38]]), torch.tensor([[True, False]]), 1) == 1


def test_vectors_are_ranked_like_their_score_matrix():
    generator = torch.Generator().manual_seed(0)
    queries, candidates = torch.randn(30, 8, generator=generator), torch.randn(50, 8, generator=generator)
    relevance = torch.rand(30, 50, generator=generator) < 0.1
    relevance[:, 3] = True
    whole = rank(queries @ candidates.T, relevance)
    assert torch.equal(rank_vectors(queries, candidates, relevance).place, whole.place)


# -- queries without a right answer -------------------------------------------------------------------------------


def test_queries_without_a_right_answer_are_refused_with_their_number_and_the_first():
    relevance = torch.eye(5, dtype=torch.bool)
    relevance[[2, 4]] = False
    with pytest.raises(ValueError, match=r'2 of 5 have none, the first is query 2; .*without_right="leave_out"'):
        rank(torch.eye(5), relevance)


def test_queries_without_a_right_answer_can_be_left_out():
    score, relevance = untied_problem(13)
    relevance[[2, 17]] = False
    kept = [row for row in range(40) if row not in (2, 17)]
    ranking = rank(score, relevance, without_right="leave_out")
    assert ranking.rows.tolist() == kept
    assert len(ranking.reciprocal_rank()) == 38
    assert metrics.chance(relevance, without_right="leave_out") == metrics.chance(relevance[kept])
    for function in AT_K:
        assert function(score, relevance, 3, without_right="leave_out") == function(score[kept], relevance[kept], 3)
    for function in [*WHOLE_LIST, metrics.median_rank, retrieval_metrics]:
        assert function(score, relevance, without_right="leave_out") == function(score[kept], relevance[kept])


def test_nothing_to_measure_is_refused_even_when_leaving_out():
    with pytest.raises(ValueError, match="none of the 3 queries has a right answer"):
        rank(torch.eye(3), torch.zeros(3, 3), without_right="leave_out")
    with pytest.raises(ValueError, match="none of the 3 tags has both a positive and a negative"):
        metrics.roc_auc(torch.eye(3), torch.zeros(3, 3))


def test_a_misspelt_policy_is_refused():
    with pytest.raises(ValueError, match="without_right must be 'refuse' or 'leave_out', got 'skip'"):
        rank(torch.eye(3), torch.eye(3), without_right="skip")


# -- other refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, -1, 6])
@pytest.mark.parametrize("function", AT_K)
def test_k_beyond_the_catalogue_is_refused(function, k):
    with pytest.raises(ValueError, match=f"k must be from 1 to the 5 candidates, got k={k}"):
        function(torch.eye(3, 5), torch.eye(3, 5), k)


def test_a_table_for_no_k_or_too_long_a_k_is_refused():
    with pytest.raises(ValueError, match="ks must name at least one length"):
        retrieval_metrics(torch.eye(3), torch.eye(3), ks=())
    with pytest.raises(ValueError, match="the 3 candidates, got k=10"):
        metrics.chance(torch.eye(3))


@pytest.mark.parametrize("judge", [rank, metrics.roc_auc_per_tag, metrics.pr_auc_per_tag])
@pytest.mark.parametrize(
    ("score", "relevance", "message"),
    [
        (torch.eye(3, 4), torch.eye(4, 3), r"must have one shape .* got \(3, 4\) and \(4, 3\)"),
        (torch.ones(3), torch.ones(3), r"must have one shape .* got \(3,\) and \(3,\)"),
        (torch.ones(0, 3), torch.ones(0, 3), r"not be empty, got \(0, 3\)"),
        (torch.ones(3, 3, dtype=torch.long), torch.ones(3, 3), r"floating-point tensor, got torch.int64; .*float\(\)"),
        (torch.eye(3).log(), torch.ones(3, 3), "scores must be finite, got NaN or infinity"),
        (torch.full((3, 3), math.nan), torch.ones(3, 3), "scores must be finite, got NaN or infinity"),
    ],
)
def test_matrices_that_cannot_be_judged_are_refused(judge, score, relevance, message):
    with pytest.raises(ValueError, match=message):
        judge(score, relevance)


@pytest.mark.parametrize("grade", [-1.0, math.nan])
def test_a_negative_grade_or_nan_is_refused(grade):
    relevance = torch.eye(3)
    relevance[0, 2] = grade
    with pytest.raises(ValueError, match="grades must be 0"):
        rank(torch.eye(3), relevance)


def test_vectors_of_two_dimensions_or_a_wrong_relevance_are_refused():
    with pytest.raises(ValueError, match=r"one dimension, got \(3, 4\) and \(5, 6\)"):
        rank_vectors(torch.ones(3, 4), torch.ones(5, 6), torch.ones(3, 5))
    with pytest.raises(ValueError, match=r"relevance must have shape \(3, 5\) .* got \(5, 3\)"):
        rank_vectors(torch.ones(3, 4), torch.ones(5, 4), torch.ones(5, 3))


@pytest.mark.parametrize("valid", [torch.ones(3, 2, dtype=torch.bool), torch.ones(3, 3)])
def test_a_valid_mask_of_another_kind_is_refused(valid):
    with pytest.raises(ValueError, match=r"valid must be bool of shape \(3, 3\)"):
        metrics.roc_auc_per_tag(torch.eye(3), torch.eye(3), valid)


# -- chance -------------------------------------------------------------------------------------------------------


def test_chance_equals_the_mean_over_all_orders():
    """Every order of five candidates once; the mean is the expectation, with nothing left to luck."""
    score = torch.tensor(list(itertools.permutations([0.0, 1.0, 2.0, 3.0, 4.0])))
    for right in range(1, 6):
        relevance = (torch.arange(5) < right).expand(len(score), 5)
        expected = retrieval_metrics(score, relevance, ks=(1, 2, 4))
        assert metrics.chance(relevance, ks=(1, 2, 4)) == pytest.approx(expected), right
    grades = torch.tensor([3, 0, 1, 0, 2]).expand(len(score), 5)
    expected = retrieval_metrics(score, grades, ks=(3,))["nDCG@3"]
    assert metrics.chance(grades, ks=(3,))["nDCG@3"] == pytest.approx(expected)


def test_chance_of_the_tag_areas_equals_the_mean_over_all_orders():
    score = torch.tensor(list(itertools.permutations([0.0, 1.0, 2.0, 3.0, 4.0]))).T
    relevance = torch.tensor([[True], [True], [False], [False], [True]]).expand(score.shape)
    valid = torch.tensor([[True], [True], [True], [True], [False]]).expand(score.shape)
    expected = metrics.pr_auc(score, relevance, valid)
    assert metrics.pr_auc_chance(relevance, valid).tolist() == pytest.approx([expected] * score.shape[1])
    assert metrics.roc_auc(score, relevance, valid) == pytest.approx(0.5)


def test_tags_that_cannot_be_judged_have_no_chance_level():
    relevance = torch.tensor([[True, False, True, True], [True, False, False, False]])
    valid = torch.tensor([[True, True, True, False], [True, True, True, False]])
    assert metrics.pr_auc_chance(relevance, valid).isnan().tolist() == [True, True, False, True]


def test_chance_equals_a_simulation_with_uneven_numbers_of_right_answers():
    generator = torch.Generator().manual_seed(0)
    right = torch.randint(1, 40, (4000,), generator=generator)
    relevance = torch.arange(200) < right[:, None]
    values = rank(torch.rand(4000, 200, generator=generator), relevance).values()
    found, expected = metrics.summary(values), metrics.chance(relevance)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        # Five standard errors; a median's is about 1.25 times a mean's.
        assert abs(found[name] - value) < 6.3 * values[name].std().item() / math.sqrt(4000), name


def test_chance_stays_exact_in_a_large_catalogue():
    relevance = torch.zeros(1, 100_000, dtype=torch.bool)
    relevance[0, 7] = True
    expected = metrics.chance(relevance)
    assert expected["R@10"] == pytest.approx(1e-4, rel=1e-9)
    assert expected["MedR"] == 50_000
    assert expected["MRR"] == pytest.approx((math.log(100_000) + 0.5772156649) / 100_000, rel=1e-4)


# -- bootstrap ----------------------------------------------------------------------------------------------------


def test_the_interval_of_a_mean_is_that_of_the_normal_law():
    values = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    low, high = metrics.bootstrap_interval(values, resamples=4000)
    error = values.std().item() / math.sqrt(400)
    assert low == pytest.approx(values.mean().item() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean().item() + 1.96 * error, abs=0.15 * error)
    narrow = metrics.bootstrap_interval(values, confidence=0.5)
    assert low < narrow[0] < narrow[1] < high


@pytest.mark.parametrize("statistic", ["mean", "median"])
@pytest.mark.parametrize("grouped", [False, True])
def test_the_interval_equals_a_plain_loop_over_the_same_draws(statistic, grouped):
    values = torch.tensor([3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0])
    groups = torch.tensor([7, 7, 2, 2, 2, 5, 7, 5]) if grouped else None
    members = [[2, 3, 4], [5, 7], [0, 1, 6]] if grouped else [[row] for row in range(8)]
    drawn = torch.randint(len(members), (500, len(members)), generator=torch.Generator().manual_seed(3))
    reduce = np.median if statistic == "median" else np.mean
    figures = [reduce([values[row].item() for group in draw for row in members[group]]) for draw in drawn.tolist()]
    found = metrics.bootstrap_interval(values, statistic=statistic, groups=groups, resamples=500, seed=3)
    assert found == pytest.approx(tuple(np.quantile(figures, [0.025, 0.975])))


def test_values_that_belong_together_make_the_interval_wider():
    values = torch.rand(60, generator=torch.Generator().manual_seed(0)).repeat_interleave(5)
    groups = torch.arange(60).repeat_interleave(5)
    alone, together = metrics.bootstrap_interval(values), metrics.bootstrap_interval(values, groups=groups)
    assert together[1] - together[0] > 1.8 * (alone[1] - alone[0])


def test_the_same_seed_gives_the_same_interval_whatever_the_block(monkeypatch):
    values = torch.rand(50, generator=torch.Generator().manual_seed(0))
    first = metrics.bootstrap_interval(values, seed=1)
    assert metrics.bootstrap_interval(values, seed=1) == first
    assert metrics.bootstrap_interval(values, seed=2) != first
    monkeypatch.setattr(metrics.bootstrap, "BLOCK", 777)
    assert metrics.bootstrap_interval(values, seed=1) == pytest.approx(first)


@pytest.mark.parametrize(
    ("values", "settings_", "message"),
    [
        (torch.ones(1), {}, "at least 2 values or groups to draw from, got 1"),
        (torch.ones(4), {"groups": torch.full((4,), 3)}, "at least 2 values or groups to draw from, got 1"),
        (torch.ones(4), {"groups": torch.arange(3)}, "one number for each of the 4 values, got 3"),
        (torch.ones(2, 2), {}, r"one row of finite numbers, got shape \(2, 2\)"),
        (torch.tensor([1.0, math.nan]), {}, "one row of finite numbers"),
        (torch.ones(3), {"confidence": 1.0}, "confidence must be between 0 and 1"),
        (torch.ones(3), {"resamples": 0}, "resamples at least 1"),
        (torch.ones(3), {"statistic": "mode"}, "statistic must be 'mean' or 'median', got 'mode'"),
    ],
)
def test_an_interval_of_too_little_is_refused(values, settings_, message):
    with pytest.raises(ValueError, match=message):
        metrics.bootstrap_interval(values, **settings_)


def test_rows_are_sorted_as_torch_would():
    values = untied_problem(14)[0]
    assert torch.equal(_common.sorted_rows(values), values.sort(dim=1).values)
