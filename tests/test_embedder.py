from __future__ import annotations

import random

import numpy as np
import pytest
import soundfile
import torch
from sound_files import write_noises

import xmodal
from xmodal.data import Track
from xmodal.embedder import Embedder, FileWindows
from xmodal.errors import AudioError, ModelError
from xmodal.model import TwoTower
from xmodal.towers import Cnn10, HashedBagOfWordsTower, MobileCnn, SentenceTransformerTower, ShortChunkResNet

TOLERANCE = 1e-6
RATE = 8000


def audio_tower(kind):
    if kind == "mobile":
        return MobileCnn(sample_rate=RATE, n_fft=256, hop=80, bands=16, width=0.25, feature_dim=32)
    if kind == "cnn10":
        return Cnn10(sample_rate=RATE, n_fft=512, hop=160, bands=32, f_max=4000.0)
    return ShortChunkResNet(sample_rate=RATE, n_fft=1024, hop=160, bands=128, channels=4)


def bag_of_words():
    return HashedBagOfWordsTower(buckets=500, embed_dim=16, feature_dim=24)


@pytest.fixture(scope="module", params=["mobile", "cnn10", "short_chunk"])
def model(request):
    torch.manual_seed(0)
    return TwoTower(audio_tower(request.param), bag_of_words(), dim=16, window_seconds=1.0).eval()


