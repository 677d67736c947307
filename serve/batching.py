"""Requests that come at the same time share a pass of the model.

While one batch is computed the next gathers. It starts when it is full, when its first item has waited
``max_wait_seconds``, or at once if the batch before it was one request's: then nobody is there to wait for, and who
asks alone does not wait. What waits is bounded: a request that finds no room is refused at once (429 with Retry-After)
instead of making everybody late. Who gives up (its client left, its time is over) takes its items out of the queue, so
that nothing is computed for nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

from serve.problems import Problem

Item = TypeVar("Item")
Result = TypeVar("Result")
Observe = Callable[[int, float, float], None]


class Batcher(Generic[Item, Result]):
    """Items of many requests to results, computed in batches off the event loop, one batch at a time.

    Args:
        compute: Items to as many results, in order; called in the executor.
        executor: Where to compute.
        max_batch: Items of one batch.
        max_wait_seconds: How long the first item of a batch waits for others, while requests come together.
        queue: Items that may wait.
        observe: Told of each batch: its size, the seconds of its computing, the seconds that its first item waited.
    """

    def __init__(
        self,
        compute: Callable[[list[Item]], Sequence[Result]],
        executor: Executor,
        *,
        max_batch: int,
        max_wait_seconds: float,
        queue: int,
        observe: Observe | None = None,
    ) -> None:
        self._compute, self._executor, self._observe = compute, executor, observe
        self.max_batch, self.max_wait_seconds, self.queue = max_batch, max_wait_seconds, queue
        self._entries: deque[tuple[_Request[Item, Result], int]] = deque()
        self._waiting = 0  # entries whose request has not given up
        self._together = False  # whether the last batch was of several requests
        self._arrived = asyncio.Event()
        self._seconds_an_item = 0.01
        self._worker: asyncio.Task[None] | None = None
        self._closed = False

    def count(self) -> int:
        """How many items wait."""
        return self._waiting

    async def submit(self, items: Sequence[Item]) -> list[Result]:
        """The results of some items, in order.

        Raises:
            Problem: 429 if the queue has no room for them, 503 if the batcher is closed.
            ValueError: What ``compute`` raised for an item of this request; other requests do not see it.
        """
        if not items:
            return []
        if self._closed:
            raise Problem(503, "the server is stopping; ask again in a moment", kind="draining")
        if self._waiting and self._waiting + len(items) > self.queue:
            seconds = max(1, math.ceil(self._waiting * self._seconds_an_item))
            raise Problem(
                429,
                f"{self._waiting} items are waiting and the queue holds {self.queue}; ask again in {seconds} s",
                headers={"Retry-After": str(seconds)},
            )
        loop = asyncio.get_running_loop()
        if self._worker is None:
            self._worker = asyncio.create_task(self._work(), name="batcher")
        request: _Request[Item, Result] = _Request(items, loop.create_future(), loop.time())
        self._entries.extend((request, position) for position in range(len(items)))
        self._waiting += len(items)
        self._arrived.set()
        try:
            return await request.future
        finally:
            self._waiting -= request.untaken
            request.untaken = 0

    async def close(self) -> None:
        """Finish what is being computed; refuse what waits and what comes."""
        self._closed = True
        for request, _ in self._entries:
            if not request.future.done():
                request.future.set_exception(
                    Problem(503, "the server is stopping; ask again in a moment", kind="draining")
                )
        self._entries.clear()
        if self._worker is not None:
            self._worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._worker

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while not self._entries:
                self._arrived.clear()
                await self._arrived.wait()
            since = self._entries[0][0].since
            until = since + self.max_wait_seconds if self._together else since
            while self._waiting < self.max_batch and (left := until - loop.time()) > 0:
                self._arrived.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._arrived.wait(), left)
            batch = self._take()
            if not batch:
                continue
            self._together = any(request is not batch[0][0] for request, _ in batch)
            begun = loop.time()
            await self._answer(batch)
            seconds = loop.time() - begun
            self._seconds_an_item = 0.8 * self._seconds_an_item + 0.2 * seconds / len(batch)
            if self._observe is not None:
                self._observe(len(batch), seconds, begun - since)

    def _take(self) -> list[tuple[_Request[Item, Result], int]]:
        batch: list[tuple[_Request[Item, Result], int]] = []
        while self._entries and len(batch) < self.max_batch:
            request, position = self._entries.popleft()
            if not request.future.done():
                request.untaken -= 1
                self._waiting -= 1
                batch.append((request, position))
        return batch

    async def _answer(self, batch: list[tuple[_Request[Item, Result], int]]) -> None:
        loop = asyncio.get_running_loop()
        try:
            items = [request.items[position] for request, position in batch]
            results = await loop.run_in_executor(self._executor, self._compute, items)
        except Exception as error:
            if len(batch) == 1:
                batch[0][0].fail(error)
                return
            for one in batch:  # whose item it was shows when each is alone
                if not one[0].future.done():
                    await self._answer([one])
            return
        for (request, position), result in zip(batch, results, strict=True):
            request.give(position, result)


class _Request(Generic[Item, Result]):
    """Items of one request, and what is known of them."""

    def __init__(self, items: Sequence[Item], future: asyncio.Future[list[Result]], since: float) -> None:
        self.items, self.future, self.since = items, future, since
        self.untaken = len(items)
        self._results: dict[int, Result] = {}

    def give(self, position: int, result: Result) -> None:
        self._results[position] = result
        if len(self._results) == len(self.items) and not self.future.done():
            self.future.set_result([self._results[place] for place in range(len(self.items))])

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)
