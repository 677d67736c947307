"""A hyper-parameter search over the configuration, with Optuna: every trial is a ``fit`` with other values.

    python train.py sweep --space configs/sweep.yaml --trials 20 --out runs/sweep \
        --config configs/base.yaml --data.manifest tracks.csv

``--space`` names the keys and their ranges; everything that is not an option of the sweep goes to ``fit``. The study is
a log beside the trials, so a sweep that was stopped goes on when the same command is given again.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import yaml

from xmodal.atomic import written_aside
from xmodal.errors import DataError, TrainingError, XmodalError
from xmodal.runs import MONITOR
from xmodal.training.command import run

if TYPE_CHECKING:
    import optuna

_RANGE = {"low", "high", "log", "step"}


def read_space(path: str | Path) -> dict[str, dict[str, Any]]:
    """Read a search space: ``key: {low: 1e-4, high: 1e-2, log: true}`` or ``key: {choices: [a, b]}``.

    Raises:
        DataError: If the file cannot be read or a range makes no sense; the message names the key.
    """
    path = Path(path)
    try:
        space = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read as a search space: {error}") from error
    if not isinstance(space, dict) or not space:
        raise DataError(
            f"{path} names nothing to search; write lines like model.learning_rate: {{low: 1e-4, high: 1e-2}}"
        )
    for key, values in space.items():
        _check(path, key, values)
    return space


def _check(path: Path, key: str, values: Any) -> None:
    if not isinstance(values, dict):
        raise DataError(f"{path}: {key} needs {{low: …, high: …}} or {{choices: […]}}, got {values!r}")
    if set(values) == {"choices"} and isinstance(values["choices"], list) and values["choices"]:
        return
    unknown = set(values) - _RANGE
    if unknown or not {"low", "high"} <= set(values):
        raise DataError(f"{path}: {key} takes low, high, log and step, or choices; got {sorted(values)}")
    numbers = [values[name] for name in ("low", "high", "step") if name in values]
    for number in numbers:
        # YAML reads 1e-4 as a text: it wants 1.0e-4.
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise DataError(f"{path}: {key} needs numbers, got {number!r}; YAML wants 1.0e-4 and not 1e-4")
    if not values["low"] < values["high"] or (values.get("log") and values["low"] <= 0):
        raise DataError(f"{path}: {key} must rise from low to high (from above 0 with log), got {values}")


def suggest(trial: optuna.Trial, space: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Values for one trial."""
    found: dict[str, Any] = {}
    for key, values in space.items():
        if "choices" in values:
            # Optuna knows plain values only; a list or a class_path stands as its place in the choices.
            place = trial.suggest_categorical(key, list(range(len(values["choices"]))))
            found[key] = values["choices"][place]
        elif all(isinstance(values[name], int) for name in ("low", "high")):
            step = values.get("step", 1)
            found[key] = trial.suggest_int(key, values["low"], values["high"], step=step, log=bool(values.get("log")))
        else:
            found[key] = trial.suggest_float(
                key, values["low"], values["high"], log=bool(values.get("log")), step=values.get("step")
            )
    return found


def sweep(
    space: Mapping[str, Mapping[str, Any]],
    words: Sequence[str],
    out: str | Path,
    *,
    trials: int,
    metric: str = MONITOR,
    seed: int = 0,
    prune: bool = True,
) -> optuna.Study:
    """Search; trials that are done already, in an earlier call with the same ``out``, count.

    A trial whose run fails (data that cannot be used aside) is a failed trial and the search goes on. The best values
    found so far are in ``out/best.yaml``, ready for ``--config``.

    Args:
        space: What :func:`read_space` gave.
        words: As after ``fit``.
        out: Folder of the study and of its runs.
        trials: How many trials there shall be in the end.
        metric: What to make large, as validation logs it.
        seed: Of the sampler (TPE).
        prune: Stop trials that are below the median of the others at the same validation.

    Raises:
        ModuleNotFoundError: If Optuna is not installed.
        DataError: If the data cannot be used.
    """
    optuna = _optuna()
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(out / "study.log")))
    done_before = len(_trials(storage, optuna))
    study = optuna.create_study(
        study_name="sweep",
        storage=storage,
        load_if_exists=True,
        direction="maximize",
        # A sampler that began with the same seed again would ask for the same values again.
        sampler=optuna.samplers.TPESampler(seed=seed + done_before),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5) if prune else optuna.pruners.NopPruner(),
    )

    def objective(trial: optuna.Trial) -> float:
        values = suggest(trial, space)
        trial.set_user_attr("values", values)
        own = [word for key, value in values.items() for word in (f"--{key}", _word(value))]
        watch = _Watch(trial, metric)
        run(["fit", *words, *own, "--runs", str(out), "--name", f"trial-{trial.number:03d}"], callbacks=[watch])
        if watch.best is None:
            raise TrainingError(f"the run never logged {metric}; validation must run, and log it under this name")
        return watch.best

    def keep_best(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        done = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        if done:
            _write_best(study, out / "best.yaml", metric)

    over = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED, optuna.trial.TrialState.FAIL)
    left = trials - len(study.get_trials(deepcopy=False, states=over))
    if left > 0:
        study.optimize(objective, n_trials=left, catch=(TrainingError, RuntimeError), callbacks=[keep_best])
    return study


