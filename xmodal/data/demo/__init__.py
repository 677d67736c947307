"""The demo corpus: music with words, made on the spot from a seed.

:func:`compose` writes a short piece and its tags, :func:`render` plays it through a General MIDI soundfont,
:func:`captions_for` words it, and :func:`build_corpus` does so for thousands of pieces with splits whose
compositions and wordings are disjoint. Playing needs the extra ``xmodal[demo]``.
"""

from xmodal.data.demo.captions import captions_for, prompts
from xmodal.data.demo.composer import compose
from xmodal.data.demo.corpus import CorpusReport, build_corpus
from xmodal.data.demo.render import render
from xmodal.data.demo.score import Composition
from xmodal.data.demo.vocabulary import UNSEEN_WORDS, WORDS

__all__ = [
    "UNSEEN_WORDS",
    "WORDS",
    "Composition",
    "CorpusReport",
    "build_corpus",
    "captions_for",
    "compose",
    "prompts",
    "render",
]
