"""xmodal: audio and words in one vector space.

Importing the package is cheap: the heavy libraries are loaded by the first name that needs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Embedder", "TwoTower", "load"]

if TYPE_CHECKING:
    from xmodal.embedder import Embedder, load
    from xmodal.model import TwoTower

_HOMES = {"Embedder": "xmodal.embedder", "load": "xmodal.embedder", "TwoTower": "xmodal.model"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'xmodal' has no attribute {name!r}; it has {', '.join(__all__)}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
