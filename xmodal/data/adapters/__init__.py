"""Published data sets, read from the user's own copy: each adapter is a class that YAML and the command line name.

How to add one: docs/howto-data.md. Where each comes from, and what it wants: its docstring.
"""

from xmodal.data.adapters.base import Adapter, CopyReport, Finding, Part
from xmodal.data.adapters.captions import AudioCaps, Clotho, MusicCaps, SongDescriber
from xmodal.data.adapters.fma import FMA
from xmodal.data.adapters.gtzan import GTZAN
from xmodal.data.adapters.lyrics import DALI, JamendoLyrics
from xmodal.data.adapters.magnatagatune import MagnaTagATune
from xmodal.data.adapters.mtg_jamendo import MTGJamendo
from xmodal.data.adapters.sounds import ESC50, NSynth, OpenMIC2018

__all__ = [
    "DALI",
    "ESC50",
    "FMA",
    "GTZAN",
    "Adapter",
    "AudioCaps",
    "Clotho",
    "CopyReport",
    "Finding",
    "JamendoLyrics",
    "MTGJamendo",
    "MagnaTagATune",
    "MusicCaps",
    "NSynth",
    "OpenMIC2018",
    "Part",
    "SongDescriber",
]
