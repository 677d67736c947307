"""While training on a CPU freed memory is used again, and given back afterwards."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from xmodal.training import memory

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is told")


def test_freed_memory_is_used_again_while_training_and_given_back_after_it():
    """In a process of its own: where a heap can grow hangs on what other tests have put behind it."""
    command = [sys.executable, "-W", "ignore", Path(__file__).with_name("freed_memory.py"), memory.__file__]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(memory.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: pytest.fail("it was told"))
    memory.keep_freed_memory()
    memory.give_back_freed_memory()
