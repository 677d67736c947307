"""The character n-grams: what is hashed, what is near, and the order of words."""

from __future__ import annotations

import zlib

import pytest
import torch

from xmodal.towers import CharNgramTower


def small(**settings):
    torch.manual_seed(0)
    return CharNgramTower(**({"buckets": 5000, "embed_dim": 32, "feature_dim": 16} | settings)).eval()


def hashes(terms, buckets=5000):
    return sorted(1 + zlib.crc32(term.encode()) % buckets for term in terms)


def test_a_word_and_its_ngrams_with_its_ends_are_hashed():
    ids = small(shortest=2, longest=3).tokenize(["Ab, c"]).inputs["ids"][0].tolist()
    assert sorted(ids) == hashes(["<ab>", "<a", "ab", "b>", "<ab", "ab>", "<c>", "<c", "c>"])


def test_ngrams_know_the_place_of_the_first_words_if_asked_to():
    ids = small(shortest=9, longest=9, positions=1).tokenize(["one two"]).inputs["ids"][0].tolist()
    assert sorted(ids) == hashes(["0 <one>", "<two>"])


@torch.no_grad()
def test_words_that_are_spelt_alike_are_near():
    tower = small()
    rows = tower.table(tower.tokenize(["singing", "singer", "percussion"]).inputs["ids"])
    near, far = torch.cosine_similarity(rows[0], rows[1], dim=0), torch.cosine_similarity(rows[0], rows[2], dim=0)
    assert near > far + 0.2


@torch.no_grad()
def test_the_order_of_words_is_heard_only_with_positions():
    one, other = "one two three", "three two one"
    assert torch.allclose(*small()([one, other]), atol=1e-6)
    assert not torch.allclose(*small(positions=3)([one, other]), atol=1e-3)


@torch.no_grad()
def test_case_and_signs_alone():
    tower = small()
    assert torch.allclose(*tower(["SÄD", "säd"]))
    assert tower(["!!!"]).isfinite().all()


def test_padding_is_never_learned():
    tower = small()
    tower(["one two three", "one"]).square().sum().backward()
    assert not tower.table.weight.grad[0].any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shortest": 0}, "shortest first, got 0 to 5"),
        ({"shortest": 4, "longest": 3}, "got 4 to 3"),
        ({"positions": -1}, "positions must be at least 0"),
        ({"buckets": 0}, "buckets must be at least 1"),
    ],
)
def test_nonsense_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        small(**settings)
