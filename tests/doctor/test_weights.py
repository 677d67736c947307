"""Weights that are missing, broken or were never trained."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from xmodal.doctor import examine_file, examine_scales, examine_weights
from xmodal.errors import ModelError
from xmodal.model import WEIGHTS_FILE, TwoTower
from xmodal.towers import HashedBagOfWordsTower, MobileCnn


def tiny():
    audio = MobileCnn(sample_rate=8000, n_fft=256, hop=80, bands=16, width=0.25, feature_dim=32)
    text = HashedBagOfWordsTower(buckets=300, embed_dim=16, feature_dim=24)
    return TwoTower(audio, text, dim=12, window_seconds=0.5)


def trained(model):
    """As a few steps leave a model: every learned number moved a little."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(12):
        optimizer.zero_grad()
        waves = torch.randn(8, 4000, generator=generator)
        words = [f"word{number}" for number in torch.randint(0, 200, (8,), generator=generator).tolist()]
        score = model.embed_audio(waves) @ model.embed_text(words).T
        torch.nn.functional.cross_entropy(score * 10, torch.arange(8)).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture
def folder(tmp_path):
    tiny().save(tmp_path / "model")
    return tmp_path / "model"


def by_part(model):
    return {finding.about: finding for finding in examine_weights(model)}


def test_a_fresh_model_is_untrained_in_every_part_and_a_trained_one_in_none():
    torch.manual_seed(5)
    fresh = by_part(tiny())
    for part in ("audio", "text", "audio_projection", "text_projection"):
        assert fresh[part].verdict == "ill", (part, fresh[part].detail)
    done = by_part(trained(tiny()))
    for part in ("audio", "text"):
        assert done[part].verdict == "healthy", (part, done[part].detail)


def test_one_tower_that_was_never_updated_is_named():
    torch.manual_seed(3)
    model = tiny()
    for parameter in model.text.parameters():
        parameter.requires_grad_(False)
    found = by_part(trained(model))
    assert found["text"].verdict == "ill"
    assert found["audio"].verdict == "healthy"
    assert any(name.startswith("text.network") for name in found["text"].examples)


def test_looking_at_weights_leaves_them_and_the_chance_alone():
    model = tiny()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    examine_weights(model)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_weight_that_is_not_finite_is_named():
    model = tiny()
    model.audio_projection.layers.weight.data[0, 0] = math.nan
    finding = by_part(model)["weights"]
    assert finding.verdict == "ill"
    assert finding.examples == ("audio_projection.layers.weight",)


def test_weights_that_fit_the_config_are_healthy(folder):
    assert examine_file(folder).verdict == "healthy"


def test_missing_unexpected_and_misshapen_weights_are_named(folder):
    weights = load_file(folder / WEIGHTS_FILE)
    weights["text.extra"] = torch.zeros(2)
    del weights["audio_projection.layers.weight"]
    weights["text.output.bias"] = torch.zeros(5)
    save_file(weights, folder / WEIGHTS_FILE)
    finding = examine_file(folder)
    assert finding.verdict == "ill"
    assert finding.figure == 3
    assert finding.examples == (
        "missing audio_projection.layers.weight",
        "unexpected text.extra",
        "text.output.bias (5,) instead of (24,)",
    )


def test_a_damaged_file_is_refused(folder):
    (folder / WEIGHTS_FILE).write_bytes(b"no weights")
    with pytest.raises(ModelError, match=r"model.safetensors cannot be read .* copy the model folder again"):
        examine_file(folder)


def test_a_temperature_at_its_clamp_is_a_warning():
    state = {"loss.scale.log_scale": torch.tensor(math.log(100.0)), "prompt_loss.scale.log_scale": torch.tensor(2.0)}
    clamped, free = examine_scales({**state, "network.audio.bias": torch.zeros(3)})
    assert (clamped.about, clamped.verdict) == ("loss.scale", "warning")
    assert (free.about, free.verdict) == ("prompt_loss.scale", "healthy")
    assert free.figure == pytest.approx(math.exp(2) / 100)
    (beyond,) = examine_scales({"loss.log_scale": torch.tensor(9.0)})
    assert beyond.figure == pytest.approx(1)
