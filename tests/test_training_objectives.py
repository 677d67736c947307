"""Objectives that need more than a batch's vectors train from YAML on ordinary data."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml
from trainers import quiet_trainer

from xmodal.data.module import AudioTextData
from xmodal.data.register import KnownText, TextRegister
from xmodal.data.tracks import Caption, Track
from xmodal.errors import DataError
from xmodal.losses import (
    CombinedObjective,
    CrossModalMemory,
    InfoNCELoss,
    LearnedAnchors,
    NCALoss,
)
from xmodal.towers import HashedBagOfWordsTower, MobileCnn, SentenceTransformerTower
from xmodal.towers.pooling import AttentionPool, attention_of
from xmodal.training import AlignmentModule, config_folder, run
from xmodal.training.items import Concepts, attention_gap, heard_differently
from xmodal.training.momentum import MomentumEncoder

LOSS = "xmodal.losses."
INFONCE = {"class_path": LOSS + "InfoNCELoss"}


def named(name, **arguments):
    return {"class_path": LOSS + name, "init_args": arguments}


def combined(*losses, **arguments):
    return named("CombinedObjective", losses=list(losses), **arguments)


MEMORY = named("CrossModalMemory", dim=32, size=24)
SMALL_CNN = {"sample_rate": 8000, "n_fft": 256, "hop": 80, "bands": 32, "width": 0.25, "feature_dim": 64}


def small_cnn(**more):
    return {"class_path": "xmodal.towers.MobileCnn", "init_args": SMALL_CNN | more}


# The captions' objective, and that of the tags where it fits beside.
OBJECTIVES = {
    "memory; proxy graph": {
        "loss": combined(INFONCE, memory=MEMORY),
        "prompt_loss": named("ProxyGraphLoss", dim=32, per_concept=2, neighbours=0.5),
    },
    "memory and momentum encoder; random meta classes (DREML)": {
        "loss": combined(INFONCE, memory=MEMORY),
        "key_momentum": 0.9,
        "prompt_loss": named("MetaClassLoss", heads=8, groups=4),
    },
    "SoftTriple alone": {
        "loss": named("LearnedAnchors", loss=INFONCE, dim=32, per_concept=3, spread_weight=0.2),
        "prompt_weight": 0.0,
    },
    "boosted parts (BIER); learned anchors": {
        "loss": named("BoostedEnsembleLoss", widths=[8, 8, 16]),
        "prompt_loss": named("LearnedAnchors", loss=named("ProxyAnchorLoss"), dim=32),
    },
    "cascade of depths (HDC)": {
        "audio": {
            "class_path": "xmodal.towers.DepthEnsemble",
            "init_args": {"tower": small_cnn(), "depths": [2], "width": 16},
        },
        "audio_parts": 2,
        "loss": named("CascadedLoss", loss=named("ContrastiveLoss"), shares=[1.0, 0.5]),
    },
    "attention-based ensemble (ABE)": {
        "audio": small_cnn(pooling={"class_path": "xmodal.towers.AttentionEnsemblePool", "init_args": {"learners": 4}}),
        "audio_parts": 4,
        "loss": combined(named("EnsembleLoss", loss=INFONCE, learners=4), named("DiversityRegularizer", learners=4)),
    },
    "divide and conquer; episodes (DMML)": {
        "loss": named("DivideAndConquerLoss", loss=INFONCE, dim=32, learners=2, begin=1),
        "prompt_loss": named("EpisodeLoss", temperature=0.1),
    },
    "heads (MIC, DiVA, JRD)": {
        "loss": combined(
            INFONCE,
            named("InterclassHead", features=64, dim=32, width=8, clusters=3),
            named("DiverseHeads", features=64, dim=32, width=8),
            named("JointRepresentationRegularizer"),
        )
    },
    "attention that moves with the clip, clusters (TAC-CCL)": {
        "audio": small_cnn(pooling={"class_path": "xmodal.towers.AttentionPool", "init_args": {"hidden": 8}}),
        "loss": combined(INFONCE, named("AttentionConsistency"), named("ClusterContrastLoss", clusters=2)),
    },
    "curvilinear distance, order statistics (LMKML)": {
        "audio": small_cnn(pooling={"class_path": "xmodal.towers.OrderStatisticsPool"}),
        "metric": {"class_path": "xmodal.towers.CurvilinearHead", "init_args": {"order": 2}},
        "loss": named("ContrastiveLoss"),
    },
}


def fit(folder, manifest, model, *more):
    config = Path(folder) / "objective.yaml"
    config.write_text(yaml.safe_dump({"model": model}))
    base, smoke = (str(config_folder() / name) for name in ("base.yaml", "smoke.yaml"))
    return run(
        [
            *("fit", "--config", base, "--config", smoke, "--config", str(config)),
            *("--data.manifest", str(manifest), "--data.tag_fields", "[pitch,motion]"),
            *(
                "--data.decode_seconds",
                "null",
                "--runs",
                str(folder),
                "--name",
                "tones",
                "--trainer.accelerator",
                "cpu",
            ),
            *("--trainer.max_epochs", "-1", "--trainer.max_steps", "2", "--trainer.limit_val_batches", "0"),
            *("--trainer.logger", "false", "--trainer.callbacks", "[]", "--trainer.enable_checkpointing", "false"),
            *("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
            *("--trainer.default_root_dir", str(folder)),
            *("--model.centred", "false"),  # centring takes out a bias before it, which then never moves
            *more,
        ]
    )


@pytest.mark.parametrize("model", OBJECTIVES.values(), ids=OBJECTIVES.keys())
def test_two_steps_from_yaml_move_every_weight(tone_tracks, tmp_path, model):
    before = {}

    class Remember(pl.Callback):
        def on_train_start(self, trainer, pl_module):
            before.update({name: each.clone() for name, each in pl_module.named_parameters() if each.requires_grad})

    original = AlignmentModule.configure_callbacks
    AlignmentModule.configure_callbacks = lambda self: [Remember()]
    try:
        cli = fit(tmp_path, tone_tracks, model)
    finally:
        AlignmentModule.configure_callbacks = original
    assert cli.trainer.global_step == 2
    assert float(cli.trainer.callback_metrics["train/loss"]) > 0
    after = dict(cli.model.named_parameters())
    unchanged = [name for name, value in before.items() if torch.equal(after[name], value)]
    skipped = ("prompt_loss.",) if model.get("prompt_weight") == 0.0 else ()
    assert [name for name in unchanged if not name.startswith(skipped)] == []


def tiny(loss=None, text=None, **settings):
    torch.manual_seed(0)
    return AlignmentModule(
        MobileCnn(sample_rate=8000, n_fft=256, hop=80, bands=32, width=0.25, feature_dim=32),
        text or HashedBagOfWordsTower(buckets=300, embed_dim=16, feature_dim=32),
        loss or InfoNCELoss(),
        dim=16,
        window_seconds=1.0,
        **{"learning_rate": 3e-3} | settings,
    )


def tones(manifest, **settings):
    options = {
        "tag_fields": ["pitch", "motion"],
        "batch_size": 8,
        "workers": 0,
        "tag_prompts": 4,
        "decode_seconds": None,
    } | settings
    return AudioTextData(str(manifest), **options)


def trainer(folder, **settings):
    return quiet_trainer(folder, **{"limit_val_batches": 0} | settings)


def with_memory(**settings):
    loss = CombinedObjective([InfoNCELoss()], memory=CrossModalMemory(16, 20, warmup_steps=1))
    return tiny(loss, warmup=0.0, schedule="constant", **settings)


def test_a_run_with_a_memory_goes_on_from_its_checkpoint_as_if_it_had_not_stopped(tone_tracks, tmp_path):
    def weights(module):
        return {name: value.clone() for name, value in module.state_dict().items()}

    whole, half, resumed = (with_memory(key_momentum=0.5) for _ in range(3))
    trainer(tmp_path, max_epochs=3).fit(whole, tones(tone_tracks))
    first = trainer(tmp_path, max_epochs=1)
    first.fit(half, tones(tone_tracks))
    first.save_checkpoint(tmp_path / "half.ckpt")
    trainer(tmp_path, max_epochs=3).fit(resumed, tones(tone_tracks), ckpt_path=tmp_path / "half.ckpt")
    after = weights(resumed)
    assert int(after["loss.memory.steps"]) == 9
    for name, value in weights(whole).items():
        assert torch.equal(after[name], value), name


def test_memories_hold_real_keys_and_their_relevance_is_that_of_one_large_batch(tone_tracks, tmp_path):
    module = with_memory()
    data = tones(tone_tracks)
    trainer(tmp_path, max_epochs=1).fit(module, data)
    memory, register = module.loss.memory, module.item_source.register
    tracks = data.training_set.tracks
    right = register.relevance(memory.audio_keys, memory.text_keys)
    assert right.shape == (20, 20)
    for row, key in zip(right, memory.audio_keys.tolist(), strict=True):
        pitch, motion = (tracks[key].tags[kind][0] for kind in ("pitch", "motion"))
        for value, text in zip(row.tolist(), memory.text_keys.tolist(), strict=True):
            words = register._texts[text].caption.text
            assert bool(value) == (pitch in words and motion in words)


SONGS = [
    Track("a", Path("a.wav"), tags={"genre": ("Folk",), "mood": ("calm",)}, captions=(Caption("an old song"),)),
    Track("b", Path("b.wav"), tags={"mood": ("wild", "calm")}),
    Track("c", Path("c.wav"), captions=(Caption("an old song"),)),
]


def test_a_register_judges_pairs_of_different_batches_and_knows_what_it_does_not_know():
    register = TextRegister(SONGS)
    texts = [
        KnownText(Caption("an old song"), "c"),
        KnownText(Caption("a tune"), "b"),
        KnownText(Caption("calm music", frozenset({"calm"})), None, "mood"),
        KnownText(Caption("folk", frozenset({"folk"})), None, "genre"),
    ]
    keys = register.keys(texts)
    nan = float("nan")
    expected = torch.tensor([[1.0, 0, 1, 1], [0, 1, 1, nan], [1, 0, nan, nan]])
    torch.testing.assert_close(register.relevance(torch.arange(3), keys), expected, equal_nan=True)
    again = TextRegister(SONGS)
    again.load_state(register.state())
    assert torch.equal(again.keys(texts), keys)
    torch.testing.assert_close(again.relevance(torch.tensor([2, 0]), keys[1:]), expected[[2, 0], 1:], equal_nan=True)
    register.keep_only(keys[:2].tolist())
    assert len(register) == 2
    with pytest.raises(ValueError, match="1 of 2 text keys were never registered"):
        register.relevance(torch.arange(3), keys[1:3])
    assert register.relevance(torch.arange(0), keys[:2]).shape == (0, 2)


def test_texts_that_differ_in_anything_that_decides_relevance_have_different_numbers():
    words, tags = Caption("calm"), Caption("calm", frozenset({"calm"}))
    texts = [
        KnownText(words),
        KnownText(words, "a"),
        KnownText(words, "b"),
        KnownText(tags),
        KnownText(tags, None, "m"),
    ]
    keys = TextRegister(SONGS).keys([*texts, *texts]).tolist()
    assert len(set(keys)) == 5
    assert keys[:5] == keys[5:]
    assert min(keys) >= 0


def test_concepts_are_the_tags_in_a_fixed_order_and_a_kind_without_tags_is_unknown():
    concepts = Concepts(SONGS)
    assert concepts.names == [("genre", "folk"), ("mood", "calm"), ("mood", "wild")]
    assert len(concepts.texts) == 3
    assert "Folk" in concepts.texts[0]
    relevance, valid = concepts.judge([2, 0, 1])
    assert relevance.tolist() == [[False] * 3, [True, True, False], [False, True, True]]
    assert valid.tolist() == [[False] * 3, [True, True, True], [False, True, True]]
    with pytest.raises(DataError, match="no training track has one; name data.tag_fields"):
        Concepts(SONGS[2:])


def test_anchors_start_at_the_text_tower_and_have_a_rate_of_their_own(tone_tracks, tmp_path):
    loss = LearnedAnchors(NCALoss(), 16)
    module = tiny(loss, prompt_weight=0.0, proxy_learning_rate=0.5, weight_decay=0.1)
    fitted = trainer(tmp_path, max_epochs=1, limit_train_batches=1)
    data = tones(tone_tracks)
    started = {}

    class Remember(pl.Callback):
        def on_train_start(self, trainer, pl_module):
            started["anchors"] = loss.anchors.proxies.detach().clone()
            started["texts"] = pl_module.embed_texts(pl_module.item_source.concepts.texts)

    fitted.callbacks.append(Remember())
    fitted.fit(module, data)
    assert started["anchors"].shape == (4, 1, 16)  # low, high, steady, pulsing
    torch.testing.assert_close(started["anchors"][:, 0], started["texts"])
    (group,) = [each for each in module.optimizers().param_groups if each["initial_lr"] == 0.5]
    of_copy = module.prompt_loss.anchors.proxies
    assert {id(each) for each in group["params"]} == {id(loss.anchors.proxies), id(of_copy)}
    assert group["weight_decay"] == 0.0


def test_a_checkpoint_with_anchors_can_be_judged_without_its_training_tracks(tone_tracks, tmp_path):
    module = tiny(LearnedAnchors(NCALoss(), 16), prompt_weight=0.0)
    fitted = trainer(tmp_path, max_epochs=1)
    fitted.fit(module, tones(tone_tracks))
    fitted.save_checkpoint(tmp_path / "anchors.ckpt")
    again = tiny(LearnedAnchors(NCALoss(), 16), prompt_weight=0.0)
    trainer(tmp_path, limit_val_batches=1).validate(
        again, tones(tone_tracks), ckpt_path=tmp_path / "anchors.ckpt", verbose=False
    )
    assert torch.equal(again.loss.anchors.proxies, module.loss.anchors.proxies)


def test_the_key_encoder_follows_slowly_shares_what_is_frozen_and_never_draws():
    module = tiny(text=SentenceTransformerTower())
    network = module.network
    slow = MomentumEncoder(network, 0.75)
    assert slow.network.text.encoder is network.text.encoder
    assert slow.network.audio is not network.audio
    before = {name: each.clone() for name, each in slow.network.named_parameters()}
    with torch.no_grad():
        for each in network.parameters():
            if each.requires_grad:
                each += 1.0
    network.audio.blocks[0][1].running_mean += 2.0
    slow.follow(network)
    fast = dict(network.named_parameters())
    for name, each in slow.network.named_parameters():
        moved = 0.25 if fast[name].requires_grad else 0.0
        torch.testing.assert_close(each, before[name] + moved)
        assert not each.requires_grad
    assert torch.equal(slow.network.audio.blocks[0][1].running_mean, network.audio.blocks[0][1].running_mean)
    slow.train()
    assert not any(each.training for each in slow.modules())
    with pytest.raises(ValueError, match="key_momentum must be from 0 to below 1, got 1"):
        MomentumEncoder(network, 1.0)


def test_a_key_encoder_without_a_memory_is_refused():
    with pytest.raises(ValueError, match="put a CrossModalMemory into a CombinedObjective"):
        tiny(key_momentum=0.99)


def test_frozen_weights_of_the_key_encoder_stay_out_of_the_checkpoint():
    loss = CombinedObjective([InfoNCELoss()], memory=CrossModalMemory(16))
    module = tiny(loss, text=SentenceTransformerTower(), key_momentum=0.9)
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    assert not [name for name in checkpoint["state_dict"] if ".text.encoder." in name]
    assert [name for name in checkpoint["state_dict"] if name.startswith("key_encoder.network.audio.")]
    module.on_load_checkpoint(checkpoint)
    module.load_state_dict(checkpoint["state_dict"])


def test_an_objective_that_needs_tracks_says_so_when_there_is_no_data_module(tmp_path):
    module = with_memory()
    module.trainer = trainer(tmp_path)
    with pytest.raises(ValueError, match="needs a data module with training tracks"):
        module.setup("fit")


def test_a_second_hearing_has_the_same_frames_in_turned_order_with_a_silent_tenth():
    features = torch.arange(1.0, 41.0).reshape(1, 1, 40).repeat(3, 2, 1)
    torch.manual_seed(0)
    heard = heard_differently(features, torch.tensor([40, 20, 3]))
    for clip, length in zip(heard, (40, 20, 3), strict=True):
        values = clip[0, :length]
        kept = values[values > 0]
        assert len(kept) == length - length // 10
        assert len(set(kept.tolist())) == len(kept)
        assert set(kept.tolist()) <= set(range(1, length + 1))
        assert ((kept.diff() - 1) % length).tolist().count(0) >= len(
            kept
        ) - 3  # in order, but where it was turned or cut
        assert torch.equal(clip[0], clip[1])
        assert torch.equal(clip[0, length:], features[0, 0, length:])
    assert not torch.equal(heard[0], features[0])
    again = heard_differently(features, None)
    assert again.shape == features.shape


class FrameByFrame(torch.nn.Module):
    """A tower that looks at one feature frame in every ``stride``, and at where it stands if ``position`` is not 0."""

    def __init__(self, stride=1, position=0.0):
        super().__init__()
        self.stride, self.position, self.pooling = stride, position, AttentionPool(hidden=4)
        torch.manual_seed(0)
        self.pooling.prepare(2)

    def encode(self, features, valid_frames):
        frames = features[:, :, :: self.stride]
        frames = frames + self.position * torch.arange(frames.shape[2])
        if valid_frames is None:
            return self.pooling(frames)
        return self.pooling(frames, torch.arange(frames.shape[2]) < -(-valid_frames // self.stride)[:, None])


@pytest.mark.parametrize("valid_frames", [None, torch.tensor([24, 16, 8])])
@pytest.mark.parametrize("stride", [1, 4])
def test_attention_that_moves_with_the_clip_has_no_gap_and_attention_to_places_has_one(stride, valid_frames):
    features = torch.randn(3, 2, 24, generator=torch.Generator().manual_seed(0))
    for seed in range(5):
        torch.manual_seed(seed)
        gap = attention_gap(FrameByFrame(stride), features, valid_frames)
        assert gap.shape == (3,)
        assert float(gap.detach().abs().max()) < 1e-10
    placed = FrameByFrame(stride, position=0.3)
    torch.manual_seed(1)
    turn = (torch.rand(3) * (torch.tensor([24, 24, 24]) if valid_frames is None else valid_frames) / stride).long()
    torch.manual_seed(1)
    gap = attention_gap(placed, features, valid_frames)
    for clip, begin in enumerate(turn.tolist()):
        length = 24 if valid_frames is None else int(valid_frames[clip])
        own = features[clip : clip + 1, :, :length]
        with attention_of(placed) as heard:
            placed.encode(own, None)
            placed.encode(own.roll(-begin * stride, dims=2), None)
        first, second = (len(each[0]) * each[0] for each in heard)  # 1 everywhere under even attention
        torch.testing.assert_close(gap[clip], (first.roll(-begin) - second).square().mean())
    assert float(gap.detach().max()) > 1e-3


def test_attention_cannot_be_asked_of_a_tower_that_has_none():
    with pytest.raises(ValueError, match="MobileCnn does not pool by attention; give it pooling"):
        attention_gap(MobileCnn(width=0.25), torch.zeros(1, 64, 32), None)


def test_the_gap_of_attention_trains_the_tower():
    assert attention_gap(FrameByFrame(), torch.zeros(0, 2, 24), None).shape == (0,)
    tower = FrameByFrame(position=0.3)
    attention_gap(tower, torch.randn(3, 2, 24), None).mean().backward()
    assert all(float(weight.grad.abs().max()) > 0 for weight in tower.parameters())
