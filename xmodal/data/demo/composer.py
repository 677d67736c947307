"""A small composer: from a seed to a short piece of music and the tags that can be heard in it.

Everything is decided by ``random.Random(seed)``: the style first (see :mod:`xmodal.data.demo.styles`), then what
the style leaves open. The lead instrument is drawn from all leads with equal chances, whatever the style, so that
a listener has to hear both. Tags follow from what was written down, by the rules of
:mod:`xmodal.data.demo.tags`; none is drawn by itself.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from xmodal.data.demo.instruments import BACKINGS, DRUM_NOTES, INSTRUMENTS, KITS, LEAD_WEIGHTS, LEADS, Instrument
from xmodal.data.demo.patterns import BASS_LINES, FIGURES, Figure
from xmodal.data.demo.styles import STYLES, TEMPO_BPM, Style
from xmodal.data.demo.tags import Facts, tags_of

TONICS = ("C", "D", "E", "F", "G", "A")
_PITCH_CLASS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9}
_SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
# Roots as scale degrees from 0. The tonic comes first and often: in six seconds nothing else settles the mode.
_PROGRESSIONS = {
    "major": ((0, 3, 0, 4), (0, 0, 3, 4), (0, 4, 0, 3), (0, 3, 4, 0), (0, 5, 3, 4)),
    "minor": ((0, 3, 0, 4), (0, 0, 3, 4), (0, 4, 0, 3), (0, 3, 4, 0), (0, 0, 6, 0)),
}
# Window of a lead's notes by register, as MIDI numbers.
_REGISTERS = {"low": (38, 55), "middle": (58, 74), "high": (76, 93)}
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
_ARTICULATION = {"staccato": 0.25, "plain": 0.75, "legato": 1.05}


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


@dataclass(frozen=True)
class _Plan:
    """What all players agree on before they write their parts."""

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
        return 15.0 / self.bpm

    @property
    def bars(self) -> int:
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


def compose(seed: int, *, seconds: float = 6.0) -> Composition:
    """Write a piece.

    Args:
        seed: The same seed gives the same piece.
        seconds: Length of the piece, from 2 to 60.

    Raises:
        ValueError: If ``seconds`` is out of range.
    """
    if not 2.0 <= seconds <= 60.0:
        raise ValueError(f"a piece must last from 2 to 60 seconds, got {seconds}")
    rng = random.Random(seed)
    style = STYLES[rng.choice(tuple(STYLES))]
    tempo = rng.choice(style.tempos)
    tonic = rng.choice(TONICS)
    mode = "minor" if rng.random() < style.minor else "major"
    lead = INSTRUMENTS[rng.choices(LEADS, LEAD_WEIGHTS)[0]]
    # A plucked or struck note dies away: with few of them the lead would hardly be heard.
    paces = ("slow", "slow", "even", "quick") if lead.sustains else ("even", "quick")
    plan = _Plan(
        style=style,
        tempo=tempo,
        bpm=rng.uniform(*TEMPO_BPM[tempo]),
        tonic=_PITCH_CLASS[tonic],
        mode=mode,
        progression=rng.choice(_PROGRESSIONS[mode]),
        # At a slow tempo two bars fill the piece: chords change twice a bar, or the mode is not settled.
        changes_per_bar=2 if tempo == "slow" else 1,
        pace=rng.choice(paces),
        seconds=seconds,
        jitter_seconds=0.0 if style.kit in ("electronic", "808") else 0.007,
    )
    register = rng.choice([name for name, window in _REGISTERS.items() if _overlap(lead, window) >= 10])
    articulation = rng.choice(tuple(_ARTICULATION)) if lead.sustains and plan.pace != "quick" else "plain"
    chords = INSTRUMENTS[rng.choice([name for name in style.chord_instruments if name != lead.tag] or ["piano"])]
    figure = FIGURES[rng.choice(style.chords)]
    parts = [
        _write(plan, rng, "lead", lead, _melody(plan, rng, lead, register, _ARTICULATION[articulation])),
        _write(plan, rng, "chords", chords, _chords(plan, rng, chords, figure, register)),
    ]
    if rng.random() < 0.3:
        choices = [name for name in BACKINGS if name not in (lead.tag, chords.tag)]
        backing = INSTRUMENTS[rng.choice(choices)]
        parts.append(_write(plan, rng, "backing", backing, _chords(plan, rng, backing, FIGURES["held"], register)))
    if style.bass is not None:
        bass = INSTRUMENTS[rng.choice(style.bass_instruments)]
        parts.append(_write(plan, rng, "bass", bass, _bass(plan, BASS_LINES[style.bass])))
    if rng.random() < style.drum_chance:
        parts += _drums(plan, rng)
    pitches = [note.pitch for note in parts[0].notes]
    facts = Facts(
        style=style.tag,
        tempo=tempo,
        mode=mode,
        instruments=tuple(dict.fromkeys(part.instrument for part in parts if not part.is_drum)),
        figures=tuple(dict.fromkeys([figure.tag, *("sustained chords" for part in parts if part.role == "backing")])),
        drums=any(part.is_drum for part in parts),
        lead_pitch=sum(pitches) / len(pitches),
        articulation=articulation,
        onsets_per_second=onset_count(parts) / seconds,
    )
    return Composition(seed, seconds, plan.bpm, f"{tonic} {mode}", tuple(parts), tags_of(facts))


def onset_count(parts: tuple[Part, ...] | list[Part]) -> int:
    """Moments at which something starts to sound; what starts within 40 ms counts once."""
    starts = sorted(note.start_seconds for part in parts for note in part.notes)
    count, last = 0, -math.inf
    for start in starts:
        if start - last > 0.04:
            count, last = count + 1, start
    return count


# A written hit: step in the piece, length in steps, pitch, level, delay in seconds.
_Hit = tuple[float, float, int, int, float]


def _write(plan: _Plan, rng: random.Random, role: str, instrument: Instrument, hits: list[_Hit]) -> Part:
    notes = _play(plan, rng, hits, role)
    return Part(role, instrument.tag, rng.choice(instrument.programs), False, notes)


def _play(plan: _Plan, rng: random.Random, hits: list[_Hit], role: str) -> tuple[Note, ...]:
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


def _overlap(instrument: Instrument, window: tuple[int, int]) -> int:
    return min(instrument.high, window[1]) - max(instrument.low, window[0])


def _fold(pitch: int, low: int, high: int) -> int:
    """Move a pitch by octaves into a range of at least an octave; a narrower range clamps it."""
    while pitch < low:
        pitch += 12
    while pitch > high:
        pitch -= 12
    return max(pitch, low)


def _melody(plan: _Plan, rng: random.Random, lead: Instrument, register: str, sounding: float) -> list[_Hit]:
    """A motif of two bars that comes back, stepping through the scale and resting on notes of the chord."""
    low, high = max(lead.low, _REGISTERS[register][0]), min(lead.high, _REGISTERS[register][1])
    rhythms = [rng.choice(_RHYTHMS[plan.pace]) for _ in range(2)]
    moves = [rng.choice((-2, -1, -1, 1, 1, 2)) for _ in range(32)]
    degree = min(range(70), key=lambda d: abs(plan.scale_pitch(d) - (low + high) / 2))
    hits: list[_Hit] = []
    for bar in range(plan.bars):
        step = 0
        for index, length in enumerate(rhythms[bar % 2]):
            if step >= plan.style.steps:
                break
            length = min(length, plan.style.steps - step)
            at = bar * plan.style.steps + step
            degree += moves[(16 * (bar % 2) + index) % 32]
            while plan.scale_pitch(degree) > high:
                degree -= 2
            while plan.scale_pitch(degree) < low:
                degree += 2
            if step % 4 == 0:
                degree = _nearest_chord_tone(plan, degree, at, low, high)
            pitch = _fold(plan.scale_pitch(degree), low, high)
            hits.append((at, length * sounding, pitch, 2 if step == 0 else 1, 0.0))
            step += length
    return hits


def _nearest_chord_tone(plan: _Plan, degree: int, step: float, low: int, high: int) -> int:
    root = plan.root_degree(step)
    for distance in (0, 1, -1, 2, -2, 3, -3):
        near = degree + distance
        if (near - root) % 7 in (0, 2, 4) and low <= plan.scale_pitch(near) <= high:
            return near
    return degree


def _voicing(plan: _Plan, step: float, instrument: Instrument, centre: int, voices: int) -> list[int]:
    """The chord from its root up, near a centre: root position keeps the mode plain to hear."""
    classes = plan.chord(step)
    root = min(
        (classes[0] + 12 * octave for octave in range(11) if classes[0] + 12 * octave >= instrument.low),
        key=lambda pitch: abs(pitch + 4 - centre),
    )
    pitches = [root + (pitch_class - classes[0]) % 12 for pitch_class in classes]
    pitches += [pitch + 12 for pitch in pitches]
    return [_fold(pitch, instrument.low, instrument.high) for pitch in pitches[:voices]]


def _chords(plan: _Plan, rng: random.Random, instrument: Instrument, figure: Figure, register: str) -> list[_Hit]:
    # Chords keep clear of the melody: below a high or middle one, above a low one.
    centre = 64 if register == "low" else 57
    pattern = figure.pattern
    if not pattern:
        pace = {"slow": 4, "even": 2, "quick": 1}[plan.pace]
        pattern = ("X" + "." * (pace - 1)).ljust(pace, ".") * (16 // pace)
    if len(pattern) > plan.style.steps:
        pattern = pattern[: plan.style.steps]
    chord_steps = plan.style.steps // plan.changes_per_bar
    hits: list[_Hit] = []
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
                pitches = _voicing(plan, at, instrument, centre, 4)
            if figure.order:
                # A broken chord rings on under the notes that follow it.
                hits.append((at, max(length, 2.0) * 1.5, pitches[figure.order[turn % len(figure.order)]], level, 0.0))
                turn += 1
                continue
            if figure.length == 0:
                length -= 0.25
            for voice, pitch in enumerate(dict.fromkeys(pitches)):
                hits.append((at, length, pitch, level, voice * figure.spread_seconds))
    return hits


def _bass(plan: _Plan, line: str) -> list[_Hit]:
    hits: list[_Hit] = []
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
            hits.append((at, (following - step) * 0.9, max(pitch, 29), 2 if step == 0 else 1, 0.0))
    return hits


def _drums(plan: _Plan, rng: random.Random) -> list[Part]:
    """One part per percussion instrument, so that each has its own place in the mix."""
    parts = []
    for name, pattern in plan.style.drums.items():
        hits: list[_Hit] = [
            (bar * plan.style.steps + step, 1.0, DRUM_NOTES[name], {"o": 0, "x": 1, "X": 2}[mark], 0.0)
            for bar in range(plan.bars)
            for step, mark in enumerate(pattern)
            if mark != "."
        ]
        parts.append(Part("drums", name, KITS[plan.style.kit], True, _play(plan, rng, hits, "drums")))
    return [part for part in parts if part.notes]
