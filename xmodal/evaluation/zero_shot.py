"""Tags that training has not seen: the splits of Choi et al. (ISMIR 2019), and both ways to judge on them.

Tags are divided into seen and unseen, and tracks by the tags they have: set A has only seen tags, B both, C only unseen
ones. A model is trained on the seen tags of A (or of A and B, with the unseen tags struck out) and judged on C, or on
B and C. *Zero-shot*: only unseen tags are candidates. *Generalised*: all tags are, so that a model which prefers the
words it knows is found out.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from xmodal.data.tracks import Track
from xmodal.errors import DataError
from xmodal.metrics import pr_auc_per_tag, rank, roc_auc_per_tag
from xmodal.text import words_key

Matrix = Tensor | np.ndarray
KS = (1, 3, 5, 10)


@dataclass(frozen=True)
class ZeroShotSplit:
    """Which tags are unseen, and which tracks have which sort of tags.

    Attributes:
        unseen: The tag takes no part in training.
        a: The track has tags, all of them seen.
        b: The track has seen and unseen tags.
        c: The track has tags, none of them seen.
    """

    unseen: Bool[Tensor, " tags"]
    a: Bool[Tensor, " tracks"]
    b: Bool[Tensor, " tracks"]
    c: Bool[Tensor, " tracks"]


def zero_shot_split(
    labels: Bool[Matrix, "tracks tags"],
    *,
    unseen: float | Sequence[int] = 0.2,
    seed: int = 0,
) -> ZeroShotSplit:
    """Divide tags into seen and unseen, and tracks into the sets A, B and C.

    Args:
        labels: Tags of each track.
        unseen: Share of the tags to leave unseen, drawn so that frequent and rare tags are left in the same
            proportion (one of every run of neighbours by frequency); or the columns themselves.
        seed: Of the draw.

    Raises:
        ValueError: If no tag would be seen or none unseen, or a column is out of range.
    """
    right = torch.as_tensor(labels).bool()
    tags = right.shape[1]
    mask = torch.zeros(tags, dtype=torch.bool)
    if isinstance(unseen, float):
        if not 0 < unseen < 1:
            raise ValueError(f"unseen must be a share of the tags between 0 and 1, got {unseen}")
        count = max(1, round(unseen * tags))
        by_frequency = right.sum(0).argsort(descending=True, stable=True)
        generator = torch.Generator().manual_seed(seed)
        edges = torch.linspace(0, tags, count + 1).round().long().tolist()
        for first, last in itertools.pairwise(edges):
            mask[by_frequency[first + int(torch.randint(last - first, (), generator=generator))]] = True
    else:
        columns = list(unseen)
        if not all(0 <= column < tags for column in columns):
            raise ValueError(f"unseen must name columns from 0 to {tags - 1}, got {columns}")
        mask[columns] = True
    if bool(mask.all()) or not bool(mask.any()):
        raise ValueError(f"some of the {tags} tags must be seen and some unseen, got {int(mask.sum())} unseen")
    has_unseen, has_seen = right[:, mask].any(1), right[:, ~mask].any(1)
    return ZeroShotSplit(mask, has_seen & ~has_unseen, has_seen & has_unseen, has_unseen & ~has_seen)


def evaluate_zero_shot(
    score: Float[Tensor, "tracks tags"],
    labels: Bool[Tensor, "tracks tags"],
    unseen: Bool[Tensor, " tags"],
    *,
    valid: Bool[Tensor, "tracks tags"] | None = None,
    ks: Sequence[int] = KS,
) -> dict[str, dict[str, float]]:
    """Figures over unseen tags alone ("zero-shot"), over all ("generalised"), and the latter's parts.

    Args:
        score: Scores of the tracks to judge and all tags.
        labels: The tag belongs to the track.
        unseen: Which tags training has not seen.
        valid: Pairs that may be judged. None: all.
        ks: For hit@k and P@k; those beyond the number of candidates are left out.

    Returns:
        For each way "ROC-AUC" and "mAP" (macro over tags: tracks for a tag), "hit@k" and "P@k" (tags for a track, over
        tracks that have a candidate tag), and how many "tags" and "tracks" were judged. "generalised" has also
        "mAP seen", "mAP unseen" and their "harmonic mean".
    """
    known = torch.ones_like(labels) if valid is None else valid
    figures = {"zero-shot": _way(score[:, unseen], labels[:, unseen], known[:, unseen], ks)}
    every = _way(score, labels, known, ks)
    for name, columns in (("seen", ~unseen), ("unseen", unseen)):
        precision = pr_auc_per_tag(score[:, columns], labels[:, columns], known[:, columns])
        every[f"mAP {name}"] = float(precision.nanmean())
    parts = every["mAP seen"], every["mAP unseen"]
    every["harmonic mean"] = 2 * parts[0] * parts[1] / max(sum(parts), 1e-12)
    return figures | {"generalised": every}


def _way(score: Tensor, labels: Tensor, valid: Tensor, ks: Sequence[int]) -> dict[str, float]:
    area, precision = roc_auc_per_tag(score, labels, valid), pr_auc_per_tag(score, labels, valid)
    figures = {"ROC-AUC": float(area.nanmean()), "mAP": float(precision.nanmean())}
    right = labels & valid
    # An unknown tag is neither right nor wrong: it is moved below all others, where it can push nothing aside.
    asked = score.masked_fill(~valid, float(score.min()) - 1)
    ranking = rank(asked, right, without_right="leave_out")
    for k in ks:
        if k <= ranking.candidates:
            figures[f"hit@{k}"] = float(ranking.hit(k).mean())
            figures[f"P@{k}"] = float(ranking.precision(k).mean())
    return figures | {"tags": int((~area.isnan()).sum()), "tracks": len(ranking.rows)}


def strike_out(
    tags_of_tracks: Sequence[Mapping[str, Sequence[str]]], unseen: Sequence[str]
) -> list[dict[str, tuple[str, ...]]]:
    """The tracks' tags without the unseen ones, to train on; compared as :func:`xmodal.text.words_key` does."""
    gone = {words_key(name) for name in unseen}
    kept: list[dict[str, Any]] = []
    for by_kind in tags_of_tracks:
        left = {kind: tuple(n for n in names if words_key(n) not in gone) for kind, names in by_kind.items()}
        kept.append({kind: names for kind, names in left.items() if names})
    return kept


