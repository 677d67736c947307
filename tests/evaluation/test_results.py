"""Results are the metrics of the cosine matrix, with their pool, chance and intervals; baselines are what they say."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from random_vectors import unit
from torch.nn.functional import normalize

from xmodal import metrics
from xmodal.evaluation import (
    evaluate_retrieval,
    evaluate_tags,
    mel_statistics,
    random_projection_baseline,
    ridge_baseline,
)

NAMES = ["R@1", "R@5", "R@10", "MedR", "MRR", "mAP@10", "MAP@R", "nDCG@10"]


@pytest.fixture
def pairs():
    """Thirty tracks with two captions each, every caption a little nearer to its track than to the others."""
    audio = unit(30, 16, seed=0)
    text = normalize(audio.repeat_interleave(2, dim=0) + 2 * unit(60, 16, seed=1), dim=1)
    return audio, text, torch.eye(30, dtype=torch.bool).repeat_interleave(2, dim=1)


# -- retrieval ----------------------------------------------------------------------------------------------------


def test_each_direction_is_the_metrics_of_its_own_score_matrix(pairs):
    audio, text, relevance = pairs
    result = evaluate_retrieval(audio, text, relevance)
    score = audio @ text.T
    assert result.audio_to_text.values == pytest.approx(metrics.retrieval_metrics(score, relevance))
    assert result.text_to_audio.values == pytest.approx(metrics.retrieval_metrics(score.T, relevance.T))
    assert list(result.text_to_audio.values) == NAMES
    assert result.audio_to_text.chance == metrics.chance(relevance)
    assert result.text_to_audio.chance == metrics.chance(relevance.T)
    for direction, (queries, candidates, right) in {"text_to_audio": (60, 30, 1), "audio_to_text": (30, 60, 2)}.items():
        found = getattr(result, direction)
        assert (found.queries, found.candidates, found.right_answers, found.left_out) == (queries, candidates, right, 0)


def test_intervals_are_the_bootstrap_of_each_metric_s_queries(pairs):
    audio, text, relevance = pairs
    result = evaluate_retrieval(audio, text, relevance, confidence=0.8, resamples=300, seed=5).text_to_audio
    per_query = metrics.rank(text @ audio.T, relevance.T).values()
    for name, interval in result.intervals.items():
        statistic = "median" if name == "MedR" else "mean"
        expected = metrics.bootstrap_interval(
            per_query[name], statistic=statistic, confidence=0.8, resamples=300, seed=5
        )
        assert interval == pytest.approx(expected), name
    assert list(result.intervals) == NAMES


def test_captions_of_one_track_are_drawn_together_when_grouped(pairs):
    audio, text, relevance = pairs
    text = text[::2].repeat_interleave(2, dim=0)  # the second caption tells nothing new
    alone = evaluate_retrieval(audio, text, relevance)
    together = evaluate_retrieval(audio, text, relevance, text_groups=torch.arange(30).repeat_interleave(2))
    assert together.audio_to_text == alone.audio_to_text
    assert together.text_to_audio.values == alone.text_to_audio.values
    for name in ("R@5", "MRR", "mAP@10"):
        narrow, wide = (result.text_to_audio.intervals[name] for result in (alone, together))
        assert wide[1] - wide[0] > 1.15 * (narrow[1] - narrow[0]) > 0


def test_groups_follow_the_queries_when_some_are_left_out(pairs):
    audio, text, relevance = pairs
    kept = [row for row in range(30) if row not in (3, 4)]
    groups = torch.arange(30) // 3
    without = relevance.clone()
    without[[3, 4]] = False
    options = {"audio_groups": groups, "without_right": "leave_out"}
    found = evaluate_retrieval(audio, text, without, **options).audio_to_text
    options["audio_groups"] = groups[kept]
    expected = evaluate_retrieval(audio[kept], text, relevance[kept], **options).audio_to_text
    assert found.left_out == 2
    assert found.queries == 28
    assert (found.values, found.intervals, found.chance) == (expected.values, expected.intervals, expected.chance)


def test_a_direction_leaves_out_lists_longer_than_its_pool():
    result = evaluate_retrieval(unit(12, 8, 0), unit(7, 8, 1), torch.ones(12, 7, dtype=torch.bool))
    assert "R@10" in result.text_to_audio.values
    assert list(result.audio_to_text.values) == ["R@1", "R@5", "MedR", "MRR", "mAP@5", "MAP@R", "nDCG@5"]
    with pytest.raises(ValueError, match="the 7 candidates, got k=10"):
        evaluate_retrieval(unit(12, 8, 0), unit(7, 8, 1), torch.ones(12, 7, dtype=torch.bool), ks=(10,))


def test_one_query_has_no_interval():
    result = evaluate_retrieval(unit(1, 8, 0), unit(3, 8, 1), torch.ones(1, 3, dtype=torch.bool), ks=(1,))
    assert result.audio_to_text.intervals == {}
    assert result.text_to_audio.intervals.keys() == result.text_to_audio.values.keys()
    assert ["audio to text", "R@1", "1", "", "1"] in result.table()


def test_results_survive_json_and_print_as_rows_of_text(pairs):
    result = evaluate_retrieval(*pairs, resamples=50)
    assert json.loads(json.dumps(result.to_dict())) == json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert result.to_dict()["text_to_audio"]["values"]["MRR"] == result.text_to_audio.values["MRR"]
    header, *rows = result.table()
    assert header == ["direction", "metric", "value", "95% interval", "chance"]
    assert ["text to audio", "candidates", "30", "", ""] in rows
    assert ["audio to text", "candidates", "60", "", ""] in rows
    assert len(rows) == 2 * (3 + len(NAMES))
    low, high = result.text_to_audio.intervals["MRR"]
    mean, chance = result.text_to_audio.values["MRR"], result.text_to_audio.chance["MRR"]
    assert ["text to audio", "MRR", f"{mean:.4g}", f"{low:.4g} to {high:.4g}", f"{chance:.4g}"] in rows


def test_vectors_may_come_from_numpy(pairs):
    audio, text, relevance = pairs
    assert evaluate_retrieval(audio.numpy(), text.numpy(), relevance.numpy()) == evaluate_retrieval(*pairs)


def test_vectors_that_are_not_unit_vectors_are_refused(pairs):
    audio, text, relevance = pairs
    with pytest.raises(ValueError, match="text must be finite and of length 1"):
        evaluate_retrieval(audio, 2 * text, relevance)
    audio[4] = 0
    with pytest.raises(ValueError, match="audio must be finite and of length 1, but 1 of 30 are not: row 4"):
        evaluate_retrieval(audio, text, relevance)


def test_a_transposed_relevance_is_refused(pairs):
    audio, text, relevance = pairs
    with pytest.raises(ValueError, match=r"relevance must have shape \(60, 30\) .* got \(30, 60\)"):
        evaluate_retrieval(audio, text, relevance.T)


def test_tracks_without_a_right_text_are_refused_by_default(pairs):
    audio, text, relevance = pairs
    relevance[7] = False
    with pytest.raises(ValueError, match=r"2 of 60 have none, the first is query 14"):
        evaluate_retrieval(audio, text, relevance)


# -- tags ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def tagged():
    audio, words = unit(40, 16, seed=2), unit(5, 16, seed=3)
    labels = (audio @ words.T + 0.1 * unit(40, 5, seed=4)) > 0.1
    labels[:, 3] = False
    valid = torch.rand(40, 5, generator=torch.Generator().manual_seed(5)) < 0.8
    return audio, words, labels, ["flute", "piano", "calm", "absent", "sad"], valid


def test_tag_results_are_the_areas_of_the_judged_tags(tagged):
    audio, words, labels, names, valid = tagged
    result = evaluate_tags(audio, words, labels, names, valid=valid, resamples=100, seed=1)
    score = audio @ words.T
    assert result.values == pytest.approx(
        {"ROC-AUC": metrics.roc_auc(score, labels, valid), "PR-AUC": metrics.pr_auc(score, labels, valid)}
    )
    assert result.left_out == ["absent"]
    assert list(result.per_tag) == ["flute", "piano", "calm", "sad"]
    sad = result.per_tag["sad"]
    assert sad["ROC-AUC"] == pytest.approx(metrics.roc_auc_per_tag(score, labels, valid)[4].item())
    assert sad["PR-AUC"] == pytest.approx(metrics.pr_auc_per_tag(score, labels, valid)[4].item())
    assert sad["positives"] == int((labels & valid)[:, 4].sum())
    assert sad["negatives"] == int((~labels & valid)[:, 4].sum())
    chances = [tag["PR-AUC chance"] for tag in result.per_tag.values()]
    assert chances == pytest.approx(metrics.pr_auc_chance(labels, valid)[[0, 1, 2, 4]].tolist())
    assert result.chance == {"ROC-AUC": 0.5, "PR-AUC": pytest.approx(np.mean(chances))}
    areas = metrics.roc_auc_per_tag(score, labels, valid)[[0, 1, 2, 4]]
    assert result.intervals["ROC-AUC"] == pytest.approx(metrics.bootstrap_interval(areas, resamples=100, seed=1))


def test_without_a_mask_every_pair_is_judged(tagged):
    audio, words, labels, names, _ = tagged
    result = evaluate_tags(audio, words, labels, names)
    assert result.values["ROC-AUC"] == pytest.approx(metrics.roc_auc(audio @ words.T, labels))
    assert result.per_tag["flute"]["positives"] + result.per_tag["flute"]["negatives"] == 40


def test_the_tag_table_starts_with_the_mean_and_then_the_best_tag(tagged):
    result = evaluate_tags(*tagged[:4], valid=tagged[4])
    header, macro, interval, *rows = result.table()
    assert header == ["tag", "positives", "negatives", "ROC-AUC", "PR-AUC", "PR-AUC chance"]
    assert macro == [
        "all 4 tags", "", "", f"{result.values['ROC-AUC']:.4g}", f"{result.values['PR-AUC']:.4g}",
        f"{result.chance['PR-AUC']:.4g}",
    ]  # fmt: skip
    assert interval[0] == "95% interval"
    assert [row[0] for row in rows] == sorted(result.per_tag, key=lambda tag: -result.per_tag[tag]["ROC-AUC"])
    assert all(len(row) == len(header) for row in result.table())
    json.dumps(result.to_dict(), allow_nan=False)


def test_one_tag_has_no_interval_and_no_row_for_it(tagged):
    audio, words, labels, names, _ = tagged
    result = evaluate_tags(audio, words[:1], labels[:, :1], names[:1])
    assert result.intervals == {}
    assert [row[0] for row in result.table()] == ["tag", "all 1 tags", "flute"]


def test_tags_that_cannot_be_judged_or_named_are_refused(tagged):
    audio, words, labels, names, _ = tagged
    with pytest.raises(ValueError, match="none of the 5 tags has both a positive and a negative"):
        evaluate_tags(audio, words, torch.zeros_like(labels), names)
    with pytest.raises(ValueError, match="each of the 5 tag vectors needs a name of its own, got 4 names"):
        evaluate_tags(audio, words, labels, names[:4])
    with pytest.raises(ValueError, match="each of the 5 tag vectors needs a name of its own, got 1 names"):
        evaluate_tags(audio, words, labels, ["flute"] * 5)
    with pytest.raises(ValueError, match="one dimension, got 16 and 8"):
        evaluate_tags(audio, unit(5, 8, 0), labels, names)


# -- baselines ----------------------------------------------------------------------------------------------------


def test_mel_statistics_are_the_moments_of_the_frames_that_are_audio():
    features = torch.randn(3, 4, 10, generator=torch.Generator().manual_seed(0))
    valid = torch.tensor([10, 7, 1])
    found = mel_statistics(features, valid)
    for clip, frames in enumerate(valid.tolist()):
        heard = features[clip, :, :frames].double()
        expected = torch.cat([heard.mean(dim=1), heard.std(dim=1, correction=0)]).float()
        torch.testing.assert_close(found[clip], expected)
    torch.testing.assert_close(mel_statistics(features)[1:], mel_statistics(features, torch.full((3,), 10))[1:])


@pytest.mark.parametrize("valid", [torch.tensor([0, 3]), torch.tensor([3, 11]), torch.tensor([3])])
def test_impossible_numbers_of_frames_are_refused(valid):
    with pytest.raises(ValueError, match="valid_frames must name 1 to 10 frames for each of 2 clips"):
        mel_statistics(torch.zeros(2, 4, 10), valid)


@pytest.fixture
def linear_world():
    """Text vectors are a noisy linear function of twelve audio features on very different scales."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(260, 12, generator=generator) * torch.logspace(-3, 3, 12) + 5
    mixing = torch.randn(12, 16, generator=generator)
    clean = ((features - 5) / torch.logspace(-3, 3, 12)) @ mixing
    text = normalize(clean + 1.5 * torch.randn(260, 16, generator=generator), dim=1)
    return {name: (features[rows], text[rows]) for name, rows in
            {"train": slice(0, 100), "validation": slice(100, 180), "test": slice(180, 260)}.items()}  # fmt: skip


