"""Many readers or one writer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class ReadWriteLock:
    """Searches share it, a change has it alone and waits until the searches before it are done.

    A thread that reads may read again inside (it is let in even while a writer waits, or the two would wait for
    each other). A thread that reads must not write.
    """

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._readers = 0
        self._writing = False
        self._waiting_writers = 0
        self._depth = threading.local()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Keep writers out of the block."""
        depth = getattr(self._depth, "count", 0)
        if not depth:
            with self._free:
                self._free.wait_for(lambda: not (self._writing or self._waiting_writers))
                self._readers += 1
        self._depth.count = depth + 1
        try:
            yield
        finally:
            self._depth.count = depth
            if not depth:
                with self._free:
                    self._readers -= 1
                    self._free.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep everybody else out of the block.

        Raises:
            RuntimeError: If this thread is reading.
        """
        if getattr(self._depth, "count", 0):
            raise RuntimeError("an index cannot be changed by the thread that is reading it; leave the reading first")
        with self._free:
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
            with self._free:
                self._writing = False
                self._free.notify_all()
