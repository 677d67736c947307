from __future__ import annotations

import json
import shutil

import pytest
import torch
from torch.testing import assert_close

from xmodal.errors import ModelError
from xmodal.model import TwoTower, read_description
from xmodal.towers import HashedBagOfWordsTower, MobileCnn


def tiny_model(seed=0, **settings):
    torch.manual_seed(seed)
    audio = MobileCnn(sample_rate=8000, n_fft=256, hop=80, bands=16, width=0.25, feature_dim=32)
    text = HashedBagOfWordsTower(buckets=500, embed_dim=16, feature_dim=24)
    return TwoTower(audio, text, dim=12, window_seconds=0.5, **settings).eval()


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture
def saved(model, tmp_path):
    model.save(tmp_path / "model")
    return tmp_path / "model"


def test_both_sides_give_unit_vectors_of_the_joint_dimension(model):
    audio = model.embed_audio(torch.randn(3, 4000).clamp(-1, 1))
    text = model.embed_text(["slow piano", "fast drums"])
    assert audio.shape == (3, 12)
    assert text.shape == (2, 12)
    assert_close(audio.norm(dim=1), torch.ones(3))
    assert_close(text.norm(dim=1), torch.ones(2))


def test_vectors_are_float32_and_of_unit_length_under_autocast(model):
    with torch.autocast("cpu", torch.bfloat16):
        vectors = model.embed_audio(torch.randn(2, 4000).clamp(-1, 1))
    assert vectors.dtype == torch.float32
    assert_close(vectors.norm(dim=1), torch.ones(2))


def test_features_computed_elsewhere_give_the_same_vectors(model):
    waveform = torch.randn(2, 4000).clamp(-1, 1)
    there = model.embed_audio_features(model.audio.features(waveform))
    assert_close(there, model.embed_audio(waveform), atol=1e-6, rtol=0)


def test_padding_is_not_heard(model):
    waveform = torch.randn(1, 4000).clamp(-1, 1)
    noise = waveform.clone()
    waveform[:, 2000:], noise[:, 2000:] = 0.0, 0.5
    valid = torch.tensor([2000])
    assert_close(model.embed_audio(noise, valid), model.embed_audio(waveform, valid), atol=1e-6, rtol=0)
    assert (model.embed_audio(noise) - model.embed_audio(noise, valid)).abs().max() > 1e-3


def test_no_texts_give_no_vectors_and_a_bare_string_is_refused(model):
    assert model.embed_text([]).shape == (0, 12)
    with pytest.raises(ValueError, match="list of texts"):
        model.embed_text("slow piano")


def test_a_saved_model_comes_back_with_the_same_vectors_and_space(model, saved):
    again = TwoTower.load(saved)
    waveform = torch.randn(2, 4000).clamp(-1, 1)
    assert torch.equal(again.embed_audio(waveform), model.embed_audio(waveform))
    assert torch.equal(again.embed_text(["a b"]), model.embed_text(["a b"]))
    assert again.space_id() == model.space_id() == read_description(saved)["space_id"]
    assert not again.training
    assert not list(saved.rglob("*.pt")) + list(saved.rglob("*.bin")) + list(saved.rglob("*.pkl"))


def test_the_space_changes_with_weights_front_end_windows_and_dimension(model):
    spaces = {model.space_id(), tiny_model(seed=1).space_id(), tiny_model(hop_seconds=0.25).space_id()}
    spaces.add(tiny_model(last_window="pad").space_id())
    other_mel = tiny_model()
    other_mel.audio.front_end = type(other_mel.audio.front_end)(8000, 256, 80, 16, f_min=50.0)
    spaces.add(other_mel.space_id())
    assert len(spaces) == 5


def test_the_space_does_not_change_with_training_mode_or_steps_counted():
    model = tiny_model()
    before = model.space_id()
    for name, buffer in model.named_buffers():
        if name.endswith("num_batches_tracked"):
            buffer += 5
    assert model.train().space_id() == before


