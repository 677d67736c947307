"""A catalogue is tagged block by block as it would be in one piece."""

from __future__ import annotations

import pytest
import torch
from random_vectors import unit

from xmodal.tagging import Tag, TagScorer, Vocabulary, calibrate_to_prior, catalogue, fit_calibration, tag_catalogue

SPACE = "0123456789abcdef"


def embed_texts(texts):
    return torch.cat([unit(1, 8, sum(text.encode())) for text in texts])


@pytest.mark.parametrize("way", ["prior", "platt", "isotonic", "undecided", "parents", "flat"])
@pytest.mark.parametrize("block", [1, 25, 10**6])
def test_the_given_tags_are_those_of_every_pair_decided_at_once(way, block, monkeypatch):
    tracks = unit(400, 8, 1)
    parent = "a" if way == "parents" else None
    scorer = TagScorer(Vocabulary([Tag("a"), Tag("b", parent=parent), Tag("c"), Tag("d")]), embed_texts)
    score = scorer.score(tracks)
    noise = 0.2 * torch.randn(score.shape, generator=torch.Generator().manual_seed(2))
    labels = (score if way != "flat" else -score) + noise > 0.3
    if way == "prior":
        fitted = calibrate_to_prior(score, 0.2, scorer.tags, SPACE)
    else:
        error = 0.02 if way == "undecided" else None
        method = "isotonic" if way == "isotonic" else "platt"
        fitted = fit_calibration(score, labels, scorer.tags, SPACE, method=method, max_error=error)
    assert (fitted.unsure > 0) == (way == "undecided")
    assert bool((fitted.slope == 0).any()) == (way == "flat")
    probability = scorer.vocabulary.with_parents(fitted.probabilities(score))
    expected = fitted.decide(probability) == 1
    # Pairs that stand on the threshold to within rounding may fall on either side of it.
    clear = (probability - fitted.threshold - fitted.unsure).abs() > 1e-5
    monkeypatch.setattr(catalogue, "_BLOCK", block)
    found = tag_catalogue(tracks, scorer, fitted)
    given = torch.zeros_like(expected)
    given[found.track, found.tag] = True
    assert bool((given == expected)[clear].all())
    torch.testing.assert_close(found.probability, probability[found.track, found.tag])
    assert found.track.tolist() == sorted(found.track.tolist())


def test_no_tracks_get_no_tags_and_another_order_of_tags_is_refused():
    scorer = TagScorer(["a", "b"], embed_texts)
    fitted = calibrate_to_prior(scorer.score(unit(9, 8, 0)), 0.2, scorer.tags, SPACE)
    assert [len(column) for column in tag_catalogue(torch.zeros(0, 8), scorer, fitted)] == [0, 0, 0]
    with pytest.raises(ValueError, match=r"use Calibration\.for_tags"):
        tag_catalogue(unit(2, 8, 0), scorer, fitted.for_tags(["b", "a"], SPACE))
