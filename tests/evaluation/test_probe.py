"""Probes learn on one part and are judged on another; curves say how few examples are enough."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn.functional import normalize

from xmodal.evaluation import few_shot_curve, label_matrix, probe


def clusters(tracks=90, classes=3, dim=8, spread=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = normalize(torch.randn(classes, dim, generator=generator), dim=1)
    kind = torch.arange(tracks) % classes
    vectors = normalize(centres[kind] + spread * torch.randn(tracks, dim, generator=generator), dim=1)
    return vectors, torch.nn.functional.one_hot(kind).bool(), centres


@pytest.mark.parametrize("kind", ["linear", "knn", "prototype"])
def test_clusters_are_told_apart_far_above_chance(kind):
    vectors, labels, _ = clusters()
    found = probe(vectors, labels, kind=kind)
    assert found.values["accuracy"] > 0.8
    assert found.chance == {"accuracy": pytest.approx(1 / 3), "macro recall": pytest.approx(1 / 3),
                            "mAP": pytest.approx(1 / 3), "ROC-AUC": 0.5}  # fmt: skip
    assert found.folds == 5
    assert found.table()[1][0] == "accuracy"


@pytest.mark.parametrize("kind", ["linear", "knn", "prototype"])
def test_labels_of_noise_stay_at_chance(kind):
    """Nothing of the held-out part reaches the probe."""
    generator = torch.Generator().manual_seed(1)
    vectors = normalize(torch.randn(300, 16, generator=generator), dim=1)
    labels = torch.nn.functional.one_hot(torch.randint(2, (300,), generator=generator)).bool()
    found = probe(vectors, labels, kind=kind)
    assert abs(found.values["ROC-AUC"] - 0.5) < 0.12


def test_groups_that_give_the_label_away_do_not_help():
    """Tracks of a group are copies, and groups have labels at random: with groups kept whole, nothing can be learnt."""
    generator = torch.Generator().manual_seed(0)
    base = normalize(torch.randn(40, 8, generator=generator), dim=1)
    labels = torch.nn.functional.one_hot(torch.randint(2, (40,), generator=generator)).bool()
    vectors, labels, groups = (part.repeat_interleave(4, 0) for part in (base, labels, torch.arange(40)))
    assert probe(vectors, labels, kind="knn").values["accuracy"] > 0.95
    assert probe(vectors, labels, kind="knn", groups=groups).values["accuracy"] < 0.75


def test_given_folds_are_kept_and_the_linear_probe_is_a_plain_regression_on_them():
    vectors, labels, _ = clusters(tracks=60, spread=0.8)
    part = torch.arange(60) % 2
    groups = torch.arange(60) // 30  # two groups in each training part are too few to choose a penalty by
    part = groups
    accuracies = []
    x, kind = vectors.double().numpy(), labels.int().argmax(1).numpy()
    for fold in (0, 1):
        learn, test = (part != fold).numpy(), (part == fold).numpy()
        plain = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)).fit(x[learn], kind[learn])
        accuracies.append(plain.score(x[test], kind[test]))
    found = probe(vectors, labels, folds=part, groups=groups)
    assert found.values["accuracy"] == pytest.approx(np.mean(accuracies))
    assert found.spread["accuracy"] == pytest.approx(np.std(accuracies))


def test_one_part_can_be_judged_alone_while_the_others_are_only_learnt_from():
    vectors, labels, _ = clusters(tracks=90, spread=0.8)
    part = torch.arange(90) // 30
    every = [probe(vectors, labels, folds=part, judged=[number], kind="knn") for number in range(3)]
    together = probe(vectors, labels, folds=part, kind="knn")
    assert [found.tracks for found in every] == [30, 30, 30]
    assert every[0].folds == 1
    assert np.mean([found.values["accuracy"] for found in every]) == pytest.approx(together.values["accuracy"])
    assert together.tracks == 90


def test_many_labels_a_track_are_judged_by_areas():
    vectors, labels, _ = clusters()
    labels[:, 2] |= labels[:, 1]
    found = probe(vectors, labels)
    assert set(found.values) == {"mAP", "ROC-AUC"}
    assert found.values["ROC-AUC"] > 0.9
    assert found.to_dict()["labels"] == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.ones(90, 1, dtype=torch.bool)}, "at least 2 labels"),
        ({"labels": torch.zeros(90, 3, dtype=torch.bool)}, "90 tracks have no label"),
        ({"kind": "magic"}, "linear, knn or prototype"),
        ({"folds": 1}, "2 folds or more"),
        ({"folds": torch.zeros(90)}, "at least 2 parts"),
        ({"folds": torch.arange(90) % 2, "judged": [2]}, r"some of the given parts \[0, 1\], got \[2\]"),
        ({"folds": torch.arange(90) % 2, "judged": []}, "some of the given parts"),
        ({"folds": 2, "judged": [0]}, "some of the given parts"),
        ({"folds": torch.arange(90) % 2, "groups": torch.arange(90) // 2}, "45 groups of tracks lie in more than one"),
    ],
)
def test_a_probe_that_makes_no_sense_is_refused(change, message):
    vectors, labels, _ = clusters()
    given = {"vectors": vectors, "labels": labels, **change}
    with pytest.raises(ValueError, match=message):
        probe(given.pop("vectors"), given.pop("labels"), **given)


def test_more_examples_help_and_a_good_text_helps_where_they_are_few():
    vectors, labels, centres = clusters(tracks=240, spread=0.7, dim=24)
    curve = few_shot_curve(vectors, labels, text=centres, shots=(1, 5, 20), repeats=4)
    assert curve.tags == 3
    assert set(curve.mean) == {"prototype", "both", "linear"}
    assert curve.mean["prototype"][0] < curve.mean["prototype"][2]
    assert curve.mean["both"][0] > curve.mean["prototype"][0] + 0.02
    assert curve.text > 0.8
    assert len(curve.spread["linear"]) == 3


def test_a_misleading_text_is_outweighed_by_many_examples():
    vectors, labels, centres = clusters(tracks=240, spread=0.5)
    curve = few_shot_curve(vectors, labels, text=centres.flip(0), shots=(1, 20), repeats=3)
    assert curve.mean["both"][1] > curve.mean["both"][0] + 0.1


def test_a_curve_without_enough_examples_is_refused():
    vectors, labels, _ = clusters(tracks=30)
    with pytest.raises(ValueError, match="no tag has 20 examples"):
        few_shot_curve(vectors, labels, repeats=2)


def test_labels_are_the_names_of_one_kind():
    names, labels = label_matrix([{"genre": ("jazz", "folk")}, {"mood": ("sad",)}, {"genre": ("jazz",)}], "genre")
    assert names == ["folk", "jazz"]
    assert labels.astype(int).tolist() == [[1, 1], [0, 0], [0, 1]]
    with pytest.raises(ValueError, match=r"of kind 'era'; the kinds there are: genre, mood"):
        label_matrix([{"genre": ("jazz",)}, {"mood": ("sad",)}], "era")
