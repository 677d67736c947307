"""Vectors that other tools can trust: tracks to files of embeddings, in a job that nothing can spoil."""

from xmodal.export.formats import FORMATS
from xmodal.export.job import Report, export

__all__ = ["FORMATS", "Report", "export"]
