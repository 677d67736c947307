from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml
from torch.testing import assert_close
from trainers import quiet_trainer

import xmodal
from xmodal.data.module import AudioTextData
from xmodal.embeddings import Embeddings
from xmodal.errors import DataError, ModelError
from xmodal.losses import (
    CombinedObjective,
    ContrastiveLoss,
    InfoNCELoss,
    NPairLoss,
    SigLIPLoss,
    SpreadOutRegularizer,
    TripletLoss,
)
from xmodal.towers import HashedBagOfWordsTower, MobileCnn, SentenceTransformerTower
from xmodal.training import AlignmentModule, Cli, both_directions, learning_rate_factor, main, pool_windows

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"


def tiny_module(loss=None, text=None, **settings):
    torch.manual_seed(0)
    return AlignmentModule(
        MobileCnn(sample_rate=8000, n_fft=256, hop=80, bands=32, width=0.25, feature_dim=32),
        text or HashedBagOfWordsTower(buckets=300, embed_dim=16, feature_dim=32),
        loss or InfoNCELoss(),
        dim=16,
        window_seconds=1.0,
        **{"learning_rate": 3e-3, "text_learning_rate": 3e-3} | settings,
    )


def tone_data(manifest, **settings):
    return AudioTextData(
        str(manifest),
        **{"tag_fields": ["pitch", "motion"], "batch_size": 8, "workers": 0, "tag_prompts": 4, "decode_seconds": None}
        | settings,
    )


def arguments(folder, manifest, *more):
    return [
        *("--config", str(CONFIGS / "base.yaml"), "--config", str(CONFIGS / "smoke.yaml")),
        *("--data.manifest", str(manifest), "--data.tag_fields", "[pitch,motion]"),
        *("--data.decode_seconds", "null", "--runs", str(folder), "--name", "tones", "--trainer.accelerator", "cpu"),
        *more,
    ]


@pytest.fixture(scope="module")
def run(tone_tracks, tmp_path_factory):
    """A run of the command line on the tones, and its folder."""
    folder = tmp_path_factory.mktemp("run")
    assert (
        main(["fit", *arguments(folder, tone_tracks, "--trainer.max_epochs", "12", "--data.decode_seconds", "60")]) == 0
    )
    return folder / "tones" / "version_0"


