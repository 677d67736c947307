"""``make results``: blocks of docs/results.md are replaced and nothing else; the tables say what the reports say."""

from __future__ import annotations

import importlib
import json
import statistics
import sys
from pathlib import Path

import pytest
import torch

from xmodal.metrics import bootstrap_interval

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def scripts():
    """The scripts as they are run: beside one another on the path."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        yield importlib.import_module("results"), importlib.import_module("results_page")
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def run_of_fold(seed):
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(1, 4, (6,), generator=generator).tolist()

    def report():
        direction = {"chance": dict.fromkeys(("R@1", "MedR"), 0.25), "queries": 6, "candidates": 9}
        values = {"query": list("abcdef"), "group": [0, 0, 1, 1, 2, 2], "R@1": [float(p == 1) for p in places],
                  "MedR": [float(p) for p in places]}  # fmt: skip
        tag = {"ROC-AUC": 0.5 + seed / 10, "PR-AUC": 0.4, "PR-AUC chance": 0.2, "positives": 2}
        return {
            "per_query": {
                "text_to_audio": values, "audio_to_text": values,
                "classification": {"query": list("abcdef"), "group": values["group"], "accuracy": values["R@1"]},
            },
            "retrieval": {"text_to_audio": direction, "audio_to_text": direction},
            "tags": {"per_tag": {"x": tag, "y": tag}, "chance": {"ROC-AUC": 0.5, "PR-AUC": 0.2}},
            "classification": {"chance": 0.5, "labels": 2},
            "tracks": 6,
        }  # fmt: skip

    probe = {"values": {"accuracy": 0.75}, "chance": {"accuracy": 0.5}}
    return {
        "methods": {"xmodal": report(), "ridge on mel statistics": report()},
        "probes": {"linear": probe, "knn": probe, "linear on mel statistics": probe},
        "training_tracks": 10,
    }


def test_a_block_is_replaced_and_the_prose_around_it_stays(scripts):
    _, page = scripts
    text = "a\n<!-- results: one -->\nold\n<!-- /results: one -->\nb\n<!-- results: two -->\n<!-- /results: two -->\n"
    made = page.put(text, "one", r"new \1 | figures")
    assert made == text.replace("old", r"new \1 | figures")
    assert page.put(made, "one", "old") == text
    for broken in ("nothing", text * 2, text.replace("<!-- /results: one -->", "")):
        with pytest.raises(ValueError, match="one block <!-- results: one -->"):
            page.put(broken, "one", "x")


def test_the_page_has_a_filled_block_for_every_part(scripts):
    results, _ = scripts
    text = (ROOT / "docs" / "results.md").read_text("utf-8")
    for name in results.PARTS:
        begin, end = (text.index(f"<!-- {mark}results: {name} -->") for mark in ("", "/"))
        assert text[begin:end].count("\n|") > 4, name


def test_folds_are_pooled_and_their_groups_are_not_mixed_up(scripts):
    _, page = scripts
    runs = [run_of_fold(seed) for seed in (1, 2)]
    values = [v for run in runs for v in run["methods"]["xmodal"]["per_query"]["text_to_audio"]["R@1"]]
    found = page.pooled(runs, "xmodal", "text_to_audio")
    assert found["R@1"][0] == pytest.approx(statistics.fmean(values))
    groups = torch.arange(6).repeat_interleave(2)
    expected = bootstrap_interval(torch.tensor(values, dtype=torch.float64), groups=groups)
    assert found["R@1"][1] == pytest.approx(expected)
    places = [v for run in runs for v in run["methods"]["xmodal"]["per_query"]["text_to_audio"]["MedR"]]
    assert found["MedR"][0] == statistics.median(places)


def test_a_set_s_table_names_pools_chance_ridge_and_probes(scripts):
    _, page = scripts
    made = page.real_set_table([run_of_fold(1), run_of_fold(2)])
    assert "2 folds pooled" in made
    assert "text→audio: 6 queries over a pool of 9" in made
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in made.splitlines() if line.startswith("| ")}
    assert rows["tags ROC-AUC"][1].startswith("0.650")
    assert rows["accuracy by linear probe"][1:3] == ["0.750", "0.750 (its own probe)"]
    assert {len(row) for row in rows.values()} == {4}


def test_the_best_of_a_family_is_sought_among_those_with_several_seeds(scripts):
    _, page = scripts

    def row(name, seed, value, loss):
        figures = dict.fromkeys(("text→audio R@10", "mAP@10", "audio→text R@10", "mAP@10 "), value)
        return {
            "objective": name,
            "seed": seed,
            "loss": loss,
            "figures": figures,
            "clips": 9,
            "held_out": 20,
            "steps": 3,
        }

    def loss(name, **given):
        return {"class_path": f"xmodal.losses.{name}", "init_args": given}

    combined = loss("CombinedObjective", losses=[loss("InfoNCELoss")], miner=loss("RhoMiner"))
    made = page.family_table(
        [
            row("InfoNCELoss", 0, 0.4, loss("InfoNCELoss")), row("InfoNCELoss", 1, 0.6, loss("InfoNCELoss")),
            row("NCALoss", 0, 0.9, loss("NCALoss")), row("InfoNCELoss + RhoMiner", 0, 0.3, combined),
            {"objective": "NCALoss", "seed": 1, "failed": "x", "loss": loss("NCALoss")},
        ]
    )  # fmt: skip
    lines = made.splitlines()[4:]
    assert lines[0].startswith("| softmax | 2 | InfoNCELoss | 2 | 0.500 ± 0.141 |")
    assert lines[1].startswith("| miners | 1 | InfoNCELoss + RhoMiner | 1 | 0.300 |")


def test_what_is_not_there_leaves_its_block_and_a_finished_part_is_not_done_again(
    scripts, tmp_path, monkeypatch, capsys
):
    results, _ = scripts
    blocks = "".join(f"<!-- results: {name} -->\nold {name}\n<!-- /results: {name} -->\n" for name in results.PARTS)
    (tmp_path / "page.md").write_text(blocks)
    kept = run_of_fold(1) | {"epochs": results.real_sets.SETS["cc0notes"]["epochs"]}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "cc0notes-test.json").write_text(json.dumps(kept))
    (tmp_path / "cc0notes.jsonl").write_text("{}\n")
    words = ["results", "--audio", str(tmp_path), "--out", str(tmp_path / "out"), "--page", str(tmp_path / "page.md")]
    monkeypatch.setattr(sys, "argv", [*words, "--only", "cc0notes", "esc10", "losses", "unseen"])
    assert results.main() == 0
    text = (tmp_path / "page.md").read_text()
    assert "old cc0notes" not in text
    assert all(f"old {name}\n" in text for name in ("esc10", "losses", "unseen", "demo"))
    printed = capsys.readouterr().out
    assert "1 blocks written (cc0notes)" in printed
    assert "left as it stood: esc10: there is no" in printed
    assert "--losses FILE.jsonl" in printed
