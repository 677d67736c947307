"""The map of a catalogue: what lies in the page, what it may not do, and the pictures beside it."""

from __future__ import annotations

import json
import re
import sys
from types import ModuleType

import numpy as np
import pytest
from tiny import tiny_model

from xmodal.cli import main
from xmodal.embedder import Embedder
from xmodal.embeddings import Embeddings
from xmodal.errors import ModelError
from xmodal.maps import layout, tracks_of, write_map

SPACE = "0123456789abcdef"
NASTY = '</script><script>alert("x")</script> & \u2028 "quoted"'


def vectors(rows, dim=6, seed=0):
    made = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def catalogue(folder):
    metadata = [
        {"title": NASTY, "artist": "A & B", "tags": ["piano", "calm"], "path": str(folder / "music" / "a b#1.mp3")},
        {"title": "Two", "genre": "rock", "tags": ["drums"]},
        {"path": "/elsewhere/three.flac", "genre": "jazz", "tags": ["drums", "piano"]},
        {},
    ]
    return Embeddings(["one", "two", "three", "four"], vectors(4), SPACE, metadata)


def content(path):
    page = path.read_text("utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_the_page_holds_every_track_with_its_place_title_tags_and_file(tmp_path):
    made = catalogue(tmp_path)
    write_map(made, tmp_path / "maps" / "map.html", title="Mine", queries={"calm": made.vectors[1]})
    data = content(tmp_path / "maps" / "map.html")
    assert [track["title"] for track in data["tracks"]] == [f"A & B – {NASTY}", "Two", "three", "four"]
    assert [track["tags"] for track in data["tracks"]] == [["piano", "calm"], ["drums"], ["drums", "piano"], []]
    assert data["tracks"][0]["src"] == "../music/a%20b%231.mp3"
    assert data["tracks"][1]["src"] is None
    assert data["tags"] == ["calm", "drums", "piano"]
    assert data["groups"] == {"genre": [None, "rock", "jazz", None]}
    assert data["queries"][0]["scores"] == pytest.approx((made.vectors @ made.vectors[1]).tolist(), abs=1e-4)
    places = np.array([[track["x"], track["y"]] for track in data["tracks"]])
    assert np.abs(places).max() == 1.0


def test_the_page_asks_for_nothing_outside_itself_and_no_title_ends_its_script(tmp_path):
    write_map(catalogue(tmp_path), tmp_path / "map.html", title=NASTY)
    page = (tmp_path / "map.html").read_text("utf-8")
    assert page.count("</script>") == 2
    assert "alert(" not in re.sub(r'id="data">.*?</script>', "", page, flags=re.DOTALL)
    assert not re.search(r'(src|href)="', page)
    assert "default-src 'none'" in page
    assert "innerHTML" not in page


def test_windows_become_their_track(tmp_path):
    rows = vectors(5)
    metadata = [{"track": "t", "start_seconds": 10.0 * n, "title": "T"} for n in range(3)] + [{"title": "U"}, {}]
    tracks = tracks_of(Embeddings([*"abcde"], rows, SPACE, metadata))
    assert tracks.ids == ["t", "d", "e"]
    mean = rows[:3].mean(axis=0)
    np.testing.assert_allclose(tracks.vectors[0], mean / np.linalg.norm(mean), atol=1e-6)
    assert tracks.metadata[0] == {"title": "T"}
    single = Embeddings(["a"], rows[:1], SPACE)
    assert tracks_of(single) is single


def test_umap_is_asked_only_when_wanted_and_named_when_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ModelError, match=r"pip install 'xmodal\[map\]', or use --method pca"):
        layout(vectors(9), "umap")
    stand_in = ModuleType("umap")

    class UMAP:
        def __init__(self, **settings):
            assert settings == {"metric": "cosine", "n_neighbors": 8, "random_state": 0, "n_jobs": 1}

        def fit_transform(self, rows):
            return rows[:, :2] * 7

    stand_in.UMAP = UMAP
    monkeypatch.setitem(sys.modules, "umap", stand_in)
    points, said = layout(vectors(9), "umap")
    assert np.abs(points).max() == pytest.approx(1.0)
    assert said == "UMAP of cosines, 8 neighbours"
    with pytest.raises(ValueError, match="needs at least 4 tracks, got 3"):
        layout(vectors(3), "umap")
    with pytest.raises(ValueError, match="needs at least 2 tracks, got 1"):
        layout(vectors(1))


def test_the_command_draws_page_heat_map_and_neighbours(tmp_path, tone_tracks, capsys):
    tiny_model().save(tmp_path / "model")
    assert main(["embed", str(tone_tracks), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "v.parquet"),
                 "--device", "cpu"]) == 0  # fmt: skip
    words = ["map", str(tmp_path / "v.parquet"), "--out", str(tmp_path / "map.html"), "--query", "low tone"]
    words += ["--similarity", str(tmp_path / "s.png"), "--neighbours", str(tmp_path / "n.png"), "--most", "3"]
    assert main([*words, "--device", "cpu"]) == 0
    data = content(tmp_path / "map.html")
    assert len(data["tracks"]) == 40
    assert data["queries"][0]["text"] == "low tone"
    for name in ("s.png", "n.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert "open it in a browser" in capsys.readouterr().out
    tiny_model(seed=5).save(tmp_path / "other")
    assert main([*words, "--model", str(tmp_path / "other"), "--device", "cpu"]) == 2
    assert "name the model that made it with --model DIR" in " ".join(capsys.readouterr().err.split())


def test_a_query_of_another_dimension_is_refused(tmp_path):
    embedder = Embedder(tiny_model(), device="cpu")
    with pytest.raises(ValueError, match="the query 'x' has 12 dimensions and the tracks 6"):
        write_map(catalogue(tmp_path), tmp_path / "m.html", queries={"x": embedder.embed_texts(["x"])[0]})
    assert not (tmp_path / "m.html").exists()
