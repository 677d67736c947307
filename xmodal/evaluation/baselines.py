"""Audio vectors without a trained audio tower, to hold a result against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from xmodal.embeddings import unit_rows
from xmodal.metrics import rank_vectors

Matrix = Tensor | np.ndarray
ALPHAS = tuple(10.0**power for power in range(-2, 7))


def mel_statistics(
    features: Float[Tensor, "clips bands frames"], valid_frames: Int[Tensor, " clips"] | None = None
) -> Float[Tensor, "clips 2*bands"]:
    """Mean and standard deviation of every band over a clip's frames: what the baselines hear.

    Args:
        features: Log-mel features, as :meth:`AudioTower.features` gives them.
        valid_frames: How many frames of each clip are audio and not padding, from 1. None: all.

    Raises:
        ValueError: If ``valid_frames`` is out of range.
    """
    clips, _, frames = features.shape
    valid = torch.full((clips,), frames) if valid_frames is None else valid_frames
    if valid.shape != (clips,) or not bool(((valid >= 1) & (valid <= frames)).all()):
        raise ValueError(f"valid_frames must name 1 to {frames} frames for each of {clips} clips, got {valid.tolist()}")
    weight = (torch.arange(frames) < valid.cpu()[:, None])[:, None].to(features) / valid.to(features)[:, None, None]
    mean = (features * weight).sum(dim=2)
    variance = ((features - mean[:, :, None]).square() * weight).sum(dim=2)
    return torch.cat([mean, variance.sqrt()], dim=1)


class RidgeBaseline(NamedTuple):
    """Vectors of the test tracks, the alpha that made them, and the validation's mean reciprocal rank by alpha."""

    vectors: Float[Tensor, "test dim"]
    alpha: float
    validation: dict[float, float]


def ridge_baseline(
    train_features: Float[Matrix, "train features"],
    train_text: Float[Matrix, "train dim"],
    test_features: Float[Matrix, "test features"],
    *,
    validation_features: Float[Matrix, "validation features"],
    validation_text: Float[Matrix, "texts dim"],
    validation_relevance: Bool[Matrix, "validation texts"],
    alphas: Sequence[float] = ALPHAS,
) -> RidgeBaseline:
    """Ridge regression from standardised audio features to text vectors (Hoerl and Kennard 1970).

    Training needs no negatives and no audio tower: each row of ``train_features`` learns to point at the row of
    ``train_text`` beside it. The alpha that ranks best on the validation set (mean reciprocal rank of both
    directions) is kept; the test set has no part in it.

    Args:
        train_features: For instance :func:`mel_statistics`; a row for each pair of a track and one of its texts.
        train_text: The vector of that text.
        test_features: Features of the tracks to embed.
        validation_features: Features of other tracks.
        validation_text: Unit vectors of other texts.
        validation_relevance: Text j is right for track i. Tracks and texts without a right answer are left out.
        alphas: Strengths of the penalty to choose from.

    Returns:
        Unit vectors in the space of the texts, float32.

    Raises:
        ValueError: If there is no alpha to choose from or shapes do not fit.
    """
    if not alphas:
        raise ValueError("alphas must name at least one strength of the penalty, got none")
    scaler = StandardScaler().fit(_double(train_features))
    train, test, validation = (
        scaler.transform(_double(x)) for x in (train_features, test_features, validation_features)
    )
    texts = torch.from_numpy(unit_rows(validation_text, "validation_text"))
    right = torch.as_tensor(validation_relevance)

    def predict(alpha: float, features: np.ndarray) -> Float[Tensor, "rows dim"]:
        return _unit(Ridge(alpha=alpha).fit(train, _double(train_text)).predict(features))

    def reciprocal_rank(vectors: Float[Tensor, "validation dim"]) -> float:
        both = ((vectors, texts, right), (texts, vectors, right.T))
        return sum(float(rank_vectors(*side, without_right="leave_out").reciprocal_rank().mean()) for side in both) / 2

    ranked = {alpha: reciprocal_rank(predict(alpha, validation)) for alpha in alphas}
    best = max(ranked, key=lambda alpha: ranked[alpha])
    return RidgeBaseline(predict(best, test), best, ranked)


def random_projection_baseline(
    train_features: Float[Matrix, "train features"],
    test_features: Float[Matrix, "test features"],
    dim: int,
    *,
    seed: int = 0,
) -> Float[Tensor, "test dim"]:
    """Standardised audio features times a fixed Gaussian matrix: unit vectors that know nothing of the texts.

    Args:
        train_features: Give the means and standard deviations.
        test_features: Features of the tracks to embed.
        dim: Dimension of the texts' space.
        seed: Of the matrix.

    Raises:
        ValueError: If ``dim`` is below 1.
    """
    if dim < 1:
        raise ValueError(f"dim must be at least 1, got {dim}")
    standardised = StandardScaler().fit(_double(train_features)).transform(_double(test_features))
    matrix = torch.randn(standardised.shape[1], dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return _unit(standardised @ matrix.numpy())


def _double(values: Matrix) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)


def _unit(vectors: np.ndarray) -> Float[Tensor, "rows dim"]:
    return torch.nn.functional.normalize(torch.from_numpy(vectors), dim=1).float()
