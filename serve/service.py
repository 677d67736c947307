"""What lives as long as the server: what answers now, the threads that compute, and how one takes another's place."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from serve import logs, memory
from serve.decoding import DecoderPool, UploadStore
from serve.deployed import Deployed, deploy
from serve.fetching import Fetcher
from serve.metrics import Metrics
from serve.problems import Problem
from serve.running import Running
from serve.settings import Settings
from serve.texts import TextCache
from serve.uploads import Uploads
from serve.waveforms import Waveforms
from xmodal.audio import AudioLimits
from xmodal.embedder import usable_cores
from xmodal.errors import XmodalError
from xmodal.lanes import set_own_threads

_WATCH_SECONDS = 1.0
_GIVE_BACK_SECONDS = 10.0
_WAVEFORMS = 2_000  # of 16 KB each
_REFUSALS = (XmodalError, ValueError, OSError, RuntimeError)


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
        decoders: Decode audio files.
        store: Uploads as files, while they are read.
        fetcher: Sounds by URL, from the hosts that the settings name.
        uploads: Vectors of uploads.
        peaks: Waveforms that were asked for last.
        drawing: Holds back waveforms that would keep all decoders busy.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings.check()
        if settings.index is None:
            raise ValueError("say which index to serve: --index DIR; xmodal serve without one makes and serves a demo")
        self.index: str = settings.index
        self.model = settings.model  # None: the one that the index names
        self.metrics = Metrics()
        self.failure: Exception | None = None
        self.draining = False
        self._current: Running | None = None
        self._settled = asyncio.Event()
        self._cache = TextCache(settings.text_cache)
        cores = usable_cores()
        # One thread runs the model; a core is left to the event loop, decoding and searching.
        self._model_thread = ThreadPoolExecutor(1, "model", set_own_threads, (max(1, cores - 1),))
        self._search_thread = ThreadPoolExecutor(1, "search")
        self._threads = ThreadPoolExecutor(settings.threads or cores + 1, "work", set_own_threads, (1,))
        self._tasks: list[asyncio.Task[None]] = []
        self._reloading = asyncio.Lock()
        self._stamp: Any = None
        self.fetcher = Fetcher(settings.fetch_host, max_bytes=settings.upload_max_bytes, seconds=settings.fetch_seconds)
        self.uploads = Uploads(settings.uploads, settings.upload_keep_seconds)
        self.peaks = Waveforms(_WAVEFORMS)
        # A page draws many at once; a decoder stays free for sounds that are sent.
        self.drawing = asyncio.Semaphore(max(1, settings.decoders - 1))

    async def start(self) -> None:
        """Begin to load; requests are answered 503 until it is done."""
        settings = self.settings
        self.decoders = DecoderPool(
            workers=settings.decoders,
            time_limit_seconds=settings.decode_seconds,
            memory_bytes=settings.decoder_megabytes * 2**20,
            limits=AudioLimits(seconds=settings.upload_max_seconds, channels=8, rate_hz=192_000),
            metrics=self.metrics,
        )
        self.store = UploadStore(settings.temporary, max_bytes=settings.bytes_in_flight, metrics=self.metrics)
        self._tasks.append(asyncio.create_task(self._load(), name="load"))

    async def _load(self) -> None:
        try:
            self._stamp = self._seen()
            deployed = await self._deploy(self.model, self.index, None)
            self._current = self._run(deployed)
        except Exception as error:
            self.failure = error  # told by who waits for it
            return
        finally:
            self._settled.set()
        self._tasks.append(asyncio.create_task(self._give_back(), name="memory"))
        if self.settings.watch and "://" not in self.index:
            self._tasks.append(asyncio.create_task(self._watch(), name="watch"))

    async def wait_ready(self) -> Running:
        """What answers, as soon as it is loaded; raises why it cannot be."""
        await self._settled.wait()
        if self.failure is not None:
            raise self.failure
        return self.running

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
        """What answers one request from its start to its end, and the time that it may take.

        Raises:
            Problem: 503 while loading, 504 when the time is over.
        """
        running = self.running
        limit = self.settings.time_limit_seconds
        running.hold()
        try:
            async with asyncio.timeout(limit) as time:
                yield running
        except TimeoutError:
            if not time.expired():
                raise
            self.metrics.refused("time-limit")
            raise Problem(504, f"the answer took longer than {limit:g} s and was given up; ask for less") from None
        finally:
            await running.release()

    async def reload(self, model: str | None, index: str | None) -> tuple[Deployed, Deployed]:
        """Put another model and index in place of what answers; requests under way end on what they began with.

        Args:
            model: The model folder; None for the one that is served, or with another index the one that made it.
            index: The index; None for the one that is served, read again.

        Returns:
            What answers now, and what did before.

        Raises:
            Problem: 409 if the new ones cannot be loaded or fail their self-check; nothing has changed then.
        """
        async with self._reloading:
            before = self.running.deployed
            place = index or before.index_place
            if model is None and index is None:
                model = self.model
            try:
                deployed = await self._deploy(model, place, before)
            except _REFUSALS as error:
                self.metrics.reloads.labels("refused").inc()
                said = " ".join(str(error).split())
                logs.log("reload refused", {"reason": said}, level=logging.WARNING)
                raise Problem(409, f"what is served stays: {said}") from error
            old, self._current = self.running, self._run(deployed)
            self.model, self.index = model, place
            self._stamp = self._seen()
            await old.retire()
        self.metrics.reloads.labels("done").inc()
        logs.log("reloaded", {"space_id": deployed.space_id, "tracks": len(deployed.catalogue)})
        return deployed, before

    async def stop(self) -> None:
        """Give everything back."""
        self.draining = True
        for task in self._tasks:
            if task.get_name() in ("watch", "memory"):
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._current is not None:
            await self._current.close()
        await self.decoders.close()
        self.store.close()
        for executor in (self._model_thread, self._search_thread, self._threads):
            executor.shutdown(cancel_futures=True)

    async def _deploy(self, model: str | None, index: str, before: Deployed | None) -> Deployed:
        # Not in the threads that answer: loading takes long.
        return await asyncio.to_thread(deploy, self.settings, model=model, index=index, before=before)

    def _run(self, deployed: Deployed) -> Running:
        self.metrics.tracks.set(len(deployed.catalogue))
        self.metrics.rows.set(len(deployed.index))
        return Running(
            deployed,
            self.settings,
            cache=self._cache,
            model_thread=self._model_thread,
            search_thread=self._search_thread,
            threads=self._threads,
            metrics=self.metrics,
        )

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            if (seen := self._seen()) != self._stamp and seen is not None:
                self._stamp = seen  # a broken one is tried once
                with contextlib.suppress(Problem):  # it is in the log
                    await self.reload(None, None)

    async def _give_back(self) -> None:
        while True:
            await asyncio.sleep(_GIVE_BACK_SECONDS)
            await asyncio.to_thread(memory.give_back)

    def _seen(self) -> Any:
        """What changes when another index is saved or swapped into the folder."""
        try:
            status = os.stat(Path(self.index) / "index.json")
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size
