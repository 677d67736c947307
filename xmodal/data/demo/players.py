"""The players: from a plan that all share to the notes that each plays.

Everyone writes hits on a grid of sixteenths; :func:`play` turns them into seconds.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import NamedTuple

from xmodal.data.demo.instruments import DRUM_NOTES, KITS, Instrument
from xmodal.data.demo.patterns import Figure
from xmodal.data.demo.score import Note, Part
from xmodal.data.demo.styles import Style

_SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
# Window of a lead's notes by register, as MIDI numbers.
REGISTERS = {"low": (38, 55), "middle": (58, 74), "high": (76, 93)}
# Melody rhythms of one bar by pace, lengths in sixteenths; each fills 16 steps and is cut to the bar.
_RHYTHMS = {
    "slow": ((8, 8), (12, 4), (16,), (8, 4, 4), (4, 12)),
    "even": ((4, 4, 4, 4), (4, 2, 2, 4, 4), (6, 2, 4, 4), (2, 2, 4, 2, 2, 4), (4, 4, 6, 2)),
    "quick": (
        (2, 2, 2, 2, 2, 2, 2, 2),
        (2, 1, 1, 2, 2, 1, 1, 2, 2, 2),
        (1, 1, 2, 1, 1, 2, 2, 2, 2, 2),
        (3, 3, 2, 3, 3, 2),
    ),
}


@dataclass(frozen=True)
class Plan:
    """What all players agree on before they write their parts.

    Attributes:
        style: The style.
        tempo: Its tag.
        bpm: Quarter notes per minute.
        tonic: Pitch class of the tonic, 0 for C.
        mode: "major" or "minor".
        progression: Roots of the chords as scale degrees from 0, over and over.
        changes_per_bar: Chords in a bar.
        pace: Of melody and broken chords: "slow", "even" or "quick".
        seconds: Length of the piece.
        jitter_seconds: How far a player strays from the beat, as a standard deviation; machines do not.
    """

    style: Style
    tempo: str
    bpm: float
    tonic: int
    mode: str
    progression: tuple[int, ...]
    changes_per_bar: int
    pace: str
    seconds: float
    jitter_seconds: float

    @property
    def step_seconds(self) -> float:
        """Length of a sixteenth."""
        return 15.0 / self.bpm

    @property
    def bars(self) -> int:
        """Bars that the piece needs; the last one may be cut."""
        return math.ceil(self.seconds / (self.style.steps * self.step_seconds))

    def root_degree(self, step: float) -> int:
        """Scale degree of the chord that sounds at a step."""
        steps_per_chord = self.style.steps // self.changes_per_bar
        return self.progression[int(step // steps_per_chord) % len(self.progression)]

    def scale_pitch(self, degree: int) -> int:
        """Semitones above C of a scale degree, which may be beyond one octave."""
        octave, within = divmod(degree, 7)
        return self.tonic + 12 * octave + _SCALES[self.mode][within]

    def chord(self, step: float) -> tuple[int, ...]:
        """Pitch classes of the chord at a step, root first."""
        root = self.root_degree(step)
        degrees = (0, 2, 4, 8) if self.style.ninths else (0, 2, 4)
        return tuple(self.scale_pitch(root + degree) % 12 for degree in degrees)


class Hit(NamedTuple):
    """A note as it is written: ``step`` and ``length`` in sixteenths, ``level`` from 0 (soft) to 2 (accented)."""

    step: int
    length: float
    pitch: int
    level: int
    delay_seconds: float = 0.0


def play(plan: Plan, rng: random.Random, hits: list[Hit], role: str) -> tuple[Note, ...]:
    """From steps to seconds: swing, a human hand, and the end of the piece."""
    notes = []
    for step, length, pitch, level, delay in hits:
        swung = step + (2 * plan.style.swing if step % 4 == 2 else 0.0)
        start = swung * plan.step_seconds + delay + rng.gauss(0.0, 1.0) * plan.jitter_seconds
        start = max(0.0, start)
        duration = min(max(length * plan.step_seconds, 0.05), plan.seconds - start)
        if plan.seconds - start < 0.08:
            continue
        if level == 1 and role != "drums":
            level = rng.choice((0, 1, 1, 2))
        notes.append(Note(round(start, 4), round(duration, 4), pitch, level))
    return tuple(sorted(notes))


def _fold(pitch: int, low: int, high: int) -> int:
    """Move a pitch by octaves into a range of at least an octave; a narrower range clamps it."""
    while pitch < low:
        pitch += 12
    while pitch > high:
        pitch -= 12
    return max(pitch, low)


def melody(plan: Plan, rng: random.Random, lead: Instrument, register: str, sounding: float) -> list[Hit]:
    """A motif of two bars that comes back, stepping through the scale and resting on notes of the chord."""
    low, high = max(lead.low, REGISTERS[register][0]), min(lead.high, REGISTERS[register][1])
    rhythms = [rng.choice(_RHYTHMS[plan.pace]) for _ in range(2)]
    moves = [rng.choice((-2, -1, -1, 1, 1, 2)) for _ in range(32)]
    degree = min(range(70), key=lambda d: abs(plan.scale_pitch(d) - (low + high) / 2))
    hits: list[Hit] = []
    for bar in range(plan.bars):
        step = 0
        for index, length in enumerate(rhythms[bar % 2]):
            if step >= plan.style.steps:
                break
            length = min(length, plan.style.steps - step)
            at = bar * plan.style.steps + step
            last = degree
            degree += moves[(16 * (bar % 2) + index) % 32]
            while plan.scale_pitch(degree) > high:
                degree -= 2
            while plan.scale_pitch(degree) < low:
                degree += 2
            if step % 4 == 0:
                degree = _nearest_chord_tone(plan, degree, at, low, high, unlike=last)
            pitch = _fold(plan.scale_pitch(degree), low, high)
            hits.append(Hit(at, length * sounding, pitch, 2 if step == 0 else 1))
            step += length
    return hits


def _nearest_chord_tone(plan: Plan, degree: int, step: float, low: int, high: int, *, unlike: int) -> int:
    """The note of the chord nearest to a degree, but not the note before: a melody that stays put is none."""
    root = plan.root_degree(step)
    for distance in (0, 1, -1, 2, -2, 3, -3, 4, -4):
        near = degree + distance
        if (near - root) % 7 in (0, 2, 4) and near != unlike and low <= plan.scale_pitch(near) <= high:
            return near
    return degree


def _voicing(plan: Plan, step: float, instrument: Instrument, centre: int) -> list[int]:
    """Four notes of the chord from its root up, near a centre: root position keeps the mode plain to hear."""
    classes = plan.chord(step)
    root = min(
        (classes[0] + 12 * octave for octave in range(11) if classes[0] + 12 * octave >= instrument.low),
        key=lambda pitch: abs(pitch + 4 - centre),
    )
    pitches = [root + (pitch_class - classes[0]) % 12 for pitch_class in classes]
    pitches += [pitch + 12 for pitch in pitches]
    return [_fold(pitch, instrument.low, instrument.high) for pitch in pitches[:4]]


def chords(plan: Plan, instrument: Instrument, figure: Figure, register: str) -> list[Hit]:
    """The chords of the progression in a figure, clear of the melody: below a high or middle one, above a low one."""
    centre = 64 if register == "low" else 57
    pattern = figure.pattern
    if not pattern:
        pace = {"slow": 4, "even": 2, "quick": 1}[plan.pace]
        pattern = ("X" + "." * (pace - 1)) * (16 // pace)
    pattern = pattern[: plan.style.steps]
    chord_steps = plan.style.steps // plan.changes_per_bar
    hits: list[Hit] = []
    turn = 0
    for bar in range(plan.bars):
        steps = [step for step, mark in enumerate(pattern) if mark != "."]
        if figure.tag == "sustained chords":
            steps = list(range(0, plan.style.steps, chord_steps))
        for step, following in zip(steps, [*steps[1:], plan.style.steps], strict=True):
            at = bar * plan.style.steps + step
            length = figure.length or following - step
            level = 2 if pattern[step] == "X" else 1
            if figure.power:
                root = _fold(plan.chord(at)[0] + 36, instrument.low, instrument.high)
                pitches = [root, root + 7, root + 12]
            else:
                pitches = _voicing(plan, at, instrument, centre)
            if figure.order:
                # A broken chord rings on under the notes that follow it.
                hits.append(Hit(at, max(length, 2.0) * 1.5, pitches[figure.order[turn % len(figure.order)]], level))
                turn += 1
                continue
            if figure.length == 0:
                length -= 0.25
            for voice, pitch in enumerate(dict.fromkeys(pitches)):
                hits.append(Hit(at, length, pitch, level, voice * figure.spread_seconds))
    return hits


def bass(plan: Plan, line: str) -> list[Hit]:
    """A bass line, from the open string of a double bass up."""
    hits: list[Hit] = []
    steps = [step for step, mark in enumerate(line) if mark != "."]
    for bar in range(plan.bars):
        for step, following in zip(steps, [*steps[1:], len(line)], strict=True):
            at = bar * plan.style.steps + step
            chord = plan.chord(at)
            root = _fold(chord[0] + 24, 29, 40)
            pitch = {
                "r": root,
                "t": root + (chord[1] - chord[0]) % 12,
                "f": root + 7,
                "o": root + 12,
                "a": _fold(plan.chord(at - step + plan.style.steps)[0] + 24, 29, 40) - 1,
            }[line[step]]
            hits.append(Hit(at, (following - step) * 0.9, max(pitch, 29), 2 if step == 0 else 1))
    return hits


def drums(plan: Plan, rng: random.Random) -> list[Part]:
    """One part per percussion instrument, so that each has its own place in the mix."""
    parts = []
    for name, pattern in plan.style.drums.items():
        hits = [
            Hit(bar * plan.style.steps + step, 1.0, DRUM_NOTES[name], {"o": 0, "x": 1, "X": 2}[mark])
            for bar in range(plan.bars)
            for step, mark in enumerate(pattern)
            if mark != "."
        ]
        parts.append(Part("drums", name, KITS[plan.style.kit], True, play(plan, rng, hits, "drums")))
    return [part for part in parts if part.notes]
