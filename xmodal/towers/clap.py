"""Both towers of a CLAP model as transformers publishes them (Wu et al. 2023, arXiv:2211.06687).

The preprocessing is CLAP's own, computed here in torch so that it is part of the tower: a clip shorter than the model's
ten seconds is repeated as often as it fits whole and continued with zeros, then becomes a log-mel spectrogram.
Where transformers crops a longer clip at random, this tower refuses it: the window policy cuts files, and always alike.
Models with feature fusion hear every window as "not longer", which is what their authors' code does for such clips.

Half of what HTSAT costs on a CPU is attention over many small windows; :class:`WindowAttention` does it in one kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from xmodal.towers.base import AudioTower, TextBatch, TextTower
from xmodal.towers.chunks import Chunker, pool_chunks
from xmodal.towers.front_end import RawWaveform, by_length
from xmodal.towers.pretrained import load_encoder, load_part, quiet_transformers

_TEXT_SIDE = ("text_model.", "text_projection.", "logit_scale_")
_AUDIO_KINDS, _TEXT_KINDS = ("clap", "clap_audio_model"), ("clap", "clap_text_model")
_AUDIO_SIDE = ("audio_model.", "audio_projection.", "logit_scale_")


class WindowAttention(nn.Module):
    """The self-attention of one of HTSAT's layers for inference: the same weights, by torch's fused kernel.

    transformers makes the scores of every window and head, and passes over them once each for the scale, the relative
    positions, the mask, the softmax and the product with the values. This takes 0.6 of the time of the whole network.

    Args:
        original: A ``ClapAudioSelfAttention`` in evaluation mode.
    """

    bias: Tensor

    def __init__(self, original: Any) -> None:
        super().__init__()
        self.query, self.key, self.value = original.query, original.key, original.value
        self.heads, self.head_dim = original.num_attention_heads, original.attention_head_size
        height, width = original.window_size
        with torch.no_grad():
            table = original.relative_position_bias_table[original.relative_position_index.flatten()]
            bias = table.view(height * width, height * width, -1).permute(2, 0, 1).contiguous()
        self.register_buffer("bias", bias, persistent=False)
        self.eval()

    def forward(
        self,
        hidden_states: Float[Tensor, "windows tokens width"],
        attention_mask: Float[Tensor, "places tokens tokens"] | None = None,
        output_attentions: bool = False,
    ) -> tuple[Float[Tensor, "windows tokens width"]]:
        """The windows of some clips, clip by clip; ``attention_mask`` is added for each place of a window in a clip.

        Raises:
            ValueError: If the weights of the attention are asked for, which the kernel does not keep.
        """
        if output_attentions:
            raise ValueError("the fused attention keeps no weights; ask the original model for them")
        windows, tokens, width = hidden_states.shape
        query, key, value = (
            part(hidden_states).view(windows, tokens, self.heads, self.head_dim).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        bias = self.bias[None]
        if attention_mask is not None:
            places = len(attention_mask)
            bias = (bias + attention_mask[:, None]).expand(windows // places, places, -1, -1, -1).flatten(0, 1)
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return (context.transpose(1, 2).reshape(windows, tokens, width),)


class ClapAudioTower(AudioTower):
    """The audio side of a CLAP model, with its projection: unit vectors of the model's own joint space.

    Args:
        model: A folder, or the id of a model on the Hugging Face Hub, such as ``"laion/clap-htsat-unfused"``.
        trainable: Let gradients into it; otherwise it stays in evaluation mode.

    Raises:
        ModelError: If it cannot be found or loaded.
    """

    asset_prefixes = ("encoder.",)
    quicker: ClassVar = {"ClapAudioSelfAttention": WindowAttention}

    def __init__(self, model: str, trainable: bool = False) -> None:
        encoder = load_encoder(model, "ClapAudioModelWithProjection", kinds=_AUDIO_KINDS, ignore=_TEXT_SIDE)
        extractor = load_part(model, "ClapFeatureExtractor")
        super().__init__(RawWaveform(int(extractor.sampling_rate)), int(encoder.config.projection_dim))
        self.encoder = encoder.requires_grad_(trainable)
        self.extractor = extractor
        self.fusion = bool(encoder.config.enable_fusion)
        # No window is longer than the model hears, and of such a one fusion looks at the whole alone.
        encoder.audio_model.audio_encoder.enable_fusion = False
        encoder.audio_model.audio_encoder.patch_embed.enable_fusion = False
        self.frozen = not trainable
        filters = extractor.mel_filters if extractor.truncation == "fusion" else extractor.mel_filters_slaney
        # Not persistent: both follow from the settings.
        self.register_buffer("filters", torch.tensor(filters, dtype=torch.float32), persistent=False)
        self.register_buffer("window", torch.hann_window(extractor.fft_window_size), persistent=False)
        self.train(self.training)

    filters: Tensor
    window: Tensor

    def encode(
        self, features: Float[Tensor, "clips 1 samples"], valid_frames: Int[Tensor, " clips"] | None = None
    ) -> Float[Tensor, "clips feature_dim"]:
        """Unit vectors of the first ``valid_frames`` samples of each clip."""
        return by_length(self._embed, features, valid_frames, longest=int(self.extractor.nb_max_samples))

    def log_mel(self, waveform: Float[Tensor, "clips samples"]) -> Float[Tensor, "clips frames bands"]:
        """CLAP's spectrogram in decibels of clips of equal length, filled up to the model's length."""
        full = int(self.extractor.nb_max_samples)
        place = torch.arange(full, device=waveform.device)
        # A tensor, because the number that an exported graph keeps is no operand for a remainder; and a gather instead
        # of a repetition, whose number would be fixed there.
        samples = torch.ones_like(waveform[0], dtype=torch.long).sum()
        fits = (torch.zeros_like(samples) + full) // samples
        times = {"repeat": fits + 1, "repeatpad": fits}.get(self.extractor.padding, 1)
        waveform = waveform[:, place.remainder(samples)] * (place < samples * times)
        with torch.autocast(waveform.device.type, enabled=False):  # half precision cannot hold a power spectrum
            spectrum = torch.stft(
                waveform.float(),
                n_fft=self.extractor.fft_window_size,
                hop_length=self.extractor.hop_length,
                window=self.window,
                pad_mode="reflect",
                return_complex=True,
            )
            power = spectrum.real.square() + spectrum.imag.square()
            return 10.0 * torch.einsum("cft,fb->ctb", power, self.filters).clamp(min=1e-10).log10()

    def train(self, mode: bool = True) -> Self:
        """Set training mode, unless the tower is frozen."""
        nn.Module.train(self, mode and not self.frozen)
        return self

    def save_assets(self, folder: Path) -> dict[str, Any]:
        """Write the encoder and the settings of its front end as a transformers folder."""
        return _save(folder / "audio_encoder", self.encoder, self.extractor)

    def identity(self) -> dict[str, Any]:
        """CLAP's preprocessing and the sizes of the network."""
        said = ("sampling_rate", "fft_window_size", "hop_length", "max_length_s", "frequency_min", "frequency_max")
        settings = {name: getattr(self.extractor, name) for name in (*said, "feature_size", "truncation", "padding")}
        config = self.encoder.config
        return super().identity() | {
            "preprocessing": settings,
            "network": {name: getattr(config, name) for name in ("model_type", "hidden_act", "projection_hidden_act")}
            | {"window_size": config.window_size, "heads": list(config.num_attention_heads), "fusion": self.fusion}
            | {"layer_norm_eps": config.layer_norm_eps, "patch_stride": list(config.patch_stride)},
        }

    def _embed(self, waveform: Float[Tensor, "clips samples"]) -> Float[Tensor, "clips feature_dim"]:
        vectors: Tensor = self.encoder(input_features=self.log_mel(waveform)[:, None]).audio_embeds
        return F.normalize(vectors.float(), dim=-1)


