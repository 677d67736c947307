"""Tagging from the command line: probabilities, enrolled tags, pictures, tags into files, and probes."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil

import av
import numpy as np
import pytest
import soundfile
import torch

import xmodal
from xmodal.cli import main
from xmodal.data.manifests import read_tracks
from xmodal.embeddings import Embeddings
from xmodal.model import TwoTower
from xmodal.tagging import Calibration, TagScorer
from xmodal.tagging.why import explain
from xmodal.tagging.write import read_fields, undo_tags, write_tags
from xmodal.towers import HashedBagOfWordsTower, MobileCnn

FIELDS = ["--tag-fields", "pitch,motion"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    audio = MobileCnn(sample_rate=8000, n_fft=256, hop=80, bands=16, width=0.25, feature_dim=32)
    text = HashedBagOfWordsTower(buckets=500, embed_dim=16, feature_dim=24)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    TwoTower(audio, text, dim=12, window_seconds=0.5).save(folder)
    return folder


@pytest.fixture(scope="module")
def fitted(model, tone_tracks, tmp_path_factory):
    """A calibration and the vectors of all tones."""
    folder = tmp_path_factory.mktemp("fitted")
    words = ["tag", "fit", tone_tracks, "--model", model, "--split", "all", *FIELDS, "--out", folder / "cal.json"]
    assert main([str(word) for word in [*words, "--plot", folder / "curve.png"]]) == 0
    words = ["embed", tone_tracks, "--model", model, "--out", folder / "tones.parquet"]
    assert main([str(word) for word in words]) == 0
    return folder


def run(capsys, *words):
    code = main([str(word) for word in words])
    said = capsys.readouterr()
    return code, said.out, said.err


def answer(capsys, *words):
    code, out, err = run(capsys, *words, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_a_fit_says_what_it_reached_on_held_out_tracks(model, tone_tracks, fitted, tmp_path, capsys):
    words = ["tag", "fit", tone_tracks, "--model", model, "--split", "all", *FIELDS, "--out", tmp_path / "cal.json"]
    report = answer(capsys, *words)
    kept = Calibration.load(tmp_path / "cal.json")
    assert report == kept.report
    again = Calibration.load(fitted / "cal.json").report["held-out log loss"]
    assert report["held-out log loss"] == pytest.approx(again, abs=1e-4)
    assert set(kept.tags) == {"low", "high", "steady", "pulsing"}
    assert report["held-out log loss"][kept.method] < report["held-out log loss of base rates"]
    assert (fitted / "curve.png").read_bytes()[:4] == b"\x89PNG"


def test_a_calibration_brings_its_tags_and_gives_those_that_are_likely(model, tone_tracks, fitted, capsys):
    tracks = read_tracks(tone_tracks)
    files = [track.path for track in tracks[:6]]
    found = answer(capsys, "tag", *files, "--model", model, "--calibration", fitted / "cal.json")
    calibration, embedder = Calibration.load(fitted / "cal.json"), xmodal.load(model, device="cpu")
    kinds = {"pitch": ["low", "high"], "motion": ["steady", "pulsing"]}
    scorer = TagScorer(kinds, embedder.embed_texts)
    probability = calibration.for_tags(scorer.tags, embedder.space_id).probabilities(
        scorer.score(embedder.embed_files(files).embeddings.vectors)
    )
    threshold = dict(zip(calibration.tags, calibration.threshold.tolist(), strict=True))
    for row, expected in zip(found, probability, strict=True):
        likely = {tag: p for tag, p in zip(scorer.tags, expected.tolist(), strict=True) if p >= threshold[tag]}
        assert {entry["tag"]: entry["probability"] for entry in row["tags"]} == pytest.approx(likely, abs=1e-4)
        assert [e["probability"] for e in row["tags"]] == sorted((e["probability"] for e in row["tags"]), reverse=True)
        assert all(entry["sure"] for entry in row["tags"])
    some = answer(capsys, "tag", files[0], "--model", model, "--calibration", fitted / "cal.json", "--tags", "high,low")
    assert {entry["tag"] for entry in some[0]["tags"]} <= {"high", "low"}


def test_csv_has_a_line_for_each_tag(model, tone_tracks, capsys):
    file = tone_tracks.parent / "00.wav"
    code, out, _ = run(capsys, "tag", file, "--tags", "low,high", "--model", model, "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert {row["tag"] for row in rows} == {"low", "high"}
    assert all(row["path"] == str(file) and row["probability"] == "" for row in rows)


def test_a_prior_gives_each_tag_to_its_share_of_the_catalogue(model, tone_tracks, fitted, capsys):
    files = [track.path for track in read_tracks(tone_tracks)]
    words = ["tag", *files, "--tags", "low, rain", "--model", model, "--reference", fitted / "tones.parquet"]
    found = answer(capsys, *words, "--prior", 0.25)
    for name in ("low", "rain"):
        assert sum(entry["tag"] == name for row in found for entry in row["tags"]) == 10
    code, table, _ = run(capsys, *words, "--prior", 0.25)
    assert code == 0
    assert "(none is likely)" in table


def test_a_calibration_of_other_scores_or_tags_is_refused(model, tone_tracks, fitted, capsys):
    words = ["tag", tone_tracks.parent / "00.wav", "--model", model, "--calibration", fitted / "cal.json"]
    code, _, err = run(capsys, *words, "--null-prompts")
    assert code == 2
    assert "fitted with other scores (null prompts: no, reference: no)" in err
    code, _, err = run(capsys, *words, "--tags", "rain")
    assert code == 2
    assert "not fitted for the tag 'rain'" in err


def test_options_that_need_others_say_which(model, tone_tracks, capsys):
    words = ["tag", tone_tracks.parent / "00.wav", "--model", model]
    for more, message in (
        ([], "say which tags"),
        (["--tags", "a", "--prior", "0.1"], "--reference FILE.parquet"),
        (["--tags", "a", "--write"], "--calibration or --prior"),
    ):
        code, _, err = run(capsys, *words, *more)
        assert code == 2
        assert message in err


def test_a_tag_is_enrolled_used_and_forgotten(model, tone_tracks, fitted, tmp_path, capsys):
    folder, store = tone_tracks.parent, tmp_path / "mine.json"
    examples = [folder / "00.wav", folder / "04.wav"]
    words = ["tag", "enrol", "hum", *examples, "--model", model, "--into", store]
    code, out, _ = run(capsys, *words, "--reference", fitted / "tones.parquet", "--kind", "sound")
    assert (code, "'hum' is enrolled from 2 files" in out) == (0, True)
    assert run(capsys, "tag", "enrol", "beep", examples[0], "--model", model, "--into", store, "--no-text")[0] == 0
    found = answer(capsys, "tag", examples[0], "--tags", "low", "--model", model, "--enrolled", store)
    scores = {entry["tag"]: entry["score"] for entry in found[0]["tags"]}
    assert set(scores) == {"low", "hum", "beep"}
    assert scores["beep"] == pytest.approx(1, abs=1e-4)  # the one example itself
    assert run(capsys, "tag", "forget", "hum", "--from", store)[0] == 0
    found = answer(capsys, "tag", examples[0], "--tags", "low", "--model", model, "--enrolled", store)
    assert {entry["tag"] for entry in found[0]["tags"]} == {"low", "beep"}
    code, _, err = run(capsys, "tag", "forget", "hum", "--from", store)
    assert (code, "'hum' is not enrolled; the enrolled tags are: beep" in err) == (2, True)


def test_curves_hold_every_window_s_probability(model, tone_tracks, fitted, tmp_path, capsys):
    file = tone_tracks.parent / "06.wav"
    words = ["tag", file, "--tags", "low,high", "--model", model, "--curves", tmp_path / "c", "--why", tmp_path / "w"]
    code, _, err = run(capsys, *words)
    assert code == 0
    assert "curves are in" in err
    curves = json.loads((tmp_path / "c" / "0000-06.json").read_text())
    embedder = xmodal.load(model, device="cpu")
    ((_, outcome),) = list(embedder.iterate_windows([file]))
    expected = TagScorer(["low", "high"], embedder.embed_texts).score(outcome.vectors)
    assert curves["start_seconds"] == list(outcome.start_seconds)
    assert curves["score"]["high"] == pytest.approx(expected[:, 1].tolist(), abs=1e-5)
    for picture in (tmp_path / "c" / "0000-06.png", tmp_path / "w" / "0000-06.why.png"):
        assert picture.read_bytes()[:4] == b"\x89PNG"


def test_reasons_are_what_the_score_loses(model, tone_tracks):
    """Windows and regions by hand: the mean of the other windows, and one region at the mean spectrum."""
    embedder = xmodal.load(model, device="cpu")
    file = tone_tracks.parent / "06.wav"
    weights = TagScorer(["high"], embedder.embed_texts).weights[0]
    reasons = explain(embedder, file, weights, band_regions=4, time_regions=3)
    ((_, outcome),) = list(embedder.iterate_windows([file]))
    whole = outcome.pooled() @ weights.numpy()
    for number in range(len(outcome.vectors)):
        rest = np.delete(outcome.vectors * outcome.weights[:, None], number, axis=0).sum(0)
        assert reasons.contribution[number] == pytest.approx(
            float(whole - rest @ weights.numpy() / np.linalg.norm(rest)), abs=1e-5
        )
    assert reasons.window == int(reasons.contribution.argmax())
    features = torch.from_numpy(reasons.features)[None].clone()
    frames = features.shape[2]
    edges = [round(part * frames / 3) for part in range(4)]
    plain = (embedder.model.embed_audio_features(features) @ weights).detach()
    features[:, 4:8, edges[2] : edges[3]] = torch.from_numpy(reasons.features)[None].mean(2)[:, 4:8, None]
    changed = (embedder.model.embed_audio_features(features) @ weights).detach()
    assert reasons.regions[1, 2] == pytest.approx(float(plain - changed), abs=1e-5)
    with pytest.raises(ValueError, match="16 bands"):
        explain(embedder, file, weights, band_regions=17)
    with pytest.raises(xmodal.errors.AudioError):
        explain(embedder, tone_tracks, weights)


def encoded(path, kind):
    """A second of a tone in a format."""
    codec = {"mp3": "mp3", "flac": "flac", "opus": "libopus", "m4a": "aac"}.get(kind)
    rate = 48000
    samples = (0.3 * np.sin(np.arange(rate) / 20)).astype(np.float32)
    if codec is None:
        soundfile.write(path, samples, rate, format="OGG", subtype="VORBIS")
        return path
    with av.open(str(path), "w", format={"opus": "ogg", "m4a": "mp4"}.get(kind, kind)) as file:
        stream = file.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.rate = rate
        fifo = av.AudioFifo()
        resampler = av.AudioResampler(stream.format, "mono", rate, frame_size=stream.frame_size or 1024)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
        del fifo
    return path


@pytest.mark.parametrize("kind", ["mp3", "flac", "ogg", "opus", "m4a"])
def test_tags_go_into_files_and_out_again(tmp_path, kind):
    path, undo = encoded(tmp_path / f"a.{kind}", kind), tmp_path / "undo.jsonl"
    audio = xmodal.audio.load(path, 16000)
    write_tags(path, {"genre": ["Jazz", "Läti"], "mood": ["calm"], "lead part": ["flute"], None: ["x"]}, undo)
    expected = {"GENRE": ["Jazz", "Läti"], "MOOD": ["calm"], "LEAD PART": ["flute"], "TAGS": ["x"]}
    assert read_fields(path, list(expected)) == expected
    np.testing.assert_array_equal(xmodal.audio.load(path, 16000), audio)
    write_tags(path, {"genre": ["Folk"]}, undo)
    assert read_fields(path, ["GENRE", "MOOD"]) == {"GENRE": ["Folk"], "MOOD": ["calm"]}
    assert undo_tags(undo) == (2, [])
    assert read_fields(path, list(expected)) == {name: [] for name in expected}
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted([path.name, "undo.jsonl"])


def test_what_someone_else_changed_since_is_kept(tmp_path):
    path, undo = encoded(tmp_path / "a.flac", "flac"), tmp_path / "undo.jsonl"
    write_tags(path, {"genre": ["Jazz"]}, undo)
    write_tags(path, {"genre": ["Folk"]}, tmp_path / "other.jsonl")
    done, kept = undo_tags(undo)
    assert done == 0
    assert "changed since" in kept[0]
    assert read_fields(path, ["GENRE"]) == {"GENRE": ["Folk"]}
    path.unlink()
    assert undo_tags(undo)[0] == 0


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = encoded(tmp_path / "a.mp3", "mp3")
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_tags(path, {"genre": ["Jazz"]}, tmp_path / "undo.jsonl")
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir() if each.suffix == ".mp3"] == ["a.mp3"]


def test_files_that_hold_no_tags_are_refused(tone_tracks, tmp_path):
    with pytest.raises(xmodal.errors.AudioError, match="mp3, flac, ogg, opus and m4a files only"):
        write_tags(tone_tracks.parent / "00.wav", {"genre": ["Jazz"]}, tmp_path / "undo.jsonl")
    with pytest.raises(xmodal.errors.DataError, match="no undo file"):
        undo_tags(tone_tracks.parent / "00.wav")


def test_the_command_writes_likely_tags_and_takes_them_back(model, fitted, tmp_path, capsys):
    path = encoded(tmp_path / "a.flac", "flac")
    shutil.copy(path, tmp_path / "b.flac")
    words = ["tag", path, tmp_path / "b.flac", "--tags", "low", "--model", model, "--reference"]
    words += [fitted / "tones.parquet", "--prior", 0.999, "--write", "--undo", tmp_path / "undo.jsonl"]
    code, _, err = run(capsys, *words)
    assert code == 0
    assert "tags written into 2 files" in err
    assert read_fields(path, ["TAGS"]) == {"TAGS": ["low"]}
    code, out, _ = run(capsys, "tag", "undo", tmp_path / "undo.jsonl")
    assert (code, "2 files have their old tags again" in out) == (0, True)
    assert read_fields(path, ["TAGS"]) == {"TAGS": []}


def test_a_probe_is_cross_validated_and_draws_its_curve(model, tone_tracks, tmp_path, capsys):
    words = ["probe", tone_tracks, "--model", model, "--kind", "pitch", "--tag-fields", "pitch", "--folds", 4]
    found = answer(capsys, *words, "--probes", "linear,prototype", "--curve", tmp_path / "c.png", "--shots", "1,4")
    assert [each["kind"] for each in found["probes"]] == ["linear", "prototype"]
    assert found["probes"][0]["values"]["accuracy"] > 0.8
    assert found["curve"]["shots"] == [1, 4]
    assert (tmp_path / "c.png").read_bytes()[:4] == b"\x89PNG"
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert "knn probe" in out
    code, _, err = run(capsys, *[*words[:4], "--kind", "era"])
    assert (code, "no track of" in err) == (2, True)


def test_vectors_of_another_space_are_no_reference(model, tone_tracks, tmp_path, capsys):
    Embeddings(["a", "b"], np.eye(2, 12, dtype=np.float32), "fedcba9876543210").save(tmp_path / "other.parquet")
    for words in (
        ["tag", tone_tracks.parent / "00.wav", "--tags", "low"],
        ["tag", "enrol", "hum", tone_tracks.parent / "00.wav", "--into", tmp_path / "x.json"],
        ["tag", "fit", tone_tracks, *FIELDS, "--split", "all", "--out", tmp_path / "x.json"],
    ):
        code, _, err = run(capsys, *words, "--model", model, "--reference", tmp_path / "other.parquet")
        assert (code, "fedcba9876543210" in err) == (2, True)
