"""Music on paper: notes, parts and compositions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Note(NamedTuple):
    """One note; ``level`` is 0 (soft), 1 or 2 (accented)."""

    start_seconds: float
    duration_seconds: float
    pitch: int
    level: int


@dataclass(frozen=True)
class Part:
    """What one player plays.

    Attributes:
        role: "lead", "chords", "backing", "bass" or "drums".
        instrument: Tag of the instrument; for drums the name of the percussion instrument.
        program: General MIDI program, or the drum kit's.
        is_drum: Whether pitches are percussion keys.
        notes: In order of their start.
    """

    role: str
    instrument: str
    program: int
    is_drum: bool
    notes: tuple[Note, ...]


@dataclass(frozen=True)
class Composition:
    """A piece of music on paper.

    Attributes:
        seed: What it was composed from.
        seconds: Its length; no note sounds after it.
        bpm: Quarter notes per minute.
        key: Tonic and mode, such as "D minor".
        parts: Who plays what.
        tags: What can be heard, by kind.
    """

    seed: int
    seconds: float
    bpm: float
    key: str
    parts: tuple[Part, ...]
    tags: Mapping[str, tuple[str, ...]]


def onset_count(parts: Sequence[Part]) -> int:
    """Moments at which something starts to sound; what starts within 40 ms counts once."""
    starts = sorted(note.start_seconds for part in parts for note in part.notes)
    count, last = 0, -math.inf
    for start in starts:
        if start - last > 0.04:
            count, last = count + 1, start
    return count
