"""What frozen vectors know: linear and nearest-neighbour probes, and how few examples are enough.

Everything is cross-validated by groups: tracks of one recording or artist are never on both sides. What a probe may
choose (the strength of its penalty) it chooses inside the training part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn.functional import normalize

from xmodal.embeddings import unit_rows
from xmodal.metrics import pr_auc_per_tag, roc_auc_per_tag
from xmodal.tagging.examples import PRIOR_EXAMPLES, enrol

Matrix = Tensor | np.ndarray
ProbeKind = Literal["linear", "knn", "prototype"]
PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)
NEIGHBOURS = (1, 5, 15)
SHOTS = (1, 2, 5, 10, 20)


@dataclass(frozen=True)
class ProbeResult:
    """A probe's held-out figures.

    Attributes:
        kind: Which probe.
        tracks: How many were judged.
        labels: How many classes.
        folds: Held-out parts.
        values: Mean over folds of "accuracy" and "macro recall" (one label a track), "mAP" and "ROC-AUC" (macro over
            labels).
        spread: Standard deviation over folds, by name.
        chance: Share of the commonest label for "accuracy", 1 / labels for "macro recall", mean share of positives
            for "mAP", 0.5.
    """

    kind: str
    tracks: int
    labels: int
    folds: int
    values: dict[str, float]
    spread: dict[str, float]
    chance: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and numbers, ready for JSON."""
        return asdict(self)

    def table(self) -> list[list[str]]:
        """Rows of text, the header first."""
        rows = [[f"{self.kind} probe", f"mean of {self.folds} folds", "spread", "chance"]]
        rows += [
            [name, f"{value:.4g}", f"{self.spread[name]:.2g}", f"{self.chance[name]:.4g}"]
            for name, value in self.values.items()
        ]
        return rows


