"""From vectors and relevance to results that can be published: metrics with their pool, chance and uncertainty.

Conventions
-----------
* A metric is worth little alone, so every result carries the number of queries and candidates, what a random order
  would score, and a bootstrap interval (of the choice of queries, or of tags; never of the training run).
* Both directions are always measured: ``text_to_audio`` asks with words, ``audio_to_text`` with tracks.
* The conventions of :mod:`xmodal.metrics` hold: ties count against us, unknown tags are not negatives.
* The score matrix is made block by block, so memory is that of the vectors and of the relevance.

:func:`ridge_baseline` and :func:`random_projection_baseline` say what is possible without a trained audio tower: a
result that does not beat them shows nothing about the tower. :mod:`xmodal.evaluation.methods` sets all three side by
side for a training run.
"""

from __future__ import annotations

from xmodal.evaluation.baselines import (
    ALPHAS,
    RidgeBaseline,
    mel_statistics,
    random_projection_baseline,
    ridge_baseline,
)
from xmodal.evaluation.judge import judge
from xmodal.evaluation.leaks import SharedThing, find_leaks, refuse_leaks
from xmodal.evaluation.probe import FewShotCurve, ProbeResult, few_shot_curve, label_matrix, probe
from xmodal.evaluation.protocol import Protocol, read_protocol
from xmodal.evaluation.reports import Answer, Report, compare_reports, read_report
from xmodal.evaluation.results import DirectionResult, RetrievalResult, TagResult, evaluate_retrieval, evaluate_tags
from xmodal.evaluation.similarity import (
    TripletResult,
    Vote,
    agreed_triplets,
    evaluate_alike,
    judge_alike,
    judge_votes,
    rank_alike,
    read_votes,
    triplet_agreement,
)
from xmodal.evaluation.zero_shot import (
    ZeroShotSplit,
    evaluate_zero_shot,
    judge_unseen,
    strike_out,
    without_unseen,
    zero_shot_split,
)

__all__ = [
    "ALPHAS",
    "Answer",
    "DirectionResult",
    "FewShotCurve",
    "ProbeResult",
    "Protocol",
    "Report",
    "RetrievalResult",
    "RidgeBaseline",
    "SharedThing",
    "TagResult",
    "TripletResult",
    "Vote",
    "ZeroShotSplit",
    "agreed_triplets",
    "compare_reports",
    "evaluate_alike",
    "evaluate_retrieval",
    "evaluate_tags",
    "evaluate_zero_shot",
    "few_shot_curve",
    "find_leaks",
    "judge",
    "judge_alike",
    "judge_unseen",
    "judge_votes",
    "label_matrix",
    "mel_statistics",
    "probe",
    "random_projection_baseline",
    "rank_alike",
    "read_protocol",
    "read_report",
    "read_votes",
    "refuse_leaks",
    "ridge_baseline",
    "strike_out",
    "triplet_agreement",
    "without_unseen",
    "zero_shot_split",
]
