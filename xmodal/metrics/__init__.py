"""Retrieval and tagging metrics over a score matrix.

Conventions
-----------
* Retrieval: rows are queries, columns candidates. Scores are cosines or anything else where higher is better; a
  negative score is an ordinary score. Transpose both matrices for the other direction.
* ``relevance[i, j]``: candidate j is right for query i. A query may have many right answers. Numbers above 0 count
  as right; their size is a grade that only nDCG looks at.
* Ties count against us. The result list is sorted by falling score; among equal scores the candidate of the lowest
  grade comes first, so every wrong answer stands before every right one. With w wrong and r right answers tied below
  h better candidates, the right ones take the places h+w+1 ... h+w+r. All metrics over places (R@k, MedR, MRR, AP,
  MAP@R, precision, nDCG) read that one list, so constant scores never look perfect.
* ``roc_auc`` and ``pr_auc`` are areas under a curve over thresholds, and no threshold can split a tie: tied items
  enter together. ROC then gives half credit for a tied pair, and PR gives every tied right answer the precision at
  the end of its group. Both equal scikit-learn's figures, ties included.
* A query without any right answer has no metric. It is refused, or left out with ``without_right="leave_out"``.
* Means run over queries (or tags), each with the same weight. :class:`Ranking` holds the value of every query.
"""

from __future__ import annotations

from xmodal.metrics.bootstrap import bootstrap_interval
from xmodal.metrics.calibration import (
    Reliability,
    brier_score,
    expected_calibration_error,
    log_loss,
    reliability,
)
from xmodal.metrics.hubness import HubCorrection, HubMethod, csls, inverted_softmax, querybank_norm
from xmodal.metrics.places import rank, rank_score_blocks, rank_vectors
from xmodal.metrics.ranking import KS, Ranking, Ties, WithoutRight
from xmodal.metrics.retrieval import (
    chance,
    map_at_k,
    map_at_r,
    mean_reciprocal_rank,
    median_rank,
    ndcg_at_k,
    precision_at_k,
    r_precision,
    recall_at_k,
    retrieval_metrics,
    summary,
)
from xmodal.metrics.significance import PairedTest, paired_permutation_test
from xmodal.metrics.spread import distance_ratio, rho_spectrum
from xmodal.metrics.tags import pr_auc, pr_auc_chance, pr_auc_per_tag, roc_auc, roc_auc_per_tag, tag_metrics

__all__ = [
    "KS",
    "HubCorrection",
    "HubMethod",
    "PairedTest",
    "Ranking",
    "Reliability",
    "Ties",
    "WithoutRight",
    "bootstrap_interval",
    "brier_score",
    "chance",
    "csls",
    "distance_ratio",
    "expected_calibration_error",
    "inverted_softmax",
    "log_loss",
    "map_at_k",
    "map_at_r",
    "mean_reciprocal_rank",
    "median_rank",
    "ndcg_at_k",
    "paired_permutation_test",
    "pr_auc",
    "pr_auc_chance",
    "pr_auc_per_tag",
    "precision_at_k",
    "querybank_norm",
    "r_precision",
    "rank",
    "rank_score_blocks",
    "rank_vectors",
    "recall_at_k",
    "reliability",
    "retrieval_metrics",
    "rho_spectrum",
    "roc_auc",
    "roc_auc_per_tag",
    "summary",
    "tag_metrics",
]
