"""Shortlists: duplicates, groups, diversity, re-ranking and moments against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmodal.refine import at_most_per_group, diverse, moment, reciprocal, without_duplicates


def unit(rows, dim=8, seed=0):
    made = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def near(vector, angle, seed=0):
    """A unit vector so many radians away."""
    other = np.random.default_rng(100 + seed).normal(size=len(vector))
    other -= (other @ vector) * vector
    return (np.cos(angle) * vector + np.sin(angle) * other / np.linalg.norm(other)).astype(np.float32)


def test_a_duplicate_is_left_out_and_a_near_take_is_kept():
    first = unit(1)[0]
    vectors = np.stack([first, near(first, 0.02), near(first, 0.2), first, -first])
    assert without_duplicates(vectors) == [0, 2, 4]
    assert without_duplicates(vectors, known=first[None]) == [2, 4]
    assert without_duplicates(vectors, cosine=0.9) == [0, 4]
    assert without_duplicates(vectors[:0]) == []
    with pytest.raises(ValueError, match="above 0 and at most 1, got 1.5"):
        without_duplicates(vectors, cosine=1.5)


def test_a_chain_of_neighbours_is_judged_against_what_is_listed():
    first = np.array([1.0, 0.0], np.float32)
    chain = np.stack([[np.cos(a), np.sin(a)] for a in (0.0, 0.08, 0.16)]).astype(np.float32)
    assert chain[0] @ chain[1] > 0.995 > chain[0] @ chain[2]
    assert without_duplicates(chain) == [0, 2], "the one between was left out and hides nobody"
    assert without_duplicates(first[None]) == [0]


@given(st.lists(st.one_of(st.none(), st.sampled_from("abc")), max_size=12), st.integers(1, 3))
def test_groups_are_cut_to_their_first_members(groups, most):
    kept = at_most_per_group(groups, most)
    assert kept == [place for place, name in enumerate(groups) if name is None or groups[:place].count(name) < most]


def test_groups_may_be_lists_and_most_must_be_positive():
    assert at_most_per_group([["a", "b"], ["a", "b"], ["a"]], 1) == [0, 2]
    with pytest.raises(ValueError, match="1 or more"):
        at_most_per_group(["a"], 0)


def mmr_by_hand(scores, vectors, k, balance):
    cosines = vectors.astype(np.float64) @ vectors.T
    others = cosines[~np.eye(len(scores), dtype=bool)]
    relevance = (scores - scores.mean()) / scores.std() * others.std() + others.mean()
    taken = [int(np.argmax(relevance))]
    while len(taken) < k:
        rest = [row for row in range(len(scores)) if row not in taken]
        taken.append(max(rest, key=lambda row: balance * relevance[row] - (1 - balance) * cosines[row, taken].max()))
    return taken


@pytest.mark.parametrize("balance", [0.0, 0.3, 0.7, 1.0])
def test_diversity_is_maximal_marginal_relevance(balance):
    vectors, scores = unit(20, seed=1), np.random.default_rng(2).uniform(size=20)
    assert diverse(scores, vectors, 6, balance=balance) == mmr_by_hand(scores, vectors, 6, balance)
    if balance == 1.0:
        assert diverse(scores, vectors, 20, balance=1.0) == np.argsort(-scores).tolist()


def test_diversity_lists_another_kind_before_a_copy():
    first = unit(1)[0]
    vectors = np.stack([first, near(first, 0.01), near(first, 1.4)])
    scores = np.array([0.9, 0.89, 0.6])
    assert diverse(scores, vectors, 3, balance=0.5)[:2] == [0, 2]
    assert diverse(scores, vectors, 9, balance=1.0) == [0, 1, 2]
    assert diverse(scores[:0], vectors[:0], 3, balance=0.5) == []
    with pytest.raises(ValueError, match="from 0 to 1"):
        diverse(scores, vectors, 3, balance=1.1)


def reciprocal_by_hand(scores, vectors, k1, k2, share):
    """The paper's three steps with sets and loops."""
    among = vectors.astype(np.float64) @ vectors.T
    others = among[~np.eye(len(scores), dtype=bool)]
    shifted = (scores - scores.mean()) / scores.std() * others.std() + others.mean()
    items = len(scores) + 1
    distance = np.zeros((items, items))
    for a in range(items):
        for b in range(items):
            if a and b:
                distance[a, b] = 1 - among[a - 1, b - 1]
            elif a != b:
                distance[a, b] = 1 - shifted[max(a, b) - 1]
    near_to = [sorted(range(items), key=lambda b, a=a: (distance[a, b], b)) for a in range(items)]

    def both_ways(a, k):
        return {b for b in near_to[a][: k + 1] if a in near_to[b][: k + 1]}

    described = np.zeros((items, items))
    for a in range(items):
        own = both_ways(a, k1)
        grown = set(own)
        for b in own:
            theirs = both_ways(b, max(1, round(k1 / 2)))
            if len(theirs & own) >= 2 / 3 * len(theirs):
                grown |= theirs
        for b in grown:
            described[a, b] = np.exp(-distance[a, b])
        described[a] /= described[a].sum()
    smooth = np.stack([described[near_to[a][:k2]].mean(axis=0) for a in range(items)])
    final = []
    for b in range(1, items):
        low, high = np.minimum(smooth[0], smooth[b]).sum(), np.maximum(smooth[0], smooth[b]).sum()
        final.append((1 - share) * (1 - low / high) + share * distance[0, b])
    return np.argsort(final, kind="stable").tolist()


@pytest.mark.parametrize(("k1", "k2", "share"), [(5, 3, 0.3), (20, 6, 0.3), (3, 1, 0.0)])
def test_reciprocal_re_ranking_is_the_papers(k1, k2, share):
    vectors, scores = unit(25, seed=3), np.random.default_rng(4).uniform(size=25)
    found = reciprocal(scores, vectors, neighbours=k1, expansion=k2, share=share)
    assert found == reciprocal_by_hand(scores, vectors, k1, k2, share)
    assert sorted(found) == list(range(25))


def test_reciprocal_re_ranking_brings_the_friends_of_friends_up():
    centre, stranger = unit(2, dim=16, seed=5)
    friends = np.stack([near(centre, 0.3, seed) for seed in range(6)])
    vectors = np.concatenate([friends, stranger[None]])
    scores = np.array([0.50, 0.49, 0.48, 0.47, 0.46, 0.44, 0.45])
    assert np.argsort(-scores).tolist().index(6) == 5, "by score alone the stranger is before the last friend"
    assert reciprocal(scores, vectors, neighbours=5, expansion=3)[-1] == 6
    assert reciprocal(scores, vectors, share=1.0) == np.argsort(-scores, kind="stable").tolist()
    assert reciprocal(scores[:1], vectors[:1]) == [0]
    with pytest.raises(ValueError, match="share from 0 to 1"):
        reciprocal(scores, vectors, share=2.0)


def test_a_moment_is_the_best_window_and_its_good_neighbours():
    starts, ends = [0.0, 10.0, 20.0, 30.0, 40.0], [10.0, 20.0, 30.0, 40.0, 45.0]
    assert moment(np.array([0.1, 0.1, 0.9, 0.8, 0.1]), starts, ends) == (20.0, 40.0)
    assert moment(np.array([0.9, 0.1, 0.1, 0.1, 0.9]), starts, ends) == (0.0, 10.0)
    assert moment(np.array([0.5] * 5), starts, ends) == (0.0, 45.0)
    assert moment(np.array([0.3]), [0.0], [4.0]) == (0.0, 4.0)
    with pytest.raises(ValueError, match="at least one window"):
        moment(np.array([]), [], [])
