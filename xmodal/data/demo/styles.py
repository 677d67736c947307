"""What makes a style: its beat, tempo, harmony rhythm, bass line, chord figure and instruments.

A style is heard in its drum pattern (where there are drums), in its bass line and in its chord figure; each row
of :data:`STYLES` says which. Patterns are written on a grid of sixteenths: ``x`` a hit, ``X`` an accent,
``o`` a soft hit, ``.`` nothing; 16 steps are a bar of four-four and 12 one of three-four.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

TEMPO_BPM: Mapping[str, tuple[int, int]] = {"slow": (54, 76), "medium tempo": (92, 114), "fast": (138, 176)}
"""Tempo tags and their beats per minute. The gaps between them keep the tags audible."""


@dataclass(frozen=True)
class Style:
    """How one style is played.

    Attributes:
        tag: Name of the style and tag of its pieces.
        tempos: Tempo tags that it may have.
        minor: Chance of a minor key.
        chords: Chord figures that the composer knows, see :mod:`xmodal.data.demo.patterns`.
        chord_instruments: Who may play them.
        bass: Bass line, or None where there is no bass.
        bass_instruments: Who may play it.
        drums: Pattern by percussion name; empty where the style has no drums.
        drum_chance: How often the drums play in a piece of this style.
        kit: Name of the drum kit.
        steps: Sixteenths in a bar.
        swing: How late the off-beats come, as a share of an eighth: 0 straight, 1/3 a triplet feel.
        ninths: Whether chords carry a ninth: colour that, unlike a seventh, leaves major and minor plain to hear.
    """

    tag: str
    tempos: tuple[str, ...]
    minor: float
    chords: tuple[str, ...]
    chord_instruments: tuple[str, ...]
    bass: str | None
    bass_instruments: tuple[str, ...]
    drums: Mapping[str, str]
    drum_chance: float
    kit: str = "standard"
    steps: int = 16
    swing: float = 0.0
    ninths: bool = False


_TABLE = (
    Style(
        "rock", ("medium tempo", "fast"), 0.4, ("repeated", "strum"),
        ("distorted guitar", "electric guitar", "organ"), "eighths", ("electric bass",),
        {"kick": "X.......X.x.....", "snare": "....X.......X...", "hat": "x.x.x.x.x.x.x.x."}, 0.9, "power",
    ),
    Style(
        "metal", ("fast",), 0.95, ("chug",),
        ("distorted guitar",), "eighths", ("electric bass",),
        {"kick": "XxxxXxxxXxxxXxxx", "snare": "....X.......X...", "crash": "x.......x......."}, 1.0, "power",
    ),
    Style(
        "jazz", ("medium tempo", "fast"), 0.5, ("charleston",),
        ("piano", "electric guitar", "vibraphone"), "walking", ("upright bass",),
        {"ride": "X...x.x.X...x.x.", "rim": "....o.......o...", "kick": "o.......o......."}, 0.8, "brush",
        swing=1 / 3, ninths=True,
    ),
    Style(
        "bossa nova", ("medium tempo",), 0.5, ("bossa",),
        ("acoustic guitar", "electric piano"), "bossa", ("upright bass", "electric bass"),
        {"rim": "x..x..x...x..x..", "shaker": "xoxoxoxoxoxoxoxo", "kick": "x.....xxx.....xx"}, 0.85,
        ninths=True,
    ),
    Style(
        "reggae", ("slow", "medium tempo"), 0.4, ("skank",),
        ("electric guitar", "organ"), "reggae", ("electric bass",),
        {"kick": "........X.......", "rim": "........X.......", "hat": "x.xox.xox.xox.xo"}, 0.9,
    ),
    Style(
        "disco", ("medium tempo", "fast"), 0.4, ("offbeat",),
        ("electric guitar", "strings", "electric piano"), "octaves", ("synth bass", "slap bass"),
        {"kick": "X...X...X...X...", "clap": "....X.......X...", "open hat": "..x...x...x...x."}, 1.0, "electronic",
    ),
    Style(
        "techno", ("fast",), 0.85, ("pulse",),
        ("synth lead", "synth pad"), "pulse", ("synth bass",),
        {"kick": "X...X...X...X...", "hat": "..x...x...x...x.", "shaker": "oxoxoxoxoxoxoxox"}, 1.0, "808",
    ),
    Style(
        "hip hop", ("slow", "medium tempo"), 0.7, ("held", "charleston"),
        ("electric piano", "piano", "strings"), "sub", ("synth bass",),
        {"kick": "X..x..x...X.....", "clap": "....X.......X...", "hat": "x.x.x.xxx.x.x.x."}, 1.0, "808",
        swing=0.2,
    ),
    Style(
        "funk", ("medium tempo",), 0.4, ("sixteenths",),
        ("electric guitar", "organ", "brass section"), "funk", ("slap bass",),
        {"kick": "X..x..X...x..x..", "snare": "....X..o.o..X..o", "hat": "xxxxxxxxxxxxxxxx"}, 1.0, ninths=True,
    ),
    Style(
        "waltz", ("medium tempo", "fast"), 0.5, ("waltz",),
        ("accordion", "strings", "piano", "harp"), "downbeat", ("upright bass", "tuba"),
        {"kick": "X...........", "rim": "....x...x..."}, 0.35, "brush", steps=12,
    ),
    Style(
        "march", ("medium tempo",), 0.15, ("oompah",),
        ("brass section", "french horn", "trombone"), "root and fifth", ("tuba",),
        {"kick": "X.......X.......", "snare": "x.xxx.x.x.xxxxxx", "crash": "x..............."}, 0.85, "orchestra",
    ),
    Style(
        "ballad", ("slow",), 0.5, ("arpeggio", "held"),
        ("piano", "electric piano", "acoustic guitar"), "whole notes", ("electric bass", "upright bass"),
        {"kick": "X.......x.......", "rim": "....x.......x...", "hat": "x.x.x.x.x.x.x.x."}, 0.5,
    ),
    Style(
        "folk", ("slow", "medium tempo", "fast"), 0.35, ("strum", "arpeggio"),
        ("acoustic guitar", "banjo", "accordion"), None, (),
        {"tambourine": "..x...x...x...x.", "low conga": "X.......X......."}, 0.3,
    ),
    Style(
        "latin", ("fast",), 0.5, ("montuno",),
        ("piano", "marimba", "steel drums"), "tumbao", ("upright bass", "electric bass"),
        {"clave": "x..x..x...x.x...", "high conga": "x.x...x.x.x...x.", "low conga": "......xx......xx",
         "cowbell": "X...x...X...x..."}, 0.95,
    ),
    Style(
        "ambient", ("slow",), 0.5, ("held",),
        ("synth pad", "choir", "strings"), None, (), {}, 0.0, ninths=True,
    ),
    Style(
        "classical", ("slow", "medium tempo", "fast"), 0.5, ("alberti", "arpeggio"),
        ("piano", "harpsichord", "pizzicato strings", "harp", "church organ"), None, (), {}, 0.0,
    ),
)  # fmt: skip

STYLES: dict[str, Style] = {style.tag: style for style in _TABLE}
"""Every style by its tag."""
