"""Page faults of large tensors, for ``test_memory.py``: python freed_memory.py xmodal/training/memory.py"""

from __future__ import annotations

import resource
import runpy
import sys

import torch

MEGABYTES = 64
PAGES = (MEGABYTES << 20) // resource.getpagesize()


def faults_of(times: int) -> int:
    """Page faults of filling as many tensors, one after the other."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(MEGABYTES << 18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident_pages() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])


def main(path: str) -> None:
    memory = runpy.run_path(path)  # by its file, without the room around it
    assert faults_of(3) >= 3 * PAGES  # new pages each time, in small pages
    memory["keep_freed_memory"]()
    faults_of(16)  # the heap takes some before one of them fits where another was
    held = resident_pages()
    assert faults_of(6) <= PAGES
    memory["give_back_freed_memory"]()
    assert resident_pages() < held - 0.9 * PAGES


if __name__ == "__main__":
    main(sys.argv[1])