def ridge_on(world, **settings):
    return ridge_baseline(
        *world["train"],
        world["test"][0],
        validation_features=world["validation"][0],
        validation_text=world["validation"][1],
        validation_relevance=torch.eye(80, dtype=torch.bool),
        **settings,
    )


def test_ridge_finds_a_linear_relation_that_a_random_projection_does_not(linear_world):
    right = torch.eye(80, dtype=torch.bool)
    baseline = ridge_on(linear_world)
    test_features, test_text = linear_world["test"]
    random = random_projection_baseline(linear_world["train"][0], test_features, 16, seed=1)
    learned, guessed = (
        evaluate_retrieval(vectors, test_text, right).text_to_audio for vectors in (baseline.vectors, random)
    )
    assert learned.values["mAP@10"] > 0.5
    assert guessed.intervals["mAP@10"][0] < 2 * guessed.chance["mAP@10"]


def test_ridge_equals_its_closed_form(linear_world):
    """Centred least squares with a penalty on standardised features: (X'X + alpha I)^-1 X'Y."""
    baseline = ridge_on(linear_world, alphas=(3.0,))
    train, text = (part.double() for part in linear_world["train"])
    mean, scale = train.mean(dim=0), train.std(dim=0, correction=0)
    x = (train - mean) / scale
    weight = torch.linalg.solve(x.T @ x + 3 * torch.eye(12).double(), x.T @ (text - text.mean(dim=0)))
    expected = ((linear_world["test"][0].double() - mean) / scale) @ weight + text.mean(dim=0)
    torch.testing.assert_close(baseline.vectors, normalize(expected, dim=1).float())


