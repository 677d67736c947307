"""What may be done with a shortlist after a search: moments, groups, duplicates, diversity, re-ranking, fewer hubs.

Conventions
-----------
A shortlist is a list of rows of an index, best first, with their unit vectors. Every function here is pure and gives
places in the shortlist, in their new order. What a hit's score says does not change: it stays its cosine with the
query.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int64

DUPLICATE_COSINE = 0.995
"""Two tracks this near are taken for one recording: another encoding moves a vector by less, another take by more."""


def without_duplicates(
    vectors: Float32[np.ndarray, "rows dim"],
    *,
    cosine: float = DUPLICATE_COSINE,
    known: Float32[np.ndarray, "known dim"] | None = None,
) -> list[int]:
    """Places that are not as good as equal to a better one, nor to a vector that is known already.

    Args:
        vectors: Of the shortlist, best first.
        cosine: From which on two are the same recording.
        known: Vectors whose duplicates are not wanted at all, such as the query's own track.

    Raises:
        ValueError: If ``cosine`` is not above 0 and at most 1.
    """
    if not 0 < cosine <= 1:
        raise ValueError(f"the cosine of duplicates must be above 0 and at most 1, got {cosine}")
    kept: list[int] = []
    seen = np.zeros((0, vectors.shape[1]), np.float32) if known is None else np.asarray(known, np.float32)
    for place, vector in enumerate(vectors):
        # Rounding makes the cosine of a vector with itself fall a little short of 1.
        if not len(seen) or float((seen @ vector).max()) < cosine - 1e-6:
            kept.append(place)
            seen = np.concatenate([seen, vector[None]])
    return kept


def at_most_per_group(groups: Sequence[Any], most: int) -> list[int]:
    """Places of the first ``most`` of each group, in order; those whose group is None stand alone.

    Raises:
        ValueError: If ``most`` is below 1.
    """
    if most < 1:
        raise ValueError(f"at most 1 or more of a group can be listed, got {most}")
    counts: dict[Any, int] = {}
    kept = []
    for place, group in enumerate(groups):
        if group is None:
            kept.append(place)
            continue
        key = tuple(group) if isinstance(group, list) else group
        counts[key] = counts.get(key, 0) + 1
        if counts[key] <= most:
            kept.append(place)
    return kept


def diverse(
    scores: Float[np.ndarray, " rows"], vectors: Float32[np.ndarray, "rows dim"], k: int, *, balance: float
) -> list[int]:
    """The ``k`` best by maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998).

    Each next place has the largest ``balance * score - (1 - balance) * (highest cosine with a place already taken)``. A
    balance of 1 is the order of the scores, 0 looks for difference alone. Scores are brought to the range of the
    cosines among the shortlist first: words and audio are seldom as near as two pieces of audio.

    Raises:
        ValueError: If the balance is not from 0 to 1, or ``k`` below 1.
    """
    if not 0 <= balance <= 1 or k < 1:
        raise ValueError(f"the balance must be from 0 to 1 and k at least 1, got {balance} and {k}")
    if not len(scores):
        return []
    cosines = (vectors @ vectors.T).astype(np.float64)
    relevance = _to_range(np.asarray(scores, np.float64), cosines)
    taken = [int(np.argmax(relevance))]
    nearest = cosines[taken[0]].copy()
    while len(taken) < min(k, len(scores)):
        gain = balance * relevance - (1 - balance) * nearest
        gain[taken] = -np.inf
        taken.append(int(np.argmax(gain)))
        nearest = np.maximum(nearest, cosines[taken[-1]])
    return taken


def reciprocal(
    scores: Float[np.ndarray, " rows"],
    vectors: Float32[np.ndarray, "rows dim"],
    *,
    neighbours: int = 20,
    expansion: int = 6,
    share: float = 0.3,
) -> list[int]:
    """Order by who is a neighbour of whom both ways (Zhong et al., CVPR 2017: k-reciprocal encoding).

    The query joins the shortlist as one more item. Each item is described by its k-reciprocal neighbours with weights
    exp(-distance), smoothed over its ``expansion`` nearest; the distance to the query is
    ``(1 - share) * Jaccard distance + share * cosine distance``. The query's scores are brought to the range of the
    cosines among the shortlist first, so that a text is no stranger among audio.

    Args:
        scores: Cosines with the query.
        vectors: Of the shortlist.
        neighbours: Length of the neighbour lists (the paper's k1).
        expansion: Neighbours to smooth over (k2).
        share: Of the original distance (lambda); 1 leaves the order as it is.

    Raises:
        ValueError: If an argument is out of range.
    """
    if neighbours < 1 or expansion < 1 or not 0 <= share <= 1:
        raise ValueError(
            f"neighbours and expansion must be at least 1 and share from 0 to 1, got {neighbours}, {expansion}, {share}"
        )
    count = len(scores)
    if count < 2:
        return list(range(count))
    cosines = np.ones((count + 1, count + 1))
    among = (vectors @ vectors.T).astype(np.float64)
    cosines[1:, 1:] = among
    cosines[0, 1:] = cosines[1:, 0] = _to_range(np.asarray(scores, np.float64), among)
    distance = 1 - cosines
    order = np.argsort(distance, axis=1, kind="stable")
    described = np.zeros_like(distance)
    for item in range(count + 1):
        close = _both_ways(order, item, neighbours)
        expanded = close
        for other in close:
            candidate = _both_ways(order, int(other), max(1, round(neighbours / 2)))
            if len(np.intersect1d(candidate, close)) >= 2 / 3 * len(candidate):
                expanded = np.union1d(expanded, candidate)
        weight = np.exp(-distance[item, expanded])
        described[item, expanded] = weight / weight.sum()
    described = described[order[:, : min(expansion, count + 1)]].mean(axis=1)
    shared = np.minimum(described[0], described[1:]).sum(axis=1)
    jaccard = 1 - shared / (2 - shared)
    final = (1 - share) * jaccard + share * distance[0, 1:]
    return np.argsort(final, kind="stable").tolist()


def moment(
    scores: Float[np.ndarray, " windows"], starts: Sequence[float], ends: Sequence[float]
) -> tuple[float, float]:
    """The seconds of a track that answer a query: its best window, and those around it that are nearly as good.

    A neighbour belongs to the moment as long as its score is in the upper half between the track's mean and its best.

    Args:
        scores: Cosines of the windows of one track, in order of time.
        starts: Where each begins, in seconds.
        ends: Where each ends.

    Raises:
        ValueError: If there is no window, or the numbers differ.
    """
    if not len(scores) or not len(scores) == len(starts) == len(ends):
        raise ValueError(f"each of at least one window needs a start and an end, got {len(scores)} and {len(starts)}")
    best = int(np.argmax(scores))
    least = (float(np.mean(scores)) + float(scores[best])) / 2
    first = last = best
    while first > 0 and scores[first - 1] >= least:
        first -= 1
    while last + 1 < len(scores) and scores[last + 1] >= least:
        last += 1
    return float(starts[first]), float(max(ends[first : last + 1]))


def _both_ways(order: Int64[np.ndarray, "items items"], item: int, k: int) -> Int64[np.ndarray, " close"]:
    """The nearest ``k`` (and itself) of an item that have it among their nearest ``k``."""
    mine = order[item, : k + 1]
    return mine[(order[mine, : k + 1] == item).any(axis=1)]


def _to_range(scores: Float[np.ndarray, " rows"], cosines: Float[np.ndarray, "rows rows"]) -> np.ndarray:
    """Scores with the mean and deviation of the cosines of different items; their order stays."""
    others = cosines[~np.eye(len(cosines), dtype=bool)] if len(cosines) > 1 else cosines.ravel()
    spread = scores.std()
    if spread < 1e-12 or not len(others):
        return scores
    return (scores - scores.mean()) / spread * others.std() + others.mean()
