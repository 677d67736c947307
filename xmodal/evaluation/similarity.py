"""Audio against audio: like tracks near one another, versions of one work, and people's judgements of likeness."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from xmodal.data.tables import read_table
from xmodal.data.tracks import Track
from xmodal.embeddings import unit_rows
from xmodal.errors import DataError
from xmodal.metrics import KS, Ranking, bootstrap_interval, summary
from xmodal.metrics.places import rank_score_blocks
from xmodal.text import words_key

Matrix = Tensor | np.ndarray


def rank_alike(
    vectors: Float[Matrix, "tracks dim"],
    label: Int[Matrix, " tracks"],
    *,
    exclude: Int[Matrix, " tracks"] | None = None,
) -> Ranking:
    """Every track asks for the tracks of its label; it is no candidate of its own.

    Args:
        vectors: Unit vectors.
        label: A number for each track: its genre, or the work that it is a version of.
        exclude: A number for each track; tracks with the asking track's number are no candidates either. With
            artists it is the artist filter (Pampalk 2006), without which a model that knows voices and studios looks
            as if it knew genres.

    Returns:
        The ranking of tracks that have a right candidate. Candidates that are not admitted stand at the end.

    Raises:
        ValueError: If shapes do not fit or no track has a right candidate.
    """
    rows = torch.from_numpy(unit_rows(vectors, "vectors"))
    own, kept_out = torch.as_tensor(label), None if exclude is None else torch.as_tensor(exclude)
    for given in (own, kept_out):
        if given is not None and given.shape != (len(rows),):
            raise ValueError(f"each of {len(rows)} tracks needs one number, got shape {tuple(given.shape)}")
    identity = torch.arange(len(rows))

    def admitted(some: Tensor) -> Tensor:
        others = identity[some, None] != identity
        return others if kept_out is None else others & (kept_out[some, None] != kept_out)

    # Cosines end at -1, so that -2 is below them all.
    return rank_score_blocks(
        lambda some: (rows[some] @ rows.T).masked_fill(~admitted(some), -2.0),
        lambda some: (own[some, None] == own) & admitted(some),
        (len(rows), len(rows)),
    )


def evaluate_alike(
    vectors: Float[Matrix, "tracks dim"],
    label: Int[Matrix, " tracks"],
    *,
    exclude: Int[Matrix, " tracks"] | None = None,
    ks: Sequence[int] = KS,
) -> dict[str, float]:
    """:func:`rank_alike` as figures: R@k, P@k, MAP (whole list), MR1 (mean rank of the first right), and "queries".

    MAP and MR1 over versions of a work are the figures of cover-song identification (MIREX; Da-TACOS).
    """
    ranking = rank_alike(vectors, label, exclude=exclude)
    return summary(_alike_values(ranking, ks)) | {"queries": len(ranking.rows)}


def _alike_values(ranking: Ranking, ks: Sequence[int]) -> dict[str, Float[Tensor, " judged"]]:
    fitting = [k for k in ks if k <= ranking.candidates]
    values = {f"R@{k}": ranking.hit(k) for k in fitting} | {f"P@{k}": ranking.precision(k) for k in fitting}
    return values | {"MAP": ranking.average_precision(), "MR1": ranking.first_place()}


def judge_alike(
    vectors: Float[Matrix, "tracks dim"],
    tracks: Sequence[Track],
    by: str,
    *,
    exclude: str | None = None,
    ks: Sequence[int] = KS,
    groups: Int[Tensor, " tracks"] | None = None,
    bootstrap: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """:func:`evaluate_alike` of tracks by what they say of themselves, with intervals.

    Args:
        vectors: Unit vectors of the tracks.
        tracks: The tracks.
        by: A kind of tag, "group", "artist", "album", "title", or a column of the manifest: equal values are alike.
            Tracks with no value, or with several tags of the kind, take no part.
        exclude: "artist" or "group": tracks with the asking track's are no candidates. A track that does not name
            its own is kept from no other.
        ks: Lengths of result lists.
        groups: A number for each track, equal for tracks that are drawn together.
        bootstrap: "confidence", "resamples" and "seed" of the intervals.

    Returns:
        Figures ("values", "intervals", "queries", "tracks", "labels"), and each query's values with its "query"
        and "group".

    Raises:
        DataError: If no two tracks that may answer one another are alike.
    """
    named = [_value_of(track, by) for track in tracks]
    rows = [row for row, value in enumerate(named) if value is not None]
    number = {value: at for at, value in enumerate(dict.fromkeys(named[row] for row in rows))}
    label = torch.tensor([number[named[row]] for row in rows], dtype=torch.long)
    kept_out = None
    if exclude is not None:
        own = [getattr(tracks[row], exclude) or f"\0{row}" for row in rows]
        numbers = {words_key(value): at for at, value in enumerate(dict.fromkeys(own))}
        kept_out = torch.tensor([numbers[words_key(value)] for value in own])
    apart_by = range(len(rows)) if kept_out is None else kept_out.tolist()
    answerable = Counter(own for own, _ in set(zip(label.tolist(), apart_by, strict=True)))
    if not answerable or max(answerable.values()) < 2:
        apart = "" if exclude is None else f" of another {exclude}"
        raise DataError(f"no two of the {len(rows)} tracks that name their {by!r} share it{apart}")
    ranking = rank_alike(torch.as_tensor(vectors)[rows], label, exclude=kept_out)
    values = _alike_values(ranking, ks)
    owner = torch.arange(len(tracks)) if groups is None else groups
    group = owner[torch.tensor(rows)][ranking.rows]
    intervals = {}
    if len(group.unique()) > 1:
        intervals = {key: bootstrap_interval(value, groups=group, **(bootstrap or {})) for key, value in values.items()}
    figures = {
        "by": by,
        "exclude": exclude,
        "values": summary(values),
        "intervals": intervals,
        "queries": len(ranking.rows),
        "tracks": len(rows),
        "labels": len(number),
    }
    asking = [tracks[rows[at]].id for at in ranking.rows.tolist()]
    return figures, {"query": asking, "group": group.tolist(), **{key: v.tolist() for key, v in values.items()}}


def _value_of(track: Track, by: str) -> str | None:
    if by in track.tags:
        return words_key(track.tags[by][0]) if len(track.tags[by]) == 1 else None
    if by in ("group", "artist", "album", "title"):
        value = getattr(track, by)
    else:
        value = track.extra.get(by)
    return None if value is None or value == "" else words_key(str(value))


class TripletResult(NamedTuple):
    """Share of triplets on which the model and the people agree, its interval, and how many there were."""

    agreement: float
    interval: tuple[float, float] | None
    triplets: int


def triplet_agreement(
    vectors: Float[Matrix, "tracks dim"],
    triplets: Int[Matrix, "triplets 3"],
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> TripletResult:
    """How often the track that people found more like the anchor is nearer to it (Lee et al., ICASSP 2020).

    Args:
        vectors: Unit vectors.
        triplets: Rows of the anchor, of the more alike and of the less alike track. Chance is 0.5; a tie is a
            disagreement.
        confidence: Of the interval, over the choice of anchors; None comes out with fewer than two anchors.
        seed: Of the bootstrap.

    Raises:
        ValueError: If there is no triplet or one names a track that is not there.
    """
    rows = torch.from_numpy(unit_rows(vectors, "vectors"))
    named = torch.as_tensor(triplets).long()
    if named.ndim != 2 or named.shape[1] != 3 or not len(named):
        raise ValueError(f"triplets must be [at least 1, 3], got {tuple(named.shape)}")
    if not bool(((named >= 0) & (named < len(rows))).all()):
        raise ValueError(f"triplets must name tracks from 0 to {len(rows) - 1}")
    anchor, near, far = (rows[column] for column in named.T)
    agrees = ((anchor * near).sum(1) > (anchor * far).sum(1)).double()
    groups = named[:, 0]
    interval = None
    if len(groups.unique()) > 1:
        interval = bootstrap_interval(agrees, groups=groups, confidence=confidence, seed=seed)
    return TripletResult(float(agrees.mean()), interval, len(named))


def agreed_triplets(
    triplets: Int[Matrix, "triplets 3"],
    votes: Int[Matrix, "triplets 2"],
    *,
    agreement: float = 0.9,
    at_least: int = 2,
) -> Int[Tensor, "kept 3"]:
    """The triplets that people agree on, turned so that the majority's choice is the more alike.

    Args:
        triplets: Rows of the anchor and the two tracks voted on.
        votes: How many found the first, and how many the second more alike.
        agreement: Smallest share of the majority, above 0.5.
        at_least: Fewest votes.

    Raises:
        ValueError: If shapes do not fit or ``agreement`` is not above 0.5 and at most 1.
    """
    named, counted = torch.as_tensor(triplets).long(), torch.as_tensor(votes)
    if named.ndim != 2 or named.shape[1] != 3 or counted.shape != (len(named), 2):
        raise ValueError(
            f"triplets and votes must be [n, 3] and [n, 2], got {tuple(named.shape)}, {tuple(counted.shape)}"
        )
    if not 0.5 < agreement <= 1:
        raise ValueError(f"agreement must be above 0.5 and at most 1, got {agreement}")
    total, most = counted.sum(1), counted.max(1)
    turned = torch.where((most.indices == 1)[:, None], named[:, [0, 2, 1]], named)
    return turned[(total >= at_least) & (most.values >= agreement * total)]


class Vote(NamedTuple):
    """What people said of one triplet: how many found the first and how many the second more like the anchor."""

    anchor: str
    first: str
    second: str
    first_votes: int
    second_votes: int


def read_votes(path: str | Path) -> list[Vote]:
    """Read a table (csv, jsonl, parquet) of triplets: columns anchor, first, second (ids), first_votes, second_votes.

    Raises:
        DataError: If it cannot be read, a column is missing, or a cell is not what it should be.
    """
    table = read_table(Path(path))
    missing = [name for name in Vote._fields if name not in table.names]
    if missing:
        raise DataError(f"{path} has no column {missing[0]!r}; votes have the columns {', '.join(Vote._fields)}")
    votes = []
    for row in table.rows:
        try:
            ids = [str(row.cells[name]) for name in Vote._fields[:3]]
            counts = [int(row.cells[name]) for name in Vote._fields[3:]]
            if len(set(ids)) < 3 or min(counts) < 0:
                raise ValueError("three different tracks and two counts are needed")
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}, {row.place}: {error}") from error
        votes.append(Vote(ids[0], ids[1], ids[2], counts[0], counts[1]))
    return votes


def judge_votes(
    vectors: Float[Matrix, "tracks dim"],
    ids: Sequence[str],
    votes: Sequence[Vote],
    *,
    agreement: float = 0.9,
    at_least: int = 2,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """:func:`triplet_agreement` on the triplets that people agree on.

    Args:
        vectors: Unit vectors of the tracks.
        ids: Their ids.
        votes: On triplets of them; those that name other tracks are left out and counted.
        agreement: See :func:`agreed_triplets`.
        at_least: The same.
        confidence: Of the interval.
        seed: Of the bootstrap.

    Returns:
        "agreement" with its "interval", how many "triplets" it is of, and how many were "without agreement" or name
        "other tracks". Chance is 0.5.

    Raises:
        DataError: If no triplet is left.
    """
    place = {id_: row for row, id_ in enumerate(ids)}
    here = [vote for vote in votes if all(id_ in place for id_ in vote[:3])]
    named = torch.tensor([[place[id_] for id_ in vote[:3]] for vote in here], dtype=torch.long).reshape(-1, 3)
    counted = torch.tensor([vote[3:] for vote in here], dtype=torch.long).reshape(-1, 2)
    kept = agreed_triplets(named, counted, agreement=agreement, at_least=at_least)
    if not len(kept):
        raise DataError(
            f"of {len(votes)} triplets {len(here)} name tracks that are judged, and on none of them "
            f"{agreement:.0%} of at least {at_least} votes agree"
        )
    found = triplet_agreement(vectors, kept, confidence=confidence, seed=seed)
    return {
        "agreement": found.agreement,
        "interval": found.interval,
        "triplets": found.triplets,
        "without agreement": len(here) - len(kept),
        "other tracks": len(votes) - len(here),
        "chance": 0.5,
    }
