"""Views: poolings beside their formulas, and spaces that are told apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import xmodal
from xmodal.embedder import Embedder
from xmodal.model import TwoTower
from xmodal.towers import HashedBagOfWordsTower, MobileCnn
from xmodal.view import View, pool

VECTORS = np.array([[1, 0, 0], [0, 1, 0], [0.8, 0.6, 0], [0, 0, -1]], np.float32)
SHARES, ENERGIES = np.array([1, 1, 1, 0.5]), np.array([4.0, 0.0, 1.0, 3.0])


def unit(vector):
    return vector / np.linalg.norm(vector)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    audio = MobileCnn(8000, n_fft=256, hop=80, bands=16, width=0.25, feature_dim=24)
    return TwoTower(audio, HashedBagOfWordsTower(64, 12), dim=16, window_seconds=0.5).eval()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    import soundfile

    path = tmp_path_factory.mktemp("sound") / "a.wav"
    samples = np.random.default_rng(0).normal(size=9000) * np.linspace(0, 0.3, 9000)
    soundfile.write(path, samples, 8000, subtype="FLOAT")
    return path


def test_the_mean_counts_every_second_the_same():
    np.testing.assert_allclose(pool(VECTORS, SHARES, ENERGIES), unit([1.8, 1.6, -0.5]), atol=1e-6)


def test_energy_weighs_windows_by_their_squared_samples_and_silence_by_length():
    np.testing.assert_allclose(pool(VECTORS, SHARES, ENERGIES, "energy"), unit([4.8, 0.6, -3]), atol=1e-6)
    np.testing.assert_allclose(pool(VECTORS, SHARES, 0 * ENERGIES, "energy"), pool(VECTORS, SHARES, ENERGIES))


def test_the_most_typical_windows_are_those_nearest_to_the_mean():
    np.testing.assert_allclose(pool(VECTORS, SHARES, ENERGIES, "top_k", 2), unit([1.8, 0.6, 0]), atol=1e-6)
    np.testing.assert_allclose(pool(VECTORS, SHARES, ENERGIES, "top_k", 9), pool(VECTORS, SHARES, ENERGIES))
    equal = np.eye(4, dtype=np.float32)
    np.testing.assert_allclose(pool(equal, np.ones(4), np.ones(4), "top_k", 1), equal[0])


@pytest.mark.parametrize("pooling", ["mean", "energy", "top_k", "windows"])
def test_windows_that_cancel_give_the_first_one(pooling):
    opposite = np.array([[1, 0], [-1, 0]], np.float32)
    np.testing.assert_allclose(pool(opposite, np.ones(2), np.ones(2), pooling, 2), [1, 0])


VIEWS = [
    {"pooling": "energy"},
    {"pooling": "top_k"},
    {"pooling": "top_k", "top_windows": 5},
    {"pooling": "windows"},
    {"hop_seconds": 0.25},
    {"last_window": "pad"},
    {"dim": 8},
]


def test_every_view_is_a_space_of_its_own_and_the_models_own_settings_are_none(model):
    ids = [model.space_id(), *(model.viewed(view).space_id() for view in VIEWS)]
    assert len(set(ids)) == len(ids)
    for same in ({}, {"pooling": "mean"}, {"hop_seconds": 0.5}, {"dim": 16}, {"top_windows": 7}):
        assert model.viewed(same).space_id() == model.space_id()
    assert (model.pooling, model.dim, model.windows.hop_seconds) == ("mean", 16, None), (
        "the model itself is not changed"
    )


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_a_view_that_is_saved_is_a_model_of_the_same_space_and_vectors(model, file, tmp_path, view):
    viewed = Embedder(model, device="cpu", view=view)
    viewed.model.save(tmp_path / "model")
    again = xmodal.load(tmp_path / "model", device="cpu")
    assert again.space_id == viewed.space_id
    first, second = (one.embed_files([file]).embeddings for one in (viewed, again))
    np.testing.assert_array_equal(first.vectors, second.vectors)
    texts = viewed.embed_texts(["calm"])
    assert texts.shape == (1, viewed.dim)
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-6)


def test_fewer_dimensions_are_the_first_ones_brought_back_to_length_one(model, file):
    whole = Embedder(model, device="cpu").embed_files([file]).embeddings.vectors
    windows = next(iter(Embedder(model, device="cpu").iterate_windows([file])))[1]
    part = Embedder(model, device="cpu", view={"dim": 5})
    ((_, cut),) = part.iterate_windows([file])
    expected = windows.vectors[:, :5] / np.linalg.norm(windows.vectors[:, :5], axis=1, keepdims=True)
    np.testing.assert_allclose(cut.vectors, expected, atol=1e-6)
    assert (whole.shape[1], part.dim) == (16, 5)


def test_the_energies_and_the_end_of_a_file_are_those_of_its_samples(model, file):
    import soundfile

    samples = soundfile.read(file, dtype="float32")[0].clip(-1, 1)
    ((_, windows),) = Embedder(model, device="cpu").iterate_windows([file])
    parts = [samples[round(start * 8000) : round(start * 8000) + 4000] for start in windows.start_seconds]
    np.testing.assert_allclose(windows.energies, [np.sum(part**2) for part in parts], rtol=1e-5)
    assert windows.end_seconds == pytest.approx(9000 / 8000)


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ({"pooling": "max"}, "pooling must be one of mean, energy, top_k, windows, got 'max'"),
        ({"pooling": "top_k", "top_windows": -1}, "top_windows must be at least 1, got -1"),
        ({"dim": 17}, "the model has 16 dimensions, so from 1 to 16 can be kept, got 17"),
        ({"hop": 3}, "a view has the settings .*, got hop"),
        ({"hop_seconds": -1}, "hop_seconds must be a positive number"),
    ],
)
def test_views_that_do_not_fit_are_refused(model, view, message):
    with pytest.raises(ValueError, match=message):
        model.viewed(view)


def test_a_view_is_written_as_its_differences():
    view = View.of({"pooling": "energy", "dim": 64})
    assert View.of(view.as_json()) == view
    assert View().as_json() == {}
