from __future__ import annotations

import json
import os
import subprocess
import sys
import types

import numpy as np
import pytest
import soundfile
import torch

import xmodal
from xmodal.cli import main
from xmodal.data.datasets import evaluation_texts
from xmodal.data.manifests import read_tracks
from xmodal.embeddings import Embeddings
from xmodal.evaluation import evaluate_retrieval
from xmodal.index import build_index
from xmodal.model import TwoTower
from xmodal.tagging import TagScorer, read_vocabulary
from xmodal.towers import HashedBagOfWordsTower, MobileCnn


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    audio = MobileCnn(sample_rate=8000, n_fft=256, hop=80, bands=16, width=0.25, feature_dim=32)
    text = HashedBagOfWordsTower(buckets=500, embed_dim=16, feature_dim=24)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    TwoTower(audio, text, dim=12, window_seconds=0.5).save(folder)
    return folder


@pytest.fixture(scope="module")
def embedder(model):
    return xmodal.load(model, device="cpu")


@pytest.fixture(scope="module")
def index_folder(model, tone_tracks, tmp_path_factory):
    """What the first two commands make, for the tests of those that read it."""
    folder = tmp_path_factory.mktemp("made")
    assert main(["embed", str(tone_tracks), "--model", str(model), "--out", str(folder / "tones.parquet")]) == 0
    assert main(["index", "build", str(folder / "tones.parquet"), "--out", str(folder / "index")]) == 0
    return folder / "index"


@pytest.fixture
def small_index(tmp_path):
    """An index that knows no model."""
    vectors = np.eye(3, 12, dtype=np.float32)
    metadata = [
        {"title": "[red] :smile: Läti", "start_seconds": 75.5, "tags": ["calm", "piano"]},
        {"path": "b.wav"},
        {},
    ]
    build_index(Embeddings(["a", "b", "c"], vectors, "0123456789abcdef", metadata), "exact").save(tmp_path / "index")
    return tmp_path / "index"


def run(capsys, *words):
    """Run a command; give exit code, output and error output."""
    code = main([str(word) for word in words])
    said = capsys.readouterr()
    return code, said.out, said.err


