"""Refusals of the shared front door, and the shared numerics."""

from __future__ import annotations

import math

import pytest
import torch

from xmodal.losses import EmbeddingLoss, InfoNCELoss, PairwiseLoss, TripletLoss, apply_loss
from xmodal.losses.base import make_pairs
from xmodal.losses.numerics import EMPTY, LogitScale, distance, masked_logsumexp, weight_below

SCORE, RIGHT = torch.zeros(3, 4), torch.eye(3, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(3), torch.zeros(3)), r"score must be a matrix \[audio, text\], got shape \(3,\)"),
        ((SCORE.long(), RIGHT), "score must hold cosines in a floating dtype, got torch.int64"),
        ((SCORE, RIGHT.T), r"relevance must have the score's shape \(3, 4\) \[audio, text\], got \(4, 3\)"),
        ((SCORE, RIGHT, torch.ones(3, 3, dtype=torch.bool)), r"valid must have the score's shape \(3, 4\)"),
        ((SCORE, RIGHT, torch.ones(3, 4)), "valid must be boolean, got torch.float32; .* use weight"),
        ((SCORE, RIGHT, None, torch.ones(4)), r"weight must have the score's shape \(3, 4\)"),
    ],
)
def test_arguments_that_break_the_contract_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        InfoNCELoss()(*arguments)


@pytest.mark.parametrize("weights", [(0.0, 0.0), (-1.0, 2.0), (1.0, math.inf), (1.0, math.nan), (1.0,)])
def test_direction_weights_that_are_no_weights_are_refused(weights):
    with pytest.raises(ValueError, match="direction_weights must be two numbers from 0 up"):
        InfoNCELoss(direction_weights=weights)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mining": "semihard"}, "mining must be one of 'all', 'semi-hard', 'hard', 'batch-hard', got 'semihard'"),
        ({"margin": -0.1}, "margin must be at least 0, got -0.1"),
        ({"margin": math.nan}, "margin must be at least 0, got nan"),
        ({"hardest": 0}, "hardest must be at least 1, got 0"),
    ],
)
def test_a_wrong_setting_is_answered_with_the_right_ones(arguments, message):
    with pytest.raises(ValueError, match=message):
        TripletLoss(**arguments)


@pytest.mark.parametrize("temperature", [0.0, -1.0, 0.001, math.nan])
def test_a_learned_temperature_must_leave_the_scale_below_100(temperature):
    with pytest.raises(ValueError, match="temperature must be at least 0.01"):
        InfoNCELoss(temperature)


def test_a_class_without_a_formula_says_what_to_define():
    with pytest.raises(NotImplementedError, match=r"must define row_terms\(pairs\) or one_direction\(pairs\)"):
        PairwiseLoss()(SCORE, RIGHT)
    with pytest.raises(NotImplementedError, match=r"or compute\(audio, text, pairs\)"):
        EmbeddingLoss()(torch.ones(3, 2), torch.ones(4, 2), RIGHT)


def test_something_that_is_no_loss_is_refused():
    with pytest.raises(ValueError, match="a loss must be a PairwiseLoss or an EmbeddingLoss, got Linear"):
        apply_loss(torch.nn.Linear(2, 2), torch.ones(3, 2), torch.ones(4, 2), RIGHT)


def test_vectors_of_two_dimensions_are_refused():
    with pytest.raises(ValueError, match=r"one dim, got \(3, 2\) and \(4, 5\)"):
        EmbeddingLoss()(torch.ones(3, 2), torch.ones(4, 5), RIGHT)


def test_the_sum_over_an_empty_set_has_a_finite_log_and_no_gradient():
    logits = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    weight = torch.tensor([[0.0, 0.0], [2.0, 0.5]])
    result = masked_logsumexp(logits, weight)
    assert result[0] == EMPTY
    assert result[1].item() == pytest.approx(math.log(2 * math.exp(3) + 0.5 * math.exp(4)), rel=1e-6)
    result.sum().backward()
    assert (logits.grad[0] == 0).all()
    assert logits.grad[1].sum().item() == pytest.approx(1.0)


