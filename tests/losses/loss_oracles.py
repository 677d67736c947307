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


def info_nce(temperature: float, denominator: str = "all", margin: float = 0.0) -> Oracle:
    def loss(score, relevance, valid, weight) -> float:
        terms = []
        for i, (positives, negatives, s, w) in enumerate(rows(score, relevance, valid, weight)):
            if not positives or (denominator == "negatives" and not negatives):
                continue
            s = [each - margin * (relevance[i, j] > 0 and valid[i, j]) for j, each in enumerate(s)]
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


def nca(temperature: float, denominator: str = "all") -> Oracle:
    def loss(score, relevance, valid, weight) -> float:
        terms = []
        for positives, negatives, s, w in rows(score, relevance, valid, weight):
            near = sum(w[p] * np.exp(s[p] / temperature) for p in positives)
            far = sum(w[n] * np.exp(s[n] / temperature) for n in negatives)
            if positives and (negatives or denominator == "all"):
                terms.append(-np.log(near / (far + (near if denominator == "all" else 0.0))))
        return mean(terms)

    return loss


def multi_similarity(alpha=2.0, beta=50.0, base=0.5) -> Oracle:
    def loss(score, relevance, valid, weight) -> float:
        terms = []
        for positives, negatives, s, w in rows(score, relevance, valid, weight):
            near = np.log1p(sum(w[p] * np.exp(-alpha * (s[p] - base)) for p in positives)) / alpha
            far = np.log1p(sum(w[n] * np.exp(beta * (s[n] - base)) for n in negatives)) / beta
            if positives:
                terms.append(near + far)
        return mean(terms)

    return loss


def circle(margin, scale) -> Oracle:
    def loss(score, relevance, valid, weight) -> float:
        terms = []
        for positives, negatives, s, w in rows(score, relevance, valid, weight):
            near = far = 0.0
            for p in positives:
                near += w[p] * np.exp(-scale * max(0.0, 1 + margin - s[p]) * (s[p] - (1 - margin)))
            for n in negatives:
                far += w[n] * np.exp(scale * max(0.0, s[n] + margin) * (s[n] - margin))
            if positives and negatives:
                terms.append(np.log1p(near * far))
        return mean(terms)

    return loss


def proxy_anchor(alpha=32.0, margin=0.1) -> Oracle:
    def loss(score, relevance, valid, weight) -> float:
        near, far = [], []
        for positives, negatives, s, w in rows(score, relevance, valid, weight):
            if positives:
                near.append(np.log1p(sum(w[p] * np.exp(-alpha * (s[p] - margin)) for p in positives)))
            if positives or negatives:
                far.append(np.log1p(sum(w[n] * np.exp(alpha * (s[n] + margin)) for n in negatives)))
        return mean(near) + mean(far)

    return loss


def spread_instance(temperature) -> Oracle:
    def loss(score, relevance, valid, weight) -> float:
        terms = []
        for i, (positives, negatives, s, w) in enumerate(rows(score, relevance, valid, weight)):
            if not positives:
                continue
            whole = sum(w[j] * np.exp(s[j] / temperature) for j in positives + negatives)
            p = [np.exp(each / temperature) / whole for each in s]
            share = sum(relevance[i, j] * w[j] for j in positives)
            terms.append(-sum(relevance[i, j] * w[j] / share * np.log(p[j]) for j in positives))
            terms[-1] -= sum(w[n] * np.log(1 - p[n]) for n in negatives)
        return mean(terms)

    return loss


def hardest_support(temperature) -> Oracle:
    def loss(score, relevance, valid, weight) -> float:
        terms = []
        for positives, negatives, s, w in rows(score, relevance, valid, weight):
            if positives:
                own = np.exp(min(s[p] for p in positives) / temperature)
                terms.append(-np.log(own / (own + sum(w[n] * np.exp(s[n] / temperature) for n in negatives))))
        return mean(terms)

    return loss


