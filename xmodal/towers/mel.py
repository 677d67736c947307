"""The log-mel front end of the audio towers.

Conventions
-----------
Frame ``i`` is centred on sample ``i * hop``; the waveform continues as zeros on both sides. A clip therefore has
the same frames whether it stands alone or is zero-padded, and ``samples`` samples have ``1 + samples // hop`` frames.
0 dB is a full-scale sine on a bin's centre. The normalisation is two constants: nothing is measured on the clip or
the batch, because one loud clip must not change the features of another, nor an intro those of a chorus.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

import xmodal.compat  # noqa: F401  (makes torchaudio importable beside a CPU build of torch)

# isort: split
from torchaudio.functional import melscale_fbanks

from xmodal.towers.front_end import FrontEnd, check_samples, check_waveform


class LogMel(FrontEnd):
    """Waveforms to normalised log-mel spectrograms, in float32 whatever the autocast or the module's own type.

    The value of a band is ``(dB - mean_db) / std_db``, where dB is clamped from below at ``floor_db``. With the
    defaults, silence is -2 and a full-scale sine about +2.

    Args:
        sample_rate: Samples a second of the waveforms.
        n_fft: Window length in samples (periodic Hann).
        hop: Samples between the centres of two frames.
        bands: Number of mel bands.
        f_min: Lower edge of the lowest band in Hz.
        f_max: Upper edge of the highest band in Hz; ``None`` means the Nyquist frequency.
        power: 2 sums energies in a band, 1 amplitudes.
        mel_scale: ``"htk"`` (O'Shaughnessy 1987) or ``"slaney"`` (linear below 1 kHz).
        unit_area: Divide each filter by its bandwidth.
        floor_db: Everything quieter counts as this loud, in dB below a full-scale sine.
        mean_db: Decibels that become 0.
        std_db: Decibels that become 1.

    Raises:
        ValueError: If a setting is out of range, ``f_max`` is above the Nyquist frequency, or a band is so narrow
            that no bin of the FFT falls into it.
    """

    window: Tensor
    filters: Tensor

    def __init__(
        self,
        sample_rate: int = 16_000,
        n_fft: int = 1024,
        hop: int = 320,
        bands: int = 64,
        f_min: float = 0.0,
        f_max: float | None = None,
        power: float = 2.0,
        mel_scale: Literal["htk", "slaney"] = "htk",
        unit_area: bool = False,
        floor_db: float = -80.0,
        mean_db: float = -40.0,
        std_db: float = 20.0,
    ) -> None:
        super().__init__()
        for name, value in (("sample_rate", sample_rate), ("n_fft", n_fft), ("hop", hop), ("bands", bands)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if hop > n_fft:
            raise ValueError(f"hop must not exceed n_fft ({n_fft}), or samples between frames go unheard; got {hop}")
        if power <= 0 or std_db <= 0:
            raise ValueError(f"power and std_db must be positive, got power={power}, std_db={std_db}")
        nyquist = sample_rate / 2
        top = nyquist if f_max is None else f_max
        if not 0 <= f_min < top:
            raise ValueError(f"f_min must be from 0 to f_max ({top} Hz), got {f_min}")
        if top > nyquist:
            raise ValueError(
                f"f_max must not exceed the Nyquist frequency of {nyquist} Hz at {sample_rate} samples a second, "
                f"got {top}; lower it or raise sample_rate"
            )
        self.sample_rate, self.n_fft, self.hop, self.bands = sample_rate, n_fft, hop, bands
        self.f_min, self.f_max, self.power = f_min, top, power
        self.mel_scale, self.unit_area = mel_scale, unit_area
        self.floor_db, self.mean_db, self.std_db = floor_db, mean_db, std_db

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torchaudio warns of empty bands; they are refused below
            norm = "slaney" if unit_area else None
            filters = melscale_fbanks(n_fft // 2 + 1, f_min, top, bands, sample_rate, norm, mel_scale)
        empty = int((filters.amax(dim=0) <= 0).sum())
        if empty:
            raise ValueError(
                f"{empty} of {bands} bands lie between two bins of an n_fft of {n_fft} and would always be silent; "
                "raise n_fft or f_min, or lower bands"
            )
        window = torch.hann_window(n_fft)
        # A full-scale sine on a bin's centre has the amplitude sum(window) / 2 in the FFT.
        self.full_scale_db = 20.0 * math.log10(float(window.sum()) / 2)
        # Not persistent: both follow from the settings, and a checkpoint must not contradict its config.
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", filters, persistent=False)

    def frames(self, samples: Int[Tensor, " clips"]) -> Int[Tensor, " clips"]:
        """Frames of clips of these lengths.

        Raises:
            ValueError: If a clip has no sample.
        """
        check_samples(samples)
        return 1 + samples // self.hop

    def forward(self, waveform: Float[Tensor, "clips samples"]) -> Float[Tensor, "clips bands frames"]:
        """Normalised log-mel features.

        Args:
            waveform: Mono audio in [-1, 1] at ``sample_rate``.

        Raises:
            ValueError: If the waveform is not a matrix of floating-point samples.
        """
        check_waveform(waveform)
        # Asked first: a graph that is exported must not look at its number of clips.
        if torch.compiler.is_compiling() or waveform.device.type != "cpu" or len(waveform) < 2:
            return self._normalised(waveform)
        # One clip's spectrum stays in the cache of a core, that of many does not: half the time for ten seconds each.
        return torch.cat([self._normalised(clip) for clip in waveform.split(1)])

    def _normalised(self, waveform: Float[Tensor, "clips samples"]) -> Float[Tensor, "clips bands frames"]:
        # Half precision cannot hold the range of a power spectrum, so autocast is switched off here.
        with torch.autocast(waveform.device.type, enabled=False):
            spectrum = torch.stft(
                waveform.float(),
                n_fft=self.n_fft,
                hop_length=self.hop,
                window=self.window,
                center=True,
                pad_mode="constant",
                return_complex=True,
            )
            real, imaginary = spectrum.real, spectrum.imag
            energy = torch.addcmul(real.square(), imaginary, imaginary)  # a pass over memory less than a sum of squares
            if self.power != 2.0:
                energy = energy ** (self.power / 2)
            mel = torch.einsum("cft,fb->cbt", energy, self.filters)
            scale = 20.0 / self.power
            floor = 10.0 ** ((self.floor_db + self.full_scale_db) / scale)
            decibels = scale * mel.clamp(min=floor).log10() - self.full_scale_db
            return (decibels - self.mean_db) / self.std_db

    def identity(self) -> dict[str, Any]:
        """The settings that shape the features."""
        names = ("sample_rate", "n_fft", "hop", "bands", "f_min", "f_max", "power", "mel_scale", "unit_area")
        levels = ("floor_db", "mean_db", "std_db")
        return {"front_end": "LogMel"} | {name: getattr(self, name) for name in names + levels}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LogMel:
        # .half(), .bfloat16() and .double() on the whole model move the window and filters but keep them float32.
        def keep_float32(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep_float32, recurse)