def test_logits_of_a_thousand_do_not_overflow():
    assert masked_logsumexp(torch.tensor([[1000.0, 999.0]]), torch.ones(1, 2)).isfinite()


@pytest.mark.parametrize("kind", ["cosine", "euclidean", "squared"])
def test_a_distance_of_cosines_is_the_distance_of_vectors(kind):
    angle = torch.tensor(0.7, dtype=torch.float64)
    one, other = torch.tensor([1.0, 0.0], dtype=torch.float64), torch.stack([angle.cos(), angle.sin()])
    expected = {"cosine": 1 - one @ other, "euclidean": (one - other).norm(), "squared": (one - other).norm() ** 2}
    torch.testing.assert_close(distance(one @ other, kind), expected[kind])


def test_equal_vectors_have_distance_nearly_0_and_no_slope():
    score = torch.tensor([1.0, 1.0 + 1e-6], requires_grad=True)
    away = distance(score, "euclidean")
    away.sum().backward()
    assert away.max() <= 1.01e-4
    assert (score.grad == 0).all()


def test_weights_below_a_value_are_counted_as_asked():
    values, weight = torch.tensor([[3.0, 1.0, 2.0, 2.0]]), torch.tensor([[1.0, 10.0, 100.0, 0.0]])
    queries = torch.tensor([[0.0, 2.0, 2.5, 9.0]])
    assert weight_below(values, weight, queries, inclusive=False).tolist() == [[0.0, 10.0, 110.0, 111.0]]
    assert weight_below(values, weight, queries, inclusive=True).tolist() == [[0.0, 110.0, 110.0, 111.0]]


def test_a_learned_scale_stays_at_100_and_finds_its_way_back():
    scale = LogitScale(0.01, learn=True)
    with torch.no_grad():
        scale.log_scale += 1.0
    assert scale().item() == pytest.approx(100.0)
    scale().backward()  # a descent step makes the scale smaller
    assert scale.log_scale.grad.item() == pytest.approx(100.0)
    scale.log_scale.grad = None
    (-scale()).backward()  # a descent step would make it larger still
    assert scale.log_scale.grad.item() == 0.0


def test_a_fixed_temperature_is_no_parameter_and_no_weight():
    loss = InfoNCELoss(0.05, learn_temperature=False)
    assert list(loss.parameters()) == []
    assert loss.state_dict() == {}
    assert loss.scale().item() == pytest.approx(20.0)


def test_a_triplet_loss_of_thousands_of_items_lists_no_triples():
    # 1500 x 1500 with 300 positives a row are 500 million triples.
    score = torch.rand((1500, 1500), generator=torch.Generator().manual_seed(0))
    relevance = torch.zeros(1500, 1500)
    relevance[:, ::5] = 1.0
    some = torch.arange(0, 1500, 500)
    loss = TripletLoss(0.2, mining="all", direction_weights=(1.0, 0.0))
    total, active = loss.row_terms(make_pairs(score, relevance))
    for row in some:
        gaps = 0.2 + score[row][relevance[row] == 0][None, :] - score[row][relevance[row] == 1][:, None]
        torch.testing.assert_close(total[row], gaps.clamp(min=0).double().sum().float(), rtol=1e-4, atol=0)
        # A gap of 0 to within rounding may be counted on either side.
        assert abs(int(active[row]) - int((gaps > 0).sum())) <= int((gaps.abs() < 1e-6).sum())


class Careless(PairwiseLoss):
    def one_direction(self, pairs):
        return pairs.score.detach().nan_to_num().max()


def test_the_base_class_keeps_graph_and_nan_for_a_careless_loss():
    score = SCORE.clone().requires_grad_()
    Careless()(score, RIGHT).backward()
    assert (score.grad == 0).all()
    score = SCORE.clone()
    score[1, 2] = torch.nan
    assert Careless()(score, RIGHT).isnan()