def test_alpha_is_the_one_that_ranks_best_on_validation(linear_world):
    alphas = (1e-2, 1e1, 1e6)
    baseline = ridge_on(linear_world, alphas=alphas)
    assert list(baseline.validation) == list(alphas)
    assert baseline.alpha == max(baseline.validation, key=baseline.validation.get)
    validation, text = linear_world["validation"]
    for alpha in alphas:
        alone = ridge_baseline(
            *linear_world["train"], validation, validation_features=validation, validation_text=text,
            validation_relevance=torch.eye(80, dtype=torch.bool), alphas=(alpha,),
        )  # fmt: skip
        result = evaluate_retrieval(alone.vectors, text, torch.eye(80, dtype=torch.bool))
        expected = (result.text_to_audio.values["MRR"] + result.audio_to_text.values["MRR"]) / 2
        assert baseline.validation[alpha] == pytest.approx(expected)
        if alpha == baseline.alpha:
            again = ridge_on(linear_world, alphas=(alpha,))
            assert torch.equal(again.vectors, baseline.vectors)


def test_constant_features_do_no_harm(linear_world):
    constant = {name: (torch.cat([x, torch.full((len(x), 1), 7.0)], dim=1), y) for name, (x, y) in linear_world.items()}
    torch.testing.assert_close(ridge_on(constant).vectors, ridge_on(linear_world).vectors)


