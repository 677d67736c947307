"""Work on many items in several threads, with a bounded lead and a clean stop."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch

Result = TypeVar("Result")


def set_own_threads(count: int) -> None:
    """Set how many threads an operation of torch uses in the calling thread, whatever others set later.

    A thread takes the number that was set last anywhere in the process when it is first asked for or needed, and only
    from then on has one of its own. So it is asked first.
    """
    torch.get_num_threads()
    torch.set_num_threads(count)


def in_threads(
    work: Callable[[Iterable[int]], Iterator[Result]],
    count: int,
    threads: int,
    *,
    room: int,
    name: str,
    torch_threads: int | None = None,
) -> Iterator[Result]:
    """Run ``work`` in several threads that share the numbers from 0 to ``count - 1``.

    Args:
        work: Takes an iterator over the thread's numbers, which end when all are taken, and yields results.
        count: How many numbers there are.
        threads: How many threads.
        room: Results that each thread may be ahead of the caller.
        name: What the threads are called.
        torch_threads: Threads to one operation of torch in these threads; None leaves it as it is.

    Yields:
        Results as they come.

    Raises:
        BaseException: What ``work`` raises, after the other threads were stopped. Closing the iterator stops them too.
    """
    numbers = iter(range(count))
    taking = threading.Lock()
    stop = threading.Event()
    ready: queue.Queue[tuple[bool, Result | BaseException | None]] = queue.Queue(maxsize=room * threads)
    threads = min(threads, count)
    started = threading.Barrier(threads + 1)

    def take() -> Iterator[int]:
        while not stop.is_set():
            with taking:
                number = next(numbers, None)
            if number is None:
                return
            yield number

    def put(item: tuple[bool, Result | BaseException | None]) -> None:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def run() -> None:
        if torch_threads is not None:
            set_own_threads(torch_threads)
        started.wait()
        try:
            for result in work(take()):
                put((True, result))
                if stop.is_set():
                    return
        except BaseException as error:  # carried to the caller's thread, which raises it
            put((False, error))
        else:
            put((False, None))

    lanes = [threading.Thread(target=run, name=f"{name}-{number}", daemon=True) for number in range(threads)]
    before = torch.get_num_threads()
    for lane in lanes:
        lane.start()
    try:
        started.wait()
        if torch_threads is not None:
            torch.set_num_threads(before)  # what threads begin with that are made from now on
        running = len(lanes)
        while running:
            is_result, item = ready.get()
            if is_result:
                yield item  # type: ignore[misc]  # a result by the flag beside it
            elif isinstance(item, BaseException):
                raise item
            else:
                running -= 1
    finally:
        stop.set()
        for lane in lanes:
            lane.join()
