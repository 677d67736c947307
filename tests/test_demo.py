"""The demo at the smallest size that has all of its parts; its figures at full size are in docs/results.md."""

from __future__ import annotations

import json

import pytest

import xmodal
from xmodal.data.demo import UNSEEN_WORDS
from xmodal.demo import QUESTIONS, main
from xmodal.index import load_index


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    import contextlib
    import io

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        assert main(["--keep", str(folder), "--clips", "160", "--epochs", "2", "--workers", "2"]) == 0
    return folder, printed.getvalue()


def test_every_question_is_answered_with_clips_and_their_tags(made):
    _, printed = made
    for question in QUESTIONS:
        assert question in " ".join(printed.split())
    assert printed.count("clip-") >= 5 * len(QUESTIONS)


def test_training_says_how_far_it_is_and_nothing_for_specialists(made):
    _, printed = made
    assert "epoch 2 of 2 · step " in printed
    for word in ("Seed", "AMP", "TPU", "Tip", "features of", "doctor", "FLOPs"):
        assert word not in printed


def test_the_figures_are_printed_beside_baselines_and_chance(made):
    folder, printed = made
    for word in ("ridge", "random", "chance", "R@1", "ROC-AUC"):
        assert word in printed
    results = json.loads((folder / "results.json").read_text())
    assert set(results["retrieval"]) == {"xmodal", "ridge on mel statistics", "random projection"}
    direction = results["retrieval"]["xmodal"]["text_to_audio"]
    assert direction["candidates"] == 24
    assert 0 <= direction["values"]["R@1"] <= 1
    assert all(0 <= figure["right"] <= 1 for figure in results["unseen_words"].values())


def test_model_index_export_and_pictures_are_left_and_belong_together(made):
    folder, printed = made
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
    folder, _ = made
    rows = [json.loads(line) for line in (folder / "corpus" / "manifest.jsonl").read_text().splitlines()]
    texts = " ".join(caption["text"] for row in rows for caption in row["captions"])
    assert not [word for word in UNSEEN_WORDS if f" {word} " in texts]


def test_without_keep_the_clips_are_removed_and_the_results_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["--clips", "40", "--epochs", "1", "--seed", "5"]) == 0
    assert (tmp_path / "demo" / "results.json").is_file()
    assert not (tmp_path / "demo" / "corpus").exists()
