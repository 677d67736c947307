"""A corpus as it was read: its tracks, and what was said to be there and is not."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal

from xmodal.data.tracks import Track
from xmodal.errors import DataError

Missing = Literal["refuse", "skip"]
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SetAside:
    """Something that a source names and that cannot be used.

    Attributes:
        id: Of the track, or the name of the shard or file.
        path: Where it should be.
        reason: Why it was set aside.
        place: Where the source names it, such as "line 7".
    """

    id: str
    path: str
    reason: str
    place: str = ""


@dataclass(frozen=True)
class Corpus:
    """The tracks of a source.

    Attributes:
        tracks: In the order of the source.
        set_aside: What the source names and is not among the tracks: rows without their audio file, shards that are
            cut short.
    """

    tracks: list[Track]
    set_aside: list[SetAside] = field(default_factory=list)


class TrackSource(ABC):
    """Where tracks come from, when it is not a manifest: an adapter of a published data set, or a class of yours.

    In YAML: ``data: {source: {class_path: xmodal.data.adapters.GTZAN, init_args: {root: ~/sets/GTZAN}}}``.
    """

    @abstractmethod
    def read(self) -> Corpus:
        """Read the tracks; what is missing is listed, not raised.

        Raises:
            DataError: If there is nothing to read at all.
        """


def refuse_or_report(source: object, corpus: Corpus, missing: Missing, advice: str) -> Corpus:
    """The corpus, if what is set aside allows it; says in the log what is left out.

    Args:
        source: What was read, for messages.
        corpus: The tracks.
        missing: "refuse" if anything at all is missing, or "skip" it.
        advice: What to do, for the refusal.

    Raises:
        DataError: If something is missing and ``missing`` is "refuse", or no track is left.
    """
    check_missing(missing)
    lost = corpus.set_aside
    if not lost:
        return corpus
    places = [f"{one.place}: {one.path}" if one.place else one.path for one in lost]
    named = "; ".join(places[:3]) + ("; …" if len(places) > 3 else "")
    reasons = "; ".join(dict.fromkeys(one.reason for one in lost))
    if missing == "refuse" or not corpus.tracks:
        raise DataError(f"{source}: {len(lost)} set aside, {reasons} ({named}); {advice}")
    _logger.warning("%s: %d set aside, %s (%s)", source, len(lost), reasons, named)
    return corpus


def check_missing(missing: str) -> None:
    """Refuse an unknown way to treat what is missing.

    Raises:
        ValueError: If it is neither "refuse" nor "skip".
    """
    if missing not in ("refuse", "skip"):
        raise ValueError(f"missing must be 'refuse' or 'skip', got {missing!r}")
