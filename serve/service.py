"""What lives as long as the server: what answers now, the threads that compute, and how it comes and goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import ParamSpec, TypeVar

import numpy as np
import torch

from serve.batching import Batcher
from serve.deployed import Deployed, deploy
from serve.metrics import Metrics
from serve.problems import Problem
from serve.settings import Settings
from serve.texts import TextCache, TextVectors
from xmodal.embedder import usable_cores
from xmodal.errors import XmodalError

P = ParamSpec("P")
T = TypeVar("T")


class Service:
    """The state of one application.

    Args:
        settings: How it is set.

    Raises:
        ValueError: If a setting is out of range, or there is no index to serve.

    Attributes:
        failure: Why loading failed, if it did.
        draining: The server is on its way out.
        metrics: What is counted.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings.check()
        if settings.index is None:
            raise ValueError("say which index to serve: --index DIR; xmodal serve without one makes and serves a demo")
        self.index: str = settings.index
        self.metrics = Metrics()
        self.failure: Exception | None = None
        self.draining = False
        self._current: Running | None = None
        self._settled = asyncio.Event()
        self._cache = TextCache(settings.text_cache)
        cores = usable_cores()
        # One thread runs the model; a core is left to the event loop, decoding and searching.
        self._model_thread = ThreadPoolExecutor(1, "model", torch.set_num_threads, (max(1, cores - 1),))
        self._threads = ThreadPoolExecutor(settings.threads or cores, "search")
        self._loading: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to load; requests are answered 503 until it is done."""
        self._loading = asyncio.create_task(self._load(), name="load")

    async def _load(self) -> None:
        try:
            deployed = await self.in_thread(deploy, self.settings, model=self.settings.model, index=self.index)
            self._current = Running(deployed, self)
            self.metrics.tracks.set(len(deployed.catalogue))
            self.metrics.rows.set(len(deployed.index))
        except (XmodalError, ValueError, OSError) as error:
            self.failure = error  # told by who waits for it
        finally:
            self._settled.set()

    async def wait_ready(self) -> Running:
        """What answers, as soon as it is loaded; raises why it cannot be."""
        await self._settled.wait()
        if self.failure is not None:
            raise self.failure
        return self.running

    @property
    def ready(self) -> bool:
        """Requests can be answered and more may come."""
        return self._current is not None and not self.draining

    @property
    def running(self) -> Running:
        """What answers now.

        Raises:
            Problem: 503 while it is being loaded.
        """
        if self._current is None:
            raise Problem(
                503, "the model and the index are being loaded; ask again in a moment", headers={"Retry-After": "2"}
            )
        return self._current

    @asynccontextmanager
    async def request(self) -> AsyncIterator[Running]:
        """What answers one request, and the time that it may take.

        Raises:
            Problem: 503 while loading, 504 when the time is over.
        """
        running = self.running
        limit = self.settings.time_limit_seconds
        try:
            async with asyncio.timeout(limit):
                yield running
        except TimeoutError:
            raise Problem(504, f"the answer took longer than {limit:g} s and was given up; ask for less") from None

    async def in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function off the event loop, in one of the threads that search."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: function(*args, **kwargs))

    async def stop(self) -> None:
        """Give everything back."""
        self.draining = True
        if self._loading is not None:
            await self._loading
        if self._current is not None:
            await self._current.close()
        self._model_thread.shutdown()
        self._threads.shutdown()


class Running:
    """A deployed model and index, and the queue in front of the model.

    Args:
        deployed: Model and index.
        service: Whose threads compute.
    """

    def __init__(self, deployed: Deployed, service: Service) -> None:
        self.deployed = deployed
        settings = service.settings
        embedder, metrics = deployed.embedder, service.metrics

        def embed(texts: list[str]) -> list[np.ndarray]:
            return list(embedder.embed_queries(texts))

        self._batcher = Batcher(
            embed,
            service._model_thread,
            max_batch=settings.max_batch,
            max_wait_seconds=settings.max_wait_ms / 1000,
            queue=settings.queue,
            observe=lambda size, seconds, waited: metrics.batch("text", size, seconds, waited),
        )
        metrics.watch("text", lambda: self._batcher.waiting)
        self.texts = TextVectors(
            deployed.space_id, self._batcher, service._cache, observe=lambda hit: metrics.cache("text", hit)
        )

    async def close(self) -> None:
        """End the queue."""
        await self._batcher.close()
