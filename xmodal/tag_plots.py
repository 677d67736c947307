"""Pictures of tagging: tags over time, why a tag was given, whether probabilities hold, and how few examples do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from xmodal.evaluation import FewShotCurve
from xmodal.metrics import Reliability
from xmodal.plots import HUES, write_png
from xmodal.tagging.why import Reasons


def plot_tag_curves(
    values: Float[np.ndarray, "windows tags"],
    start_seconds: Sequence[float],
    window_seconds: float,
    tags: Sequence[str],
    path: str | Path,
    *,
    title: str,
    unit: str,
) -> None:
    """Tags of one track over time, a step a window.

    Raises:
        ValueError: If there are not as many rows as windows and columns as tags.
    """
    if values.shape != (len(start_seconds), len(tags)) or not len(tags):
        raise ValueError(f"values must be [{len(start_seconds)}, {len(tags)}] and not empty, got {values.shape}")
    figure = Figure(figsize=(9.5, 1.2 + 0.9 * len(tags)), layout="constrained")
    figure.suptitle(title, fontsize=11)
    ends = [*start_seconds[1:], start_seconds[-1] + window_seconds]
    edges = [start_seconds[0], *ends]
    low, high = min(0.0, float(values.min())), max(float(values.max()), 1.0 if unit == "probability" else 1e-6)
    for number, panel in enumerate(np.atleast_1d(figure.subplots(len(tags), 1, sharex=True))):
        colour = HUES[number % len(HUES)]
        panel.stairs(values[:, number], edges, fill=True, color=colour, alpha=0.35)
        panel.stairs(values[:, number], edges, color=colour, linewidth=1.4)
        panel.set_ylim(low, high * 1.05)
        panel.set_ylabel(tags[number], rotation=0, ha="right", va="center", fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
    panel.set_xlabel(f"seconds ({unit} of each window)")
    write_png(figure, path)


def plot_reasons(reasons: Reasons, path: str | Path, *, title: str, window_seconds: float) -> None:
    """What speaks for a tag: the windows above, the places in the best window's spectrum below."""
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    figure.suptitle(title, fontsize=11)
    above, below = figure.subplots(2, 1, height_ratios=[1, 2.4])
    several = len(reasons.score) > 1
    shown = reasons.contribution if several else reasons.score
    colours = [HUES[1] if number == reasons.window else HUES[0] for number in range(len(shown))]
    width = min(np.diff(reasons.start_seconds).min() if several else window_seconds, window_seconds) * 0.95
    above.bar(reasons.start_seconds, shown, width=width, align="edge", color=colours)
    above.axhline(0, color="#8a8f98", linewidth=0.8)
    above.set_ylabel("fall without it" if several else "score", fontsize=9)
    above.set_xlabel("seconds; the window below is marked", fontsize=9)
    above.spines[["top", "right"]].set_visible(False)
    bands = len(reasons.features)
    begin = reasons.start_seconds[reasons.window]
    extent = (begin, begin + window_seconds, 0, bands)
    below.imshow(reasons.features, origin="lower", aspect="auto", cmap=colormaps["gray_r"], extent=extent)
    limit = float(np.abs(reasons.regions).max()) or 1.0
    # Where nothing speaks for or against the tag, the spectrum is seen as it is.
    strength = 0.75 * (np.abs(reasons.regions) / limit) ** 0.7
    below.imshow(
        reasons.regions, origin="lower", aspect="auto", cmap=colormaps["RdBu_r"], vmin=-limit, vmax=limit,
        alpha=strength, extent=extent, interpolation="nearest",
    )  # fmt: skip
    below.set(xlabel="seconds", ylabel="mel band")
    image = ScalarMappable(Normalize(-limit, limit), colormaps["RdBu_r"])
    figure.colorbar(image, ax=below, label="fall of the score without the place", shrink=0.85)
    write_png(figure, path)


def plot_reliability(curve: Reliability, path: str | Path, *, title: str) -> None:
    """Predicted against observed shares; on the diagonal a probability means what it says."""
    figure = Figure(figsize=(5.6, 5.4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="#8a8f98", linewidth=1, linestyle="--", label="what it says is so")
    axes.plot(
        curve.predicted, curve.observed, marker="o", color=HUES[0], label=f"calibration error {curve.error():.3f}"
    )
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="mean probability", ylabel="share with the tag", title=title)
    axes.legend(frameon=False, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)
    write_png(figure, path)


def plot_few_shots(curve: FewShotCurve, path: str | Path, *, title: str) -> None:
    """mAP against the number of examples, with the spread over repeats."""
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.add_subplot()
    names = {"prototype": "examples alone", "both": "text and examples", "linear": "logistic regression"}
    for number, (way, mean) in enumerate(curve.mean.items()):
        at, spread = np.asarray(mean), np.asarray(curve.spread[way])
        axes.plot(curve.shots, at, marker="o", color=HUES[number % len(HUES)], label=names.get(way, way))
        axes.fill_between(
            curve.shots, at - spread, at + spread, color=HUES[number % len(HUES)], alpha=0.15, linewidth=0
        )
    if curve.text is not None:
        axes.axhline(curve.text, color="#8a8f98", linestyle="--", label="text alone")
    axes.set_xscale("log")
    axes.set_xticks(curve.shots, map(str, curve.shots))
    axes.minorticks_off()
    axes.set(xlabel="examples of each tag", ylabel="mAP", title=title)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.spines[["top", "right"]].set_visible(False)
    write_png(figure, path)
