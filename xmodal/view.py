"""How one model is looked at: where windows lie, how a track's windows become its vector, how many dimensions are kept.

A model folder says how its vectors are made. A view changes some of that for one export, without another training: a
shorter hop, another pooling, fewer dimensions. What comes out is another space with a ``space_id`` of its own; an
export and an index carry the view, so that a search makes its query in the same one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float, Float32

from xmodal.audio.policy import LastWindow

Pooling = Literal["mean", "energy", "top_k", "windows"]


@dataclass(frozen=True)
class View:
    """What differs from what the model's folder says; None stands for no difference.

    Attributes:
        pooling: How windows become a track's vector (see :func:`pool`); ``windows`` keeps a vector for each.
        top_windows: How many windows ``top_k`` keeps.
        hop_seconds: Step from window to window; half the window's length is an overlap of a half.
        last_window: The rule for what remains at the end (:class:`xmodal.audio.WindowPolicy`).
        dim: Keep the first ``dim`` dimensions, for a model whose training ordered them (Matryoshka).
    """

    pooling: Pooling | None = None
    top_windows: int | None = None
    hop_seconds: float | None = None
    last_window: LastWindow | None = None
    dim: int | None = None

    def __post_init__(self) -> None:
        if self.pooling is not None:
            check_pooling(self.pooling, self.top_windows or 1)

    @classmethod
    def of(cls, settings: Mapping[str, Any] | View | None) -> View:
        """Read what :meth:`as_json` gave.

        Raises:
            ValueError: If a setting is unknown: a newer xmodal wrote it.
        """
        if isinstance(settings, View):
            return settings
        known = {one.name for one in fields(cls)}
        unknown = sorted(set(settings or {}) - known)
        if unknown:
            raise ValueError(f"a view has the settings {', '.join(sorted(known))}, got {', '.join(unknown)}")
        return cls(**dict(settings or {}))

    def as_json(self) -> dict[str, Any]:
        """The differences alone."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def check_pooling(pooling: str, top_windows: int) -> None:
    """Refuse what is no pooling (ValueError)."""
    if pooling not in get_args(Pooling):
        raise ValueError(f"pooling must be one of {', '.join(get_args(Pooling))}, got {pooling!r}")
    if top_windows < 1:
        raise ValueError(f"top_windows must be at least 1, got {top_windows}")


def pooling_rule(pooling: Pooling, top_windows: int) -> str:
    """The rule in words; part of the identity of a space."""
    return {
        "mean": "mean of unit vectors, weighted by valid samples",
        "energy": "mean of unit vectors, weighted by energy",
        "top_k": f"mean of the {top_windows} unit vectors nearest to the mean weighted by valid samples",
        "windows": "none, a vector for each window",
    }[pooling]


def pool(
    vectors: Float32[np.ndarray, "windows dim"],
    shares: Float[np.ndarray, " windows"],
    energies: Float[np.ndarray, " windows"],
    pooling: Pooling = "mean",
    top_windows: int = 3,
) -> Float32[np.ndarray, " dim"]:
    """One unit vector of a track's windows.

    * ``mean``: every second of audio counts the same;
    * ``energy``: loud windows count more, by the sum of their squared samples; silence counts nothing, and a track of
      silence alone is pooled by ``mean``;
    * ``top_k``: the windows that are most like the whole (nearest to the ``mean``; of equally near ones the earlier),
      so that an intro, applause or a fade does not pull; fewer windows than ``top_windows`` are all taken;
    * ``windows``: as ``mean``, for a query; an export keeps the windows.

    Args:
        vectors: Unit vectors of the windows in order.
        shares: How much of each window is audio and not padding, in (0, 1].
        energies: Sum of squared samples of each window.
        pooling: The rule.
        top_windows: How many ``top_k`` keeps.
    """
    weights = np.asarray(shares, np.float64)
    if pooling == "energy" and float(np.sum(energies)) > 0:
        weights = np.asarray(energies, np.float64) / np.max(energies)
    mean = weights @ vectors.astype(np.float64)
    if pooling == "top_k" and len(vectors) > top_windows:
        nearest = np.sort(np.argsort(-np.round(vectors @ mean, 9), kind="stable")[:top_windows])
        mean = weights[nearest] @ vectors[nearest].astype(np.float64)
    # Two opposite windows cancel; then no direction is right, and the first window's is as good as any.
    length = np.linalg.norm(mean)
    vector = mean / length if length > 1e-6 else vectors[0]
    return np.asarray(vector, dtype=np.float32)
