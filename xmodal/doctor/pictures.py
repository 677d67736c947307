"""Pictures of a diagnosis: spectra, cosines, hubs and the two sides on their main axes, on one page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave

from xmodal.doctor import geometry
from xmodal.doctor.checks import Space

_DPI = 120
_AUDIO, _TEXT, _RIGHT, _WRONG = "#3366cc", "#e4572e", "#2a9d63", "#8a8f98"
_SHOWN = 2000


def draw_space(space: Space, *, title: str) -> Figure:
    """One page of four panels; items that are not finite are left out.

    The panels: singular values of both sides; cosines of right and wrong pairs; how often each item is in a top 10;
    both sides on the two main axes of all vectors together, which shows the modality gap.

    Raises:
        ValueError: If fewer than two items a side are finite.
    """
    space = space.finite().sample(_SHOWN)
    if min(space.relevance.shape) < 2:
        raise ValueError("a picture of a space needs at least two finite tracks and texts")
    # Fixed margins: to find them by a layout engine takes as long as all the rest, and the panels are always the same.
    figure = Figure(figsize=(11, 8), dpi=_DPI)
    figure.suptitle(title, fontsize=11)
    margins = {"left": 0.065, "right": 0.985, "bottom": 0.065, "top": 0.91, "wspace": 0.12, "hspace": 0.3}
    spectrum, cosines, hubs, axes = figure.subplots(2, 2, gridspec_kw=margins).ravel()

    for side, colour in (("audio", _AUDIO), ("text", _TEXT)):
        values = geometry.singular_values(space.side(side))
        rank = geometry.effective_rank(values)
        share = (values / values.max().clamp(min=1e-12)).numpy()
        spectrum.semilogy(np.arange(1, len(share) + 1), share.clip(1e-6), color=colour, label=f"{side}: {rank:.1f}")
    spectrum.set(title="singular values over the largest; effective rank", xlabel="direction", ylim=(1e-5, 1.3))
    spectrum.minorticks_off()
    spectrum.yaxis.set_major_formatter("{x:g}")  # powers of ten would be laid out as formulas
    spectrum.legend(frameon=False)

    score = space.audio @ space.text.T
    right = space.relevance.bool()
    bins = np.linspace(-1, 1, 81)
    for name, chosen, colour in (("wrong pairs", ~right, _WRONG), ("right pairs", right, _RIGHT)):
        if chosen.any():
            cosines.hist(score[chosen].numpy(), bins=bins, density=True, color=colour, alpha=0.65, label=name)
    cosines.set(title="cosines of audio and text", xlabel="cosine", yticks=[])
    cosines.legend(frameon=False)

    for name, queries, candidates, colour in (
        ("tracks, asked by texts", space.text, space.audio, _AUDIO),
        ("texts, asked by tracks", space.audio, space.text, _TEXT),
    ):
        k = min(10, len(candidates))
        counts = geometry.k_occurrence(queries, candidates, k).sort(descending=True).values.numpy()
        place = (np.arange(len(counts)) + 0.5) / len(counts)
        hubs.plot(place, counts / max(counts.mean(), 1e-12), color=colour, label=f"{name} (top {k})")
    hubs.axhline(1, color=_WRONG, linewidth=0.8)
    hubs.set(title="how often an item is in a list, over the mean", xlabel="share of items, hubs first")
    hubs.legend(frameon=False)

    together = torch.cat([space.audio, space.text]).double()
    centred = together - together.mean(dim=0)
    points = (centred @ torch.linalg.svd(centred, full_matrices=False)[2][:2].T).numpy()
    if points.shape[1] < 2:
        points = np.pad(points, ((0, 0), (0, 1)))
    parts = (points[: len(space.audio)], points[len(space.audio) :])
    for part, colour, name in zip(parts, (_AUDIO, _TEXT), ("audio", "text"), strict=True):
        axes.scatter(part[:, 0], part[:, 1], s=9, alpha=0.5, color=colour, linewidths=0, label=name)
        axes.plot(*part.mean(axis=0), marker="X", markersize=11, color=colour, markeredgecolor="white")
    gap = geometry.modality_gap(space.audio, space.text)
    axes.set(title=f"both sides on their main axes; gap of the means {gap:.2f}", xticks=[], yticks=[], aspect="equal")
    axes.set_adjustable("datalim")
    axes.legend(frameon=False)
    for panel in (spectrum, cosines, hubs, axes):
        panel.spines[["top", "right"]].set_visible(False)
    return figure


def pixels(figure: Figure) -> UInt8[np.ndarray, "height width channels"]:
    """A figure drawn once, for whoever wants it: a file, TensorBoard."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def save_picture(picture: UInt8[np.ndarray, "height width channels"], path: str | Path) -> None:
    """Write what :func:`pixels` drew as PNG; its folder is made."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    imsave(path, picture, dpi=_DPI)