def binomial_deviance(alpha, beta, cost) -> Oracle:
    def loss(score, relevance, valid, weight) -> float:
        near, near_weight, far, far_weight = [], [], [], []
        for i, (positives, negatives, s, w) in enumerate(rows(score, relevance, valid, weight)):
            near += [np.log1p(np.exp(-alpha * (s[p] - beta))) for p in positives]
            near_weight += [w[p] * relevance[i, p] for p in positives]
            far += [np.log1p(np.exp(alpha * cost * (s[n] - beta))) for n in negatives]
            far_weight += [w[n] for n in negatives]
        return mean(near, near_weight) + mean(far, far_weight)

    return loss


def margin_loss(margin, beta, nu=0.0) -> Oracle:
    def loss(score, relevance, valid, weight) -> float:
        terms, weights = [], []
        for positives, negatives, s, w in rows(score, relevance, valid, weight):
            for j in positives + negatives:
                side = 1 if j in positives else -1
                terms.append(max(0.0, margin + side * (distance(s[j], "euclidean") - beta)))
                weights.append(w[j] * (terms[-1] > 0))
        return mean(terms, weights) + nu * beta * bool(terms)

    return loss


def triplet_upper_bound(score, relevance, valid, weight) -> float:
    terms = []
    for positives, negatives, s, w in rows(score, relevance, valid, weight):
        if positives:
            away = [distance(each, "euclidean") for each in s]
            near = mean([away[p] for p in positives], [w[p] for p in positives])
            terms.append(near - mean([away[n] for n in negatives], [w[n] for n in negatives]) / 3)
    return mean(terms)


def ranked_list(alpha, margin, negative_sharpness, positive_sharpness, balance) -> Oracle:
    def loss(score, relevance, valid, weight) -> float:
        near, far = [], []
        for positives, negatives, s, w in rows(score, relevance, valid, weight):
            excess = {p: distance(s[p], "euclidean") - (alpha - margin) for p in positives}
            lack = {n: alpha - distance(s[n], "euclidean") for n in negatives}
            beyond, within = [p for p in positives if excess[p] > 0], [n for n in negatives if lack[n] > 0]
            if positives:
                weights = [w[p] * np.exp(positive_sharpness * excess[p]) for p in beyond]
                near.append(mean([excess[p] for p in beyond], weights))
            if negatives:
                weights = [w[n] * np.exp(negative_sharpness * lack[n]) for n in within]
                far.append(mean([lack[n] for n in within], weights))
        return (1 - balance) * mean(near) + balance * mean(far)

    return loss


def lifted(margin) -> Oracle:
    def loss(score, relevance, valid, weight) -> float:
        terms, weights = [], []
        away = np.vectorize(lambda s: distance(s, "euclidean"))(score)
        negative = valid & (relevance <= 0)
        for i, j in zip(*np.nonzero(valid & (relevance > 0)), strict=True):
            against = sum(weight[i, k] * np.exp(margin - away[i, k]) for k in np.flatnonzero(negative[i]))
            against += sum(weight[k, j] * np.exp(margin - away[k, j]) for k in np.flatnonzero(negative[:, j]))
            if against > 0:
                terms.append(max(0.0, np.log(against) + away[i, j]) ** 2 / 2)
                weights.append(weight[i, j])
        return mean(terms, weights)

    return loss


def generalized_lifted(margin) -> Oracle:
    def loss(score, relevance, valid, weight) -> float:
        terms = []
        for positives, negatives, s, w in rows(score, relevance, valid, weight):
            if positives and negatives:
                near = sum(w[p] * np.exp(distance(s[p], "euclidean")) for p in positives)
                far = sum(w[n] * np.exp(margin - distance(s[n], "euclidean")) for n in negatives)
                terms.append(max(0.0, np.log(near) + np.log(far)))
        return mean(terms)

    return loss


