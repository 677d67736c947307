"""Vectors of two spaces never meet: a command given an artefact and another model names both and the way out."""

from __future__ import annotations

import json

import pytest
from tiny import tiny_model

from xmodal.cli import main

ARTEFACTS = {
    "index, searched in words": "search low --index INDEX --model OTHER",
    "index, searched by audio": "search --audio TONE --index INDEX --model OTHER",
    "index, searched late": "search low --late --index INDEX --model OTHER",
    "index, added to": "index add INDEX OTHERS",
    "index, updated": "index update INDEX OTHERS",
    "index of a model that changed": "index compare CHANGED INDEX --texts TEXTS",
    "index of a model that changed, the second": "index compare INDEX CHANGED --texts TEXTS",
    "map of an export": "map VECTORS --out PAGE --query low --model OTHER",
    "map of an index": "map INDEX --out PAGE --query low --model OTHER",
    "calibration": "tag TONE --model OTHER --calibration CALIBRATION",
    "reference": "tag TONE --model OTHER --tags low,high --reference VECTORS",
    "reference of a fit": "tag fit MANIFEST --model OTHER --split all --tag-fields pitch --reference VECTORS --out NEW",
    "enrolled tags": "tag TONE --model OTHER --tags low,high --enrolled ENROLLED",
    "enrolled tags, more of them": "tag enrol again TONE --model OTHER --into ENROLLED",
    "reference of an enrolment": "tag enrol again TONE --model OTHER --into NEW --reference VECTORS",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory, tone_tracks):
    """What one model made, another model, and what a model made that is no longer what it was."""
    folder = tmp_path_factory.mktemp("spaces")
    places = {name: str(folder / name.lower()) for name in ("MODEL", "OTHER", "PAGE", "NEW", "INDEX", "CHANGED")}
    places |= {"VECTORS": str(folder / "v.parquet"), "OTHERS": str(folder / "o.parquet"), "MANIFEST": str(tone_tracks)}
    places |= {
        "CALIBRATION": str(folder / "c.json"),
        "ENROLLED": str(folder / "e.json"),
        "TEXTS": str(folder / "t.txt"),
    }
    places |= {"TEXTS": str(folder / "t.txt")}
    places |= {
        "GONES": str(folder / "g.parquet"),
        "TONE": str(tone_tracks.parent / "00.wav"),
        "GONE": str(folder / "gone"),
    }
    tiny_model().save(places["MODEL"])
    tiny_model(seed=1).save(places["OTHER"])
    tiny_model(seed=2).save(places["GONE"])
    (folder / "t.txt").write_text("low tone\n\n high and pulsing \n")
    for line in (
        "embed MANIFEST --model MODEL --out VECTORS",
        "embed MANIFEST --model OTHER --out OTHERS",
        "index build VECTORS --out INDEX",
        "tag fit MANIFEST --model MODEL --split all --tag-fields pitch --out CALIBRATION",
        "tag enrol mine TONE --model MODEL --into ENROLLED",
        "embed MANIFEST --model GONE --out GONES",
        "index build GONES --out CHANGED",
    ):
        assert run(line, places) == 0, line
    tiny_model(seed=3).save(places["GONE"], overwrite=True)
    places["SPACES"] = {seed: tiny_model(seed=seed).space_id() for seed in range(4)}
    return places


def run(line, places):
    words = [places.get(word, word) for word in line.split()]
    takes_device = words[0] in ("embed", "search", "map", "tag") or words[:2] == ["index", "compare"]
    return main([*words, "--device", "cpu"] if takes_device else words)


@pytest.mark.parametrize("line", ARTEFACTS.values(), ids=ARTEFACTS)
def test_an_artefact_of_another_space_is_refused_with_both_names_and_the_command_that_mends_it(made, line, capsys):
    capsys.readouterr()
    assert run(line, made) == 2
    said = capsys.readouterr()
    message = " ".join(said.err.split())
    first, second = (2, 3) if "CHANGED" in line else (0, 1)
    assert made["SPACES"][first] in message
    assert made["SPACES"][second] in message
    assert "xmodal embed" in message or "xmodal tag" in message
    assert said.out == ""


def test_indexes_of_two_spaces_are_compared_in_words_each_by_its_own_model(made, capsys, tmp_path):
    import xmodal
    from xmodal.index import load_index
    from xmodal.index.compare import compare

    places = {**made, "BESIDE": str(tmp_path / "beside")}
    assert run("index build OTHERS --out BESIDE", places) == 0
    capsys.readouterr()
    assert run("index compare INDEX BESIDE --texts TEXTS -k 5 --json", places) == 0
    found = json.loads(capsys.readouterr().out)
    words = ["low tone", "high and pulsing"]
    sides = [xmodal.load(made[name], device="cpu").embed_texts(words) for name in ("MODEL", "OTHER")]
    expected = compare(load_index(made["INDEX"]), load_index(places["BESIDE"]), k=5, texts=(words, *sides))
    assert found["queries"] == 2
    assert {one["query"] for one in found["worst"]} == {*words}
    assert (found["overlap"], found["rank_correlation"]) == (expected.overlap, expected.correlation)
    lists = []
    for name, side in zip(("INDEX", "BESIDE"), sides, strict=True):
        index = load_index(places[name])
        lists.append([{index.ids[row] for row in (index.vectors() @ one).argsort()[-5:]} for one in side])
    shares = [len(one & two) / 5 for one, two in zip(*lists, strict=True)]
    assert found["overlap"] == pytest.approx(sum(shares) / 2)
    assert run("index compare INDEX INDEX --texts TEXTS", places) == 0
    assert "overlap@10 1.000, rank correlation 1.000, over 2 queries" in capsys.readouterr().out


def test_no_texts_and_an_absent_model_are_refused(made, capsys, tmp_path):
    (tmp_path / "blank.txt").write_text("\n \n")
    assert run("index compare INDEX INDEX --texts BLANK", {**made, "BLANK": str(tmp_path / "blank.txt")}) == 2
    assert "holds no text; write one query a line" in " ".join(capsys.readouterr().err.split())
    tiny_model().save(tmp_path / "gone")
    places = {**made, "GONE": str(tmp_path / "gone"), "NEW": str(tmp_path / "n.parquet"), "OLD": str(tmp_path / "old")}
    assert run("embed MANIFEST --model GONE --out NEW", places) == 0
    assert run("index build NEW --out OLD", places) == 0
    (tmp_path / "gone").rename(tmp_path / "elsewhere")
    assert run("index compare INDEX OLD --texts TEXTS", places) == 2
    assert "was made by a model that is not at" in " ".join(capsys.readouterr().err.split())


def test_a_map_of_a_view_is_asked_in_the_same_view(made, tmp_path):
    places = {**made, "VIEWED": str(tmp_path / "viewed.parquet"), "AS": str(tmp_path / "as")}
    assert run("embed MANIFEST --model MODEL --out VIEWED --dim 6 --pooling energy", places) == 0
    assert run("index build VIEWED --out AS", places) == 0
    for source in ("VIEWED", "AS"):
        assert run(f"map {source} --out PAGE --query low", places) == 0
