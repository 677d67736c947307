"""A protocol: everything that a figure depends on besides the model and the data, in one YAML file.

Published zero-shot figures of one model on one set differ by tens of points because protocols differ: which candidates
are in the pool, how many texts a track has, what counts as right, what a tie is worth, how a long track becomes one
vector, how a tag is put into words. A protocol answers each of these, and its hash goes with every figure::

    name: ESC-50, zero-shot
    split: all
    directions: [tags]
    classify: label
    prompts: {label: ["{}", "the sound of {}"]}
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from xmodal.data.tracks import Caption, Track
from xmodal.errors import DataError
from xmodal.metrics import KS, Ties
from xmodal.text import prompts_for
from xmodal.view import View

Direction = Literal["text_to_audio", "audio_to_text", "tags"]
Rule = Literal["captions", "tags"]
Group = Literal["track", "group", "artist"]
Leak = Literal["audio", "group", "artist", "caption"]

_LATER = ("unseen", "alike", "alike_exclude", "agreement", "votes")


@dataclass(frozen=True)
class Protocol:
    """How a model is judged on a set of tracks.

    Attributes:
        name: For tables.
        about: A sentence or two, and where the set comes from.
        split: The tracks to judge by: "test", "validation", "train" or "all".
        directions: What is measured.
        captions: Use the first so many captions of a track; None for all.
        relevance: Which texts are right for a track. "captions": its own, and those of the same words. "tags": also
            those that name tags which the track has all of.
        ties: "against" the model, or "for" it, which is what an evaluation does that never looks at ties.
        ks: Lengths of result lists.
        pool: Judge by so many tracks, drawn by a hash of their ids; None for all.
        view: How a track becomes a vector, where it differs from what the model says (:class:`xmodal.view.View`).
        tag_kinds: Kinds of tags to judge; None for all.
        classify: A kind of which each track has one tag: the accuracy of its nearest tag is measured too.
        prompts: Templates by kind; None for those of :mod:`xmodal.tagging`.
        null_prompts: Subtract the vector of empty words.
        unseen: Tags that training has not seen; they are judged by themselves and among all
            (:mod:`xmodal.evaluation.zero_shot`).
        alike: A kind of tag, or a field such as "group" or "work": tracks that share it are right answers to one
            another, audio against audio. Tracks with none or several take no part.
        alike_exclude: Tracks of the asking track's "artist" or "group" are no candidates then.
        agreement: Of people's votes on triplets, the smallest share of the majority, above 0.5.
        votes: And the fewest votes on a triplet.
        group: What is drawn together for intervals, and kept apart by groups.
        refuse_leaks: What train and test must not share.
        confidence: Of the intervals.
        resamples: Bootstrap rounds.
        seed: Of the bootstrap and the pool.
    """

    name: str = "default"
    about: str = ""
    split: str = "test"
    directions: tuple[Direction, ...] = ("text_to_audio", "audio_to_text", "tags")
    captions: int | None = None
    relevance: Rule = "tags"
    ties: Ties = "against"
    ks: tuple[int, ...] = KS
    pool: int | None = None
    view: Mapping[str, Any] = field(default_factory=dict)
    tag_kinds: tuple[str, ...] | None = None
    classify: str | None = None
    prompts: Mapping[str, tuple[str, ...]] | None = None
    null_prompts: bool = False
    unseen: tuple[str, ...] | None = None
    alike: str | None = None
    alike_exclude: Literal["artist", "group"] | None = None
    agreement: float = 0.9
    votes: int = 2
    group: Group = "group"
    refuse_leaks: tuple[Leak, ...] = ("audio", "group")
    confidence: float = 0.95
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (
            ("split", ("train", "validation", "test", "all")),
            ("relevance", get_args(Rule)),
            ("ties", get_args(Ties)),
            ("group", get_args(Group)),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name, allowed in (("directions", get_args(Direction)), ("refuse_leaks", get_args(Leak))):
            strange = [value for value in getattr(self, name) if value not in allowed]
            if strange:
                raise ValueError(f"{name} may hold {', '.join(allowed)}, got {strange[0]!r}")
        if not self.directions:
            raise ValueError("directions must name what to measure, got none")
        if self.alike_exclude not in (None, "artist", "group"):
            raise ValueError(f"alike_exclude must be artist, group or left out, got {self.alike_exclude!r}")
        if isinstance(self.unseen, str) or self.unseen == ():
            raise ValueError(f"unseen must be a list of tags or left out, got {self.unseen!r}")
        if not 0.5 < self.agreement <= 1:
            raise ValueError(f"agreement must be above 0.5 and at most 1, got {self.agreement}")
        for name in ("captions", "pool"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be at least 1 or left out, got {value!r}")
        if not self.ks or not all(isinstance(k, int) and k >= 1 for k in self.ks):
            raise ValueError(f"ks must be lengths of at least 1, got {self.ks!r}")
        View.of(self.view)
        for kind in self.prompts or ():
            prompts_for(kind, self.prompts or {})

    def hash(self) -> str:
        """16 hex digits over everything but name and about: equal if and only if the rules are."""
        # What came later counts only where it says something, so that older reports keep their hash.
        later = {each.name: each.default for each in dataclasses.fields(self) if each.name in _LATER}
        rules = {
            name: value
            for name, value in asdict(self).items()
            if name not in ("name", "about") and not (name in later and value == later[name])
        }
        return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()[:16]

    def judged(self, tracks: Sequence[Track]) -> list[Track]:
        """The tracks of the pool, with the captions and tags that the protocol looks at."""
        if self.pool is not None and self.pool < len(tracks):
            drawn = sorted(tracks, key=lambda track: hashlib.sha256(f"{self.seed}:{track.id}".encode()).digest())
            chosen = {track.id for track in drawn[: self.pool]}
            tracks = [track for track in tracks if track.id in chosen]
        return [self._seen(track) for track in tracks]

    def _seen(self, track: Track) -> Track:
        captions = track.captions[: self.captions]
        if self.relevance == "captions":
            captions = tuple(Caption(caption.text) for caption in captions)
        return dataclasses.replace(track, captions=captions)

    def group_of(self, track: Track) -> str:
        """What the track is drawn together with."""
        if self.group == "artist":
            return track.artist or track.group or track.id
        return track.id if self.group == "track" else track.group or track.id


def read_protocol(path: str | Path) -> Protocol:
    """Read a YAML file; names that are no fields are refused.

    Raises:
        DataError: If it cannot be read or breaks a rule.
    """
    try:
        read = yaml.safe_load(Path(path).read_text("utf-8"))
        if not isinstance(read, dict):
            raise ValueError("it must hold fields and their values")
        known = {each.name for each in dataclasses.fields(Protocol)}
        strange = sorted(set(read) - known)
        if strange:
            raise ValueError(f"{strange[0]!r} is no field of a protocol; the fields are: {', '.join(sorted(known))}")
        for name in ("directions", "ks", "tag_kinds", "unseen", "refuse_leaks"):
            if isinstance(read.get(name), list):
                read[name] = tuple(read[name])
        if isinstance(read.get("prompts"), dict):
            read["prompts"] = {kind: tuple(templates) for kind, templates in read["prompts"].items()}
        return Protocol(**read)
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise DataError(f"{path} is no protocol that can be used: {' '.join(str(error).split())}") from error
