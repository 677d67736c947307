"""Indexes: vectors of one space that can be searched. Engines are imported when they are first used."""

from xmodal.index.base import ENGINES, Index, build_index, load_index

__all__ = ["ENGINES", "Index", "build_index", "load_index"]
