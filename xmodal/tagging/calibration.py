"""Scores become probabilities: fitted on labelled tracks, or, without labels, to a stated prior.

A probability is ``sigmoid(slope * score + intercept)`` with a slope and an intercept of each tag, or a rising step
function (isotonic regression). Three ways to the two numbers, all maximum-a-posteriori logistic regression on the
tag's score, standardised by its mean and deviation over the fitted tracks:

* ``temperature``: one slope for all tags and an intercept for each (Guo et al., ICML 2017, with a bias).
* ``platt``: a slope for each tag too (Platt 1999), under a normal prior around the temperature fit, so that a tag
  with three examples stays near the others and one with a thousand goes its own way.
* ``isotonic`` (Zadrozny and Elkan, KDD 2002): for tags with at least 50 examples and as many counter-examples; the
  others stay with ``platt``.

Slopes never fall below 0: calibration does not turn an order round. What is reported of a fit (log loss, Brier score,
calibration error, F1), the choice between the three, and the thresholds all come from cross-validation, each track
judged by a fit that has not seen its group.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int8
from torch import Tensor

from xmodal.atomic import written_aside
from xmodal.errors import ModelError, SpaceMismatchError
from xmodal.metrics import brier_score, log_loss, reliability
from xmodal.tagging.fits import METHODS, Method, fit_method, in_scores, standardised

FORMAT_VERSION = 1
FEW_EXAMPLES = 5


@dataclass(frozen=True)
class Calibration:
    """Scores of a vocabulary to probabilities and decisions.

    Attributes:
        tags: Names, in the order of the scorer's columns.
        space_id: The space of the vectors that it was fitted on.
        slope: Of each tag, at least 0.
        intercept: Of each tag.
        threshold: Probability from which a tag is given.
        unsure: Half-width of the band around the threshold in which no decision is taken; 0: none.
        steps: For tags with isotonic regression the scores and probabilities of its steps.
        method: How it was made.
        report: Figures of the fit, ready for JSON.
    """

    tags: tuple[str, ...]
    space_id: str
    slope: Float[Tensor, " tags"]
    intercept: Float[Tensor, " tags"]
    threshold: Float[Tensor, " tags"]
    unsure: float = 0.0
    steps: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    method: str = "platt"
    report: dict[str, Any] = field(default_factory=dict)

    def probabilities(self, score: Float[Tensor, "tracks tags"]) -> Float[Tensor, "tracks tags"]:
        """Probability that each tag belongs to each track, given its score. Rising in the score.

        Raises:
            ValueError: If the number of tags differs.
        """
        if score.ndim != 2 or score.shape[1] != len(self.tags):
            raise ValueError(f"scores must be [tracks, {len(self.tags)} tags], got {tuple(score.shape)}")
        probability = torch.addcmul(self.intercept, score, self.slope).sigmoid_()
        for column, (at, height) in self.steps.items():
            probability[:, column] = torch.from_numpy(np.interp(score[:, column].double().numpy(), at, height))
        return probability

    def decide(self, probability: Float[Tensor, "tracks tags"]) -> Int8[Tensor, "tracks tags"]:
        """1 for tags that are given, 0 for tags that are not, -1 where the probability is too near to the threshold."""
        given = (probability >= self.threshold).to(torch.int8)
        if self.unsure > 0:
            given.masked_fill_((probability - self.threshold).abs() < self.unsure, -1)
        return given

    def for_tags(self, tags: Sequence[str], space_id: str) -> Calibration:
        """The same for some of its tags, in another order.

        Raises:
            SpaceMismatchError: If it was fitted in another space.
            ValueError: If it does not know one of the tags.
        """
        if space_id != self.space_id:
            raise SpaceMismatchError(
                f"the calibration was fitted in space {self.space_id} but the model makes vectors of space {space_id}; "
                "fit it again with: xmodal tag fit MANIFEST --model MODEL"
            )
        place = {tag: column for column, tag in enumerate(self.tags)}
        unknown = [tag for tag in tags if tag not in place]
        if unknown:
            raise ValueError(
                f"the calibration was not fitted for the tag {unknown[0]!r}; leave it out, or fit again with: "
                "xmodal tag fit MANIFEST --model MODEL --tags TAGS"
            )
        columns = [place[tag] for tag in tags]
        return replace(
            self,
            tags=tuple(tags),
            slope=self.slope[columns],
            intercept=self.intercept[columns],
            threshold=self.threshold[columns],
            steps={new: self.steps[old] for new, old in enumerate(columns) if old in self.steps},
        )

    def save(self, path: str | Path) -> None:
        """Write one JSON file; a kill at any moment leaves the old file or the new one."""
        written = {
            "format_version": FORMAT_VERSION,
            "space_id": self.space_id,
            "method": self.method,
            "unsure": self.unsure,
            "tags": [
                {
                    "tag": tag,
                    "slope": float(self.slope[column]),
                    "intercept": float(self.intercept[column]),
                    "threshold": float(self.threshold[column]),
                    **({"steps": [values.tolist() for values in self.steps[column]]} if column in self.steps else {}),
                }
                for column, tag in enumerate(self.tags)
            ],
            "report": self.report,
        }
        with written_aside(path) as aside:
            aside.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", "utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read what :meth:`save` wrote.

        Raises:
            ModelError: If the file is missing, damaged or of a newer format.
        """
        try:
            read = json.loads(Path(path).read_text("utf-8"))
            if read["format_version"] != FORMAT_VERSION:
                raise ModelError(
                    f"{path} has format version {read['format_version']} but this xmodal reads {FORMAT_VERSION}; "
                    "update xmodal or fit it again with: xmodal tag fit MANIFEST --model MODEL"
                )
            rows = read["tags"]
            return cls(
                tags=tuple(row["tag"] for row in rows),
                space_id=read["space_id"],
                slope=torch.tensor([row["slope"] for row in rows]),
                intercept=torch.tensor([row["intercept"] for row in rows]),
                threshold=torch.tensor([row["threshold"] for row in rows]),
                unsure=read["unsure"],
                steps={
                    column: (np.array(row["steps"][0]), np.array(row["steps"][1]))
                    for column, row in enumerate(rows)
                    if "steps" in row
                },
                method=read["method"],
                report=read["report"],
            )
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise ModelError(
                f"{path} is no calibration that can be read ({error}); "
                "make one with: xmodal tag fit MANIFEST --model MODEL"
            ) from error


