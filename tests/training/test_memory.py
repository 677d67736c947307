"""While training on a CPU freed memory is used again, and given back afterwards."""

from __future__ import annotations

import platform
import resource

import pytest
import torch

from xmodal.training import memory

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is told")
MEGABYTES = 256  # no gap that other tests left in the heap is as large
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


def test_freed_memory_is_used_again_while_training_and_given_back_after_it():
    try:
        assert faults_of(3) >= 3 * PAGES  # new pages each time, in small pages
        memory.keep_freed_memory()
        faults_of(3)
        held = resident_pages()
        assert faults_of(6) <= PAGES  # of one at most, where an end of the heap is too short for it
    finally:
        memory.give_back_freed_memory()
    assert resident_pages() < held - 0.9 * PAGES


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(memory.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: pytest.fail("it was told"))
    memory.keep_freed_memory()
    memory.give_back_freed_memory()
