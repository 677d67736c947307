"""Makes ``import torchaudio`` work beside a CPU build of torch. Import this before torchaudio or transformers.

The registry's torchaudio wheel for Linux is built against CUDA, so beside a CPU torch its native extension
does not load (``OSError: libc10_cuda.so``) and takes transformers and sentence-transformers with it, which
import torchaudio when it is installed. xmodal uses only torchaudio's transforms and functions, which are pure
Python. So when, and only when, the import fails with ``OSError``, the extension's module is replaced by a
stand-in that says "no native extension here", which torchaudio itself knows how to live with.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def _extension_stand_in() -> ModuleType:
    module = ModuleType("torchaudio._extension")

    def fail_if_no_align(function: Callable[..., Any]) -> Callable[..., Any]:
        def refuse(*_args: object, **_kwargs: object) -> None:
            raise RuntimeError("torchaudio's native extension is not available beside this build of torch")

        return refuse

    vars(module).update(
        _IS_TORCHAUDIO_EXT_AVAILABLE=False,
        _IS_ALIGN_AVAILABLE=False,
        _check_cuda_version=lambda: None,
        fail_if_no_align=fail_if_no_align,
    )
    return module


def ensure_torchaudio() -> bool:
    """Import torchaudio, with a stand-in for its native extension where that cannot be loaded.

    Returns:
        True if the native extension is the real one, False if the stand-in is in place.
    """
    try:
        importlib.import_module("torchaudio")
    except OSError:
        for name in [name for name in sys.modules if name == "torchaudio" or name.startswith("torchaudio.")]:
            del sys.modules[name]
        sys.modules["torchaudio._extension"] = _extension_stand_in()
        importlib.import_module("torchaudio")
    extension = sys.modules["torchaudio._extension"]
    return getattr(extension, "__file__", None) is not None


HAS_NATIVE_TORCHAUDIO = ensure_torchaudio()