def calibrate_to_prior(
    reference_score: Float[Tensor, "tracks tags"],
    prior: float | Float[Tensor, " tags"],
    tags: Sequence[str],
    space_id: str,
    *,
    slope: float = 2.0,
) -> Calibration:
    """Probabilities without labels: each tag is given to the share of a reference catalogue that its prior says.

    The threshold of a tag is where the catalogue's highest ``prior`` share of scores begins. The slope, per standard
    deviation of the score, is an assumption and not a measurement: 2 says that a track with the tag scores about two
    deviations above one without. Only the mean probability over the catalogue (the prior) is certain.

    Args:
        reference_score: Scores of a catalogue like the one to be tagged; at least 2 tracks.
        prior: Share of tracks that have the tag, between 0 and 1; one for all or one each.
        tags: Names of the columns.
        space_id: The space of the catalogue's vectors.
        slope: Log-odds per standard deviation of a tag's score.

    Raises:
        ValueError: If a prior or the slope is out of range or there are fewer than 2 tracks.
    """
    share = torch.as_tensor(prior, dtype=torch.float64).expand(len(tags))
    if not bool(((share > 0) & (share < 1)).all()) or not slope > 0:
        raise ValueError(f"prior must be between 0 and 1 and slope above 0, got {prior} and {slope}")
    if reference_score.ndim != 2 or reference_score.shape[1] != len(tags) or len(reference_score) < 2:
        raise ValueError(f"reference scores must be [at least 2, {len(tags)} tags], got {tuple(reference_score.shape)}")
    standard, mean, deviation = standardised(reference_score, torch.ones_like(reference_score, dtype=torch.bool))
    low, high = torch.full_like(share, -60.0), torch.full_like(share, 60.0)
    for _ in range(80):  # bisection: the mean probability rises with the intercept
        middle = (low + high) / 2
        too_many = torch.sigmoid(slope * standard + middle).mean(0) > share
        low, high = torch.where(too_many, low, middle), torch.where(too_many, middle, high)
    cut = torch.stack([torch.quantile(standard[:, c], 1 - share[c]) for c in range(len(tags))])
    per_score, intercept = in_scores(torch.full_like(share, slope), middle, mean, deviation)
    return Calibration(
        tags=tuple(tags),
        space_id=space_id,
        slope=per_score.float(),
        intercept=intercept.float(),
        threshold=torch.sigmoid(slope * cut + middle).float(),
        method="prior",
        report={"tracks": len(reference_score), "prior": share.tolist(), "slope": slope},
    )


