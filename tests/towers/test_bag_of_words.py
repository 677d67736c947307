"""The hashed bag of words: its hashes, its average, its limits."""

from __future__ import annotations

import zlib

import pytest
import torch

from xmodal.towers import HashedBagOfWordsTower


def small(**settings):
    torch.manual_seed(0)
    return HashedBagOfWordsTower(**({"buckets": 1000, "embed_dim": 8, "feature_dim": 6} | settings)).eval()


def test_words_and_neighbouring_pairs_are_hashed():
    ids = small().tokenize(["Slow, SÄD piano"]).inputs["ids"]
    terms = ["slow", "säd", "piano", "slow säd", "säd piano"]
    assert ids.tolist() == [[1 + zlib.crc32(term.encode()) % 1000 for term in terms]]
    assert small(pairs=False).tokenize(["slow säd piano"]).inputs["ids"].tolist() == [ids[0, :3].tolist()]


@torch.no_grad()
def test_a_text_is_the_average_of_its_terms():
    tower = small()
    ids = tower.tokenize(["slow sad piano", "loud"]).inputs["ids"]
    average = torch.stack([tower.table.weight[row[row > 0]].mean(dim=0) for row in ids])
    expected = tower.output(tower.network(average))
    torch.testing.assert_close(tower(["slow sad piano", "loud"]), expected)


@torch.no_grad()
def test_pairs_tell_the_order_of_words():
    with_pairs, without = small(), small(pairs=False)
    one, other = "not loud but slow", "not slow but loud"
    assert torch.allclose(*without([one, other]), atol=1e-6)
    assert not torch.allclose(*with_pairs([one, other]), atol=1e-3)


@torch.no_grad()
def test_signs_alone_are_a_text():
    vectors = small()(["!!!", "?"])
    assert vectors.isfinite().all()
    assert not torch.allclose(vectors[0], vectors[1])


def test_padding_is_never_learned():
    tower = small()
    tower(["one two three", "one"]).square().sum().backward()
    assert not tower.table.weight.grad[0].any()


def test_the_identity_says_what_is_hashed():
    assert small().identity() != small(pairs=False).identity()
    assert small().identity() != small(buckets=999).identity()
    assert small().identity()["hash"] == "crc32"


@pytest.mark.parametrize("name", ["buckets", "embed_dim", "feature_dim"])
def test_an_empty_table_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        small(**{name: 0})
