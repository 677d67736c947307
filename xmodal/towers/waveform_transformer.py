"""Self-supervised transformers on the waveform: wav2vec 2.0, HuBERT, WavLM, data2vec, UniSpeech, and MERT for music.

They hear samples, brought to mean 0 and variance 1 over the clip where the model was trained so. A clip's vector is
pooled over the frames of one layer; which layer is best depends on the task (MERT: Li et al. 2024, arXiv:2306.00107).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from jaxtyping import Float, Int
from torch import Tensor, nn

from xmodal.errors import ModelError
from xmodal.towers.base import AudioTower
from xmodal.towers.front_end import RawWaveform, by_length
from xmodal.towers.pooling import MeanPool, TimePool
from xmodal.towers.pretrained import load_encoder, load_part, make_config, quiet_transformers, read_config

_CLASSES = {
    "wav2vec2": "Wav2Vec2Model",
    "hubert": "HubertModel",
    "wavlm": "WavLMModel",
    "data2vec-audio": "Data2VecAudioModel",
    "unispeech": "UniSpeechModel",
    "unispeech-sat": "UniSpeechSatModel",
    "mert_model": "HubertModel",
}
_HEADS = ("lm_head.", "quantizer.", "project_hid.", "project_q.", "projector.", "classifier.", "dropout_features.")
# What makes a MERT something else than HuBERT at another sample rate, and the value that does nothing.
_MERT_EXTRAS = {"feature_extractor_cqt": False, "deepnorm": False, "attention_relax": -1.0}


class WaveformTransformerTower(AudioTower):
    """A pretrained transformer on the waveform, pooled over time.

    Args:
        model: A folder, or the id of a model on the Hugging Face Hub, such as ``"m-a-p/MERT-v1-95M"``. Code that comes
            with it is not run: MERT is read as the HuBERT that it is.
        trainable: Let gradients into it; otherwise it stays in evaluation mode.
        layer: Whose output is pooled: -1 is the model's own output, 0 what the first layer is given, 1 what it gives.
        pooling: Pooling over time; ``None`` means :class:`MeanPool`.

    Raises:
        ModelError: If it cannot be found or loaded, is of another family, or is a MERT with parts of its own.
        ValueError: If there is no such layer.
    """

    asset_prefixes = ("encoder.",)

    def __init__(self, model: str, trainable: bool = False, layer: int = -1, pooling: TimePool | None = None) -> None:
        said = read_config(model)
        kind = str(said.get("model_type"))
        encoder = load_encoder(
            model,
            _CLASSES.get(kind, "AutoModel"),
            kinds=tuple(_CLASSES),
            config=_hubert_config(model, said) if kind == "mert_model" else None,
            ignore=_HEADS,
            optional=("masked_spec_embed",),
        )
        extractor = load_part(model, "Wav2Vec2FeatureExtractor")
        config = encoder.config
        if not -1 <= layer <= config.num_hidden_layers:
            raise ValueError(f"layer must be from -1 to {config.num_hidden_layers} for {model}, got {layer}")
        super().__init__(RawWaveform(int(extractor.sampling_rate)), int(config.hidden_size))
        config.apply_spec_augment = False  # augmentation is the training's business, and is drawn from numpy there
        config.layerdrop = 0.0
        self.encoder = encoder.requires_grad_(trainable)
        if getattr(encoder, "masked_spec_embed", None) is not None:
            encoder.masked_spec_embed.requires_grad_(False)  # what masked frames would become
        if layer >= 0:  # what comes after the layer is computed but not heard
            encoder.encoder.layers[layer:].requires_grad_(False)
            if getattr(config, "do_stable_layer_norm", False):
                encoder.encoder.layer_norm.requires_grad_(False)
        self.extractor = extractor
        self.layer = layer
        self.frozen = not trainable
        self.pooling = pooling or MeanPool()
        self.pooling.prepare(self.feature_dim)
        self.shortest = 1
        for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
            self.shortest = (self.shortest - 1) * stride + kernel
        self.train(self.training)

    def encode(
        self, features: Float[Tensor, "clips 1 samples"], valid_frames: Int[Tensor, " clips"] | None = None
    ) -> Float[Tensor, "clips feature_dim"]:
        """Feature vectors of the first ``valid_frames`` samples of each clip."""
        return by_length(self._embed, features, valid_frames, shortest=self.shortest)

    def train(self, mode: bool = True) -> Self:
        """Set training mode for the pooling, and for the encoder unless it is frozen."""
        nn.Module.train(self, mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def save_assets(self, folder: Path) -> dict[str, Any]:
        """Write the encoder and the settings of its front end as a transformers folder."""
        with quiet_transformers():
            self.encoder.save_pretrained(folder / "audio_encoder")
            self.extractor.save_pretrained(folder / "audio_encoder")
        return {"model": "audio_encoder"}

    def identity(self) -> dict[str, Any]:
        """The front end, the network's sizes, the layer and the pooling."""
        config = self.encoder.config
        names = ("model_type", "num_attention_heads", "hidden_act", "feat_extract_norm", "feat_extract_activation")
        more = ("do_stable_layer_norm", "layer_norm_eps", "conv_kernel", "conv_stride", "num_conv_pos_embedding_groups")
        return super().identity() | {
            "normalise": bool(self.extractor.do_normalize),
            "network": {name: _plain(getattr(config, name, None)) for name in (*names, *more)},
            "layer": self.layer,
            "pooling": type(self.pooling).__name__,
        }

    def _embed(self, waveform: Float[Tensor, "clips samples"]) -> Float[Tensor, "clips feature_dim"]:
        if self.extractor.do_normalize:
            centred = waveform - waveform.mean(dim=1, keepdim=True)
            waveform = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-7).sqrt()
        out = self.encoder(waveform, output_hidden_states=self.layer >= 0)
        frames = out.last_hidden_state if self.layer < 0 else out.hidden_states[self.layer]
        vectors: Tensor = self.pooling(frames.transpose(1, 2).float())
        return vectors


def _hubert_config(model: str, said: dict[str, Any]) -> Any:
    for name, idle in _MERT_EXTRAS.items():
        if said.get(name, idle) != idle:
            raise ModelError(
                f"{model}: this MERT has {name}={said[name]!r}, which plain HuBERT lacks; take MERT-v1-95M"
            )
    return make_config("HubertConfig", {**said, "model_type": "hubert", "architectures": ["HubertModel"]})


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
