"""How the numbers of a calibration are found: penalised logistic regression by Newton's method, and rising steps.

:mod:`xmodal.tagging.calibration` says what the three methods are and which sources they have.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from sklearn.isotonic import IsotonicRegression
from torch import Tensor

Method = Literal["temperature", "platt", "isotonic"]
METHODS: tuple[Method, ...] = ("temperature", "platt", "isotonic")
ISOTONIC_EXAMPLES = 50
Steps = dict[int, tuple[np.ndarray, np.ndarray]]


def fit_method(score: Tensor, right: Tensor, judged: Tensor, method: Method) -> tuple[Tensor, Tensor, Steps]:
    """Slope and intercept of each tag in units of the score, and the rising steps of tags that have enough examples.

    Args:
        score: Scores [tracks, tags].
        right: The tag belongs to the track, and that is judged.
        judged: Pairs that may be judged.
        method: One of :data:`METHODS`.
    """
    standard, mean, deviation = standardised(score, judged)
    target, weight = right.double(), judged.double()
    slope, intercept = fit_temperature(standard, target, weight)
    if method != "temperature":
        slope, intercept = fit_platt(standard, target, weight, slope, intercept)
    slope, intercept = in_scores(slope, intercept, mean, deviation)
    steps = {}
    if method == "isotonic":
        wrong = judged & ~right
        enough = (right.sum(0) >= ISOTONIC_EXAMPLES) & (wrong.sum(0) >= ISOTONIC_EXAMPLES)
        for column in enough.nonzero().flatten().tolist():
            keep = judged[:, column]
            # Never quite 0 or 1: a step that saw no counter-example is no certainty.
            low, high = 1 / (int(keep.sum()) + 2), 1 - 1 / (int(keep.sum()) + 2)
            rising = IsotonicRegression(y_min=low, y_max=high).fit(
                score[keep, column].double().numpy(), target[keep, column].numpy()
            )
            steps[column] = (rising.X_thresholds_, rising.y_thresholds_)
    return slope, intercept, steps


def standardised(score: Tensor, judged: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores by their tag's mean and deviation over judged tracks; a tag whose scores are all equal keeps them."""
    values, weight = score.double(), judged.double()
    count = weight.sum(0).clamp(min=1)
    mean = (values * weight).sum(0) / count
    deviation = (((values - mean).square() * weight).sum(0) / count).sqrt()
    deviation = torch.where(deviation > 1e-9, deviation, torch.ones_like(deviation))
    return (values - mean) / deviation, mean, deviation


def in_scores(slope: Tensor, intercept: Tensor, mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and intercept of a standardised score as those of the score itself."""
    per_score = slope / deviation
    return per_score, intercept - per_score * mean


def fit_temperature(x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """One slope and an intercept for each tag, by Newton's method; the intercepts eliminated from each step.

    Half an example and half a counter-example at the mean score (Jeffreys' prior for a share) keep the intercepts of
    tags without examples finite, and a weak pull towards 0 the slope of labels that scores part perfectly.
    """
    tags = x.shape[1]
    share = ((y * weight).sum(0) + 0.5) / (weight.sum(0) + 1)
    slope, intercept = x.new_zeros(()), torch.logit(share)
    for _ in range(100):
        p = torch.sigmoid(slope * x + intercept)
        q = torch.sigmoid(intercept)
        curve, residual = weight * p * (1 - p), weight * (p - y)
        gradient_slope = (residual * x).sum() + 0.01 * tags * slope
        gradient = residual.sum(0) + (q - 0.5)
        diagonal = curve.sum(0) + q * (1 - q)
        cross = (curve * x).sum(0)
        rest = (curve * x * x).sum() + 0.01 * tags - (cross.square() / diagonal).sum()
        step_slope = (gradient_slope - (cross * gradient / diagonal).sum()) / rest
        step = (gradient - cross * step_slope) / diagonal
        if float(slope) == 0 and float(step_slope) >= 0:  # at the bound the intercepts go on alone
            step = gradient / diagonal
        moved, step = (slope - step_slope.clamp(-2, 2)).clamp(min=0), step.clamp(-2, 2)
        change = max(float((moved - slope).abs()), float(step.abs().max()))
        slope, intercept = moved, intercept - step
        if change < 1e-9:
            break
    return slope.expand(tags), intercept


def fit_platt(x: Tensor, y: Tensor, weight: Tensor, slope: Tensor, intercept: Tensor) -> tuple[Tensor, Tensor]:
    """A slope and an intercept for each tag, under a normal prior of deviation 1 around the temperature fit."""
    slope_prior, intercept_prior = slope, intercept
    for _ in range(100):
        p = torch.sigmoid(slope * x + intercept)
        curve, residual = weight * p * (1 - p), weight * (p - y)
        g_slope = (residual * x).sum(0) + (slope - slope_prior)
        g_intercept = residual.sum(0) + (intercept - intercept_prior)
        aa, ab, bb = (curve * x * x).sum(0) + 1, (curve * x).sum(0), curve.sum(0) + 1
        determinant = aa * bb - ab.square()
        step_slope = ((bb * g_slope - ab * g_intercept) / determinant).clamp(-2, 2)
        step = ((aa * g_intercept - ab * g_slope) / determinant).clamp(-2, 2)
        held = (slope == 0) & (step_slope >= 0)  # at the bound the intercept goes on alone
        step = torch.where(held, (g_intercept / bb).clamp(-2, 2), step)
        moved = (slope - step_slope).clamp(min=0)
        change = torch.maximum((moved - slope).abs(), step.abs())
        slope, intercept = moved, intercept - step
        if float(change.max()) < 1e-9:
            break
    return slope, intercept
