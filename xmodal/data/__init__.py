"""Corpora: tracks and their texts, manifests, data sets and samplers."""

from xmodal.data.tracks import Caption, Track, relevance_matrix

__all__ = ["Caption", "Track", "relevance_matrix"]
