"""One clip of the corpus, from its number to a file and a row: the work of one worker process."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import wave
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from xmodal.data.demo.captions import KINDS, captions_for
from xmodal.data.demo.composer import compose
from xmodal.data.demo.score import Composition

Renderer: TypeAlias = Callable[[Composition, int], np.ndarray]
_WAVE_HEADER_BYTES = 44
EXTRA_FIELDS = ("clip", "attempt", "caption_kinds", "key", "bpm", "parts")
"""What a clip's row says beside the fields of :class:`~xmodal.data.tracks.Track`."""

# Of every 20 clips in a row: 15 train, 2 validation, 3 test. So the first clips of a large corpus are a small one.
_SPLIT_OF_20 = ("train",) * 15 + ("validation",) * 2 + ("test",) * 3


@dataclass(frozen=True)
class Recipe:
    """What decides every byte of a corpus, but for its number of clips.

    Attributes:
        seed: The same seed gives the same corpus.
        seconds: Length of a clip.
        sample_rate: In Hz.
    """

    seed: int
    seconds: float
    sample_rate: int

    def composition_seed(self, clip: int, attempt: int) -> int:
        """The seed of a clip's composition. A clip whose rendering hangs is composed anew as the next attempt."""
        key = f"{self.seed}/{clip}/{attempt}".encode()
        return int.from_bytes(hashlib.blake2b(key, digest_size=6).digest(), "big")

    @property
    def file_bytes(self) -> int:
        """Size of every audio file of the corpus."""
        return _WAVE_HEADER_BYTES + 2 * round(self.seconds * self.sample_rate)


def split_of(clip: int) -> str:
    """The split of a clip, by its number."""
    return _SPLIT_OF_20[clip % 20]


def clip_path(clip: int) -> str:
    """The audio file of a clip, relative to the corpus."""
    return f"audio/clip-{clip:05d}.wav"


def make_clip(folder: Path, recipe: Recipe, clip: int, attempt: int, renderer: Renderer) -> dict[str, Any]:
    """Compose, word, render and write one clip.

    Args:
        folder: The corpus; its folder "audio" is there.
        recipe: What decides the clip.
        clip: Its number, from 0.
        attempt: How many earlier compositions for it could not be rendered.
        renderer: From a composition and a sample rate to samples.

    Returns:
        The clip's line in the manifest, but for the path.
    """
    seed = recipe.composition_seed(clip, attempt)
    composition = compose(seed, seconds=recipe.seconds)
    split = split_of(clip)
    samples = renderer(composition, recipe.sample_rate)
    _write_wave(folder / clip_path(clip), samples, recipe.sample_rate)
    return {
        "id": f"clip-{clip:05d}",
        "split": split,
        "tags": {kind: list(names) for kind, names in composition.tags.items()},
        "captions": [
            {"text": caption.text, "requires": sorted(caption.tags)}
            for caption in captions_for(composition, split, seed)
        ],
        "clip": clip,
        "attempt": attempt,
        "caption_kinds": list(KINDS),
        "key": composition.key,
        "bpm": round(composition.bpm, 1),
        "parts": {part.role: part.instrument for part in composition.parts if not part.is_drum},
    }


def _write_wave(path: Path, samples: np.ndarray, sample_rate: int) -> None:
    """16-bit mono WAV: a third of FLAC's cost to write and a fifth to read, and its size tells if it is complete."""
    aside = path.with_name(f".{path.name}.part")
    with wave.open(str(aside), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(np.rint(np.clip(samples, -1.0, 1.0) * 32767.0).astype("<i2").tobytes())
    os.replace(aside, path)


def serve(connection: Connection, folder: Path, recipe: Recipe, renderer: Renderer, time_limit_seconds: float) -> None:
    """The worker process: make the clips that come, as (clip, attempt) pairs, and send back (clip, row or error)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle: it ends its workers
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent has gone
        connection.send(None)  # ready: from now on the time limit of a clip counts
        while True:
            clip, attempt = connection.recv()
            # The parent ends a worker that hangs; if it was killed itself, the alarm does, and nothing runs on.
            _alarm(2 * time_limit_seconds + 1)
            try:
                result: Any = make_clip(folder, recipe, clip, attempt, renderer)
            except Exception as error:  # it is the parent's to raise
                result = error
            _alarm(0)
            connection.send((clip, result))


def _alarm(seconds: float) -> None:
    """Have the system end this process after a while, whatever it does then; 0 calls it off. Not on Windows."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)
