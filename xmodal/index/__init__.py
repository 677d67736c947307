"""Indexes: vectors of one space that can be searched. Engines are imported when they are first used."""

from xmodal.index.base import Index
from xmodal.index.engines import ENGINES, build_index, load_index
from xmodal.index.where import Condition, parse_where

__all__ = ["ENGINES", "Condition", "Index", "build_index", "load_index", "parse_where"]
