"""A frozen audio encoder is heard once, is in no checkpoint, and cannot be swapped for another unseen."""

from __future__ import annotations

import copy
import shutil

import pytest
import pytorch_lightning as pl
import soundfile
import torch
from plain_tower import PlainTower
from published_models import published
from torch.testing import assert_close
from trainers import quiet_trainer

from xmodal.data.module import AudioTextData
from xmodal.errors import ModelError
from xmodal.losses import CombinedObjective, CrossModalMemory, InfoNCELoss
from xmodal.towers import (
    AttentionPool,
    HashedBagOfWordsTower,
    MobileCnn,
    SentenceTransformerTower,
    SpecAugment,
    WaveformTransformerTower,
)
from xmodal.training import AlignmentModule, TowerTuning
from xmodal.training.optim import parameter_groups


def encoder(**settings) -> WaveformTransformerTower:
    return WaveformTransformerTower(published("wav2vec2"), **settings)


def module_of(audio=None, **settings) -> AlignmentModule:
    torch.manual_seed(0)
    audio = audio or encoder()
    text = HashedBagOfWordsTower(buckets=50, embed_dim=8, feature_dim=8)
    settings = {"window_seconds": 2.0, "learning_rate": 1e-2} | settings
    return AlignmentModule(audio, text, settings.pop("loss", InfoNCELoss()), 8, **settings)


def data_of(manifest, **settings) -> AudioTextData:
    settings = {
        "tag_fields": ["pitch"],
        "workers": 0,
        "batch_size": 8,
        "tag_prompts": 2,
        "decode_seconds": None,
    } | settings
    return AudioTextData(str(manifest), **settings)


def fit(module, data, folder, *, epochs=2, **settings) -> pl.Trainer:
    trainer = quiet_trainer(folder, max_epochs=epochs, use_distributed_sampler=False, **settings)
    trainer.fit(module, datamodule=data)
    return trainer


def watch(module) -> list[int]:
    """Counts the clips that the audio tower encodes."""
    counts: list[int] = []
    encode = module.network.audio.encode

    def counting(features, valid_frames=None):
        counts.append(len(features))
        return encode(features, valid_frames)

    module.network.audio.encode = counting
    module.encoder.audio_tower = counting
    return counts


MEMORY = {"loss": lambda: CombinedObjective([InfoNCELoss()], memory=CrossModalMemory(8, size=16)), "key_momentum": 0.99}


@pytest.mark.parametrize("settings", [{}, {"chunk_size": 3}, MEMORY], ids=["plain", "chunks", "memory"])
def test_each_window_is_encoded_once_and_training_ends_with_the_same_weights(tone_tracks, tmp_path, settings):
    # Every tone is one window, so that without a cache the same samples are heard in every epoch.
    made = {name: value() if name == "loss" else value for name, value in settings.items()}
    kept, anew = module_of(**copy.deepcopy(made)), module_of(**copy.deepcopy(made))
    counts = watch(kept), watch(anew)
    trainers = fit(kept, data_of(tone_tracks), tmp_path), fit(anew, data_of(tone_tracks, cache="none"), tmp_path)
    assert sum(counts[0]) == 24 + 8
    assert sum(counts[1]) >= 2 * (24 + 8)
    for (name, value), other in zip(kept.state_dict().items(), anew.state_dict().values(), strict=True):
        assert_close(value, other, rtol=1e-5, atol=1e-5, msg=name)
    assert trainers[0].callback_metrics.keys() == trainers[1].callback_metrics.keys()
    for name, value in trainers[0].callback_metrics.items():
        assert_close(value, trainers[1].callback_metrics[name], rtol=1e-5, atol=1e-5, msg=name)


def test_a_later_run_finds_the_vectors_by_content_and_weights_and_never_by_name(tone_tracks, tmp_path):
    folder = tmp_path / "music"
    shutil.copytree(tone_tracks.parent, folder)
    data = {"cache_folder": str(tmp_path / "cache")}
    first = module_of()
    fit(first, data_of(folder / "tones.jsonl", **data), tmp_path, epochs=1)
    moved = tmp_path / "moved"
    folder.rename(moved)
    again = module_of()
    counts = watch(again)
    fit(again, data_of(moved / "tones.jsonl", **data), tmp_path, epochs=1)
    assert counts == []
    samples, rate = soundfile.read(moved / "00.wav", dtype="float32")
    soundfile.write(moved / "00.wav", 0.5 * samples, rate)
    changed = module_of()
    counts = watch(changed)
    fit(changed, data_of(moved / "tones.jsonl", **data), tmp_path, epochs=1)
    assert sum(counts) == 1, "other samples under an old name"
    other = module_of()
    with torch.no_grad():
        next(other.network.audio.encoder.parameters()).add_(1e-3)
    counts = watch(other)
    fit(other, data_of(moved / "tones.jsonl", **data), tmp_path, epochs=1)
    assert sum(counts) == 24 + 8, "other weights under an old name"


