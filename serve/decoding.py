"""Decoding for a server: off the event loop, in a few processes that a file may hang, crash or fill without harm.

A file goes to a child that is free; its header is judged before it is decoded; and the child is ended by force when the
time is over or the client has left. What waits is bounded, and so are the bytes of uploads on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float32

from serve import logs
from serve.metrics import Metrics
from serve.problems import Problem
from xmodal.audio import AudioInfo, AudioLimits, DecoderFailedError, IsolatedDecoder
from xmodal.errors import AudioError, AudioTooLargeError

GIB = 1024**3
_CHUNK_BYTES = 1 << 20
_FOLDER_PREFIX = "xmodal-uploads-"
_LOCK = "lock"
_RETRY = {"Retry-After": "2"}


class OverloadedError(Problem):
    """There is no room for more work now."""

    def __init__(self, detail: str) -> None:
        super().__init__(429, detail, kind="queue-full", headers=_RETRY)


@dataclass(frozen=True, eq=False)
class Decoded:
    """A file's audio.

    Attributes:
        samples: Mono, at the rate that was asked for.
        info: What the file says about itself; its frames were counted where it does not say.
    """

    samples: Float32[np.ndarray, " samples"]
    info: AudioInfo


class DecoderPool:
    """Children that decode, a file each at a time.

    Args:
        workers: Children.
        waiting: Calls that may wait for a child; one more is refused.
        time_limit_seconds: What one file may take.
        memory_bytes: What a child may hold beyond its own program. A file of ``limits.seconds`` needs about three times
            its samples: 12 bytes a sample.
        limits: What a file may be.
        metrics: Where to count.
    """

    def __init__(
        self,
        *,
        workers: int = 2,
        waiting: int = 16,
        time_limit_seconds: float = 20.0,
        memory_bytes: int = GIB,
        limits: AudioLimits | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        if workers < 1 or waiting < 0:
            raise ValueError(f"workers must be at least 1 and waiting at least 0, got {workers} and {waiting}")
        self.limits = limits or AudioLimits(seconds=900.0, channels=8, rate_hz=192_000)
        self.waiting, self.workers = waiting, workers
        self.metrics = metrics or Metrics()
        self._make = lambda: IsolatedDecoder(time_limit_seconds=time_limit_seconds, memory_limit_bytes=memory_bytes)
        self._free: asyncio.Queue[IsolatedDecoder] = asyncio.Queue()
        self._all: set[IsolatedDecoder] = set()
        self._waiting_now = 0
        self._closed = False
        # A child ends with the thread that started it, so the threads stay.
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        for _ in range(workers):
            self._add()

    async def start(self) -> None:
        """Start the children now, so that the first files need not wait for them."""
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(self._threads, decoder.start) for decoder in list(self._all)))

    async def decode(
        self,
        path: str | os.PathLike[str],
        sample_rate: int,
        *,
        name: str,
        limits: AudioLimits | None = None,
        start_seconds: float = 0.0,
        end_seconds: float | None = None,
    ) -> Decoded:
        """Decode a file, or a part of one.

        If the caller is cancelled, the child is ended at once.

        Args:
            path: The file.
            sample_rate: Of the samples, in Hz.
            name: What errors call the file.
            limits: What the file, or its part, may be; None: those of the pool.
            start_seconds: Where the part begins.
            end_seconds: Where it ends; None: where the file ends.

        Raises:
            AudioTooLargeError: If the file is beyond the limits.
            AudioError: If it gives no honest samples, takes too long, crashes its decoder or needs too much memory.
            OverloadedError: If too many files wait already.
            Problem: 503 if the pool is closed.
        """
        if self._closed:
            raise Problem(503, "the server is stopping; ask again in a moment", kind="draining")
        if self._free.empty() and self._waiting_now >= self.waiting:
            raise OverloadedError(f"{self._waiting_now} audio files wait to be decoded already; try again in a moment")
        self._waiting_now += 1
        try:
            decoder = await self._free.get()
        finally:
            self._waiting_now -= 1
        work = asyncio.get_running_loop().run_in_executor(
            self._threads,
            lambda: decoder.load_within(
                os.fspath(path),
                sample_rate,
                limits or self.limits,
                start_seconds=start_seconds,
                end_seconds=end_seconds,
            ),
        )
        before = decoder.timeouts, decoder.crashes
        outcome = "done"
        try:
            info, samples = await asyncio.shield(work)
            return Decoded(samples, info)
        except asyncio.CancelledError:
            outcome = "left"
            decoder.abort()
            self.metrics.decoder_kills.labels("left").inc()
            raise
        except AudioTooLargeError as error:
            outcome = "too_large"
            raise AudioTooLargeError(name, error.reason) from None
        except AudioError as error:
            outcome = "refused"
            raise AudioError(name, error.reason) from None
        except DecoderFailedError as error:
            # A fault of the program, and yet of this file alone: who sent it is told so, and the log has the rest.
            outcome = "crashed"
            logs.log_error("decoder failed", error)
            raise AudioError(name, "cannot be decoded; re-encode it") from None
        finally:
            if decoder.timeouts > before[0]:
                outcome = "timeout"
                self.metrics.decoder_kills.labels("time").inc()
            elif decoder.crashes > before[1] and outcome == "refused":
                outcome = "crashed"
            self.metrics.decodes.labels(outcome).inc()
            if outcome in ("timeout", "crashed"):
                logs.log("decoder ended", {"outcome": outcome}, level=logging.WARNING)
            if outcome == "left":
                # Its thread is free again when it has noticed, which is at once; only then may another use it.
                work.add_done_callback(lambda done: self._replace(decoder, done))
            else:
                self._free.put_nowait(decoder)

    def _replace(self, decoder: IsolatedDecoder, done: asyncio.Future[Any]) -> None:
        if not done.cancelled():
            done.exception()  # seen
        self._all.discard(decoder)
        decoder.close()
        if not self._closed:
            self._add()

    def _add(self) -> None:
        decoder = self._make()
        self._all.add(decoder)
        self._free.put_nowait(decoder)

    async def close(self) -> None:
        """End the children by force, also those at work; further calls are refused."""
        self._closed = True
        for decoder in list(self._all):
            decoder.abort()
        await asyncio.get_running_loop().run_in_executor(None, self._threads.shutdown)
        for decoder in list(self._all):
            decoder.close()


class ReadableUpload(Protocol):
    """What is read of an upload; Starlette's UploadFile is one."""

    async def read(self, size: int = -1) -> bytes:
        """The next ``size`` bytes; none at the end."""


