"""Pictures of a space: a map of the tracks, a similarity matrix, training curves. All are PNG files.

matplotlib is used without pyplot, so that drawing needs no screen and leaves no global state behind.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from xmodal.audio import load
from xmodal.errors import AudioError, DataError

_DPI = 130
_INK, _FAINT = "#1f2430", "#8a8f98"
# Twelve hues that stay apart on white, also for most colour-blind eyes when neighbours differ in lightness.
HUES = (
    "#3366cc", "#e4572e", "#2a9d63", "#8e5cc2", "#d9a404", "#18a3b8",
    "#c2417c", "#7a8b1f", "#1f3a63", "#f08ca8", "#7a4a2b", "#6fa8dc",
)  # fmt: skip


def plot_map(
    vectors: Float[np.ndarray, "tracks dim"], labels: Sequence[str], path: str | Path, *, title: str, legend: str
) -> None:
    """Tracks as points on the two main axes of their vectors (PCA), coloured by label.

    Args:
        vectors: Unit vectors of the tracks.
        labels: One a track.
        path: The PNG file.
        title: Printed above.
        legend: What the labels are, the legend's heading.

    Raises:
        ValueError: If the numbers of vectors and labels differ, or there are fewer than two tracks.
    """
    if len(vectors) != len(labels) or len(vectors) < 2:
        raise ValueError(f"a map needs at least two tracks and a label each, got {len(vectors)} and {len(labels)}")
    points, shares = principal_axes(np.asarray(vectors, dtype=np.float64))
    figure = Figure(figsize=(9.5, 6.5), layout="constrained")
    axes = figure.add_subplot()
    names = sorted(set(labels))
    places = apart(np.stack([np.median(points[[label == name for label in labels]], axis=0) for name in names]))
    for number, name in enumerate(names):
        mine = points[[label == name for label in labels]]
        colour = HUES[number % len(HUES)]
        marker = "o^s"[number // len(HUES) % 3]
        axes.scatter(mine[:, 0], mine[:, 1], s=16, c=colour, marker=marker, alpha=0.75, linewidths=0, label=name)
        axes.annotate(
            name, places[number], ha="center", va="center", fontsize=8.5, color=_INK, weight="bold",
            bbox={"boxstyle": "round,pad=0.2", "fc": "white", "ec": colour, "alpha": 0.85},
        )  # fmt: skip
    axes.set(xticks=[], yticks=[], title=title)
    axes.set_xlabel(f"first axis, {shares[0]:.0%} of the variance", color=_FAINT)
    axes.set_ylabel(f"second axis, {shares[1]:.0%}", color=_FAINT)
    axes.spines[:].set_color("#d5d8dd")
    figure.legend(loc="outside right upper", title=legend, frameon=False, fontsize=9)
    write_png(figure, path)


def apart(
    places: Float[np.ndarray, "labels 2"], width: float = 0.13, height: float = 0.045
) -> Float[np.ndarray, "labels 2"]:
    """Places for labels, moved up where two would cover one another.

    Args:
        places: Where the labels belong.
        width: Of a label, as a share of the horizontal extent of the places.
        height: Of a label, as a share of the vertical extent.
    """
    room = np.ptp(places, axis=0) * (width, height)
    moved = places.copy()
    settled: list[int] = []
    for label in np.argsort(places[:, 1], kind="stable"):  # from the bottom up, so that moving up always ends
        while any((np.abs(moved[label] - moved[other]) < room).all() for other in settled):
            moved[label, 1] += room[1] / 4
        settled.append(int(label))
    return moved


def principal_axes(
    vectors: Float[np.ndarray, "items dim"],
) -> tuple[Float[np.ndarray, "items 2"], tuple[float, float]]:
    """Coordinates on the two axes of largest variance, and the share of the variance on each.

    The sign of an axis is arbitrary; it is fixed so that the largest coordinate is positive and pictures repeat.
    """
    centred = vectors - vectors.mean(axis=0)
    points = np.zeros((len(vectors), 2))
    if len(vectors) > vectors.shape[1]:
        # The axes are eigenvectors of a dim x dim matrix: far less work than a decomposition of all items.
        squares, axes = np.linalg.eigh(centred.T @ centred)
        squares, axes = np.maximum(squares[::-1], 0.0), axes[:, :-3:-1]
        points[:, : axes.shape[1]] = centred @ axes
    else:
        left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
        squares, count = sizes**2, min(2, len(sizes))
        points[:, :count] = left[:, :count] * sizes[:count]
    points *= np.where(points[np.abs(points).argmax(axis=0), [0, 1]] < 0, -1.0, 1.0)
    total = float(squares.sum()) or 1.0
    shares = [float(square) / total for square in squares[:2]] + [0.0, 0.0]
    return points, (shares[0], shares[1])


def plot_similarity(
    score: Float[np.ndarray, "rows columns"],
    rows: Sequence[str],
    columns: Sequence[str],
    path: str | Path,
    *,
    title: str,
) -> None:
    """Cosines between labelled rows and columns as a heat map, zero in white.

    Raises:
        ValueError: If the labels do not fit the matrix.
    """
    if score.shape != (len(rows), len(columns)):
        raise ValueError(f"a {score.shape} matrix needs as many labels, got {len(rows)} and {len(columns)}")
    figure = Figure(figsize=(2.2 + 0.36 * len(columns), 1.8 + 0.3 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    limit = float(np.abs(score).max()) or 1.0
    image = axes.imshow(score, cmap=colormaps["RdBu_r"], vmin=-limit, vmax=limit, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set_title(title, fontsize=11)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, label="cosine", shrink=0.7)
    write_png(figure, path)


def plot_neighbours(
    vectors: Float[np.ndarray, "tracks dim"],
    names: Sequence[str],
    paths: Sequence[str | None],
    shown: Sequence[int],
    path: str | Path,
    *,
    title: str,
    count: int = 5,
) -> None:
    """A sheet of tracks, each with its nearest neighbours beside it: spectrogram, name and cosine.

    Args:
        vectors: Unit vectors of all tracks.
        names: One a track.
        paths: The audio of each, for its picture; None, or a file that cannot be read, leaves the picture empty.
        shown: The tracks that get a row.
        path: The PNG file.
        title: Printed above.
        count: Neighbours of each.

    Raises:
        ValueError: If names or paths do not fit, or there is no track to show or none beside it.
    """
    if not len(vectors) == len(names) == len(paths) or not shown or len(vectors) < 2:
        raise ValueError(f"at least two tracks need a name and a path each, got {len(vectors)} and {len(names)}")
    count = min(count, len(vectors) - 1)
    figure = Figure(figsize=(2.5 * (count + 1), 1.75 * len(shown) + 0.5), layout="constrained")
    figure.suptitle(title, fontsize=11)
    panels = figure.subplots(len(shown), count + 1, squeeze=False)
    pictures: dict[int, np.ndarray | None] = {}
    for line, row in zip(panels, shown, strict=True):
        scores = vectors @ vectors[row]
        scores[row] = -np.inf
        nearest = np.argsort(-scores, kind="stable")[:count]
        for panel, place in zip(line, [row, *nearest.tolist()], strict=True):
            if place not in pictures:
                pictures[place] = _thumbnail(paths[place])
            picture = pictures[place]
            if picture is not None:
                panel.imshow(picture, origin="lower", aspect="auto", cmap=colormaps["magma"], interpolation="nearest")
            panel.set(xticks=[], yticks=[])
            said = names[place] if len(names[place]) <= 30 else f"{names[place][:29]}…"
            panel.set_title(said, fontsize=7, weight="bold" if place == row else "normal")
            panel.set_xlabel("" if place == row else f"{scores[place]:.3f}", fontsize=7, color=_FAINT)
            panel.spines[:].set_color(HUES[1] if place == row else "#d5d8dd")
    write_png(figure, path)


def _thumbnail(path: str | None) -> np.ndarray | None:
    """Decibels of the first ten seconds, coarse."""
    if path is None:
        return None
    try:
        samples = load(path, 16_000, duration_seconds=10.0)
    except AudioError:
        return None
    hop, size = 512, 1024
    samples = np.pad(samples, (0, max(0, size - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(samples, size)[::hop] * np.hanning(size)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    # Bands that widen with frequency, about as hearing does.
    edges = np.unique(np.geomspace(2, size // 2, 49).astype(int))
    bands = np.add.reduceat(power, edges[:-1], axis=1)
    return np.asarray(10 * np.log10(bands.T + 1e-6))


def read_curves(metrics_csv: str | Path) -> dict[str, list[tuple[int, float]]]:
    """The ``(step, value)`` points of each metric in a CSVLogger's ``metrics.csv``.

    Raises:
        DataError: If the file is not there or holds no metrics.
    """
    path = Path(metrics_csv)
    curves: dict[str, list[tuple[int, float]]] = {}
    try:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    if name not in ("step", "epoch") and value:
                        curves.setdefault(name, []).append((int(row["step"]), float(value)))
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path} is not the metrics.csv of a run: {error}") from error
    if not curves:
        raise DataError(f"{path} holds no metrics; was the run stopped before its first log?")
    return curves


def plot_curves(metrics_csv: str | Path, path: str | Path, *, title: str) -> None:
    """The run's losses on the left, its validation retrieval figures on the right, by step."""
    curves = read_curves(metrics_csv)
    losses = {name.removeprefix("train/"): points for name, points in curves.items() if name.startswith("train/")}
    wanted = ("R@1", "R@10", "mAP@10")
    validation = {
        name.removeprefix("validation/").replace("_to_", "→").replace("/", "  "): points
        for name, points in curves.items()
        if name.startswith("validation/") and name.endswith(wanted)
    }
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    figure.suptitle(title, fontsize=11)
    left, right = figure.subplots(1, 2)
    for panel, group, label in ((left, losses, "loss"), (right, validation, "validation figure")):
        for number, (name, points) in enumerate(sorted(group.items())):
            steps, values = zip(*points, strict=True)
            panel.plot(
                steps,
                values,
                color=HUES[number % len(HUES)],
                label=name,
                linewidth=1.6,
                marker="." * (len(steps) < 40),
            )
        panel.set_xlabel("step")
        panel.set_ylabel(label)
        panel.grid(color="#e7e9ec", linewidth=0.8)
        panel.spines[["top", "right"]].set_visible(False)
        if group:
            panel.legend(frameon=False, fontsize=8.5)
    right.set_ylim(0, 1.02)
    write_png(figure, path)


def plot_spectrograms(
    spectrograms: Sequence[Float[np.ndarray, "bands frames"]], titles: Sequence[str], path: str | Path
) -> None:
    """Log-mel spectrograms side by side, low bands at the bottom; an empty list is refused."""
    if not spectrograms or len(spectrograms) != len(titles):
        raise ValueError(f"each spectrogram needs a title, got {len(spectrograms)} and {len(titles)}")
    columns = min(5, len(spectrograms))
    lines = -(-len(spectrograms) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.6 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel, values, title in zip(panels, spectrograms, titles, strict=False):
        panel.imshow(values, origin="lower", aspect="auto", cmap=colormaps["magma"], interpolation="nearest")
        panel.set_title(title, fontsize=7)
    for panel in panels:
        panel.set(xticks=[], yticks=[])
    write_png(figure, path)


def write_png(figure: Figure, path: str | Path) -> None:
    """Draw a figure into a PNG file; its folder is made if absent."""
    FigureCanvasAgg(figure)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI, facecolor="white")
