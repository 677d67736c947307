"""Why a track got a tag: which windows raised it, and which places in their spectrum.

Both are occlusion (Zeiler and Fergus, ECCV 2014): something is taken away and the score is looked at again. What is
shown is how far the score falls without it, so a positive value speaks for the tag. It holds for any tower.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from xmodal.audio import windows
from xmodal.embedder import Embedder
from xmodal.errors import AudioError


@dataclass(frozen=True)
class Reasons:
    """What speaks for one tag on one track.

    Attributes:
        start_seconds: Where each window starts.
        score: Score of each window by itself, ``[windows]``.
        contribution: How far the track's score falls without the window, ``[windows]``; zeros if there is one only.
        window: The window that contributes most (or scores highest, if there is one), whose spectrum follows.
        features: Its log-mel features, ``[bands, frames]``.
        regions: How far the window's score falls without each region, ``[band regions, time regions]``.
    """

    start_seconds: tuple[float, ...]
    score: Float[np.ndarray, " windows"]
    contribution: Float[np.ndarray, " windows"]
    window: int
    features: Float[np.ndarray, "bands frames"]
    regions: Float[np.ndarray, "band_regions time_regions"]


def explain(
    embedder: Embedder,
    file: str | Path,
    weights: Float[Tensor, " dim"],
    *,
    band_regions: int = 8,
    time_regions: int = 12,
) -> Reasons:
    """Look for what raised a tag on a file.

    Args:
        embedder: The model.
        file: An audio file.
        weights: The tag's row of ``TagScorer.weights``.
        band_regions: Into how many regions the spectrum is divided in frequency.
        time_regions: And in time.

    Raises:
        AudioError: If the file cannot be decoded.
        ValueError: If there would be less than one region, or more than bands or frames.
    """
    ((_, outcome),) = list(embedder.iterate_windows([file]))
    if isinstance(outcome, AudioError):
        raise outcome
    tag = weights.double().numpy()
    score = outcome.vectors.astype(np.float64) @ tag
    contribution = np.zeros(len(score))
    if len(score) > 1:
        whole = float(outcome.pooled().astype(np.float64) @ tag)
        total = (outcome.vectors.astype(np.float64) * outcome.weights[:, None]).sum(axis=0)
        for number, vector in enumerate(outcome.vectors):
            rest = total - vector.astype(np.float64) * outcome.weights[number]
            contribution[number] = whole - float(rest @ tag) / max(float(np.linalg.norm(rest)), 1e-12)
    best = int((contribution if len(score) > 1 else score).argmax())
    model = embedder.model
    window = next(itertools.islice(windows(file, model.sample_rate, model.windows), best, None))
    features, regions = _occluded(embedder, window.samples, window.valid_samples, weights, band_regions, time_regions)
    return Reasons(outcome.start_seconds, score, contribution, best, features, regions)


@torch.inference_mode()
def _occluded(
    embedder: Embedder, samples: np.ndarray, valid_samples: int, weights: Tensor, band_regions: int, time_regions: int
) -> tuple[np.ndarray, np.ndarray]:
    model = embedder.model
    waveform = torch.from_numpy(samples)[None].to(embedder.device)
    valid = model.audio.valid_frames(torch.tensor([valid_samples], device=embedder.device))
    features = model.audio.features(waveform)
    heard = int(valid[0])
    bands = features.shape[1]
    if not (1 <= band_regions <= bands and 1 <= time_regions <= heard):
        raise ValueError(
            f"the spectrum has {bands} bands and {heard} frames, got {band_regions} and {time_regions} regions"
        )
    silent = features[:, :, :heard].mean(dim=2)  # a region's place is taken by the window's mean spectrum
    across = torch.linspace(0, bands, band_regions + 1).round().long().tolist()
    along = torch.linspace(0, heard, time_regions + 1).round().long().tolist()
    variants = [features]
    for row in range(band_regions):
        for column in range(time_regions):
            variant = features.clone()
            place = slice(across[row], across[row + 1])
            variant[:, place, along[column] : along[column + 1]] = silent[:, place, None]
            variants.append(variant)
    stacked = torch.cat(variants)
    scores = torch.cat(
        [
            model.embed_audio_features(part, valid.expand(len(part))).float().cpu() @ weights
            for part in stacked.split(embedder.batch_size)
        ]
    )
    drop = (scores[0] - scores[1:]).reshape(band_regions, time_regions)
    return features[0, :, :heard].float().cpu().numpy(), drop.numpy()