@pytest.mark.parametrize(
    ("of_module", "of_data"),
    [
        ({"audio": "trained"}, {}),
        ({"audio": "pooling"}, {}),
        ({}, {"feature_augment": [SpecAugment()]}),
        ({}, {"cache": "none"}),
        ({}, {"cache_gigabytes": 1e-9}),
    ],
    ids=["trained", "trained pooling", "augmented", "no cache", "no room"],
)
def test_vectors_are_kept_only_where_they_cannot_change(tone_tracks, tmp_path, of_module, of_data):
    audio = {"trained": lambda: encoder(trainable=True), "pooling": lambda: encoder(pooling=AttentionPool())}
    module, data = module_of(audio.get(of_module.get("audio"), encoder)()), data_of(tone_tracks, **of_data)
    fit(module, data, tmp_path, epochs=1, limit_train_batches=1, limit_val_batches=1)
    assert not data.training_set.windows.encoded


def test_a_locked_tower_of_any_kind_is_heard_once(tone_tracks, tmp_path):
    tower = MobileCnn(sample_rate=8000, n_fft=256, hop=80, bands=16, width=0.1, feature_dim=8, augment=SpecAugment())
    module = module_of(tower, audio_tuning=TowerTuning("none"))
    counts = watch(module)
    fit(module, data_of(tone_tracks), tmp_path)
    assert sum(counts) == 24 + 8


# -- checkpoints ------------------------------------------------------------------------------------------------------


def test_a_checkpoint_leaves_a_frozen_encoder_out_and_finds_it_again(tone_tracks, tmp_path):
    module = module_of(key_momentum=0.99, loss=MEMORY["loss"]())
    trainer = fit(module, data_of(tone_tracks), tmp_path, epochs=1)
    trainer.save_checkpoint(tmp_path / "x.ckpt", weights_only=False)
    checkpoint = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert not [name for name in checkpoint["state_dict"] if "encoder.encoder" in name or "feature_extractor" in name]
    assert [name for name in checkpoint["state_dict"] if name.startswith("network.audio_projection.")]
    fresh = module_of(key_momentum=0.99, loss=MEMORY["loss"]())
    fresh.on_load_checkpoint(checkpoint)
    fresh.load_state_dict(checkpoint["state_dict"], strict=True)
    for (name, value), other in zip(module.state_dict().items(), fresh.state_dict().values(), strict=True):
        assert torch.equal(value, other), name


def test_a_trained_encoder_stays_in_the_checkpoint():
    module = module_of(encoder(trainable=True))
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    assert checkpoint["state_dict"].keys() == module.state_dict().keys()
    assert checkpoint["xmodal"]["frozen_weights"] == {"audio": None, "text": None}


def test_a_checkpoint_does_not_go_on_beside_another_encoder():
    module = module_of()
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    other = module_of()
    with torch.no_grad():
        next(other.network.audio.encoder.parameters()).add_(1e-3)
    with pytest.raises(ModelError, match=r"beside a frozen audio encoder with other weights .* name the encoder"):
        other.on_load_checkpoint(copy.deepcopy(checkpoint))
    with pytest.raises(ModelError, match="trained with another audio tower"):
        module_of(encoder(layer=1)).on_load_checkpoint(copy.deepcopy(checkpoint))


# -- rates ------------------------------------------------------------------------------------------------------------


def rates(module) -> dict[str, float]:
    rate = {id(each): group["lr"] for group in parameter_groups(module) for each in group["params"]}
    return {name: rate[id(each)] for name, each in module.named_parameters() if id(each) in rate}


def test_a_frozen_encoder_is_not_trained_and_a_trained_one_learns_at_a_tenth():
    frozen = rates(module_of(encoder(pooling=AttentionPool())))
    assert not [name for name in frozen if name.startswith("network.audio.encoder.")]
    assert {rate for name, rate in frozen.items() if name.startswith("network.audio.pooling.")} == {1e-2}
    for settings, wanted in [({}, 1e-3), ({"audio_learning_rate": 5e-5}, 5e-5)]:
        trained = rates(module_of(encoder(trainable=True), **settings))
        assert {rate for name, rate in trained.items() if name.startswith("network.audio.encoder.")} == {wanted}
        assert {rate for name, rate in trained.items() if name.startswith("network.audio_projection.")} == {1e-2}
    tuned = rates(module_of(encoder(trainable=True), audio_tuning=TowerTuning(learning_rate=7e-5)))
    assert {rate for name, rate in tuned.items() if name.startswith("network.audio.encoder.")} == {7e-5}


def test_a_pretrained_text_encoder_learns_at_a_tenth_or_as_it_is_told(tiny_encoder):
    told = [({}, 1e-3), ({"text_learning_rate": 5e-5}, 5e-5), ({"text_tuning": TowerTuning(learning_rate=7e-5)}, 7e-5)]
    for settings, wanted in told:
        torch.manual_seed(0)
        text = SentenceTransformerTower(str(tiny_encoder), trainable=True)
        module = AlignmentModule(PlainTower(), text, InfoNCELoss(), 8, learning_rate=1e-2, **settings)
        own = tuple(f"network.text.{prefix}" for prefix in text.asset_prefixes)
        found = rates(module)
        assert {rate for name, rate in found.items() if name.startswith(own)} == {wanted}
        assert {rate for name, rate in found.items() if not name.startswith("network.text.")} == {1e-2}
