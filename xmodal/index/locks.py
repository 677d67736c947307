"""Many readers or one writer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager


class ReadWriteLock:
    """Searches share it, a change has it alone and waits until the searches before it are done.

    A thread that reads may read again inside (it is let in even while a writer waits, or the two would wait for
    each other). A thread that reads must not write.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._free = threading.Condition(self._mutex)
        self._readers = 0
        self._writing = False
        self._waiting_writers = 0
        self._depth = threading.local()
        self._reading = _Reading(self)

    def reading(self) -> AbstractContextManager[None]:
        """Keep writers out of the block."""
        return self._reading

    def _begin(self) -> None:
        depth = getattr(self._depth, "count", 0)
        if not depth:
            with self._mutex:
                while self._writing or self._waiting_writers:
                    self._free.wait()
                self._readers += 1
        self._depth.count = depth + 1

    def _end(self) -> None:
        depth = self._depth.count = self._depth.count - 1
        if not depth:
            with self._mutex:
                self._readers -= 1
                if self._waiting_writers and not self._readers:
                    self._free.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep everybody else out of the block.

        Raises:
            RuntimeError: If this thread is reading.
        """
        if getattr(self._depth, "count", 0):
            raise RuntimeError("an index cannot be changed by the thread that is reading it; leave the reading first")
        with self._mutex:
            self._waiting_writers += 1
            try:
                self._free.wait_for(lambda: not (self._writing or self._readers))
                self._writing = True
            finally:
                self._waiting_writers -= 1
        self._depth.count = 1  # what a change calls may read
        try:
            yield
        finally:
            self._depth.count = 0
            with self._mutex:
                self._writing = False
                self._free.notify_all()


class _Reading(AbstractContextManager[None]):
    """The block of a reader. It keeps nothing of its own, so one serves all blocks: a search feels a new one."""

    def __init__(self, lock: ReadWriteLock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        self._lock._begin()

    def __exit__(self, *_: object) -> None:
        self._lock._end()
