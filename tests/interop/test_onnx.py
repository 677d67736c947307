"""Both towers as ONNX graphs: what onnxruntime says against what the model says."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
from published_models import published
from tiny import tiny_model
from towers.tower_cases import trained

from xmodal.cli import main
from xmodal.embedder import Embedder
from xmodal.errors import ModelError
from xmodal.importers import import_clap
from xmodal.interop.onnx import PRECISIONS, export_onnx, load_onnx, parity
from xmodal.interop.onnx.graphs import TextGraph, text_inputs
from xmodal.model import TwoTower
from xmodal.towers import ClapTextTower, HashedBagOfWordsTower, MobileCnn, SentenceTransformerTower

pytest.importorskip("onnxruntime", reason="ONNX needs the extra: pip install 'xmodal[onnx]'")
TEXTS = ["w1 w2 w3", "w9", " ".join(f"w{n % 200}" for n in range(150)), "w4 w5"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx") / "export"
    export_onnx(tiny_model(), folder, precisions=PRECISIONS)
    return folder


def waves(windows, samples):
    generator = torch.Generator().manual_seed(windows)
    return (0.2 * torch.randn(windows, samples, generator=generator)).clamp(-1, 1)


@torch.no_grad()
@pytest.mark.parametrize(("windows", "samples"), [(1, 4000), (5, 4000), (3, 9001), (2, 333)])
def test_the_audio_graph_takes_any_batch_and_length_and_does_not_hear_padding(exported, windows, samples):
    model, graph = tiny_model(), load_onnx(exported).model
    wave = waves(windows, samples)
    valid = torch.full((windows,), samples)
    valid[-1] = samples // 3
    noise = wave.clone()
    noise[-1, samples // 3 :] = 0.7
    expected = model.embed_audio(wave, valid)
    torch.testing.assert_close(graph.embed_audio(noise, valid), expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(graph.embed_audio(wave), model.embed_audio(wave), atol=2e-6, rtol=0)


# Every other tower of others was traced by hand with the same outcome; a trace costs eight seconds.
IMPORTED = {
    "import clap-fusion": lambda: import_clap(published("clap-fusion")),
    "HarmonicCnn": lambda: beside_words(trained("HarmonicCnn")),
    "Cnn10": lambda: beside_words(trained("Cnn10")),
    "Mert": lambda: beside_words(trained("Mert")),
}


def beside_words(audio):
    torch.manual_seed(0)
    return TwoTower(audio, HashedBagOfWordsTower(buckets=100, embed_dim=8, feature_dim=8), dim=64, window_seconds=1.0)


@pytest.mark.parametrize("name", IMPORTED)
def test_towers_of_others_are_exported_with_their_own_front_ends(name, tmp_path, tone_tracks):
    model = IMPORTED[name]().eval()
    export_onnx(model, tmp_path / "onnx", precisions=["fp32", "fp16"])
    own, other = Embedder(model, device="cpu"), load_onnx(tmp_path / "onnx")
    assert other.space_id == own.space_id
    files = [tone_tracks.parent / f"{number:02d}.wav" for number in range(4)]
    short, samples = tmp_path / "short.wav", soundfile.read(files[0])[0][:900]
    soundfile.write(short, samples, 8000)  # shorter than some of these networks take
    files.append(short)
    # Not closer, because a nearly silent band in decibels shows the rounding of onnxruntime's Fourier transform.
    expected = own.embed_files(files).embeddings.vectors
    assert (other.embed_files(files).embeddings.vectors * expected).sum(axis=1).min() > 1 - 1e-5
    half = load_onnx(tmp_path / "onnx", "fp16").embed_files(files).embeddings.vectors
    assert 1 - 1e-3 < (half * expected).sum(axis=1).min() < 1 - 1e-9, "a power spectrum does not fit into half"
    np.testing.assert_allclose(other.embed_texts(TEXTS), own.embed_texts(TEXTS), atol=2e-6)


def test_a_tower_that_no_graph_can_hold_is_refused_in_one_line(tmp_path):
    class Undecided(MobileCnn):
        def encode(self, features, valid_frames=None):
            return super().encode(features if features.mean().item() > 0 else -features, valid_frames)

    audio = Undecided(8000, 256, 80, 16, width=0.25, feature_dim=8)
    with pytest.raises(ModelError, match="^Undecided cannot be exported to ONNX: [^\x1b\n]{10,300}$"):
        export_onnx(beside_words(audio), tmp_path / "onnx")
    assert not list(tmp_path.iterdir())


def test_files_and_texts_embed_as_with_the_model_and_in_its_space(exported, tone_tracks):
    files = [tone_tracks.parent / json.loads(line)["path"] for line in tone_tracks.read_text().splitlines()[:5]]
    own, other = Embedder(tiny_model(), device="cpu"), load_onnx(exported)
    assert other.space_id == own.space_id
    np.testing.assert_allclose(
        other.embed_files(files).embeddings.vectors, own.embed_files(files).embeddings.vectors, atol=2e-6
    )
    np.testing.assert_allclose(other.embed_texts(TEXTS), own.embed_texts(TEXTS), atol=2e-6)


def test_reduced_precisions_are_near_smaller_and_spaces_of_their_own(exported):
    report = {row.precision: row for row in parity(Embedder(tiny_model(), device="cpu"), exported, PRECISIONS)}
    assert report["fp32"].audio_cosine > 1 - 1e-6
    assert 1 - 1e-4 < report["fp16"].audio_cosine < 1 - 1e-9, "half precision must differ, a little"
    assert report["int8"].text_cosine > 0.99
    assert report["int8"].megabytes < report["fp32"].megabytes
    assert report["fp16"].megabytes < report["fp32"].megabytes
    assert len({load_onnx(exported, name).space_id for name in PRECISIONS}) == 3


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("heads", [0, 4])
def test_the_text_graph_is_the_sentence_tower_on_many_chunks(tiny_encoder, heads, pooling):
    torch.manual_seed(0)
    text = SentenceTransformerTower(
        str(tiny_encoder), max_tokens=16, chunk_overlap=4, chunk_pooling=pooling, token_heads=heads
    )
    check_text_graph(text)


@torch.no_grad()
def test_the_text_graph_is_claps_and_the_bag_of_words_on_many_chunks():
    torch.manual_seed(0)
    check_text_graph(ClapTextTower(published("clap"), max_tokens=16, chunk_overlap=4))
    check_text_graph(HashedBagOfWordsTower(buckets=100, embed_dim=8, feature_dim=8))


def check_text_graph(text):
    model = TwoTower(MobileCnn(8000, 256, 80, 16, width=0.25, feature_dim=8), text, dim=6, text_hidden=5).eval()
    inputs = text_inputs(model, text.tokenize(TEXTS))
    torch.testing.assert_close(TextGraph(model).eval()(*inputs.values()), model.embed_text(TEXTS), atol=2e-6, rtol=0)


def test_a_damaged_or_foreign_folder_and_an_absent_precision_are_refused(exported, tmp_path):
    with pytest.raises(ModelError, match=r"holds no ONNX export .*xmodal export-onnx"):
        load_onnx(tmp_path)
    copy = shutil.copytree(exported, tmp_path / "copy")
    settings = json.loads((copy / "onnx.json").read_text())
    del settings["spaces"]["int8"]
    (copy / "onnx.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="has no int8 but fp32, fp16"):
        load_onnx(copy, "int8")
    content = bytearray((copy / "audio.fp32.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "audio.fp32.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"audio\.fp32\.onnx was changed or damaged"):
        load_onnx(copy)
    with pytest.raises(ModelError, match="holds something already"):
        export_onnx(tiny_model(), copy)
    with pytest.raises(ValueError, match="precision must be some of fp32, fp16, int8, got fp64"):
        export_onnx(tiny_model(), tmp_path / "x", precisions=["fp64"])
    assert not list(tmp_path.glob("x*")) + list(tmp_path.glob(".x*"))


def test_the_command_reports_what_is_found_before_and_after(exported, tmp_path, tone_tracks, capsys, monkeypatch):
    tiny_model().save(tmp_path / "model")
    with monkeypatch.context() as patch:  # tracing costs ten seconds, and is tested above
        patch.setattr("xmodal.interop.onnx.export_onnx", lambda model, out, **how: shutil.copytree(exported, out))
        check_command(tmp_path, tone_tracks, capsys)
    assert main(["export-onnx", str(tmp_path / "model"), "--out", str(tmp_path / "onnx"), "--device", "cpu"]) == 2
    assert "overwrite an export with --force" in capsys.readouterr().err


def check_command(tmp_path, tone_tracks, capsys):
    words = ["export-onnx", str(tmp_path / "model"), "--out", str(tmp_path / "onnx"), "--check", str(tone_tracks)]
    assert main([*words, "--device", "cpu", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["precision"] == "fp32"
    assert row["recall"]["R@1"][0] == row["recall"]["R@1"][1]
