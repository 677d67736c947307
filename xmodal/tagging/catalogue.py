"""A vocabulary over a whole catalogue, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from xmodal.tagging.calibration import Calibration
from xmodal.tagging.scorer import Matrix, TagScorer

_BLOCK = 2**20  # entries of a block of scores: 4 MB, which stay in the cache from pass to pass


class GivenTags(NamedTuple):
    """The tags that a catalogue gets: entry i says that track ``track[i]`` has tag ``tag[i]``."""

    track: Int[Tensor, " given"]
    tag: Int[Tensor, " given"]
    probability: Float[Tensor, " given"]


def tag_catalogue(audio: Float[Matrix, "tracks dim"], scorer: TagScorer, calibration: Calibration) -> GivenTags:
    """Score, calibrate and threshold every tag on every track; only what is given is kept.

    Each tag is decided by its own threshold; undecided pairs are not given. Parents are raised to their descendants.

    Args:
        audio: Unit vectors of the tracks.
        scorer: The vocabulary.
        calibration: Of the same tags in the same order.

    Returns:
        The given pairs, by track, then by tag. Memory beside them and the vectors is that of one block of tracks.

    Raises:
        ValueError: If the calibration is of other tags.
    """
    if tuple(scorer.tags) != calibration.tags:
        raise ValueError("the calibration must be of the scorer's tags in their order; use Calibration.for_tags")
    parts = [_given(first, block, scorer, calibration) for first, block in _score_blocks(audio, scorer)]
    if not parts:
        nothing = torch.zeros(0, dtype=torch.long)
        return GivenTags(nothing, nothing, torch.zeros(0))
    return GivenTags(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _score_blocks(audio: Matrix, scorer: TagScorer) -> Iterator[tuple[int, Float[Tensor, "block tags"]]]:
    rows = max(1, _BLOCK // len(scorer.tags))
    for first in range(0, len(audio), rows):
        yield first, scorer.score(audio[first : first + rows])


def _given(first: int, score: Float[Tensor, "block tags"], scorer: TagScorer, calibration: Calibration) -> GivenTags:
    if not calibration.steps and not scorer.vocabulary.has_parents:
        # A sigmoid rises, so that a score can be held against the threshold's own score: one pass instead of four,
        # and probabilities for the few pairs that are given.
        margin = torch.logit((calibration.threshold + calibration.unsure).clamp(max=1 - 1e-7).double())
        least = ((margin - calibration.intercept) / calibration.slope.clamp(min=1e-12)).float()
        track, tag = _places(score >= least)
        z = score[track, tag] * calibration.slope[tag] + calibration.intercept[tag]
        return GivenTags(track + first, tag, z.sigmoid())
    probability = scorer.vocabulary.with_parents(calibration.probabilities(score))
    track, tag = _places(calibration.decide(probability) == 1)
    return GivenTags(track + first, tag, probability[track, tag])


def _places(given: Bool[Tensor, "block tags"]) -> tuple[Int[Tensor, " given"], Int[Tensor, " given"]]:
    """Rows and columns of what is true. NumPy finds few among many in a seventh of torch's time."""
    flat = torch.from_numpy(np.flatnonzero(given.numpy()))
    return flat // given.shape[1], flat % given.shape[1]
