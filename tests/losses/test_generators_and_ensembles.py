"""What the contract's loops do not show: limit cases, and which part is trained by what."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from loss_batches import ORDINARY

from xmodal import losses
from xmodal.losses import apply_loss
from xmodal.losses.concepts import spherical_kmeans


def vectors(seed, items, dim=4):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((items, dim), generator=generator, dtype=torch.float64)


AUDIO, TEXT = vectors(0, 6), vectors(1, 5)
RELEVANCE = (torch.rand((6, 5), generator=torch.Generator().manual_seed(2)) < 0.4).double()


def test_no_points_and_no_hardness_give_the_inner_loss():
    inner = losses.InfoNCELoss(0.3)
    plain = apply_loss(inner, AUDIO, TEXT, RELEVANCE)
    torch.testing.assert_close(losses.EmbeddingExpansionLoss(inner, points=0)(AUDIO, TEXT, RELEVANCE), plain)
    batch = ORDINARY["many positives"]
    torch.testing.assert_close(losses.HardnessAwareLoss(inner, hardness=0.0)(*batch), inner(*batch))


def test_a_good_model_meets_negatives_as_close_as_its_farthest_positive():
    batch = ORDINARY["many positives"]
    hard = losses.HardnessAwareLoss(losses.TripletLoss(0.0, mining="all", average="all"), hardness=1e6)
    assert hard(*batch) == losses.TripletLoss(0.0, mining="all", average="all")(*batch)  # never across the positive
    contrastive = losses.HardnessAwareLoss(losses.ContrastiveLoss(2.0), hardness=1e6)
    assert contrastive(*batch) > losses.ContrastiveLoss(2.0)(*batch)


@pytest.mark.parametrize("loss", [losses.EmbeddingExpansionLoss, losses.SymmetricalSynthesisLoss])
def test_synthetic_negatives_make_a_harder_batch(loss):
    inner = losses.NCALoss(0.3)
    assert loss(inner)(AUDIO, TEXT, RELEVANCE) > apply_loss(inner, AUDIO, TEXT, RELEVANCE)


def test_the_network_and_the_towers_are_trained_by_their_own_terms():
    torch.manual_seed(0)
    loss = losses.AdversarialNegativeLoss(4, hidden=6, margin=0.5, direction_weights=(1.0, 0.0)).double()
    audio = AUDIO.clone().requires_grad_()
    value = loss(audio, TEXT, RELEVANCE)
    value.backward()
    a, t = F.normalize(AUDIO, dim=1), F.normalize(TEXT, dim=1)
    weights = {name: each.detach() for name, each in loss.network.named_parameters()}
    moving = {name: each.clone().requires_grad_() for name, each in weights.items()}
    towers = AUDIO.clone().requires_grad_()
    unit = F.normalize(towers, dim=1)
    made_up, pushed, rows = 0.0, 0.0, 0

    def make(parameters, *parts):
        return F.normalize(torch.func.functional_call(loss.network, parameters, (torch.cat(parts),)), dim=0)

    for i in range(6):
        positives, negatives = RELEVANCE[i].nonzero()[:, 0], (RELEVANCE[i] == 0).nonzero()[:, 0]
        if len(positives) and len(negatives):
            p = t[min(positives.tolist(), key=lambda j: a[i] @ t[j])]
            n = t[max(negatives.tolist(), key=lambda j: a[i] @ t[j])]
            made = make(moving, a[i], p, n)
            to_anchor, own = ((made - a[i]) ** 2).sum(), ((p - a[i]) ** 2).sum()
            made_up = made_up + to_anchor + ((made - n) ** 2).sum() + (to_anchor - own + 0.5).clamp(min=0)
            hard = make(weights, unit[i], p, n)
            pushed = pushed + (((p - unit[i]) ** 2).sum() - ((hard - unit[i]) ** 2).sum() + 0.5).clamp(min=0)
            rows += 1
    torch.testing.assert_close(value, (made_up + pushed) / rows)
    (made_up / rows).backward()
    (pushed / rows).backward()
    for name, each in loss.network.named_parameters():
        torch.testing.assert_close(each.grad, moving[name].grad)
    torch.testing.assert_close(audio.grad, towers.grad)


def test_one_learner_is_the_binomial_deviance():
    torch.testing.assert_close(
        losses.BoostedEnsembleLoss([4])(AUDIO, TEXT, RELEVANCE),
        apply_loss(losses.BinomialDevianceLoss(), AUDIO, TEXT, RELEVANCE),
    )


def test_learners_that_do_not_make_up_the_vector_are_refused():
    with pytest.raises(ValueError, match=r"widths must add up to the vectors' 4 dimensions, got \[1, 2\]"):
        losses.BoostedEnsembleLoss([1, 2])(AUDIO, TEXT, RELEVANCE)
    with pytest.raises(ValueError, match="widths must be at least one number"):
        losses.BoostedEnsembleLoss([])
    with pytest.raises(ValueError, match="dim must be a multiple of learners, got dim=5 and learners=2"):
        losses.DivideAndConquerLoss(losses.InfoNCELoss(), 5, learners=2)


def test_a_divided_space_trains_the_part_of_the_nearest_cluster():
    inner = losses.InfoNCELoss(0.3)
    loss = losses.DivideAndConquerLoss(inner, 4, learners=2).double()
    whole = apply_loss(inner, AUDIO, TEXT, RELEVANCE)
    torch.testing.assert_close(loss(AUDIO, TEXT, RELEVANCE), whole)
    middle = F.normalize(AUDIO, dim=1).mean(dim=0)
    loss.set_centres(torch.stack([-middle, middle]))
    torch.testing.assert_close(loss(AUDIO, TEXT, RELEVANCE), apply_loss(inner, AUDIO[:, 2:], TEXT[:, 2:], RELEVANCE))
    loss.set_centres(None)
    torch.testing.assert_close(loss(AUDIO, TEXT, RELEVANCE), whole)


def test_k_means_finds_clusters_that_are_apart():
    centres = F.normalize(torch.eye(4, dtype=torch.float64)[:3] + 0.1, dim=1)
    items = F.normalize(centres.repeat(5, 1) + 0.05 * vectors(3, 15), dim=1)
    found = spherical_kmeans(items, 3, 10)
    assert (found @ centres.T).amax(dim=0).min() > 0.995


def test_audio_and_its_texts_are_drawn_to_their_cluster():
    audio = F.normalize(torch.eye(3, dtype=torch.float64).repeat(2, 1) + 0.05 * vectors(4, 6, 3), dim=1)
    text = F.normalize(vectors(5, 3, 3), dim=1)
    relevance = torch.eye(3).repeat(2, 1)
    centres = F.normalize((audio[:3] + audio[3:]) / 2, dim=1)
    target = torch.arange(3)
    expected = F.cross_entropy(audio @ centres.T / 0.1, target.repeat(2)) + F.cross_entropy(
        text @ centres.T / 0.1, target
    )
    loss = losses.ClusterContrastLoss(3)
    torch.testing.assert_close(loss(audio, text, relevance), expected, rtol=1e-6, atol=1e-6)