@pytest.fixture(scope="module")
def mobile():
    torch.manual_seed(0)
    return TwoTower(audio_tower("mobile"), bag_of_words(), dim=16, window_seconds=1.0).eval()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files shorter than a window, of one window, and of many; loud, silent and noisy; stereo and of another rate."""
    kinds = [(0.05, 8000, 1), (0.6, 8000, 1), (1.0, 16000, 2), (1.7, 44100, 2), (5.3, 8000, 1), (2.0, 8000, 1)]
    return write_noises(tmp_path_factory.mktemp("files"), [*kinds, (3.1, 22050, 1)], silent=5)


@pytest.fixture(scope="module")
def alone(model, files):
    embedder = Embedder(model, device="cpu", batch_size=1, workers=1)
    return {path: embedder.embed_files([path]).embeddings.vectors[0] for path in files}


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (3, 1), (7, 2), (64, 3)])
def test_a_file_has_one_vector_whatever_it_is_embedded_with(model, files, alone, batch_size, workers):
    shuffled = random.Random(batch_size).sample(files, len(files))
    result = Embedder(model, device="cpu", batch_size=batch_size, workers=workers).embed_files(shuffled)
    assert result.embeddings.ids == [str(path) for path in shuffled]
    assert not result.failures
    for path, vector in zip(shuffled, result.embeddings.vectors, strict=True):
        np.testing.assert_allclose(vector, alone[path], atol=TOLERANCE, rtol=0)


def test_neither_seed_nor_training_mode_changes_a_vector(model, files, alone):
    torch.manual_seed(99)
    model.train()
    result = Embedder(model, device="cpu").embed_files(files[:3])
    for path, vector in zip(files, result.embeddings.vectors, strict=False):
        np.testing.assert_allclose(vector, alone[path], atol=TOLERANCE, rtol=0)


@torch.no_grad()
def test_the_folded_network_embeds_in_the_plain_ones_space(model, files):
    embedder = Embedder(model, device="cpu", workers=1)
    for _, windows in embedder.iterate_windows(files):
        assert isinstance(windows, FileWindows)
    cut = list(xmodal.audio.windows(files[4], RATE, model.windows))
    found = embedder.embed_windows(cut)
    plain = model.embed_audio(torch.from_numpy(np.stack([window.samples for window in cut]))).numpy()
    np.testing.assert_allclose(found, plain, atol=TOLERANCE, rtol=0)
    assert embedder._for_inference().audio is not model.audio
    assert embedder._for_inference() is embedder._for_inference(), "folded once"
    assert embedder.space_id == model.space_id()


def test_weights_that_change_behind_an_embedder_are_noticed(files):
    torch.manual_seed(0)
    model = TwoTower(audio_tower("mobile"), bag_of_words(), dim=16, window_seconds=1.0)
    embedder = Embedder(model, device="cpu", workers=1)
    cut = list(xmodal.audio.windows(files[4], RATE, model.windows))
    before = embedder.embed_windows(cut)
    with torch.no_grad():
        model.audio.blocks[0][0].weight.mul_(torch.linspace(0, 2, 3))  # as an optimiser does, in place
        model.audio.blocks[1][1].running_mean.add_(0.5)
    after = embedder.embed_windows(cut)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, Embedder(model, device="cpu").embed_windows(cut), atol=0, rtol=0)


def test_vectors_are_unit_and_of_the_models_space(model, files):
    embedder = Embedder(model, device="cpu")
    embeddings = embedder.embed_files(files).embeddings
    np.testing.assert_allclose(np.linalg.norm(embeddings.vectors, axis=1), 1, atol=1e-6)
    assert embeddings.space_id == embedder.space_id == model.space_id()
    assert embeddings.vectors.dtype == np.float32


def test_a_files_vector_is_the_weighted_mean_of_its_windows(mobile, files):
    embedder = Embedder(mobile, device="cpu")
    ((_, windows),) = embedder.iterate_windows([files[4]])
    assert isinstance(windows, FileWindows)
    assert windows.start_seconds == pytest.approx((0, 1, 2, 3, 4, 4.3))
    expected = windows.vectors.mean(axis=0)
    expected /= np.linalg.norm(expected)
    np.testing.assert_allclose(embedder.embed_files([files[4]]).embeddings.vectors[0], expected, atol=1e-6)


def test_a_padded_window_counts_by_the_audio_in_it():
    vectors = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    pooled = FileWindows(vectors, (0.0, 1.0), np.array([1.0, 0.5]), np.ones(2), 1.5).pooled()
    np.testing.assert_allclose(pooled, np.array([2, 1]) / np.sqrt(5), atol=1e-6)
    opposite = FileWindows(
        np.array([[1.0, 0.0], [-1.0, 0.0]], dtype=np.float32), (0.0, 1.0), np.ones(2), np.ones(2), 2.0
    ).pooled()
    np.testing.assert_allclose(opposite, [1, 0])


def test_a_bad_file_is_set_aside_with_its_reason_and_the_rest_goes_on(mobile, files, tmp_path):
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.mp3").write_text("not audio at all")
    good, bad = files[1:3], [tmp_path / "empty.wav", tmp_path / "missing.wav", tmp_path / "text.mp3"]
    mixed = [bad[0], good[0], bad[1], good[1], bad[2]]
    seen = []
    result = Embedder(mobile, device="cpu", batch_size=2).embed_files(mixed, progress=seen.append)
    assert result.embeddings.ids == [str(path) for path in good]
    assert [error.path for error in result.failures] == bad
    assert all(error.reason for error in result.failures)
    assert seen == [1, 2, 3, 4, 5]


def test_a_file_that_breaks_in_the_middle_gives_no_vector(mobile, tmp_path):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 6 * RATE).astype("float32")
    samples[5 * RATE :] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, RATE, subtype="FLOAT")
    result = Embedder(mobile, device="cpu", batch_size=2).embed_files([tmp_path / "nan.wav"])
    assert len(result.embeddings.ids) == 0
    assert result.failures[0].path.name == "nan.wav"


def test_errors_are_raised_when_asked_for(mobile, tmp_path):
    with pytest.raises(AudioError, match=r"missing\.wav"):
        Embedder(mobile, device="cpu").embed_files([tmp_path / "missing.wav"], raise_errors=True)


def test_a_bug_is_not_taken_for_a_bad_file(mobile, files, monkeypatch):
    def bug(*_args, **_kwargs):
        raise RuntimeError("a bug")

    monkeypatch.setattr("xmodal.embedder.windows", bug)
    with pytest.raises(RuntimeError, match="a bug"):
        Embedder(mobile, device="cpu").embed_files(files)


def test_a_track_is_embedded_between_its_bounds_and_named_by_its_id(mobile, files, tmp_path):
    samples, rate = soundfile.read(files[4], dtype="float32")
    soundfile.write(tmp_path / "part.wav", samples[rate : 3 * rate], rate)
    track = Track(id="middle", path=files[4], start_seconds=1.0, end_seconds=3.0, tags={"mood": ("calm",)}, title="T")
    embedder = Embedder(mobile, device="cpu")
    embeddings = embedder.embed_files([track]).embeddings
    part = embedder.embed_files([tmp_path / "part.wav"]).embeddings
    np.testing.assert_allclose(embeddings.vectors, part.vectors, atol=1e-5)
    assert embeddings.ids == ["middle"]
    assert embeddings.metadata[0] == {
        "path": str(files[4]), "title": "T", "tags": ["calm"], "mood": ["calm"],
        "start_seconds": 1.0, "end_seconds": 3.0,
    }  # fmt: skip


def test_ids_must_be_distinct_and_as_many_as_files(mobile, files):
    embedder = Embedder(mobile, device="cpu")
    with pytest.raises(ValueError, match="used twice"):
        embedder.embed_files([files[0], files[0]])
    with pytest.raises(ValueError, match="as many ids"):
        embedder.embed_files(files, ids=["a"])
    assert embedder.embed_files([]).embeddings.vectors.shape == (0, 16)


def test_stopping_early_ends_the_decoding_threads(mobile, files):
    import threading

    iterator = Embedder(mobile, device="cpu", batch_size=1, workers=2).iterate_windows(files * 5)
    next(iterator)
    iterator.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("decode-", "embed-"))]
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("text_tower", [bag_of_words, lambda: SentenceTransformerTower(max_tokens=16, chunk_overlap=4)])
def test_a_text_has_one_vector_whatever_stands_beside_it(text_tower):
    torch.manual_seed(0)
    model = TwoTower(audio_tower("mobile"), text_tower(), dim=16).eval()
    texts = ["slow piano", "a very long text " * 20, "drums", "fast and happy banjo music with claps", "x"]
    one_by_one = Embedder(model, device="cpu", batch_size=1).embed_texts(texts)
    for batch_size in (2, 16):
        shuffled = random.Random(batch_size).sample(range(5), 5)
        together = Embedder(model, device="cpu", batch_size=batch_size).embed_texts([texts[n] for n in shuffled])
        np.testing.assert_allclose(together, one_by_one[shuffled], atol=TOLERANCE, rtol=0)


def test_empty_texts_and_bare_strings_are_refused(mobile):
    embedder = Embedder(mobile, device="cpu")
    with pytest.raises(ValueError, match="list of texts"):
        embedder.embed_texts("piano")
    with pytest.raises(ValueError, match="text 1 is empty"):
        embedder.embed_texts(["piano", "  "])
    assert embedder.embed_texts([]).shape == (0, 16)


def test_load_gives_an_embedder_of_the_saved_space(mobile, tmp_path):
    space_id = mobile.save(tmp_path / "model")
    embedder = xmodal.load(tmp_path / "model", device="cpu", batch_size=4)
    assert embedder.space_id == space_id
    assert embedder.source == str(tmp_path / "model")
    assert embedder.batch_size == 4
    with pytest.raises(ModelError):
        xmodal.load(tmp_path)


def test_nonsense_settings_are_refused(mobile):
    for wrong in ({"batch_size": 0}, {"workers": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            Embedder(mobile, **wrong)


def test_a_saved_minilm_model_needs_nothing_but_its_folder(tmp_path):
    torch.manual_seed(0)
    model = TwoTower(audio_tower("mobile"), SentenceTransformerTower(), dim=16).eval()
    space_id = model.save(tmp_path / "model")
    again = TwoTower.load(tmp_path / "model")
    assert again.space_id() == space_id
    assert torch.equal(again.embed_text(["slow piano"]), model.embed_text(["slow piano"]))
    again.save(tmp_path / "second")
    assert TwoTower.load(tmp_path / "second").space_id() == space_id
