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


def divided(inner, **settings):
    return losses.DivideAndConquerLoss(inner, 4, learners=2, **settings).double()


def test_a_divided_space_trains_each_cluster_s_own_part():
    inner = losses.InfoNCELoss(0.3)
    loss = divided(inner)
    whole = apply_loss(inner, AUDIO, TEXT, RELEVANCE)
    torch.testing.assert_close(loss(AUDIO, TEXT, RELEVANCE), whole)
    unit = F.normalize(AUDIO, dim=1)
    centres = F.normalize(torch.stack([unit[0], -unit[0]]), dim=1)
    loss.set_centres(centres)
    expected = 0.0
    for k in range(2):
        rows = [i for i in range(6) if int((unit[i] @ centres.T).argmax()) == k]
        columns = [j for j in range(5) if RELEVANCE[rows, j].any()]
        cut = slice(2 * k, 2 * k + 2)
        if rows and columns:
            part = apply_loss(
                inner, unit[rows, cut], F.normalize(TEXT, dim=1)[columns, cut], RELEVANCE[rows][:, columns]
            )
            expected = expected + len(rows) / 6 * part
    torch.testing.assert_close(loss(AUDIO, TEXT, RELEVANCE), expected)
    torch.testing.assert_close(loss.eval()(AUDIO, TEXT, RELEVANCE), whole)
    loss.train().set_centres(None)
    torch.testing.assert_close(loss(AUDIO, TEXT, RELEVANCE), whole)


def test_the_space_is_divided_when_the_bank_is_full_or_when_told_and_whole_again_at_the_end():
    loss = divided(losses.InfoNCELoss(), bank=12, every=2, end=5)
    states = []
    for _ in range(6):
        loss(AUDIO, TEXT, RELEVANCE)
        states.append(bool(loss.divided))
    assert states == [False, True, True, True, True, False]
    early = divided(losses.InfoNCELoss(), begin=1)
    early(AUDIO, TEXT, RELEVANCE)
    assert not early.divided
    early(AUDIO, TEXT, RELEVANCE)
    assert early.divided
    again = divided(losses.InfoNCELoss(), begin=1)
    again.load_state_dict(early.state_dict())
    torch.testing.assert_close(again(AUDIO, TEXT, RELEVANCE), early(AUDIO, TEXT, RELEVANCE))


def test_a_cluster_keeps_its_learner_when_it_is_found_again():
    loss = divided(losses.InfoNCELoss(), bank=6, every=1)
    loss(AUDIO, TEXT, RELEVANCE)
    before = loss.centres.clone()
    loss.set_centres(before.flip(0))
    loss(AUDIO, TEXT, RELEVANCE)
    torch.testing.assert_close(loss.centres, before.flip(0))


def test_the_bank_holds_the_last_vectors():
    loss = divided(losses.InfoNCELoss(), bank=8)
    loss(AUDIO, TEXT, RELEVANCE)
    loss(2 * AUDIO.flip(0), TEXT, RELEVANCE)
    unit = F.normalize(AUDIO, dim=1)
    torch.testing.assert_close(loss.recent[6:8], unit.flip(0)[:2])
    torch.testing.assert_close(loss.recent[:4], unit.flip(0)[2:])


def test_one_learner_or_a_cascade_that_keeps_everything_is_the_loss_itself():
    inner = losses.TripletLoss(mining="all")
    plain = apply_loss(inner, AUDIO, TEXT, RELEVANCE)
    for loss in (losses.EnsembleLoss(inner, 1), losses.CascadedLoss(inner, [1.0])):
        torch.testing.assert_close(loss(AUDIO, TEXT, RELEVANCE), plain)
    both = losses.CascadedLoss(inner, [1.0, 1.0])(AUDIO, TEXT, RELEVANCE)
    torch.testing.assert_close(both, 2 * losses.EnsembleLoss(inner, 2)(AUDIO, TEXT, RELEVANCE))
    with pytest.raises(ValueError, match="shares must be one number a learner, got none"):
        losses.CascadedLoss(inner, [])
    with pytest.raises(ValueError, match="each of shares must be above 0 and at most 1, got 1.5"):
        losses.CascadedLoss(inner, [1.0, 1.5])


def test_an_episode_of_concepts_without_other_audio_is_the_hardest_support_loss():
    relevance = torch.zeros(6, 5)
    relevance[2, 1] = 1.0
    plain = apply_loss(losses.HardestSupportLoss(0.4, direction_weights=(1.0, 0.0)), AUDIO, TEXT, relevance)
    torch.testing.assert_close(losses.EpisodeLoss(0.4, length_weight=0.0)(AUDIO, TEXT, relevance), plain)


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


def test_how_far_a_negative_is_moved_is_constant_for_the_gradient():
    batch, inner = ORDINARY["many positives"], losses.ContrastiveLoss(1.5)
    score = batch.score.clone().requires_grad_()
    losses.HardnessAwareLoss(inner, hardness=0.3)(score, batch.relevance).backward()
    moving = batch.score.clone().requires_grad_()
    kept = torch.exp(-0.3 / inner(batch.score, batch.relevance))
    positive = batch.relevance > 0
    total = []
    # The contrastive loss has no directions, but what is an anchor's farthest positive depends on the side.
    away = (2 - 2 * moving).clamp(min=0).sqrt()
    farthest = away.masked_fill(~positive, 0.0).amax(dim=1, keepdim=True)
    moves = ~positive & (away > farthest) & positive.any(dim=1, keepdim=True)
    moved = torch.where(moves, 1 - (farthest + (away - farthest) * kept).square() / 2, moving)
    total.append(inner(moved, batch.relevance))
    columns = away.masked_fill(~positive, 0.0).amax(dim=0, keepdim=True)
    moves = ~positive & (away > columns) & positive.any(dim=0, keepdim=True)
    moved = torch.where(moves, 1 - (columns + (away - columns) * kept).square() / 2, moving)
    total.append(inner(moved, batch.relevance))
    (sum(total) / 2).backward()
    torch.testing.assert_close(score.grad, moving.grad)
