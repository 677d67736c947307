"""What an audio tower does to a waveform before its network: a log-mel spectrogram, or nothing at all.

Networks that were trained elsewhere bring a front end of their own that depends on where a clip ends (they repeat it,
mirror it, or measure its loudness). They take the waveform as it is, and :func:`by_length` gives them clips of equal
length without padding, so that what they compute is what their authors' code computes for the clip alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from xmodal.configurable import Configurable


class FrontEnd(nn.Module, Configurable, ABC):
    """Waveforms to features: fixed, without trained weights, and part of a tower's identity.

    Attributes:
        sample_rate: Samples a second that the waveforms must have.
    """

    sample_rate: int

    @abstractmethod
    def forward(self, waveform: Float[Tensor, "clips samples"]) -> Float[Tensor, "clips bands frames"]:
        """Features of mono audio in [-1, 1], always float32."""

    @abstractmethod
    def frames(self, samples: Int[Tensor, " clips"]) -> Int[Tensor, " clips"]:
        """Frames that describe clips of these lengths (ValueError if one has no sample)."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """The settings that shape the features, ready for JSON."""


class RawWaveform(FrontEnd):
    """The samples themselves, as one band; a frame is a sample.

    Args:
        sample_rate: Samples a second of the waveforms.
    """

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        if sample_rate < 1:
            raise ValueError(f"sample_rate must be at least 1, got {sample_rate}")
        self.sample_rate = sample_rate

    def forward(self, waveform: Float[Tensor, "clips samples"]) -> Float[Tensor, "clips 1 samples"]:
        """The waveform with an axis for its only band."""
        check_waveform(waveform)
        return waveform.float()[:, None, :]

    def frames(self, samples: Int[Tensor, " clips"]) -> Int[Tensor, " clips"]:
        """As many as samples."""
        check_samples(samples)
        return samples

    def identity(self) -> dict[str, Any]:
        """The sample rate."""
        return {"front_end": "RawWaveform", "sample_rate": self.sample_rate}


def by_length(
    network: Callable[[Tensor], Tensor],
    features: Float[Tensor, "clips 1 samples"],
    valid_samples: Int[Tensor, " clips"] | None,
    *,
    shortest: int = 1,
    longest: int | None = None,
) -> Float[Tensor, "clips width"]:
    """Give a network clips of equal length, each without its padding, and put its answers back in order.

    Nearly all windows are of one length, so this costs nothing; a file's short last window is a pass of its own.

    Args:
        network: Waveforms ``[clips, samples]`` without padding to vectors.
        features: What :class:`RawWaveform` gave.
        valid_samples: Samples of each clip that are audio; None means all. In an exported graph, which cannot branch,
            it is not looked at: whoever runs the graph hands over clips without padding and not too short.
        shortest: Samples that the network needs; a shorter clip is continued with zeros.
        longest: Samples that the network takes at most; None means any number.

    Raises:
        ValueError: If a clip has no valid sample, or more than ``longest``.
    """
    waveform = features[:, 0]
    if torch.compiler.is_compiling():
        return network(waveform)
    if valid_samples is None:
        _check_longest(waveform.shape[1], longest)
        return network(_at_least(waveform, shortest))
    if bool((valid_samples < 1).any()):
        empty = (valid_samples < 1).nonzero().flatten().tolist()
        raise ValueError(f"every clip needs at least one valid frame; clips {empty} have none")
    lengths = valid_samples.clamp(max=waveform.shape[1])
    order, parts = [], []
    for length in lengths.unique().tolist():
        _check_longest(length, longest)
        rows = (lengths == length).nonzero().flatten()
        order.append(rows)
        parts.append(network(_at_least(waveform[rows, :length], shortest)))
    return torch.cat(parts)[torch.cat(order).argsort()]


def check_waveform(waveform: Tensor) -> None:
    """Refuse what is no matrix of samples (ValueError)."""
    if waveform.dim() != 2 or waveform.shape[1] == 0 or not waveform.is_floating_point():
        raise ValueError(
            f"waveform must be floating-point samples [clips, samples] in [-1, 1], got {waveform.dtype} "
            f"{list(waveform.shape)}"
        )


def check_samples(samples: Int[Tensor, " clips"]) -> None:
    """Refuse clips without a sample (ValueError)."""
    if not torch.compiler.is_compiling() and bool((samples < 1).any()):
        raise ValueError(f"every clip needs at least one valid sample, got {samples.tolist()}")


def _at_least(waveform: Tensor, shortest: int) -> Tensor:
    missing = shortest - waveform.shape[1]
    return F.pad(waveform, (0, missing)) if missing > 0 else waveform


def _check_longest(samples: int, longest: int | None) -> None:
    if longest is not None and samples > longest:
        raise ValueError(
            f"this network hears at most {longest} samples at a time, got {samples}; "
            "set the model's window_seconds lower"
        )
