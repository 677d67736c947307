"""Retrieval metrics: the places of the right answers, and everything that is computed from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from xmodal.metrics._chance import none_in_top, random_average_precision
from xmodal.metrics._common import BLOCK, check_finite, check_matrices, median, sorted_rows

WithoutRight = Literal["refuse", "leave_out"]
Ties = Literal["against", "for"]
KS = (1, 5, 10)
# Right answers of a query up to which a pass over its scores for each is quicker than sorting them.
_FEW = 8


@dataclass(frozen=True)
class Ranking:
    """The places of all right answers: what every retrieval metric is made of.

    Only queries with a right answer are judged. The methods give one float64 value for each of them, in the order of
    ``rows``; average them, or hand them to :func:`bootstrap_interval`.

    Attributes:
        place: Place of each right answer in its query's result list, from 1; query by query, best place first.
        gain: Grade of the right answer at that place.
        ideal: The same grades, highest first in every query.
        count: Right answers of each judged query, at least 1.
        rows: Row of each judged query in the score matrix.
        candidates: Length of a full result list.
    """

    place: Int[Tensor, " right"]
    gain: Float[Tensor, " right"]
    ideal: Float[Tensor, " right"]
    count: Int[Tensor, " judged"]
    rows: Int[Tensor, " judged"]
    candidates: int

    @property
    def query(self) -> Int[Tensor, " right"]:
        """The judged query that each place belongs to, from 0."""
        return torch.arange(len(self.count), device=self.count.device).repeat_interleave(self.count)

    @property
    def nth(self) -> Int[Tensor, " right"]:
        """Right answers in the query's list down to each place, itself included: 1, 2, 3 ... for every query."""
        before = (self.count.cumsum(0) - self.count).repeat_interleave(self.count)
        return torch.arange(1, len(self.place) + 1, device=self.place.device) - before

    def first_place(self) -> Float[Tensor, " judged"]:
        """Place of the best right answer, from 1."""
        return self.place[self.count.cumsum(0) - self.count].double()

    def hit(self, k: int) -> Float[Tensor, " judged"]:
        """1 where at least one right answer is among the top ``k``, else 0."""
        return (self.first_place() <= self._checked(k)).double()

    def reciprocal_rank(self) -> Float[Tensor, " judged"]:
        """1 / :meth:`first_place`."""
        return 1 / self.first_place()

    def precision(self, k: int) -> Float[Tensor, " judged"]:
        """Share of right answers among the top ``k``."""
        return self._sum((self.place <= self._checked(k)).double()) / k

    def r_precision(self) -> Float[Tensor, " judged"]:
        """Precision at k = the query's own number of right answers."""
        return self._sum((self.place <= self.count.repeat_interleave(self.count)).double()) / self.count

    def average_precision(self, k: int | None = None) -> Float[Tensor, " judged"]:
        """Mean of the precisions at the places of the right answers, in the whole list or its top ``k``.

        The normaliser is min(k, number of right answers), so that a perfect list gives 1 for every ``k``.
        """
        k = self.candidates if k is None else self._checked(k)
        return self._precision_sum(torch.full_like(self.count, k)) / self.count.clamp(max=k)

    def average_precision_at_r(self) -> Float[Tensor, " judged"]:
        """Average precision in the top R, R = the query's own number of right answers (Musgrave et al., ECCV 2020)."""
        return self._precision_sum(self.count) / self.count

    def ndcg(self, k: int) -> Float[Tensor, " judged"]:
        """Discounted gain of the top ``k`` over that of the best possible list; grades as gains, log2(1 + place)."""
        self._checked(k)
        gained = self.gain / torch.log2(1 + self.place.double())
        return self._sum(gained.masked_fill(self.place > k, 0)) / self._ideal_gain(k)

    def values(self, ks: Sequence[int] = KS) -> dict[str, Float[Tensor, " judged"]]:
        """Per-query values of the usual table; :func:`summary` turns them into its figures.

        Args:
            ks: Lengths of the result list for R@k; mAP and nDCG use the longest.
        """
        longest = _longest(ks)
        return {
            **{f"R@{k}": self.hit(k) for k in ks},
            "MedR": self.first_place(),
            "MRR": self.reciprocal_rank(),
            f"mAP@{longest}": self.average_precision(longest),
            "MAP@R": self.average_precision_at_r(),
            f"nDCG@{longest}": self.ndcg(longest),
        }

    def chance(self, ks: Sequence[int] = KS) -> dict[str, float]:
        """What a random order of the same candidates would score; see :func:`chance`."""
        longest = _longest(ks)
        places = torch.arange(1, self.candidates + 1, device=self.count.device).double()
        none = none_in_top(self.count, self.candidates)
        discounts = (1 / torch.log2(1 + places[: self._checked(longest)])).sum()
        ndcg = self._sum(self.gain.double()) / self.candidates * discounts / self._ideal_gain(longest)
        return {
            **{f"R@{k}": float(1 - none[self._checked(k)]) for k in ks},
            # Rounding through logarithms must not push a chance of exactly one half to the next place.
            "MedR": float((none <= 0.5 + 1e-9).nonzero()[0]),
            "MRR": float(((none[:-1] - none[1:]) / places).sum()),
            f"mAP@{longest}": float(random_average_precision(self.count, self.candidates, longest).mean()),
            "MAP@R": float(random_average_precision(self.count, self.candidates, self.count).mean()),
            f"nDCG@{longest}": float(ndcg.mean()),
        }

    def _checked(self, k: int) -> int:
        if not 1 <= k <= self.candidates:
            raise ValueError(f"k must be from 1 to the {self.candidates} candidates, got k={k}")
        return k

    def _sum(self, values: Float[Tensor, " right"]) -> Float[Tensor, " judged"]:
        return values.new_zeros(len(self.count)).index_add_(0, self.query, values)

    def _precision_sum(self, cut: Int[Tensor, " judged"]) -> Float[Tensor, " judged"]:
        precision = self.nth.double() / self.place
        return self._sum(precision.masked_fill(self.place > cut.repeat_interleave(self.count), 0))

    def _ideal_gain(self, k: int) -> Float[Tensor, " judged"]:
        gained = self.ideal / torch.log2(1 + self.nth.double())
        return self._sum(gained.masked_fill(self.nth > k, 0))


