"""The places of the right answers, and everything that is computed from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xmodal.metrics._chance import none_in_top, random_average_precision

WithoutRight = Literal["refuse", "leave_out"]
Ties = Literal["against", "for"]
KS = (1, 5, 10)


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


def _longest(ks: Sequence[int]) -> int:
    if not ks:
        raise ValueError("ks must name at least one length of the result list, got none; the usual ones are (1, 5, 10)")
    return max(ks)
