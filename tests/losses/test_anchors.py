"""Learned anchors for a fixed vocabulary."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from xmodal import losses
from xmodal.configurable import instantiate
from xmodal.losses import BatchItems, Vocabulary, apply_loss

GOLDEN = json.loads(Path(__file__).with_name("golden_pml.json").read_text(encoding="utf-8"))
AUDIO = torch.tensor(GOLDEN["audio"], dtype=torch.float64)
PROXIES = torch.tensor(GOLDEN["proxies"], dtype=torch.float64)
LABELS = torch.tensor(GOLDEN["audio_labels"])
RELEVANCE = (LABELS[:, None] == torch.arange(3)[None, :]).double()
TEXT = torch.randn((3, 5), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
ROWS = {"direction_weights": (1.0, 0.0)}
OBJECTIVES = {
    "one anchor": lambda: losses.LearnedAnchors(losses.ProxyAnchorLoss(), 5, concepts=3),
    "several anchors": lambda: losses.LearnedAnchors(
        losses.NCALoss(1 / 18), 5, concepts=3, per_concept=2, spread_weight=0.2
    ),
    "proxy graph": lambda: losses.ProxyGraphLoss(5, concepts=3, per_concept=4, neighbours=0.3),
    "meta classes": lambda: losses.MetaClassLoss(1, 5, concepts=3),
}
every_objective = pytest.mark.parametrize("make", OBJECTIVES.values(), ids=OBJECTIVES.keys())


def soft_triple(**settings):
    cross_entropy = losses.InfoNCELoss(1 / 20, learn_temperature=False, margin=0.01, **ROWS)
    loss = losses.LearnedAnchors(cross_entropy, 5, concepts=3, per_concept=2, text_weight=0.0, **settings).double()
    with torch.no_grad():
        loss.anchors.proxies.copy_(PROXIES.reshape(3, 2, 5))
    return loss


def test_soft_triple_agrees_with_another_implementation():
    value = apply_loss(soft_triple(), AUDIO, TEXT, RELEVANCE).item()
    assert value == pytest.approx(GOLDEN["values"]["soft triple"], rel=1e-6)


def test_the_spread_of_anchors_is_their_mean_distance_by_two():
    plain, spread = (apply_loss(soft_triple(spread_weight=w), AUDIO, TEXT, RELEVANCE) for w in (0.0, 0.2))
    unit = F.normalize(PROXIES, dim=1).reshape(3, 2, 5)
    apart = (unit[:, 0] - unit[:, 1]).norm(dim=1)
    # tau / (C K (K - 1)) times the sum over pairs of anchors
    torch.testing.assert_close(spread - plain, 0.2 / (3 * 2) * apart.sum())


def test_one_anchor_a_concept_that_starts_from_the_texts_is_the_loss_of_the_texts():
    inner = losses.ProxyAnchorLoss()
    loss = losses.LearnedAnchors(inner, 5, text_weight=0.0).double()
    loss.meet_vocabulary(TEXT)
    torch.testing.assert_close(loss(AUDIO, TEXT, RELEVANCE), apply_loss(inner, AUDIO, TEXT, RELEVANCE))


def test_several_anchors_that_meet_vocabulary_one_text_can_part():
    loss = losses.LearnedAnchors(losses.NCALoss(), 5, concepts=3, per_concept=3).double()
    loss.meet_vocabulary(TEXT)
    unit = F.normalize(loss.anchors.proxies.detach(), dim=2)
    assert (unit @ F.normalize(TEXT, dim=1)[:, :, None]).min() > 0.999
    assert (unit[:, 0] - unit[:, 1]).norm(dim=1).min() > 1e-4


def test_all_anchors_and_one_a_concept_make_the_proxy_graph_a_soft_max():
    loss = losses.ProxyGraphLoss(
        5, concepts=3, per_concept=1, neighbours=1.0, anchor_weight=0.0, text_weight=0.0
    ).double()
    anchors = F.normalize(loss.anchors.proxies[:, 0], dim=1)
    torch.testing.assert_close(loss(AUDIO, TEXT, RELEVANCE), F.cross_entropy(AUDIO @ anchors.T, LABELS))


def test_the_proxy_graph_is_what_loops_say():
    loss = losses.ProxyGraphLoss(
        5, concepts=3, per_concept=4, neighbours=0.3, anchor_weight=0.5, text_weight=0.25
    ).double()
    anchors = F.normalize(loss.anchors.proxies.detach(), dim=2).numpy()

    def of_items(items, labels):
        terms = []
        for item, label in zip(items.numpy(), labels, strict=True):
            cosines = {(c, k): item @ anchors[c, k] for c in range(3) for k in range(4)}
            order = sorted(cosines, key=lambda place: (place[0] != label, -cosines[place]))
            kept = order[: max(4, int(np.ceil(0.3 * 12)))]  # the own concept's four always
            logits = {c: sum(cosines[place] for place in kept if place[0] == c) for c in {c for c, _ in kept}}
            terms.append(np.log(sum(np.exp(each) for each in logits.values())) - logits[label])
        return np.mean(terms)

    own = []
    for c in range(3):
        for k in range(4):
            logits = [sum(anchors[c, k] @ anchors[other, n] for n in range(4)) for other in range(3)]
            own.append(np.log(np.exp(logits).sum()) - logits[c])
    of_texts = of_items(F.normalize(TEXT, dim=1), range(3))
    expected = of_items(AUDIO, LABELS.tolist()) + 0.5 * np.mean(own) + 0.25 * of_texts
    assert loss(AUDIO, TEXT, RELEVANCE).item() == pytest.approx(expected)


def test_a_text_is_an_item_of_its_own_concept():
    inner = losses.ProxyAnchorLoss()
    loss = losses.LearnedAnchors(inner, 5, concepts=3, text_weight=0.5).double()
    anchors = loss.anchors.proxies[:, 0]
    expected = apply_loss(inner, AUDIO, anchors, RELEVANCE) + 0.5 * apply_loss(inner, TEXT, anchors, torch.eye(3))
    torch.testing.assert_close(loss(AUDIO, TEXT, RELEVANCE), expected)
    heads = losses.MetaClassLoss(1, 5, temperature=0.5, direction_weights=(0.0, 1.0))
    group = heads._lots(3)[0].argmax(dim=1)
    expected = F.cross_entropy(F.normalize(TEXT, dim=1) / 0.5, group)
    torch.testing.assert_close(heads(AUDIO, TEXT, RELEVANCE), expected, rtol=1e-6, atol=1e-6)


def test_a_given_vocabulary_stands_in_the_place_of_the_texts_of_the_batch():
    captions, of_captions = torch.randn(4, 5).double(), torch.ones(6, 4)
    valid = torch.ones((6, 3), dtype=torch.bool)
    valid[0, 1] = False
    items = BatchItems(vocabulary=Vocabulary(TEXT, RELEVANCE, valid))
    for make in OBJECTIVES.values():
        given = make()(AUDIO, captions, of_captions, items=items)
        torch.testing.assert_close(given, make()(AUDIO, TEXT, RELEVANCE, valid))


@pytest.mark.parametrize("make", [lambda: losses.LearnedAnchors(losses.NCALoss(), 5), lambda: losses.ProxyGraphLoss(5)])
def test_anchors_are_made_when_the_vocabulary_is_known(make):
    loss = make()
    with pytest.raises(ValueError, match=r"give concepts=, or call meet_vocabulary\(texts\)"):
        loss(AUDIO, TEXT, RELEVANCE)
    loss.meet_vocabulary(TEXT.float())
    assert loss.anchors.proxies.shape[0] == 3
    again = make()
    again.load_state_dict(loss.state_dict())
    assert again(AUDIO, TEXT, RELEVANCE) == loss(AUDIO, TEXT, RELEVANCE)
    with pytest.raises(ValueError, match="of 5 dimensions, got 3 of 4"):
        loss.meet_vocabulary(TEXT[:, :4])


def test_a_vocabulary_of_another_size_than_was_said_is_refused():
    for make in OBJECTIVES.values():
        with pytest.raises(ValueError, match="for 3 concepts.* got 2"):
            make().meet_vocabulary(TEXT[:2])


def test_heads_learn_their_groupings_of_the_concepts():
    audio = torch.randn((6, 8), generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    loss = losses.MetaClassLoss(2, 4, concepts=3, temperature=0.5, seed=1, **ROWS)
    unit = F.normalize(audio, dim=1)
    values = []
    for head in range(2):
        part = F.normalize(unit[:, 4 * head : 4 * head + 4], dim=1)
        group = loss.groupings[head].argmax(dim=1)[LABELS]
        values.append(F.cross_entropy(part / 0.5, group))
    torch.testing.assert_close(
        loss(audio, torch.ones((3, 8), dtype=torch.float64), RELEVANCE), sum(values) / 2, rtol=1e-6, atol=1e-6
    )
    assert not torch.equal(loss.groupings[0], loss.groupings[1])


@every_objective
def test_a_batch_that_is_not_the_vocabulary_is_refused(make):
    with pytest.raises(ValueError, match="must be the 3 concepts in their order, got 2 texts"):
        make()(AUDIO.float(), TEXT[:2].float(), RELEVANCE[:, :2])


def test_vectors_that_are_not_made_of_heads_are_refused():
    with pytest.raises(ValueError, match=r"heads \* groups = 2 \* 4 dimensions, got 5"):
        losses.MetaClassLoss(2, 4, concepts=3)(AUDIO.float(), TEXT.float(), RELEVANCE)


@every_objective
def test_anchors_are_made_again_from_the_config_and_the_weights(make):
    loss = make()
    again = instantiate(loss.config)
    again.load_state_dict(loss.state_dict())
    assert again(AUDIO, TEXT, RELEVANCE) == loss(AUDIO, TEXT, RELEVANCE)


@every_objective
def test_many_positives_unknown_tags_and_empty_rows_give_finite_gradients(make):
    relevance = torch.tensor([[1.0, 1, 0], [0, 0, 0], [1, 1, 1], [0, 1, 0], [0, 0, 0], [1, 0, 0]])
    valid = torch.ones((6, 3), dtype=torch.bool)
    valid[3, 2] = valid[4] = False
    loss = make()
    audio = AUDIO.float().requires_grad_()
    loss(audio, TEXT.float(), relevance, valid).backward()
    assert audio.grad.isfinite().all()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in loss.parameters())
