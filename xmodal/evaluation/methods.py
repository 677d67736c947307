"""A trained model beside what is possible without one, on the same held-out tracks and texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from xmodal.data.kept import AnyWindows
from xmodal.data.tracks import Track
from xmodal.data.windows import WindowSet
from xmodal.embedder import Embedder
from xmodal.errors import AudioError
from xmodal.evaluation.baselines import mel_statistics, random_projection_baseline, ridge_baseline
from xmodal.training import AlignmentModule, Cli

TextEmbedder = Callable[[Sequence[str]], Float[np.ndarray, "texts dim"] | Float[Tensor, "texts dim"]]


@dataclass(frozen=True)
class Method:
    """One way to put the same tracks and texts into one space.

    Attributes:
        name: For the head of a table's column.
        audio: Unit vectors of the tracks, ``[tracks, dim]``.
        embed_texts: Texts to unit vectors of the same space.
    """

    name: str
    audio: Float[np.ndarray, "tracks dim"] | Float[Tensor, "tracks dim"]
    embed_texts: TextEmbedder


def methods_of_run(run: Cli, embedder: Embedder, tracks: Sequence[Track]) -> list[Method]:
    """The model of a training run, ridge regression on mel statistics, and a random projection of these.

    The baselines hear the mean and standard deviation of every mel band and aim at the vectors of the frozen text
    encoder itself; they are fitted on the run's training tracks and all of their captions, and the strength of the
    ridge is chosen on its validation tracks.

    Args:
        run: What :func:`xmodal.training.run` gave back after ``fit``; its text tower is frozen.
        embedder: Its model.
        tracks: The held-out tracks.

    Raises:
        AudioError: If one of the tracks cannot be decoded.
        ValueError: If the run's text tower is not frozen, so that there is no space for the baselines to aim at.
    """
    module: AlignmentModule = run.model
    if not module.network.text.frozen:
        raise ValueError("the baselines aim at a frozen text encoder, and the run trained its own")
    read = _reader(module)
    training, validation = run.datamodule.training_set, run.datamodule.evaluation_sets["validation"]
    if training is None:
        raise ValueError("the run has no training set; the baselines need what fit prepared")
    train = track_statistics(training.windows)
    pairs = [(row, text) for row in sorted(train) for text in _texts(training.tracks[row])]
    heard = track_statistics(validation.windows)
    test = track_statistics(WindowSet(tracks, module.network.audio, module.network.windows), refuse=True)
    test_features = torch.stack([test[row] for row in range(len(tracks))])
    train_features = torch.stack([train[row] for row, _ in pairs])
    ridge = ridge_baseline(
        train_features,
        read([text for _, text in pairs]),
        test_features,
        validation_features=torch.stack([heard[row] for row in validation.rows]),
        validation_text=read(validation.texts),
        validation_relevance=validation.relevance,
    ).vectors
    projected = random_projection_baseline(train_features, test_features, dim=ridge.shape[1])
    vectors = embedder.embed_files(tracks, raise_errors=True).embeddings.vectors
    return [
        Method("xmodal", vectors, embedder.embed_texts),
        Method("ridge on mel statistics", ridge, read),
        Method("random projection", projected, read),
    ]


def _reader(module: AlignmentModule) -> Callable[[Sequence[str]], Float[Tensor, "texts width"]]:
    """What the frozen encoder itself says of texts, as unit vectors."""

    def read(texts: Sequence[str]) -> Float[Tensor, "texts width"]:
        # With token heads a reading is the text's vector and then its tokens'. Block by block, for tokens are many.
        blocks = [module.read_texts(texts[first : first + 512]) for first in range(0, len(texts), 512)]
        rows = [reading if reading.ndim == 1 else reading[0] for block in blocks for reading in block]
        return normalize(torch.stack(rows).cpu(), dim=1)

    return read


def _texts(track: Track) -> list[str]:
    """What the ridge learns a track by: its captions, or a plain list of its tags."""
    if track.captions:
        return [caption.text for caption in track.captions]
    return [", ".join(tag for tags in track.tags.values() for tag in tags)] if track.tags else []


def track_statistics(windows: AnyWindows, *, refuse: bool = False) -> dict[int, Tensor]:
    """Mel statistics of each track, the mean over its windows; tracks that cannot be decoded are left out.

    Raises:
        AudioError: If a track cannot be decoded and ``refuse`` is on.
        ValueError: If what was kept of the windows is a frozen tower's vectors.
    """
    if windows.encoded:
        raise ValueError("the baselines hear log-mels, and the run kept a frozen tower's vectors; set data.cache: none")
    rows: dict[int, list[Tensor]] = {}
    if refuse and windows.failures:
        raise windows.failures[0]
    for entry in range(len(windows)):
        item = windows[entry]
        if isinstance(item, AudioError):
            if refuse:
                raise item
            continue
        statistics = mel_statistics(item.values[None], torch.tensor([item.valid_frames]))[0]
        rows.setdefault(windows.entries[entry][0], []).append(statistics)
    return {row: torch.stack(found).mean(dim=0) for row, found in rows.items()}
