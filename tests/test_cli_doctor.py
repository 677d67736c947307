"""``xmodal doctor``, as a user types it."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from xmodal.cli import main
from xmodal.doctor import LIMITS
from xmodal.model import TwoTower
from xmodal.towers import HashedBagOfWordsTower, MobileCnn


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    torch.manual_seed(0)
    audio = MobileCnn(sample_rate=8000, n_fft=256, hop=80, bands=16, width=0.25, feature_dim=32)
    text = HashedBagOfWordsTower(buckets=500, embed_dim=16, feature_dim=24)
    run = tmp_path_factory.mktemp("run")
    TwoTower(audio, text, dim=12, window_seconds=0.5).save(run / "model")
    (run / "checkpoints").mkdir()
    state = {"loss.scale.log_scale": torch.tensor(math.log(100)), "network.x": torch.zeros(1)}
    torch.save({"state_dict": state}, run / "checkpoints" / "old.ckpt")
    (run / "checkpoints" / "torn.ckpt").write_bytes(b"half a checkpoint")
    return run


def ask(capsys, *words):
    code = main(["doctor", *map(str, words)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_an_untrained_model_is_found_ill_with_advice_and_exit_code_1(untrained, tone_tracks, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    code, out, err = ask(capsys, untrained / "model", tone_tracks)
    assert (code, err) == (1, "")
    assert "40 tracks, 8 texts" in out
    assert "ill: untrained weights of audio" in out
    assert LIMITS["untrained weights"].advice in out
    assert "✗  untrained weights" in out


def test_the_folder_of_a_run_also_tells_the_temperature(untrained, tone_tracks, capsys):
    code, out, _ = ask(capsys, untrained, tone_tracks, "--json", "--split", "train")
    told = json.loads(out)
    found = {(finding["check"], finding["about"]): finding for finding in told["findings"]}
    assert (code, told["verdict"], told["tracks"]) == (1, "ill", 24)
    assert found["temperature", "loss.scale"]["verdict"] == "warning"
    assert found["weights file", "model"]["verdict"] == "healthy"
    assert {check for check, _ in found} == set(LIMITS) - {"loss at chance"}


def test_pictures_and_figures_are_written(untrained, tone_tracks, tmp_path, capsys):
    ask(capsys, untrained, tone_tracks, "--plot", tmp_path / "new" / "d.png", "--tensorboard", tmp_path / "events")
    assert (tmp_path / "new" / "d.png").read_bytes()[:4] == b"\x89PNG"
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    assert "doctor/collapse/audio" in events.Tags()["scalars"]
    assert events.Tags()["images"] == ["doctor"]


def test_weights_that_do_not_fit_are_a_diagnosis_and_no_crash(untrained, tone_tracks, tmp_path, capsys):
    folder = shutil.copytree(untrained / "model", tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["text.output.bias"]
    save_file(weights, folder / "model.safetensors")
    code, out, err = ask(capsys, folder, tone_tracks)
    assert (code, err) == (1, "")
    assert "missing text.output.bias" in out
    assert LIMITS["weights file"].advice in out


def test_data_without_words_are_refused(untrained, tone_tracks, tmp_path, capsys):
    manifest = tmp_path / "mute.jsonl"
    manifest.write_text(json.dumps({"path": str(tone_tracks.parent / "00.wav")}))
    code, _, err = ask(capsys, untrained, manifest)
    assert code == 2
    assert "has 0 tracks with a caption or tag in its all split and a diagnosis needs two" in err
