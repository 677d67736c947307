"""Objectives on vectors once more, as loops. Each takes audio, text, relevance, valid and weight as arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from loss_oracles import Oracle as PairOracle
from loss_oracles import info_nce, mean, softplus

Oracle = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray], float]


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def anchors(relevance, valid) -> Iterator[tuple[int, list[int], list[int]]]:
    for i in range(len(relevance)):
        judged = [j for j in range(relevance.shape[1]) if valid[i, j]]
        yield i, [j for j in judged if relevance[i, j] > 0], [j for j in judged if relevance[i, j] <= 0]


def n_pair(length_weight) -> Oracle:
    def loss(a, t, relevance, valid, weight) -> float:
        lengths = mean([x @ x for x in a]) + mean([x @ x for x in t])
        return info_nce(1.0)(a @ t.T, relevance, valid, weight) + length_weight * lengths / 4

    return loss


def angular(degrees) -> Oracle:
    def loss(a, t, relevance, valid, weight) -> float:
        a, t, tangent = unit(a), unit(t), np.tan(np.radians(degrees)) ** 2
        terms, weights = [], []
        for i, positives, negatives in anchors(relevance, valid):
            for p in positives if negatives else []:
                own = 2 * (1 + tangent) * a[i] @ t[p]
                others = sum(weight[i, n] * np.exp(4 * tangent * (a[i] + t[p]) @ t[n] - own) for n in negatives)
                terms.append(np.log1p(others))
                weights.append(weight[i, p])
        return mean(terms, weights)

    return loss


def element_weighted(margin, threshold, floor, mean_negative) -> Oracle:
    def loss(a, t, relevance, valid, weight) -> float:
        a, t = unit(a), unit(t)
        terms = []
        for i, positives, negatives in anchors(relevance, valid):
            if not positives or not negatives:
                continue
            away = [np.linalg.norm(a[i] - x) for x in t]
            p, n = max(positives, key=away.__getitem__), min(negatives, key=away.__getitem__)
            ratio = np.abs(t[p] - t[n]) / np.abs(t[p] - t[n]).max()
            counts = np.where(ratio < threshold, 0.0, ratio + floor)
            near, far = np.linalg.norm(counts * (a[i] - t[p])), np.linalg.norm(counts * (a[i] - t[n]))
            term = max(0.0, margin + away[p] - away[n]) + max(0.0, margin + near - far)
            if mean_negative:
                term += max(
                    0.0, margin + away[p] - mean([away[k] for k in negatives], [weight[i, k] for k in negatives])
                )
            terms.append(term)
        return mean(terms)

    return loss


def snr(positive_margin, negative_margin) -> Oracle:
    def loss(a, t, relevance, valid, weight) -> float:
        a, t = unit(a), unit(t)
        near, near_weight, far, far_weight = [], [], [], []
        for i, positives, negatives in anchors(relevance, valid):
            away = [np.var(t[j] - a[i]) / np.var(a[i]) for j in range(len(t))]
            near += [max(0.0, away[p] - positive_margin) for p in positives]
            near_weight += [weight[i, p] for p in positives]
            far += [max(0.0, negative_margin - away[n]) for n in negatives]
            far_weight += [weight[i, n] for n in negatives]
        return mean(near, near_weight) + mean(far, far_weight)

    return loss


def robust_margin(margin) -> Oracle:
    def loss(a, t, relevance, valid, weight) -> float:
        a, t, terms = unit(a), unit(t), []
        for i, positives, negatives in anchors(relevance, valid):
            if positives and negatives:
                radii = []
                for n in negatives:
                    # Signed distance of the anchor from the plane between p and n.
                    planes = [((t[p] + t[n]) / 2, (t[p] - t[n]) / np.linalg.norm(t[p] - t[n])) for p in positives]
                    radii.append(max((a[i] - middle) @ normal for middle, normal in planes))
                terms.append(max(0.0, margin - min(radii)))
        return mean(terms)

    return loss


def point_to_set(margin, ridge) -> Oracle:
    def to_set(point, members) -> float:
        # Least squares with one more row for each coefficient.
        matrix = np.vstack([members.T, np.sqrt(ridge) * np.eye(len(members))])
        target = np.concatenate([point, np.zeros(len(members))])
        coefficients = np.linalg.lstsq(matrix, target, rcond=None)[0]
        return float(((matrix @ coefficients - target) ** 2).sum())

    def loss(a, t, relevance, valid, weight) -> float:
        a, t, terms, weights = unit(a), unit(t), [], []
        for i, positives, negatives in anchors(relevance, valid):
            for n in negatives if positives else []:
                terms.append(max(0.0, margin + to_set(a[i], t[positives]) - to_set(a[i], t[[n]])))
                weights.append(weight[i, n])
        return mean(terms, weights)

    return loss


def hierarchical_triplet(margin, levels) -> Oracle:
    def loss(a, t, relevance, valid, weight) -> float:
        a, t = unit(a), unit(t)
        texts = range(len(t))
        positive = valid & (relevance > 0)
        scatter = {
            j: mean(
                [((a[i] - t[j]) ** 2).sum() for i in np.flatnonzero(positive[:, j])], list(weight[positive[:, j], j])
            )
            for j in texts
        }
        base = mean([scatter[j] for j in texts if positive[:, j].any()])
        # Average linkage by hand: the height of a pair is the mean distance of the two clusters when they join.
        clusters, height = [[j] for j in texts], np.zeros((len(t), len(t)))

        def apart(one, other) -> float:
            return mean([((t[j] - t[k]) ** 2).sum() for j in one for k in other])

        while len(clusters) > 1:
            one, other = min(((x, y) for x in clusters for y in clusters if x is not y), key=lambda two: apart(*two))
            for j in one:
                for k in other:
                    height[j, k] = height[k, j] = apart(one, other)
            clusters = [c for c in clusters if c is not one and c is not other] + [one + other]
        steps = [base + (4 - base) * level / levels for level in range(levels + 1)]
        terms, weights = [], []
        for i, positives, negatives in anchors(relevance, valid):
            for p in positives:
                for n in negatives:
                    rounded = min(step for step in steps if step >= height[p, n] - 1e-12)
                    gap = ((a[i] - t[p]) ** 2).sum() - ((a[i] - t[n]) ** 2).sum()
                    terms.append(max(0.0, margin + rounded - scatter[p] + gap) / 2)
                    weights.append(weight[i, p] * weight[i, n] * (terms[-1] > 0))
        return mean(terms, weights)

    return loss


def group(temperature, steps) -> Oracle:
    def loss(a, t, relevance, valid, weight) -> float:
        score = unit(a) @ unit(t).T
        first = np.exp(score / temperature) * weight
        first = first / np.where(first.sum(1, keepdims=True) > 0, first.sum(1, keepdims=True), 1)
        alike = np.clip(np.corrcoef(a), 0, None)
        last = first.copy()
        for _ in range(steps):
            grown = np.zeros_like(last)
            for i in range(len(last)):
                for j in range(last.shape[1]):
                    grown[i, j] = last[i, j] * sum(alike[i, k] * last[k, j] for k in range(len(last)))
                if grown[i].sum() > 0:
                    grown[i] /= grown[i].sum()
            last = grown
        terms = []
        for i, positives, _ in anchors(relevance, valid):
            if positives:
                shares = [relevance[i, p] * weight[i, p] for p in positives]
                terms.append(mean([-np.log(last[i, p] * first[i, p]) for p in positives], shares))
        return mean(terms)

    return loss


def f_statistic(dims) -> Oracle:
    def loss(a, t, relevance, valid, weight) -> float:
        from scipy.stats import f_oneway

        a, t, terms = unit(a), unit(t), []
        for i, positives, negatives in anchors(relevance, valid):
            if positives and len(negatives) >= 2:
                near, far = np.vstack([t[positives], a[i]]), t[negatives]
                # One minus the p-value of the F test is the probability of a smaller statistic.
                likelihood = 1 - f_oneway(near, far).pvalue
                terms.append(-mean(list(np.log(np.sort(likelihood)[-dims:]))))
        return mean(terms)

    return loss


def _unrelated(relevance, valid, axis) -> list[tuple[int, int]]:
    positive = (valid & (relevance > 0)) if axis == 0 else (valid & (relevance > 0)).T
    items = range(len(positive))
    return [(i, k) for i in items for k in items if i != k and not (positive[i] & positive[k]).any()]


def spread_out(across, within) -> Oracle:
    def loss(a, t, relevance, valid, weight) -> float:
        a, t, value = unit(a), unit(t), 0.0
        sets = []
        if across:
            pairs = list(zip(*np.nonzero(valid & (relevance <= 0)), strict=True))
            sets.append(([a[i] @ t[j] for i, j in pairs], [weight[pair] for pair in pairs]))
        if within:
            for axis, x in enumerate((a, t)):
                cosines = [x[i] @ x[k] for i, k in _unrelated(relevance, valid, axis)]
                sets.append((cosines, [1.0] * len(cosines)))
        for cosines, weights in sets:
            squares = [cosine**2 for cosine in cosines]
            value += mean(cosines, weights) ** 2 + max(0.0, mean(squares, weights) - 1 / a.shape[1])
        return value

    return loss


def spherical(a, t, relevance, valid, weight) -> float:
    return float(np.var(np.linalg.norm(a, axis=1)) + np.var(np.linalg.norm(t, axis=1)))


def zero_mean(a, t, relevance, valid, weight) -> float:
    return mean([abs(sum(x)) for x in unit(a)]) + mean([abs(sum(x)) for x in unit(t)])


def variance_covariance(spread, covariance_weight) -> Oracle:
    def loss(a, t, relevance, valid, weight) -> float:
        value = 0.0
        for x in (a, t):
            if len(x) > 1:
                covariance = np.atleast_2d(np.cov(x.T))
                dims = range(len(covariance))
                value += mean([max(0.0, spread - np.sqrt(covariance[d, d] + 1e-4)) for d in dims])
                cross = sum(covariance[d, e] ** 2 for d in dims for e in dims if d != e)
                value += covariance_weight * cross / len(covariance)
        return value

    return loss


def alignment_uniformity(uniformity_weight, sharpness) -> Oracle:
    def loss(a, t, relevance, valid, weight) -> float:
        a, t = unit(a), unit(t)
        pairs = list(zip(*np.nonzero(valid & (relevance > 0)), strict=True))
        value = mean([((a[i] - t[j]) ** 2).sum() for i, j in pairs], [weight[pair] for pair in pairs])
        for x in (a, t):
            if len(x) > 1:
                close = [np.exp(-sharpness * ((x[i] - x[k]) ** 2).sum()) for i in range(len(x)) for k in range(i)]
                value += uniformity_weight / 2 * np.log(mean(close))
        return value

    return loss


def joint_representation(kernels) -> Oracle:
    def kernel(x, i, k) -> float:
        items = range(len(x))
        squared = [[((x[r] - x[c]) ** 2).sum() for c in items] for r in items]
        middle = sum(map(sum, squared)) / (len(x) * (len(x) - 1))
        return mean([np.exp(-squared[i][k] / (middle * 2.0 ** (power - kernels // 2))) for power in range(kernels)])

    def loss(a, t, relevance, valid, weight) -> float:
        a, t, value = unit(a), unit(t), 0.0
        score = a @ t.T * valid
        for axis, (x, profile) in enumerate(((a, score), (t, score.T))):
            pairs = _unrelated(relevance, valid, axis)
            value += mean([kernel(x, i, k) * kernel(profile, i, k) for i, k in pairs])
        return value

    return loss


def diversity(learners, margin) -> Oracle:
    def loss(a, t, relevance, valid, weight) -> float:
        value = 0.0
        for x in (a, t):
            terms = []
            for item in x:
                parts = [part / np.linalg.norm(part) for part in np.split(item, learners)]
                terms += [max(0.0, parts[p] @ parts[q] - margin) for p in range(learners) for q in range(p)]
            value += mean(terms)
        return value

    return loss


def embedding_expansion(inner: PairOracle, points: int) -> Oracle:
    def loss(a, t, relevance, valid, weight) -> float:
        a, t = unit(a), unit(t)
        score, positive = a @ t.T, valid & (relevance > 0)
        negative = valid & (relevance <= 0)
        harder = score.copy()
        for i, j in zip(*np.nonzero(negative), strict=True):
            for k in np.flatnonzero(negative[i]):
                if k != j and (positive[:, j] & positive[:, k]).any():
                    for step in range(1, points + 1):
                        point = (step * t[j] + (points + 1 - step) * t[k]) / (points + 1)
                        harder[i, j] = max(harder[i, j], a[i] @ point / np.linalg.norm(point))
        return inner(harder, relevance, valid, weight)

    return loss


def symmetrical_synthesis(inner: PairOracle) -> Oracle:
    def mirrored(x, axis) -> np.ndarray:
        return 2 * (x @ axis) * axis - x

    def loss(a, t, relevance, valid, weight) -> float:
        a, t = unit(a), unit(t)
        harder = a @ t.T
        for i, positives, negatives in anchors(relevance, valid):
            for n in negatives:
                for p in positives:
                    harder[i, n] = max(harder[i, n], mirrored(t[p], a[i]) @ t[n], mirrored(a[i], t[p]) @ t[n])
        return inner(harder, relevance, valid, weight)

    return loss


def boosted_ensemble(widths, alpha, beta, cost) -> Oracle:
    def loss(a, t, relevance, valid, weight) -> float:
        a, t, value, start = unit(a), unit(t), 0.0, 0
        running, slope = np.zeros(relevance.shape), np.ones(relevance.shape)
        for learner, width in enumerate(widths, start=1):
            own = unit(a[:, start : start + width]) @ unit(t[:, start : start + width]).T
            start += width
            share = 2 / (learner + 1)
            running = (1 - share) * running + share * own
            costs, following = np.zeros(own.shape), np.zeros(own.shape)
            for i, j in np.ndindex(own.shape):
                steep = -alpha if relevance[i, j] > 0 else alpha * cost
                costs[i, j] = slope[i, j] * softplus(steep * (own[i, j] - beta))
                following[i, j] = abs(steep) / (1 + np.exp(-steep * (running[i, j] - beta)))
            for chosen in (valid & (relevance > 0), valid & (relevance <= 0)):
                value += mean(list(costs[chosen]), list(weight[chosen]))
            slope = following
        return value

    return loss


def hard_concept(inner: PairOracle, count: int) -> Oracle:
    def loss(a, t, relevance, valid, weight) -> float:
        a, t, kept = unit(a), unit(t), valid.copy()
        for i, positives, negatives in anchors(relevance, valid):
            alike = {n: max([t[p] @ t[n] for p in positives], default=0.0) for n in negatives}
            if positives:
                kept[i, sorted(negatives, key=lambda n: -alike[n])[count:]] = False
        return inner(a @ t.T, relevance, kept, weight * kept)

    return loss


def sliced(a, t, parts) -> list[np.ndarray]:
    """Cosines of each part of the vectors."""
    a, t = unit(a), unit(t)
    width = a.shape[1] // parts
    cuts = [slice(k * width, (k + 1) * width) for k in range(parts)]
    return [unit(a[:, cut]) @ unit(t[:, cut]).T for cut in cuts]


def ensemble(inner: Callable[..., float], learners) -> Oracle:
    def loss(a, t, relevance, valid, weight) -> float:
        return mean([inner(s, relevance, valid, weight) for s in sliced(a, t, learners)])

    return loss


def cascade(inner: Callable[..., float], shares) -> Oracle:
    def loss(a, t, relevance, valid, weight) -> float:
        total, kept, before = 0.0, valid.copy(), None
        for s, share in zip(sliced(a, t, len(shares)), shares, strict=True):
            if before is not None:
                places = [(i, j) for i in range(len(s)) for j in range(s.shape[1]) if kept[i, j]]
                chosen = np.zeros_like(kept)
                for kind in (
                    sorted((p for p in places if relevance[p] > 0), key=lambda p: before[p]),
                    sorted((p for p in places if relevance[p] <= 0), key=lambda p: -before[p]),
                ):
                    for place in kind[: max(1, int(np.ceil(share * len(kind) - 1e-9)))]:
                        chosen[place] = True
                kept = chosen
            total += inner(s, relevance, kept, np.where(kept, weight, 0.0))
            before = s
        return total

    return loss


def episode(temperature, length_weight) -> Oracle:
    def loss(a, t, relevance, valid, weight) -> float:
        lengths = (mean([x @ x for x in a]) + mean([x @ x for x in t])) / 2
        a, t = unit(a), unit(t)
        terms, weights = [], []
        right = (relevance > 0) & valid
        for i, positives, negatives in anchors(relevance, valid):

            def supports(j, i=i) -> list[float]:
                return [a[i] @ t[j], *(a[i] @ a[k] for k in range(len(a)) if k != i and right[k, j])]

            for p in positives if negatives else []:
                own = min(supports(p)) / temperature
                others = sum(weight[i, n] * np.exp(max(supports(n)) / temperature) for n in negatives)
                terms.append(np.log(np.exp(own) + others) - own)
                weights.append(weight[i, p])
        return mean(terms, weights) + length_weight * lengths

    return loss