@pytest.mark.parametrize(
    "loss",
    [
        InfoNCELoss(),
        SigLIPLoss(),
        *(TripletLoss(margin=0.2, mining=mining) for mining in ("all", "hard", "semi-hard")),
        ContrastiveLoss(),
        NPairLoss(),  # looks at the norms of the vectors
        CombinedObjective([InfoNCELoss(), SpreadOutRegularizer()], [1.0, 0.1]),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_every_loss_learns_to_tell_tones_apart(tone_tracks, tmp_path, loss):
    module, data = tiny_module(loss), tone_data(tone_tracks)
    fitted = quiet_trainer(tmp_path, max_epochs=15)
    fitted.fit(module, datamodule=data)
    (figures,) = fitted.test(module, datamodule=data, verbose=False)
    # Four kinds of tone, a quarter of the tracks each: chance is an mAP@10 of about 0.36.
    assert figures["test/text_to_audio/mAP@10"] > 0.8


def test_the_towers_and_both_losses_scalars_are_trained(tone_tracks, tmp_path):
    module = tiny_module()
    before = {name: parameter.clone() for name, parameter in module.named_parameters()}
    quiet_trainer(tmp_path, max_epochs=1, limit_val_batches=0).fit(module, datamodule=tone_data(tone_tracks))
    unchanged = [name for name, parameter in module.named_parameters() if torch.equal(parameter, before[name])]
    assert unchanged == []


def test_without_prompts_the_second_loss_is_never_asked(tone_tracks, tmp_path):
    module = tiny_module(prompt_weight=0.0)
    scale = {name: parameter.clone() for name, parameter in module.prompt_loss.named_parameters()}
    quiet_trainer(tmp_path, max_epochs=1, limit_val_batches=0).fit(module, datamodule=tone_data(tone_tracks))
    assert all(torch.equal(parameter, scale[name]) for name, parameter in module.prompt_loss.named_parameters())


def test_a_run_writes_curves_checkpoints_and_a_model_that_loads(run, tone_tracks):
    assert (run / "config.yaml").is_file()
    header = (run / "metrics.csv").read_text().splitlines()[0]
    assert "validation/text_to_audio/mAP@10" in header
    assert "validation/audio_to_text/R@1" in header
    assert "train/loss" in header
    assert list(run.glob("events.out.tfevents*"))
    assert (run / "checkpoints" / "last.ckpt").is_file()
    embedder = xmodal.load(run / "model", device="cpu")
    first = embedder.embed_files([tone_tracks.parent / "00.wav"]).embeddings.vectors[0]
    scores = embedder.embed_texts(["a steady low tone", "a pulsing high tone"]) @ first
    assert scores[0] > scores[1] + 0.3


def test_the_exported_model_is_the_best_checkpoint_and_not_the_last(run):
    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    exported = xmodal.load(run / "model", device="cpu").model.state_dict()
    for name, value in exported.items():
        assert torch.equal(value, checkpoint["state_dict"][f"network.{name}"]), name


def test_every_logger_of_a_run_writes_to_the_same_new_folder(tone_tracks, tmp_path):
    (tmp_path / "tones" / "version_4").mkdir(parents=True)
    short = ("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1")
    assert main(["fit", *arguments(tmp_path, tone_tracks, *short)]) == 0
    (curves,) = tmp_path.rglob("metrics.csv")
    (events,) = tmp_path.rglob("events.out.tfevents*")
    assert curves.parent == events.parent == tmp_path / "tones" / "version_5"


def test_a_finished_run_can_be_tested_and_predicted_from_its_checkpoint(run, tone_tracks, tmp_path, capsys):
    ckpt = ("--ckpt_path", str(run / "checkpoints" / "last.ckpt"))
    assert main(["test", *arguments(tmp_path, tone_tracks, *ckpt)]) == 0
    assert "test/text_to_audio/mAP@10" in capsys.readouterr().out
    writer = "{class_path: xmodal.training.WritePredictions}"
    assert main(["predict", *arguments(tmp_path, tone_tracks, *ckpt, "--trainer.callbacks+", writer)]) == 0
    (export,) = tmp_path.rglob("embeddings.parquet")
    embeddings = Embeddings.load(export)
    assert sorted(embeddings.ids) == [f"tone{number:02d}" for number in range(40)]
    assert embeddings.metadata[0]["tags"]


def test_a_run_goes_on_from_its_checkpoint(run, tone_tracks, tmp_path):
    ckpt = ("--ckpt_path", str(run / "checkpoints" / "last.ckpt"))
    assert main(["fit", *arguments(tmp_path, tone_tracks, *ckpt, "--trainer.max_epochs", "13")]) == 0
    last = torch.load(next(tmp_path.rglob("last.ckpt")), weights_only=True)
    assert last["epoch"] == 12
    assert last["global_step"] == 13 * 3


def test_going_on_from_a_checkpoint_gives_the_weights_of_an_undisturbed_run(tone_tracks, tmp_path):
    def weights(module):
        return {name: value.clone() for name, value in module.state_dict().items()}

    whole, half = tiny_module(schedule="constant"), tiny_module(schedule="constant")
    pl.seed_everything(1, verbose=False)
    quiet_trainer(tmp_path, max_epochs=4).fit(whole, datamodule=tone_data(tone_tracks))
    pl.seed_everything(1, verbose=False)
    first = quiet_trainer(tmp_path, max_epochs=2)
    # The warm-up is a share of all steps, so the first half must know how long the whole run will be.
    half.warmup = whole.warmup = 0.0
    first.fit(half, datamodule=tone_data(tone_tracks))
    first.save_checkpoint(tmp_path / "half.ckpt")
    resumed = tiny_module(schedule="constant", warmup=0.0)
    undisturbed = tiny_module(schedule="constant", warmup=0.0)
    quiet_trainer(tmp_path, max_epochs=4).fit(
        resumed, datamodule=tone_data(tone_tracks), ckpt_path=tmp_path / "half.ckpt"
    )
    quiet_trainer(tmp_path, max_epochs=4).fit(undisturbed, datamodule=tone_data(tone_tracks))
    for name, value in weights(undisturbed).items():
        assert torch.equal(weights(resumed)[name], value), name


def test_a_frozen_text_tower_stays_as_it_is_and_out_of_the_checkpoint(tone_tracks, tmp_path):
    module = tiny_module(text=SentenceTransformerTower())
    before = module.network.text.state_dict()
    reads = []
    encode = module.network.text.encode
    module.network.text.encode = lambda batch: reads.append(batch.count) or encode(batch)  # type: ignore[method-assign]
    fitted = quiet_trainer(tmp_path, max_epochs=3)
    fitted.fit(module, datamodule=tone_data(tone_tracks))
    assert sum(reads) < 60, "each text should be read once, not once an epoch"
    fitted.save_checkpoint(tmp_path / "frozen.ckpt")
    checkpoint = torch.load(tmp_path / "frozen.ckpt", weights_only=True)
    assert not [name for name in checkpoint["state_dict"] if name.startswith("network.text.encoder")]
    for name, value in module.network.text.state_dict().items():
        assert torch.equal(value, before[name])
    again = tiny_module(text=SentenceTransformerTower())
    quiet_trainer(tmp_path, max_epochs=3).validate(
        again, tone_data(tone_tracks), ckpt_path=tmp_path / "frozen.ckpt", verbose=False
    )
    assert_close(again.embed_texts(["low"]), module.embed_texts(["low"]))


def test_a_checkpoint_of_another_text_tower_or_program_is_refused():
    module = tiny_module(text=SentenceTransformerTower())
    checkpoint = {"state_dict": module.state_dict()}
    with pytest.raises(ModelError, match="not written by xmodal's training"):
        module.on_load_checkpoint(dict(checkpoint))
    module.on_save_checkpoint(checkpoint)
    with pytest.raises(ModelError, match="another text tower"):
        tiny_module().on_load_checkpoint(checkpoint)


def test_the_learning_rate_warms_up_and_falls_as_a_cosine():
    factor = learning_rate_factor(100, 10, "cosine")
    assert [factor(0), factor(9), factor(10)] == pytest.approx([1 / 11, 10 / 11, 1.0])
    assert factor(55) == pytest.approx(0.5)
    assert factor(100) == pytest.approx(0.0)
    assert factor(120) == pytest.approx(0.0)
    assert learning_rate_factor(100, 0, "constant")(99) == 1.0


def test_biases_gains_and_the_losses_scalars_are_not_decayed(tone_tracks, tmp_path):
    module = tiny_module(text_learning_rate=1e-4)
    quiet_trainer(tmp_path, max_epochs=1, limit_train_batches=1, limit_val_batches=0).fit(
        module, datamodule=tone_data(tone_tracks)
    )
    groups = module.optimizers().param_groups  # type: ignore[union-attr]
    decayed = {id(p) for group in groups for p in group["params"] if group["weight_decay"] > 0}
    assert decayed == {id(p) for p in module.parameters() if p.requires_grad and p.ndim > 1}


@pytest.mark.parametrize("broken", [False, True])
def test_freed_memory_is_kept_for_a_fit_and_given_back_however_it_ends(tone_tracks, tmp_path, monkeypatch, broken):
    class Broken(pl.Callback):
        def on_train_batch_end(self, *_) -> None:
            if broken:
                raise RuntimeError("a callback that fails")

    done = []
    for name in ("keep_freed_memory", "give_back_freed_memory"):
        monkeypatch.setattr(f"xmodal.training.module.{name}", lambda name=name: done.append(name))
    trainer = quiet_trainer(tmp_path, Broken(), max_steps=1, limit_val_batches=0)
    with pytest.raises(RuntimeError, match="fails") if broken else contextlib.nullcontext():
        trainer.fit(tiny_module(), datamodule=tone_data(tone_tracks))
    assert done == ["keep_freed_memory", "give_back_freed_memory"]


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradients_are_clipped_in_mixed_precision_beside_the_fused_optimiser(tone_tracks, tmp_path, algorithm):
    class Clipped(pl.Callback):
        sizes: list[torch.Tensor]

        def on_train_start(self, *_) -> None:
            self.sizes = []

        def on_before_zero_grad(self, trainer, module, _optimizer) -> None:
            found = [each.grad.flatten() for each in module.parameters() if each.grad is not None]
            if found:
                self.sizes.append(torch.cat(found).norm() if algorithm == "norm" else torch.cat(found).abs().max())

    clipped, module = Clipped(), tiny_module()
    clipping = {"gradient_clip_val": 1e-3, "gradient_clip_algorithm": algorithm}
    trainer = quiet_trainer(tmp_path, clipped, max_steps=3, precision="bf16-mixed", limit_val_batches=0, **clipping)
    trainer.fit(module, datamodule=tone_data(tone_tracks))
    assert all(group["fused"] for group in trainer.optimizers[0].param_groups)
    assert_close(torch.stack(clipped.sizes), torch.full((len(clipped.sizes),), 1e-3), rtol=1e-2, atol=0)
    assert len(clipped.sizes) >= 2


def test_scaled_gradients_get_an_optimiser_that_does_not_unscale_them_after_clipping(tone_tracks, tmp_path):
    module = tiny_module()
    module.trainer = quiet_trainer(tmp_path, max_steps=3)
    module.trainer._accelerator_connector.precision_plugin.precision = "16-mixed"
    made = module.configure_optimizers()["optimizer"]
    assert not any(group["fused"] for group in made.param_groups)
    assert not getattr(made, "_step_supports_amp_scaling", False)


def test_only_a_pretrained_encoder_is_trained_at_the_text_rate(tone_tracks, tmp_path):
    module = tiny_module(text_learning_rate=1e-4)
    module.network.text.asset_prefixes = ("table.",)  # as if that part came from elsewhere
    fitted = quiet_trainer(tmp_path, max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    fitted.fit(module, datamodule=tone_data(tone_tracks))
    groups = module.optimizers().param_groups  # type: ignore[union-attr]
    slow = {id(p) for group in groups for p in group["params"] if group["initial_lr"] == 1e-4}
    assert slow == {id(p) for name, p in module.network.text.named_parameters() if name.startswith("table.")}
    assert slow


def test_windows_are_pooled_by_track():
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    pooled = pool_windows(vectors, torch.tensor([0, 0, 2]), 3)
    assert_close(pooled, torch.tensor([[0.5**0.5, 0.5**0.5], [0.0, 0.0], [0.0, -1.0]]))


def test_directions_are_not_mixed_up():
    score = torch.tensor([[0.9, 0.8, 0.7], [0.2, 0.3, 0.1]])
    relevance = torch.tensor([[True, False, False], [False, False, True]])
    figures = both_directions(score, relevance)
    assert figures["audio_to_text/MRR"] == pytest.approx((1 + 1 / 3) / 2)
    assert figures["text_to_audio/MRR"] == pytest.approx((1 + 1 / 2) / 2)


def test_nonsense_settings_are_refused(tone_tracks):
    with pytest.raises(ValueError, match="warmup"):
        tiny_module(warmup=1.0)
    with pytest.raises(ValueError, match="prompt_weight"):
        tiny_module(prompt_weight=-1.0)
    with pytest.raises(ValueError, match="batch_size"):
        tone_data(tone_tracks, batch_size=1)
    with pytest.raises(ValueError, match="go together"):
        tone_data(tone_tracks, test_fold=1)


def test_validation_is_never_the_test_set(tone_tracks):
    splits = tone_data(tone_tracks).read()
    ids = {name: {track.id for track in tracks} for name, tracks in splits.items()}
    assert all(ids.values())
    assert not ids["validation"] & ids["test"]
    assert not ids["train"] & (ids["validation"] | ids["test"])


def test_a_missing_split_is_named(tone_tracks, tmp_path):
    rows = [line for line in tone_tracks.read_text().splitlines() if '"train"' in line]
    manifest = tone_tracks.parent / "only_train.jsonl"
    manifest.write_text("\n".join(rows))
    data = tone_data(manifest, validation=0.0, test=0.0)
    with pytest.raises(DataError, match=r"no tracks in its validation split \(train 24"):
        quiet_trainer(tmp_path, max_epochs=1).fit(tiny_module(), datamodule=data)


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_training_reads_files_with_and_without_the_cache(tone_tracks, tmp_path, cache):
    module = tiny_module()
    fitted = quiet_trainer(tmp_path, max_epochs=1)
    fitted.fit(module, datamodule=tone_data(tone_tracks, cache=cache))
    assert 0 < float(fitted.callback_metrics["train/loss"]) < 10


def test_a_cache_that_does_not_fit_is_not_built(tone_tracks, tmp_path):
    from xmodal.data.kept import CachedWindowSet
    from xmodal.data.windows import WindowSet

    module = tiny_module()
    small, large = tone_data(tone_tracks, cache_gigabytes=1e-6), tone_data(tone_tracks)
    for data in (small, large):
        data.prepare("fit", module.network.audio, module.network.windows)
    assert isinstance(small.training_set.windows, WindowSet)
    assert isinstance(large.training_set.windows, CachedWindowSet)


# Loggers of services need their packages (test_training_tools.py stands in for them); protocols and a search space are
# no configs of training.
TRAINED_WITH = [
    path
    for path in sorted(CONFIGS.rglob("*.yaml"))
    if path.parent.name not in ("loggers", "protocols") and path.name != "sweep.yaml"
]


@pytest.mark.parametrize("path", TRAINED_WITH, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_config_parses_and_builds(path, monkeypatch):
    """jsonargparse checks every name and type; the towers too large for a test are built on the meta device."""
    from published_models import published

    from xmodal.towers import pretrained

    # What the configs name on the Hugging Face Hub, in the same layout and small.
    stand_ins = {"laion/clap-htsat-unfused": "clap", "MIT/ast-finetuned-audioset-10-10-0.4593": "ast"}
    stand_ins |= {"m-a-p/MERT-v1-95M": "mert", "facebook/wav2vec2-base": "wav2vec2"}
    place = pretrained._place
    monkeypatch.setattr(
        pretrained, "_place", lambda source: published(stand_ins[source]) if source in stand_ins else place(source)
    )
    monkeypatch.setattr(sys, "argv", ["train.py"])
    configs = ["--config", str(CONFIGS / "base.yaml")]
    if path.name != "base.yaml":
        configs += ["--config", str(path)]
    read_from_source = "source" in yaml.safe_load(path.read_text()).get("data", {}) and path.name != "base.yaml"
    configs += [] if read_from_source else ["--data.manifest", "x.csv"]
    cli = Cli(AlignmentModule, AudioTextData, run=False, args=configs)
    assert isinstance(cli.model, AlignmentModule)
    named = yaml.safe_load(path.read_text()).get("model", {}).get("loss")
    if named:
        assert type(cli.model.loss).__name__ == named["class_path"].rpartition(".")[2]


def test_a_typo_is_answered_by_name_and_a_bad_manifest_in_one_sentence(tmp_path, tone_tracks, capsys):
    with pytest.raises(SystemExit):
        main(["fit", *arguments(tmp_path, tone_tracks, "--model.learning_rat", "1")])
    assert "learning_rat" in capsys.readouterr().err
    assert main(["fit", *arguments(tmp_path, tmp_path / "absent.csv")]) == 2
    assert "absent.csv" in capsys.readouterr().err


def test_train_py_is_the_same_command():
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", "fit", "--help"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert "--config" in done.stdout


def test_a_bare_folder_is_enough_to_train_on(tone_tracks, tmp_path):
    for row in map(json.loads, tone_tracks.read_text().splitlines()):
        folder = tmp_path / "music" / f"{row['motion']}_{row['pitch']}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(tone_tracks.parent / row["path"], folder)
    words = ["--config", str(CONFIGS / "base.yaml"), "--config", str(CONFIGS / "smoke.yaml")]
    words += ["--config", str(CONFIGS / "data" / "folder.yaml"), "--data.manifest", str(tmp_path / "music")]
    words += ["--runs", str(tmp_path), "--name", "folder", "--trainer.accelerator", "cpu", "--data.validation", "0.3"]
    assert main(["fit", *words]) == 0
    embedder = xmodal.load(tmp_path / "folder" / "version_0" / "model", device="cpu")
    assert embedder.embed_texts(["steady low"]).shape == (1, 32)
