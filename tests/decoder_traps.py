"""A soundfile that hangs, crashes, leaves or chatters for files of such names, for the decoder's child to import."""

from __future__ import annotations

from pathlib import Path

import pytest

TRAP = """
import importlib.machinery, importlib.util, os, signal, sys, time
folder = os.path.dirname(os.path.abspath(__file__))
rest = [entry for entry in sys.path if os.path.abspath(entry) != folder]
spec = importlib.machinery.PathFinder.find_spec("soundfile", rest)
module = importlib.util.module_from_spec(spec)
sys.modules["soundfile"] = module
spec.loader.exec_module(module)
original = module.SoundFile.METHOD
def trapped(self, *args, **kwargs):
    descriptor = args[0] if "METHOD" == "__init__" else self.name
    name = os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))
    if "hang" in name:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # as deaf as a loop in C
        time.sleep(1000)
    if "crash" in name:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "leave" in name:
        os._exit(3)
    if "chatter" in name:
        os.write(1, b"decoder says hello\\n" * 1000)
    return original(self, *args, **kwargs)
module.SoundFile.METHOD = trapped
"""


def set_traps(folder: Path, monkeypatch: pytest.MonkeyPatch, method: str = "__init__") -> None:
    """Let children that are started from now on meet the traps when they call a method of SoundFile."""
    (folder / "traps").mkdir()
    (folder / "traps" / "soundfile.py").write_text(TRAP.replace("METHOD", method))
    monkeypatch.syspath_prepend(folder / "traps")
