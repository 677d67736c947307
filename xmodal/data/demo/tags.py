"""Which tags a piece has: rules on what was written, each with a cause that can be heard.

=============  ==========================================================================================
kind           rule
=============  ==========================================================================================
instrument     plays in the piece (lead, chords, backing or bass; every part is loud enough to be heard)
style          the style it was written in
tempo          beats per minute: slow 54-76, medium tempo 92-114, fast 138-176
mode           major key or minor key: the scale, and the chords built on it
drums          "drums" where percussion plays, else "no drums"
density        sparse or busy: moments per second at which something starts
register       high or low: mean pitch of the lead; the middle has no tag
articulation   staccato or legato: length of the lead's notes against their place; only for sounds that last
accompaniment  the chord figures: arpeggios, sustained, strummed or rhythmic chords
mood           see :data:`MOODS`
=============  ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

SPARSE_BELOW = 2.6
"""Starts per second below which a piece is sparse."""

BUSY_ABOVE = 7.0
"""Starts per second above which a piece is busy."""

LOW_BELOW = 56.0
"""Mean MIDI pitch of the lead below which its register is low."""

HIGH_ABOVE = 75.0
"""Mean MIDI pitch of the lead above which its register is high."""


@dataclass(frozen=True)
class Facts:
    """What was written, as far as the tags depend on it."""

    style: str
    tempo: str
    mode: str
    instruments: tuple[str, ...]
    figures: tuple[str, ...]
    drums: bool
    lead_pitch: float
    articulation: str
    onsets_per_second: float

    @property
    def low(self) -> bool:
        """Whether the lead is in the low register."""
        return self.lead_pitch < LOW_BELOW

    @property
    def high(self) -> bool:
        """Whether the lead is in the high register."""
        return self.lead_pitch > HIGH_ABOVE

    @property
    def arousal(self) -> float:
        """How excited a piece is, from -2.5 to 2.5: tempo, density and drums add up (Russell's circumplex, 1980)."""
        pace = {"slow": -1.0, "medium tempo": 0.0, "fast": 1.0}[self.tempo]
        density = (self.onsets_per_second > BUSY_ABOVE) - float(self.onsets_per_second < SPARSE_BELOW)
        return pace + density + (0.5 if self.drums else -0.5)


MOODS: Mapping[str, Callable[[Facts], bool]] = {
    "happy": lambda facts: facts.mode == "major" and facts.arousal >= 0.5 and not facts.low,
    "energetic": lambda facts: facts.arousal >= 1.5,
    "tense": lambda facts: facts.mode == "minor" and facts.arousal >= 0.5,
    "calm": lambda facts: facts.mode == "major" and facts.arousal <= -0.5,
    "sad": lambda facts: facts.mode == "minor" and facts.arousal <= -0.5,
    "dark": lambda facts: facts.mode == "minor" and facts.low,
    "dreamy": lambda facts: facts.tempo == "slow" and not facts.drums and "sustained chords" in facts.figures,
}
"""Moods and the audible causes they follow from: mode for the sign, arousal for the size, register and touch."""


def tags_of(facts: Facts) -> dict[str, tuple[str, ...]]:
    """The tags of a piece by kind, in the order of the table above. A kind that says nothing is left out."""
    density = "sparse" if facts.onsets_per_second < SPARSE_BELOW else "busy"
    is_plain = SPARSE_BELOW <= facts.onsets_per_second <= BUSY_ABOVE
    tags = {
        "instrument": facts.instruments,
        "style": (facts.style,),
        "tempo": (facts.tempo,),
        "mode": (f"{facts.mode} key",),
        "drums": ("drums" if facts.drums else "no drums",),
        "density": () if is_plain else (density,),
        "register": ("low register",) if facts.low else ("high register",) if facts.high else (),
        "articulation": () if facts.articulation == "plain" else (facts.articulation,),
        "accompaniment": facts.figures,
        "mood": tuple(name for name, rule in MOODS.items() if rule(facts)),
    }
    return {kind: names for kind, names in tags.items() if names}
