"""The script that times training steps: what it refuses, which steps it counts, and what it says of a card."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def scripts():
    """The script and its sides, as they are run: beside one another on the path."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("train_step"), importlib.import_module("train_step_sides")
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_the_mode_for_one_is_refused_in_a_sentence(scripts):
    with pytest.raises(SystemExit, match="needs a GPU that torch can see, and there is none"):
        scripts[0].main(["--device", "cuda"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--steps", "1"], "--steps must be at least 2: the first 1 are not counted"),
        (["--precision", "32", "--precision", "bf16-mixed", "--peak-tflops", "1"], "--peak-tflops is of one precision"),
    ],
)
def test_what_cannot_be_measured_is_refused(scripts, words, said):
    with pytest.raises(SystemExit, match=said):
        scripts[0].main(words)


def test_the_clock_leaves_out_the_first_steps_and_looks_every_few(scripts, monkeypatch):
    sides = scripts[1]
    now = iter(range(100))
    monkeypatch.setattr(sides.time, "perf_counter", lambda: float(next(now)))
    monkeypatch.setattr(sides.time, "process_time", lambda: 0.0)
    clock = sides.StepClock(sides.Setting("cpu", "32", compiled=False, every=4, skipped=3))
    for _ in range(3 + 4 + 4 + 2):
        clock.step_ended()
    assert clock.steps == [(0.25, 0.0), (0.25, 0.0)]
    assert next(now) == 3  # it looked three times


def test_the_share_of_a_peak_is_of_the_cards_own_and_of_the_precision(scripts, monkeypatch, capsys):
    train_step, sides = scripts
    setting = sides.Setting("cuda", "bf16-mixed", compiled=False)
    for card, precision, expected in (("NVIDIA L4", "bf16-mixed", 121.0), ("NVIDIA L4", "32", 60.0)):
        assert train_step.peak_tflops(card, precision) == expected
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA A10")
    (line,) = train_step.peak_claim(setting, 2.0, int(125e12), None)
    assert (line["ours"], line["peer"], line["ratio"]) == (62.5, 125.0, 0.5)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA A10G")
    assert train_step.peak_claim(setting, 2.0, int(125e12), None) == []
    assert "the peak of NVIDIA A10G is not known here, say it with --peak-tflops" in capsys.readouterr().out
    (line,) = train_step.peak_claim(setting, 2.0, int(125e12), 70.0)
    assert line["peer"] == 70.0


def test_a_large_batch_that_does_not_fit_is_said_and_its_goal_not_met(scripts):
    train_step, _ = scripts
    fits = train_step.memory_claim("a batch, beside the card's", 30 * 10**9, 80 * 10**9, 1.0)
    assert (fits["ours"], fits["ratio"], fits["met"]) == (30.0, 0.375, True)
    assert train_step.memory_claim("a batch, beside the card's", None, 80 * 10**9, 1.0)["met"] is False
    assert train_step.memory_claim("a batch, beside the same without", 30 * 10**9, None, None)["met"] is None
    assert json.loads(json.dumps(fits)) == fits
