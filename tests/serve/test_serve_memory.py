"""A server's memory does not grow with what passed through it."""

from __future__ import annotations

import asyncio
import ctypes
import re
from pathlib import Path

import numpy as np
import pytest
from served_app import serving

import serve.service
from serve import memory


def own_megabytes():
    return int(re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def test_what_was_freed_between_what_stays_is_given_back():
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("the allocator is not glibc's")
    blocks = [np.ones(7_500) for _ in range(2_000)]  # 120 MB in blocks too small for mappings of their own
    stays = blocks[::100]
    before = own_megabytes()
    del blocks
    memory.give_back()
    assert own_megabytes() < before - 60
    assert all((block == 1).all() for block in stays)


def test_a_running_server_gives_memory_back_again_and_again(tiny_settings, monkeypatch):
    given = []
    monkeypatch.setattr(serve.service, "_GIVE_BACK_SECONDS", 0.01)
    monkeypatch.setattr(memory, "give_back", lambda: given.append(1))

    async def run():
        async with serving(tiny_settings) as client:
            while len(given) < 3:
                await asyncio.sleep(0.01)
            tasks = client.service._tasks
        return [task.done() for task in tasks]

    assert all(asyncio.run(asyncio.wait_for(run(), 20)))
