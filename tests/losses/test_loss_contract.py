"""What holds for every objective on scores: one test each, over the whole table."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_batches import DEGENERATE, ORDINARY, Batch
from loss_cases import CASES, Case
from torch.func import functional_call

from xmodal import losses
from xmodal.configurable import instantiate
from xmodal.losses import PairwiseLoss, apply_loss
from xmodal.losses.base import Graded


def only(which: Callable[[Case], bool]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", [case for case in CASES if which(case)], ids=lambda case: case.name)


every_loss = only(lambda case: True)


def in_double(case: Case) -> PairwiseLoss:
    return case.make().double()


def value(case: Case, batch: Batch) -> torch.Tensor:
    return in_double(case)(*batch)


def gradient(case: Case, batch: Batch) -> torch.Tensor:
    score = batch.score.clone().requires_grad_()
    in_double(case)(score, batch.relevance, batch.valid, batch.weight).backward()
    assert score.grad is not None
    return score.grad


@every_loss
def test_a_loss_is_what_plain_loops_say(case):
    loss = in_double(case)
    for name, batch in ORDINARY.items():
        expected = case.oracle(*batch.arrays())
        if loss.directional:
            rows, columns = loss.direction_weights
            expected = (rows * expected + columns * case.oracle(*batch.transposed.arrays())) / (rows + columns)
        # Not closer: a learned scale starts in float32.
        assert loss(*batch).item() == pytest.approx(expected, rel=1e-6, abs=1e-8), name


@pytest.mark.parametrize("name", ["many positives", "weighted pairs"])
@only(lambda case: case.exact_gradient)
def test_gradients_are_those_of_finite_differences(case, name):
    batch, loss = ORDINARY[name], in_double(case)
    names = [name for name, _ in loss.named_parameters()]

    def call(score, *parameters):
        return functional_call(
            loss, dict(zip(names, parameters, strict=True)), (score, batch.relevance, batch.valid, batch.weight)
        )

    parameters = [parameter.detach().clone().requires_grad_() for parameter in loss.parameters()]
    inputs = (batch.score.clone().requires_grad_(), *parameters)
    assert torch.autograd.gradcheck(call, inputs, atol=1e-6, rtol=1e-4, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@every_loss
def test_a_degenerate_batch_gives_a_finite_value_and_gradients(case, dtype):
    for name, batch in DEGENERATE.items():
        loss = case.make()
        score = batch.score.to(dtype, copy=True).requires_grad_()
        result = loss(score, batch.relevance, batch.valid, batch.weight)
        assert result.shape == (), name
        assert result.isfinite(), name
        result.backward()
        assert score.grad is not None, name
        assert score.grad.isfinite().all(), name
        # A parameter without a gradient would stop distributed training.
        assert all(each.grad is not None and each.grad.isfinite().all() for each in loss.parameters()), name


@only(lambda case: not case.judges_unknown)
def test_a_batch_without_a_term_costs_nothing(case):
    for name in ("nothing valid", "nothing weighs", "no audio", "no texts"):
        assert value(case, DEGENERATE[name]).item() == 0.0, name


@every_loss
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_order_of_audio_and_texts_does_not_matter(case, seed):
    batch = ORDINARY["weighted pairs"]
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(batch.score.shape[0], generator=generator)
    columns = torch.randperm(batch.score.shape[1], generator=generator)
    shuffled = Batch(*(None if each is None else each[rows][:, columns] for each in batch))
    torch.testing.assert_close(value(case, shuffled), value(case, batch))


@pytest.mark.parametrize("name", ["more texts than audio", "weighted pairs"])
@every_loss
def test_audio_and_text_change_places_with_their_direction_weights(case, name):
    batch, loss, swapped = ORDINARY[name], in_double(case), in_double(case)
    swapped.direction_weights = loss.direction_weights[::-1]
    torch.testing.assert_close(loss(*batch), swapped(*batch.transposed))


@every_loss
def test_a_loss_is_the_weighted_mean_of_its_two_directions(case):
    batch, loss = ORDINARY["more texts than audio"], in_double(case)
    values = []
    for weights in ((1.0, 0.0), (0.0, 1.0), (3.0, 1.0)):
        loss.direction_weights = weights
        values.append(loss(*batch))
    torch.testing.assert_close(values[2], (3 * values[0] + values[1]) / 4)


@every_loss
def test_a_pair_of_weight_0_is_a_pair_that_is_not_valid(case):
    score, relevance, valid, weight = ORDINARY["weighted pairs"]
    kept = valid & (weight > 0)
    torch.testing.assert_close(
        value(case, Batch(score, relevance, None, kept.double())), value(case, Batch(score, relevance, kept))
    )


@every_loss
def test_equal_relevance_in_any_dtype_is_the_same(case):
    score, relevance, _, _ = ORDINARY["many positives"]
    for dtype in (torch.bool, torch.int64, torch.float32):
        torch.testing.assert_close(value(case, Batch(score, relevance.to(dtype))), value(case, Batch(score, relevance)))


@every_loss
def test_a_relevance_below_0_is_a_negative_like_any_other(case):
    for name in ("graded relevance", "weighted pairs"):
        score, relevance, valid, weight = ORDINARY[name]
        below = torch.where(relevance > 0, relevance, -0.75)
        torch.testing.assert_close(value(case, Batch(score, below, valid, weight)), value(case, ORDINARY[name]))


@only(lambda case: case.counts)
def test_a_text_of_weight_2_is_that_text_twice(case):
    score, relevance, _, _ = ORDINARY["more texts than audio"]
    weight = torch.ones_like(score)
    weight[:, ::3] = 2.0
    twice = torch.tensor([0, 0, 1, 2, 3, 3, 4, 5, 6, 6])
    loss = in_double(case)
    loss.direction_weights = (1.0, 0.0)
    torch.testing.assert_close(loss(score, relevance, None, weight), loss(score[:, twice], relevance[:, twice]))


@only(lambda case: not case.judges_unknown)
def test_what_stands_at_an_invalid_place_does_not_matter(case):
    score, relevance, valid, _ = ORDINARY["unknown pairs"]
    spoiled = score.masked_fill(~valid, torch.nan).requires_grad_()
    result = in_double(case)(spoiled, relevance.masked_fill(~valid, torch.nan), valid)
    torch.testing.assert_close(result, value(case, ORDINARY["unknown pairs"]))
    result.backward()
    assert (spoiled.grad[~valid] == 0).all()
    assert spoiled.grad.isfinite().all()


@every_loss
def test_a_nan_at_a_valid_place_is_never_hidden(case):
    batch = ORDINARY["the diagonal"]
    for place in ((0, 0), (2, 1)):
        score = batch.score.clone()
        score[place] = torch.nan
        assert value(case, Batch(score, batch.relevance)).isnan()


@only(lambda case: case.monotone)
def test_a_better_positive_or_a_worse_negative_never_costs_more(case):
    for name in ("many positives", "anchors without positives or negatives", "weighted pairs"):
        batch = ORDINARY[name]
        slope = gradient(case, batch)
        assert (slope[batch.relevance > 0] <= 1e-12).all()
        assert (slope[batch.relevance <= 0] >= -1e-12).all()
        assert slope.abs().max() > 0


@only(lambda case: case.shift)
def test_a_loss_of_differences_does_not_see_a_common_shift(case):
    batch = ORDINARY["weighted pairs"]
    torch.testing.assert_close(value(case, Batch(batch.score + 0.3, *list(batch)[1:])), value(case, batch))


@every_loss
def test_half_precision_scores_are_computed_in_float32(case):
    batch = ORDINARY["many positives"]
    half = batch.score.bfloat16()
    loss = case.make()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = loss(half, batch.relevance)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, loss(half.float(), batch.relevance), rtol=0, atol=0)


@every_loss
def test_float32_agrees_with_float64(case):
    for batch in ORDINARY.values():
        score, relevance, valid, weight = batch
        torch.testing.assert_close(
            case.make()(score.float(), relevance, valid, weight).double(), value(case, batch), rtol=2e-4, atol=2e-5
        )


@every_loss
def test_a_loss_made_again_from_its_config_is_the_same(case):
    loss = case.make()
    again = instantiate(loss.config)
    assert again.config == loss.config
    again.load_state_dict(loss.state_dict())
    for batch in ORDINARY.values():
        assert again(*batch) == loss(*batch)


@every_loss
def test_the_size_of_a_relevance_means_what_the_class_says(case):
    batch, loss = ORDINARY["graded relevance"], in_double(case)
    assert loss.graded in get_args(Graded)
    same = torch.isclose(loss(*batch), loss(batch.score, (batch.relevance > 0).double()), rtol=1e-9, atol=1e-12)
    assert bool(same) == (loss.graded == "threshold")


@every_loss
def test_every_loss_is_public_and_cites_its_source(case):
    kind = type(case.make())
    assert getattr(losses, kind.__name__) is kind
    assert "References:" in (kind.__doc__ or "")


@every_loss
def test_vectors_of_any_length_give_the_loss_of_their_cosines(case):
    generator = torch.Generator().manual_seed(5)
    audio = torch.randn((4, 3), generator=generator, dtype=torch.float64)
    text = torch.randn((5, 3), generator=generator, dtype=torch.float64)
    relevance = torch.eye(4, 5)
    cosines = torch.nn.functional.cosine_similarity(audio[:, None], text[None], dim=2)
    loss = in_double(case)
    torch.testing.assert_close(apply_loss(loss, audio, 3.0 * text, relevance), loss(cosines, relevance))
