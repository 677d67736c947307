"""Corpora: tracks and their texts, manifests, data sets and samplers."""

from xmodal.data.corpus import Corpus, SetAside, TrackSource
from xmodal.data.lyrics import LyricLine, LyricWord
from xmodal.data.manifests import add_tag_captions, read_corpus, read_tracks, write_tracks
from xmodal.data.splits import fold_split, split_tracks
from xmodal.data.tracks import Caption, Track, relevance_matrix, tag_matrices, track_fields

__all__ = [
    "Caption",
    "Corpus",
    "LyricLine",
    "LyricWord",
    "SetAside",
    "Track",
    "TrackSource",
    "add_tag_captions",
    "fold_split",
    "read_corpus",
    "read_tracks",
    "relevance_matrix",
    "split_tracks",
    "tag_matrices",
    "track_fields",
    "write_tracks",
]
