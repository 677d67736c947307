"""What other tools hand over as audio: a path, samples with their rate, or bare samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch

from xmodal.audio import AUDIO_SUFFIXES, load
from xmodal.audio.policy import cut
from xmodal.model import TwoTower
from xmodal.view import pool


def is_audio(item: Any) -> bool:
    """Whether an item is audio and not a text: a path, samples, or a text that ends like an audio file's name."""
    if isinstance(item, str):
        return Path(item).suffix.lower() in AUDIO_SUFFIXES and " " not in Path(item).suffix
    return isinstance(item, Path | np.ndarray | torch.Tensor) or (
        isinstance(item, Mapping) and ({"array", "audio", "path", "bytes"} & set(item)) != set()
    )


def samples_of(item: Any, sample_rate: int) -> np.ndarray:
    """Mono float32 samples at ``sample_rate`` Hz.

    Args:
        item: A path, ``{"array", "sampling_rate"}``, ``{"path"}``, ``{"audio": one of these}``, an object with
            ``get_all_samples`` (torchcodec's decoder), or samples already at ``sample_rate``: ``[samples]`` or
            ``[channels, samples]``.

    Raises:
        ValueError: If it is none of these, or holds no finite sample.
        AudioError: If a file cannot be decoded.
    """
    if isinstance(item, Mapping) and "audio" in item:
        return samples_of(item["audio"], sample_rate)
    if isinstance(item, str | Path):
        return np.asarray(load(item, sample_rate))
    if isinstance(item, Mapping) and item.get("array") is None and item.get("path"):
        return np.asarray(load(item["path"], sample_rate))
    rate = sample_rate
    if hasattr(item, "get_all_samples"):
        decoded = item.get_all_samples()
        item, rate = decoded.data, int(decoded.sample_rate)
    elif isinstance(item, Mapping):
        if item.get("array") is None:
            raise ValueError(f"audio must hold an array or a path, got the keys {sorted(map(str, item))}")
        rate = int(item.get("sampling_rate") or item.get("sample_rate") or sample_rate)
        item = item["array"]
    samples = np.asarray(item.detach().cpu() if isinstance(item, torch.Tensor) else item, dtype=np.float32)
    if samples.ndim == 2:  # the shorter axis is the channels
        samples = samples.mean(axis=int(np.argmin(samples.shape)))
    if samples.ndim != 1 or not len(samples) or not np.isfinite(samples).all():
        raise ValueError(f"audio must be one or more finite samples, got an array of shape {list(samples.shape)}")
    if rate != sample_rate:
        samples = soxr.resample(samples, rate, sample_rate, quality="HQ")
    return np.clip(samples, -1.0, 1.0)


@torch.no_grad()
def embed_samples(model: TwoTower, clips: Sequence[np.ndarray], batch_size: int = 32) -> torch.Tensor:
    """Unit vectors of clips of any length, cut and pooled as files are; gradients off.

    Args:
        model: In evaluation mode.
        clips: Mono samples at the model's rate.
        batch_size: Windows to a forward pass.
    """
    pieces = [(row, window) for row, clip in enumerate(clips) for window in cut(clip, model.sample_rate, model.windows)]
    vectors = []
    for first in range(0, len(pieces), batch_size):
        part = [window for _, window in pieces[first : first + batch_size]]
        waveform = torch.from_numpy(np.stack([window.samples for window in part])).to(model.device)
        valid = torch.tensor([window.valid_samples for window in part], device=model.device)
        vectors.append(model.embed_audio(waveform, valid).float().cpu().numpy())
    together = np.concatenate(vectors) if vectors else np.zeros((0, model.dim), np.float32)
    pooled = []
    for row in range(len(clips)):
        mine = [place for place, (owner, _) in enumerate(pieces) if owner == row]
        windows = [pieces[place][1] for place in mine]
        shares = np.asarray([window.valid_samples / len(window.samples) for window in windows])
        energies = np.asarray([float(np.dot(window.samples, window.samples)) for window in windows])
        pooled.append(pool(together[mine], shares, energies, model.pooling, model.top_windows))
    stacked = np.stack(pooled) if pooled else np.zeros((0, model.dim), np.float32)
    return torch.from_numpy(stacked).to(model.device)
