"""Two indexes side by side: how far they agree on what is near to what.

Conventions
-----------
Only ids that both hold take part. A query's own id is no neighbour. Neighbours are looked for among what both hold, so
that a track which only one of them has does not push others out of the lists.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from scipy.stats import rankdata

from xmodal.index.base import Index


@dataclass(frozen=True)
class Agreement:
    """How two indexes answer one query.

    Attributes:
        query: The id, or the text, that was asked for.
        overlap: Share of the first ``k`` that both lists have.
        correlation: Spearman's, of both spaces' cosines with all rows of either list; NaN if there is but one row.
    """

    query: str
    overlap: float
    correlation: float


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found.

    Attributes:
        k: Length of the lists.
        shared: Number of ids that both hold.
        only_first: Number of ids that only the first holds.
        only_second: Number of ids that only the second holds.
        answers: One for each query.
    """

    k: int
    shared: int
    only_first: int
    only_second: int
    answers: list[Agreement]

    @property
    def overlap(self) -> float:
        """Mean overlap of the lists."""
        return float(np.mean([one.overlap for one in self.answers]))

    @property
    def correlation(self) -> float:
        """Mean rank correlation, of the queries that have one."""
        known = [one.correlation for one in self.answers if not np.isnan(one.correlation)]
        return float(np.mean(known)) if known else float("nan")

    def worst(self, count: int) -> list[Agreement]:
        """The queries on which the two agree least."""
        return sorted(self.answers, key=lambda one: (one.overlap, np.nan_to_num(one.correlation, nan=1.0)))[:count]


def compare(
    first: Index,
    second: Index,
    *,
    k: int = 10,
    queries: int = 1_000,
    texts: tuple[list[str], Float32[np.ndarray, "texts dim"], Float32[np.ndarray, "texts dim"]] | None = None,
    seed: int = 0,
) -> Comparison:
    """Ask both indexes the same.

    Args:
        first: An index.
        second: Another one, of any space.
        k: Length of the lists.
        queries: How many of the shared tracks to ask for, drawn at random; all if there are fewer.
        texts: Ask for these texts instead: the words, and their vectors in the space of the first and of the second.
        seed: Of the draw.

    Raises:
        ValueError: If ``k`` or ``queries`` is below 1, or the two have fewer than two ids in common.
    """
    if k < 1 or queries < 1:
        raise ValueError(f"k and queries must be at least 1, got k={k} and queries={queries}")
    own = set(second.ids)
    ids = [id_ for id_ in first.ids if id_ in own]
    if len(ids) < 2:
        raise ValueError(f"the indexes have {len(ids)} ids in common; there is nothing to compare")
    sides = [_Side(first, ids), _Side(second, ids)]
    if texts is None:
        drawn = np.random.default_rng(seed).permutation(len(ids))[:queries]
        names = [ids[place] for place in drawn]
        asked = [side.vectors[drawn] for side in sides]
        own_place: list[int | None] = drawn.tolist()
    else:
        names, asked = texts[0], [texts[1], texts[2]]
        own_place = [None] * len(names)
    lists = [side.nearest(vectors, k + (texts is None)) for side, vectors in zip(sides, asked, strict=True)]
    answers = []
    for number, (name, place) in enumerate(zip(names, own_place, strict=True)):
        found = [[row for row in side[number] if row != place][:k] for side in lists]
        either = sorted({*found[0], *found[1]})
        cosines = [side.vectors[either] @ vectors[number] for side, vectors in zip(sides, asked, strict=True)]
        shared = len({*found[0]} & {*found[1]})
        answers.append(Agreement(name, shared / max(1, len(found[0])), _spearman(*cosines)))
    return Comparison(k, len(ids), len(first) - len(ids), len(second) - len(ids), answers)


class _Side:
    """One index, its rows numbered by the ids that both hold."""

    def __init__(self, index: Index, ids: list[str]) -> None:
        self.index = index
        self.rows = index.rows_of(ids)
        self.place_of = {int(row): place for place, row in enumerate(self.rows)}
        self.vectors = index.vectors(self.rows)

    def nearest(self, vectors: np.ndarray, k: int) -> list[list[int]]:
        among = None if len(self.rows) == len(self.index) else self.rows
        _, rows = self.index.search(vectors, k, space_id=self.index.space_id, among=among)
        return [[self.place_of[row] for row in found] for found in rows.tolist()]


def _spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's correlation of ranks, ties sharing theirs."""
    ranks = [rankdata(np.round(values, 6)) for values in (first, second)]
    centred = [one - one.mean() for one in ranks]
    length = float(np.linalg.norm(centred[0]) * np.linalg.norm(centred[1]))
    return float(centred[0] @ centred[1]) / length if length > 0 else float("nan")
