"""The instruments of the demo corpus: General MIDI programs, natural ranges and the parts they may play.

The ranges are about those of the real instruments, and within what the soundfont's samples carry; nothing is ever
played outside the table.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Instrument:
    """A sound that a listener would call by one name.

    Attributes:
        tag: That name; also the tag of a piece in which it plays.
        programs: General MIDI programs, from 0, that sound like it.
        low: Lowest note that is written for it, as a MIDI number.
        high: Highest one.
        sustains: Whether a held note keeps sounding (winds, bows, organs) or dies away (strings that are plucked,
            keys that are struck). Only sounds that last can be told legato from staccato by their ends.
    """

    tag: str
    programs: tuple[int, ...]
    low: int
    high: int
    sustains: bool


_TABLE = (
    # Keys and mallets
    Instrument("piano", (0, 1), 33, 96, False),
    Instrument("electric piano", (4, 5), 36, 90, False),
    Instrument("harpsichord", (6,), 40, 86, False),
    Instrument("organ", (16, 17, 18), 36, 90, True),
    Instrument("church organ", (19,), 36, 88, True),
    Instrument("accordion", (21,), 48, 84, True),
    Instrument("glockenspiel", (9,), 67, 100, False),
    Instrument("vibraphone", (11,), 53, 88, False),
    Instrument("marimba", (12,), 45, 91, False),
    Instrument("steel drums", (114,), 52, 86, False),
    # Plucked strings
    Instrument("acoustic guitar", (24, 25), 40, 83, False),
    Instrument("electric guitar", (26, 27), 40, 86, False),
    Instrument("distorted guitar", (29, 30), 40, 86, True),
    Instrument("banjo", (105,), 48, 86, False),
    Instrument("sitar", (104,), 48, 84, False),
    Instrument("harp", (46,), 36, 93, False),
    Instrument("pizzicato strings", (45,), 43, 86, False),
    # Bowed strings and voices
    Instrument("violin", (40,), 55, 91, True),
    Instrument("cello", (42,), 36, 72, True),
    Instrument("strings", (48, 49), 40, 86, True),
    Instrument("choir", (52, 53), 45, 79, True),
    # Winds
    Instrument("trumpet", (56,), 54, 84, True),
    Instrument("trombone", (57,), 40, 72, True),
    Instrument("french horn", (60,), 41, 77, True),
    Instrument("brass section", (61,), 45, 81, True),
    Instrument("saxophone", (65, 66), 49, 81, True),
    Instrument("oboe", (68,), 58, 88, True),
    Instrument("bassoon", (70,), 34, 69, True),
    Instrument("clarinet", (71,), 50, 88, True),
    Instrument("flute", (73,), 60, 93, True),
    Instrument("harmonica", (22,), 58, 88, True),
    # Electronic
    Instrument("synth lead", (80, 81), 45, 86, True),
    Instrument("synth pad", (89, 90), 40, 84, True),
    # Basses
    Instrument("upright bass", (32,), 28, 55, False),
    Instrument("electric bass", (33, 34), 28, 55, False),
    Instrument("slap bass", (36,), 28, 55, False),
    Instrument("synth bass", (38, 39), 28, 55, True),
    Instrument("tuba", (58,), 29, 55, True),
)

INSTRUMENTS: dict[str, Instrument] = {instrument.tag: instrument for instrument in _TABLE}
"""Every pitched instrument by its tag."""

BASSES = ("upright bass", "electric bass", "slap bass", "synth bass", "tuba")
BACKINGS = ("strings", "choir", "synth pad", "organ", "french horn")
"""What may hold soft chords behind the rest."""

LEADS = tuple(tag for tag in INSTRUMENTS if tag not in (*BASSES, "synth pad"))
"""What may carry the melody."""

_ACCOMPANISTS = {
    *("piano", "electric piano", "organ", "accordion", "acoustic guitar", "electric guitar", "distorted guitar"),
    *("strings", "choir", "french horn", "brass section", "synth lead"),
}
LEAD_WEIGHTS = tuple(1.0 if tag in _ACCOMPANISTS else 2.0 for tag in LEADS)
"""Chances of the leads: twice as high for what seldom accompanies, so that no instrument tag is rare."""

DRUM_NOTES = {
    "kick": 36,
    "rim": 37,
    "snare": 38,
    "clap": 39,
    "hat": 42,
    "open hat": 46,
    "ride": 51,
    "crash": 49,
    "low tom": 45,
    "high tom": 50,
    "tambourine": 54,
    "cowbell": 56,
    "high conga": 63,
    "low conga": 64,
    "shaker": 70,
    "clave": 75,
}
"""General MIDI percussion keys."""

KITS = {"standard": 0, "power": 16, "electronic": 24, "808": 25, "brush": 40, "orchestra": 48}
"""General MIDI level 2 drum kits, by program."""
