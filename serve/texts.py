"""Vectors of texts: remembered, else computed in shared batches."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float32

from serve.batching import Batcher


class TextCache:
    """The vectors of the texts that were asked for last, by space and text; for the event loop's thread alone.

    Args:
        size: How many to remember.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._vectors: OrderedDict[tuple[str, str], Float32[np.ndarray, " dim"]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._vectors)

    def get(self, space_id: str, text: str) -> Float32[np.ndarray, " dim"] | None:
        """The vector of a text, or None."""
        found = self._vectors.get((space_id, text))
        if found is not None:
            self._vectors.move_to_end((space_id, text))
        return found

    def put(self, space_id: str, text: str, vector: Float32[np.ndarray, " dim"]) -> None:
        """Remember a vector; the one that was asked for longest ago goes."""
        # A copy, made in this thread: a vector out of a batch is a view that would keep all of the batch, and what
        # stays for long among a model's passing tensors leaves gaps that its thread's allocator cannot use.
        self._vectors[space_id, text] = vector.copy()
        self._vectors.move_to_end((space_id, text))
        while len(self._vectors) > self.size:
            self._vectors.popitem(last=False)


class TextVectors:
    """Texts to unit vectors of one space.

    Args:
        space_id: The space.
        batcher: Computes what is not remembered.
        cache: May be shared by several spaces.
        observe: Told of each text whether it was remembered.
    """

    def __init__(
        self,
        space_id: str,
        batcher: Batcher[str, Float32[np.ndarray, " dim"]],
        cache: TextCache,
        observe: Callable[[bool], None] | None = None,
    ) -> None:
        self.space_id, self.batcher, self._cache, self._observe = space_id, batcher, cache, observe

    async def of(self, texts: Sequence[str]) -> list[Float32[np.ndarray, " dim"]]:
        """The vector of each text.

        Raises:
            Problem: If the queue is full.
            ValueError: If a text has no words, or its fields cancel.
        """
        found = {text: self._cache.get(self.space_id, text) for text in texts}
        if self._observe is not None:
            for text in texts:
                self._observe(found[text] is not None)
        missing = [text for text, vector in found.items() if vector is None]
        for text, made in zip(missing, await self.batcher.submit(missing), strict=True):
            found[text] = made
            self._cache.put(self.space_id, text, made)
        return [vector for text in texts if (vector := found[text]) is not None]
