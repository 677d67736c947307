"""The loss over prefixes is the loss of each prefix, and trains the first dimensions to be of use alone."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from xmodal.losses import InfoNCELoss, MatryoshkaLoss, SigLIPLoss, apply_loss


def batch(items=6, dim=8, seed=0):
    torch.manual_seed(seed)
    return torch.randn(items, dim), torch.randn(items, dim), torch.eye(items, dtype=torch.bool)


def test_it_is_the_weighted_mean_of_the_losses_of_unit_prefixes():
    audio, text, relevance = batch()
    loss = InfoNCELoss(0.2)
    expected = sum(
        share * loss(normalize(audio[:, :dim]) @ normalize(text[:, :dim]).T, relevance)
        for dim, share in ((2, 0.25), (8, 0.75))
    )
    torch.testing.assert_close(MatryoshkaLoss(loss, [2, 8], [1, 3])(audio, text, relevance), expected)


def test_one_length_is_the_loss_itself_and_its_parameters_are_shared():
    audio, text, relevance = batch()
    loss = SigLIPLoss()
    whole = MatryoshkaLoss(loss, [8])
    torch.testing.assert_close(whole(audio, text, relevance), apply_loss(loss, audio, text, relevance))
    assert [*whole.parameters()] == [*loss.parameters()]


def test_the_gradient_reaches_the_first_dimensions_most():
    audio, text, relevance = batch()
    audio.requires_grad_()
    MatryoshkaLoss(InfoNCELoss(0.2), [2, 4, 8])(audio, text, relevance).backward()
    size = audio.grad.abs().mean(dim=0)
    assert size[:2].mean() > size[4:].mean() > 0


def test_vectors_can_be_cut_after_training_with_it():
    # Sixteen classes in a space of eight: the plain loss spreads them over all dimensions.
    def trained(loss):
        torch.manual_seed(1)
        audio, text = (torch.nn.Parameter(torch.randn(16, 8)) for _ in range(2))
        optimiser = torch.optim.Adam([audio, text], 0.05)
        for _ in range(150):
            optimiser.zero_grad()
            apply_loss(loss, audio, text, torch.eye(16, dtype=torch.bool)).backward()
            optimiser.step()
        cut = normalize(audio[:, :2]) @ normalize(text[:, :2]).T
        return float((cut.argmax(dim=1) == torch.arange(16)).float().mean())

    assert trained(MatryoshkaLoss(InfoNCELoss(0.1), [2, 4, 8])) >= trained(InfoNCELoss(0.1)) + 0.2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([4, 4],), "dims must be rising"),
        (([],), "dims must be rising"),
        (([2, 8], [1]), "one number a length"),
        (([2, 8], [0, 0]), "not all 0"),
    ],
)
def test_lengths_and_weights_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MatryoshkaLoss(InfoNCELoss(), *arguments)


def test_another_width_than_the_last_length_is_refused():
    with pytest.raises(ValueError, match=r"the last of dims must be the model's dim, got dims=\[2, 4\]"):
        MatryoshkaLoss(InfoNCELoss(), [2, 4])(*batch())
