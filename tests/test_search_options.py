"""``xmodal search`` and its options on a small catalogue of windows."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tiny import tiny_model

from xmodal.cli import main
from xmodal.embedder import Embedder
from xmodal.embeddings import Embeddings
from xmodal.index import build_index
from xmodal.metrics.hubness import HubCorrection
from xmodal.refine import moment
from xmodal.search import Refinement, Term, find_moments, query_vector, refined_search, search

TAGS = {"a": ["piano"], "b": ["piano", "calm"], "c": ["drums"], "d": ["flute"]}


def near(vector, angle, seed):
    other = np.random.default_rng(seed).normal(size=len(vector))
    other -= (other @ vector) * vector
    return (np.cos(angle) * vector + np.sin(angle) * other / np.linalg.norm(other)).astype(np.float32)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    """Tracks of three windows; the second of each is what its first tag says. ``a`` and ``b`` are by one artist, ``a2``
    is another copy of ``a``."""
    folder = tmp_path_factory.mktemp("catalogue")
    tiny_model().save(folder / "model")
    embedder = Embedder(tiny_model(), device="cpu")
    ids, vectors, metadata = [], [], []
    for number, (track, copy) in enumerate([("a", "a"), ("a2", "a"), ("b", "b"), ("c", "c"), ("d", "d")]):
        word = embedder.embed_texts([TAGS[copy][0]])[0]
        for window, angle in enumerate((1.2, 0.1 + 0.02 * ord(copy) % 0.3, 1.3)):
            ids.append(f"{track}@{10 * window}")
            vectors.append(near(word, angle, seed=ord(copy) * 10 + window))
            metadata.append(
                {
                    "track": track, "start_seconds": 10.0 * window, "path": f"/music/{track}.mp3",
                    "title": f"Title {track}", "artist": "one" if copy in "ab" else copy, "tags": TAGS[copy],
                    "duration_seconds": 25.0 + number,
                }
            )  # fmt: skip
    index = build_index(Embeddings(ids, np.stack(vectors), embedder.space_id, metadata, str(folder / "model")), "exact")
    index.save(folder / "index")
    return folder, index, embedder


def run(catalogue, capsys, *words):
    folder = catalogue[0]
    assert main(["search", *words, "--index", str(folder / "index"), "--device", "cpu", "--json"]) == 0
    return json.loads(capsys.readouterr().out)["hits"]


def tracks(hits):
    return [hit["metadata"]["track"] for hit in hits]


def test_a_hit_says_which_seconds_of_its_track_answer(catalogue, capsys):
    hits = run(catalogue, capsys, "piano", "-k", "3")
    assert set(tracks(hits)) == {"a", "a2", "b"}
    assert all((hit["start_seconds"], hit["end_seconds"]) == (10.0, 10.5) for hit in hits), "windows of half a second"
    folder = catalogue[0]
    assert main(["search", "piano", "--index", str(folder / "index"), "--device", "cpu", "-k", "1"]) == 0
    assert "0:10–0:10" in capsys.readouterr().out


def test_moments_end_where_the_track_ends(catalogue):
    _, index, embedder = catalogue
    query = index.vectors(index.rows_of(["d@20"]))[0]
    hits = search(index, query[None], 1, space_id=embedder.space_id)[0]
    (hit,) = find_moments(index, query, hits)
    assert (hit.start_seconds, hit.end_seconds) == (20.0, 29.0), "a step of 10 s, but the track has 29"


def test_moments_are_those_of_a_look_at_every_row():
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(60, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    metadata = [
        {"track": f"t{rng.integers(6)}", "start_seconds": float(rng.integers(40))} if row % 5 else {"title": f"{row}"}
        for row in range(60)
    ]
    metadata[7] = {"track": "t1"}  # a row of a track that says no time
    index = build_index(Embeddings([str(row) for row in range(60)], vectors, "0" * 16, metadata), "exact")
    query = vectors[3]
    hits = search(index, query[None], 20, space_id="0" * 16)[0]
    for hit, found in zip(hits, find_moments(index, query, hits), strict=True):
        rows = [
            row
            for row, facts in enumerate(metadata)
            if facts.get("track") == hit.metadata.get("track") and facts.get("start_seconds") is not None
        ]
        if hit.start_seconds is None:
            assert found == hit
            continue
        rows.sort(key=lambda row: metadata[row]["start_seconds"])
        starts = [metadata[row]["start_seconds"] for row in rows]
        step = float(np.median(np.diff(starts))) if len(starts) > 1 else 0.0
        start, end = moment(vectors[rows] @ query, starts, [at + step for at in starts])
        assert (found.start_seconds, found.end_seconds) == (start, end if end > start else None)


def test_one_line_says_a_whole_query(catalogue, capsys):
    less, plain = run(catalogue, capsys, '"drums" - 0.9 * id:c@0'), run(catalogue, capsys, "drums")
    assert less[0]["score"] < plain[0]["score"] - 0.05, "the other windows of c are pushed away"
    _, index, embedder = catalogue
    both = query_vector(embedder, [Term("drums"), Term("flute", 2.0)])
    expected = search(index, both[None], 5, space_id=index.space_id)[0]
    assert [hit["id"] for hit in run(catalogue, capsys, '"drums" + 2 * "flute"')] == [hit.id for hit in expected]
    assert tracks(run(catalogue, capsys, "id:c@10", "-k", "1")) == ["c"]


def test_groups_and_duplicates_are_left_out(catalogue, capsys):
    found = run(catalogue, capsys, "piano", "--one-per", "artist", "-k", "9")
    assert [hit["metadata"]["artist"] for hit in found].count("one") == 1
    assert len(run(catalogue, capsys, "piano", "--one-per", "artist", "--most", "2", "-k", "9")) == 4
    assert len({"a", "a2"} & set(tracks(run(catalogue, capsys, "piano", "--no-duplicates", "-k", "9")))) == 1
    assert not {"a", "a2"} & set(tracks(run(catalogue, capsys, "--like", "a@10", "--no-duplicates", "-k", "9")))
    assert tracks(run(catalogue, capsys, "--like", "a@10", "-k", "1")) == ["a"]


def test_diversity_and_re_ranking_keep_the_best_and_change_the_rest(catalogue, capsys):
    plain = tracks(run(catalogue, capsys, "piano", "-k", "3"))
    diverse = tracks(run(catalogue, capsys, "piano", "-k", "3", "--diverse", "0.8"))
    assert diverse[0] == plain[0]
    assert not {"a", "a2"} <= set(diverse), "two copies are not diverse"
    assert set(tracks(run(catalogue, capsys, "piano", "-k", "3", "--rerank"))) == {"a", "a2", "b"}


def test_hubs_are_corrected_as_over_the_whole_matrix(catalogue, capsys, tmp_path):
    _, index, embedder = catalogue
    words = ["piano", "calm", "drums", "flute"]
    bank = torch.from_numpy(embedder.embed_texts(words) @ index.vectors().T)
    query = embedder.embed_texts(["piano and drums"])[0]
    scores = torch.from_numpy(query @ index.vectors().T)[None]
    for method in ("csls", "inverted softmax", "querybank norm"):
        correction = HubCorrection.fit(bank, method)
        expected = [index.ids[row] for row in correction.apply(scores)[0].argsort(descending=True, stable=True)]
        hits = refined_search(index, query, 15, Refinement(hubs=correction), space_id=index.space_id, one_per=None)
        assert [hit.id for hit in hits] == expected
        assert [hit.rank for hit in hits] == list(range(1, 16))
        assert hits[0].score == pytest.approx(float(scores[0, index.rows_of([hits[0].id])[0]]), abs=1e-6)
    (tmp_path / "bank.txt").write_text("piano\n\ndrums\n")
    assert run(catalogue, capsys, "piano", "--hubs", "csls", "--bank", str(tmp_path / "bank.txt"))
    assert run(catalogue, capsys, "piano", "--hubs", "querybank-norm")


def test_a_playlist_names_the_files_with_their_lengths(catalogue, capsys, tmp_path):
    run(catalogue, capsys, "flute", "-k", "1", "--m3u", str(tmp_path / "list.m3u"))
    assert (tmp_path / "list.m3u").read_text().splitlines() == [
        "#EXTM3U",
        "#EXTINF:29,d - Title d",
        "/music/d.mp3",
    ]
    index = build_index(Embeddings(["x"], np.eye(12)[:1], catalogue[1].space_id), "exact")
    index.save(tmp_path / "bare")
    words = ["search", "--like", "x", "--index", str(tmp_path / "bare"), "--m3u", str(tmp_path / "no.m3u")]
    assert main(words) == 2
    assert "does not say where x lies" in capsys.readouterr().err
    assert not (tmp_path / "no.m3u").exists()
    model = str(catalogue[0] / "model")
    assert main(["search", "a", "--index", str(tmp_path / "bare"), "--model", model, "--hubs", "csls"]) == 2
    assert "the index has no tags; name some with --bank FILE" in capsys.readouterr().err
