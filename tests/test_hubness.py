"""Corrections for hubs against plain loops and the cases in which the answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from xmodal.metrics import (
    HubCorrection,
    csls,
    distance_ratio,
    inverted_softmax,
    map_at_k,
    querybank_norm,
    rho_spectrum,
)


def draw(seed, rows, columns):
    return torch.rand((rows, columns), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


SCORES, BANK = draw(0, 4, 7), draw(1, 9, 7)
METHODS = ["csls", "inverted softmax", "querybank norm"]


def test_csls_is_what_loops_say():
    s, bank = SCORES.numpy(), BANK.numpy()
    expected = np.zeros(s.shape)
    for i in range(4):
        for j in range(7):
            near_query = np.mean(sorted(s[i], reverse=True)[:3])
            near_candidate = np.mean(sorted(bank[:, j], reverse=True)[:3])
            expected[i, j] = 2 * s[i, j] - near_query - near_candidate
    assert_close(csls(SCORES, BANK, k=3), torch.from_numpy(expected))


def test_the_inverted_softmax_is_what_loops_say():
    s, bank = SCORES.numpy(), BANK.numpy()
    expected = [[np.log(np.exp(s[i, j] / 0.3) / np.exp(bank[:, j] / 0.3).sum()) for j in range(7)] for i in range(4)]
    assert_close(inverted_softmax(SCORES, BANK, temperature=0.3), torch.tensor(expected))


@pytest.mark.parametrize("k", [1, 2])
def test_querybank_norm_is_what_loops_say(k):
    scores = draw(5, 20, 7)
    s, bank = scores.numpy(), BANK[:2].numpy()
    activated = {j for row in bank for j in np.argsort(-row)[:k]}
    expected, changed = s.copy(), 0
    for i in range(20):
        if int(s[i].argmax()) in activated:
            changed += 1
            expected[i] = [s[i, j] / 0.3 - np.log(np.exp(bank[:, j] / 0.3).sum()) for j in range(7)]
    assert 0 < changed < 20
    assert_close(querybank_norm(scores, BANK[:2], temperature=0.3, k=k), torch.from_numpy(expected))


def test_over_its_own_queries_the_inverted_softmax_is_a_softmax_over_queries():
    corrected = inverted_softmax(SCORES, SCORES, temperature=0.2)
    assert_close(corrected, (SCORES / 0.2).log_softmax(dim=0))


@pytest.mark.parametrize("method", METHODS)
def test_a_bank_that_is_as_near_to_every_candidate_leaves_the_order(method):
    corrected = HubCorrection.fit(torch.full((5, 7), 0.3, dtype=torch.float64), method).apply(SCORES)
    assert torch.equal(corrected.argsort(dim=1), SCORES.argsort(dim=1))


@pytest.mark.parametrize("method", METHODS)
def test_a_constant_on_a_candidate_s_scores_everywhere_is_taken_off_again(method):
    offset = torch.tensor([0.0, 0.4, -0.3, 0.1, 0.0, 0.2, -0.1])
    plain = HubCorrection.fit(BANK, method, k=3).apply(SCORES)
    shifted = HubCorrection.fit(BANK + offset, method, k=3).apply(SCORES + offset)
    if method == "csls":  # twice the score against one mean in the bank: half of the query's own mean stays
        plain, shifted = plain - plain[:, :1], shifted - offset - (shifted - offset)[:, :1]
    if method == "querybank norm":
        hub = (SCORES + offset).argmax(dim=1) == SCORES.argmax(dim=1)
        plain, shifted = plain[hub], shifted[hub]
    assert_close(shifted, plain)


def test_a_hub_that_wins_every_query_no_longer_does():
    generator = torch.Generator().manual_seed(0)
    candidates = torch.nn.functional.normalize(torch.randn((60, 16), generator=generator), dim=1)
    hubby = candidates @ candidates.T + 0.1 * torch.randn((60, 60), generator=generator)
    hubby[:, :6] += 0.9  # six candidates that are near to everybody
    right = torch.eye(60, dtype=torch.bool)
    before = map_at_k(hubby[30:], right[30:], 10)
    for method in METHODS:
        after = map_at_k(HubCorrection.fit(hubby[:30], method).apply(hubby[30:]), right[30:], 10)
        assert after > before + 0.3, method


@pytest.mark.parametrize("method", METHODS)
def test_a_bank_in_blocks_and_lists_of_hits_give_the_same_numbers(method):
    whole = HubCorrection.fit(BANK, method, k=3)
    blocks = HubCorrection.fit(iter([BANK[:2], BANK[2:2], BANK[2:]]), method, k=3)
    assert_close(blocks.penalty, whole.penalty)
    assert torch.equal(blocks.activated, whole.activated)
    top = SCORES.topk(4, dim=1)
    assert_close(whole.apply(top.values, top.indices), whole.apply(SCORES).gather(1, top.indices))


def test_large_scores_do_not_overflow():
    assert inverted_softmax(1000 * SCORES, 1000 * BANK, temperature=0.01).isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: HubCorrection.fit(BANK, "cls"),
            "method must be 'csls', .* or 'querybank norm', got 'cls'",
        ),
        (lambda: csls(SCORES, BANK, k=0), "k must be at least 1"),
        (lambda: inverted_softmax(SCORES, BANK, temperature=0.0), "temperature above 0"),
        (lambda: csls(SCORES, BANK[:0]), "the bank has no queries; give the scores of some training queries"),
        (lambda: csls(SCORES[:, :5], BANK), "the bank has 7 candidates and scores has 5"),
        (lambda: csls(SCORES * math.nan, BANK), "scores holds NaN or infinite scores"),
        (lambda: csls(SCORES, BANK[0]), r"bank must be a matrix \[queries, candidates\] of numbers, got shape \(7,\)"),
    ],
)
def test_what_cannot_be_corrected_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_spectrum_of_even_directions_has_no_divergence_and_a_collapsed_one_has():
    assert rho_spectrum(torch.eye(5)) == pytest.approx(0.0, abs=1e-9)
    values = torch.tensor([4.0, 2.0, 1.0])
    share = values / 7
    expected = sum(math.log((1 / 3) / float(each)) / 3 for each in share)
    assert rho_spectrum(torch.diag(values)) == pytest.approx(expected, rel=1e-6)
    assert rho_spectrum(torch.ones(6, 4)) > 10
    with pytest.raises(ValueError, match="not all 0"):
        rho_spectrum(torch.zeros(3, 2))


def test_the_distance_ratio_is_that_of_mean_distances():
    score = torch.tensor([[0.5, -1.0], [0.0, 0.875]])
    right = torch.tensor([[True, False], [False, True]])
    assert distance_ratio(score, right) == pytest.approx((1.0 + 0.5) / (2.0 + math.sqrt(2.0)))
