"""Probabilities: the fit is the optimum that it claims to be, and its figures come from tracks it has not seen."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss
from sklearn.metrics import log_loss as sklearn_log_loss

from xmodal.errors import ModelError, SpaceMismatchError
from xmodal.metrics import Reliability, brier_score, expected_calibration_error, log_loss, reliability
from xmodal.tagging import Calibration, calibrate_to_prior, fit_calibration, fits
from xmodal.tagging import calibration as module

SPACE = "0123456789abcdef"


def made(tracks=600, tags=4, seed=0, slope=6.0):
    """Scores whose tags follow a logistic law, a slope and an intercept each."""
    generator = torch.Generator().manual_seed(seed)
    score = torch.randn(tracks, tags, generator=generator) * 0.2 + torch.linspace(-0.3, 0.3, tags)
    slopes = slope * torch.linspace(0.5, 2, tags)
    truth = torch.sigmoid(slopes * (score - torch.linspace(0, 0.5, tags)))
    return score, torch.rand(truth.shape, generator=generator) < truth, truth


NAMES = ["a", "b", "c", "d"]


# -- metrics of probabilities -------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=3, max_size=60), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_the_calibration_error_is_a_plain_loop_over_bins_of_equal_mass(pairs, bins):
    pairs = sorted(pairs, key=lambda pair: pair[0])
    probability, right = (torch.tensor(column) for column in zip(*pairs, strict=True))
    total = 0.0
    for number in range(bins):
        own = [pair for place, pair in enumerate(pairs) if place * bins // len(pairs) == number]
        if own:
            total += abs(sum(p for p, _ in own) - sum(r for _, r in own)) / len(pairs)
    assert expected_calibration_error(probability, right, bins=bins) == pytest.approx(total, abs=1e-6)


def test_the_curve_of_equal_width_is_scikit_learn_s():
    _, right, truth = made()
    curve = reliability(truth, right, bins=10, binning="equal_width")
    observed, predicted = calibration_curve(right.flatten().numpy(), truth.flatten().numpy(), n_bins=10)
    np.testing.assert_allclose(curve.observed.numpy(), observed, atol=1e-6)
    np.testing.assert_allclose(curve.predicted.numpy(), predicted, atol=1e-6)
    assert int(curve.count.sum()) == truth.numel()


def test_brier_score_and_log_loss_are_scikit_learn_s_and_leave_unknown_pairs_out():
    _, right, truth = made()
    valid = torch.rand(truth.shape, generator=torch.Generator().manual_seed(3)) < 0.7
    y, p = right[valid].numpy(), truth[valid].double().numpy()
    assert brier_score(truth, right, valid) == pytest.approx(brier_score_loss(y, p))
    assert log_loss(truth, right, valid) == pytest.approx(sklearn_log_loss(y, p))


def test_a_certain_mistake_costs_a_finite_loss():
    assert log_loss(torch.tensor([1.0]), torch.tensor([False])) == pytest.approx(-math.log(1e-7), rel=1e-3)


@pytest.mark.parametrize(
    ("probability", "right", "valid"),
    [([1.2], [True], None), ([math.nan], [True], None), ([0.5], [True, False], None), ([0.5], [True], [False])],
)
def test_what_cannot_be_judged_as_probabilities_is_refused(probability, right, valid):
    with pytest.raises(ValueError, match="from 0 to 1|one shape"):
        brier_score(torch.tensor(probability), torch.tensor(right), None if valid is None else torch.tensor(valid))


def test_bins_that_are_none_are_refused():
    with pytest.raises(ValueError, match="bins must be at least 1"):
        reliability(torch.tensor([0.5]), torch.tensor([True]), bins=0)


# -- the fits -----------------------------------------------------------------------------------------------------


def negative_log_likelihood(x, y, weight, slope, intercept):
    z = slope * x + intercept
    return (weight * (np.logaddexp(0, z) - y * z)).sum()


@pytest.fixture
def problem():
    score, right, _ = made(tracks=80)
    right[:, 3] = False  # a tag without examples
    judged = torch.rand(score.shape, generator=torch.Generator().manual_seed(1)) < 0.8
    standard, _, _ = fits.standardised(score, judged)
    return standard, (right & judged).double(), judged.double()


def test_the_temperature_fit_is_the_minimum_of_its_objective(problem):
    x, y, weight = (part.numpy() for part in problem)

    def objective(values):
        slope, intercept = values[0], values[1:]
        pseudo = (np.logaddexp(0, intercept) - 0.5 * intercept).sum()
        return negative_log_likelihood(x, y, weight, slope, intercept) + pseudo + 0.01 * 4 * slope**2 / 2

    best = minimize(objective, np.zeros(5), method="BFGS", options={"gtol": 1e-8}).x
    slope, intercept = fits.fit_temperature(*problem)
    np.testing.assert_allclose(slope.numpy(), best[0], atol=1e-4)
    np.testing.assert_allclose(intercept.numpy(), best[1:], atol=1e-4)


def test_the_platt_fit_is_the_minimum_of_its_objective(problem):
    x, y, weight = (part.numpy() for part in problem)
    slope0, intercept0 = fits.fit_temperature(*problem)

    def objective(values):
        slope, intercept = values[:4], values[4:]
        prior = ((slope - slope0.numpy()) ** 2 + (intercept - intercept0.numpy()) ** 2).sum() / 2
        return negative_log_likelihood(x, y, weight, slope, intercept) + prior

    best = minimize(objective, np.zeros(8), method="BFGS", options={"gtol": 1e-8}).x
    slope, intercept = fits.fit_platt(*problem, slope0, intercept0)
    np.testing.assert_allclose(slope.numpy(), best[:4], atol=1e-4)
    np.testing.assert_allclose(intercept.numpy(), best[4:], atol=1e-4)


@pytest.mark.parametrize("method", ["temperature", "platt", "isotonic"])
def test_scores_that_point_the_wrong_way_are_flattened_and_never_turned_round(method):
    score, right, _ = made(slope=-6)
    fitted = fit_calibration(score, right, NAMES, SPACE, method=method)
    assert bool((fitted.slope == 0).all())
    probability = fitted.probabilities(score.sort(dim=0).values)
    assert bool((probability.diff(dim=0) >= -1e-7).all())


@pytest.mark.parametrize("method", ["temperature", "platt", "isotonic", "auto"])
def test_fitted_probabilities_mean_what_they_say_on_other_tracks(method):
    score, right, truth = made(tracks=2000)
    fitted = fit_calibration(score[:1000], right[:1000], NAMES, SPACE, method=method)
    probability = fitted.probabilities(score[1000:])
    rates = right[:1000].double().mean(0).expand_as(probability)
    assert log_loss(probability, right[1000:]) < 0.9 * log_loss(rates, right[1000:])
    assert expected_calibration_error(probability, right[1000:]) < 0.04
    assert float((probability - truth[1000:]).abs().mean()) < 0.06


def test_auto_takes_the_method_of_the_lowest_held_out_loss():
    score, right, _ = made(tracks=1500)
    fitted = fit_calibration(score, right, NAMES, SPACE)
    losses = fitted.report["held-out log loss"]
    assert set(losses) == {"temperature", "platt", "isotonic"}
    assert losses[fitted.method] == min(losses.values())


def test_slopes_that_differ_are_found_by_platt_and_not_by_temperature():
    score, right, truth = made(tracks=3000, slope=8)
    errors = {
        method: float(
            (fit_calibration(score, right, NAMES, SPACE, method=method).probabilities(score) - truth).abs().mean()
        )
        for method in ("temperature", "platt")
    }
    assert errors["platt"] < 0.6 * errors["temperature"]


def test_a_tag_with_few_examples_stays_near_the_others():
    score, right, _ = made(tracks=400)
    keep = torch.ones(400, dtype=torch.bool)
    rare = right[:, 1].nonzero().flatten()
    keep[rare[2:]] = False
    fitted = fit_calibration(score, right, NAMES, SPACE, valid=keep[:, None].expand(-1, 4), method="platt")
    shared = fit_calibration(score, right, NAMES, SPACE, valid=keep[:, None].expand(-1, 4), method="temperature")
    assert float((fitted.slope[1] - shared.slope[1]).abs() * score[:, 1].std()) < 1.0
    assert bool(fitted.slope.isfinite().all())
    assert fitted.threshold[1] == pytest.approx(float(module._best_threshold(*_held_out(score, right, keep))), abs=1e-6)


def _held_out(score, right, keep):
    """The pooled held-out pairs, by the module's own folds but a plain loop."""
    judged = keep[:, None].expand(-1, 4)
    fold = module._folds(len(score), None, 5, 0)
    probability = torch.zeros(score.shape, dtype=torch.float64)
    for part in range(5):
        learn = fold != part
        fitted = fits.fit_method(score[learn], (right & judged)[learn], judged[learn], "platt")
        probability[~learn] = module._probabilities(score[~learn], *fitted)
    return probability[judged], right[judged]


