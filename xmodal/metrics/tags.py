"""Areas under the curves of tags, tag by tag, where unknown pairs are not judged."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from xmodal.metrics._chance import random_average_precision
from xmodal.metrics._common import BLOCK, check_finite, check_matrices, sorted_rows


def roc_auc_per_tag(
    score: Float[Tensor, "tracks tags"],
    relevance: Shaped[Tensor, "tracks tags"],
    valid: Bool[Tensor, "tracks tags"] | None = None,
) -> Float[Tensor, " tags"]:
    """Probability that a track with the tag scores higher than one without, a tie counting one half.

    Args:
        score: Similarities, higher is better. Finite.
        relevance: The tag belongs to the track.
        valid: Pairs that may be judged; an unknown tag is not a negative. None: all.

    Returns:
        float64, one value a tag; NaN for a tag without a judged positive or without a judged negative.

    Raises:
        ValueError: If the shapes differ or a score is not finite.
    """
    areas = [
        (below + up_to).sum(1) / (2 * right * wrong)
        for right, wrong, below, up_to, _ in _tag_blocks(score, relevance, valid)
    ]
    return torch.cat(areas)


def pr_auc_per_tag(
    score: Float[Tensor, "tracks tags"],
    relevance: Shaped[Tensor, "tracks tags"],
    valid: Bool[Tensor, "tracks tags"] | None = None,
) -> Float[Tensor, " tags"]:
    """Average precision of each tag's list of tracks, tied tracks entering together.

    Arguments, returned value and errors as :func:`roc_auc_per_tag`.
    """
    areas = []
    for right, wrong, below, _, right_from in _tag_blocks(score, relevance, valid):
        wrong_from = wrong[:, None] - below
        area = (right_from / (right_from + wrong_from).clamp(min=1)).sum(1) / right
        areas.append(area.masked_fill(wrong == 0, math.nan))
    return torch.cat(areas)


def roc_auc(score: Tensor, relevance: Tensor, valid: Tensor | None = None) -> float:
    """Macro mean of :func:`roc_auc_per_tag` over the tags that can be judged; 0.5 is chance."""
    return _macro(roc_auc_per_tag(score, relevance, valid))


def pr_auc(score: Tensor, relevance: Tensor, valid: Tensor | None = None) -> float:
    """Macro mean of :func:`pr_auc_per_tag` over the tags that can be judged."""
    return _macro(pr_auc_per_tag(score, relevance, valid))


def pr_auc_chance(
    relevance: Shaped[Tensor, "tracks tags"],
    valid: Bool[Tensor, "tracks tags"] | None = None,
) -> Float[Tensor, " tags"]:
    """Expected :func:`pr_auc_per_tag` of a random order without ties: mAP@k of :func:`chance` with k = n.

    A little above the tag's share of tracks, and closer to it the more tracks there are. NaN where a tag cannot be
    judged.
    """
    judged = torch.ones_like(relevance, dtype=torch.bool) if valid is None else valid
    right = ((relevance > 0) & judged).sum(0)
    total = judged.sum(0)
    defined = (right > 0) & (right < total)
    expected = random_average_precision(right.clamp(min=1), total.clamp(min=1), total.clamp(min=1))
    return expected.masked_fill(~defined, math.nan)


def tag_metrics(score: Tensor, relevance: Tensor, valid: Tensor | None = None) -> dict[str, float]:
    """Macro "ROC-AUC" and "PR-AUC", and how many tags they are made of: "tags" judged, "tags left out".

    A tag without a judged positive or without a judged negative is left out. Arguments and errors as
    :func:`roc_auc_per_tag`.
    """
    roc = roc_auc_per_tag(score, relevance, valid)
    left_out = int(roc.isnan().sum())
    return {
        "ROC-AUC": _macro(roc),
        "PR-AUC": _macro(pr_auc_per_tag(score, relevance, valid)),
        "tags": len(roc) - left_out,
        "tags left out": left_out,
    }


def _tag_blocks(
    score: Tensor, relevance: Tensor, valid: Tensor | None
) -> Iterator[tuple[Float[Tensor, " block"], Float[Tensor, " block"], Tensor, Tensor, Tensor]]:
    """Counts for blocks of tags.

    Yields:
        right and wrong tracks of each tag ``[block]``; then, for each right track ``[block, most]`` with zeros to fill
        up, the wrong tracks below it, the wrong ones up to it and the right ones from it on, ties included in the
        last two.
    """
    check_matrices(score, relevance, "[tracks, tags]")
    if valid is not None and (valid.shape != score.shape or valid.dtype != torch.bool):
        raise ValueError(f"valid must be bool of shape {tuple(score.shape)}, got {valid.dtype} of {tuple(valid.shape)}")
    tracks, tags = score.shape
    for columns in torch.arange(tags, device=score.device).split(max(1, BLOCK // tracks)):
        own = score[:, columns].detach().T.contiguous()
        check_finite(own)
        judged = torch.ones_like(own, dtype=torch.bool) if valid is None else valid[:, columns].T
        is_right = (relevance[:, columns].T > 0) & judged
        is_wrong = judged & ~is_right
        right, wrong = is_right.sum(1), is_wrong.sum(1)
        # Everything else is moved below all scores, where it is counted away again.
        wrong_scores = sorted_rows(own.masked_fill(~is_wrong, -math.inf))
        right_scores = sorted_rows(own.masked_fill(~is_right, -math.inf))
        at = right_scores[:, tracks - int(right.max()) :].contiguous()
        below = torch.searchsorted(wrong_scores, at) - (tracks - wrong[:, None])
        up_to = torch.searchsorted(wrong_scores, at, right=True) - (tracks - wrong[:, None])
        right_from = tracks - torch.searchsorted(right_scores, at)
        filled = at.isfinite()
        yield right.double(), wrong.double(), below * filled, up_to * filled, right_from * filled


def _macro(per_tag: Float[Tensor, " tags"]) -> float:
    if bool(per_tag.isnan().all()):
        raise ValueError(f"none of the {len(per_tag)} tags has both a positive and a negative, so none can be judged")
    return float(per_tag.nanmean())
