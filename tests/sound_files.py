"""Small sound files: tones that differ in pitch and motion, and noise of every length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

RATE = 8000
PITCHES = {"low": 220.0, "high": 1760.0}


def kind_of(number: int) -> tuple[str, str]:
    """Pitch and motion of a catalogue's nth tone: all four kinds in turn."""
    return ("low", "high")[number % 2], ("steady", "pulsing")[number // 2 % 2]


def write_tone(path: Path, rng: np.random.Generator, hertz: float, motion: str, loudness: np.ndarray) -> None:
    """A tone with a little noise, as long as ``loudness`` says for each sample; a pulsing one four times a second."""
    time = np.arange(len(loudness)) / RATE
    samples = loudness * np.sin(2 * np.pi * hertz * time)
    if motion == "pulsing":
        samples *= np.sin(2 * np.pi * 4 * time) > 0
    soundfile.write(path, (samples + 0.01 * rng.standard_normal(len(time))).astype("float32"), RATE)


def write_noises(folder: Path, kinds: Sequence[tuple[float, int, int]], *, silent: int) -> list[Path]:
    """A file for each (seconds, rate in Hz, channels), of which one is silent."""
    rng = np.random.default_rng(1)
    paths = []
    for number, (seconds, rate, channels) in enumerate(kinds):
        samples = rng.uniform(-0.5, 0.5, (round(seconds * rate), channels)) * (number != silent)
        paths.append(folder / f"{number}.wav")
        soundfile.write(paths[-1], samples.astype("float32"), rate)
    return paths
