"""Retrieval and tagging results, with everything that one needs to judge them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from xmodal.embeddings import unit_rows
from xmodal.metrics import (
    KS,
    Ranking,
    WithoutRight,
    bootstrap_interval,
    pr_auc_chance,
    pr_auc_per_tag,
    rank_vectors,
    roc_auc_per_tag,
    summary,
)

Matrix = Tensor | np.ndarray


@dataclass(frozen=True)
class DirectionResult:
    """Retrieval in one direction.

    Attributes:
        queries: Queries that were judged.
        left_out: Queries without a right answer, which were not.
        candidates: Length of a full result list, the pool.
        right_answers: Mean number of right answers of a judged query.
        values: Metrics by name, see :func:`xmodal.metrics.retrieval_metrics`.
        intervals: Lower and upper end by name; empty if there are fewer than two queries (or groups of them).
        chance: What a random order would score, by name.
    """

    queries: int
    left_out: int
    candidates: int
    right_answers: float
    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    chance: dict[str, float]


@dataclass(frozen=True)
class RetrievalResult:
    """Retrieval in both directions over the same pairs."""

    text_to_audio: DirectionResult
    audio_to_text: DirectionResult
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and numbers, ready for JSON."""
        return asdict(self)

    def table(self) -> list[list[str]]:
        """Rows of text, the header first: direction, metric, value, interval, chance."""
        rows = [["direction", "metric", "value", f"{self.confidence:.0%} interval", "chance"]]
        for name in ("text_to_audio", "audio_to_text"):
            result: DirectionResult = getattr(self, name)
            direction = name.replace("_", " ")
            pool = {"queries": result.queries, "left out": result.left_out, "candidates": result.candidates}
            rows += [[direction, key, str(count), "", ""] for key, count in pool.items()]
            for metric, value in result.values.items():
                interval = interval_text(result.intervals.get(metric))
                rows.append([direction, metric, _figure(value), interval, _figure(result.chance[metric])])
        return rows


