"""The demo at the smallest size that has all of its parts; its figures at full size are in docs/results.md."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from pathlib import Path

import pytest
from rich.console import Console

import xmodal
from xmodal.data.demo import UNSEEN_WORDS
from xmodal.demo import QUESTIONS, _from_here, _print_beside, main
from xmodal.index import load_index
from xmodal.training import run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    printed, trained = io.StringIO(), []

    def train(words):
        trained.append(run(words))
        return trained[0]

    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
    ):
        patch.setattr("xmodal.demo.run", train)
        assert main(["--keep", str(folder), "--clips", "160", "--epochs", "2", "--workers", "2"]) == 0
    return folder, printed.getvalue(), trained[0]


def test_every_question_is_answered_with_clips_and_their_tags(made):
    _, printed, _ = made
    for question in QUESTIONS:
        assert question in " ".join(printed.split())
    assert printed.count("clip-") >= 5 * len(QUESTIONS)


def test_lines_end_where_their_words_end_and_go_on_in_their_column(made):
    lines = made[1].splitlines()
    assert [line for line in lines if line != line.rstrip()] == []
    assert all(len(line) <= 110 for line in lines if "/" not in line)
    column = None
    for line in lines:
        if re.match(r"  (\d\.  -?\d\.\d\d  )?clip-\d{5}  ", line):
            column = line.index("clip-") + len("clip-00000  ")
        elif column is not None and line.strip() and not line.startswith("  “"):
            indent = len(line) - len(line.lstrip())
            assert indent in (column, 4), line
        else:
            column = None


def test_a_list_is_broken_between_its_words_alone(capsys):
    console = Console(width=30, file=sys.stdout)
    _print_beside(console, "  [bold]one[/bold]  ", ["rhythmic chords,", "electric bass,", "sad"])
    _print_beside(console, "  two  ", ["a word that is longer than the whole line is", "b"])
    assert capsys.readouterr().out.splitlines() == [
        "  one  rhythmic chords,",
        "       electric bass, sad",
        "  two  a word that is longer than the whole line is",
        "       b",
    ]


def test_a_program_below_this_folder_is_named_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert _from_here(tmp_path / ".venv" / "bin" / "xmodal") == Path(".venv/bin/xmodal")
    assert _from_here(tmp_path.parent / "xmodal") == tmp_path.parent / "xmodal"


def test_training_says_how_far_it_is_and_nothing_for_specialists(made):
    _, printed, _ = made
    assert "epoch 2 of 2 · step " in printed
    for word in ("Seed", "AMP", "TPU", "Tip", "features of", "doctor", "FLOPs"):
        assert word not in printed


def test_the_figures_are_printed_beside_baselines_and_chance(made):
    folder, printed, _ = made
    for word in ("ridge", "random", "chance", "R@1", "ROC-AUC"):
        assert word in printed
    results = json.loads((folder / "results.json").read_text())
    assert set(results["retrieval"]) == {"xmodal", "ridge on mel statistics", "random projection"}
    direction = results["retrieval"]["xmodal"]["text_to_audio"]
    assert direction["candidates"] == 24
    assert 0 <= direction["values"]["R@1"] <= 1
    assert all(0 <= figure["right"] <= 1 for figure in results["unseen_words"].values())


def test_model_index_export_and_pictures_are_left_and_belong_together(made):
    folder, printed, _ = made
    embedder = xmodal.load(folder / "model", device="cpu")
    index = load_index(folder / "index")
    assert index.space_id == embedder.space_id
    assert len(index) == 24
    assert (folder / "embeddings.parquet").is_file()
    for picture in ("map.png", "similarity.png", "training.png"):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")
        assert picture in printed
    assert (folder / "corpus" / "manifest.jsonl").is_file()


def test_new_words_are_in_no_training_caption(made):
    folder, *_ = made
    rows = [json.loads(line) for line in (folder / "corpus" / "manifest.jsonl").read_text().splitlines()]
    texts = " ".join(caption["text"] for row in rows for caption in row["captions"])
    assert not [word for word in UNSEEN_WORDS if f" {word} " in texts]


def test_without_keep_the_clips_are_removed_and_the_results_stay(made, tmp_path, monkeypatch, capsys):
    """With a part of what was trained above, which has fewer clips than the lists of R@10 have places."""
    *_, trained = made
    few = trained.datamodule.read()["test"][:6]

    def compose(console, corpus, options):
        corpus.mkdir(parents=True)
        (corpus / "clip-00000.wav").touch()
        return corpus / "manifest.jsonl"

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("xmodal.demo._compose", compose)
    monkeypatch.setattr("xmodal.demo.run", lambda words: trained)
    monkeypatch.setattr(trained.datamodule, "read", lambda: {"test": few})
    assert main([]) == 0
    results = json.loads((tmp_path / "demo" / "results.json").read_text())
    assert results["retrieval"]["xmodal"]["text_to_audio"]["candidates"] == 6
    assert len(load_index(tmp_path / "demo" / "index")) == 6
    assert not (tmp_path / "demo" / "corpus").exists()
    assert "demo --keep DIR     the same, and leaves the clips to listen to" in capsys.readouterr().out
