from __future__ import annotations

import numpy as np
import pytest

from xmodal.errors import DataError
from xmodal.plots import apart, plot_curves, plot_map, plot_similarity, plot_spectrograms, principal_axes, read_curves

PNG = b"\x89PNG\r\n"
CURVES = "epoch,step,train/loss,validation/text_to_audio/R@1\n0,9,2.5,\n0,19,1.5,\n0,19,,0.25\n1,39,,0.75\n"


def vectors(rows, dim, seed=0):
    made = np.random.default_rng(seed).normal(size=(rows, dim))
    return made / np.linalg.norm(made, axis=1, keepdims=True)


@pytest.mark.parametrize(("rows", "dim"), [(50, 6), (7, 6), (6, 6), (5, 9)])
def test_principal_axes_are_those_of_the_covariance(rows, dim):
    made = vectors(rows, dim)
    points, shares = principal_axes(made)
    variances = np.linalg.eigvalsh(np.cov(made.T, bias=True))[::-1]
    np.testing.assert_allclose(points.var(axis=0), variances[:2], rtol=1e-9)
    np.testing.assert_allclose(shares, variances[:2] / variances.sum(), rtol=1e-9)
    assert abs(points[:, 0] @ points[:, 1]) < 1e-9


def test_the_sign_of_an_axis_does_not_depend_on_the_machine():
    made = vectors(20, 4)
    points, _ = principal_axes(made)
    np.testing.assert_allclose(principal_axes(made)[0], points)
    assert all(column[np.abs(column).argmax()] > 0 for column in points.T)


def test_labels_that_would_cover_one_another_are_moved_apart_and_others_stay():
    places = np.array([[0.0, 0.0], [0.01, 0.001], [0.02, 0.0], [1.0, 1.0], [0.5, 0.0]])
    moved = apart(places, width=0.1, height=0.05)
    for first in range(5):
        for second in range(first):
            assert (np.abs(moved[first] - moved[second]) >= (0.1, 0.05)).any()
    np.testing.assert_array_equal(moved[[0, 3, 4]], places[[0, 3, 4]])
    np.testing.assert_array_equal(moved[:, 0], places[:, 0])
    np.testing.assert_array_equal(apart(places[:1]), places[:1])


def test_a_space_of_one_dimension_still_has_a_map():
    points, shares = principal_axes(np.array([[1.0], [-1.0]]))
    assert points.shape == (2, 2)
    assert shares == pytest.approx((1.0, 0.0))


def test_pictures_are_written_as_png_in_folders_that_are_made(tmp_path):
    folder = tmp_path / "new" / "pictures"
    labels = [f"style {n % 15}" for n in range(40)]
    plot_map(vectors(40, 8), labels, folder / "map.png", title="t", legend="style")
    plot_similarity(vectors(3, 4), ["a", "b", "c"], ["w", "x", "y", "z"], folder / "similarity.png", title="t")
    plot_spectrograms([vectors(8, 20), vectors(8, 20)], ["one", "two"], folder / "spectrograms.png")
    (tmp_path / "metrics.csv").write_text(CURVES)
    plot_curves(tmp_path / "metrics.csv", folder / "training.png", title="t")
    files = sorted(folder.iterdir())
    assert [path.name for path in files] == ["map.png", "similarity.png", "spectrograms.png", "training.png"]
    assert all(path.read_bytes().startswith(PNG) and path.stat().st_size > 2000 for path in files)


def test_a_picture_is_the_same_each_time(tmp_path):
    for name in ("one.png", "two.png"):
        plot_map(vectors(10, 4), ["a", "b"] * 5, tmp_path / name, title="t", legend="l")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_curves_are_read_by_metric_and_step(tmp_path):
    (tmp_path / "metrics.csv").write_text(CURVES)
    assert read_curves(tmp_path / "metrics.csv") == {
        "train/loss": [(9, 2.5), (19, 1.5)],
        "validation/text_to_audio/R@1": [(19, 0.25), (39, 0.75)],
    }


@pytest.mark.parametrize("text", ["", "epoch,step\n0,1\n", "a,b\n1,2\n", "epoch,step,x\n0,1,word\n"])
def test_what_holds_no_curves_is_refused(tmp_path, text):
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(DataError, match=r"metrics\.csv"):
        read_curves(tmp_path / "metrics.csv")
    with pytest.raises(DataError, match=r"absent\.csv"):
        read_curves(tmp_path / "absent.csv")


def test_labels_must_fit(tmp_path):
    with pytest.raises(ValueError, match="label each"):
        plot_map(vectors(3, 2), ["a"], tmp_path / "x.png", title="t", legend="l")
    with pytest.raises(ValueError, match="as many labels"):
        plot_similarity(vectors(3, 2), ["a"], ["b", "c"], tmp_path / "x.png", title="t")
    with pytest.raises(ValueError, match="needs a title"):
        plot_spectrograms([], [], tmp_path / "x.png")
