"""The record of a run, other loggers, overfit, lr-find and sweep, from YAML as a user runs them."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path

import pytest
import yaml

from xmodal.errors import DataError
from xmodal.runs import list_runs
from xmodal.training import AlignmentModule, main
from xmodal.training.command import build
from xmodal.training.probes import find_learning_rate, overfit, rate_curve
from xmodal.training.sweep import read_space

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
needs_optuna = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="Optuna is not installed")


def words(folder, manifest, *more):
    return [
        *("--config", str(CONFIGS / "base.yaml"), "--config", str(CONFIGS / "smoke.yaml")),
        *("--data.manifest", str(manifest), "--data.tag_fields", "[pitch,motion]"),
        *("--data.decode_seconds", "null", "--runs", str(folder), "--name", "tones", "--trainer.accelerator", "cpu"),
        *more,
    ]


# -- the record -------------------------------------------------------------------------------------------------


def test_a_run_writes_what_it_was_made_of_and_how_it_ended(tone_tracks, tmp_path):
    assert main(["fit", *words(tmp_path, tone_tracks, "--seed_everything", "7", "--trainer.max_epochs", "1")]) == 0
    (run,) = list_runs(tmp_path)
    told = run.record
    assert (run.status, told["seed"], told["step"], told["splits"]["train"]) == ("finished", 7, 3, 24)
    assert told["data"]["of"] == "sizes"
    assert told["data"]["files"] == 40
    assert told["versions"]["torch"]
    assert told["starts"] == [{"at": told["started"], "step": 0}]
    assert told["best"]["monitor"] == "validation/text_to_audio/mAP@10"
    assert told["doctor"] in ("healthy", "warning", "ill")
    assert run.value("model.loss.temperature") == 0.07
    assert yaml.safe_load((run.folder / "config.yaml").read_text())["seed_everything"] == 7


@pytest.mark.parametrize(("error", "status"), [(RuntimeError("no memory"), "failed"), (KeyboardInterrupt(), "stopped")])
def test_a_run_that_ends_badly_says_so(tone_tracks, tmp_path, monkeypatch, error, status):
    def broken(*_):
        raise error

    monkeypatch.setattr(AlignmentModule, "training_step", broken)
    with pytest.raises((RuntimeError, KeyboardInterrupt, SystemExit)):
        main(["fit", *words(tmp_path, tone_tracks)])
    (run,) = list_runs(tmp_path)
    assert run.status == status
    assert ("no memory" in run.record["error"]) == (status == "failed")


# -- loggers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_other_loggers_are_chosen_by_yaml(name, tmp_path, monkeypatch):
    """The services' packages are not needed: their loggers are made, with the run's own name, and not yet used."""
    from pytorch_lightning.loggers import mlflow, wandb

    monkeypatch.setattr(wandb, "_WANDB_AVAILABLE", True)
    monkeypatch.setattr(mlflow, "_MLFLOW_AVAILABLE", True)
    monkeypatch.setattr(mlflow, "_get_resolve_tags", lambda: dict, raising=False)
    monkeypatch.setitem(sys.modules, "wandb", type(sys)("wandb"))
    stub = type(sys)("mlflow.tracking")
    stub.MlflowClient = type("MlflowClient", (), {"__init__": lambda self, uri: None})
    monkeypatch.setitem(sys.modules, "mlflow", type(sys)("mlflow"))
    monkeypatch.setitem(sys.modules, "mlflow.tracking", stub)
    (tmp_path / "mine" / "version_3").mkdir(parents=True)
    cli = build(
        ["--config", str(CONFIGS / "base.yaml"), "--config", str(CONFIGS / "smoke.yaml"), "--data.manifest", "x.csv",
         "--config", str(CONFIGS / "loggers" / f"{name}.yaml"), "--runs", str(tmp_path), "--name", "mine"],
    )  # fmt: skip
    kinds = [type(logger).__name__ for logger in cli.trainer.loggers]
    assert kinds == ["CSVLogger", {"wandb": "WandbLogger", "mlflow": "MLFlowLogger"}[name]]
    curves, service = cli.trainer.loggers
    assert Path(curves.log_dir) == tmp_path / "mine" / "version_4"
    if name == "wandb":
        assert service._name == "mine/version_4"
        assert service._project == "xmodal"
    else:
        assert service._run_name == "mine/version_4"
        assert service._experiment_name == "xmodal"


# -- one batch --------------------------------------------------------------------------------------------------


def test_one_batch_is_learned_by_heart(tone_tracks, tmp_path, capsys):
    code = main(["overfit", "--steps", "60", "--json", *words(tmp_path, tone_tracks, "--model.learning_rate", "0.003")])
    told = json.loads(capsys.readouterr().out)
    assert (code, told["learned"], told["steps"], told["tracks"]) == (0, True, 60, 8)
    assert told["last_loss"] < told["first_loss"]
    assert not any(tmp_path.iterdir()), "a probe writes nothing"


def test_what_cannot_learn_is_told_from_what_can(tone_tracks, tmp_path, capsys):
    idle = ("--model.learning_rate", "0", "--model.text_learning_rate", "0", "--model.weight_decay", "0")
    assert main(["overfit", "--steps", "5", *words(tmp_path, tone_tracks, *idle)]) == 1
    assert "not learned: take more --steps" in capsys.readouterr().out


def test_the_batch_of_an_overfit_is_always_the_same(tone_tracks, tmp_path):
    one, two = (overfit(words(tmp_path, tone_tracks), 3) for _ in range(2))
    assert one == two


# -- learning rate ----------------------------------------------------------------------------------------------


def test_the_curve_falls_fastest_where_it_was_made_to():
    rates = [10 ** (-6 + 0.05 * place) for place in range(100)]
    # A logistic fall around 1e-4, then a rise.
    losses = [4 - 3 / (1 + math.exp(-4 * (math.log10(rate) + 4))) + 1e3 * max(rate - 1e-2, 0) for rate in rates]
    curve = rate_curve(rates, losses)
    assert curve.suggestion == pytest.approx(1e-4, rel=0.3)
    assert curve.lowest > curve.suggestion
    assert rate_curve(rates, [1.0 + place for place in range(100)]).suggestion is None
    assert rate_curve(rates[:20], [2.0] * 20).smooth == pytest.approx([2.0] * 20)


def test_a_learning_rate_is_found_and_drawn(tone_tracks, tmp_path, capsys):
    plot = tmp_path / "plots" / "lr.png"
    code = main(["lr-find", "--steps", "40", "--plot", str(plot), *words(tmp_path / "runs", tone_tracks)])
    said = capsys.readouterr().out
    assert code == 0
    assert plot.read_bytes()[:4] == b"\x89PNG"
    rate = float(said.splitlines()[1].split()[1])
    assert 1e-5 < rate < 1
    assert not (tmp_path / "runs").exists()


def test_the_rates_of_the_test_rise_evenly_and_groups_keep_their_ratio(tone_tracks, tmp_path):
    curve = find_learning_rate(words(tmp_path, tone_tracks), lowest=1e-5, highest=1e-3, steps=12)
    steps = [math.log(after / before) for before, after in zip(curve.rates, curve.rates[1:], strict=False)]
    assert steps == pytest.approx([math.log(100) / 11] * 11)
    assert curve.rates[0] == pytest.approx(1e-5)


def test_a_range_that_makes_no_test_is_refused(tone_tracks, tmp_path):
    with pytest.raises(ValueError, match="must rise from above 0, got 0.1 to 0.01"):
        find_learning_rate(words(tmp_path, tone_tracks), lowest=0.1, highest=0.01)
    with pytest.raises(ValueError, match="at least 10 steps, got 3"):
        find_learning_rate(words(tmp_path, tone_tracks), steps=3)
    assert main(["overfit", "--steps", "0"]) == 2


# -- sweep ------------------------------------------------------------------------------------------------------


@needs_optuna
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_sweep_tries_goes_on_and_writes_the_best(tone_tracks, tmp_path, capsys):
    space = tmp_path / "space.yaml"
    space.write_text(
        "model.learning_rate: {low: 1.0e-3, high: 1.0e-2, log: true}\n"
        "model.loss: {choices: [{class_path: xmodal.losses.SigLIPLoss}, {class_path: xmodal.losses.InfoNCELoss}]}\n"
        "data.batch_size: {low: 8, high: 12, step: 4}\n"
    )
    out = tmp_path / "sweep"
    given = ["--config", str(CONFIGS / "base.yaml"), "--config", str(CONFIGS / "smoke.yaml")]
    given += [
        "--data.manifest",
        str(tone_tracks),
        "--data.tag_fields",
        "[pitch,motion]",
        "--trainer.accelerator",
        "cpu",
    ]
    given += ["--data.decode_seconds", "null", "--trainer.max_epochs", "1"]
    asked = ["sweep", "--space", str(space), "--out", str(out)]
    assert main([*asked, "--trials", "1", *given]) == 0
    assert main([*asked, "--trials", "2", *given]) == 0
    said = capsys.readouterr().out
    assert "2 done, 0 pruned, 0 failed" in said
    first, second = list_runs(out)
    assert (first.name, second.name) == ("trial-000/version_0", "trial-001/version_0")
    assert first.value("model.learning_rate") != second.value("model.learning_rate"), "going on must not repeat"
    best = yaml.safe_load((out / "best.yaml").read_text())
    assert 1e-3 <= best["model"]["learning_rate"] <= 1e-2
    assert best["data"]["batch_size"] in (8, 12)
    cli = build([*given, "--config", str(out / "best.yaml")])
    assert cli.model.learning_rate == best["model"]["learning_rate"]
    assert type(cli.model.loss).__name__ == best["model"]["loss"]["class_path"].rpartition(".")[2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names nothing to search"),
        ("model.dim: 5", r"model.dim needs \{low: …, high: …\} or \{choices: \[…\]\}, got 5"),
        ("model.dim: {low: 1}", "takes low, high, log and step, or choices"),
        ("model.learning_rate: {low: 1e-4, high: 1.0}", "YAML wants 1.0e-4 and not 1e-4"),
        ("model.dim: {low: 8, high: 4}", "must rise from low to high"),
        ("model.dim: {low: 0, high: 4, log: true}", "from above 0 with log"),
        ("model.dim: {choices: []}", "takes low, high, log and step, or choices"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused_by_key(tmp_path, text, message):
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_space(path)
