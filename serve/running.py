"""A deployed model and index at work: the queues in front of them, and who is using them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
from jaxtyping import Float32

from serve.asked import refusals
from serve.batching import Batcher
from serve.decoding import Decoded
from serve.deployed import Deployed
from serve.metrics import Metrics
from serve.settings import Settings
from serve.tagger import Tagger, uncalibrated
from serve.texts import TextCache, TextVectors
from xmodal.audio import Window, cut
from xmodal.embedder import FileWindows
from xmodal.index import Condition
from xmodal.search import Hit, search
from xmodal.tagging import Tag, Vocabulary

P = ParamSpec("P")
T = TypeVar("T")
_TAGGERS = 16


@dataclass(frozen=True)
class Lookup:
    """A query vector and what is asked of the index; alike ones share a search.

    Attributes:
        vector: Unit vector.
        how: Number of hits, conditions, breadth.
    """

    vector: Float32[np.ndarray, " dim"]
    how: tuple[int, tuple[Condition, ...], int | None]


class Running:
    """A deployed model and index, and the queues in front of them.

    Args:
        deployed: Model and index.
        settings: How the server is set.
        cache: Vectors of texts, of any space.
        model_thread: Runs the model, one call at a time.
        search_thread: Runs searches that are batched, one call at a time.
        threads: Runs everything else.
        metrics: Where batches are counted.

    Attributes:
        users: Requests that hold it.
    """

    def __init__(
        self,
        deployed: Deployed,
        settings: Settings,
        *,
        cache: TextCache,
        model_thread: Executor,
        search_thread: Executor,
        threads: Executor,
        metrics: Metrics,
    ) -> None:
        self.deployed, self.users, self._retired = deployed, 0, False
        self._model_thread, self._threads = model_thread, threads
        embedder, index = deployed.embedder, deployed.index

        def batcher(
            name: str, compute: Callable[[list[Any]], Sequence[Any]], executor: Executor, size: int, wait_ms: float
        ) -> Batcher[Any, Any]:
            return Batcher(
                compute,
                executor,
                max_batch=size,
                max_wait_seconds=wait_ms / 1000,
                queue=settings.queue,
                observe=lambda count, seconds, waited: metrics.batch(name, count, seconds, waited),
            )

        def embed_texts(texts: list[str]) -> list[np.ndarray]:
            return list(embedder.embed_queries(texts))

        def embed_windows(parts: list[Window]) -> list[np.ndarray]:
            return list(embedder.embed_windows(parts))

        def look_up(lookups: list[Lookup]) -> list[list[Hit]]:
            alike: dict[Any, list[int]] = {}
            for place, lookup in enumerate(lookups):
                alike.setdefault(lookup.how, []).append(place)
            found: dict[int, list[Hit]] = {}
            for (k, where, breadth), places in alike.items():
                queries = np.stack([lookups[place].vector for place in places])
                hits = search(index, queries, k, space_id=deployed.space_id, where=where, breadth=breadth)
                found.update(zip(places, hits, strict=True))
            return [found[place] for place in range(len(lookups))]

        self._texts = batcher("text", embed_texts, model_thread, settings.max_batch, settings.max_wait_ms)
        # Small batches, so that a long upload does not keep texts waiting.
        self._windows = batcher("audio", embed_windows, model_thread, settings.max_audio_batch, 0)
        # Nobody waits here: what comes while one search runs is the next batch.
        self._lookups = batcher("search", look_up, search_thread, settings.max_batch, 0)
        for name, queue in (("text", self._texts), ("audio", self._windows), ("search", self._lookups)):
            metrics.watch(name, queue.count)
        self.texts = TextVectors(deployed.space_id, self._texts, cache, observe=lambda hit: metrics.cache("text", hit))
        self._once: dict[str, asyncio.Future[Any]] = {}
        self._taggers: OrderedDict[tuple[tuple[str, str | None], ...], Tagger] = OrderedDict()

    async def look_up(self, lookup: Lookup) -> list[Hit]:
        """The hits of a query; searches that come together are one."""
        (hits,) = await self._lookups.submit([lookup])
        return hits

    async def embed(self, decoded: Decoded, *, start_seconds: float = 0.0) -> FileWindows:
        """The windows of a sound and their vectors; other requests' windows share the batches.

        Args:
            decoded: Its samples, at the model's rate.
            start_seconds: Where in its file it begins.
        """
        model = self.deployed.embedder.model
        parts = cut(decoded.samples, model.sample_rate, model.windows)
        vectors: list[np.ndarray] = []
        for first in range(0, len(parts), self._windows.max_batch):  # never more of one request in the queue
            vectors += await self._windows.submit(parts[first : first + self._windows.max_batch])
        found = self.deployed.embedder.file_of(parts, np.stack(vectors))
        return replace(
            found,
            start_seconds=tuple(start + start_seconds for start in found.start_seconds),
            end_seconds=found.end_seconds + start_seconds,
        )

    async def tagger_for(self, tags: Sequence[Tag]) -> Tagger:
        """A vocabulary that a client brought; the last ones are remembered.

        Raises:
            Problem: 422 if a tag is named twice.
        """
        key = tuple((tag.name, tag.kind) for tag in tags)
        found = self._taggers.get(key)
        if found is None:
            with refusals():
                vocabulary = Vocabulary(tags)
            loop = asyncio.get_running_loop()
            deployed = self.deployed
            found = await loop.run_in_executor(
                self._model_thread, uncalibrated, vocabulary, deployed.embedder, deployed.catalogue
            )
            self._taggers[key] = found
            while len(self._taggers) > _TAGGERS:
                self._taggers.popitem(last=False)
        return found

    async def in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: function(*args, **kwargs))

    async def once(self, name: str, compute: Callable[[Deployed], T]) -> T:
        """What takes long and stays the same for as long as this model and index answer."""
        if name not in self._once:
            # A task of its own: the first who asks may leave while others wait for it.
            task = asyncio.ensure_future(self.in_thread(compute, self.deployed))
            self._once[name] = task
            # What failed is tried again by the next.
            task.add_done_callback(lambda done: done.exception() and self._once.pop(name, None))
        found: T = await asyncio.shield(self._once[name])
        return found

    def file_of(self, place: int) -> Path | None:
        """The file of a track, if it may be played."""
        return self.deployed.library.path_of(self.deployed.catalogue.facts([place])[0])

    def hold(self) -> None:
        """A request begins."""
        self.users += 1

    async def release(self) -> None:
        """A request is over; the last one of what was replaced gives it back."""
        self.users -= 1
        if self._retired and not self.users:
            await self.close()

    async def retire(self) -> None:
        """Something else answers from now on; what is under way is finished."""
        self._retired = True
        if not self.users:
            await self.close()

    async def close(self) -> None:
        """End the queues."""
        for queue in (self._texts, self._windows, self._lookups):
            await queue.close()
        await self.in_thread(self.deployed.index.close)
