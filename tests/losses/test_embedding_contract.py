"""What holds for every objective on vectors: one test each, over the whole table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import pytest
import torch
from embedding_cases import DIM, EMBEDDING_CASES, Case
from loss_batches import pick
from torch import Tensor
from torch.func import functional_call

from xmodal import losses
from xmodal.configurable import instantiate
from xmodal.losses import EmbeddingLoss
from xmodal.losses.base import Graded


@dataclass(frozen=True)
class Vectors:
    audio: Tensor
    text: Tensor
    relevance: Tensor
    valid: Tensor | None = None
    weight: Tensor | None = None

    def __iter__(self) -> Iterator[Tensor | None]:
        return iter((self.audio, self.text, self.relevance, self.valid, self.weight))

    @property
    def transposed(self) -> Vectors:
        return Vectors(self.text, self.audio, *(None if each is None else each.T for each in list(self)[2:]))

    def arrays(self) -> tuple[np.ndarray, ...]:
        shape = self.relevance.shape
        valid = np.ones(shape, bool) if self.valid is None else self.valid.numpy()
        weight = np.ones(shape) if self.weight is None else self.weight.double().numpy()
        relevance = self.relevance.double().numpy()
        return (self.audio.numpy(), self.text.numpy(), relevance, valid & (weight > 0), np.where(valid, weight, 0.0))


def draw(seed: int, items: int) -> Tensor:
    return torch.randn((items, DIM), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.3


ORDINARY = {
    "the diagonal": Vectors(draw(0, 5), draw(1, 5), torch.eye(5, dtype=torch.float64)),
    "many positives": Vectors(draw(2, 5), draw(3, 6), pick(4, 5, 6, [0, 0, 1])),
    "graded and unknown": Vectors(draw(5, 6), draw(6, 5), pick(7, 6, 5, [0, 0.5, 1]), pick(8, 6, 5, [0, 1, 1]).bool()),
    "weighted": Vectors(draw(9, 5), draw(10, 4), pick(11, 5, 4, [0, 0, 1]), None, pick(12, 5, 4, [0, 0.5, 1, 2])),
}
SAME = torch.ones((4, DIM), dtype=torch.float64)
DEGENERATE = {
    "one pair": Vectors(draw(0, 1), draw(1, 1), torch.ones(1, 1)),
    "one wrong pair": Vectors(draw(0, 1), draw(1, 1), torch.zeros(1, 1)),
    "one audio": Vectors(draw(0, 1), draw(1, 4), torch.tensor([[1.0, 0, 0, 1]])),
    "one text": Vectors(draw(0, 4), draw(1, 1), torch.tensor([[1.0], [0], [0], [1]])),
    "no positives": Vectors(draw(0, 4), draw(1, 4), torch.zeros(4, 4)),
    "no negatives": Vectors(draw(0, 4), draw(1, 4), torch.ones(4, 4)),
    "all the same vector": Vectors(SAME, SAME, torch.eye(4)),
    "opposite vectors": Vectors(SAME, -SAME, torch.eye(4)),
    "audio is text": Vectors(draw(0, 4), draw(0, 4), torch.eye(4)),
    "zero vectors": Vectors(0 * SAME, draw(1, 4), torch.eye(4)),
    "nothing valid": Vectors(draw(0, 4), draw(1, 4), torch.eye(4), torch.zeros(4, 4, dtype=torch.bool)),
    "no audio": Vectors(draw(0, 0), draw(1, 4), torch.zeros(0, 4)),
    "no texts": Vectors(draw(0, 4), draw(1, 0), torch.zeros(4, 0)),
}


def only(which: Callable[[Case], bool]) -> pytest.MarkDecorator:
    chosen = [case for case in EMBEDDING_CASES if which(case)]
    return pytest.mark.parametrize("case", chosen, ids=lambda case: case.name)


every_loss = only(lambda case: True)


def in_double(case: Case) -> EmbeddingLoss:
    torch.manual_seed(0)  # some have networks of their own
    return case.make().double().eval()


@only(lambda case: case.oracle is not None)
def test_a_loss_is_what_plain_loops_say(case):
    loss = in_double(case)
    for name, batch in ORDINARY.items():
        expected = case.oracle(*batch.arrays())
        if case.directional:
            rows, columns = loss.direction_weights
            expected = (rows * expected + columns * case.oracle(*batch.transposed.arrays())) / (rows + columns)
        assert loss(*batch).item() == pytest.approx(expected, rel=1e-6, abs=1e-8), name


@only(lambda case: case.exact_gradient)
def test_gradients_are_those_of_finite_differences(case):
    loss = in_double(case)
    names = [name for name, _ in loss.named_parameters()]
    for batch in (ORDINARY["many positives"], ORDINARY["weighted"]):

        def call(audio, text, *parameters, batch=batch):
            state = dict(zip(names, parameters, strict=True))
            return functional_call(loss, state, (audio, text, batch.relevance, batch.valid, batch.weight))

        inputs = [each.detach().clone().requires_grad_() for each in (batch.audio, batch.text, *loss.parameters())]
        assert torch.autograd.gradcheck(call, inputs, atol=1e-6, rtol=1e-4, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@every_loss
def test_a_degenerate_batch_gives_a_finite_value_and_gradients(case, dtype):
    for name, batch in DEGENERATE.items():
        loss = case.make()
        audio, text = (each.to(dtype, copy=True).requires_grad_() for each in (batch.audio, batch.text))
        result = loss(audio, text, *list(batch)[2:])
        assert result.shape == (), name
        assert result.isfinite(), name
        result.backward()
        for each in (audio, text, *loss.parameters()):
            assert each.grad is not None, name
            assert each.grad.isfinite().all(), name


@every_loss
def test_the_order_of_audio_and_texts_does_not_matter(case):
    batch = ORDINARY["weighted"]
    rows, columns = torch.tensor([3, 0, 4, 2, 1]), torch.tensor([2, 3, 1, 0])
    shuffled = Vectors(
        batch.audio[rows],
        batch.text[columns],
        batch.relevance[rows][:, columns],
        None,
        batch.weight[rows][:, columns],
    )
    torch.testing.assert_close(in_double(case)(*shuffled), in_double(case)(*batch))


@only(lambda case: case.symmetric)
def test_audio_and_text_change_places_with_their_direction_weights(case):
    batch, loss, swapped = ORDINARY["weighted"], in_double(case), in_double(case)
    swapped.direction_weights = loss.direction_weights[::-1]
    torch.testing.assert_close(loss(*batch), swapped(*batch.transposed))


@every_loss
def test_what_stands_at_an_invalid_place_does_not_matter(case):
    batch = ORDINARY["graded and unknown"]
    spoiled = replace(batch, relevance=batch.relevance.masked_fill(~batch.valid, torch.nan))
    torch.testing.assert_close(in_double(case)(*spoiled), in_double(case)(*batch))


@every_loss
def test_a_relevance_below_0_is_a_negative_like_any_other(case):
    batch = ORDINARY["graded and unknown"]
    below = replace(batch, relevance=torch.where(batch.relevance > 0, batch.relevance, -0.75))
    torch.testing.assert_close(in_double(case)(*below), in_double(case)(*batch))


@every_loss
def test_a_nan_in_a_vector_is_never_hidden(case):
    batch = ORDINARY["the diagonal"]
    for name in ("audio", "text"):
        spoiled = getattr(batch, name).clone()
        spoiled[1, 2] = torch.nan
        assert in_double(case)(*replace(batch, **{name: spoiled})).isnan()


@only(lambda case: not case.make().needs_norms)
def test_the_length_of_vectors_does_not_matter(case):
    batch = ORDINARY["many positives"]
    torch.testing.assert_close(
        in_double(case)(*replace(batch, audio=3.0 * batch.audio)), in_double(case)(*batch), rtol=1e-6, atol=1e-8
    )


@every_loss
def test_half_precision_vectors_are_computed_in_float32(case):
    batch = ORDINARY["many positives"]
    loss = case.make().eval()
    audio, text = batch.audio.bfloat16(), batch.text.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = loss(audio, text, batch.relevance)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, loss(audio.float(), text.float(), batch.relevance), rtol=0, atol=0)


@every_loss
def test_a_loss_made_again_from_its_config_is_the_same(case):
    loss = case.make().eval()
    again = instantiate(loss.config).eval()
    assert again.config == loss.config
    again.load_state_dict(loss.state_dict())
    for batch in ORDINARY.values():
        assert again(*batch) == loss(*batch)


@every_loss
def test_the_size_of_a_relevance_means_what_the_class_says(case):
    batch, loss = ORDINARY["graded and unknown"], in_double(case)
    assert loss.graded in get_args(Graded)
    ones = replace(batch, relevance=(batch.relevance > 0).double())
    same = torch.isclose(loss(*batch), loss(*ones), rtol=1e-9, atol=1e-12)
    inner = getattr(loss, "loss", None)
    graded = getattr(inner, "graded", "soft target") if loss.graded == "by part" else loss.graded
    assert bool(same) == (graded == "threshold")


@every_loss
def test_every_loss_is_public_and_cites_its_source_or_says_what_it_is_made_of(case):
    kind = type(case.make())
    assert getattr(losses, kind.__name__) is kind
    assert "References:" in kind.__doc__ or kind.__module__ == "xmodal.losses.combined"
