"""A run that is killed, at whatever moment and however often, ends as the run that nobody disturbed."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from kills import SCENARIOS
from torch import Tensor

WORKER = Path(__file__).with_name("kills.py")


@pytest.fixture(scope="module")
def runs(tone_tracks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills")
    places = os.pathsep.join(map(str, [WORKER.parents[2], WORKER.parent]))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": places}
    command = [sys.executable, WORKER, folder, tone_tracks]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return folder, done.stdout


def test_at_least_twenty_runs_were_killed(runs):
    folder, _ = runs
    assert sum(int(path.read_text()) for path in folder.glob("*/broken/killed")) >= 20


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_killed_run_ends_with_the_very_bits_of_the_undisturbed_one(runs, scenario):
    folder, said = runs
    whole, broken = (folder / scenario / kind / "runs" / "run" / "version_0" for kind in ("whole", "broken"))
    one, other = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (whole, broken))
    assert one["global_step"] == other["global_step"] > 10
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "xmodal", "AudioTextData"):
        assert list(differences(one[part], other[part], part)) == [], said
    assert differing_scores(one, other) == [], said
    best = [torch.load(run / "checkpoints" / "best.ckpt", weights_only=True) for run in (whole, broken)]
    assert list(differences(best[0]["state_dict"], best[1]["state_dict"], "best")) == [], said


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_killed_run_has_the_curves_of_the_undisturbed_one(runs, scenario):
    folder, said = runs
    whole, broken = (curve(folder / scenario / kind) for kind in ("whole", "broken"))
    assert len(whole) > 10
    for key, value in broken.items():
        assert whole[key] == value, (key, said)
    # A line is written just after the checkpoint of its step: a kill between the two takes that one away.
    lost = {step for step, _ in whole.keys() - broken.keys()}
    assert len(lost) <= int((folder / scenario / "broken" / "killed").read_text()), said


def differences(one: Any, other: Any, place: str) -> Any:
    """Every place where two nested values are not the same to the last bit."""
    if isinstance(one, Tensor):
        if not torch.equal(one, other):
            yield place
    elif isinstance(one, dict):
        if one.keys() != other.keys():
            yield f"{place}: {one.keys() ^ other.keys()}"
        else:
            for key in one:
                yield from differences(one[key], other[key], f"{place}/{key}")
    elif isinstance(one, list | tuple):
        if len(one) != len(other):
            yield f"{place}: {len(one)} and {len(other)}"
        else:
            for number, (left, right) in enumerate(zip(one, other, strict=True)):
                yield from differences(left, right, f"{place}/{number}")
    elif one != other:
        yield f"{place}: {one} and {other}"


def differing_scores(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    states = [each["callbacks"]["Checkpoints"] for each in (one, other)]
    assert states[0]["best_score"] is not None
    return [name for name in ("best_score", "best_step") if states[0][name] != states[1][name]]


def curve(folder: Path) -> dict[tuple[int, str], float]:
    with (folder / "runs" / "run" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = {}
    for row in rows:
        for name, value in row.items():
            if value and name not in ("step", "epoch"):
                assert (int(row["step"]), name) not in found, "a line is there twice"
                found[int(row["step"]), name] = float(value)
    return found
