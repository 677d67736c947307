"""Corrections of a score matrix for hubs: candidates that are near to almost every query.

In a space of many dimensions a few candidates turn up in every result list. How near a candidate is to queries in
general is measured on a *bank* of queries (of the training set, without looking at answers) and taken off its scores.

Conventions
-----------
Rows are queries, columns candidates, higher is better. A bank is the score matrix ``[bank queries, candidates]`` of
other queries against the same candidates. Corrected scores rank the candidates of one query; they are no cosines.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

HubMethod = Literal["csls", "inverted softmax", "querybank norm"]


@dataclass(frozen=True)
class HubCorrection:
    """What is known of the candidates from a bank, ready to correct any query's scores.

    Attributes:
        method: Which formula.
        penalty: Of each candidate: the mean of its ``k`` highest scores in the bank (CSLS), or the log of the sum of
            ``exp(score / temperature)`` over the bank.
        activated: Candidates that are among the ``k`` best of a bank query; only querybank norm looks at it.
        k: Neighbours that count.
        temperature: Of the soft-max, in units of the score.
    """

    method: HubMethod
    penalty: Float[Tensor, " candidates"]
    activated: Bool[Tensor, " candidates"]
    k: int
    temperature: float

    @classmethod
    def fit(
        cls,
        bank: Float[Tensor, "bank candidates"] | Iterable[Float[Tensor, "bank candidates"]],
        method: HubMethod,
        *,
        k: int | None = None,
        temperature: float = 0.05,
    ) -> HubCorrection:
        """Measure the candidates on a bank.

        Args:
            bank: Scores of the bank's queries; blocks of rows if they are many.
            method: ``csls``, ``inverted softmax`` or ``querybank norm``.
            k: Neighbours that count; None for the papers' 10 (CSLS) and 1 (querybank norm). A smaller bank counts
                whole.
            temperature: Of the soft-max; the papers' 0.03 to 0.1 for cosines.

        Raises:
            ValueError: If the bank is empty or not finite, or an argument is out of range.
        """
        k = (10 if method == "csls" else 1) if k is None else k
        if method not in ("csls", "inverted softmax", "querybank norm"):
            raise ValueError(f"method must be 'csls', 'inverted softmax' or 'querybank norm', got {method!r}")
        if k < 1 or not temperature > 0:
            raise ValueError(f"k must be at least 1 and temperature above 0, got k={k} and temperature={temperature}")
        best: Tensor | None = None
        total: Tensor | None = None
        activated: Tensor | None = None
        for block in [bank] if isinstance(bank, Tensor) else bank:
            _check(block, "bank")
            if not len(block):
                continue
            together = block if best is None else torch.cat([best, block])
            best = together.topk(min(k, len(together)), dim=0).values
            here = (block / temperature).logsumexp(dim=0)
            total = here if total is None else torch.logaddexp(total, here)
            nearest = block.topk(min(k, block.shape[1]), dim=1).indices
            seen = torch.zeros(block.shape[1], dtype=torch.bool, device=block.device)
            seen[nearest.reshape(-1)] = True
            activated = seen if activated is None else activated | seen
        if best is None or total is None or activated is None:
            raise ValueError("the bank has no queries; give the scores of some training queries")
        return cls(method, best.mean(dim=0) if method == "csls" else total, activated, k, temperature)

    def apply(
        self,
        scores: Float[Tensor, "queries candidates"],
        columns: Int[Tensor, "queries candidates"] | None = None,
    ) -> Float[Tensor, "queries candidates"]:
        """Corrected scores.

        Args:
            scores: Scores of any queries.
            columns: Which candidate each score belongs to, for lists of hits (the whole top of each query, best
                first or not); None for all candidates in their order.

        Raises:
            ValueError: If the scores are not finite or of other candidates than the bank's.
        """
        _check(scores, "scores")
        if columns is None and scores.shape[1] != len(self.penalty):
            raise ValueError(f"the bank has {len(self.penalty)} candidates and scores has {scores.shape[1]}")
        penalty = self.penalty.to(scores)[None, :] if columns is None else self.penalty.to(scores)[columns]
        if self.method == "csls":
            own = scores.topk(min(self.k, scores.shape[1]), dim=1).values.mean(dim=1, keepdim=True)
            return 2 * scores - own - penalty
        corrected = scores / self.temperature - penalty
        if self.method == "inverted softmax" or not scores.numel():
            return corrected
        best = scores.argmax(dim=1, keepdim=True)
        best = best if columns is None else columns.gather(1, best)
        return torch.where(self.activated[best], corrected, scores)


def csls(
    scores: Float[Tensor, "queries candidates"], bank: Float[Tensor, "bank candidates"], *, k: int = 10
) -> Float[Tensor, "queries candidates"]:
    """Cross-domain similarity local scaling: twice the score, less how near query and candidate are to others.

    ``2 s(x, y) - r(x) - r(y)`` with r the mean of the k highest scores, of the query among the candidates and of the
    candidate in the bank (Conneau et al., "Word translation without parallel data", ICLR 2018).
    """
    return HubCorrection.fit(bank, "csls", k=k).apply(scores)


def inverted_softmax(
    scores: Float[Tensor, "queries candidates"], bank: Float[Tensor, "bank candidates"], *, temperature: float = 0.05
) -> Float[Tensor, "queries candidates"]:
    """The log of the soft-max over queries and not over candidates: ``s / t - log sum_bank exp(s / t)``.

    A candidate shares one probability among all queries of the bank, so that a hub has little for each (Smith et al.,
    "Offline bilingual word vectors, orthogonal transformations and the inverted softmax", ICLR 2017).
    """
    return HubCorrection.fit(bank, "inverted softmax", temperature=temperature).apply(scores)


def querybank_norm(
    scores: Float[Tensor, "queries candidates"],
    bank: Float[Tensor, "bank candidates"],
    *,
    temperature: float = 0.05,
    k: int = 1,
) -> Float[Tensor, "queries candidates"]:
    """The inverted soft-max, only for queries whose best candidate is among the k best of a bank query.

    Other queries keep their scores: their best candidate is no hub that the bank knows (Bogolin et al., "Cross modal
    retrieval with querybank normalisation", CVPR 2022, with its dynamic inverted soft-max).
    """
    return HubCorrection.fit(bank, "querybank norm", temperature=temperature, k=k).apply(scores)


def _check(scores: Tensor, name: str) -> None:
    if scores.ndim != 2 or not scores.is_floating_point():
        raise ValueError(f"{name} must be a matrix [queries, candidates] of numbers, got shape {tuple(scores.shape)}")
    if not bool(scores.isfinite().all()):
        raise ValueError(f"{name} holds NaN or infinite scores; correct only what can be ranked")