def judge_unseen(
    score: Float[Tensor, "tracks tags"],
    labels: Bool[Tensor, "tracks tags"],
    valid: Bool[Tensor, "tracks tags"],
    tags: Sequence[str],
    unseen: Sequence[str],
) -> dict[str, Any]:
    """:func:`evaluate_zero_shot` on the sets of tracks that Choi et al. judge by.

    Args:
        score: Scores of the tracks to judge and all tags.
        labels: The tag belongs to the track.
        valid: Pairs that may be judged.
        tags: Names of the columns.
        unseen: The names that training has not seen, in any letter case.

    Returns:
        "unseen" (the names that are columns), "tracks" (how many are in A, B and C), and the figures of "C", of
        "B and C" and of "all" tracks; a set without a positive and a negative of an unseen tag has none.

    Raises:
        DataError: If no unseen tag is a column, or all are.
    """
    wanted = {words_key(name) for name in unseen}
    mask = torch.tensor([words_key(name) in wanted for name in tags], dtype=torch.bool)
    if not bool(mask.any()) or bool(mask.all()):
        raise DataError(
            f"some of the {len(tags)} tags of these tracks must be seen and some unseen, but "
            f"{int(mask.sum())} are among the unseen ones ({', '.join(list(unseen)[:3])} ...)"
        )
    right = labels & valid
    split = zero_shot_split(right, unseen=mask.nonzero().flatten().tolist())
    found: dict[str, Any] = {
        "unseen": [name for name, new in zip(tags, mask.tolist(), strict=True) if new],
        "tracks": {"A": int(split.a.sum()), "B": int(split.b.sum()), "C": int(split.c.sum())},
    }
    for name, rows in (("C", split.c), ("B and C", split.b | split.c), ("all", split.a | split.b | split.c)):
        new, known = right[rows][:, mask], valid[rows][:, mask]
        if bool((new.any(0) & (~new & known).any(0)).any()):
            ways = evaluate_zero_shot(score[rows], labels[rows], mask, valid=valid[rows])
            # Of C no seen tag has a positive, so what is said of seen tags there is no number.
            found[name] = {
                way: {key: value for key, value in figures.items() if value == value} for way, figures in ways.items()
            }
    return found


def without_unseen(
    tracks: Sequence[Track], unseen: Sequence[str], *, keep: Literal["a", "ab"] = "a"
) -> dict[str, list[Track]]:
    """Tracks to train on that say nothing of the unseen tags, and which of them belong to A, B and C.

    Args:
        tracks: All of them.
        unseen: The tags that training must not see.
        keep: Train on "a", the tracks that have seen tags alone; or on "ab", where tracks that have both sorts lose
            the unseen ones.

    Returns:
        "train": the tracks of ``keep`` without the unseen tags, and without the captions that name one, in their
        words or by what they require. "A", "B", "C": the tracks as they are.
    """
    gone = {words_key(name) for name in unseen}
    named = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in sorted(gone, key=len, reverse=True)))
    found: dict[str, list[Track]] = {"train": [], "A": [], "B": [], "C": []}
    for track in tracks:
        has_unseen, has_seen = bool(track.all_tags & gone), bool(track.all_tags - gone)
        group = "B" if has_unseen and has_seen else "C" if has_unseen else "A"
        if not (has_seen or has_unseen):
            continue
        found[group].append(track)
        if group == "A" or (group == "B" and keep == "ab"):
            kept = strike_out([track.tags, track.absent], unseen)
            captions = tuple(
                caption
                for caption in track.captions
                if not ((caption.requires or frozenset()) & gone or named.search(words_key(caption.text)))
            )
            found["train"].append(replace(track, tags=kept[0], absent=kept[1], captions=captions))
    return found
