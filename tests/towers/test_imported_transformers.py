"""Towers around transformers' audio models against what the originals compute from their own preprocessing."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from published_models import RATE, tone, write_ast, write_clap, write_wave
from torch.testing import assert_close

from xmodal.errors import ModelError
from xmodal.towers import AstTower, AttentionPool, ClapAudioTower, ClapTextTower, WaveformTransformerTower

LENGTHS = [16_000, 9_000, 8_000, 5_001, 700]  # all of the model's two seconds, down to a clip that is repeated often


def clips_of(lengths):
    return [tone(length, clips=1, seed=number)[0] for number, length in enumerate(lengths)]


def padded(clips):
    return torch.nn.utils.rnn.pad_sequence(clips, batch_first=True), torch.tensor([len(clip) for clip in clips])


@torch.no_grad()
@pytest.mark.parametrize("fusion", [False, True])
def test_clap_audio_is_what_transformers_computes_with_claps_own_extractor(tmp_path, fusion):
    from transformers import ClapFeatureExtractor, ClapModel

    source = write_clap(tmp_path / "clap", fusion=fusion)
    original, extractor = ClapModel.from_pretrained(source).eval(), ClapFeatureExtractor.from_pretrained(source)
    clips = clips_of(LENGTHS)
    inputs = extractor([clip.numpy() for clip in clips], sampling_rate=RATE, return_tensors="pt")
    inputs["is_longer"] = torch.zeros(len(clips), 1, dtype=torch.bool)  # transformers draws one at random
    expected = original.get_audio_features(**inputs).pooler_output
    tower = ClapAudioTower(str(source)).eval()
    assert_close(tower(*padded(clips)), expected, atol=2e-5, rtol=0)
    assert (expected[0] - expected[1]).norm() > 1e-2, "the clips look alike"
    mel = torch.from_numpy(np.asarray(inputs["input_features"]))[:1, 0].float()
    assert_close(tower.log_mel(clips[0][None]), mel, atol=2e-2, rtol=0)


@torch.no_grad()
def test_clap_texts_are_what_transformers_computes_and_long_ones_are_read_to_the_end(tmp_path):
    from transformers import AutoTokenizer, ClapModel

    source = write_clap(tmp_path / "clap")
    original, tokenizer = ClapModel.from_pretrained(source).eval(), AutoTokenizer.from_pretrained(source)
    texts = ["w1 w2 w3", "w7", " ".join(f"w{n}" for n in range(50))]
    expected = original.get_text_features(**tokenizer(texts, padding=True, return_tensors="pt")).pooler_output
    tower = ClapTextTower(str(source)).eval()
    assert tower.max_tokens == 64
    assert_close(tower(texts), expected, atol=1e-5, rtol=0)
    long = " ".join(f"w{n % 200}" for n in range(300))
    assert (tower([long]) - tower([f"{long} w5 w6"])).norm() > 1e-4


@torch.no_grad()
def test_ast_is_what_transformers_computes_with_its_own_extractor(tmp_path):
    from transformers import ASTFeatureExtractor, ASTModel

    source = write_ast(tmp_path / "ast")  # with a classifier, which the tower leaves out
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.modeling_utils.logger.warning", lambda *said: None)
        original = ASTModel.from_pretrained(source).eval()
    extractor = ASTFeatureExtractor.from_pretrained(source)
    clips = clips_of([12_800, 9_000, 5_001, 200])
    inputs = extractor([clip.numpy() for clip in clips], sampling_rate=RATE, return_tensors="pt")
    tower = AstTower(str(source)).eval()
    assert_close(tower(*padded(clips)), original(**inputs).pooler_output, atol=2e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "norm"), [("Wav2Vec2", "group"), ("Wav2Vec2", "layer"), ("Hubert", "group"), ("WavLM", "group")]
)
def test_waveform_transformers_are_what_transformers_computes_for_each_clip_alone(tmp_path, kind, norm):
    import transformers

    source = write_wave(tmp_path / "wave", kind, norm=norm)
    original = getattr(transformers, f"{kind}Model").from_pretrained(source).eval()
    extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(source)
    clips = clips_of([8_000, 8_000, 4_001, 900])
    tower = WaveformTransformerTower(str(source)).eval()
    first_layer = WaveformTransformerTower(str(source), layer=1).eval()
    for clip, found, inner in zip(clips, tower(*padded(clips)), first_layer(*padded(clips)), strict=True):
        inputs = extractor(clip.numpy(), sampling_rate=RATE, return_tensors="pt")
        out = original(**inputs, output_hidden_states=True)
        assert_close(found, out.last_hidden_state[0].mean(dim=0), atol=2e-5, rtol=1e-4)
        assert_close(inner, out.hidden_states[1][0].mean(dim=0), atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_mert_is_read_as_the_hubert_it_is_and_its_code_is_not_run(tmp_path):
    source = write_wave(tmp_path / "mert", "Hubert", mert=True)
    same = write_wave(tmp_path / "hubert", "Hubert")
    clip = tone(6_000)
    assert torch.equal(
        WaveformTransformerTower(str(source)).eval()(clip), WaveformTransformerTower(str(same)).eval()(clip)
    )
    said = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(said | {"attention_relax": 32.0}))
    with pytest.raises(ModelError, match=r"this MERT has attention_relax=32\.0, which plain HuBERT lacks"):
        WaveformTransformerTower(str(source))


def test_a_longer_window_than_the_model_hears_is_refused_and_not_cropped_at_random(tmp_path):
    tower = ClapAudioTower(str(write_clap(tmp_path / "clap")))
    with pytest.raises(ValueError, match="at most 16000 samples at a time, got 16001; set the model's window_seconds"):
        tower(tone(16_001))
    ast = AstTower(str(write_ast(tmp_path / "ast")))
    ast(tone(200 + 80 * 160 - 1))
    with pytest.raises(ValueError, match="at most 12999 samples"):
        ast(tone(200 + 80 * 160))


def test_what_is_no_such_model_is_refused_by_name(tmp_path):
    with pytest.raises(ModelError, match=r"no/such/folder: there is no such folder; give the folder of a model"):
        ClapAudioTower("no/such/folder")
    wave = write_wave(tmp_path / "wave")
    with pytest.raises(ModelError, match="wave: its model_type must be one of clap, clap_audio_model, got 'wav2vec2'"):
        ClapAudioTower(str(wave))
    with pytest.raises(ValueError, match="layer must be from -1 to 2"):
        WaveformTransformerTower(str(wave), layer=3)
    with pytest.raises(ModelError, match="its model_type must be one of wav2vec2, hubert"):
        WaveformTransformerTower(str(write_ast(tmp_path / "ast")))


def test_a_checkpoint_without_some_of_its_weights_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    source = write_wave(tmp_path / "wave")
    weights = load_file(source / "model.safetensors")
    gone = next(name for name in weights if "encoder.layers.1.attention.k_proj.weight" in name)
    save_file({name: tensor for name, tensor in weights.items() if name != gone}, source / "model.safetensors")
    with pytest.raises(ModelError, match=rf"missing \['{gone}'\]"):
        WaveformTransformerTower(str(source))


@torch.no_grad()
def test_an_imported_audio_tower_is_made_again_from_what_it_wrote(tmp_path):
    towers = [
        ClapAudioTower(str(write_clap(tmp_path / "clap"))),
        AstTower(str(write_ast(tmp_path / "ast")), trainable=True),
        WaveformTransformerTower(str(write_wave(tmp_path / "mert", "Hubert", mert=True)), pooling=AttentionPool(4)),
    ]
    clip = tone(6_000)
    for tower in towers:
        for weight in tower.encoder.parameters():
            weight.mul_(1.1)
        folder = tmp_path / f"written-{type(tower).__name__}"
        assets = tower.save_assets(folder)
        assert assets == {"model": "audio_encoder"}
        more = {"pooling": AttentionPool(4)} if hasattr(tower, "pooling") else {}
        again = type(tower)(str(folder / assets["model"]), **more).eval()
        if more:
            again.pooling.load_state_dict(tower.pooling.state_dict())
        assert torch.equal(again(clip), tower.eval()(clip))
        assert again.identity() == json.loads(json.dumps(tower.identity()))


@torch.no_grad()
def test_an_imported_clap_is_a_model_in_claps_own_joint_space(tmp_path, capsys):
    from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

    from xmodal.cli import main
    from xmodal.model import TwoTower

    source = write_clap(tmp_path / "clap")
    assert main(["import", str(source), "--out", str(tmp_path / "model")]) == 0
    assert "12 dimensions at 8000 Hz" in capsys.readouterr().out
    model = TwoTower.load(tmp_path / "model")
    assert model.windows.window_seconds == 2.0
    assert not (tmp_path / "model" / "pytorch_model.bin").exists()
    original = ClapModel.from_pretrained(source).eval()
    clip = tone(16_000)
    inputs = ClapFeatureExtractor.from_pretrained(source)(list(clip.numpy()), sampling_rate=RATE, return_tensors="pt")
    assert_close(model.embed_audio(clip), original.get_audio_features(**inputs).pooler_output, atol=2e-5, rtol=0)
    tokens = AutoTokenizer.from_pretrained(source)(["w1 w2"], return_tensors="pt")
    assert_close(model.embed_text(["w1 w2"]), original.get_text_features(**tokens).pooler_output, atol=1e-5, rtol=0)
    assert main(["import", "no/such/clap", "--out", str(tmp_path / "x")]) == 2
    assert "there is no such folder" in capsys.readouterr().err
