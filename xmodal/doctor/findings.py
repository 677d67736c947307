"""What the doctor says: a check with its figure, a verdict by a limit that has a reason, and a sentence of advice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["healthy", "warning", "ill", "not judged"]


@dataclass(frozen=True)
class Limit:
    """Where a figure becomes a warning and where an illness.

    Attributes:
        warning: From here on it is a warning; None: there is no warning.
        ill: From here on it is an illness; None: this figure alone is never one.
        worse: The direction in which the figure is worse.
        reason: Why the limits are where they are, with the source where there is one.
        advice: What to do about it, one sentence.
    """

    warning: float | None
    ill: float | None
    worse: Literal["higher", "lower"]
    reason: str
    advice: str

    def verdict(self, figure: float) -> Verdict:
        """The verdict on a figure; what is not a number is ill."""
        if math.isnan(figure):
            return "ill"
        sign = 1.0 if self.worse == "higher" else -1.0
        if self.ill is not None and sign * figure >= sign * self.ill:
            return "ill"
        if self.warning is not None and sign * figure >= sign * self.warning:
            return "warning"
        return "healthy"


LIMITS: Mapping[str, Limit] = {
    "finite": Limit(
        None, 1, "higher", "one vector that is not a number spoils every mean and every list it is in",
        "Train again from a checkpoint before the first NaN, with a lower learning rate or gradient clipping; "
        "the callback xmodal.training.StopOnNonFinite names the batch.",
    ),
    "collapse": Limit(
        0.8, 0.95, "higher",
        "at a mean cosine of 0.95 two items are 18 degrees apart on average, at 0.8 they are 37: little is left of a "
        "vector to tell them apart by",
        "Lower the learning rate, look whether the loss has negatives at all (batch size, valid pairs), and for "
        "regression-like losses add SpreadOutRegularizer or VarianceCovarianceRegularizer.",
    ),
    "anisotropy": Limit(
        0.5, None, "higher",
        "the share of one direction is about the mean cosine of all items; a network at its random start already puts "
        "them into a cone of 0.5 and more (Liang et al. 2022, section 3): a space that is no wider has not opened it",
        "Train longer or with a lower temperature; ZeroMeanRegularizer or the uniformity term of "
        "AlignmentUniformityLoss spread the items.",
    ),
    "effective rank": Limit(
        0.10, 0.03, "lower",
        "a tenth of the directions that the items need is where retrieval suffers in practice; below 3 % a few "
        "directions carry everything (dimensional collapse, Jing et al. 2022, arXiv:2110.09348)",
        "Use a smaller dim, more varied captions, or VarianceCovarianceRegularizer / DecorrelationRegularizer.",
    ),
    "dead dimensions": Limit(
        0.01, 0.5, "higher",
        "a dimension that moves less than 1 % of an even spread says nothing; one in a hundred may be chance, half "
        "of them is a network that has died",
        "Look for dead units in the projection (a lower learning rate, another activation) or use a smaller dim.",
    ),
    "modality gap": Limit(
        0.5, 1.0, "higher",
        "CLIP has 0.82 and works (Liang et al. 2022), so a gap is no illness by itself; from 1.0 on the two sides are "
        "further apart than the items within one side",
        "Compare audio with audio and text with text only, never in one list, or raise the start of the temperature "
        "and train with both directions; a gap also stays when the temperature fell to its clamp early.",
    ),
    "hubness": Limit(
        1.4, 3.0, "higher",
        "a k-occurrence skewness above 1.4 counts as high hubness (Feldbauer and Flexer 2019); what a draw without "
        "aim would show is subtracted",
        "Correct the scores (xmodal.metrics: CSLS, inverted softmax), look at the named hubs' texts or files, and "
        "remove duplicates from the catalogue.",
    ),
    "alignment": Limit(
        1.0, 0.3, "lower",
        "d' is the distance of right from wrong pairs' cosines in standard deviations; 1 is an area under the ROC "
        "curve of 0.76, 0.3 one of 0.58, next to a coin",
        "Check that captions and files belong together (a shifted manifest looks like this), then train longer.",
    ),
    "uniformity": Limit(
        -2.0, -0.8, "higher",
        "a mean cosine of 0.5 gives at best -2 and one of 0.8 at best -0.8: the same limits as anisotropy and "
        "collapse, seen by pairs and not by the mean",
        "More negatives a batch, a lower temperature, or the uniformity term of AlignmentUniformityLoss.",
    ),
    "duplicates": Limit(
        0.01, 0.10, "higher",
        "a cosine above 0.9999 is less than a degree; a corpus of any size has a few true doubles, one in ten items is "
        "a pattern",
        "Run xmodal data check for files that are there twice; texts that coincide have words that the text tower "
        "does not know.",
    ),
    "retrieval at chance": Limit(
        3.0, 2.0, "lower",
        "the mean reciprocal rank is this many standard errors above a random order; below 2 it cannot be told from "
        "chance, below 3 one would not bet on it",
        "Run train overfit first: if one batch can be learned, the data are too few or do not belong together; if "
        "not, the learning rate or the loss is wrong (train lr-find).",
    ),
    "loss at chance": Limit(
        3.0, 2.0, "lower",
        "the loss is this many standard deviations below its value with the texts dealt out at random; below 2 knowing "
        "the right pairs cannot be seen to help",
        "Run train overfit; look at the learning rate (train lr-find) and at whether captions are in the right rows.",
    ),
    "untrained weights": Limit(
        None, 1, "higher",
        "a parameter that is exactly as its constructor makes it, or a tower whose values have the distribution of a "
        "fresh one, was never updated",
        "Look whether the optimiser was given it (requires_grad, frozen towers), or whether the folder was saved "
        "before training.",
    ),
    "weights file": Limit(
        None, 1, "higher", "a weight that the model does not have, or lacks, means that another model is described",
        "Copy or export the model again; the config and the weights are not of one model.",
    ),
    "temperature": Limit(
        0.999, None, "higher",
        "the share of the largest allowed logit scale (100); a learned temperature that stands at its clamp cannot "
        "follow its gradient any more (Radford et al. 2021 clip there)",
        "Usual late in training; if it came early, the learning rate is too high or positives are not among the "
        "valid pairs; lower the rate or fix the temperature.",
    ),
}  # fmt: skip
"""The limits by check. docs/howto-doctor.md shows them."""


@dataclass(frozen=True)
class Finding:
    """One check.

    Attributes:
        check: Its name, a key of :data:`LIMITS`.
        about: What it was looked for in: "audio", "text", "text to audio" ...
        figure: What was measured; None where it could not be judged.
        detail: The figure in words, with what it is compared to.
        verdict: By the limit.
        examples: Ids or names that show it, the worst first.
    """

    check: str
    about: str
    figure: float | None
    detail: str
    verdict: Verdict
    examples: tuple[str, ...] = ()

    @property
    def advice(self) -> str:
        """What to do; empty where all is well."""
        return LIMITS[self.check].advice if self.verdict in ("warning", "ill") else ""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "check": self.check,
            "about": self.about,
            "figure": None if self.figure is None or not math.isfinite(self.figure) else self.figure,
            "verdict": self.verdict,
            "detail": self.detail,
            "advice": self.advice,
            "examples": list(self.examples),
        }


def judge(check: str, about: str, figure: float, detail: str, examples: Sequence[str] = ()) -> Finding:
    """The finding of a figure, by the limit of its check."""
    return Finding(check, about, figure, detail, LIMITS[check].verdict(figure), tuple(examples))


def not_judged(check: str, about: str, why: str) -> Finding:
    """A check that could not be made."""
    return Finding(check, about, None, why, "not judged")


@dataclass(frozen=True)
class Report:
    """All findings of one examination, in the order of the checks.

    Attributes:
        findings: One a check and side.
        facts: What was examined: counts, ids; JSON-able.
    """

    findings: list[Finding]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all."""
        found = {finding.verdict for finding in self.findings}
        return next((verdict for verdict in _FROM_WORST if verdict in found), "healthy")

    def of(self, verdict: str) -> list[Finding]:
        """The findings of one verdict."""
        return [finding for finding in self.findings if finding.verdict == verdict]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**self.facts, "verdict": self.verdict, "findings": [finding.as_json() for finding in self.findings]}

    def figures(self) -> dict[str, float]:
        """Finite figures by ``check/about``, for a logger; spaces are underscores."""
        return {
            f"{finding.check}/{finding.about}".replace(" ", "_"): finding.figure
            for finding in self.findings
            if finding.figure is not None and math.isfinite(finding.figure)
        }


_FROM_WORST: tuple[Verdict, ...] = ("ill", "warning")