def test_a_model_moved_to_another_folder_is_the_same_model(saved, model, tmp_path):
    shutil.move(saved, tmp_path / "elsewhere")
    assert TwoTower.load(tmp_path / "elsewhere").space_id() == model.space_id()


def test_a_folder_that_holds_something_is_not_overwritten(model, saved, tmp_path):
    with pytest.raises(ModelError, match="overwrite=True"):
        model.save(saved)
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "song.mp3").write_bytes(b"x")
    with pytest.raises(ModelError, match="holds no model"):
        model.save(tmp_path / "music", overwrite=True)
    assert (tmp_path / "music" / "song.mp3").exists()


def test_overwriting_leaves_the_new_model_and_nothing_beside_it(saved, tmp_path):
    other = tiny_model(seed=3)
    other.save(saved, overwrite=True)
    assert TwoTower.load(saved).space_id() == other.space_id()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_save_that_fails_leaves_the_old_model(saved, tmp_path, monkeypatch):
    before = read_description(saved)["space_id"]

    def full_disk(*_args, **_kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr("xmodal.model.save_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        tiny_model(seed=5).save(saved, overwrite=True)
    assert TwoTower.load(saved).space_id() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no config.json"):
        TwoTower.load(tmp_path)
    (tmp_path / "config.json").write_text('{"hidden_size": 3}')
    with pytest.raises(ModelError, match="not the config of an xmodal model"):
        TwoTower.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        TwoTower.load(tmp_path)


def edit(folder, change):
    description = json.loads((folder / "config.json").read_text())
    change(description)
    (folder / "config.json").write_text(json.dumps(description))


def test_a_newer_format_is_refused_with_the_way_out(saved):
    edit(saved, lambda description: description.update(format_version=99))
    with pytest.raises(ModelError, match=r"format version 99 .* pip install --upgrade"):
        TwoTower.load(saved)


def test_changed_weights_or_settings_are_noticed(saved):
    edit(saved, lambda description: description["model"]["init_args"].update(hop_seconds=0.1))
    with pytest.raises(ModelError, match="changed or damaged"):
        TwoTower.load(saved)


def test_a_truncated_weights_file_is_refused_by_name(saved):
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"model\.safetensors cannot be read"):
        TwoTower.load(saved)


def test_weights_of_another_shape_are_refused(saved):
    edit(saved, lambda description: description["model"]["init_args"].update(dim=13))
    with pytest.raises(ModelError, match="does not fit"):
        TwoTower.load(saved)


def test_an_asset_outside_the_model_folder_is_refused(saved):
    def escape(description):
        description["assets"] = ["model"]
        description["model"]["init_args"]["text"]["init_args"]["model"] = "../../secret"

    edit(saved, escape)
    with pytest.raises(ModelError, match="outside the model folder"):
        TwoTower.load(saved)


def test_the_card_says_how_to_use_the_model_and_what_it_is(model, tmp_path):
    space_id = model.save(tmp_path / "model", card="## Figures\nR@1 0.5")
    card = (tmp_path / "model" / "README.md").read_text()
    assert space_id in card
    assert "8000 Hz" in card
    assert "xmodal.load" in card
    assert "R@1 0.5" in card


def test_a_centred_space_has_mean_0_in_training_and_vectors_that_depend_on_the_item_alone_after_it():
    model = tiny_model(centred=True).train()
    batch = model.embed_text_features(torch.randn(50, 24) + 3.0)
    assert_close(model.project_text(torch.randn(50, 24) + 3.0).mean(dim=0), torch.zeros(12), atol=1e-5, rtol=0)
    assert batch.mean(dim=0).norm() < 0.2
    assert model.project_text(torch.randn(1, 24)).isfinite().all()  # one text has no variance to divide by
    model.eval()
    features = torch.randn(4, 24)
    assert_close(model.embed_text_features(features)[:1], model.embed_text_features(features[:1]))


def test_a_model_from_before_there_was_a_centring_keeps_its_space(model):
    assert "centred" not in model.identity()["text_projection"]
    assert tiny_model(centred=True).identity()["text_projection"]["centred"]
    assert tiny_model(centred=True).space_id() != model.space_id()