def probe(
    vectors: Float[Matrix, "tracks dim"],
    labels: Bool[Matrix, "tracks labels"],
    *,
    kind: ProbeKind = "linear",
    groups: Int[Matrix, " tracks"] | None = None,
    folds: int | Int[Matrix, " tracks"] = 5,
    judged: Sequence[int] | None = None,
    seed: int = 0,
) -> ProbeResult:
    """Learn labels from vectors and judge on tracks that were held out.

    Args:
        vectors: Unit vectors.
        labels: One or more for each track. Labels with fewer than 2 tracks outside a fold are judged as found.
        kind: "linear" is logistic regression on standardised vectors, its penalty chosen inside the training part;
            "knn" is the vote of the nearest by cosine, their number chosen alike; "prototype" the cosine to the mean.
        groups: A number for each track; a group is never on both sides. None: every track by itself.
        folds: How many parts, or the part of each track where a set has official folds.
        judged: Of given parts those to judge by; the others are only learnt from. With one test part and one to
            learn from it is the published split. None: all.
        seed: Of the division.

    Raises:
        ValueError: If shapes do not fit, a track has no label, or there are fewer groups than folds.
    """
    x = unit_rows(vectors, "vectors").astype(np.float64)
    y = np.asarray(labels, dtype=bool)
    if y.ndim != 2 or len(y) != len(x) or y.shape[1] < 2:
        raise ValueError(f"labels must be [{len(x)} tracks, at least 2 labels], got {y.shape}")
    if not y.any(axis=1).all():
        raise ValueError(f"{int((~y.any(axis=1)).sum())} tracks have no label; leave them out")
    if kind not in ("linear", "knn", "prototype"):
        raise ValueError(f"kind must be linear, knn or prototype, got {kind!r}")
    own = np.arange(len(x)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    part = _parts(len(x), own, folds, seed)
    single = bool((y.sum(axis=1) == 1).all())
    held_out = np.unique(part) if judged is None else np.unique(np.asarray(judged))
    if not len(held_out) or not np.isin(held_out, part).all() or (judged is not None and isinstance(folds, int)):
        raise ValueError(f"judged must name some of the given parts {np.unique(part).tolist()}, got {judged}")
    counted = np.isin(part, held_out)
    figures: dict[str, list[float]] = {}
    for fold in held_out:
        learn, test = part != fold, part == fold
        score = _scores(kind, x[learn], y[learn], own[learn], x[test], single, seed)
        for name, value in _figures(score, y[test], single).items():
            figures.setdefault(name, []).append(value)
    chance = {
        "accuracy": float(y[counted].mean(axis=0).max()),
        "macro recall": 1 / y.shape[1],
        "mAP": float(y[counted].mean(axis=0).mean()),
        "ROC-AUC": 0.5,
    }
    return ProbeResult(
        kind=kind,
        tracks=int(counted.sum()),
        labels=y.shape[1],
        folds=len(held_out),
        values={name: float(np.nanmean(values)) for name, values in figures.items()},
        spread={name: float(np.nanstd(values)) for name, values in figures.items()},
        chance={name: chance[name] for name in figures},
    )


@dataclass(frozen=True)
class FewShotCurve:
    """mAP against the number of examples.

    Attributes:
        shots: Numbers of examples a tag.
        mean: For each way to make a tag, the mean mAP over repeats, one value for each of ``shots``.
        spread: Standard deviation over repeats.
        text: mAP of the text alone, which needs no example; None if there are no text vectors.
        tags: How many tags had enough examples.
    """

    shots: tuple[int, ...]
    mean: dict[str, list[float]]
    spread: dict[str, list[float]]
    text: float | None
    tags: int


def few_shot_curve(
    vectors: Float[Matrix, "tracks dim"],
    labels: Bool[Matrix, "tracks tags"],
    *,
    text: Float[Matrix, "tags dim"] | None = None,
    groups: Int[Matrix, " tracks"] | None = None,
    shots: Sequence[int] = SHOTS,
    repeats: int = 10,
    prior: float | None = None,
    seed: int = 0,
) -> FewShotCurve:
    """How well tags are found after so many examples each, by prototype, by prototype and text, and linearly.

    In every repeat half of the groups give the examples and the other half is judged. "linear" is a logistic
    regression on the examples against as many random tracks of the giving half that do not have the tag, at least 20.

    Args:
        vectors: Unit vectors.
        labels: Tags of each track.
        text: Unit vectors of the tags.
        groups: A number for each track; a group is never on both sides.
        shots: Numbers of examples to try.
        repeats: Random halves.
        prior: See :func:`xmodal.tagging.enrol`. None: its default.
        seed: Of the halves and examples.

    Raises:
        ValueError: If no tag has enough examples.
    """
    x = torch.from_numpy(unit_rows(vectors, "vectors"))
    y = torch.as_tensor(labels).bool()
    words = None if text is None else torch.from_numpy(unit_rows(text, "text"))
    own = torch.arange(len(x)) if groups is None else torch.as_tensor(groups).unique(return_inverse=True)[1]
    shots = tuple(sorted(set(shots)))
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, list[list[float]]] = {}
    texts: list[float] = []
    judged: set[int] = set()
    for _ in range(repeats):
        giving = (torch.randperm(int(own.max()) + 1, generator=generator) % 2 == 0)[own]
        rest = ~giving
        able = ((y[giving].sum(0) >= shots[-1]) & y[rest].any(0) & (~y[rest]).any(0)).nonzero().flatten().tolist()
        judged |= set(able)
        precision: dict[str, list[list[float]]] = {}
        for tag in able:
            pool = (giving & y[:, tag]).nonzero().flatten()
            others = (giving & ~y[:, tag]).nonzero().flatten()
            pool = pool[torch.randperm(len(pool), generator=generator)]
            others = others[torch.randperm(len(others), generator=generator)]
            right = y[rest, tag][:, None]
            ways: dict[str, list[float]] = {}
            for count in shots:
                shown = x[pool[:count]]
                made = {"prototype": enrol("tag", shown, reference=x[giving]).weights}
                if words is not None:
                    weight = PRIOR_EXAMPLES if prior is None else prior
                    made["both"] = enrol("tag", shown, words[tag], reference=x[giving], prior=weight).weights
                against = x[others[: max(20, count)]]
                made["linear"] = _logistic_weights(shown, against)
                for way, weights in made.items():
                    ways.setdefault(way, []).append(float(pr_auc_per_tag((x[rest] @ weights)[:, None], right)))
            for way, values in ways.items():
                precision.setdefault(way, []).append(values)
        for way, rows in precision.items():
            found.setdefault(way, []).append(np.nanmean(rows, axis=0).tolist())
        if words is not None and able:
            texts.append(float(pr_auc_per_tag(x[rest] @ words[able].T, y[rest][:, able]).nanmean()))
    if not judged:
        raise ValueError(f"no tag has {shots[-1]} examples in half of the tracks; ask for fewer shots")
    return FewShotCurve(
        shots=shots,
        mean={way: np.mean(rows, axis=0).tolist() for way, rows in found.items()},
        spread={way: np.std(rows, axis=0).tolist() for way, rows in found.items()},
        text=float(np.mean(texts)) if texts else None,
        tags=len(judged),
    )


def _logistic_weights(shown: Tensor, against: Tensor) -> Tensor:
    rows = torch.cat([shown, against]).double().numpy()
    named = np.r_[np.ones(len(shown)), np.zeros(len(against))]
    fitted = LogisticRegression(C=10.0, class_weight="balanced", max_iter=500).fit(rows, named)
    return torch.from_numpy(fitted.coef_[0]).float()