def tuplet_margin(scale, degrees) -> Oracle:
    def loss(score, relevance, valid, weight) -> float:
        terms, weights = [], []
        for positives, negatives, s, w in rows(score, relevance, valid, weight):
            for p in positives if negatives else []:
                eased = np.cos(np.arccos(np.clip(s[p], -1, 1)) - np.radians(degrees))
                terms.append(np.log1p(sum(w[n] * np.exp(scale * (s[n] - eased)) for n in negatives)))
                weights.append(w[p])
        return mean(terms, weights)

    return loss


def intra_pair_variance(spread) -> Oracle:
    def loss(score, relevance, valid, weight) -> float:
        value = 0.0
        for side in (1, -1):
            pairs = list(zip(*np.nonzero(valid & ((relevance > 0) == (side > 0))), strict=True))
            weights = [weight[pair] for pair in pairs]
            middle = mean([score[pair] for pair in pairs], weights)
            limit = (1 - side * spread) * middle
            value += mean([max(0.0, side * (limit - score[pair])) ** 2 for pair in pairs], weights)
        return value

    return loss


def histogram(bins) -> Oracle:
    def loss(score, relevance, valid, weight) -> float:
        width, nodes = 2 / bins, np.linspace(-1, 1, bins + 1)
        histograms = []
        for chosen in (valid & (relevance > 0), valid & (relevance <= 0)):
            total = weight[chosen].sum()
            kernel = np.clip(1 - abs(score[chosen][:, None] - nodes[None, :]) / width, 0, None)
            histograms.append((weight[chosen][:, None] * kernel).sum(axis=0) / (total if total > 0 else 1))
        near, far = histograms
        return sum(far[r] * sum(near[: r + 1]) for r in range(bins + 1))

    return loss


def fast_ap(bins) -> Oracle:
    def loss(score, relevance, valid, weight) -> float:
        width, terms = 4 / bins, []
        for positives, negatives, s, w in rows(score, relevance, valid, weight):
            if not positives:
                continue
            near, every = np.zeros(bins + 1), np.zeros(bins + 1)
            for j in positives + negatives:
                for node in range(bins + 1):
                    share = w[j] * max(0.0, 1 - abs(2 - 2 * s[j] - node * width) / width)
                    every[node] += share
                    near[node] += share * (j in positives)
            terms.append(1.0)
            for node in range(bins + 1):
                if every[: node + 1].sum() > 0:
                    terms[-1] -= near[node] * near[: node + 1].sum() / every[: node + 1].sum() / near.sum()
        return mean(terms)

    return loss


def smooth_ap(temperature) -> Oracle:
    def loss(score, relevance, valid, weight) -> float:
        terms = []
        for positives, negatives, s, w in rows(score, relevance, valid, weight):
            precisions = []
            for p in positives:
                ahead = [w[k] / (1 + np.exp(-(s[k] - s[p]) / temperature)) for k in range(len(s))]
                # Other copies of p tie with it; its own step is 1 and not sigmoid(0).
                own = 1 - 0.5
                near = own + sum(ahead[k] for k in positives)
                precisions.append(near / (near + sum(ahead[n] for n in negatives)))
            if positives:
                terms.append(1 - mean(precisions, [w[p] for p in positives]))
        return mean(terms)

    return loss


def true_ranks(objective, margin) -> Oracle:
    def loss(score, relevance, valid, weight) -> float:
        terms = []
        for positives, negatives, s, w in rows(score, relevance, valid, weight):
            s = [each + (-margin / 2 if j in positives else margin / 2) for j, each in enumerate(s)]
            values = []
            for p in positives:
                right = sum(w[k] for k in positives if s[k] >= s[p])
                wrong = sum(w[k] for k in negatives if s[k] >= s[p])
                values.append(np.log1p(np.log1p(wrong)) if objective == "recall" else 1 - right / (right + wrong))
            if positives:
                terms.append(mean(values, [w[p] for p in positives]))
        return mean(terms)

    return loss


