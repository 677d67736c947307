"""Limit cases and published identities, one loss at a time: what a formula must give where the answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_batches import ORDINARY, pick, scores
from sklearn.metrics import average_precision_score, roc_auc_score

from xmodal import losses
from xmodal.losses import apply_loss
from xmodal.losses.base import make_pairs
from xmodal.losses.geometry import snr_distance
from xmodal.losses.numerics import log1mexp

EYE = torch.eye(6, dtype=torch.float64)
SQUARE = scores(40, 6, 6)


def test_one_positive_a_row_makes_infonce_the_cross_entropy_of_clip():
    logits = SQUARE / 0.1
    target = torch.arange(6)
    expected = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    torch.testing.assert_close(losses.InfoNCELoss(0.1).double()(SQUARE, EYE), expected, rtol=1e-6, atol=1e-6)


def test_soft_targets_are_the_cross_entropy_of_probabilities():
    relevance = pick(41, 6, 6, [0.25, 0.5, 1])
    loss = losses.InfoNCELoss(0.2, learn_temperature=False, direction_weights=(1.0, 0.0)).double()
    expected = F.cross_entropy(SQUARE / 0.2, relevance / relevance.sum(dim=1, keepdim=True))
    torch.testing.assert_close(loss(SQUARE, relevance), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("loss", [losses.InfoNCELoss(), losses.NCALoss()])
def test_equal_scores_cost_the_log_of_the_number_of_candidates(loss):
    assert loss(torch.full((7, 7), 0.3), torch.eye(7)).item() == pytest.approx(math.log(7), rel=1e-5)


def test_nca_of_one_positive_is_infonce():
    torch.testing.assert_close(losses.NCALoss(0.1)(SQUARE, EYE), losses.InfoNCELoss(0.1)(SQUARE, EYE))


def test_nca_is_content_with_one_good_positive_and_infonce_is_not():
    score, both = torch.tensor([[1.0, -1.0, -1.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    directions = {"direction_weights": (1.0, 0.0)}
    assert losses.NCALoss(0.1, **directions)(score, both) < 1e-6
    assert losses.InfoNCELoss(0.1, **directions)(score, both) > 5


def test_a_large_scale_does_not_overflow_where_soft_max_then_log_would():
    score, right = torch.tensor([[-1.0, 1.0]], dtype=torch.float64), torch.tensor([[1.0, 0.0]])
    loss = losses.NCALoss(0.005, direction_weights=(1.0, 0.0)).double()
    assert loss(score.float(), right).item() == pytest.approx(400.0, rel=1e-5)


def test_siglip_is_the_binary_cross_entropy_summed_over_a_row():
    logits = SQUARE / 0.5 - 2.0
    expected = F.binary_cross_entropy_with_logits(logits, EYE, reduction="sum") / 6
    torch.testing.assert_close(losses.SigLIPLoss(0.5, bias=-2.0).double()(SQUARE, EYE), expected, rtol=1e-6, atol=1e-6)


def test_a_triplet_loss_is_0_when_and_only_when_all_margins_are_met():
    loss = losses.TripletLoss(0.2, mining="all")
    assert loss(torch.tensor([[0.9, 0.69], [0.6, 0.9]]), torch.eye(2)) == 0
    assert loss(torch.tensor([[0.9, 0.71], [0.6, 0.9]]), torch.eye(2)) > 0


def test_batch_hard_is_the_largest_violation():
    loss = losses.TripletLoss(0.2, mining="batch-hard", average="all", direction_weights=(1.0, 0.0))
    score, relevance = torch.tensor([[0.9, 0.3, 0.5, 0.1]]), torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    assert loss(score, relevance).item() == pytest.approx(0.2 + 0.5 - 0.3)


def test_many_bins_make_the_histogram_loss_one_minus_the_area_under_the_curve():
    relevance = pick(42, 6, 6, [0, 1])
    auc = roc_auc_score(relevance.reshape(-1), SQUARE.reshape(-1))
    assert losses.HistogramLoss(20000)(SQUARE, relevance).item() == pytest.approx(1 - auc, abs=1e-9)


@pytest.mark.parametrize(
    "loss",
    [
        losses.FastAPLoss(20000, direction_weights=(1.0, 0.0)),
        losses.SmoothAPLoss(1e-6, direction_weights=(1.0, 0.0)),
        losses.BlackboxRankLoss("map", margin=0.0, direction_weights=(1.0, 0.0)),
    ],
)
def test_at_its_limit_a_loss_on_ranks_is_one_minus_average_precision(loss):
    relevance = pick(43, 6, 6, [0, 1])
    score = SQUARE.round(decimals=4)  # on the nodes of FastAP's histogram, which shares what lies between two
    rows = zip(relevance.numpy(), score.numpy(), strict=True)
    expected = [average_precision_score(right, row) for right, row in rows if right.any()]
    assert loss(score, relevance).item() == pytest.approx(1 - np.mean(expected), abs=1e-6)


def test_black_box_ranks_have_the_gradient_of_the_published_recipe():
    score = scores(44, 1, 6).requires_grad_()
    relevance = torch.tensor([[1.0, 0, 1, 0, 0, 0]])
    losses.BlackboxRankLoss("recall", step=1.5, margin=0.0, direction_weights=(1.0, 0.0))(score, relevance).backward()

    def ranks(s, member):
        return np.array([sum(member[k] and s[k] >= each for k in range(6)) for each in s], float)

    s, positive = score.detach().numpy()[0], relevance.numpy()[0] > 0
    wrong = ranks(s, np.ones(6, bool)) - ranks(s, positive)
    outer = np.where(positive, 1 / (1 + np.log1p(wrong)) / (1 + wrong) / positive.sum(), 0.0)
    expected = np.zeros(6)
    for member, sign in ((np.ones(6, bool), 1), (positive, -1)):
        expected += -(ranks(s, member) - ranks(s + 1.5 * sign * outer, member)) / 1.5
    np.testing.assert_allclose(score.grad.numpy()[0], expected, atol=1e-9)
    assert np.abs(expected).sum() > 0


def test_the_log_ratio_sees_neither_the_unit_of_distance_nor_of_dissimilarity():
    relevance = pick(45, 6, 6, [0, 0.2, 0.5])
    loss = losses.LogRatioLoss(1e-6)
    closer = 1 - (1 - SQUARE) / 4  # every squared distance a quarter
    torch.testing.assert_close(loss(closer, relevance), loss(SQUARE, relevance))
    halved = 1 - (1 - relevance) / 2
    torch.testing.assert_close(loss(SQUARE, halved), loss(SQUARE, relevance))


def test_the_log_ratio_is_0_when_distances_are_proportional_to_dissimilarities():
    relevance = pick(46, 5, 5, [0.1, 0.3, 0.6])
    score = 1 - ((1 - relevance) * 1.3) ** 2 / 2
    assert losses.LogRatioLoss()(score, relevance).item() == pytest.approx(0.0, abs=1e-12)


def test_one_positive_and_one_negative_make_the_lifted_loss_a_squared_hinge():
    score = torch.tensor([[0.2, 0.6]], dtype=torch.float64)
    near, far = (math.sqrt(2 - 2 * s) for s in (0.2, 0.6))
    expected = max(0.0, near + 1.0 - far) ** 2 / 2
    assert losses.LiftedStructureLoss()(score, torch.tensor([[1.0, 0.0]])).item() == pytest.approx(expected)


def test_the_hinge_weights_of_circle_are_held_constant():
    batch = ORDINARY["many positives"]
    score = batch.score.clone().requires_grad_()
    losses.CircleLoss(0.3, scale=4.0, direction_weights=(1.0, 0.0))(score, batch.relevance).backward()
    pull, push = (1.3 - batch.score).clamp(min=0), (batch.score + 0.3).clamp(min=0)
    moving = batch.score.clone().requires_grad_()
    total, rows = 0.0, 0
    for i in range(6):
        positive = batch.relevance[i] > 0
        if positive.any() and (~positive).any():
            near = torch.exp(-4 * pull[i] * (moving[i] - 0.7))[positive].sum()
            far = torch.exp(4 * push[i] * (moving[i] - 0.3))[~positive].sum()
            total, rows = total + torch.log1p(near * far), rows + 1
    (total / rows).backward()
    torch.testing.assert_close(score.grad, moving.grad)


def test_random_vectors_have_the_spread_that_the_regularizer_asks_for():
    generator = torch.Generator().manual_seed(0)
    audio, text = (torch.randn((400, 16), generator=generator, dtype=torch.float64) for _ in range(2))
    assert apply_loss(losses.SpreadOutRegularizer(), audio, text, torch.eye(400)) < 1e-3


def test_the_length_of_vectors_is_drawn_to_its_running_mean_and_nothing_else_is():
    loss = losses.SphericalRegularizer(0.5).train()
    audio, text = torch.tensor([[3.0, 4.0], [0.0, 1.0]], requires_grad=True), torch.tensor([[2.0, 0.0]])
    assert loss(audio, text, torch.ones(2, 1)).item() == pytest.approx(4.0)  # lengths 5 and 1 around 3
    assert loss.mean_norms.tolist() == [3.0, 2.0]
    value = loss(2 * audio, text, torch.ones(2, 1))  # lengths 10 and 2 around (3 + 6) / 2
    assert value.item() == pytest.approx((5.5**2 + 2.5**2) / 2)
    value.backward()
    tangent = audio.grad[0] @ torch.tensor([-4.0, 3.0])
    assert tangent.item() == pytest.approx(0.0, abs=1e-5)
    before = loss.mean_norms.clone()
    loss.eval()(audio, text, torch.ones(2, 1))
    assert torch.equal(loss.mean_norms, before)


def test_high_order_features_estimate_powers_of_the_product():
    loss = losses.HighOrderLoss(losses.InfoNCELoss(), 5, features=40000, orders=3)
    x, y = F.normalize(torch.randn((2, 5), generator=torch.Generator().manual_seed(3)), dim=1)
    one, other = loss.order_features(x[None]), loss.order_features(y[None])
    for order, (a, b) in enumerate(zip(one, other, strict=True), start=1):
        assert (a @ b.T).item() == pytest.approx((x @ y).item() ** order, abs=0.03)


def test_high_order_losses_are_averaged_over_the_orders_above_the_first():
    inner = losses.ContrastiveLoss()
    loss = losses.HighOrderLoss(inner, 5, features=8, orders=3)
    generator = torch.Generator().manual_seed(1)
    audio, text = (F.normalize(torch.randn((4, 5), generator=generator), dim=1) for _ in range(2))
    values = [
        inner(F.normalize(a, dim=1) @ F.normalize(t, dim=1).T, torch.eye(4))
        for a, t in zip(loss.order_features(audio), loss.order_features(text), strict=True)
    ]
    torch.testing.assert_close(loss(audio, text, torch.eye(4)), (values[1] + values[2]) / 2)


def test_decorrelation_trains_the_guess_to_be_right_and_the_vectors_to_make_it_wrong():
    torch.manual_seed(0)
    loss = losses.DecorrelationRegularizer(4, hidden=3)
    vectors = torch.randn(5, 4)
    audio = vectors.clone().requires_grad_()
    loss(audio, torch.ones(1, 4), torch.ones(5, 1)).backward()
    plain = vectors.clone().requires_grad_()
    unit = F.normalize(plain, dim=1)
    product = F.normalize(unit[:, 2:], dim=1) * F.normalize(loss.guess[0](unit[:, :2]), dim=1)
    one_side = -product.square().mean() / 2
    one_side.backward()
    torch.testing.assert_close(audio.grad, -plain.grad)  # reversed
    assert audio.grad.abs().sum() > 0


def test_parts_that_do_not_divide_the_vector_are_refused():
    with pytest.raises(ValueError, match="dim must be a multiple of parts, got dim=5 and parts=2"):
        losses.DecorrelationRegularizer(5)
    with pytest.raises(ValueError, match="multiple of 4 dimensions, got 6"):
        losses.DiversityRegularizer(4)(torch.ones(2, 6), torch.ones(2, 6), torch.eye(2))


def test_snr_is_the_variance_of_the_difference_over_that_of_the_anchor():
    a, t = scores(47, 3, 5), scores(48, 4, 5)
    expected = (t[None] - a[:, None]).var(dim=2) / a.var(dim=1)[:, None]
    torch.testing.assert_close(snr_distance(a, t), expected)


def test_shares_stay_on_the_simplex_and_agreement_grows():
    audio, text = F.normalize(scores(49, 6, 5), dim=1), F.normalize(scores(50, 4, 5), dim=1)
    pairs = make_pairs(audio @ text.T, torch.eye(6, 4))
    alike = torch.corrcoef(audio).clamp(min=0)
    agreement = []
    for steps in range(4):
        first, last = losses.GroupLoss(0.5, steps=steps).shares(audio, pairs)
        torch.testing.assert_close(last.sum(dim=1), torch.ones(6, dtype=torch.float64))
        agreement.append((last * (alike @ last)).sum().item())
    torch.testing.assert_close(first.sum(dim=1), torch.ones(6, dtype=torch.float64))
    assert agreement == sorted(agreement)


def test_the_point_to_set_distance_of_one_text_is_the_sine_squared():
    audio, text = F.normalize(scores(51, 1, 4), dim=1), F.normalize(scores(52, 2, 4), dim=1)
    loss = losses.PointToSetLoss(2.0, ridge=1e-9, direction_weights=(1.0, 0.0))
    near, far = (1 - (audio @ text.T).square())[0]
    assert loss(audio, text, torch.tensor([[1.0, 0.0]])).item() == pytest.approx((2.0 + near - far).item(), abs=1e-6)


def test_what_the_element_weighted_triplets_hold_constant():
    audio = torch.tensor([[0.8, 0.6, 0.0]], dtype=torch.float64)
    text = F.normalize(scores(55, 3, 3), dim=1).requires_grad_()
    loss = losses.ElementWeightedTripletLoss(2.0, threshold=0.5, direction_weights=(1.0, 0.0))
    (slope,) = torch.autograd.grad(loss(audio, text, torch.tensor([[1.0, 0.0, 0.0]])), text)
    moving = text.detach().clone().requires_grad_()
    unit = F.normalize(moving, dim=1)
    away = (unit - audio).norm(dim=1)
    closest = 1 + int(away[1:].argmin())
    ratio = (text[0] - text[closest]).detach().abs()
    ratio = ratio / ratio.max()
    counts = torch.where(ratio < 0.5, 0.0, ratio + 1.0)
    weighted = (counts * (unit - audio)).norm(dim=1)
    total = 6.0 + away[0] - away[closest].detach() + weighted[0] - weighted[closest]
    total = total + away[0].detach() - away[1:].mean()
    torch.testing.assert_close(slope, torch.autograd.grad(total, moving)[0])


def test_the_triplet_upper_bound_moves_with_its_positive_three_times_as_much_as_with_a_negative():
    loss = losses.TripletUpperBoundLoss()
    score = torch.tensor([[0.5, 0.5]], requires_grad=True)
    loss(score, torch.tensor([[1.0, 0.0]])).backward()
    assert (score.grad[0, 0] / score.grad[0, 1]).item() == pytest.approx(-3.0)


def test_entropy_of_unknown_pairs_pushes_them_to_a_decision():
    score = torch.tensor([[0.3, 0.2]], requires_grad=True)
    known = torch.tensor([[True, False]])
    losses.SeraphLoss(1.2, unknown_weight=1.0)(score, torch.tensor([[1.0, 0.0]]), known).backward()
    assert score.grad[0, 1] > 0  # squared distance 1.6 is beyond 1.2: descent moves the pair farther away
    torch.testing.assert_close(
        losses.SeraphLoss(unknown_weight=0.0)(score, torch.tensor([[1.0, 0.0]]), known),
        losses.SeraphLoss(unknown_weight=0.0)(score[:, :1], torch.tensor([[1.0]])),
    )


@pytest.mark.parametrize("log_p", [-1e-6, -0.1, -0.7, -5.0, -40.0])
def test_the_log_of_one_minus_p_keeps_its_digits_at_both_ends(log_p):
    from mpmath import exp, log, mp

    mp.dps = 40
    value = log1mexp(torch.tensor(log_p, dtype=torch.float64)).item()
    assert value == pytest.approx(float(log(1 - exp(mp.mpf(log_p)))), rel=1e-12)
