"""The spectrograms that the published music-tagging CNNs were trained on, in decibels, computed for the clip alone."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

import xmodal.compat  # noqa: F401  (makes torchaudio importable beside a CPU build of torch)

# isort: split
from torchaudio.functional import melscale_fbanks

_N_FFT = 512
_FLOOR = 1e-10


class Spectrum(nn.Module, ABC):
    """Waveforms to maps.

    Attributes:
        sample_rate: Of the waveforms, in Hz.
        hop: Samples between two frames.
    """

    sample_rate = 16_000
    hop = 256

    @abstractmethod
    def forward(self, waveform: Float[Tensor, "clips samples"]) -> Float[Tensor, "clips channels bands frames"]:
        """Decibels of clips without padding."""

    @abstractmethod
    def published(self) -> dict[str, Tensor]:
        """What a published checkpoint holds of the spectrogram itself, by its names there."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """The settings, ready for JSON."""


class MelSpectrum(Spectrum):
    """torchaudio's mel spectrogram with its defaults of 2020: HTK's scale, the clip mirrored at its ends.

    Args:
        bands: Mel bands from 0 to 8,000 Hz; some of 128 are narrower than a bin of the FFT, and silent.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, bands: int) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the published networks have silent bands
            filters = melscale_fbanks(_N_FFT // 2 + 1, 0.0, 8000.0, bands, self.sample_rate)
        self.bands = bands
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(_N_FFT), persistent=False)

    def forward(self, waveform: Float[Tensor, "clips samples"]) -> Float[Tensor, "clips 1 bands frames"]:
        """Decibels, at least -100."""
        with torch.autocast(waveform.device.type, enabled=False):
            mel = torch.einsum("cft,fb->cbt", _power(waveform, self.window), self.filters)
            return 10.0 * mel.clamp(min=_FLOOR).log10()[:, None]

    def published(self) -> dict[str, Tensor]:
        """The window and the filters."""
        return {"spec.spectrogram.window": self.window, "spec.mel_scale.fb": self.filters}

    def identity(self) -> dict[str, Any]:
        """The number of bands."""
        return {"kind": "torchaudio mel", "bands": self.bands, "n_fft": _N_FFT, "hop": self.hop}


class JamendoSpectrum(Spectrum):
    """Essentia's mel bands as the MTG-Jamendo baselines use them: Slaney's scale, filters of unit area.

    The clip continues as zeros at its ends; frames are counted until one begins after the last sample. Decibels are of
    a power: the script that is published today doubles them, but the checkpoint's own first normalisation (mean -22.7,
    deviation 17.9) fits music only without that (measured -27 and 19 so, -54 and 37 doubled).
    """

    sample_rate = 12_000
    window: Tensor
    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        filters = melscale_fbanks(_N_FFT // 2 + 1, 0.0, 6000.0, 96, self.sample_rate, "slaney", "slaney")
        # Essentia's windows are symmetric.
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(_N_FFT, periodic=False), persistent=False)

    def forward(self, waveform: Float[Tensor, "clips samples"]) -> Float[Tensor, "clips 1 bands frames"]:
        """Decibels, at least -100."""
        samples = waveform.shape[1]
        frames = (samples + _N_FFT // 2 + self.hop - 1) // self.hop
        end = (frames - 1) * self.hop + _N_FFT - _N_FFT // 2 - samples
        with torch.autocast(waveform.device.type, enabled=False):
            padded = F.pad(waveform.float(), (_N_FFT // 2, end))
            spectrum = torch.stft(padded, _N_FFT, self.hop, window=self.window, center=False, return_complex=True)
            power = spectrum.real.square() + spectrum.imag.square()
            mel = torch.einsum("cft,fb->cbt", power, self.filters)
            return 10.0 * mel.clamp(min=_FLOOR).log10()[:, None]

    def published(self) -> dict[str, Tensor]:
        """Nothing: its spectrograms were made beforehand."""
        return {}

    def identity(self) -> dict[str, Any]:
        """The kind."""
        return {"kind": "essentia mel", "bands": 96, "n_fft": _N_FFT, "hop": self.hop}


class HarmonicSpectrum(Spectrum):
    """Triangular filters around each half semitone from C1 and its harmonics, of a learned width.

    The filter at f Hz is ``(0.1079 f + 24.7) / quality`` wide, as critical bands are (Won et al. 2020, section 2.2).
    """

    harmonics, levels, lowest_midi = 6, 128, 24
    window: Tensor
    centres: Tensor
    bins: Tensor

    def __init__(self) -> None:
        super().__init__()
        midi = self.lowest_midi + torch.arange(self.levels, dtype=torch.float64) / 2
        notes = 440.0 * 2.0 ** ((midi - 69) / 12)
        centres = torch.cat([notes * (harmonic + 1) for harmonic in range(self.harmonics)])
        self.quality = nn.Parameter(torch.ones(1))
        self.register_buffer("centres", centres.float(), persistent=False)
        self.register_buffer("bins", torch.linspace(0, self.sample_rate / 2, _N_FFT // 2 + 1), persistent=False)
        self.register_buffer("window", torch.hann_window(_N_FFT), persistent=False)

    def forward(self, waveform: Float[Tensor, "clips samples"]) -> Float[Tensor, "clips harmonics levels frames"]:
        """Decibels, at least -100."""
        with torch.autocast(waveform.device.type, enabled=False):
            slope = 2.0 * self.quality / (0.1079 * self.centres + 24.7)
            distance = self.bins[:, None] - self.centres
            filters = (1.0 - distance.abs() * slope).clamp(min=0.0)
            heard = torch.einsum("cft,fb->cbt", _power(waveform, self.window), filters)
            return 10.0 * heard.unflatten(1, (self.harmonics, self.levels)).clamp(min=_FLOOR).log10()

    def published(self) -> dict[str, Tensor]:
        """The window."""
        return {"hstft.spec.window": self.window}

    def identity(self) -> dict[str, Any]:
        """The kind."""
        return {
            "kind": "harmonic",
            "harmonics": self.harmonics,
            "levels": self.levels,
            "n_fft": _N_FFT,
            "hop": self.hop,
        }


def _power(waveform: Tensor, window: Tensor) -> Float[Tensor, "clips bins frames"]:
    half = _N_FFT // 2
    if waveform.shape[1] <= half:  # too short to be mirrored
        waveform = F.pad(waveform, (0, half + 1 - waveform.shape[1]))
    spectrum = torch.stft(
        waveform.float(), _N_FFT, Spectrum.hop, window=window, pad_mode="reflect", return_complex=True
    )
    return spectrum.real.square() + spectrum.imag.square()
