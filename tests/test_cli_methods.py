from __future__ import annotations

import json
from importlib import import_module

import yaml

from xmodal import losses
from xmodal.cli import main


def test_methods_are_printed_as_a_table_with_what_is_missing(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["id", "method", "class", "in", "xmodal.losses", "oracle", "note"]
    row = next(line for line in lines if line.startswith("1.22"))
    assert "SphericalRegularizer (beside a loss)" in row
    assert "loops" in row
    assert "Formula not available" in next(line for line in lines if line.startswith("2.05"))
    proxies = next(line for line in lines if line.startswith("1.08"))
    assert "NCALoss {temperature: 0.5" in proxies


def test_methods_as_json_say_the_line_of_yaml_the_oracle_and_whether_they_are_tested(capsys):
    assert main(["methods", "--json"]) == 0
    entries = {entry["id"] or entry["method"]: entry for entry in json.loads(capsys.readouterr().out)}
    hard = entries["6.22"]
    assert hard["tested"] is True
    line = next(each["yaml"] for each in hard["classes"] if each["class_path"] == "xmodal.losses.TripletLoss")
    assert yaml.safe_load(line)["loss"]["init_args"]["mining"] == "batch-hard"
    out = entries["4.08"]
    assert (out["classes"], out["tested"]) == ([], False)
    assert out["note"].startswith("Out: attention that crops objects from pictures")
    assert entries["2.17"]["classes"][0]["class_path"] == "xmodal.metrics.map_at_r"
    named = {each["class_path"] for entry in entries.values() for each in entry["classes"]}
    assert {path.rpartition(".")[2] for path in named if path.startswith("xmodal.losses.")} <= set(losses.__all__)
    assert all(hasattr(import_module(path.rpartition(".")[0]), path.rpartition(".")[2]) for path in named)
    assert entries["SigLIP (ICCV 2023)"]["id"] is None
