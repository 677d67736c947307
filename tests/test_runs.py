"""What a run writes down about itself, and the table of runs."""

from __future__ import annotations

import json
import os
import socket
import subprocess

import pytest
import yaml

from xmodal.cli import main as xmodal_main
from xmodal.errors import DataError
from xmodal.runs import data_fingerprint, differing, git_state, list_runs, sort_runs, versions

MAP = "validation/text_to_audio/mAP@10"


def write_run(root, name, *, record=None, config=None, metrics=None):
    folder = root / name
    folder.mkdir(parents=True)
    if record is not None:
        (folder / "run.json").write_text(record if isinstance(record, str) else json.dumps(record))
    if config is not None:
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    if metrics is not None:
        (folder / "metrics.csv").write_text(metrics)
    return folder


@pytest.fixture
def root(tmp_path):
    """A good run, one that was killed, one that is half a file, and a folder that is none."""
    config = {
        "seed_everything": 3,
        "model": {
            "learning_rate": 0.001,
            "loss": {"class_path": "xmodal.losses.InfoNCELoss", "init_args": {"temperature": 0.07}},
        },
    }
    metrics = (
        f"epoch,step,train/loss,{MAP},validation/text_to_audio/MedR\n0,9,3.5,,\n0,9,,0.30,8\n1,19,2.5,,\n1,19,,0.25,9\n"
    )
    finished = {
        "status": "finished", "started": "2026-01-02T03:04:05+00:00", "seconds": 90, "step": 20, "epoch": 2, "seed": 3,
        "data": {"files_sha256": "abcdef0123"}, "git": {"commit": "0123456789", "changed": ["x"]}, "doctor": "healthy",
    }  # fmt: skip
    write_run(tmp_path, "a/version_0", record=finished, config=config, metrics=metrics)
    gone = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True)
    other = json.loads(json.dumps(config))
    other["model"]["loss"]["init_args"]["temperature"] = 0.2
    killed = {"status": "running", "host": socket.gethostname(), "pid": int(gone.stdout)}
    write_run(
        tmp_path,
        "a/version_10",
        record=killed,
        config=other,
        metrics=metrics.replace("0.30", "0.50").replace("2.5", "2.9"),
    )
    torn = metrics[: metrics.index("0.25")] + "0."
    write_run(tmp_path, "a/version_2", record='{"status": "runn', metrics=torn + "\n7,70,\x00\n")
    (tmp_path / "notes").mkdir()
    (tmp_path / "a" / "version_0" / "model").mkdir()
    (tmp_path / "a" / "version_0" / "model" / "config.yaml").write_text("x: 1")
    return tmp_path


def test_every_run_is_a_row_in_natural_order_whatever_is_missing(root):
    runs = list_runs(root)
    assert [(run.name, run.status) for run in runs] == [
        ("a/version_0", "finished"),
        ("a/version_2", "unknown"),
        ("a/version_10", "killed"),
    ]
    good, torn, _ = runs
    assert good.best[MAP] == 0.30, "the best and not the last"
    assert good.last[MAP] == 0.25
    assert good.best["validation/text_to_audio/MedR"] == 8
    assert good.best["train/loss"] == 2.5
    assert torn.best[MAP] == 0.30


def test_a_cell_is_a_short_name_a_metric_or_a_dotted_key(root):
    run = list_runs(root)[0]
    cells = {
        "started": "2026-01-02 03:04", "minutes": 1.5, "epochs": 2, "steps": 20, "seed": 3, "loss": "InfoNCELoss",
        "data": "abcdef01", "git": "01234567+", "doctor": "healthy", MAP: 0.30, "model.learning_rate": 0.001,
        "model.loss.temperature": 0.07, "data.files_sha256": "abcdef0123", "nothing.of.the.kind": None,
    }  # fmt: skip
    assert {key: run.value(key) for key in cells} == cells


def test_metrics_are_sorted_best_first_and_those_who_do_not_know_come_last(root):
    runs = list_runs(root)
    assert sort_runs(runs, MAP)[0].name == "a/version_10"
    assert [run.best["train/loss"] for run in sort_runs(runs, "train/loss")] == [2.5, 2.5, 2.9]
    assert sort_runs(runs, "minutes")[0].name == "a/version_0"
    assert [run.value("model.loss.temperature") for run in sort_runs(runs, "model.loss.temperature")] == [
        0.07,
        0.2,
        None,
    ]


