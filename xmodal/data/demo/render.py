"""From a composition to samples, through a General MIDI soundfont.

The synthesiser (symusic) plays every note equally loud, whatever its velocity and the channel's volume. So each
part is rendered in layers, one per level of loudness, and the mix is made here: every part is brought to the same
loudness and then to the place of its role, with the lead in front.
"""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from xmodal.data.demo.instruments import INSTRUMENTS, KITS
from xmodal.data.demo.score import Composition, Part
from xmodal.data.demo.soundfont import soundfont_path, tuned

# Decibels against the lead, for parts of equal loudness.
_ROLE_DB = {"lead": 0.0, "chords": -8.0, "backing": -9.5, "bass": -7.0, "drums": -6.5}
_LEVEL_DB = (-8.0, -4.0, 0.0)
_DRUM_DB = {"kick": 0.0, "snare": 0.0, "clap": -1.0, "rim": -3.0, "hat": -7.0, "open hat": -6.0, "ride": -6.0}
_OTHER_DRUM_DB = -6.0
_PEAK = 0.89


def render(composition: Composition, sample_rate: int = 16_000) -> Float[np.ndarray, " samples"]:
    """Play a composition.

    The synthesiser has been seen to hang on notes far outside an instrument's samples; compositions of
    :func:`~xmodal.data.demo.composer.compose` have none, and the corpus builder calls this in a process that it
    can end.

    Args:
        composition: What to play, on programs of :data:`~xmodal.data.demo.instruments.INSTRUMENTS` and
            :data:`~xmodal.data.demo.instruments.KITS`.
        sample_rate: In Hz, from 16,000 to 48,000.

    Returns:
        Mono float32 in [-1, 1], exactly ``composition.seconds`` long.

    Raises:
        ValueError: If ``sample_rate`` is out of range.
    """
    if not 16_000 <= sample_rate <= 48_000:
        raise ValueError(f"sample_rate must be from 16000 to 48000 Hz, got {sample_rate}")
    samples = round(composition.seconds * sample_rate)
    mix = np.zeros(samples, dtype=np.float32)
    for part in composition.parts:
        mix += _part(part, samples, sample_rate)
    fade = min(samples, sample_rate // 50)
    mix[samples - fade :] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)  # no click where held notes are cut
    peak = float(np.abs(mix).max())
    return mix * np.float32(_PEAK / peak) if peak > 0 else mix


def _part(part: Part, samples: int, sample_rate: int) -> Float[np.ndarray, " samples"]:
    out = np.zeros(samples, dtype=np.float32)
    for level, level_db in enumerate(_LEVEL_DB):
        layer = _layer(part, level, samples, sample_rate)
        if layer is not None:
            out[: len(layer)] += np.float32(10 ** (level_db / 20)) * layer
    gain_db = _ROLE_DB[part.role]
    if part.is_drum:
        # Percussion is a transient: its peak, not its mean power, is what stands beside the other parts.
        loudness = float(np.abs(out).max()) / 5.0
        gain_db += _DRUM_DB.get(part.instrument, _OTHER_DRUM_DB)
    else:
        loudness = _loudness(out, sample_rate)
    return out * np.float32(0.1 * 10 ** (gain_db / 20) / max(loudness, 1e-6))


def _loudness(signal: Float[np.ndarray, " samples"], sample_rate: int) -> float:
    """Root mean square over the louder half of the sounding 50-ms frames: rests do not count."""
    frame = sample_rate // 20
    power = np.square(signal[: len(signal) // frame * frame]).reshape(-1, frame).mean(axis=1)
    sounding = np.sort(power[power > power.max() * 1e-3])
    return float(np.sqrt(sounding[len(sounding) // 2 :].mean())) if len(sounding) else 0.0


def _layer(part: Part, level: int, samples: int, sample_rate: int) -> Float[np.ndarray, " samples"] | None:
    notes = [note for note in part.notes if note.level == level]
    if not notes:
        return None
    core = _symusic()
    track = core.TrackSecond("", part.program, part.is_drum)
    track.notes = core.NoteSecondList.from_numpy(
        np.array([note.start_seconds for note in notes], dtype=np.float32),
        np.array([note.duration_seconds for note in notes], dtype=np.float32),
        np.array([note.pitch for note in notes], dtype=np.int8),
        np.full(len(notes), 100, dtype=np.int8),
    )
    score = core.ScoreSecond(960)
    score.tracks.append(track)
    return _synthesisers(sample_rate)[part.program, part.is_drum].render(score, False)[0][:samples]


@lru_cache(maxsize=4)
def _synthesisers(sample_rate: int) -> dict[tuple[int, bool], Any]:
    """A synthesiser for each program: one that has played a program plays others with the same samples differently."""
    core = _symusic()
    programs = {(program, False) for instrument in INSTRUMENTS.values() for program in instrument.programs}
    programs |= {(program, True) for program in KITS.values()}
    # A synthesiser maps the file into memory, so it can be taken away at once and no killed worker leaves it behind.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "tuned.sf2"
        path.write_bytes(tuned(soundfont_path().read_bytes()))
        return {program: core.Synthesizer(str(path), sample_rate, 0) for program in sorted(programs)}


def _symusic() -> Any:
    try:
        from symusic import core
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("the demo corpus is played by symusic: pip install 'xmodal[demo]'") from error
    return core