def rank(
    score: Float[Tensor, "queries candidates"],
    relevance: Shaped[Tensor, "queries candidates"],
    *,
    without_right: WithoutRight = "refuse",
    ties: Ties = "against",
) -> Ranking:
    """Find the places of all right answers; ties count against us.

    Args:
        score: Similarities, higher is better. Finite.
        relevance: Right answers, bool, or grades from 0.
        without_right: What to do with a query that has no right answer.
        ties: Wrong answers of the same score stand before a right one ("against"), or after it ("for"): what an
            evaluation reports that never looks at ties, and nothing to publish with.

    Returns:
        The ranking. Memory beside it is bounded: the matrix is worked on in blocks of rows.

    Raises:
        ValueError: If the shapes differ, a score is not finite, a grade is negative, or a query has no right answer
            (all of them, with ``without_right="leave_out"``).
    """
    check_matrices(score, relevance, "[queries, candidates]")
    return _rank_blocks(lambda rows: score[rows], relevance, without_right, BLOCK, ties)


def rank_vectors(
    queries: Float[Tensor, "queries dim"],
    candidates: Float[Tensor, "candidates dim"],
    relevance: Shaped[Tensor, "queries candidates"],
    *,
    without_right: WithoutRight = "refuse",
    ties: Ties = "against",
) -> Ranking:
    """:func:`rank` of the dot products of vectors, of which only a block of rows exists at a time.

    Args:
        queries: Query vectors; unit ones for cosines.
        candidates: Candidate vectors of the same space.
        relevance: Right answers, bool, or grades from 0. A sparse COO tensor needs memory for its entries alone, so
            that 100,000 queries over 100,000 candidates fit in a laptop.
        without_right: What to do with a query that has no right answer.
        ties: As in :func:`rank`.

    Raises:
        ValueError: As :func:`rank`.
    """
    if queries.ndim != 2 or candidates.ndim != 2 or queries.shape[1] != candidates.shape[1]:
        raise ValueError(
            "queries and candidates must be [n, dim] and [m, dim] of one dimension, "
            f"got {tuple(queries.shape)} and {tuple(candidates.shape)}"
        )
    shape = (len(queries), len(candidates))
    if relevance.shape != shape or relevance.numel() == 0:
        raise ValueError(f"relevance must have shape {shape} and not be empty, got {tuple(relevance.shape)}")
    # A product of few rows reads all candidates for little work: larger blocks halve its time.
    return _rank_blocks(lambda rows: queries[rows] @ candidates.T, relevance, without_right, 4 * BLOCK, ties)


