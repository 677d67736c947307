"""The metrics on the same scores as other people's code: trec_eval, mteb, torchmetrics, pytorch-metric-learning.

All of them are given queries with many right answers. They differ in what they do with ties and in one normaliser:

* trec_eval (pytrec_eval) puts the larger document name first among equal scores. Documents are named here so that the
  lower grade has the larger name, which is our rule. Its ``map_cut`` divides by all right answers, ours by as many as
  fit into the list.
* torchmetrics leaves the order of ties open and (1.9) takes a score of 0 or less for no candidate, so it gets scores
  above 0 without ties. Its areas under curves treat ties as ours do.
* pytorch-metric-learning judges the order that its search gives; the search here puts wrong ones first among equals.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import normalize

import xmodal.compat  # noqa: F401  (mteb imports transformers)
from xmodal import metrics
from xmodal.evaluation import rank_alike
from xmodal.metrics import rank, rank_vectors, retrieval_metrics

KS = (1, 3, 10)


def tied_problem(seed: int, *, grades: int = 1, queries: int = 25, candidates: int = 40):
    """Scores of five values, half of them negative, and up to twelve right answers a query."""
    generator = torch.Generator().manual_seed(seed)
    score = torch.randint(-2, 3, (queries, candidates), generator=generator).float() / 4
    right = torch.randint(1, 13, (queries, 1), generator=generator)
    order = torch.rand(queries, candidates, generator=generator).argsort(dim=1).argsort(dim=1)
    relevance = (order < right) * torch.randint(1, grades + 1, score.shape, generator=generator)
    return score, relevance


def untied(score: torch.Tensor, relevance: torch.Tensor) -> torch.Tensor:
    """The same list without ties: among equal scores the lower grade stands above, by less than the next score."""
    return score - relevance / 100 - torch.arange(score.shape[1]) / 1e5


def as_trec(score: torch.Tensor, relevance: torch.Tensor):
    """Judgements and runs of trec_eval; a document's name says how far up it stands among its equals."""
    judged: dict[str, dict[str, int]] = {}
    run: dict[str, dict[str, float]] = {}
    for row, (scores, grades) in enumerate(zip(score.tolist(), relevance.int().tolist(), strict=True)):
        names = [f"{9 - grade}-{column:03d}" for column, grade in enumerate(grades)]
        judged[f"q{row:03d}"] = dict(zip(names, grades, strict=True))
        run[f"q{row:03d}"] = dict(zip(names, scores, strict=True))
    return judged, run


