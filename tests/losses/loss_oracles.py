"""Every objective once more, as plain loops over one direction: slow, and too simple to be wrong in the same way.

Each oracle takes score, relevance, valid and weight as arrays (see ``Batch.arrays``) and gives the value with audio
as the anchor; the contract test makes the other direction by transposing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

Oracle = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], float]


def mean(values: list[float], weights: list[float] | None = None) -> float:
    """Weighted mean, 0 of nothing."""
    weights = [1.0] * len(values) if weights is None else weights
    total = sum(weights)
    return sum(value * weight for value, weight in zip(values, weights, strict=True)) / total if total > 0 else 0.0


def softplus(value: float) -> float:
    return float(np.logaddexp(0.0, value))


def distance(score: float, kind: str) -> float:
    return {"cosine": 1 - score, "squared": 2 - 2 * score, "euclidean": np.sqrt(max(2 - 2 * score, 1e-8))}[kind]


def rows(score, relevance, valid, weight) -> Iterator[tuple[list[int], list[int], np.ndarray, np.ndarray]]:
    """Positives and negatives of each anchor, with its scores and weights."""
    for i in range(score.shape[0]):
        judged = [j for j in range(score.shape[1]) if valid[i, j]]
        positives = [j for j in judged if relevance[i, j] > 0]
        yield positives, [j for j in judged if relevance[i, j] <= 0], score[i], weight[i]


def info_nce(temperature: float, denominator: str = "all") -> Oracle:
    def loss(score, relevance, valid, weight) -> float:
        terms = []
        for i, (positives, negatives, s, w) in enumerate(rows(score, relevance, valid, weight)):
            if not positives or (denominator == "negatives" and not negatives):
                continue
            against = sum(w[n] * np.exp(s[n] / temperature) for n in negatives)
            whole = against + sum(w[p] * np.exp(s[p] / temperature) for p in positives)
            share = sum(relevance[i, p] * w[p] for p in positives)
            term = 0.0
            for p in positives:
                below = {"all": whole, "own": against + np.exp(s[p] / temperature), "negatives": against}[denominator]
                term += relevance[i, p] * w[p] / share * -np.log(np.exp(s[p] / temperature) / below)
            terms.append(term)
        return mean(terms)

    return loss


def contrastive(margin=1.0, power=2, kind="euclidean", negative_weight=1.0, average="all") -> Oracle:
    def loss(score, relevance, valid, weight) -> float:
        near, near_weight, far, far_weight = [], [], [], []
        for i, (positives, negatives, s, w) in enumerate(rows(score, relevance, valid, weight)):
            near += [distance(s[p], kind) ** power / power for p in positives]
            near_weight += [w[p] * relevance[i, p] for p in positives]
            far += [max(0.0, margin - distance(s[n], kind)) ** power / power for n in negatives]
            far_weight += [w[n] for n in negatives]
        if average == "active":
            near_weight = [w * (value > 0) for w, value in zip(near_weight, near, strict=True)]
            far_weight = [w * (value > 0) for w, value in zip(far_weight, far, strict=True)]
        return mean(near, near_weight) + negative_weight * mean(far, far_weight)

    return loss


def siglip(temperature: float, bias: float) -> Oracle:
    def loss(score, relevance, valid, weight) -> float:
        terms = []
        for i in range(score.shape[0]):
            if not valid[i].any():
                continue
            term = 0.0
            for j in np.flatnonzero(valid[i]):
                probability = 1 / (1 + np.exp(-(score[i, j] / temperature + bias)))
                right = min(max(relevance[i, j], 0.0), 1.0)
                term -= weight[i, j] * (right * np.log(probability) + (1 - right) * np.log1p(-probability))
            terms.append(term)
        return mean(terms)

    return loss


def triplet(margin, mining="all", kind="cosine", average="active", hardest=1) -> Oracle:
    def loss(score, relevance, valid, weight) -> float:
        terms, weights = [], []
        for positives, negatives, s, w in rows(score, relevance, valid, weight):
            if mining in ("hard", "batch-hard"):
                negatives = sorted(negatives, key=lambda n: -s[n])[: hardest if mining == "hard" else 1]
            if mining == "batch-hard":
                positives = sorted(positives, key=lambda p: s[p])[:1]
            for p in positives:
                for n in negatives:
                    gap = distance(s[p], kind) - distance(s[n], kind)
                    if mining == "semi-hard" and not -margin < gap < 0:
                        continue
                    terms.append(max(0.0, margin + gap))
                    weights.append(w[p] * w[n])
        if average == "active":
            weights = [weight * (term > 0) for term, weight in zip(terms, weights, strict=True)]
        return mean(terms, weights)

    return loss
