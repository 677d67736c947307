"""Chord figures and bass lines, on the same grid of sixteenths as the drum patterns of the styles.

Chord figures: ``x`` and ``X`` strike the whole chord; a figure with an ``order`` breaks it, one voice a hit.
Bass lines: ``r`` root, ``t`` third, ``f`` fifth, ``o`` octave, ``a`` a step below the next root.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """How an accompanist plays chords.

    Attributes:
        tag: What a listener would call it; the tag of kind "accompaniment".
        pattern: Hits in one bar; empty: broken chords, whose pace follows the density of the piece.
        length: Length of a hit in sixteenths; 0: until the next one.
        order: Voices in turn, counted from the lowest, for broken chords.
        spread_seconds: Delay from string to string, for strummed chords.
        power: Root, fifth and octave only, in the low register.
    """

    tag: str
    pattern: str = ""
    length: float = 0.0
    order: tuple[int, ...] = ()
    spread_seconds: float = 0.0
    power: bool = False


FIGURES: dict[str, Figure] = {
    "held": Figure("sustained chords", "X..............."),
    "strum": Figure("strummed chords", "X...x.x...x.x.x.", spread_seconds=0.016),
    "arpeggio": Figure("arpeggios", order=(0, 1, 2, 3, 2, 1)),
    "alberti": Figure("arpeggios", order=(0, 2, 1, 2)),
    "repeated": Figure("rhythmic chords", "X.x.x.x.X.x.x.x.", length=1.7),
    "chug": Figure("rhythmic chords", "X.xxX.xxX.xxX.xx", length=0.9, power=True),
    "charleston": Figure("rhythmic chords", "X.....x.........", length=2.0),
    "bossa": Figure("rhythmic chords", "X..x..x...x..x..", length=1.5),
    "skank": Figure("rhythmic chords", "....X.......X...", length=1.2),
    "offbeat": Figure("rhythmic chords", "..X...X...X...X.", length=1.0),
    "pulse": Figure("rhythmic chords", "X..x..x.X..x..x.", length=1.0),
    "sixteenths": Figure("rhythmic chords", "X..x.xx...x.xx..", length=0.8),
    "waltz": Figure("rhythmic chords", "....x...x...", length=2.0),
    "oompah": Figure("rhythmic chords", "....x.......x...", length=1.6),
    "montuno": Figure("arpeggios", "X.xx.x.x.x.xx.x.", length=1.2, order=(0, 2, 1, 3, 0, 2, 1, 3)),
}
"""Every chord figure by its name."""

BASS_LINES: dict[str, str] = {
    "eighths": "r.r.r.r.r.r.r.r.",
    "walking": "r...t...f...a...",
    "bossa": "r.....f.f.....r.",
    "reggae": "..r.r.t.f...r...",
    "octaves": "r.o.r.o.r.o.r.o.",
    "pulse": "..rr..rr..rr..rr",
    "sub": "r.....r...r.....",
    "funk": "r..r..o.r.r..f.o",
    "downbeat": "r...........",
    "root and fifth": "r.......f.......",
    "whole notes": "r.......r.......",
    "tumbao": "r.....f.....r...",
}
"""Every bass line by its name."""
