"""Decoded samples on disk, so that a window that may begin anywhere costs a read and no decoding.

The first window that is asked of a file decodes all of it. The samples are kept in 16 bits at the tower's rate, in
blocks of a second with a checksum each, in the folder of :class:`~xmodal.data.cache.FeatureCache` and by its rules:
named by the file's content, within a bound, damaged ones made anew. Rounding to 16 bits adds noise 101 dB below full
scale, which is below the floor of a log-mel.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int16

from xmodal.audio import AudioLike
from xmodal.data.cache import FeatureCache

LONGEST_SECONDS = 3600.0
"""Of a longer file each window is decoded: all of it must fit into a worker's memory, 350 MB for an hour at 16 kHz."""

_BLOCK_SECONDS = 1  # read too much at most: a tenth of a window at each end
_FULL_SCALE = 32_767.0


class Decode(Protocol):
    """What :func:`xmodal.audio.load` and :meth:`xmodal.audio.IsolatedDecoder.load` are."""

    def __call__(
        self,
        audio: AudioLike,
        sample_rate: int,
        /,
        *,
        start_seconds: float = 0.0,
        duration_seconds: float | None = None,
    ) -> Float[np.ndarray, " samples"]:
        """Mono samples of a file or a part of it."""


class SampleCache:
    """Decodes each file once and reads parts of it from then on.

    Args:
        cache: Where samples are kept.
        decode: Decodes what is not there.
    """

    def __init__(self, cache: FeatureCache, decode: Decode) -> None:
        self.cache, self.decode = cache, decode
        self._asked: set[AudioLike] = set()

    def load(
        self, audio: AudioLike, sample_rate: int, *, start_seconds: float, duration_seconds: float, file_seconds: float
    ) -> Float[np.ndarray, " samples"]:
        """The part that :func:`xmodal.audio.load` gives, in steps of 1 / 32,767.

        Args:
            audio: Any audio file.
            sample_rate: Rate of the result in Hz.
            start_seconds: Where to begin.
            duration_seconds: How much to read.
            file_seconds: What the file says of its length.

        Raises:
            AudioError: As ``load``, and also for damage anywhere in a file that is kept.
        """
        part = {"start_seconds": start_seconds, "duration_seconds": duration_seconds}
        if file_seconds > LONGEST_SECONDS:
            return self.decode(audio, sample_rate, **part)
        block = _BLOCK_SECONDS * sample_rate
        start = round(start_seconds * sample_rate)
        stop = start + round(duration_seconds * sample_rate)
        key: dict[str, Any] = {"samples": sample_rate, "block": block}
        first, last = start // block, math.ceil(stop / block)
        # A file that this run asks for does not make room for others; saying so once is enough.
        there = audio in self._asked or self.cache.has(audio, key)
        found = self.cache.windows(audio, key, first, last) if there else None
        self._asked.add(audio)
        if found is None:
            if self.cache.full:
                return self.decode(audio, sample_rate, **part)
            whole = _to_16_bits(self.decode(audio, sample_rate))
            blocks = np.zeros((math.ceil(len(whole) / block), 1, block), dtype=np.int16)
            blocks.reshape(-1)[: len(whole)] = whole
            valid = torch.full((len(blocks),), block)
            valid[-1] = len(whole) - block * (len(blocks) - 1)
            self.cache.put(audio, key, torch.from_numpy(blocks), valid)
            kept = whole[start:stop]
        else:
            values, valid = found
            kept = values.numpy().reshape(-1)[: int(valid.sum())][start - first * block : stop - first * block]
        if len(kept) == 0:
            return self.decode(audio, sample_rate, **part)  # it says what is wrong with the file or the place
        return kept.astype(np.float32) / np.float32(_FULL_SCALE)


def _to_16_bits(samples: Float[np.ndarray, " samples"]) -> Int16[np.ndarray, " samples"]:
    return np.rint(samples * _FULL_SCALE).astype(np.int16)
