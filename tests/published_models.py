"""Small random models in the layouts that others publish, for the tests of the importers."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path

import torch

import xmodal.compat  # noqa: F401  (transformers imports torchaudio)

RATE = 8000
_KEPT = tempfile.TemporaryDirectory(prefix="xmodal-published-")


@functools.cache
def published(kind: str) -> str:
    """A folder of one of the models below, written once for all tests of a run."""
    folder = Path(_KEPT.name) / kind
    write = {"clap": write_clap, "clap-fusion": functools.partial(write_clap, fusion=True), "ast": write_ast}
    write["mert"] = functools.partial(write_wave, kind="Hubert", mert=True, layers=8)
    write["wav2vec2"] = functools.partial(write_wave, norm="layer")
    return str(write[kind](folder))


def write_clap(folder: Path, *, fusion: bool = False) -> Path:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, PreTrainedTokenizerFast

    words = ["<s>", "<pad>", "</s>", "<unk>", *(f"w{number}" for number in range(200))]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        cls_token="<s>", sep_token="</s>", model_max_length=64,
    ).save_pretrained(folder)  # fmt: skip
    ClapFeatureExtractor(
        feature_size=16, sampling_rate=RATE, hop_length=64, max_length_s=2, fft_window_size=256, frequency_min=50,
        frequency_max=4000, truncation="fusion" if fusion else "rand_trunc", padding="repeatpad",
    ).save_pretrained(folder)  # fmt: skip
    config = ClapConfig(
        text_config={
            "vocab_size": len(words), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 32, "max_position_embeddings": 66, "initializer_range": 0.5,
        },
        audio_config={
            "num_mel_bins": 16, "spec_size": 64, "window_size": 4, "patch_size": 4, "patch_stride": [4, 4],
            "depths": [1, 1], "num_attention_heads": [2, 2], "patch_embeds_hidden_size": 8, "hidden_size": 16,
            "num_hidden_layers": 2, "enable_fusion": fusion, "fusion_type": "aff_2d" if fusion else None,
            "aff_block_r": 2,
        },
        projection_dim=12,
    )  # fmt: skip
    return _write(lambda: ClapModel(config), folder)


def write_ast(folder: Path) -> Path:
    from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

    ASTFeatureExtractor(sampling_rate=RATE, num_mel_bins=16, max_length=160).save_pretrained(folder)
    config = ASTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, patch_size=8,
        frequency_stride=6, time_stride=6, max_length=160, num_mel_bins=16, num_labels=3,
    )  # fmt: skip
    return _write(lambda: ASTForAudioClassification(config), folder)


def write_wave(
    folder: Path, kind: str = "Wav2Vec2", *, norm: str = "group", mert: bool = False, layers: int = 2
) -> Path:
    import transformers

    transformers.Wav2Vec2FeatureExtractor(sampling_rate=RATE, do_normalize=True).save_pretrained(folder)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=8, hidden_size=16, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=32,
        conv_dim=(8, 8, 8), conv_kernel=(10, 3, 2), conv_stride=(5, 4, 4), num_feat_extract_layers=3,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, feat_extract_norm=norm,
        do_stable_layer_norm=norm == "layer",
    )  # fmt: skip
    _write(lambda: getattr(transformers, f"{kind}Model")(config), folder)
    if mert:
        said = json.loads((folder / "config.json").read_text())
        said |= {"model_type": "mert_model", "architectures": ["MERTModel"], "sample_rate": RATE}
        said |= {"feature_extractor_cqt": False, "deepnorm": False, "attention_relax": -1.0}
        said["auto_map"] = {"AutoModel": "modeling_MERT.MERTModel"}
        (folder / "config.json").write_text(json.dumps(said))
        (folder / "modeling_MERT.py").write_text("raise SystemExit('code of the model was run')\n")
    return folder


def _write(make, folder: Path) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make().eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.dim() > 1 and "logit" not in name:
                    weight.mul_(3.0)  # far from linear, so that every part of a clip moves the vector
                elif name.endswith("bias"):
                    weight.normal_(std=0.1)  # as trained: silence is not nothing
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_().sub_(30)
                module.running_var.fill_(400.0)
        model.save_pretrained(folder)
    return folder


def tone(samples: int, clips: int = 3, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(samples) / RATE
    pitch = 200 * 1.5 ** torch.arange(clips)[:, None]
    return 0.4 * torch.sin(2 * torch.pi * pitch * time) + 0.05 * torch.randn(clips, samples, generator=generator)