class ClapTextTower(TextTower):
    """The text side of a CLAP model, with its projection; long texts are chunked and pooled.

    Args:
        model: A folder, or the id of a model on the Hugging Face Hub.
        trainable: Let gradients into it; otherwise it stays in evaluation mode and its vectors may be cached.
        max_tokens: Tokens of a chunk, special tokens included; None means as many as the encoder reads.
        chunk_overlap: Tokens that a chunk shares with the one before.

    Raises:
        ModelError: If it cannot be found or loaded.
        ValueError: If the chunks would be longer than the encoder reads, or would overlap altogether.
    """

    asset_prefixes = ("encoder.",)

    def __init__(
        self, model: str, trainable: bool = False, max_tokens: int | None = None, chunk_overlap: int = 32
    ) -> None:
        super().__init__()
        encoder = load_encoder(model, "ClapTextModelWithProjection", kinds=_TEXT_KINDS, ignore=_AUDIO_SIDE)
        self.encoder = encoder.requires_grad_(trainable)
        self.tokenizer = load_part(model, "AutoTokenizer")
        config = self.encoder.config
        # RoBERTa numbers positions from one after the padding token's.
        limit = min(int(self.tokenizer.model_max_length), config.max_position_embeddings - config.pad_token_id - 1)
        self.chunker = Chunker(self.tokenizer, model, limit, max_tokens, chunk_overlap)
        self.max_tokens = self.chunker.max_tokens
        self.feature_dim = int(config.projection_dim)
        self.frozen = not trainable
        self.train(self.training)

    def tokenize(self, texts: Sequence[str]) -> TextBatch:
        """Cut texts into overlapping chunks of at most ``max_tokens`` tokens."""
        return self.chunker(texts)

    def encode(self, batch: TextBatch) -> Float[Tensor, "texts feature_dim"]:
        """Unit vectors of the texts."""
        inputs = {name: batch.inputs[name] for name in ("input_ids", "attention_mask")}
        if self.frozen:
            # A cached vector must equal a fresh one, so a caller's autocast must not reach a frozen encoder.
            with torch.no_grad(), torch.autocast(batch.owner.device.type, enabled=False):
                vectors = self.encoder(**inputs).text_embeds
        else:
            vectors = self.encoder(**inputs).text_embeds
        return pool_chunks(F.normalize(vectors.float(), dim=-1), batch, normalise=True)

    def train(self, mode: bool = True) -> Self:
        """Set training mode, unless the tower is frozen."""
        nn.Module.train(self, mode and not self.frozen)
        return self

    def save_assets(self, folder: Path) -> dict[str, Any]:
        """Write the encoder and its tokenizer as a transformers folder."""
        return _save(folder / "text_encoder", self.encoder, self.tokenizer)

    def identity(self) -> dict[str, Any]:
        """The tokenizer, the network's sizes and how long texts are cut."""
        config = self.encoder.config
        return super().identity() | {
            "tokenizer": self.chunker.digest,
            "network": {
                name: getattr(config, name)
                for name in (
                    "model_type",
                    "num_attention_heads",
                    "hidden_act",
                    "projection_hidden_act",
                    "pad_token_id",
                    "layer_norm_eps",
                )
            },
            "chunk_overlap": self.chunker.overlap,
        }


def _save(folder: Path, *parts: Any) -> dict[str, Any]:
    with quiet_transformers():
        for part in parts:
            part.save_pretrained(folder)
    return {"model": folder.name}
