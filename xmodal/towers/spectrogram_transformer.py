"""The Audio Spectrogram Transformer as transformers publishes it (Gong et al. 2021, arXiv:2104.01778).

Its front end is Kaldi's filter bank, computed here in torch for whole batches, with the model's own mean and deviation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

import xmodal.compat  # noqa: F401  (makes torchaudio importable beside a CPU build of torch)

# isort: split
from torchaudio.compliance.kaldi import get_mel_banks

from xmodal.towers.base import AudioTower
from xmodal.towers.front_end import RawWaveform, by_length
from xmodal.towers.pretrained import load_encoder, load_part, quiet_transformers

_FRAME_SECONDS, _HOP_SECONDS = 0.025, 0.010
_PREEMPHASIS = 0.97
_LOWEST_HZ = 20.0
_FLOOR = 1.1920928955078125e-07  # the smallest step of float32 at 1, Kaldi's floor under a logarithm


class AstTower(AudioTower):
    """A pretrained Audio Spectrogram Transformer: the mean of its two class tokens, before any classifier.

    A clip shorter than the model's length is continued with zeros after the filter bank, as in training.

    Args:
        model: A folder, or the id of a model on the Hugging Face Hub, such as
            ``"MIT/ast-finetuned-audioset-10-10-0.4593"``.
        trainable: Let gradients into it; otherwise it stays in evaluation mode.

    Raises:
        ModelError: If it cannot be found or loaded.
    """

    asset_prefixes = ("encoder.",)
    filters: Tensor
    window: Tensor

    def __init__(self, model: str, trainable: bool = False) -> None:
        encoder = load_encoder(model, "ASTModel", kinds=("audio-spectrogram-transformer",), ignore=("classifier.",))
        extractor = load_part(model, "ASTFeatureExtractor")
        rate = int(extractor.sampling_rate)
        super().__init__(RawWaveform(rate), int(encoder.config.hidden_size))
        self.encoder = encoder.requires_grad_(trainable)
        self.extractor = extractor
        self.frozen = not trainable
        self.frame, self.hop = round(_FRAME_SECONDS * rate), round(_HOP_SECONDS * rate)
        self.shortest = self.frame
        self.n_fft = 1 << (self.frame - 1).bit_length()
        banks, _ = get_mel_banks(extractor.num_mel_bins, self.n_fft, rate, _LOWEST_HZ, 0.0, 100.0, -500.0, 1.0)
        # Not persistent: both follow from the settings. Kaldi's banks leave the Nyquist frequency out.
        self.register_buffer("filters", F.pad(banks, (0, 1)).T.contiguous(), persistent=False)
        self.register_buffer("window", torch.hann_window(self.frame, periodic=False), persistent=False)
        self.train(self.training)

    def encode(
        self, features: Float[Tensor, "clips 1 samples"], valid_frames: Int[Tensor, " clips"] | None = None
    ) -> Float[Tensor, "clips feature_dim"]:
        """Feature vectors of the first ``valid_frames`` samples of each clip."""
        # One sample short of the frame that the model has no position for.
        longest = self.frame + self.hop * int(self.extractor.max_length) - 1
        return by_length(self._embed, features, valid_frames, shortest=self.shortest, longest=longest)

    def filter_bank(self, waveform: Float[Tensor, "clips samples"]) -> Float[Tensor, "clips frames bands"]:
        """Kaldi's log filter bank: frames that lie wholly in the clip, their mean removed, pre-emphasised."""
        with torch.autocast(waveform.device.type, enabled=False):
            frames = waveform.float().unfold(1, self.frame, self.hop)
            frames = frames - frames.mean(dim=2, keepdim=True)
            before = torch.cat([frames[:, :, :1], frames[:, :, :-1]], dim=2)
            spectrum = torch.fft.rfft((frames - _PREEMPHASIS * before) * self.window, n=self.n_fft)
            power = spectrum.real.square() + spectrum.imag.square()
            return (power @ self.filters).clamp(min=_FLOOR).log()

    def train(self, mode: bool = True) -> Self:
        """Set training mode, unless the tower is frozen."""
        nn.Module.train(self, mode and not self.frozen)
        return self

    def save_assets(self, folder: Path) -> dict[str, Any]:
        """Write the encoder and the settings of its front end as a transformers folder."""
        with quiet_transformers():
            self.encoder.save_pretrained(folder / "audio_encoder")
            self.extractor.save_pretrained(folder / "audio_encoder")
        return {"model": "audio_encoder"}

    def identity(self) -> dict[str, Any]:
        """The filter bank and the sizes of the network."""
        said = ("sampling_rate", "num_mel_bins", "max_length", "do_normalize", "mean", "std")
        names = ("model_type", "num_attention_heads", "hidden_act", "frequency_stride", "time_stride", "patch_size")
        return super().identity() | {
            "preprocessing": {name: getattr(self.extractor, name) for name in said},
            "network": {name: getattr(self.encoder.config, name) for name in (*names, "layer_norm_eps")},
        }

    def _embed(self, waveform: Float[Tensor, "clips samples"]) -> Float[Tensor, "clips feature_dim"]:
        bank = self.filter_bank(waveform)
        bank = F.pad(bank, (0, 0, 0, int(self.extractor.max_length) - bank.shape[1]))
        if self.extractor.do_normalize:
            bank = (bank - self.extractor.mean) / (2 * self.extractor.std)
        vectors: Tensor = self.encoder(bank).pooler_output
        return vectors