def test_isotonic_steps_are_kept_away_from_certainty_and_rise():
    score, right, _ = made(tracks=1000, slope=40)
    fitted = fit_calibration(score, right, NAMES, SPACE, method="isotonic")
    assert fitted.steps
    probability = fitted.probabilities(score)
    assert float(probability.min()) > 0
    assert float(probability.max()) < 1
    for column in fitted.steps:
        assert bool((probability[score[:, column].argsort(), column].diff() >= 0).all())


def test_tracks_of_a_group_are_never_on_both_sides_of_a_fold():
    groups = torch.arange(50) // 5
    fold = module._folds(50, groups, 4, 0)
    for group in range(10):
        assert len(fold[groups == group].unique()) == 1
    assert sorted(fold.unique().tolist()) == [0, 1, 2, 3]


def test_figures_are_held_out():
    """Labels that are noise look calibrated only on tracks that the fit has seen."""
    generator = torch.Generator().manual_seed(0)
    score = torch.randn(120, 40, generator=generator)
    right = torch.rand(120, 40, generator=generator) < 0.2
    fitted = fit_calibration(score, right, [str(n) for n in range(40)], SPACE, method="platt")
    seen = log_loss(fitted.probabilities(score), right)
    assert fitted.report["held-out log loss"]["platt"] > seen + 0.005
    curve = Reliability(**{name: torch.tensor(v) for name, v in fitted.report["held-out reliability"].items()})
    assert curve.error() == pytest.approx(fitted.report["held-out calibration error"])
    assert curve.error() > expected_calibration_error(fitted.probabilities(score), right)


