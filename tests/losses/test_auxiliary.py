"""Auxiliary heads: what they cluster, which way their gradients go, and that they survive every batch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from embedding_cases import DIM
from test_embedding_contract import DEGENERATE, ORDINARY
from torch.testing import assert_close

from xmodal import losses
from xmodal.configurable import instantiate
from xmodal.losses import BatchItems, needs_of
from xmodal.losses.auxiliary import Decorrelation
from xmodal.losses.base import make_pairs

WIDTH = 5
HEADS = {
    "interclass": lambda: losses.InterclassHead(WIDTH, DIM, width=4, clusters=2),
    "diverse": lambda: losses.DiverseHeads(WIDTH, DIM, width=4),
}
every_head = pytest.mark.parametrize("make", HEADS.values(), ids=HEADS.keys())


def draw(seed, items, width=WIDTH):
    return torch.randn((items, width), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(make):
    torch.manual_seed(0)
    return make().double()


@every_head
def test_every_batch_gives_finite_values_and_gradients_of_everything(make):
    for name, batch in (DEGENERATE | ORDINARY).items():
        head = made(make)
        features, second = draw(1, len(batch.audio)).requires_grad_(), draw(2, len(batch.audio)).requires_grad_()
        audio, text = (each.clone().requires_grad_() for each in (batch.audio, batch.text))
        items = BatchItems(audio_features=features, second_audio_features=second)
        value = head(audio, text, *list(batch)[2:], items=items)
        assert value.isfinite(), name
        value.backward()
        for each in (audio, text, *head.parameters()):
            assert each.grad is not None, name
            assert each.grad.isfinite().all(), name
        if features.grad is not None:
            assert features.grad.isfinite().all(), name


@every_head
def test_equal_features_and_equal_items_are_survived(make):
    batch = ORDINARY["many positives"]
    same = torch.ones(len(batch.audio), WIDTH, dtype=torch.float64, requires_grad=True)
    made(make)(*batch, items=BatchItems(audio_features=same, second_audio_features=same)).backward()
    assert same.grad.isfinite().all()


@every_head
def test_the_order_of_items_does_not_matter_and_arithmetic_is_float32(make):
    batch = ORDINARY["many positives"]
    features, second = draw(1, 5), draw(2, 5)
    head = made(make)
    value = head(*batch, items=BatchItems(audio_features=features, second_audio_features=second))
    order = torch.tensor([3, 0, 4, 2, 1])
    turned = head(
        batch.audio[order],
        batch.text,
        batch.relevance[order],
        items=BatchItems(audio_features=features[order], second_audio_features=second[order]),
    )
    assert_close(turned, value)
    half = BatchItems(audio_features=features.bfloat16(), second_audio_features=second.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (
            head.float()(batch.audio.bfloat16(), batch.text.bfloat16(), batch.relevance, items=half).dtype
            == torch.float32
        )


@every_head
def test_a_head_says_what_it_needs_and_is_made_again_from_its_config(make):
    head = make()
    assert "features" in needs_of(head)
    again = instantiate(head.config)
    again.load_state_dict(head.state_dict())
    batch = ORDINARY["the diagonal"]
    items = BatchItems(audio_features=draw(1, 5).float(), second_audio_features=draw(2, 5).float())
    assert again(*batch, items=items) == head(*batch, items=items)
    with pytest.raises(ValueError, match="give items with audio_features"):
        head(*batch)


def test_surrogate_classes_are_what_is_left_when_the_named_content_is_taken_out():
    # Two tags far apart, and in each of them the same two rooms: the clusters must be the rooms.
    tag = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    room = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1])
    features = 10.0 * F.one_hot(tag, 4).double() + F.one_hot(room + 2, 4).double() + 0.01 * draw(3, 8, 4)
    relevance = (tag[:, None] == torch.arange(2)[None, :]).double()
    head = losses.InterclassHead(4, DIM, clusters=2)
    found = head.surrogate_classes(features, make_pairs(torch.zeros(8, 2).double(), relevance))
    assert torch.equal(found == found[0], room == room[0])


def test_items_that_share_no_text_are_clustered_as_they_are():
    features = torch.tensor([[0.0, 1], [0, 1.1], [5, 0], [5.1, 0]], dtype=torch.float64)
    found = losses.InterclassHead(2, DIM, clusters=2).surrogate_classes(
        features, make_pairs(torch.zeros(4, 4), torch.eye(4))
    )
    assert found[0] == found[1] != found[2] == found[3]


def test_the_interclass_head_is_the_cross_entropy_against_its_clusters():
    head = made(lambda: losses.InterclassHead(WIDTH, DIM, width=4, clusters=2, decorrelation_weight=0.0))
    batch, features = ORDINARY["many positives"], draw(4, 5)
    pairs = make_pairs(batch.audio @ batch.text.T, batch.relevance)
    labels = head.surrogate_classes(features, pairs)
    own = F.normalize(head.head(features), dim=1)
    centres = F.normalize(torch.stack([own[labels == k].sum(dim=0) for k in range(2)]), dim=1)
    alone = torch.bincount(labels, minlength=2)[labels] == 1
    assert len(set(labels.tolist())) == 2
    expected = F.cross_entropy(own @ centres.T / 0.1, labels, reduction="none")[~alone].mean()
    found = head(*batch, items=BatchItems(audio_features=features))
    assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_decorrelation_trains_the_guess_to_be_right_and_both_vectors_to_make_it_wrong():
    torch.manual_seed(0)
    module = Decorrelation(3, 2, hidden=4)
    one, other = torch.randn(6, 3, requires_grad=True), torch.randn(6, 2, requires_grad=True)
    module(one, other).backward()
    plain_one, plain_other = (each.detach().clone().requires_grad_() for each in (one, other))
    value = -(F.normalize(plain_other, dim=1) * F.normalize(module.guess(plain_one), dim=1)).square().mean()
    guess = [each.grad.clone() for each in module.parameters()]
    module.zero_grad()
    value.backward()
    assert_close(one.grad, -plain_one.grad)
    assert_close(other.grad, -plain_other.grad)
    for turned, straight in zip(guess, module.parameters(), strict=True):
        assert_close(turned, straight.grad)
    assert one.grad.abs().sum() > 0


def test_the_diverse_heads_are_their_triples_and_their_two_hearings():
    head = made(lambda: losses.DiverseHeads(WIDTH, DIM, width=4, decorrelation_weight=0.0, margin=0.3))
    batch, features, second = ORDINARY["many positives"], draw(1, 5), draw(2, 5)
    right = batch.relevance > 0
    alike = [[i == k or bool((right[i] & right[k]).any()) for k in range(5)] for i in range(5)]
    assert any(alike[i][k] for i in range(5) for k in range(5) if i != k)
    assert not all(map(all, alike))
    one = {name: F.normalize(getattr(head, name)(features), dim=1) for name in ("shared", "within", "own")}
    other = {name: F.normalize(getattr(head, name)(second), dim=1) for name in ("shared", "within", "own")}
    active = {"shared": [], "within": []}
    for i in range(5):
        strangers = [k for k in range(5) if not alike[i][k]]
        if strangers:
            bridge = max(strangers, key=lambda k: one["shared"][i] @ one["shared"][k])
            for k in strangers:
                if k != bridge:
                    gap = 0.3 + one["shared"][i] @ one["shared"][k] - one["shared"][i] @ one["shared"][bridge]
                    active["shared"] += [gap] if gap > 0 else []
        for k in range(5):
            if k != i and alike[i][k]:
                gap = 0.3 + one["within"][i] @ other["within"][k] - one["within"][i] @ other["within"][i]
                active["within"] += [gap] if gap > 0 else []
    logits = one["own"] @ other["own"].T / 0.1
    target = torch.arange(5)
    of_own = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    triples = [torch.stack(each).mean() if each else torch.zeros(()) for each in active.values()]
    found = head(*batch, items=BatchItems(audio_features=features, second_audio_features=second))
    assert_close(found, 0.3 * (sum(triples) + of_own), rtol=1e-6, atol=1e-6)


def test_joint_representation_multiplies_the_kernel_of_the_features_in():
    loss = losses.JointRepresentationRegularizer(3)
    batch = ORDINARY["many positives"]
    plain = loss(*batch)
    same = loss(*batch, items=BatchItems(audio_features=torch.ones(5, 2), text_features=torch.ones(6, 2)))
    assert_close(same, plain)  # where features do not differ their kernel is 1
    features, words = draw(5, 5), draw(6, 6)
    both = loss(*batch, items=BatchItems(audio_features=features, text_features=words))
    shares = [(batch.relevance @ batch.relevance.T > 0), (batch.relevance.T @ batch.relevance > 0)]
    audio, text = F.normalize(batch.audio, dim=1), F.normalize(batch.text, dim=1)
    score = audio @ text.T
    expected = 0.0
    for layers, share in zip(((audio, score, features), (text, score.T, words)), shares, strict=True):
        product = torch.stack([loss._kernel(each) for each in layers]).prod(dim=0)
        apart = ~share & ~torch.eye(len(share), dtype=torch.bool)
        expected = expected + product[apart].mean()
    assert_close(both, expected)


def test_attention_consistency_is_the_mean_gap_of_the_clips():
    vectors = torch.eye(3), torch.eye(3), torch.eye(3, dtype=torch.bool)
    gap = torch.tensor([0.5, 0.0, 1.0], requires_grad=True)
    value = losses.AttentionConsistency()(*vectors, items=BatchItems(attention_gap=gap.bfloat16()))
    assert (value.dtype, value.item()) == (torch.float32, 0.5)
    value.backward()
    assert_close(gap.grad, torch.full((3,), 1 / 3), atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match="needs attention_gap"):
        losses.AttentionConsistency()(*vectors)
    assert needs_of(losses.AttentionConsistency()) == {"attention"}