class UploadStore:
    """Uploads as files, each under a random name that nobody else may read, for as long as it is needed.

    Folders that a server which was killed has left behind are removed when the next one starts.

    Args:
        folder: Where to keep them; None: the system's folder for temporary files.
        max_bytes: Bytes of all of them together.
        metrics: Where to count.
    """

    def __init__(
        self, folder: Path | None = None, *, max_bytes: int = 512 * 1024**2, metrics: Metrics | None = None
    ) -> None:
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, got {max_bytes}")
        self.max_bytes, self.metrics = max_bytes, metrics or Metrics()
        self._bytes = 0
        above = Path(tempfile.gettempdir()) if folder is None else Path(folder)
        above.mkdir(parents=True, exist_ok=True)
        _sweep(above)
        self.folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX, dir=above))  # mode 0700
        self._lock = os.open(self.folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    @asynccontextmanager
    async def receive(self, upload: ReadableUpload) -> AsyncIterator[Path]:
        """The upload as a file, which is gone afterwards, whatever happens.

        Raises:
            OverloadedError: If there is no room for it beside the others.
        """
        descriptor, name = tempfile.mkstemp(dir=self.folder)  # mode 0600
        written = 0
        try:
            with open(descriptor, "wb") as file:
                while chunk := await upload.read(_CHUNK_BYTES):
                    if self._bytes + len(chunk) > self.max_bytes:
                        raise OverloadedError("too many uploads are under way; try again in a moment")
                    self._count(len(chunk))
                    written += len(chunk)
                    await asyncio.to_thread(file.write, chunk)
            yield Path(name)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            self._count(-written)

    def close(self) -> None:
        """Remove the folder with everything in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)

    def _count(self, more: int) -> None:
        self._bytes += more
        self.metrics.upload_bytes.set(self._bytes)


def _sweep(above: Path) -> None:
    """Remove folders of servers that live no more: their lock is free."""
    for folder in above.glob(f"{_FOLDER_PREFIX}*"):
        # Whose it is not, or what only looks like one, stays: opening its lock fails.
        with contextlib.suppress(OSError):
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
