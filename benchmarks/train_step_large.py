"""Large batches for :mod:`train_step`: what a step needs at most in memory and takes, with GradCache and without.

Each is measured in a process of its own, so that one that does not fit takes nothing else with it.
"""

from __future__ import annotations

import multiprocessing
import re
import statistics
import warnings
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from train_step_sides import Setting, StepClock, fit, make_batches, make_module

STEPS = 4


@dataclass(frozen=True)
class LargeStep:
    """What a step of a large batch needs.

    Attributes:
        peak_bytes: Highest memory; on a GPU of all that torch gave out (weights and the batch included), on a CPU of
            what the process held above its size before the first step. None: it did not fit.
        seconds: Of a step, by the clock.
    """

    peak_bytes: int | None
    seconds: float | None

    def __str__(self) -> str:
        if self.peak_bytes is None or self.seconds is None:
            return "does not fit"
        return f"{self.peak_bytes / 1e9:.2f} GB, {self.seconds:.2f} s a step"


def large_step(setting: Setting, batch: int, chunk: int | None, threads: int) -> LargeStep:
    """``STEPS`` steps of one batch in a new process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(_measure, setting, batch, chunk, threads).result()
        except BrokenProcessPool:  # on a CPU the system ends who asks for too much
            return LargeStep(None, None)


def _measure(setting: Setting, size: int, chunk: int | None, threads: int) -> LargeStep:
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    clock, memory = StepClock(setting), _Memory(setting.device)

    class Watch(pl.Callback):
        def on_train_start(self, *_: object) -> None:
            memory.begin()

        def on_train_batch_end(self, *_: object) -> None:
            clock.step_ended()

    try:
        data = make_batches(1, size, setting.device) * STEPS
        fit(make_module(compile=setting.compiled, chunk_size=chunk), data, setting, Watch())
    except torch.cuda.OutOfMemoryError:
        return LargeStep(None, None)
    return LargeStep(memory.peak_bytes(), statistics.median(step[0] for step in clock.steps))


class _Memory:
    """The highest memory of this process, or of the GPU's allocator, since :meth:`begin`."""

    def __init__(self, device: str) -> None:
        self.device, self._before = device, 0

    def begin(self) -> None:
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            return
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the highest size so far is forgotten
        self._before = _status_bytes("VmRSS")

    def peak_bytes(self) -> int:
        if self.device == "cuda":
            return torch.cuda.max_memory_allocated()
        return _status_bytes("VmHWM") - self._before


def _status_bytes(name: str) -> int:
    found: Any = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024
