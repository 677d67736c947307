"""Audio against audio: like tracks near one another, versions of one work, and people's judgements of likeness."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from xmodal.embeddings import unit_rows
from xmodal.metrics import KS, Ranking, bootstrap_interval, summary
from xmodal.metrics.retrieval import rank_score_blocks

Matrix = Tensor | np.ndarray


def rank_alike(
    vectors: Float[Matrix, "tracks dim"],
    label: Int[Matrix, " tracks"],
    *,
    exclude: Int[Matrix, " tracks"] | None = None,
) -> Ranking:
    """Every track asks for the tracks of its label; it is no candidate of its own.

    Args:
        vectors: Unit vectors.
        label: A number for each track: its genre, or the work that it is a version of.
        exclude: A number for each track; tracks with the asking track's number are no candidates either. With
            artists it is the artist filter (Pampalk 2006), without which a model that knows voices and studios looks
            as if it knew genres.

    Returns:
        The ranking of tracks that have a right candidate. Candidates that are not admitted stand at the end.

    Raises:
        ValueError: If shapes do not fit or no track has a right candidate.
    """
    rows = torch.from_numpy(unit_rows(vectors, "vectors"))
    own, kept_out = torch.as_tensor(label), None if exclude is None else torch.as_tensor(exclude)
    for given in (own, kept_out):
        if given is not None and given.shape != (len(rows),):
            raise ValueError(f"each of {len(rows)} tracks needs one number, got shape {tuple(given.shape)}")
    identity = torch.arange(len(rows))

    def admitted(some: Tensor) -> Tensor:
        others = identity[some, None] != identity
        return others if kept_out is None else others & (kept_out[some, None] != kept_out)

    # Cosines end at -1, so that -2 is below them all.
    return rank_score_blocks(
        lambda some: (rows[some] @ rows.T).masked_fill(~admitted(some), -2.0),
        lambda some: (own[some, None] == own) & admitted(some),
        (len(rows), len(rows)),
    )


def evaluate_alike(
    vectors: Float[Matrix, "tracks dim"],
    label: Int[Matrix, " tracks"],
    *,
    exclude: Int[Matrix, " tracks"] | None = None,
    ks: Sequence[int] = KS,
) -> dict[str, float]:
    """:func:`rank_alike` as figures: R@k, P@k, MAP (whole list), MR1 (mean rank of the first right), and "queries".

    MAP and MR1 over versions of a work are the figures of cover-song identification (MIREX; Da-TACOS).
    """
    ranking = rank_alike(vectors, label, exclude=exclude)
    fitting = [k for k in ks if k <= ranking.candidates]
    values = {f"R@{k}": ranking.hit(k) for k in fitting} | {f"P@{k}": ranking.precision(k) for k in fitting}
    figures = summary(values | {"MAP": ranking.average_precision(), "MR1": ranking.first_place()})
    return figures | {"queries": len(ranking.rows)}


class TripletResult(NamedTuple):
    """Share of triplets on which the model and the people agree, its interval, and how many there were."""

    agreement: float
    interval: tuple[float, float] | None
    triplets: int


def triplet_agreement(
    vectors: Float[Matrix, "tracks dim"],
    triplets: Int[Matrix, "triplets 3"],
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> TripletResult:
    """How often the track that people found more like the anchor is nearer to it (Lee et al., ICASSP 2020).

    Args:
        vectors: Unit vectors.
        triplets: Rows of the anchor, of the more alike and of the less alike track. Chance is 0.5; a tie is a
            disagreement.
        confidence: Of the interval, over the choice of anchors; None comes out with fewer than two anchors.
        seed: Of the bootstrap.

    Raises:
        ValueError: If there is no triplet or one names a track that is not there.
    """
    rows = torch.from_numpy(unit_rows(vectors, "vectors"))
    named = torch.as_tensor(triplets).long()
    if named.ndim != 2 or named.shape[1] != 3 or not len(named):
        raise ValueError(f"triplets must be [at least 1, 3], got {tuple(named.shape)}")
    if not bool(((named >= 0) & (named < len(rows))).all()):
        raise ValueError(f"triplets must name tracks from 0 to {len(rows) - 1}")
    anchor, near, far = (rows[column] for column in named.T)
    agrees = ((anchor * near).sum(1) > (anchor * far).sum(1)).double()
    groups = named[:, 0]
    interval = None
    if len(groups.unique()) > 1:
        interval = bootstrap_interval(agrees, groups=groups, confidence=confidence, seed=seed)
    return TripletResult(float(agrees.mean()), interval, len(named))


def agreed_triplets(
    triplets: Int[Matrix, "triplets 3"],
    votes: Int[Matrix, "triplets 2"],
    *,
    agreement: float = 0.9,
    at_least: int = 2,
) -> Int[Tensor, "kept 3"]:
    """The triplets that people agree on, turned so that the majority's choice is the more alike.

    Args:
        triplets: Rows of the anchor and the two tracks voted on.
        votes: How many found the first, and how many the second more alike.
        agreement: Smallest share of the majority, above 0.5.
        at_least: Fewest votes.

    Raises:
        ValueError: If shapes do not fit or ``agreement`` is not above 0.5 and at most 1.
    """
    named, counted = torch.as_tensor(triplets).long(), torch.as_tensor(votes)
    if named.ndim != 2 or named.shape[1] != 3 or counted.shape != (len(named), 2):
        raise ValueError(
            f"triplets and votes must be [n, 3] and [n, 2], got {tuple(named.shape)}, {tuple(counted.shape)}"
        )
    if not 0.5 < agreement <= 1:
        raise ValueError(f"agreement must be above 0.5 and at most 1, got {agreement}")
    total, most = counted.sum(1), counted.max(1)
    turned = torch.where((most.indices == 1)[:, None], named[:, [0, 2, 1]], named)
    return turned[(total >= at_least) & (most.values >= agreement * total)]
