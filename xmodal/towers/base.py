"""What every tower is: the audio side and the text side of a two-tower model.

Conventions
-----------
A tower ends before the projection: it gives feature vectors of any length, not unit vectors. Its answer for one
item must not depend on the items beside it, on their order, or on how far the item was padded; the contract
tests hold every tower to 1e-6 in evaluation mode. Towers are float32 outside of autocast.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from xmodal.configurable import Configurable
from xmodal.errors import ModelError
from xmodal.towers.front_end import FrontEnd


class AudioTower(nn.Module, Configurable, ABC):
    """Waveforms to feature vectors, in two steps so that the first may run and be cached elsewhere.

    ``features`` is the fixed front end and ``encode`` the learned network; ``forward`` is both in a row.

    Attributes:
        sample_rate: Samples a second that the waveforms must have.
        feature_dim: Length of the vectors.
        shortest: Samples that the network needs; shorter clips are continued with zeros.
        front_end: The log-mel spectrogram, or the plain waveform; part of the tower's identity.
        frozen: No weight of the tower is trained.
        asset_prefixes: Prefixes of the state dict whose tensors :meth:`save_assets` writes.
    """

    sample_rate: int
    feature_dim: int
    shortest: int = 1
    frozen: bool = False
    asset_prefixes: tuple[str, ...] = ()

    def __init__(self, front_end: FrontEnd, feature_dim: int) -> None:
        super().__init__()
        self.front_end = front_end
        self.sample_rate = front_end.sample_rate
        self.feature_dim = feature_dim

    def features(self, waveform: Float[Tensor, "clips samples"]) -> Float[Tensor, "clips bands frames"]:
        """Log-mel features or samples, always float32. Padding at the end of a waveform must be zeros."""
        return self.front_end(waveform)

    def valid_frames(self, valid_samples: Int[Tensor, " clips"]) -> Int[Tensor, " clips"]:
        """How many frames of ``features`` describe audio and not padding."""
        return self.front_end.frames(valid_samples)

    @abstractmethod
    def encode(
        self,
        features: Float[Tensor, "clips bands frames"],
        valid_frames: Int[Tensor, " clips"] | None = None,
    ) -> Float[Tensor, "clips feature_dim"]:
        """Feature vectors of the first ``valid_frames`` frames of each clip.

        Args:
            features: What :meth:`features` gave.
            valid_frames: Frames to look at, at least one a clip; ``None`` means all.
        """

    def depth_maps(
        self,
        features: Float[Tensor, "clips bands frames"],
        valid_frames: Int[Tensor, " clips"] | None = None,
    ) -> list[tuple[Float[Tensor, "clips channels bands frames"], Int[Tensor, " clips"] | None]]:
        """The maps behind each block and how many of their frames are audio, for heads at several depths.

        Raises:
            ModelError: If the tower does not show them.
        """
        raise ModelError(f"{type(self).__name__} does not show its inner maps; use MobileCnn or ShortChunkResNet")

    def from_maps(
        self,
        maps: Float[Tensor, "clips channels bands frames"],
        valid_frames: Int[Tensor, " clips"] | None,
    ) -> Float[Tensor, "clips feature_dim"]:
        """Feature vectors from the last of :meth:`depth_maps`."""
        raise ModelError(f"{type(self).__name__} does not show its inner maps; use MobileCnn or ShortChunkResNet")

    def forward(
        self,
        waveform: Float[Tensor, "clips samples"],
        valid_samples: Int[Tensor, " clips"] | None = None,
    ) -> Float[Tensor, "clips feature_dim"]:
        """Feature vectors of the first ``valid_samples`` samples of each clip.

        Args:
            waveform: Mono audio in [-1, 1] at ``sample_rate``.
            valid_samples: Samples to listen to, at least one a clip; what follows is ignored. ``None`` means all.
        """
        if valid_samples is None:
            return self.encode(self.features(waveform))
        padding = torch.arange(waveform.shape[-1], device=waveform.device) >= valid_samples[:, None]
        return self.encode(self.features(waveform.masked_fill(padding, 0.0)), self.valid_frames(valid_samples))

    def save_assets(self, folder: Path) -> dict[str, Any]:
        """Write what the tower needs besides its weights; as :meth:`TextTower.save_assets`."""
        return {}

    def identity(self) -> dict[str, Any]:
        """Everything besides the weights that shapes the vectors, ready for JSON and free of file paths."""
        return {"tower": type(self).__name__, "front_end": self.front_end.identity(), "feature_dim": self.feature_dim}


@dataclass
class TextBatch:
    """Texts as the chunks of tokens that a text tower reads.

    Attributes:
        inputs: Tensors whose first axis is the chunks.
        owner: The text that each chunk belongs to, ascending.
        count: Number of texts.
    """

    inputs: dict[str, Tensor]
    owner: Int[Tensor, " chunks"]
    count: int

    def to(self, device: torch.device | str, non_blocking: bool = False) -> TextBatch:
        """The same batch on another device."""
        inputs = {name: tensor.to(device, non_blocking=non_blocking) for name, tensor in self.inputs.items()}
        return TextBatch(inputs, self.owner.to(device, non_blocking=non_blocking), self.count)


class TextTower(nn.Module, Configurable, ABC):
    """Texts to feature vectors: ``tokenize`` runs in a loader's worker, ``encode`` on the device.

    Attributes:
        feature_dim: Length of the vectors.
        max_tokens: Tokens that one chunk holds; longer texts become several chunks.
        frozen: What :meth:`read` gives depends on the text alone and never changes in training, so it may be cached.
        asset_prefixes: Prefixes of the state dict whose tensors :meth:`save_assets` writes.
        reads_fields: Texts that name fields (:func:`xmodal.text.parse_fields`) are read field by field; other towers
            read the names as words.
    """

    feature_dim: int
    max_tokens: int
    reads_fields: bool = False
    frozen: bool = False
    asset_prefixes: tuple[str, ...] = ()

    @abstractmethod
    def tokenize(self, texts: Sequence[str]) -> TextBatch:
        """Cut texts into chunks of tokens; nothing is truncated.

        Raises:
            ValueError: If there is no text, or one of them is blank.
        """

    @abstractmethod
    def encode(self, batch: TextBatch) -> Float[Tensor, "texts feature_dim"]:
        """One feature vector a text, its chunks pooled."""

    def read(self, batch: TextBatch, *, half: bool = False) -> list[Tensor]:
        """The part of ``encode`` that a frozen tower never trains, text by text; what a cache keeps.

        Args:
            batch: What :meth:`tokenize` gave.
            half: Allow bfloat16, which is for training alone: faster, and 1 % off.
        """
        return list(self.encode(batch))

    def combine(self, readings: Sequence[Tensor]) -> Float[Tensor, "texts feature_dim"]:
        """The rest of ``encode``: ``combine(read(batch))`` equals ``encode(batch)``."""
        return torch.stack(list(readings))

    def forward(self, texts: Sequence[str]) -> Float[Tensor, "texts feature_dim"]:
        """Tokenise and encode on the device of the tower's weights."""
        return self.encode(self.tokenize(texts).to(next(self.parameters()).device))

    def save_assets(self, folder: Path) -> dict[str, Any]:
        """Write what the tower needs besides its weights.

        Args:
            folder: The model's folder; existing files of the same names are replaced.

        Returns:
            Constructor arguments that replace the tower's own when it is loaded. Those that are text are paths
            relative to ``folder``.
        """
        return {}

    def identity(self) -> dict[str, Any]:
        """Everything besides the weights that shapes the vectors, ready for JSON and free of file paths."""
        return {"tower": type(self).__name__, "max_tokens": self.max_tokens, "feature_dim": self.feature_dim}