def rank_score_blocks(
    score_rows: Callable[[Int[Tensor, " block"]], Float[Tensor, "block candidates"]],
    relevance_rows: Callable[[Int[Tensor, " block"]], Bool[Tensor, "block candidates"]],
    shape: tuple[int, int],
) -> Ranking:
    """:func:`rank` of matrices that are made a block of rows at a time; queries without a right answer are left out.

    Args:
        score_rows: Scores of some queries.
        relevance_rows: Right answers of some queries.
        shape: Number of queries and of candidates.

    Raises:
        ValueError: As :func:`rank`.
    """
    queries, candidates = shape
    entries = []
    for some in torch.arange(queries).split(max(1, BLOCK // candidates)):
        query, candidate = relevance_rows(some).nonzero().T
        entries.append(torch.stack([some[query], candidate]))
    indices = torch.cat(entries, dim=1)
    right = torch.ones(indices.shape[1], dtype=torch.bool)
    relevance = torch.sparse_coo_tensor(indices, right, shape, check_invariants=True)
    return _rank_blocks(score_rows, relevance, "leave_out", BLOCK, "against")


def recall_at_k(score: Tensor, relevance: Tensor, k: int, *, without_right: WithoutRight = "refuse") -> float:
    """Share of queries with at least one right answer among the top ``k``. Arguments and errors as :func:`rank`."""
    return float(rank(score, relevance, without_right=without_right).hit(k).mean())


def median_rank(score: Tensor, relevance: Tensor, *, without_right: WithoutRight = "refuse") -> float:
    """Median over queries of the best right answer's place, from 1; between two middle places, their mean."""
    return median(rank(score, relevance, without_right=without_right).first_place())


def mean_reciprocal_rank(score: Tensor, relevance: Tensor, *, without_right: WithoutRight = "refuse") -> float:
    """Mean over queries of 1 / the best right answer's place."""
    return float(rank(score, relevance, without_right=without_right).reciprocal_rank().mean())


def map_at_k(
    score: Tensor, relevance: Tensor, k: int | None = None, *, without_right: WithoutRight = "refuse"
) -> float:
    """Mean average precision in the top ``k``, or in the whole list; normalised by min(k, number of right answers)."""
    return float(rank(score, relevance, without_right=without_right).average_precision(k).mean())


def map_at_r(score: Tensor, relevance: Tensor, *, without_right: WithoutRight = "refuse") -> float:
    """Mean average precision in each query's top R, R = its right answers (Musgrave et al., ECCV 2020)."""
    return float(rank(score, relevance, without_right=without_right).average_precision_at_r().mean())


def precision_at_k(score: Tensor, relevance: Tensor, k: int, *, without_right: WithoutRight = "refuse") -> float:
    """Mean share of right answers among the top ``k``."""
    return float(rank(score, relevance, without_right=without_right).precision(k).mean())


def r_precision(score: Tensor, relevance: Tensor, *, without_right: WithoutRight = "refuse") -> float:
    """Mean precision at k = each query's own number of right answers."""
    return float(rank(score, relevance, without_right=without_right).r_precision().mean())


def ndcg_at_k(score: Tensor, relevance: Tensor, k: int, *, without_right: WithoutRight = "refuse") -> float:
    """Normalised discounted cumulative gain of the top ``k``: grades as gains, discount log2(1 + place)."""
    return float(rank(score, relevance, without_right=without_right).ndcg(k).mean())


def retrieval_metrics(
    score: Float[Tensor, "queries candidates"],
    relevance: Shaped[Tensor, "queries candidates"],
    ks: Sequence[int] = KS,
    *,
    without_right: WithoutRight = "refuse",
) -> dict[str, float]:
    """The usual table of one direction: R@k for each k, MedR, MRR, mAP@k, MAP@R and nDCG@k (longest k).

    Args:
        score: Similarities, higher is better. Finite.
        relevance: Right answers, bool, or grades from 0.
        ks: Lengths of the result list, each from 1 to the number of candidates.
        without_right: What to do with a query that has no right answer.

    Raises:
        ValueError: As :func:`rank`, and if a k is out of range.
    """
    return summary(rank(score, relevance, without_right=without_right).values(ks))


def summary(values: dict[str, Float[Tensor, " judged"]]) -> dict[str, float]:
    """Figures of a table of per-query values: the median for "MedR", the mean for everything else."""
    return {name: median(value) if name == "MedR" else float(value.mean()) for name, value in values.items()}


def chance(
    relevance: Shaped[Tensor, "queries candidates"],
    ks: Sequence[int] = KS,
    *,
    without_right: WithoutRight = "refuse",
) -> dict[str, float]:
    """Expected metrics of a uniformly random order without ties, by the names of :func:`retrieval_metrics`.

    With n candidates of which r are right, H the harmonic numbers, and the mean taken over queries:

    * R@k: ``1 - C(n-r, k) / C(n, k)``
    * MRR: ``sum_m 1/m (S(m-1) - S(m))`` with ``S(m) = C(n-m, r) / C(n, r)``, the chance that no right answer is
      among the first m
    * MedR: the smallest m with a mean ``S(m)`` of at most 1/2 (the median of the first place over all queries)
    * mAP@k: ``r/n (H_k + (r-1)/(n-1) (k - H_k)) / min(k, r)``, since place i is right with probability r/n and each
      place before it then with (r-1)/(n-1); MAP@R: the same with k = r
    * nDCG@k: ``mean grade * sum_{i<=k} 1/log2(1+i) / ideal``

    All but MedR are exact expectations.

    Raises:
        ValueError: As :func:`rank`, and if a k is out of range.
    """
    constant = torch.zeros((), device=relevance.device).expand(relevance.shape)
    return rank(constant, relevance, without_right=without_right).chance(ks)


def _longest(ks: Sequence[int]) -> int:
    if not ks:
        raise ValueError("ks must name at least one length of the result list, got none; the usual ones are (1, 5, 10)")
    return max(ks)


def _rank_blocks(
    score_rows: Callable[[Tensor], Tensor],
    relevance: Shaped[Tensor, "queries candidates"],
    without_right: WithoutRight,
    block: int,
    ties: Ties,
) -> Ranking:
    if ties not in ("against", "for"):
        raise ValueError(f"ties must be 'against' or 'for', got {ties!r}")
    candidates = relevance.shape[1]
    per_query, right_answers = _right_answers(relevance)
    rows = _queries_with_right(per_query, without_right)
    count = per_query[rows]
    total = int(count.sum())
    # Filled in place: small results kept from each block would lie between the large blocks' memory and keep it from
    # being used again.
    place = torch.zeros(total, dtype=torch.int32, device=rows.device)
    gain, ideal = (torch.ones(total, device=rows.device) for _ in range(2))
    done = 0
    for some in rows.split(max(1, block // candidates)):
        own = per_query[some]
        part = slice(done, done + int(own.sum()))
        place[part], gain[part], ideal[part] = _rank_block(score_rows(some).detach(), *right_answers(some), own, ties)
        done = part.stop
    return Ranking(
        place=place,
        gain=gain,
        ideal=ideal,
        count=count,
        rows=rows,
        candidates=candidates,
    )


def _right_answers(
    relevance: Shaped[Tensor, "queries candidates"],
) -> tuple[Int[Tensor, " queries"], Callable[[Tensor], tuple[Tensor, Tensor | None]]]:
    """Right answers of each query; and a function from rising rows to their candidates, query by query, and grades."""
    graded = relevance.dtype != torch.bool
    if relevance.layout == torch.strided:
        _check_grades(relevance)

        def dense(rows: Tensor) -> tuple[Tensor, Tensor | None]:
            own = relevance[rows]
            return (own > 0).nonzero()[:, 1], own[own > 0].float() if graded else None

        return (relevance > 0).sum(dim=1), dense
    relevance = relevance.coalesce()
    _check_grades(relevance.values())
    right = relevance.values() > 0
    query, candidate = relevance.indices()[:, right]
    grade = relevance.values()[right].float() if graded else None
    per_query = torch.bincount(query, minlength=relevance.shape[0])
    last = per_query.cumsum(0)

    def sparse(rows: Tensor) -> tuple[Tensor, Tensor | None]:
        # Queries between them that were left out have no entries.
        entries = slice(int(last[rows[0]] - per_query[rows[0]]), int(last[rows[-1]]))
        return candidate[entries], None if grade is None else grade[entries]

    return per_query, sparse


def _check_grades(grades: Tensor) -> None:
    if not bool((grades >= 0).all()):  # also when there is a NaN
        raise ValueError("grades must be 0 (wrong) or more, got a negative one or NaN")


def _queries_with_right(per_query: Int[Tensor, " queries"], without_right: WithoutRight) -> Int[Tensor, " judged"]:
    if without_right not in ("refuse", "leave_out"):
        raise ValueError(f"without_right must be 'refuse' or 'leave_out', got {without_right!r}")
    missing = (per_query == 0).nonzero().flatten()
    if len(missing) == len(per_query):
        raise ValueError(f"none of the {len(per_query)} queries has a right answer, so there is nothing to measure")
    if len(missing) and without_right == "refuse":
        raise ValueError(
            f"every query needs a right answer, but {len(missing)} of {len(per_query)} have none, the first is query "
            f'{int(missing[0])}; give it one or pass without_right="leave_out"'
        )
    return per_query.nonzero().flatten()


def _rank_block(
    score: Float[Tensor, "block candidates"],
    candidate: Int[Tensor, " right"],
    grade: Float[Tensor, " right"] | None,
    count: Int[Tensor, " block"],
    ties: Ties,
) -> tuple[Int[Tensor, " right"], Float[Tensor, " right"], Float[Tensor, " right"]]:
    """Places, grades in the order of the places, and grades from the highest down."""
    check_finite(score)
    query = torch.arange(len(count), device=score.device).repeat_interleave(count)
    own = score[query, candidate]
    gain = ideal = torch.ones(len(own), device=score.device)
    if grade is not None:
        ideal = _ordered(grade, query, -grade)
        # Ties count against us: among equal scores the lowest grade stands first.
        gain = _ordered(grade, query, -own, grade if ties == "against" else -grade)
    filled = torch.arange(int(count.max()), device=score.device) < count[:, None]
    best = torch.full(filled.shape, -math.inf, device=score.device, dtype=own.dtype)
    best[filled] = _ordered(own, query, -own)  # the right ones of each query, best first
    reaches = torch.ge if ties == "against" else torch.gt
    if best.shape[1] <= _FEW:
        ahead = _reaching(score, best, reaches) - _reaching(best, best, reaches)
    else:
        wrong = sorted_rows(score.index_put((query, candidate), own.new_tensor(-math.inf)))
        ahead = score.shape[1] - torch.searchsorted(wrong, best.to(wrong.dtype), right=ties == "for")
    place = ahead + torch.arange(1, best.shape[1] + 1, device=score.device)
    return place[filled].int(), gain, ideal  # there may be millions of places


def _reaching(
    values: Float[Tensor, "block n"], levels: Float[Tensor, "block levels"], reaches: Callable[..., Tensor]
) -> Int[Tensor, "block levels"]:
    """How many values of each row reach each level."""
    flags = torch.empty_like(values, dtype=torch.float32)  # summed five times as fast as truth values
    exact = torch.float32 if values.shape[1] < 2**24 else torch.float64  # float32 counts up to there
    return torch.stack(
        [reaches(values, level[:, None], out=flags).sum(dim=1, dtype=exact) for level in levels.T], dim=1
    ).long()


def _ordered(values: Float[Tensor, " n"], *keys: Shaped[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Values in rising order of the first key; the next key decides between equal ones."""
    order = torch.arange(len(values), device=values.device)
    for key in reversed(keys):
        order = order[key[order].argsort(stable=True)]
    return values[order]