def log_ratio(nearest) -> Oracle:
    def loss(score, relevance, valid, weight) -> float:
        total = count = 0.0
        for i, (positives, negatives, s, w) in enumerate(rows(score, relevance, valid, weight)):
            judged = positives + negatives
            items = sum(w[j] for j in judged)
            if items <= 1:
                continue
            away = {j: distance(s[j], "euclidean") for j in judged}
            target = {j: min(max(1 - relevance[i, j], nearest), 1.0) for j in judged}
            for a, j in enumerate(judged):
                for k in judged[:a]:
                    ratio = np.log(away[j] / away[k]) - np.log(target[j] / target[k])
                    total += w[j] * w[k] * ratio**2
            count += items * (items - 1) / 2
        return total / count if count > 0 else 0.0

    return loss


def latent_coincidence(spread, offset) -> Oracle:
    def loss(score, relevance, valid, weight) -> float:
        value = 0.0
        for chosen in (valid & (relevance > 0), valid & (relevance <= 0)):
            p = np.exp(-(2 - 2 * score[chosen]) / (2 * spread) - offset)
            right = np.clip(relevance[chosen], 0, 1)
            value += mean(list(-right * np.log(p) - (1 - right) * np.log(1 - p)), list(weight[chosen]))
        return value

    return loss


def seraph(boundary, sharpness, unknown_weight) -> Oracle:
    def loss(score, relevance, valid, weight) -> float:
        p = 1 / (1 + np.exp(-sharpness * (boundary - (2 - 2 * score))))
        right = np.clip(relevance, 0, 1)
        known = -(right * np.log(p) + (1 - right) * np.log(1 - p))
        unknown = -(p * np.log(p) + (1 - p) * np.log(1 - p))
        return mean(list(known[valid]), list(weight[valid])) + unknown_weight * mean(list(unknown[~valid]))

    return loss


def quadruplet(margin, far_margin, far_weight) -> Oracle:
    def loss(score, relevance, valid, weight) -> float:
        terms, weights = [], []
        positives = list(zip(*np.nonzero(valid & (relevance > 0)), strict=True))
        negatives = list(zip(*np.nonzero(valid & (relevance <= 0)), strict=True))
        for p in positives:
            for n in negatives:
                terms.append(max(0.0, far_margin + score[n] - score[p]))
                weights.append(weight[p] * weight[n] * (terms[-1] > 0))
        return triplet(margin)(score, relevance, valid, weight) + far_weight * mean(terms, weights)

    return loss


def hardness_aware(inner: Oracle, hardness: float) -> Oracle:
    def loss(score, relevance, valid, weight) -> float:
        plain = max(inner(score, relevance, valid, weight), 1e-6)
        moved = score.copy()
        for i, (positives, negatives, s, _) in enumerate(rows(score, relevance, valid, weight)):
            for n in negatives if positives else []:
                farthest = max(distance(s[p], "euclidean") for p in positives)
                away = distance(s[n], "euclidean")
                if away > farthest:
                    moved[i, n] = 1 - (farthest + (away - farthest) * np.exp(-hardness / plain)) ** 2 / 2
        return inner(moved, relevance, valid, weight)

    return loss


def facility_location(margin: float) -> Oracle:
    def loss(score, relevance, valid, weight) -> float:
        positive = valid & (relevance > 0)
        served = [i for i in range(len(score)) if positive[i].any()]
        if not served:
            return 0.0

        def away(i, j) -> float:
            return distance(score[i, j], "euclidean") if valid[i, j] else 3.0

        def gain(chosen) -> float:
            servers = [min(chosen, key=lambda j: away(i, j)) for i in served]
            wrong = mean([float(not positive[i, j]) for i, j in zip(served, servers, strict=True)])
            return margin * wrong - mean([away(i, j) for i, j in zip(served, servers, strict=True)])

        chosen: list[int] = []
        for _ in range(int(positive.any(axis=0).sum())):
            chosen.append(max((j for j in range(score.shape[1]) if j not in chosen), key=lambda j: gain([*chosen, j])))
        right = mean([min(away(i, j) for j in np.flatnonzero(positive[i])) for i in served])
        return max(0.0, gain(chosen) + right)

    return loss
