"""Corpora: tracks and their texts, manifests, data sets and samplers."""

from xmodal.data.manifests import add_tag_captions, read_tracks, write_tracks
from xmodal.data.splits import fold_split, split_tracks
from xmodal.data.tracks import Caption, Track, relevance_matrix, track_fields

__all__ = [
    "Caption",
    "Track",
    "add_tag_captions",
    "fold_split",
    "read_tracks",
    "relevance_matrix",
    "split_tracks",
    "track_fields",
    "write_tracks",
]
