"""Which tracks train, which choose, which judge.

Conventions
-----------
The three parts are called "train", "validation" and "test". Validation is a fixed set and never the test set. What no
manifest decides is decided by a hash of the track's group, so that a group is never on two sides, and a track stays
where it is when others come or go.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence

from xmodal.data.tracks import Track
from xmodal.errors import DataError
from xmodal.text import words_key

SPLIT_NAMES: Mapping[str, str] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "eval"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""The names that manifests have for the three parts, in lower case, and ours."""

_logger = logging.getLogger(__name__)


def split_tracks(
    tracks: Sequence[Track], *, validation: float = 0.1, test: float = 0.1, seed: int = 0
) -> dict[str, list[Track]]:
    """Divide tracks into train, validation and test.

    Where the tracks say their split, that holds. A part that no track names is carved out of the training tracks by
    the hash: a manifest with train and test alone gives up a share of train for validation, never of test.

    Args:
        tracks: All of them with a split, or none.
        validation: Share of the groups that go to validation, if the tracks do not say it.
        test: Share of the groups that go to test, if the tracks do not say it.
        seed: Another seed gives another division.

    Returns:
        "train", "validation" and "test", each in the order given; shares are met on average, so that a part of a
        small corpus can be empty.

    Raises:
        DataError: If some tracks have a split and some have none, or a split has an unknown name.
        ValueError: If the shares are negative or leave nothing for training.
    """
    _check_shares(validation, test)
    named = [_part(track) for track in tracks]
    unnamed = [track.id for track, part in zip(tracks, named, strict=True) if part is None]
    if 0 < len(unnamed) < len(tracks):
        raise DataError(
            f"{len(unnamed)} of {len(tracks)} tracks have no split (the first is {unnamed[0]!r}); fill the split "
            "column in every row, or drop it to have the tracks divided by their groups"
        )
    shares = {"test": test, "validation": validation}
    to_carve = {part: share for part, share in shares.items() if part not in named}
    parts: dict[str, list[Track]] = {"train": [], "validation": [], "test": []}
    for track, part in zip(tracks, named, strict=True):
        parts[_carve(track, to_carve, seed) if part in (None, "train") else part].append(track)
    _warn_of_straddling(parts)
    return parts


def fold_split(
    tracks: Sequence[Track], fold_field: str, test_fold: int | str, *, validation: float = 0.1, seed: int = 0
) -> dict[str, list[Track]]:
    """One round of a published cross-validation: one fold is the test set, the others are train and validation.

    Args:
        tracks: Tracks whose ``extra`` has the fold.
        fold_field: Name of the column with the fold.
        test_fold: The fold to test on; 1 and "1" are the same fold.
        validation: Share of the other folds' groups that go to validation, by the hash.
        seed: Another seed gives another validation set.

    Returns:
        "train", "validation" and "test", each in the order given.

    Raises:
        DataError: If a track has no fold, or none has this one.
        ValueError: If ``validation`` is negative or leaves nothing for training.
    """
    _check_shares(validation, 0.0)
    without = [track.id for track in tracks if track.extra.get(fold_field) is None]
    if without:
        raise DataError(f"{len(without)} tracks have no {fold_field!r} (the first is {without[0]!r}); fill the column")
    folds = [str(track.extra[fold_field]) for track in tracks]
    if str(test_fold) not in folds:
        raise DataError(f"no track is in {fold_field} {test_fold}; there are: {', '.join(sorted(set(folds)))}")
    parts: dict[str, list[Track]] = {"train": [], "validation": [], "test": []}
    for track, fold in zip(tracks, folds, strict=True):
        part = "test" if fold == str(test_fold) else _carve(track, {"validation": validation}, seed)
        parts[part].append(track)
    _warn_of_straddling(parts)
    return parts


def _check_shares(validation: float, test: float) -> None:
    if not (validation >= 0 and test >= 0 and validation + test < 1):
        raise ValueError(f"validation and test are shares, 0 or more and together below 1; got {validation} and {test}")


def _part(track: Track) -> str | None:
    if track.split is None:
        return None
    name = track.split.strip().lower()
    if name not in SPLIT_NAMES:
        raise DataError(
            f"track {track.id!r} is in the split {track.split!r}, and the names of splits are: "
            f"{', '.join(SPLIT_NAMES)}; rename it, or leave the track out"
        )
    return SPLIT_NAMES[name]


def _carve(track: Track, shares: Mapping[str, float], seed: int) -> str:
    """The part that the track's group falls into: each share is a stretch of [0, 1), train is the rest."""
    if track.group is not None:
        key = f"group:{track.group}"
    elif track.artist is not None:
        key = f"artist:{words_key(track.artist)}"
    else:
        key = f"id:{track.id}"
    digest = hashlib.blake2b(f"{seed}:{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    drawn = int.from_bytes(digest, "big") / 2**64
    for part, share in shares.items():
        if drawn < share:
            return part
        drawn -= share
    return "train"


def _warn_of_straddling(parts: Mapping[str, Sequence[Track]]) -> None:
    """The manifest's word holds, but a group on both sides makes figures look better than they are."""
    trained = {track.group for part in ("train", "validation") for track in parts[part]}
    straddling = sorted({track.group for track in parts["test"] if track.group is not None} & trained)
    if straddling:
        _logger.warning(
            "%d groups are both in test and in train or validation (the first is %r)", len(straddling), straddling[0]
        )