def _parts(tracks: int, groups: np.ndarray, folds: Any, seed: int) -> np.ndarray:
    if not isinstance(folds, int):
        part = np.asarray(folds)
        if part.shape != (tracks,) or len(np.unique(part)) < 2:
            raise ValueError(f"folds must name the part of each of {tracks} tracks, at least 2 parts")
        crossing = [group for group in np.unique(groups) if len(np.unique(part[groups == group])) > 1]
        if crossing:
            raise ValueError(f"{len(crossing)} groups of tracks lie in more than one of the given folds")
        return part
    many = len(np.unique(groups))
    if not 2 <= folds <= many:
        raise ValueError(f"cross-validation needs 2 folds or more, and a group for each; got {folds} and {many}")
    part = np.zeros(tracks, dtype=int)
    split = GroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    for number, (_, test) in enumerate(split.split(np.zeros(tracks), groups=groups)):
        part[test] = number
    return part


def _scores(
    kind: str, x: np.ndarray, y: np.ndarray, groups: np.ndarray, test: np.ndarray, single: bool, seed: int
) -> np.ndarray:
    if kind == "prototype":
        means = [x[column].mean(axis=0) if column.any() else np.zeros(x.shape[1]) for column in y.T]
        return test @ normalize(torch.from_numpy(np.stack(means)), dim=1).numpy().T
    candidates: Sequence[Any] = PENALTIES if kind == "linear" else [n for n in NEIGHBOURS if n < len(x)]
    best = candidates[0]
    if len(candidates) > 1 and len(np.unique(groups)) > 2:
        inner = _parts(len(x), groups, min(3, len(np.unique(groups))), seed)
        learn, held = inner != 0, inner == 0
        judged = [
            _figures(_fitted(kind, value, x[learn], y[learn], single)(x[held]), y[held], single) for value in candidates
        ]
        best = candidates[int(np.argmax([figures["mAP"] for figures in judged]))]
    return _fitted(kind, best, x, y, single)(test)


def _fitted(kind: str, value: Any, x: np.ndarray, y: np.ndarray, single: bool) -> Any:
    def new() -> Any:
        if kind == "linear":
            return make_pipeline(StandardScaler(), LogisticRegression(C=value, max_iter=1000))
        return KNeighborsClassifier(n_neighbors=min(value, len(x)), metric="cosine", weights="distance")

    if single:
        classes = y.argmax(axis=1)
        model = new().fit(x, classes)

        def one_label(rows: np.ndarray) -> np.ndarray:
            score = np.zeros((len(rows), y.shape[1]))
            score[:, model.classes_] = model.predict_proba(rows)
            return score

        return one_label
    models = [new().fit(x, column) if 0 < column.sum() < len(column) else None for column in y.T]

    def many_labels(rows: np.ndarray) -> np.ndarray:
        columns = [np.zeros(len(rows)) if model is None else model.predict_proba(rows)[:, 1] for model in models]
        return np.stack(columns, axis=1)

    return many_labels


def _figures(score: np.ndarray, y: np.ndarray, single: bool) -> dict[str, float]:
    values, right = torch.from_numpy(np.ascontiguousarray(score)), torch.from_numpy(y)
    figures: dict[str, float] = {}
    if single:
        hit = score.argmax(axis=1) == y.argmax(axis=1)
        figures["accuracy"] = float(hit.mean())
        figures["macro recall"] = float(np.mean([hit[column].mean() for column in y.T if column.any()]))
    precision, area = pr_auc_per_tag(values, right), roc_auc_per_tag(values, right)
    # A label that a part does not hold has no figure there.
    return figures | {"mAP": float(precision.nanmean()), "ROC-AUC": float(area.nanmean())}


def label_matrix(
    tags_of_tracks: Sequence[Mapping[str, Sequence[str]]], kind: str
) -> tuple[list[str], Bool[np.ndarray, "tracks labels"]]:
    """The names of one kind of tag and which tracks have them; tracks without any have an empty row."""
    names = sorted({name for tags in tags_of_tracks for name in tags.get(kind, ())})
    if len(names) < 2:
        there = ", ".join(sorted({own for tags in tags_of_tracks for own in tags})) or "none"
        raise ValueError(f"a probe needs at least two labels of kind {kind!r}; the kinds there are: {there}")
    column = {name: place for place, name in enumerate(names)}
    labels = np.zeros((len(tags_of_tracks), len(names)), dtype=bool)
    for row, tags in enumerate(tags_of_tracks):
        labels[row, [column[name] for name in tags.get(kind, ())]] = True
    return names, labels
