"""Formats of training checkpoints: what is stamped on one, and how an older one becomes one of today.

A checkpoint holds Lightning's own state and, under ``xmodal``, a format version and what this project adds. Each entry
of :data:`MIGRATIONS` takes a checkpoint from one version to the next; loading runs as many as it needs. Golden
checkpoints of every version are kept in ``tests/golden`` and must go on loading.

version 1: weights, ``network`` (its config), ``text_identity``; Lightning's ModelCheckpoint kept the best score.
version 2: adds ``seed`` (from which every step draws) and ``averaged`` (the moving average of the weights, or None);
           the best score is kept by :class:`xmodal.training.Checkpoints`.
version 3: leaves out frozen audio encoders as it does frozen text encoders; adds ``audio_identity`` and
           ``frozen_weights`` (by side the name of the weights that were left out, or None).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from xmodal import __version__
from xmodal.errors import ModelError

CHECKPOINT_VERSION = 3


def migrate(checkpoint: dict[str, Any]) -> None:
    """Bring a checkpoint to the format of today, in place.

    Raises:
        ModelError: If it is none of this project's, or of a newer format.
    """
    stamp = checkpoint.get("xmodal")
    version = stamp.get("format_version") if isinstance(stamp, Mapping) else None
    if not isinstance(version, int) or version < 1:
        raise ModelError("the checkpoint was not written by xmodal's training (it has no format version)")
    if version > CHECKPOINT_VERSION:
        raise ModelError(
            f"the checkpoint has format version {version}, but this xmodal ({__version__}) reads up to "
            f"{CHECKPOINT_VERSION}; update with: pip install --upgrade xmodal"
        )
    for step in range(version, CHECKPOINT_VERSION):
        MIGRATIONS[step](checkpoint)
        checkpoint["xmodal"]["format_version"] = step + 1


def _from_1(checkpoint: dict[str, Any]) -> None:
    checkpoint["xmodal"] |= {"seed": None, "averaged": None}
    states = checkpoint.get("callbacks", {})
    kept = {name: state for name, state in states.items() if not name.startswith("ModelCheckpoint")}
    scores = [state.get("best_model_score") for name, state in states.items() if name not in kept]
    best = next((float(score) for score in scores if score is not None), None)
    if len(kept) < len(states):
        kept["Checkpoints"] = {"best_score": best, "best_step": None, "draws": None}
    checkpoint["callbacks"] = kept


def _from_2(checkpoint: dict[str, Any]) -> None:
    checkpoint["xmodal"] |= {"audio_identity": None, "frozen_weights": {}}


MIGRATIONS: dict[int, Callable[[dict[str, Any]], None]] = {1: _from_1, 2: _from_2}
