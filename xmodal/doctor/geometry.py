"""Figures of the shape of a space: pure functions on unit vectors.

Conventions
-----------
Vectors are unit rows, finite. ``audio`` and ``text`` are two sides of one space, ``relevance[i, j]`` says that text j
is right for audio i. Sums are float64. Nothing here judges: the limits are in :mod:`xmodal.doctor.findings`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_BLOCK = 1024


def to_be_told_apart(relevance: Bool[Tensor, "items others"]) -> Int[Tensor, " items"]:
    """A group number an item: items with the same right answers are one group and need not be told apart.

    An item without right answers is a group of its own.
    """
    _, group = torch.unique(relevance.to(torch.uint8), dim=0, return_inverse=True)
    alone = ~relevance.bool().any(dim=1)
    group[alone] = len(group) + torch.arange(int(alone.sum()))
    return torch.unique(group, return_inverse=True)[1]


def mean_cosine(vectors: Float[Tensor, "items dim"], groups: Int[Tensor, " items"] | None = None) -> float:
    """Mean cosine of two items of different groups: 0 for directions drawn evenly, 1 where all items are one.

    The usual measure of anisotropy (Ethayarajh 2019, arXiv:1909.00512); from lengths of sums, not from pairs.

    Args:
        vectors: Unit vectors.
        groups: As :func:`to_be_told_apart` gives them; None: every item for itself.

    Raises:
        ValueError: If there are fewer than two groups.
    """
    groups = _groups(vectors, groups)
    sums = torch.zeros(int(groups.max()) + 1, vectors.shape[1], dtype=torch.float64)
    sums.index_add_(0, groups, vectors.double())
    counts = torch.bincount(groups).double()
    products = sums.sum(dim=0).square().sum() - sums.square().sum()
    return float(products / (counts.sum().square() - counts.square().sum()))


def singular_values(vectors: Float[Tensor, "items dim"]) -> Float[Tensor, " rank"]:
    """Singular values of the vectors less their mean, largest first.

    Raises:
        ValueError: If there are fewer than two items.
    """
    _at_least(vectors, 2)
    return torch.linalg.svdvals(vectors.double() - vectors.double().mean(dim=0))


def effective_rank(values: Float[Tensor, " rank"]) -> float:
    """How many directions are really used: exp of the entropy of the normalised singular values.

    Roy and Vetterli, "The effective rank", EUSIPCO 2007; as a measure of representations Garrido et al. 2023
    (RankMe, arXiv:2210.02885). 0 where every singular value is 0.
    """
    total = float(values.sum())
    if total <= 1e-9:
        return 0.0
    share = values / total
    return math.exp(float(-(share * share.clamp(min=1e-12).log()).sum()))


def dead_dimensions(vectors: Float[Tensor, "items dim"], share: float = 0.01) -> Int[Tensor, " dead"]:
    """Dimensions that say nothing: their standard deviation is below ``share`` of ``1 / sqrt(dim)``.

    ``1 / sqrt(dim)`` is the standard deviation of every dimension where unit vectors are spread evenly.
    """
    _at_least(vectors, 2)
    deviation = vectors.double().std(dim=0, correction=0)
    return (deviation < share / math.sqrt(vectors.shape[1])).nonzero().flatten()


def modality_gap(audio: Float[Tensor, "audio dim"], text: Float[Tensor, "text dim"]) -> float:
    """Distance between the mean audio and the mean text vector (Liang et al. 2022, arXiv:2203.02053), 0 to 2."""
    _at_least(audio, 1)
    _at_least(text, 1)
    return float((audio.double().mean(dim=0) - text.double().mean(dim=0)).norm())


def alignment(
    audio: Float[Tensor, "audio dim"], text: Float[Tensor, "text dim"], relevance: Bool[Tensor, "audio text"]
) -> float:
    """Mean squared distance of the right pairs (Wang and Isola 2020, arXiv:2005.10242): 0 is best, unrelated is 2.

    Raises:
        ValueError: If there is no right pair.
    """
    positive, _, _, _ = pair_cosines(audio, text, relevance)
    return 2 - 2 * positive


def pair_cosines(
    audio: Float[Tensor, "audio dim"], text: Float[Tensor, "text dim"], relevance: Bool[Tensor, "audio text"]
) -> tuple[float, float, float, float]:
    """Mean and standard deviation of the cosines of right pairs, and of those of wrong pairs.

    Raises:
        ValueError: If there is no right pair or no wrong one.
    """
    right = relevance.bool()
    if not right.any() or right.all():
        raise ValueError("pairs of both kinds are needed, right ones and wrong ones")
    sums = torch.zeros(2, 3, dtype=torch.float64)
    for rows in _blocks(len(audio)):
        score, mine = (audio[rows] @ text.T).double(), right[rows]
        for kind, chosen in enumerate((score[mine], score[~mine])):
            sums[kind] += torch.stack([torch.tensor(float(len(chosen))).double(), chosen.sum(), chosen.square().sum()])
    means = sums[:, 1] / sums[:, 0]
    deviations = (sums[:, 2] / sums[:, 0] - means.square()).clamp(min=0).sqrt()
    return float(means[0]), float(deviations[0]), float(means[1]), float(deviations[1])


def uniformity(
    vectors: Float[Tensor, "items dim"], groups: Int[Tensor, " items"] | None = None, *, t: float = 2.0
) -> float:
    """``log mean exp(-t |x - y|^2)`` over items of different groups (Wang and Isola 2020): 0 is collapsed.

    Directions drawn evenly in ``dim`` dimensions give about ``-2 t + 2 t^2 / dim``.

    Args:
        vectors: Unit vectors.
        groups: As :func:`to_be_told_apart` gives them; None: every item for itself.
        t: Sharpness of the kernel; the paper's is 2.

    Raises:
        ValueError: If there are fewer than two groups.
    """
    groups = _groups(vectors, groups)
    total, pairs = 0.0, 0
    for rows in _blocks(len(vectors)):
        squared = 2 - 2 * (vectors[rows] @ vectors.T).double()
        apart = groups[rows][:, None] != groups
        total += float((-t * squared.clamp(min=0)).exp()[apart].sum())
        pairs += int(apart.sum())
    return math.log(max(total, 1e-300) / pairs)


def k_occurrence(
    queries: Float[Tensor, "queries dim"], candidates: Float[Tensor, "candidates dim"], k: int
) -> Int[Tensor, " candidates"]:
    """How many of the queries' lists of the ``k`` nearest each candidate is in.

    Raises:
        ValueError: If ``k`` is not from 1 to the number of candidates.
    """
    if not 1 <= k <= len(candidates):
        raise ValueError(f"k must be from 1 to the {len(candidates)} candidates, got {k}")
    counts = torch.zeros(len(candidates), dtype=torch.long)
    for rows in _blocks(len(queries)):
        nearest = (queries[rows] @ candidates.T).topk(k, dim=1).indices.flatten()
        counts += torch.bincount(nearest, minlength=len(candidates))
    return counts


def skewness(values: Tensor) -> float:
    """Third standardised moment; 0 where all values are equal."""
    centred = values.double() - values.double().mean()
    deviation = centred.square().mean().sqrt()
    return float((centred / deviation).pow(3).mean()) if deviation > 0 else 0.0


def chance_skewness(queries: int, candidates: int, k: int) -> float:
    """Skewness of the k-occurrence where each list is a draw without aim: that of a binomial distribution."""
    share = k / candidates
    return (1 - 2 * share) / math.sqrt(queries * share * (1 - share)) if 0 < share < 1 else 0.0


def twins(
    vectors: Float[Tensor, "items dim"], groups: Int[Tensor, " items"] | None = None, *, cosine: float = 1 - 1e-4
) -> list[tuple[int, int]]:
    """Items that coincide with one of another group: ``(the first such item, item)``, by the second.

    Args:
        vectors: Unit vectors.
        groups: As :func:`to_be_told_apart` gives them; None: every item for itself.
        cosine: From where on two items coincide; the default is less than a degree.
    """
    groups = torch.arange(len(vectors)) if groups is None else groups
    found: list[tuple[int, int]] = []
    for rows in _blocks(len(vectors)):
        alike = (vectors[rows] @ vectors.T >= cosine) & (groups[rows][:, None] != groups)
        first = alike.int().argmax(dim=1)
        hit = alike.any(dim=1) & (first < rows)
        found += list(zip(first[hit].tolist(), rows[hit].tolist(), strict=True))
    return found


def _blocks(items: int) -> Iterator[Int[Tensor, " block"]]:
    yield from torch.arange(items).split(_BLOCK)


def _groups(vectors: Tensor, groups: Tensor | None) -> Tensor:
    items = _at_least(vectors, 2)
    groups = torch.arange(items) if groups is None else groups
    if groups.shape != (items,) or not bool((groups != groups[0]).any()):
        raise ValueError(f"a group an item and at least two groups are needed, got {groups.tolist()[:8]} for {items}")
    return groups


def _at_least(vectors: Tensor, needed: int) -> int:
    if vectors.ndim != 2 or len(vectors) < needed:
        raise ValueError(f"a matrix [items, dim] of at least {needed} items is needed, got {tuple(vectors.shape)}")
    return len(vectors)
