"""From scores to the places of the right answers, a block of rows at a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from xmodal.metrics._common import BLOCK, check_finite, check_matrices, sorted_rows
from xmodal.metrics.ranking import Ranking, Ties, WithoutRight

# Right answers of a query up to which a pass over its scores for each is quicker than sorting them.
_FEW = 8


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