def _trials(storage: Any, optuna: Any) -> list[Any]:
    """What earlier calls have tried."""
    names = {study.study_name for study in optuna.get_all_study_summaries(storage)}
    return list(optuna.load_study(study_name="sweep", storage=storage).trials) if "sweep" in names else []


class _Watch(pl.Callback):
    """Tells the study the metric after each validation, and ends a run that it has given up."""

    def __init__(self, trial: optuna.Trial, metric: str) -> None:
        self.trial, self.metric = trial, metric
        self.best: float | None = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        value = trainer.callback_metrics.get(self.metric)
        if trainer.sanity_checking or value is None or not math.isfinite(float(value)):
            return
        self.best = float(value) if self.best is None else max(self.best, float(value))
        self.trial.report(float(value), trainer.global_step)
        if self.trial.should_prune():
            raise _optuna().TrialPruned(f"below the median at step {trainer.global_step}")


def command(words: Sequence[str]) -> int:
    """``train sweep``: 0 if at least one trial was finished."""
    parser = argparse.ArgumentParser(prog="train sweep", description="Search hyper-parameters with Optuna.")
    parser.add_argument("--space", type=Path, required=True, metavar="FILE.yaml", help="keys and their ranges")
    parser.add_argument("--trials", type=int, default=20, help="number of trials in the end (default 20)")
    parser.add_argument("--out", type=Path, default=Path("runs/sweep"), help="folder of the study and its runs")
    parser.add_argument("--metric", default=MONITOR, help=f"what to make large (default {MONITOR})")
    parser.add_argument("--seed", type=int, default=0, help="of the sampler")
    parser.add_argument("--no-prune", action="store_true", help="let every trial run to its end")
    options, rest = parser.parse_known_args(words)
    if options.trials < 1:
        raise ValueError(f"--trials must be at least 1, got {options.trials}")
    space = read_space(options.space)
    study = sweep(
        space, rest, options.out, trials=options.trials, metric=options.metric, seed=options.seed,
        prune=not options.no_prune,
    )  # fmt: skip
    done = [trial for trial in study.trials if trial.value is not None and trial.state.name == "COMPLETE"]
    for trial in sorted(done, key=lambda trial: -float(trial.value or 0)):
        print(f"trial-{trial.number:03d}  {trial.value:.4f}  {json.dumps(trial.user_attrs['values'])}")  # noqa: T201
    others = {state: sum(trial.state.name == state for trial in study.trials) for state in ("PRUNED", "FAIL")}
    print(f"{len(done)} done, {others['PRUNED']} pruned, {others['FAIL']} failed; best: {options.out / 'best.yaml'}")  # noqa: T201
    return 0 if done else 1


def _write_best(study: optuna.Study, path: Path, metric: str) -> None:
    config: dict[str, Any] = {}
    for key, value in study.best_trial.user_attrs["values"].items():
        place = config
        *parents, name = key.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = value
    head = f"# trial-{study.best_trial.number:03d} of {len(study.trials)}: {metric} {study.best_value:.4f}\n"
    with written_aside(path) as aside:
        aside.write_text(head + yaml.safe_dump(config, sort_keys=False), "utf-8")


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("a sweep needs Optuna; pip install 'xmodal[sweep]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


__all__ = ["XmodalError", "command", "read_space", "suggest", "sweep"]