def fit_calibration(
    score: Float[Tensor, "tracks tags"],
    relevance: Bool[Tensor, "tracks tags"],
    tags: Sequence[str],
    space_id: str,
    *,
    valid: Bool[Tensor, "tracks tags"] | None = None,
    groups: Int[Tensor, " tracks"] | None = None,
    method: Method | Literal["auto"] = "auto",
    folds: int = 5,
    max_error: float | None = None,
    seed: int = 0,
) -> Calibration:
    """Fit probabilities and thresholds on labelled tracks.

    Args:
        score: Scores of tracks that the model was not trained on.
        relevance: The tag belongs to the track.
        tags: Names of the columns.
        space_id: The space of the vectors.
        valid: Pairs that may be judged; an unknown tag is not a negative. None: all.
        groups: A number for each track; tracks of one group (an artist, a recording) are never on both sides of a
            fold. None: every track by itself.
        method: One of the module's three, or "auto" for the one of the lowest cross-validated log loss.
        folds: Parts of the cross-validation, at least 2.
        max_error: Leave undecided the pairs nearest to their thresholds until at most this share of the decided ones
            is wrong, as cross-validation measures it. None: decide all.
        seed: Of the division into folds.

    Raises:
        ValueError: If shapes do not fit, there are fewer groups than folds, or no pair is judged right and none wrong.
    """
    judged = torch.ones_like(relevance, dtype=torch.bool) if valid is None else valid
    if score.ndim != 2 or not score.shape == relevance.shape == judged.shape or score.shape[1] != len(tags):
        raise ValueError(
            f"score, relevance and valid must be [tracks, {len(tags)} tags], got {tuple(score.shape)}, "
            f"{tuple(relevance.shape)} and {tuple(judged.shape)}"
        )
    right = relevance & judged
    if not bool(right.any()) or not bool((judged & ~right).any()):
        raise ValueError("a calibration needs tracks with a tag and tracks without, got only one of the two")
    if method != "auto" and method not in METHODS:
        raise ValueError(f"method must be auto or one of {', '.join(METHODS)}, got {method!r}")
    if max_error is not None and not 0 < max_error < 1:
        raise ValueError(f"max_error must be a share between 0 and 1, got {max_error}")
    fold = _folds(len(score), groups, folds, seed)
    tried = METHODS if method == "auto" else (method,)
    held_out = {name: torch.zeros(score.shape, dtype=torch.float64) for name in tried}
    for part in range(folds):
        learn, test = fold != part, fold == part
        for name in tried:
            fitted = fit_method(score[learn], right[learn], judged[learn], name)
            held_out[name][test] = _probabilities(score[test], *fitted)
    losses = {name: log_loss(probability, right, judged) for name, probability in held_out.items()}
    best = min(losses, key=lambda name: losses[name])
    probability = held_out[best]
    slope, intercept, steps = fit_method(score, right, judged, best)
    threshold = best_thresholds(probability, right, judged)
    unsure = 0.0 if max_error is None else _band(probability, right, judged, threshold, max_error)
    decided = judged & ((probability - threshold).abs() >= unsure) if unsure > 0 else judged
    base = (right.double().sum(0) + 0.5) / (judged.double().sum(0) + 1)
    curve = reliability(probability, right, judged)
    report = {
        "tracks": len(score),
        "folds": folds,
        "held-out log loss": losses,
        "held-out log loss of base rates": log_loss(base.expand(score.shape), right, judged),
        "held-out Brier score": brier_score(probability, right, judged),
        "held-out calibration error": curve.error(),
        "held-out reliability": {name: getattr(curve, name).tolist() for name in ("predicted", "observed", "count")},
        "held-out macro F1": float(_f1(probability >= threshold, right, judged)[right.any(0)].mean()),
        "decided": float(decided.sum() / judged.sum()),
        "wrong among decided": float(((probability >= threshold) != right)[decided].double().mean()),
        "examples": {tag: int(count) for tag, count in zip(tags, right.sum(0), strict=True)},
    }
    return Calibration(
        tags=tuple(tags),
        space_id=space_id,
        slope=slope.float(),
        intercept=intercept.float(),
        threshold=threshold.float(),
        unsure=unsure,
        steps=steps,
        method=best,
        report=report,
    )


