"""How far an export is from the model it was made of: in cosine, and in what it finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from xmodal.data.datasets import evaluation_texts
from xmodal.data.tracks import Track
from xmodal.embedder import Embedder
from xmodal.evaluation import evaluate_retrieval
from xmodal.interop.onnx.run import load_onnx

_PHRASES = [
    "slow sad piano",
    "fast happy banjo",
    "a dog barks",
    "no drums",
    "the word seven",
    "a long held violin note",
]
_LONG = "a quiet song about rain on a tin roof, with guitar and brushes, " * 40


@dataclass(frozen=True)
class Parity:
    """One precision beside the model.

    Attributes:
        precision: fp32, fp16 or int8.
        megabytes: Of both graphs.
        audio_cosine: Smallest cosine of a window's two vectors.
        text_cosine: Smallest cosine of a text's two vectors.
        recall: R@k text→audio of the model and of the export, by its name; empty without tracks.
    """

    precision: str
    megabytes: float
    audio_cosine: float
    text_cosine: float
    recall: dict[str, tuple[float, float]]


def parity(
    embedder: Embedder, folder: str | Path, precisions: Sequence[str], tracks: Sequence[Track] = ()
) -> list[Parity]:
    """Compare the exports in a folder with the model.

    Args:
        embedder: The model.
        folder: What :func:`export_onnx` wrote.
        precisions: Those to compare.
        tracks: Tracks with captions or tags to search among; without, cosines on made-up sounds and phrases alone.

    Raises:
        ModelError: If the folder is no export or lacks a precision.
        AudioError: If a track cannot be decoded.
    """
    folder = Path(folder)
    texts, relevance = evaluation_texts(list(tracks)) if tracks else ([*_PHRASES, _LONG], None)
    own_texts = embedder.embed_texts(texts)
    own_audio = _hear(embedder, tracks)
    found = []
    for precision in precisions:
        other = load_onnx(folder, precision)
        their_texts, their_audio = other.embed_texts(texts), _hear(other, tracks)
        recall: dict[str, tuple[float, float]] = {}
        if relevance is not None:
            before, after = (
                evaluate_retrieval(audio, words, relevance, without_right="leave_out").text_to_audio.values
                for audio, words in ((own_audio, own_texts), (their_audio, their_texts))
            )
            recall = {name: (before[name], after[name]) for name in ("R@1", "R@10") if name in before}
        size = sum((folder / f"{side}.{precision}.onnx").stat().st_size for side in ("audio", "text")) / 1e6
        found.append(Parity(precision, size, _least(own_audio, their_audio), _least(own_texts, their_texts), recall))
    return found


def _least(own: Float[np.ndarray, "rows dim"], their: Float[np.ndarray, "rows dim"]) -> float:
    return float((own.astype(np.float64) * their).sum(axis=1).min())


def _hear(embedder: Embedder, tracks: Sequence[Track]) -> Float[np.ndarray, "rows dim"]:
    if tracks:
        return embedder.embed_files(list(tracks), raise_errors=True).embeddings.vectors
    rate, samples = (
        embedder.model.sample_rate,
        round(embedder.model.windows.window_seconds * embedder.model.sample_rate),
    )
    time = torch.arange(samples) / rate
    generator = torch.Generator().manual_seed(0)
    pitches = torch.tensor([[110.0], [440.0], [1760.0], [330.0]])
    sounds = 0.3 * torch.sin(2 * torch.pi * pitches * time * (1 + 0.1 * time)) + 0.02 * torch.randn(
        4, samples, generator=generator
    )
    valid = torch.tensor([samples, samples, samples, samples // 3])
    with torch.inference_mode():
        device = embedder.device
        return embedder.model.embed_audio(sounds.to(device), valid.to(device)).float().cpu().numpy()