@dataclass(frozen=True)
class TagResult:
    """Zero-shot tagging over a vocabulary.

    Attributes:
        tracks: Tracks in the evaluation.
        values: Macro "ROC-AUC" and "PR-AUC" over the tags of ``per_tag``.
        intervals: Lower and upper end by name, over the choice of tags; empty if there are fewer than two.
        chance: What random scores would give: 0.5, and the mean expected average precision.
        per_tag: For each judged tag "ROC-AUC", "PR-AUC", "PR-AUC chance", "positives" and "negatives".
        left_out: Tags without a judged positive or without a judged negative.
        confidence: Of the intervals.
    """

    tracks: int
    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    chance: dict[str, float]
    per_tag: dict[str, dict[str, float]]
    left_out: list[str]
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and numbers, ready for JSON."""
        return asdict(self)

    def table(self) -> list[list[str]]:
        """Rows of text, the header first: the macro means, then the tags from the best ROC-AUC down."""
        rows = [["tag", "positives", "negatives", "ROC-AUC", "PR-AUC", "PR-AUC chance"]]
        macro = [_figure(number) for number in (*self.values.values(), self.chance["PR-AUC"])]
        rows.append([f"all {len(self.per_tag)} tags", "", "", *macro])
        if self.intervals:
            intervals = [interval_text(self.intervals[name]) for name in self.values]
            rows.append([f"{self.confidence:.0%} interval", "", "", *intervals, ""])
        for tag, result in sorted(self.per_tag.items(), key=lambda item: -item[1]["ROC-AUC"]):
            counts = [str(result["positives"]), str(result["negatives"])]
            rows.append([tag, *counts, *(_figure(result[name]) for name in rows[0][3:])])
        return rows


def evaluate_retrieval(
    audio: Float[Matrix, "tracks dim"],
    text: Float[Matrix, "texts dim"],
    relevance: Bool[Matrix, "tracks texts"],
    *,
    ks: Sequence[int] = KS,
    without_right: WithoutRight = "refuse",
    audio_groups: Int[Tensor, " tracks"] | None = None,
    text_groups: Int[Tensor, " texts"] | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> RetrievalResult:
    """Retrieval metrics in both directions, with pool sizes, chance and bootstrap intervals.

    Args:
        audio: Unit vectors of the tracks.
        text: Unit vectors of the texts, of the same space.
        relevance: Text j is right for track i.
        ks: Lengths of the result list. A direction leaves out those that are longer than its pool.
        without_right: What to do with a query that has no right answer.
        audio_groups: A number for each track, equal for tracks that are not independent (one recording session).
        text_groups: The same for texts (captions of one track). Groups only widen the intervals.
        confidence: Probability mass inside the intervals.
        resamples: Bootstrap rounds.
        seed: Of the bootstrap.

    Raises:
        ValueError: If vectors are not of length 1, shapes do not fit, or a query has no right answer.
    """
    tracks, texts = (torch.from_numpy(unit_rows(rows, name)) for rows, name in ((audio, "audio"), (text, "text")))
    right = torch.as_tensor(relevance)
    bootstrap: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed}
    return RetrievalResult(
        text_to_audio=_direction(texts, tracks, right.T, ks, without_right, text_groups, bootstrap),
        audio_to_text=_direction(tracks, texts, right, ks, without_right, audio_groups, bootstrap),
        confidence=confidence,
    )


def evaluate_tags(
    audio: Float[Matrix, "tracks dim"],
    tag_vectors: Float[Matrix, "tags dim"],
    labels: Bool[Matrix, "tracks tags"],
    tags: Sequence[str],
    *,
    valid: Bool[Matrix, "tracks tags"] | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> TagResult:
    """Areas under the curves of every tag, from the cosines of tracks and tags.

    Args:
        audio: Unit vectors of the tracks.
        tag_vectors: Unit vectors of the tags, for instance ``TagScorer.vectors``.
        labels: The tag belongs to the track.
        tags: Names of the tags, each once.
        valid: Pairs that may be judged; an unknown tag is not a negative. None: all.
        confidence: Probability mass inside the intervals.
        resamples: Bootstrap rounds.
        seed: Of the bootstrap.

    Raises:
        ValueError: If vectors are not of length 1, shapes or names do not fit, or no tag can be judged.
    """
    tracks = torch.from_numpy(unit_rows(audio, "audio"))
    words = torch.from_numpy(unit_rows(tag_vectors, "tag_vectors"))
    names = list(tags)
    if len(set(names)) != len(names) or len(names) != len(words):
        raise ValueError(f"each of the {len(words)} tag vectors needs a name of its own, got {len(set(names))} names")
    if tracks.shape[1] != words.shape[1]:
        raise ValueError(f"audio and tag_vectors must have one dimension, got {tracks.shape[1]} and {words.shape[1]}")
    score, right = tracks @ words.T, torch.as_tensor(labels)
    known = None if valid is None else torch.as_tensor(valid)
    areas = {"ROC-AUC": roc_auc_per_tag(score, right, known), "PR-AUC": pr_auc_per_tag(score, right, known)}
    chance = pr_auc_chance(right, known)
    judged = (~chance.isnan()).nonzero().flatten()
    if not len(judged):
        raise ValueError(f"none of the {len(names)} tags has both a positive and a negative, so none can be judged")
    positives = ((right > 0) if known is None else (right > 0) & known).sum(0)
    total = torch.full_like(positives, len(tracks)) if known is None else known.sum(0)
    return TagResult(
        tracks=len(tracks),
        values={name: float(area[judged].mean()) for name, area in areas.items()},
        intervals={
            name: bootstrap_interval(area[judged], confidence=confidence, resamples=resamples, seed=seed)
            for name, area in areas.items()
            if len(judged) > 1
        },
        chance={"ROC-AUC": 0.5, "PR-AUC": float(chance[judged].mean())},
        per_tag={
            names[tag]: {
                **{name: float(area[tag]) for name, area in areas.items()},
                "PR-AUC chance": float(chance[tag]),
                "positives": int(positives[tag]),
                "negatives": int(total[tag] - positives[tag]),
            }
            for tag in judged.tolist()
        },
        left_out=[name for tag, name in enumerate(names) if chance[tag].isnan()],
        confidence=confidence,
    )


def _direction(
    queries: Float[Tensor, "queries dim"],
    candidates: Float[Tensor, "candidates dim"],
    relevance: Bool[Tensor, "queries candidates"],
    ks: Sequence[int],
    without_right: WithoutRight,
    groups: Int[Tensor, " queries"] | None,
    bootstrap: Mapping[str, Any],
) -> DirectionResult:
    ranking = rank_vectors(queries, candidates, relevance, without_right=without_right)
    return direction_result(ranking, len(queries), ks, groups, bootstrap)


def direction_result(
    ranking: Ranking,
    queries: int,
    ks: Sequence[int],
    groups: Int[Tensor, " queries"] | None,
    bootstrap: Mapping[str, Any],
) -> DirectionResult:
    """The figures of a ranking of ``queries`` queries; ``bootstrap`` holds confidence, resamples and seed."""
    fitting = tuple(k for k in ks if k <= ranking.candidates) or tuple(ks)  # if none fits, the metrics say so
    values = ranking.values(fitting)
    group = ranking.rows if groups is None else torch.as_tensor(groups)[ranking.rows]
    intervals = {}
    if len(group.unique()) > 1:
        for name, value in values.items():
            statistic: Literal["mean", "median"] = "median" if name == "MedR" else "mean"
            intervals[name] = bootstrap_interval(value, statistic=statistic, groups=group, **bootstrap)
    return DirectionResult(
        queries=len(ranking.rows),
        left_out=queries - len(ranking.rows),
        candidates=ranking.candidates,
        right_answers=float(ranking.count.double().mean()),
        values=summary(values),
        intervals=intervals,
        chance=ranking.chance(fitting),
    )


def _figure(value: float) -> str:
    return f"{value:.4g}"


def interval_text(interval: tuple[float, float] | None) -> str:
    """For a table: "low to high", or nothing."""
    return "" if interval is None else f"{_figure(interval[0])} to {_figure(interval[1])}"