def best_thresholds(
    probability: Float[Tensor, "tracks tags"], right: Bool[Tensor, "tracks tags"], judged: Bool[Tensor, "tracks tags"]
) -> Float[Tensor, " tags"]:
    """The probability from which giving a tag makes the highest F1, for each tag; in the middle between two tracks.

    A tag with fewer than 5 examples gets the threshold that is best over all pairs: its own would be an accident.
    """
    pooled = _best_threshold(probability[judged], right[judged])
    own = [
        _best_threshold(probability[judged[:, column], column], right[judged[:, column], column])
        if int(right[:, column].sum()) >= FEW_EXAMPLES
        else pooled
        for column in range(probability.shape[1])
    ]
    return torch.tensor(own, dtype=torch.float64)


def _best_threshold(probability: Float[Tensor, " pairs"], right: Bool[Tensor, " pairs"]) -> float:
    value, order = probability.double().sort(descending=True)
    found = right[order].double().cumsum(0)
    f1 = 2 * found / (torch.arange(1, len(value) + 1) + found[-1])
    last_of_tie = torch.cat([value[:-1] > value[1:], torch.tensor([True])])
    at = int(f1.masked_fill(~last_of_tie, -1).argmax())
    below = float(value[at + 1]) if at + 1 < len(value) else 0.0
    return (float(value[at]) + below) / 2


def _f1(
    given: Bool[Tensor, "tracks tags"], right: Bool[Tensor, "tracks tags"], judged: Bool[Tensor, "tracks tags"]
) -> Float[Tensor, " tags"]:
    given = given & judged
    return 2 * (given & right).sum(0).double() / (given.sum(0) + right.sum(0)).clamp(min=1)


def _band(probability: Tensor, right: Tensor, judged: Tensor, threshold: Tensor, max_error: float) -> float:
    """The smallest half-width that leaves at most ``max_error`` wrong among the decided pairs."""
    distance = (probability - threshold).abs()[judged]
    wrong = ((probability >= threshold) != right)[judged]
    farthest, order = distance.sort(descending=True)
    errors = wrong[order].double().cumsum(0) / torch.arange(1, len(order) + 1)
    last_of_tie = torch.cat([farthest[:-1] > farthest[1:], torch.tensor([True])])
    fine = ((errors <= max_error) & last_of_tie).nonzero().flatten()
    if not len(fine):
        return 1.0  # no pair can be decided so surely
    at = int(fine[-1])
    return 0.0 if at == len(order) - 1 else float(farthest[at])


def _folds(tracks: int, groups: Tensor | None, folds: int, seed: int) -> Int[Tensor, " tracks"]:
    own = torch.arange(tracks) if groups is None else groups.unique(return_inverse=True)[1]
    many = int(own.max()) + 1
    if not 2 <= folds <= many:
        raise ValueError(
            f"cross-validation needs 2 folds or more, and a track or group for each; got {folds} and {many}"
        )
    return (torch.randperm(many, generator=torch.Generator().manual_seed(seed)) % folds)[own]


def _probabilities(
    score: Tensor, slope: Tensor, intercept: Tensor, steps: dict[int, tuple[np.ndarray, np.ndarray]]
) -> Tensor:
    made = Calibration(tuple(map(str, range(len(slope)))), "", slope, intercept, torch.zeros(len(slope)), steps=steps)
    return made.probabilities(score.double())