def test_a_ridge_without_alphas_is_refused(linear_world):
    with pytest.raises(ValueError, match="alphas must name at least one strength"):
        ridge_on(linear_world, alphas=())


def test_a_random_projection_keeps_the_neighbours_of_standardised_features():
    """Johnson and Lindenstrauss: with many dimensions the cosines are those of the features."""
    features = torch.randn(20, 30, generator=torch.Generator().manual_seed(0)) * torch.logspace(-2, 2, 30) + 3
    projected = random_projection_baseline(features, features, 20_000, seed=0)
    standardised = normalize((features - features.mean(dim=0)) / features.std(dim=0, correction=0), dim=1)
    torch.testing.assert_close(projected @ projected.T, standardised @ standardised.T, atol=0.05, rtol=0)


def test_a_random_projection_is_seeded_and_made_of_unit_vectors():
    train, test = torch.randn(30, 6, generator=torch.Generator().manual_seed(0)), torch.ones(4, 6)
    first = random_projection_baseline(train, test, 8, seed=1)
    assert torch.equal(first, random_projection_baseline(train, test, 8, seed=1))
    assert not torch.equal(first, random_projection_baseline(train, test, 8, seed=2))
    assert first.norm(dim=1).tolist() == pytest.approx([1] * 4)
    assert first.dtype == torch.float32
    with pytest.raises(ValueError, match="dim must be at least 1, got 0"):
        random_projection_baseline(train, test, 0)


def test_a_large_evaluation_never_holds_the_score_matrix(monkeypatch):
    """Every product of queries and candidates is one block of rows."""
    products = []
    plain = metrics.places._rank_block
    monkeypatch.setattr(metrics.places, "BLOCK", 40 * 10)
    monkeypatch.setattr(
        metrics.places, "_rank_block", lambda score, *rest: (products.append(score.shape), plain(score, *rest))[1]
    )
    audio, text, relevance = unit(50, 8, 0), unit(40, 8, 1), torch.rand(50, 40) < 2
    evaluate_retrieval(audio, text, relevance)
    assert max(math.prod(shape) for shape in products) <= 4 * 400
    assert len(products) == 2 + 2
