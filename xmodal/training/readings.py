"""What a frozen text encoder says of texts, kept for the run: each text is read once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xmodal.towers.base import TextTower

_TEXTS_AT_ONCE = 128


class ReadingCache:
    """Readings of a frozen tower by text, as long as there is room.

    Args:
        gigabytes: Room for them.
    """

    def __init__(self, gigabytes: float) -> None:
        self.gigabytes = gigabytes
        self.known: dict[str, Tensor] = {}
        self.bytes = 0

    @torch.no_grad()
    def read(self, tower: TextTower, texts: Sequence[str], device: torch.device, *, half: bool) -> list[Tensor]:
        """A reading of each text on the device; only those that are new are read.

        Args:
            tower: The frozen tower.
            texts: The texts.
            device: Where the tower is.
            half: Read in bfloat16.
        """
        unread = sorted(set(texts) - self.known.keys(), key=lambda text: (len(text), text))
        fresh: dict[str, Tensor] = {}
        for first in range(0, len(unread), _TEXTS_AT_ONCE):
            chunk = unread[first : first + _TEXTS_AT_ONCE]
            read = tower.read(tower.tokenize(chunk).to(device), half=half)
            # Token vectors are many, and float16 is exact enough to train on; a single vector is kept as it is.
            fresh |= {
                text: reading.half().cpu() if reading.ndim > 1 else reading.cpu()
                for text, reading in zip(chunk, read, strict=True)
            }
        if self.bytes < self.gigabytes * 1e9:
            self.known |= fresh
            self.bytes += sum(reading.nbytes for reading in fresh.values())
        known = self.known | fresh if fresh.keys() - self.known.keys() else self.known
        return [known[text].float().to(device) for text in texts]
