"""Sounds that clients have sent: their vectors, kept for a while so that queries may use them."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from serve.problems import Problem


@dataclass(frozen=True)
class Upload:
    """What is kept of an uploaded sound.

    Attributes:
        name: The file's name, as the client calls it.
        space_id: The space of its vector.
        vector: Unit vector.
        duration_seconds: Of its audio.
        until: When it is forgotten, on the store's clock.
    """

    name: str
    space_id: str
    vector: Float32[np.ndarray, " dim"]
    duration_seconds: float
    until: float


class Uploads:
    """The vectors of the last uploads, under names that cannot be guessed.

    Args:
        most: How many are kept; the oldest goes first.
        keep_seconds: How long each is kept.
        clock: Seconds.
    """

    def __init__(self, most: int, keep_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.most, self.keep_seconds, self._clock = most, keep_seconds, clock
        self._kept: OrderedDict[str, Upload] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, name: str, space_id: str, vector: Float32[np.ndarray, " dim"], duration_seconds: float) -> str:
        """Keep a vector; gives the name that queries use."""
        now = self._clock()
        self._forget(now)
        while len(self._kept) >= self.most:
            self._kept.popitem(last=False)
        key = f"u_{secrets.token_urlsafe(16)}"
        self._kept[key] = Upload(name, space_id, vector, duration_seconds, now + self.keep_seconds)
        return key

    def get(self, key: str, space_id: str) -> Upload:
        """An upload that was kept.

        Raises:
            Problem: 404 if it is not there any more, or was heard by another model.
        """
        self._forget(self._clock())
        found = self._kept.get(key)
        if found is None or found.space_id != space_id:
            raise Problem(
                404,
                f"the upload {key[:100]!r} is not kept any more; send the file again to /v1/uploads",
                kind="unknown-upload",
            )
        return found

    def _forget(self, now: float) -> None:
        while self._kept and next(iter(self._kept.values())).until <= now:
            self._kept.popitem(last=False)