@pytest.mark.parametrize("grades", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_every_query_has_the_figures_of_trec_eval_ties_and_all(seed, grades):
    pytrec_eval = pytest.importorskip("pytrec_eval", reason="pytrec_eval comes with mteb: pip install mteb")
    score, relevance = tied_problem(seed, grades=grades)
    judged, run = as_trec(score, relevance)
    cuts = ",".join(map(str, KS))
    measures = {"map", "recip_rank", "Rprec", *(f"{n}.{cuts}" for n in ("success", "P", "map_cut", "ndcg_cut"))}
    theirs = pytrec_eval.RelevanceEvaluator(judged, measures).evaluate(run)
    ranking = rank(score, relevance)
    ours = {
        "map": ranking.average_precision(),
        "recip_rank": ranking.reciprocal_rank(),
        "Rprec": ranking.r_precision(),
        **{f"success_{k}": ranking.hit(k) for k in KS},
        **{f"P_{k}": ranking.precision(k) for k in KS},
        **{f"map_cut_{k}": ranking.average_precision(k) * ranking.count.clamp(max=k) / ranking.count for k in KS},
        **{f"ndcg_cut_{k}": ranking.ndcg(k) for k in KS},
    }
    for name, values in ours.items():
        expected = [theirs[query][name] for query in sorted(judged)]
        assert values.tolist() == pytest.approx(expected, abs=1e-6), name


def test_the_table_is_what_mteb_makes_of_the_same_scores():
    pytest.importorskip("mteb", reason="mteb is not installed: pip install mteb")
    from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores

    score, relevance = tied_problem(7)
    judged, run = as_trec(score, relevance)
    theirs = calculate_retrieval_scores(run, judged, (*KS, 40))  # 40: the whole list
    ours = retrieval_metrics(score, relevance, KS) | {"mAP": metrics.map_at_k(score, relevance)}
    assert ours["R@3"] == pytest.approx(theirs.hit_rate["HitRate@3"], abs=1e-5)
    assert ours["nDCG@10"] == pytest.approx(theirs.ndcg["NDCG@10"], abs=1e-5)
    assert ours["MRR"] == pytest.approx(theirs.mrr["MRR@40"])
    assert ours["mAP"] == pytest.approx(theirs.map["MAP@40"], abs=1e-5)
    assert metrics.precision_at_k(score, relevance, 3) == pytest.approx(theirs.precision["P@3"], abs=1e-5)


def test_lists_without_ties_have_the_figures_of_torchmetrics():
    retrieval = pytest.importorskip("torchmetrics.retrieval", reason="torchmetrics comes with Lightning")
    score, relevance = tied_problem(3, grades=3)
    score = untied(score, relevance) + 2
    rows = torch.arange(len(score)).repeat_interleave(score.shape[1])

    def theirs(metric, target):
        return float(metric(score.flatten(), target.flatten(), indexes=rows))

    right = relevance > 0
    for k in KS:
        assert metrics.recall_at_k(score, right, k) == pytest.approx(theirs(retrieval.RetrievalHitRate(top_k=k), right))
        assert metrics.precision_at_k(score, right, k) == pytest.approx(
            theirs(retrieval.RetrievalPrecision(top_k=k), right)
        )
        assert metrics.ndcg_at_k(score, relevance, k) == pytest.approx(
            theirs(retrieval.RetrievalNormalizedDCG(top_k=k), relevance)
        )
    assert metrics.map_at_k(score, right) == pytest.approx(theirs(retrieval.RetrievalMAP(), right))
    assert metrics.mean_reciprocal_rank(score, right) == pytest.approx(theirs(retrieval.RetrievalMRR(), right))
    assert metrics.r_precision(score, right) == pytest.approx(theirs(retrieval.RetrievalRPrecision(), right))


def test_tag_areas_and_calibration_are_those_of_torchmetrics_ties_and_unknown_tags_included():
    classification = pytest.importorskip("torchmetrics.classification", reason="torchmetrics comes with Lightning")
    generator = torch.Generator().manual_seed(0)
    score = torch.randint(1, 10, (200, 8), generator=generator) / 10
    right = torch.rand(200, 8, generator=generator) < score
    valid = torch.rand(200, 8, generator=generator) < 0.8
    target = right.int().masked_fill(~valid, -1)
    for ours, kind in (
        (metrics.roc_auc_per_tag, classification.MultilabelAUROC),
        (metrics.pr_auc_per_tag, classification.MultilabelAveragePrecision),
    ):
        theirs = kind(num_labels=8, average=None, ignore_index=-1)(score, target)
        assert ours(score, right, valid).tolist() == pytest.approx(theirs.tolist(), abs=1e-6)
    probability = torch.rand(2000, generator=generator)
    came_true = torch.rand(2000, generator=generator) < probability**2
    theirs = classification.BinaryCalibrationError(n_bins=10, norm="l1")(probability, came_true.int())
    assert metrics.expected_calibration_error(probability, came_true, bins=10, binning="equal_width") == pytest.approx(
        float(theirs), abs=1e-6
    )


class TiesAgainst:
    """A search for pytorch-metric-learning: cosines, and wrong ones first among equals."""

    def __init__(self, query_labels: torch.Tensor, labels: torch.Tensor) -> None:
        self.wrong = query_labels[:, None] != labels

    def __call__(self, query, k, reference, ref_includes_query):
        score = query @ reference.T
        if ref_includes_query:
            score.fill_diagonal_(-math.inf)
        # Stable: what is sorted by the second key first stays so among equals.
        by_wrong = self.wrong.int().argsort(dim=1, descending=True, stable=True)
        order = by_wrong.gather(1, score.gather(1, by_wrong).argsort(dim=1, descending=True, stable=True))[:, :k]
        return 1 - score.gather(1, order), order


MUSGRAVE = ("precision_at_1", "r_precision", "mean_average_precision_at_r", "mean_average_precision",
            "mean_reciprocal_rank")  # fmt: skip


def figures(ranking: metrics.Ranking) -> list[float]:
    values = (
        ranking.precision(1), ranking.r_precision(), ranking.average_precision_at_r(), ranking.average_precision(),
        ranking.reciprocal_rank(),
    )  # fmt: skip
    return [float(value.mean()) for value in values]


def corners(rows: int, seed: int) -> torch.Tensor:
    """Unit vectors of few directions, so that many cosines are equal to the bit."""
    return torch.randint(0, 2, (rows, 4), generator=torch.Generator().manual_seed(seed)) - 0.5


def anywhere(rows: int, seed: int) -> torch.Tensor:
    return normalize(torch.randn(rows, 6, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.mark.parametrize("made", [corners, anywhere])
def test_many_right_answers_a_query_have_the_figures_of_pytorch_metric_learning(made):
    library = pytest.importorskip(
        "pytorch_metric_learning.utils.accuracy_calculator",
        reason="it is not installed: pip install pytorch-metric-learning",
    )
    audio, text = made(60, 0), made(30, 1)
    label, asked = torch.arange(60) % 7, torch.arange(30) % 7

    def theirs(query_labels, *given):
        # Without ties the library searches by itself, by Euclidean distance with faiss.
        search = TiesAgainst(query_labels, label) if made is corners else None
        calculator = library.AccuracyCalculator(include=MUSGRAVE, knn_func=search, device=torch.device("cpu"))
        found = calculator.get_accuracy(*given)
        assert found["r_precision"] < 0.9, "a perfect list would show nothing"
        return [found[name] for name in MUSGRAVE]

    ours = figures(rank_vectors(text, audio, asked[:, None] == label))
    assert ours == pytest.approx(theirs(asked, text, asked, audio, label), abs=1e-6)
    # Among themselves: a track is no answer to its own question, and one without another of its label does not ask.
    label[0] = 99
    assert figures(rank_alike(audio, label)) == pytest.approx(theirs(label, audio, label), abs=1e-6)