# -- thresholds and abstention ------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=40).filter(
        lambda pairs: any(right for _, right in pairs)
    )
)
@settings(max_examples=80, deadline=None)
def test_the_threshold_makes_the_highest_f1_that_any_cut_makes(pairs):
    value, right = torch.tensor([v / 12 for v, _ in pairs], dtype=torch.float64), torch.tensor([r for _, r in pairs])

    def f1(threshold):
        given_ = value >= threshold
        return float(2 * (given_ & right).sum() / (given_.sum() + right.sum()))

    threshold = module._best_threshold(value, right)
    assert f1(threshold) == pytest.approx(max(f1(cut) for cut in value.tolist()))


def test_a_tag_is_given_from_its_threshold_on_and_decided_from_the_edge_of_the_band_on():
    one = torch.ones(1)
    plain = Calibration(("a",), SPACE, one, 0 * one, torch.tensor([0.5]))
    probability = torch.tensor([[0.25], [0.375], [0.5], [0.625], [0.75]])
    assert plain.decide(probability)[:, 0].tolist() == [0, 0, 1, 1, 1]
    assert dataclasses.replace(plain, unsure=0.25).decide(probability)[:, 0].tolist() == [0, -1, -1, -1, 1]


def test_pairs_too_near_to_the_threshold_stay_undecided_until_few_enough_are_wrong():
    score, right, _ = made(tracks=1500, slope=12)
    plain = fit_calibration(score, right, NAMES, SPACE, method="platt")
    allowed = 0.6 * plain.report["wrong among decided"]
    careful = fit_calibration(score, right, NAMES, SPACE, method="platt", max_error=allowed)
    assert plain.unsure == 0
    assert careful.report["wrong among decided"] <= allowed
    assert 0.3 < careful.report["decided"] < 1
    decided = careful.decide(careful.probabilities(score))
    assert set(decided.unique().tolist()) == {-1, 0, 1}
    near = (careful.probabilities(score) - careful.threshold).abs() < careful.unsure
    torch.testing.assert_close(decided == -1, near)
    plainly = plain.decide(plain.probabilities(score))
    torch.testing.assert_close(plainly == 1, plain.probabilities(score) >= plain.threshold)


def test_an_error_that_no_pair_can_keep_decides_nothing():
    generator = torch.Generator().manual_seed(0)
    score, right = torch.rand(200, 1, generator=generator), torch.rand(200, 1, generator=generator) < 0.5
    fitted = fit_calibration(score, right, ["a"], SPACE, method="temperature", max_error=1e-9)
    assert fitted.report["decided"] < 0.05