def test_runs_differ_where_their_configurations_do(root):
    runs = [run for run in list_runs(root) if run.config]
    assert differing(runs) == ["model.loss.temperature"]


def test_the_command_prints_a_table_and_json(root, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert xmodal_main(["runs", str(root), "--sort", MAP, "--differ", "--columns", f"run,status,{MAP}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["run", "status", "text→audio/mAP@10", "model.loss.temperature"]
    assert lines[1].split() == ["a/version_10", "killed", "0.5", "0.2"]
    assert xmodal_main(["runs", str(root), "--json", "--reverse"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [run["run"] for run in told] == ["a/version_10", "a/version_2", "a/version_0"]
    assert told[2]["record"]["data"]["files_sha256"] == "abcdef0123"


def test_an_unknown_column_to_sort_by_and_a_folder_that_is_not_there_are_refused(root, tmp_path, capsys):
    assert xmodal_main(["runs", str(root), "--sort", "mAP"]) == 2
    assert f"no run knows 'mAP'; the metrics there are: {MAP}" not in capsys.readouterr().err
    with pytest.raises(DataError, match="is no folder"):
        list_runs(tmp_path / "absent")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert xmodal_main(["runs", str(empty)]) == 0
    assert "no runs below" in capsys.readouterr().out


def test_a_fingerprint_knows_manifest_names_sizes_and_if_asked_contents(tmp_path):
    manifest = tmp_path / "m.csv"
    manifest.write_text("path\na.wav\n")
    files = [tmp_path / "a.wav", tmp_path / "b.wav"]
    for path in files:
        path.write_bytes(b"12345")

    def prints(of="sizes", order=1):
        found = data_fingerprint(manifest, files[::order], of)
        return found["manifest_sha256"], found["files_sha256"]

    sizes, contents = prints(), prints("contents")
    assert prints(order=-1) == sizes
    assert sizes != contents
    files[0].write_bytes(b"54321")
    assert prints() == sizes, "the same size"
    assert prints("contents") != contents
    files[0].write_bytes(b"1")
    assert prints()[1] != sizes[1]
    manifest.write_text("path\n")
    assert prints()[0] != sizes[0]
    absent = data_fingerprint(tmp_path, [*files, tmp_path / "gone.wav"])
    assert (absent["files"], absent["missing"], absent["bytes"], absent["manifest_sha256"]) == (3, 1, 6, None)
    with pytest.raises(ValueError, match="'sizes' or 'contents', got 'names'"):
        data_fingerprint(manifest, files, "names")  # type: ignore[arg-type]


def test_a_corpus_that_moved_has_the_same_fingerprint(tmp_path):
    found = []
    for place in ("here", "there"):
        folder = tmp_path / place
        folder.mkdir()
        (folder / "a.wav").write_bytes(b"1")
        found.append(data_fingerprint(folder, [folder / "a.wav"])["files_sha256"])
    assert found[0] == found[1]


def test_the_state_of_the_code_tells_commit_and_changes(tmp_path):
    def git(*words):
        own = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *own, *words], check=True, capture_output=True)

    assert git_state(tmp_path) is None or os.environ.get("GIT_DIR"), "a folder without a repository has no state"
    git("init", "-q")
    (tmp_path / "f").write_text("1")
    git("add", "f")
    git("commit", "-qm", "one")
    clean = git_state(tmp_path)
    assert clean["changed"] == []
    assert clean["diff_sha256"] is None
    assert len(clean["commit"]) == 40
    (tmp_path / "f").write_text("2")
    dirty = git_state(tmp_path)
    assert dirty["changed"] == ["f"]
    assert dirty["diff_sha256"] is not None
    (tmp_path / "f").write_text("3")
    assert git_state(tmp_path)["diff_sha256"] != dirty["diff_sha256"]


def test_versions_name_what_shapes_results():
    found = versions()
    assert {"xmodal", "python", "torch", "pytorch-lightning", "numpy", "soxr"} <= set(found)
    assert found["torch"]
