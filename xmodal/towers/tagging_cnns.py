"""The published music-tagging CNNs as towers: layers, front ends and checkpoints (Won et al. 2020, arXiv:2006.00751).

A tower hears what its network heard in training, mirrored ends of the clip included, and takes over a published state
dict strictly: every weight is used, and the window and filters that lie in a checkpoint must be those computed here.
The dense layer that names tags is not part of a tower, whose vectors are what that layer sees; ``load_published`` hands
it over. A clip too short for the network's poolings is continued with zeros; for a longer one than in training the
networks pool over what is left of time.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from xmodal.errors import ModelError
from xmodal.towers.base import AudioTower
from xmodal.towers.front_end import RawWaveform, by_length
from xmodal.towers.tagging_spectra import HarmonicSpectrum, JamendoSpectrum, MelSpectrum, Spectrum

_FILTER_TOLERANCE = 2e-3  # torchaudio's filters differ from version to version by rounding


class TaggingCnn(AudioTower):
    """What the published tagging CNNs share; each of the classes below is one of them.

    Args:
        spectrum: Waveforms to maps.
        feature_dim: Length of the vectors.
        frames: Frames that the poolings over time need.
    """

    _head: str  # the dense layer that names tags
    _renamed: Mapping[str, str] = {}

    def __init__(self, spectrum: Spectrum, feature_dim: int, frames: int) -> None:
        super().__init__(RawWaveform(spectrum.sample_rate), feature_dim)
        self.spectrum = spectrum
        self.shortest = (frames - 1) * spectrum.hop

    @abstractmethod
    def pooled(self, maps: Float[Tensor, "clips channels bands frames"]) -> Float[Tensor, "clips width"]:
        """Normalised maps to one vector a clip, before any dense layer."""

    @abstractmethod
    def normalise(
        self, maps: Float[Tensor, "clips channels bands frames"]
    ) -> Float[Tensor, "clips channels bands frames"]:
        """The first batch normalisation."""

    def dense(self, pooled: Float[Tensor, "clips width"]) -> Float[Tensor, "clips feature_dim"]:
        """The dense layer before the one that names tags, where there is one."""
        return pooled

    def encode(
        self, features: Float[Tensor, "clips 1 samples"], valid_frames: Int[Tensor, " clips"] | None = None
    ) -> Float[Tensor, "clips feature_dim"]:
        """Feature vectors of the first ``valid_frames`` samples of each clip."""
        if self.training:
            valid_frames = None  # batch normalisation wants all clips in one pass; padding is heard as silence then
        return self.dense(by_length(self._hear, features, valid_frames, shortest=self.shortest))

    def _hear(self, waveform: Float[Tensor, "clips samples"]) -> Float[Tensor, "clips width"]:
        return self.pooled(self.normalise(self.spectrum(waveform)))

    def load_published(self, weights: Mapping[str, Tensor] | str | Path) -> nn.Linear:
        """Take over a published checkpoint.

        Args:
            weights: A state dict, or the file of one.

        Returns:
            The dense layer that names tags, from the tower's vectors to logits.

        Raises:
            ModelError: If the file cannot be read, a weight is missing, unknown or of another shape, or the checkpoint
                was trained with another spectrogram.
        """
        name = str(weights) if isinstance(weights, str | Path) else "the state dict"
        state = dict(read_weights(weights) if isinstance(weights, str | Path) else weights)
        head = {part: state.pop(f"{self._head}.{part}", None) for part in ("weight", "bias")}
        if head["weight"] is None or head["bias"] is None or head["weight"].shape[1:] != (self.feature_dim,):
            raise ModelError(
                f"{name}: no layer {self._head} from {self.feature_dim} features to tags; another network?"
            )
        for key, expected in self.spectrum.published().items():
            found = state.pop(key, None)
            if found is not None and (
                found.shape != expected.shape
                or (found - expected).abs().max() > _FILTER_TOLERANCE * expected.abs().max()
            ):
                raise ModelError(f"{name}: {key} is of another spectrogram than that of {type(self).__name__}")
        state = {self._renamed.get(key, key): tensor for key, tensor in state.items()}
        try:
            self.load_state_dict(state, strict=True)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ModelError(f"{name}: the weights are not those of {type(self).__name__}: {reason}") from error
        tags = nn.Linear(self.feature_dim, len(head["bias"]))
        tags.load_state_dict(head)
        return tags.eval()

    def save_assets(self, folder: Path) -> dict[str, Any]:
        """Nothing to write; the checkpoint that it once came from is no longer needed."""
        return {"weights": None}

    def identity(self) -> dict[str, Any]:
        """The spectrogram and the network."""
        return super().identity() | {"spectrum": self.spectrum.identity()}


class Fcn(TaggingCnn):
    """Choi et al. 2016 (arXiv:1606.00298): five convolutions, made for windows of 29.1 s; vectors of 64.

    Args:
        jamendo: The layout of the MTG-Jamendo baseline (12 kHz, ELU) and not that of Won et al. (16 kHz, ReLU).
        channels: Of the first and last layer; those between have twice as many.
        weights: A published checkpoint to start from.
    """

    def __init__(self, jamendo: bool = False, channels: int = 64, weights: str | None = None) -> None:
        super().__init__(JamendoSpectrum() if jamendo else MelSpectrum(96), channels, 4 * 4 * 4 * 5 * 4)
        self.jamendo = jamendo
        sizes = (1, channels, *3 * (2 * channels,), channels)
        self.spec_bn = nn.BatchNorm2d(1)
        for number in range(5):
            poolings = ((2, 4), (2, 4), (2, 4), (3, 5), (4, 4))
            block = _Conv(sizes[number], sizes[number + 1], poolings[number], nn.ELU() if jamendo else nn.ReLU())
            setattr(self, f"layer{number + 1}", block)
        self._head = "dense"
        if jamendo:
            self._renamed = _jamendo_names(self.state_dict())
        if weights is not None:
            self.load_published(weights)

    def normalise(self, maps: Tensor) -> Tensor:
        """One mean and deviation for the whole spectrogram."""
        return self.spec_bn(maps)

    def pooled(self, maps: Tensor) -> Tensor:
        """The mean over what is left of time, which in training was one step."""
        for number in range(5):
            maps = getattr(self, f"layer{number + 1}")(maps)
        return maps.mean(dim=(2, 3))


class Musicnn(TaggingCnn):
    """Pons et al. 2018 (arXiv:1711.02520): timbral and temporal filters, made for windows of 3 s.

    Args:
        large: The sizes for the Million Song Dataset (vectors of 500) and not for smaller ones (200).
        weights: A published checkpoint to start from.
    """

    def __init__(self, large: bool = False, weights: str | None = None) -> None:
        width = 500 if large else 200
        super().__init__(MelSpectrum(96), width, 2)
        self.large = large
        channels = 512 if large else 64
        self.spec_bn = nn.BatchNorm2d(1)
        timbral = [_Timbral(204, share) for share in (67, 38)]
        temporal = [_Temporal(51, length) for length in (129, 65, 33)]
        self.layers = nn.ModuleList([*timbral, *temporal])
        self.layer1 = _Conv1d(561, channels)
        self.layer2 = _Conv1d(channels, channels)
        self.layer3 = _Conv1d(channels, channels)
        self.dense1 = nn.Linear(2 * (561 + 3 * channels), width)
        self.bn = nn.BatchNorm1d(width)
        self._head = "dense2"
        if weights is not None:
            self.load_published(weights)

    def normalise(self, maps: Tensor) -> Tensor:
        """One mean and deviation for the whole spectrogram."""
        return self.spec_bn(maps)

    def pooled(self, maps: Tensor) -> Tensor:
        """Maximum and mean over time of the front end and of three residual layers."""
        front = torch.cat([layer(maps) for layer in self.layers], dim=1)
        first = self.layer1(front)
        second = self.layer2(first) + first
        third = self.layer3(second) + second
        series = torch.cat([front, first, second, third], dim=1)
        return torch.cat([series.amax(dim=2), series.mean(dim=2)], dim=1)

    def dense(self, pooled: Tensor) -> Tensor:
        """The dense layer before the tags."""
        return F.relu(self.bn(self.dense1(pooled)))


class ShortChunkCnn(TaggingCnn):
    """The short-chunk CNN of Won et al. 2020: seven 3x3 convolutions that halve, made for windows of 3.7 s.

    Args:
        residual: The variant with residual blocks.
        channels: Of the first layer; the last has four times as many.
        weights: A published checkpoint to start from.
    """

    def __init__(self, residual: bool = False, channels: int = 128, weights: str | None = None) -> None:
        # Seven strides of 2 leave one step of a single frame; seven poolings by 2 need 128.
        super().__init__(MelSpectrum(128), 4 * channels, 2 if residual else 128)
        self.residual, self.channels = residual, channels
        self.spec_bn = nn.BatchNorm2d(1)
        sizes = (1, channels, channels, *4 * (2 * channels,), 4 * channels)
        for number in range(7):
            pair = sizes[number], sizes[number + 1]
            block = _Residual(*pair, stride=2) if residual else _Conv(*pair, (2, 2), nn.ReLU())
            setattr(self, f"layer{number + 1}", block)
        self.dense1 = nn.Linear(4 * channels, 4 * channels)
        self.bn = nn.BatchNorm1d(4 * channels)
        self._head = "dense2"
        if weights is not None:
            self.load_published(weights)

    def normalise(self, maps: Tensor) -> Tensor:
        """One mean and deviation for the whole spectrogram."""
        return self.spec_bn(maps)

    def pooled(self, maps: Tensor) -> Tensor:
        """The largest value of each channel."""
        for number in range(7):
            maps = getattr(self, f"layer{number + 1}")(maps)
        return maps.amax(dim=(2, 3))

    def dense(self, pooled: Tensor) -> Tensor:
        """The dense layer before the tags."""
        return F.relu(self.bn(self.dense1(pooled)))


class HarmonicCnn(TaggingCnn):
    """Won et al. 2020 (ICASSP): learned band-pass filters at the harmonics of a note, made for windows of 5 s.

    Args:
        channels: Of the first four layers; the last three have twice as many.
        weights: A published checkpoint to start from.
    """

    def __init__(self, channels: int = 128, weights: str | None = None) -> None:
        super().__init__(HarmonicSpectrum(), 2 * channels, 2**5 * 9)
        self.channels = channels
        self.hstft_bn = nn.BatchNorm2d(HarmonicSpectrum.harmonics)
        double = 2 * channels
        self.layer1 = _Conv(HarmonicSpectrum.harmonics, channels, (2, 2), nn.ReLU())
        self.layer2 = _Residual(channels, channels, pooling=(2, 2))
        self.layer3 = _Residual(channels, channels, pooling=(2, 2))
        self.layer4 = _Residual(channels, channels, pooling=(2, 2))
        self.layer5 = _Conv(channels, double, (2, 2), nn.ReLU())
        self.layer6 = _Residual(double, double, pooling=(2, 3))
        self.layer7 = _Residual(double, double, pooling=(2, 3))
        self.dense1 = nn.Linear(double, double)
        self.bn = nn.BatchNorm1d(double)
        self._head, self._renamed = "dense2", {"hstft.bw_Q": "spectrum.quality"}
        if weights is not None:
            self.load_published(weights)

    def normalise(self, maps: Tensor) -> Tensor:
        """A mean and deviation for each harmonic."""
        return self.hstft_bn(maps)

    def pooled(self, maps: Tensor) -> Tensor:
        """The largest value of each channel."""
        for number in range(7):
            maps = getattr(self, f"layer{number + 1}")(maps)
        return maps.amax(dim=(2, 3))

    def dense(self, pooled: Tensor) -> Tensor:
        """The dense layer before the tags."""
        return F.relu(self.bn(self.dense1(pooled)))


class _Conv(nn.Module):
    folds = (("conv", "bn"),)

    def __init__(self, before: int, after: int, pooling: tuple[int, int], activation: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, padding=1)
        self.bn = nn.BatchNorm2d(after)
        self.activation, self.pooling = activation, pooling

    def forward(self, maps: Tensor) -> Tensor:
        return F.max_pool2d(self.activation(self.bn(self.conv(maps))), self.pooling)


class _Residual(nn.Module):
    """Two 3x3 convolutions beside the input, or beside a strided convolution of it; then perhaps a pooling."""

    folds = (("conv_1", "bn_1"), ("conv_2", "bn_2"), ("conv_3", "bn_3"))

    def __init__(self, before: int, after: int, *, stride: int = 1, pooling: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(before, after, 3, stride=stride, padding=1)
        self.bn_1 = nn.BatchNorm2d(after)
        self.conv_2 = nn.Conv2d(after, after, 3, padding=1)
        self.bn_2 = nn.BatchNorm2d(after)
        self.bypass = stride != 1
        if self.bypass:
            self.conv_3 = nn.Conv2d(before, after, 3, stride=stride, padding=1)
            self.bn_3 = nn.BatchNorm2d(after)
        self.pooling = pooling

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.bn_2(self.conv_2(F.relu(self.bn_1(self.conv_1(maps)))))
        beside = self.bn_3(self.conv_3(maps)) if self.bypass else maps
        return F.max_pool2d(F.relu(inner + beside), self.pooling)


class _Timbral(nn.Module):
    """Filters as high as a part of the spectrum, the largest over the pitches they fit at."""

    folds = (("conv", "bn"),)

    def __init__(self, channels: int, bands: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, channels, (bands, 7), padding=(0, 3))
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, maps: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(maps))).amax(dim=2)


class _Temporal(nn.Module):
    """Long filters over the loudness of the whole spectrum."""

    folds = (("conv", "bn"),)

    def __init__(self, channels: int, length: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, channels, length, padding=length // 2)
        self.bn = nn.BatchNorm1d(channels)

    def forward(self, maps: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(maps.mean(dim=2))))


class _Conv1d(nn.Module):
    folds = (("conv", "bn"),)

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(before, after, 7, padding=3)
        self.bn = nn.BatchNorm1d(after)

    def forward(self, series: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(series)))


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """A state dict from a ``.safetensors`` file, or from a pickle by torch's restricted unpickler: no code is run.

    Raises:
        ModelError: If the file cannot be read or holds something else.
    """
    from safetensors.torch import load_file

    path = Path(path).expanduser()
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # what a damaged pickle raises is not listed anywhere
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{path}: no readable checkpoint ({reason}); give a .pth or .safetensors state dict"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(f"{path}: it holds no state dict (names and tensors) but {type(state).__name__}")
    return dict(state)


def _jamendo_names(own: Mapping[str, Tensor]) -> dict[str, str]:
    """The MTG-Jamendo baseline's names of the same weights."""
    names = {}
    for name in own:
        first, _, rest = name.partition(".")
        if first == "spec_bn":
            names[f"bn_init.{rest}"] = name
        elif first.startswith("layer"):
            kind, _, part = rest.partition(".")
            names[f"{kind}_{first.removeprefix('layer')}.{part}"] = name
    return names