# -- without labels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", [0.03, 0.5, torch.tensor([0.01, 0.1, 0.3, 0.9])])
def test_a_prior_is_the_mean_probability_and_the_share_of_tracks_given(prior):
    score, _, _ = made(tracks=1000)
    fitted = calibrate_to_prior(score, prior, NAMES, SPACE)
    share = torch.as_tensor(prior).expand(4)
    probability = fitted.probabilities(score)
    torch.testing.assert_close(probability.double().mean(0), share.double(), atol=1e-4, rtol=0)
    torch.testing.assert_close((fitted.decide(probability) == 1).double().mean(0), share.double(), atol=2e-3, rtol=0)
    slope = fitted.slope * score.std(0, correction=0)
    torch.testing.assert_close(slope, torch.full((4,), 2.0), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("prior", "slope", "rows"), [(0.0, 2.0, 9), (1.0, 2.0, 9), (0.1, 0.0, 9), (0.1, 2.0, 1)])
def test_an_impossible_prior_is_refused(prior, slope, rows):
    with pytest.raises(ValueError, match="prior must be between|at least 2"):
        calibrate_to_prior(torch.randn(rows, 4), prior, NAMES, SPACE, slope=slope)


# -- files and refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_a_saved_calibration_comes_back_as_it_was(tmp_path, method):
    score, right, _ = made(tracks=700)
    fitted = fit_calibration(score, right, NAMES, SPACE, method=method, max_error=0.2)
    fitted.save(tmp_path / "c.json")
    back = Calibration.load(tmp_path / "c.json")
    torch.testing.assert_close(back.probabilities(score), fitted.probabilities(score), atol=0, rtol=0)
    torch.testing.assert_close(
        back.decide(back.probabilities(score)), fitted.decide(fitted.probabilities(score)), atol=0, rtol=0
    )
    assert (back.tags, back.space_id, back.method, back.report) == (tuple(NAMES), SPACE, method, fitted.report)
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_some_tags_in_another_order_keep_their_probabilities(method):
    score, right, _ = made(tracks=700)
    fitted = fit_calibration(score, right, NAMES, SPACE, method=method)
    some = fitted.for_tags(["d", "b"], SPACE)
    torch.testing.assert_close(some.probabilities(score[:, [3, 1]]), fitted.probabilities(score)[:, [3, 1]])
    assert some.tags == ("d", "b")
    torch.testing.assert_close(some.threshold, fitted.threshold[[3, 1]])


def test_another_space_or_an_unknown_tag_is_refused():
    fitted = calibrate_to_prior(made()[0], 0.1, NAMES, SPACE)
    with pytest.raises(SpaceMismatchError, match=r"0123456789abcdef.*fedc.*xmodal tag fit"):
        fitted.for_tags(NAMES, "fedc")
    with pytest.raises(ValueError, match="not fitted for the tag 'e'"):
        fitted.for_tags(["a", "e"], SPACE)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format_version": 1}', '{"format_version": 1, "tags": [{"tag": 1}], "space_id": ""}']
)
def test_a_damaged_file_is_refused_by_name(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(ModelError, match=r"c\.json is no calibration that can be read"):
        Calibration.load(tmp_path / "c.json")


def test_a_file_of_a_newer_format_is_refused(tmp_path):
    (tmp_path / "c.json").write_text('{"format_version": 9}')
    with pytest.raises(ModelError, match="format version 9 but this xmodal reads 1"):
        Calibration.load(tmp_path / "c.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"folds": 1}, "2 folds or more"),
        ({"folds": 99}, "a track or group for each"),
        ({"method": "magic"}, "auto or one of"),
        ({"max_error": 0.0}, "between 0 and 1"),
        ({"valid": torch.zeros(40, 4, dtype=torch.bool)}, "only one of the two"),
        ({"valid": torch.ones(40, 3, dtype=torch.bool)}, "must be"),
    ],
)
def test_a_fit_that_makes_no_sense_is_refused(change, message):
    score, right, _ = made(tracks=40)
    with pytest.raises(ValueError, match=message):
        fit_calibration(score, right, NAMES, SPACE, **change)


def test_scores_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"\[tracks, 4 tags\], got \(2, 3\)"):
        calibrate_to_prior(made()[0], 0.1, NAMES, SPACE).probabilities(torch.zeros(2, 3))
