"""One loss on any machine: what several processes compute together is what one computes alone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from processes import LIMIT, NEEDS

from xmodal.model import TwoTower

WORKER = Path(__file__).with_name("processes.py")


@pytest.fixture(scope="module")
def found(tone_tracks, tmp_path_factory):
    """What one process and three found out; everything here asks this one start."""
    folder = tmp_path_factory.mktemp("processes")
    places = [WORKER.parents[2], WORKER.parent, WORKER.parents[1] / "losses"]
    environment = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(map(str, places))}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, WORKER, folder, tone_tracks, str(port)]
    # A process that hangs ends by itself before that, and says where.
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | environment, timeout=2 * LIMIT + 60
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = []
    for name in ("single", "rank0", "rank1", "rank2"):
        first, later = (torch.load(folder / f"{name}{part}.pt", weights_only=True) for part in ("", " resumed"))
        found.append(first | later)
    return found[0], found[1:]


@pytest.mark.parametrize("form", ["gathered", "local"])
def test_every_objective_has_the_value_and_gradients_of_one_process(found, form):
    _, ranks = found
    checked = {name for name, forms in ranks[0]["objectives"].items() if form in forms}
    assert len(checked) >= (60 if form == "gathered" else 30)
    for rank in ranks:
        wrong = {name: rank["objectives"][name][form] for name in checked if not rank["objectives"][name][form] < 1e-5}
        assert wrong == {}


def test_texts_are_judged_against_the_tracks_of_every_process(found):
    _, ranks = found
    for rank in ranks:
        assert rank["relevance"] == dict.fromkeys(rank["relevance"], True)


@pytest.mark.parametrize(
    ("name", "alone"),
    [
        ("plain", "plain"),
        ("local", "plain"),
        ("chunks", "plain"),
        ("streamed", "plain"),
        ("bad files", "bad files"),
        ("no files", "no files"),
        ("sharded", "plain"),
        ("sharded, checkpointed", "plain"),
        ("sharded, chunks, bad files", "bad files"),
        ("sharded, no files", "no files"),
    ],
)
def test_two_epochs_on_three_processes_end_with_the_weights_of_one(found, name, alone):
    single, ranks = found
    for rank in ranks:
        weights = {key.replace("loss.loss.", "loss."): value for key, value in rank[name]["weights"].items()}
        for key, value in single[alone]["weights"].items():
            assert (weights[key] - value).abs().max() < 1e-5, key


@pytest.mark.parametrize("name", NEEDS)
def test_objectives_that_look_beyond_a_batch_learn_the_same_on_three_processes(found, name):
    """Weights, anchors, and what a memory holds: the same rows, if in another order within a batch."""
    single, ranks = found
    for rank in ranks:
        assert rank[name]["weights"].keys() == single[name]["weights"].keys()
        for key, value in single[name]["weights"].items():
            other = rank[name]["weights"][key]
            if "memory" in key and value.ndim:
                value, other = (each[each.reshape(len(each), -1)[:, 0].argsort()] for each in (value, other))
            assert (other - value).abs().max() < 1e-5, key


def assert_same_run(run, alone):
    assert alone["average"].keys()
    for part in ("weights", "average"):
        for key, value in alone[part].items():
            assert (run[part][key] - value).abs().max() < 1e-5, key
    shown = {name: value for name, value in alone["metrics"].items() if name.startswith("validation/")}
    assert {name: run["metrics"][name] for name in shown} == pytest.approx(shown, abs=1e-9)


def test_the_command_line_gives_on_three_processes_what_it_gives_on_one(found):
    single, ranks = found
    for rank in ranks:
        assert_same_run(rank["by YAML"], single["by YAML"])


def test_a_sharded_run_that_was_stopped_goes_on_in_its_like_and_in_one_process(found):
    """To the end of a run that one process made without a stop: an ordinary checkpoint lies between."""
    single, ranks = found
    for run in (single, *ranks):
        assert_same_run(run["resumed by YAML"], single["by YAML"])


def test_all_processes_of_a_run_have_the_folder_that_the_first_one_chose(found):
    _, ranks = found
    (folder,) = {rank["by YAML"]["folder"] for rank in ranks}
    assert Path(folder).name == "version_7"
    assert (Path(folder) / "metrics.csv").is_file()
    assert [path.name for path in Path(folder).parent.iterdir()] == ["version_7"]


def test_steps_without_two_tracks_change_no_weight(found):
    single, _ = found
    before, after = (single[name]["weights"]["network.text.table.weight"] for name in ("plain", "no files"))
    assert not torch.equal(before, after)


def test_sharded_processes_hold_a_part_each_of_weights_and_moments(found):
    _, ranks = found
    for rank in ranks:
        own, everything = rank["sharded"]["held"]
        assert 0.25 < own / everything < 0.42
    assert ranks[0]["plain"]["held"][0] == ranks[0]["plain"]["held"][1]


def test_sharded_processes_judge_prompts_as_those_do_that_hold_everything(found):
    _, ranks = found
    for name, value in ranks[0]["with prompts"]["weights"].items():
        for rank in ranks:
            assert (rank["with prompts, sharded"]["weights"][name] - value).abs().max() < 1e-5, name


def test_a_sharded_run_exports_the_model_that_one_process_exports(found):
    single, ranks = found
    waveform = 0.1 * torch.randn((3, 8000), generator=torch.Generator().manual_seed(0))
    folders = [Path(each["folder"]) / "model" for each in (single["by YAML"], ranks[0]["resumed by YAML"])]
    alone, sharded = (TwoTower.load(folder, trust=True).eval() for folder in folders)
    assert alone.config == sharded.config
    assert alone.identity() == sharded.identity()
    with torch.no_grad():
        torch.testing.assert_close(sharded.embed_audio(waveform), alone.embed_audio(waveform), rtol=0, atol=1e-5)
        texts = ["a low tone", "high and pulsing"]
        torch.testing.assert_close(sharded.embed_text(texts), alone.embed_text(texts), rtol=0, atol=1e-5)


def test_validation_on_three_processes_hears_each_window_once(found):
    single, ranks = found
    wanted = {name: value for name, value in single["plain"]["metrics"].items() if name.startswith("validation/")}
    assert len(wanted) > 10
    for rank in ranks:
        assert {name: rank["plain"]["metrics"][name] for name in wanted} == pytest.approx(wanted, abs=1e-9)


def test_processes_end_with_equal_weights_also_where_their_prompts_differ(found):
    _, ranks = found
    first = ranks[0]["with prompts"]
    assert first["metrics"]["train/prompt_loss"] > 0
    for rank in ranks[1:]:
        for name, value in first["weights"].items():
            assert torch.equal(rank["with prompts"]["weights"][name], value), name
