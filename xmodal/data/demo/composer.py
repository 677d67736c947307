"""A small composer: from a seed to a short piece of music and the tags that can be heard in it.

Everything is decided by ``random.Random(seed)``: the style first (see :mod:`xmodal.data.demo.styles`), then what
the style leaves open. The lead instrument is drawn from all leads, whatever the style, so that a listener has to
hear both. Tags follow from what was written down, by the rules of
:mod:`xmodal.data.demo.tags`; none is drawn by itself.
"""

from __future__ import annotations

import random

from xmodal.data.demo import players
from xmodal.data.demo.instruments import BACKINGS, INSTRUMENTS, LEAD_WEIGHTS, LEADS, Instrument
from xmodal.data.demo.patterns import BASS_LINES, FIGURES
from xmodal.data.demo.score import Composition, Part, onset_count
from xmodal.data.demo.styles import STYLES, TEMPO_BPM
from xmodal.data.demo.tags import Facts, tags_of

# Few keys, so that a small model can learn major from minor out of a few thousand clips: with these three, it is
# heard in which notes there are; with all twelve, only in how they stand to a tonic that has to be found first.
TONICS = {"C": 0, "F": 5, "G": 7}
# Roots as scale degrees from 0. The tonic comes first and often: in six seconds nothing else settles the mode.
_PROGRESSIONS = {
    "major": ((0, 3, 0, 4), (0, 0, 3, 4), (0, 4, 0, 3), (0, 3, 4, 0), (0, 5, 3, 4)),
    "minor": ((0, 3, 0, 4), (0, 0, 3, 4), (0, 4, 0, 3), (0, 3, 4, 0), (0, 0, 6, 0)),
}
# Sounding part of a note's place.
_ARTICULATION = {"staccato": 0.25, "plain": 0.75, "legato": 1.05}


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
    tonic = rng.choice(tuple(TONICS))
    mode = "minor" if rng.random() < style.minor else "major"
    lead = INSTRUMENTS[rng.choices(LEADS, LEAD_WEIGHTS)[0]]
    # A plucked or struck note dies away: with few of them the lead would hardly be heard.
    paces = ("slow", "slow", "even", "quick") if lead.sustains else ("even", "quick")
    plan = players.Plan(
        style=style,
        tempo=tempo,
        bpm=rng.uniform(*TEMPO_BPM[tempo]),
        tonic=TONICS[tonic],
        mode=mode,
        progression=rng.choice(_PROGRESSIONS[mode]),
        # At a slow tempo two bars fill the piece: chords change twice a bar, or the mode is not settled.
        changes_per_bar=2 if tempo == "slow" else 1,
        pace=rng.choice(paces),
        seconds=seconds,
        jitter_seconds=0.0 if style.kit in ("electronic", "808") else 0.007,
    )
    register = rng.choice([name for name, window in players.REGISTERS.items() if _overlap(lead, window) >= 10])
    articulation = rng.choice(tuple(_ARTICULATION)) if lead.sustains and plan.pace != "quick" else "plain"
    chords = INSTRUMENTS[rng.choice(style.chord_instruments)]
    figure = FIGURES[rng.choice(style.chords)]
    parts = [
        _write(plan, rng, "lead", lead, players.melody(plan, rng, lead, register, _ARTICULATION[articulation])),
        _write(plan, rng, "chords", chords, players.chords(plan, chords, figure, register)),
    ]
    if rng.random() < 0.3:
        backing = INSTRUMENTS[rng.choice([name for name in BACKINGS if name not in (lead.tag, chords.tag)])]
        hits = players.chords(plan, backing, FIGURES["held"], register)
        parts.append(_write(plan, rng, "backing", backing, hits))
    if style.bass is not None:
        bass = INSTRUMENTS[rng.choice(style.bass_instruments)]
        parts.append(_write(plan, rng, "bass", bass, players.bass(plan, BASS_LINES[style.bass])))
    if rng.random() < style.drum_chance:
        parts += players.drums(plan, rng)
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


def _write(plan: players.Plan, rng: random.Random, role: str, instrument: Instrument, hits: list[players.Hit]) -> Part:
    notes = players.play(plan, rng, hits, role)
    return Part(role, instrument.tag, rng.choice(instrument.programs), False, notes)


def _overlap(instrument: Instrument, window: tuple[int, int]) -> int:
    return min(instrument.high, window[1]) - max(instrument.low, window[0])