def weights_digest(module: nn.Module) -> str:
    """32 hex digits that name a module's weights, wherever they lie: another weight, another name."""
    return tensors_digest(module.state_dict())


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """As :func:`weights_digest`, of some tensors by name."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        if name.endswith("num_batches_tracked"):  # counts training steps, shapes nothing
            continue
        array = tensor.detach().cpu().contiguous()
        digest.update(f"{name}|{array.dtype}|{tuple(array.shape)}|".encode())
        digest.update(array.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def require_texts(texts: Sequence[str]) -> list[str]:
    """The texts as a list, refused where one of them says nothing.

    Raises:
        TypeError: If ``texts`` is one string.
        ValueError: If there is no text, or one of them is blank.
    """
    if isinstance(texts, str):
        raise TypeError(f"texts must be a list of strings, got the single string {texts[:40]!r}; put it in a list")
    if not texts:
        raise ValueError("at least one text is needed, got an empty list")
    for position, text in enumerate(texts):
        if not text.strip():
            raise ValueError(f"text {position} is blank ({text!r}) and has no vector; leave it out")
    return list(texts)


def only_if_padded(valid_frames: Int[Tensor, " clips"] | None, frames: int) -> Int[Tensor, " clips"] | None:
    """``None`` where no clip is padded, as in most training batches: masks cost a fifth of a step for nothing."""
    # A compiled or exported graph cannot branch on values; there the masks stay.
    if valid_frames is None or torch.compiler.is_compiling() or bool((valid_frames < frames).any()):
        return valid_frames
    return None


def frame_mask(valid_frames: Int[Tensor, " clips"], frames: int) -> Bool[Tensor, "clips frames"]:
    """True at the frames that are audio, False at padding."""
    return torch.arange(frames, device=valid_frames.device) < valid_frames[:, None]


def silence_padding(
    maps: Float[Tensor, "clips channels bands frames"],
    valid_frames: Int[Tensor, " clips"] | None,
) -> Float[Tensor, "clips channels bands frames"]:
    """Zero the padded frames, so that the next convolution sees what it sees beyond the end of an unpadded clip."""
    if valid_frames is None:
        return maps
    # A product costs a third of masked_fill here. Padding holds no NaN that could survive it: features are clamped.
    return maps * frame_mask(valid_frames, maps.shape[-1])[:, None, None, :].to(maps.dtype)