def answer(capsys, *words):
    code, out, err = run(capsys, *words, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def tones(folder, count, broken=()):
    """A folder of short tones; the files whose numbers are ``broken`` hold no audio."""
    folder.mkdir()
    for number in range(count):
        path = folder / f"{number:02d}.wav"
        if number in broken:
            path.write_text("no audio")
        else:
            time = np.arange(6000) / 8000
            soundfile.write(path, 0.3 * np.sin(2 * np.pi * (200 + 90 * number) * time), 8000)
    return folder


def test_help_comes_without_loading_anything_heavy():
    code = (
        "import sys\nfrom xmodal.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print({'torch', 'numpy', 'pyarrow', 'rich', 'faiss'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: xmodal")
    assert done.stdout.endswith("set()\n")


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"xmodal {xmodal.__version__}\n"


def test_files_become_vectors_an_index_and_hits(index_folder, model, embedder, tone_tracks, capsys):
    tracks = read_tracks(tone_tracks)
    hits = answer(capsys, "search", "a steady low tone", "--index", index_folder, "-k", 5)
    assert hits["space_id"] == embedder.space_id
    vectors = embedder.embed_files(tracks).embeddings.vectors
    scores = vectors @ embedder.embed_texts(["a steady low tone"])[0]
    best = np.argsort(-scores, kind="stable")[:5]
    assert [hit["id"] for hit in hits["hits"]] == [tracks[row].id for row in best]
    assert [hit["score"] for hit in hits["hits"]] == pytest.approx(scores[best].tolist(), abs=1e-5)
    assert hits["hits"][0]["metadata"]["path"] == str(tracks[best[0]].path)


def test_an_index_says_what_it_holds_and_which_model_made_it(index_folder, model, embedder, capsys):
    facts = answer(capsys, "index", "info", index_folder)
    assert facts == {
        "kind": "flat",
        "count": 40,
        "dim": 12,
        "space_id": embedder.space_id,
        "model": str(model.resolve()),
        "view": {},
        "settings": {},
        "metadata": ["content", "duration_seconds", "motion", "path", "pitch"],
    }
    _, table, _ = run(capsys, "index", "info", index_folder)
    assert embedder.space_id in table
    assert run(capsys, "index", "info", index_folder, "--ids")[1].split() == [f"tone{row:02d}" for row in range(40)]


def test_a_track_is_most_like_itself_by_file_and_by_id(index_folder, tone_tracks, capsys):
    by_file = answer(capsys, "search", "--audio", tone_tracks.parent / "07.wav", "--index", index_folder, "-k", 3)
    by_id = answer(capsys, "search", "--like", "tone07", "--index", index_folder, "-k", 3)
    assert by_file["hits"][0]["id"] == by_id["hits"][0]["id"] == "tone07"
    assert by_file["hits"][0]["score"] == pytest.approx(1, abs=1e-5)


def test_everything_asked_for_is_one_query(index_folder, embedder, tone_tracks, capsys):
    found = answer(
        capsys,
        *("search", "low", "pulsing", "--minus", "high", "--minus-weight", 0.25),
        *("--audio", tone_tracks.parent / "02.wav", "--like", "tone04", "--index", index_folder, "-k", 40),
    )
    tracks = read_tracks(tone_tracks)
    vectors = embedder.embed_files(tracks).embeddings.vectors
    low, pulsing, high = embedder.embed_texts(["low", "pulsing", "high"])
    query = low + pulsing - 0.25 * high + vectors[2] + vectors[4]
    scores = {track.id: score for track, score in zip(tracks, vectors @ query / np.linalg.norm(query), strict=True)}
    assert {hit["id"]: hit["score"] for hit in found["hits"]} == pytest.approx(scores, abs=1e-5)


def test_rows_of_the_index_are_found_without_any_model(small_index, capsys):
    found = answer(capsys, "search", "--like", "b", "--index", small_index, "-k", 1)
    assert (found["hits"][0]["id"], found["space_id"]) == ("b", "0123456789abcdef")


def test_the_table_shows_titles_as_they_are_moments_and_tags(small_index, capsys):
    _, out, _ = run(capsys, "search", "--like", "a", "--index", small_index)
    first, second, third = out.splitlines()[1:]
    assert first.split() == ["1", "1.000", "[red]", ":smile:", "Läti", "1:15", "calm,", "piano"]
    assert second.split() == ["2", "0.000", "b.wav"]
    assert third.split() == ["3", "0.000", "c"]


def test_windows_find_the_moment_in_a_track(model, tone_tracks, tmp_path, capsys):
    out, folder = tmp_path / "windows.parquet", tmp_path / "index"
    words = ["embed", tone_tracks, "--model", model, "--out", out, "--windows", "--tag-fields", "pitch,motion"]
    assert run(capsys, *words)[0] == 0
    rows = Embeddings.load(out)
    assert rows.metadata[0]["tags"] == ["low", "steady"]
    third = [row for row, facts in enumerate(rows.metadata) if facts["track"] == "tone03"]
    assert [rows.ids[row] for row in third] == ["tone03@0.0", "tone03@0.5", "tone03@1.0"]
    assert [rows.metadata[row]["start_seconds"] for row in third] == [0.0, 0.5, 1.0]
    assert run(capsys, "index", "build", out, "--out", folder, "--kind", "exact")[0] == 0
    hits = answer(capsys, "search", "--like", "tone03@0.5", "--index", folder, "-k", 40)["hits"]
    assert hits[0]["id"] == "tone03@0.5"
    assert hits[0]["start_seconds"] == 0.5
    assert sorted(hit["metadata"]["track"] for hit in hits) == [f"tone{row:02d}" for row in range(40)]
    every = answer(capsys, "search", "--like", "tone03@0.5", "--index", folder, "-k", 400, "--all-windows")["hits"]
    assert len(every) == len(rows)


def test_tags_are_ranked_by_their_cosine_with_the_file(model, embedder, tone_tracks, capsys):
    files = [tone_tracks.parent / "00.wav", tone_tracks.parent / "01.wav"]
    found = answer(capsys, "tag", *files, "--tags", "low, high,steady", "--model", model, "-k", 2)
    scorer = TagScorer(["low", "high", "steady"], embedder.embed_texts)
    for file, row in zip(files, found, strict=True):
        expected = scorer.rank_tags(embedder.embed_files([file]).embeddings.vectors[0], top=2)
        assert row["path"] == str(file)
        assert [entry["tag"] for entry in row["tags"]] == [name for name, _ in expected]
        assert [entry["score"] for entry in row["tags"]] == pytest.approx([score for _, score in expected], abs=1e-5)
    code, table, _ = run(capsys, "tag", *files, "--tags", "low,high,steady", "--model", model, "-k", 1)
    assert code == 0
    assert found[0]["tags"][0]["tag"] in table


def test_a_vocabulary_file_may_say_the_kinds(tmp_path):
    (tmp_path / "words").write_text("calm, sad\ninstrument: flute , piano\n\ninstrument: drums\n")
    read = read_vocabulary(str(tmp_path / "words"))
    assert read.names == ["calm", "sad", "flute", "piano", "drums"]
    assert read.kinds == [None, None, "instrument", "instrument", "instrument"]
    assert read_vocabulary("calm, mood: sad,").names == ["calm", "mood: sad"]


def test_a_reference_catalogue_takes_off_what_a_word_scores_on_average(index_folder, model, tone_tracks, capsys):
    reference, file = index_folder.parent / "tones.parquet", tone_tracks.parent / "00.wav"
    words = ["tag", file, "--tags", "low,high", "--model", model]
    plain = {entry["tag"]: entry["score"] for entry in answer(capsys, *words)[0]["tags"]}
    less = {entry["tag"]: entry["score"] for entry in answer(capsys, *words, "--reference", reference)[0]["tags"]}
    vectors = Embeddings.load(reference).vectors
    scores = TagScorer(["low", "high"], xmodal.load(model).embed_texts).score(vectors).mean(dim=0).tolist()
    assert less == pytest.approx({"low": plain["low"] - scores[0], "high": plain["high"] - scores[1]}, abs=1e-5)


def test_a_reference_of_another_space_is_refused(model, tmp_path, capsys):
    Embeddings(["a"], np.eye(1, 12), "0123456789abcdef").save(tmp_path / "a.parquet")
    code, _, err = run(capsys, "tag", "a.wav", "--tags", "low", "--model", model, "--reference", tmp_path / "a.parquet")
    assert code == 2
    assert "space 0123456789abcdef but the model makes those of space" in err
    assert "xmodal embed" in err


def test_tagging_takes_folders_and_sets_bad_files_aside(model, tmp_path, capsys):
    folder = tones(tmp_path / "audio", 3, {1})
    code, out, err = run(capsys, "tag", folder, "--tags", "low", "--model", model, "--json")
    assert code == 0
    assert [row["path"] for row in json.loads(out)] == [str(folder / "00.wav"), str(folder / "02.wav")]
    assert err.startswith(f"xmodal: set aside: {folder / '01.wav'}: ")
    code, out, err = run(capsys, "tag", *[folder / "01.wav"] * 12, "--tags", "low", "--model", model)
    assert (code, out) == (1, "")
    assert "and 2 more were set aside" in err


def test_an_evaluation_judges_the_split_by_captions_and_tags(model, embedder, tone_tracks, capsys):
    judged = answer(capsys, "evaluate", tone_tracks, "--model", model, "--tag-fields", "pitch, motion")
    assert (judged["split"], judged["tracks"], judged["texts"]) == ("test", 8, 8)
    assert judged["space_id"] == embedder.space_id
    assert judged["failures"] == []
    assert set(judged["tags"]["per_tag"]) == {"low", "high", "steady", "pulsing"}
    tracks = [track for track in read_tracks(tone_tracks, tag_fields=["pitch", "motion"]) if track.split == "test"]
    texts, relevance = evaluation_texts(tracks)
    audio = embedder.embed_files(tracks).embeddings.vectors
    expected = evaluate_retrieval(audio, embedder.embed_texts(texts), relevance)
    for direction in ("text_to_audio", "audio_to_text"):
        assert judged["retrieval"][direction]["values"] == pytest.approx(getattr(expected, direction).values, abs=1e-6)
    some = answer(capsys, "evaluate", tone_tracks, "--model", model, "--split", "all", "--captions", 1)
    assert (some["tracks"], some["texts"], some["tags"]) == (40, 4, None)


def test_intervals_take_the_captions_of_one_track_and_the_tracks_of_one_group_together(model, tmp_path, capsys):
    tones(tmp_path / "audio", 6)
    words = ["one", "two", "three", "four", "five", "six"]
    rows = [
        {"path": f"audio/{row:02d}.wav", "caption": [word, f"{word} again"], "group": f"g{row % 2}"}
        for row, word in enumerate(words)
    ]
    (tmp_path / "grouped.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "alone.jsonl").write_text("\n".join(json.dumps({**row, "group": "all"}) for row in rows))
    grouped = answer(capsys, "evaluate", tmp_path / "grouped.jsonl", "--model", model, "--split", "all")["retrieval"]
    alone = answer(capsys, "evaluate", tmp_path / "alone.jsonl", "--model", model, "--split", "all")["retrieval"]
    assert grouped["text_to_audio"]["intervals"].keys() == grouped["text_to_audio"]["values"].keys()
    assert alone["text_to_audio"]["intervals"] == alone["audio_to_text"]["intervals"] == {}


def test_a_tag_of_two_kinds_is_judged_once_and_tags_that_all_tracks_share_are_not(model, tmp_path, capsys):
    tones(tmp_path / "audio", 4)
    tags = [{"mood": ["Soft"]}, {"dynamic": ["soft"]}, {"mood": ["wild"]}, {"dynamic": ["loud"]}]
    rows = [{"path": f"audio/{row:02d}.wav", "tags": own} for row, own in enumerate(tags)]
    (tmp_path / "tracks.jsonl").write_text("\n".join(map(json.dumps, rows)))
    judged = answer(capsys, "evaluate", tmp_path / "tracks.jsonl", "--model", model, "--split", "all")["tags"]
    counts = {name: (tag["positives"], tag["negatives"]) for name, tag in judged["per_tag"].items()}
    assert counts == {"Soft": (2, 2), "wild": (1, 1), "loud": (1, 1)}
    (tmp_path / "tracks.jsonl").write_text("\n".join(json.dumps({**row, "tags": ["calm"]}) for row in rows))
    same = answer(capsys, "evaluate", tmp_path / "tracks.jsonl", "--model", model, "--split", "all")
    assert same["tags"] is None


def test_an_evaluation_is_shown_as_tables(model, embedder, tone_tracks, capsys):
    code, out, _ = run(capsys, "evaluate", tone_tracks, "--model", model, "--tag-fields", "pitch")
    assert code == 0
    assert out.startswith(f"8 of 8 tracks, space {embedder.space_id}, protocol default")
    assert "text to audio" in out
    assert "ROC-AUC" in out


def test_an_evaluation_without_tracks_or_without_audio_says_so(model, tmp_path, capsys):
    folder = tones(tmp_path / "audio", 2, {0, 1})
    code, _, err = run(capsys, "evaluate", folder, "--model", model, "--split", "all")
    assert code == 1
    assert err.count("set aside") == 2
    (tmp_path / "tracks.csv").write_text("path,split\naudio/00.wav,train\naudio/01.wav,validation\n")
    code, _, err = run(capsys, "evaluate", tmp_path / "tracks.csv", "--model", model, "--split", "train")
    assert code == 1
    (tmp_path / "tracks.csv").write_text("path,split\naudio/00.wav,test\n")
    code, _, err = run(capsys, "evaluate", tmp_path / "tracks.csv", "--model", model, "--split", "train")
    assert code == 2
    assert "no tracks in its train split; choose another with --split, or all" in err


def test_bad_files_are_set_aside_with_reasons_and_the_job_goes_on(model, tmp_path, capsys):
    out = tmp_path / "out" / "tones.parquet"
    code, said, _ = run(capsys, "embed", tones(tmp_path / "audio", 5, {1, 3}), "--model", model, "--out", out)
    assert code == 0
    assert f"3 of 5 files embedded; 2 set aside, with reasons in {out}.failures.jsonl" in said
    assert Embeddings.load(out).ids == ["00.wav", "02.wav", "04.wav"]
    failures = [
        json.loads(line) for line in (tmp_path / "out" / "tones.parquet.failures.jsonl").read_text().splitlines()
    ]
    assert [failure["id"] for failure in failures] == ["01.wav", "03.wav"]
    assert failures[0]["path"] == str(tmp_path / "audio" / "01.wav")
    assert "not audio" in failures[0]["reason"]
    for number in (1, 3):
        (tmp_path / "audio" / f"{number:02d}.wav").unlink()
    assert run(capsys, "embed", tmp_path / "audio", "--model", model, "--out", out)[0] == 0
    assert os.listdir(tmp_path / "out") == ["tones.parquet"], "old failures and parts are cleared away"


def test_rows_whose_audio_is_missing_are_among_the_failures(model, tmp_path, capsys):
    tones(tmp_path / "audio", 2, {1})
    (tmp_path / "tracks.csv").write_text("path,id\naudio/00.wav,a\naudio/01.wav,b\naudio/02.wav,c\n")
    out = tmp_path / "tones.parquet"
    code, said, _ = run(capsys, "embed", tmp_path / "tracks.csv", "--model", model, "--out", out)
    assert code == 0
    assert f"1 of 3 files embedded; 2 set aside, with reasons in {out}.failures.jsonl" in said
    failures = [json.loads(line) for line in (tmp_path / "tones.parquet.failures.jsonl").read_text().splitlines()]
    assert [(one["id"], one["path"].rpartition("/")[2]) for one in failures] == [("c", "02.wav"), ("b", "01.wav")]
    assert "not under" in failures[0]["reason"]
    _, said, _ = run(capsys, "embed", tmp_path / "tracks.csv", "--model", model, "--out", out)
    assert "1 of 3 files embedded (0 by this run, the rest was there already); 2 set aside" in said


def test_grouping_by_what_no_track_has_says_so(small_index, capsys):
    search = ("search", "--like", "a", "--index", small_index, "--one-per")
    assert run(capsys, *search, "title")[2] == ""  # one of them has it
    code, _, err = run(capsys, *search, "artits")
    assert (code, err) == (
        0,
        "xmodal: none of these tracks has 'artits', so none is left out; what is known: xmodal index info "
        f"{small_index}\n",
    )


def test_a_filter_that_nothing_fulfils_says_so(small_index, capsys):
    code, _, err = run(capsys, "search", "--like", "a", "--index", small_index, "--where", "nosuch=3")
    assert (code, err) == (
        0,
        f"xmodal: nothing found fulfils nosuch=3; what is known: xmodal index info {small_index}\n",
    )


def test_an_export_in_which_everything_failed_says_so_and_leaves_the_old_file(model, tmp_path, capsys):
    (tmp_path / "tones.parquet").write_text("old")
    code, out, err = run(
        capsys, "embed", tones(tmp_path / "audio", 2, {0, 1}), "--model", model, "--out", tmp_path / "tones.parquet"
    )
    assert (code, out) == (1, "")
    assert "none of the 2 files could be embedded; 2 set aside" in err
    assert (tmp_path / "tones.parquet").read_text() == "old"
    assert len((tmp_path / "tones.parquet.failures.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["search", "--index", "INDEX"], "nothing to look for"),
        (["search", "piano", "--index", "nowhere"], "nowhere: there is no index here"),
        (["search", "piano", "--index", "INDEX"], "does not say which model made it; name it with --model DIR"),
        (["search", "piano", "--index", "INDEX", "--model", "nowhere"], "nowhere"),
        (["search", "piano", "--index", "INDEX", "--model", "MODEL"], "space 0123456789abcdef but the query has"),
        (["search", "--minus", "piano", "--index", "INDEX", "--model", "MODEL"], "positive weight"),
        (["search", "piano", "--index", "INDEX", "--model", "MODEL", "--device", "abacus"], "--device abacus"),
        (["search", "--like", "nobody", "--index", "INDEX"], "no 'nobody'"),
        (["search", "--audio", "none.wav", "--index", "INDEX", "--model", "MODEL"], "none.wav"),
        (["index", "build", "none.parquet", "--out", "out"], "none.parquet: there is no such file"),
        (["index", "info", "nowhere"], "no index here"),
        (["embed", "nowhere", "--model", "MODEL", "--out", "a.parquet"], "nowhere"),
        (["tag", "a.wav", "--tags", " , ", "--model", "MODEL"], "at least one tag"),
        (["tag", "a.wav", "--tags", "calm,Calm", "--model", "MODEL"], "named once, got 'calm' and 'Calm'"),
        (["tag", "a.wav", "--tags", "none.txt", "--model", "MODEL"], "none.txt"),
        (["evaluate", "none.csv", "--model", "MODEL"], "none.csv does not exist"),
        (["embed", "nowhere", "--model", "MODEL", "--out", "a.csv"], "ending in .parquet, got a.csv"),
    ],
)
def test_an_error_of_the_input_is_one_sentence_and_exit_code_2(words, message, small_index, model, capsys, monkeypatch):
    monkeypatch.chdir(small_index.parent)
    words = [{"INDEX": str(small_index), "MODEL": str(model)}.get(word, word) for word in words]
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert err.startswith("xmodal: ")
    assert err.count("\n") == 1
    assert message in err


def test_the_remembered_model_may_have_moved(tmp_path, capsys):
    export_of = Embeddings(["a"], np.eye(1, 12), "0123456789abcdef", model=str(tmp_path / "gone"))
    build_index(export_of, "exact").save(tmp_path / "index")
    code, _, err = run(capsys, "search", "piano", "--index", tmp_path / "index")
    assert code == 2
    assert f"is no longer at {tmp_path / 'gone'}; say where with --model DIR" in err


@pytest.mark.parametrize("words", [["--debug", "index", "info", "nowhere"], ["index", "info", "nowhere", "--debug"]])
def test_debug_shows_where_an_error_came_from(words):
    with pytest.raises(xmodal.errors.IndexFormatError):
        main(words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "COMMAND"),
        (["sing"], "sing"),
        (["tag", "a.wav", "--tags", "b"], "--model"),
        (["search", "piano", "--index", "i", "--wrong", "3"], "unknown argument '--wrong'; see: xmodal search --help"),
        (["search", "piano", "--index", "i", "-k", "0"], "whole number of at least 1, got '0'"),
        (["search", "piano", "--index", "i", "--minus-weight", "-1"], "number above 0, got '-1'"),
        (["search", "piano", "--index", "i", "--minus-weight", "much"], "number above 0, got 'much'"),
        (["index", "build", "e", "--out", "o", "--kind", "magic"], "magic"),
    ],
)
def test_wrong_words_are_answered_with_the_usage(words, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "demo"])
def test_train_and_demo_get_their_words_as_they_are(command, monkeypatch):
    got = []
    module = {"train": "xmodal.training", "demo": "xmodal.demo"}[command]
    stand_in = types.ModuleType(module)
    stand_in.main = lambda words: got.append(words) or 3
    monkeypatch.setitem(sys.modules, module, stand_in)
    words = ["fit", "--config", "a.yaml", "--help", "--model.dim=3", "-k", "5"]
    assert main([command, *words]) == 3
    assert main([command]) == 3
    assert got == [words, []]


def test_a_stop_by_hand_is_no_traceback_and_says_that_an_export_goes_on(model, tmp_path, monkeypatch, capsys):
    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("xmodal.export.export", stop)
    code, _, err = run(capsys, "embed", tones(tmp_path / "audio", 1), "--model", model, "--out", tmp_path / "a.parquet")
    assert code == 130
    assert err == "xmodal: what is finished is kept; the same command goes on from there\nxmodal: stopped\n"


def test_a_reader_that_has_gone_is_no_error(tmp_path):
    count = 30_000  # 15 MB: more than a pipe holds
    rows = Embeddings([f"{row}-{'long' * 125}" for row in range(count)], np.eye(2)[[0] * count], "0123456789abcdef")
    build_index(rows, "exact").save(tmp_path / "index")
    code = "import sys; from xmodal.cli import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "index", "info", str(tmp_path / "index"), "--ids"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline().startswith("0-long")
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 141


def test_a_title_that_the_terminal_cannot_show_is_shown_escaped(small_index):
    code = "import sys; from xmodal.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "search", "--like", "a", "--index", str(small_index)],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert b"L\\xe4ti" in done.stdout
