"""Zero-shot tags: a vocabulary of words becomes vectors, and a track's tags are the words nearest to it.

Conventions
-----------
* A tag is put into every prompt template of its kind; the normalised mean of the prompts' unit vectors stands for a
  name (prompt ensembling in embedding space, Radford et al. 2021), and the normalised mean over its names, its chosen
  translations and its definition for the tag.
* A score is the cosine of a track and a tag. It orders tracks for a tag, and tags for a track. It is no probability,
  and no threshold on it means the same for two tags. A :class:`Calibration` turns scores into probabilities.
* Words differ in how near they are to audio as such: some tags score high on every track. With a ``reference``
  catalogue r_1 ... r_n the score becomes ``a·t - mean_i r_i·t = (a - mean r)·t``, how much nearer the track is than an
  average track. This changes the order of tags for a track, never the order of tracks for a tag.
* Tracks differ in how near they are to words as such. With ``null_prompts`` the score becomes ``a·t - a·n``, how much
  nearer the track is to the tag than to words that say nothing: this changes the order of tracks for a tag, never the
  order of tags for a track.
* Tags are compared by :func:`xmodal.text.words_key`: "Piano" and "piano" are one tag.
"""

from __future__ import annotations

from xmodal.tagging.calibration import Calibration, calibrate_to_prior, fit_calibration
from xmodal.tagging.catalogue import GivenTags, tag_catalogue
from xmodal.tagging.examples import EnrolledTag, EnrolledTags, enrol, with_enrolled
from xmodal.tagging.scorer import NULL_PROMPTS, TEMPLATES, TagScorer
from xmodal.tagging.vocabulary import Tag, Vocabulary, read_vocabulary, vocabulary_from_json, vocabulary_to_json

__all__ = [
    "NULL_PROMPTS",
    "TEMPLATES",
    "Calibration",
    "EnrolledTag",
    "EnrolledTags",
    "GivenTags",
    "Tag",
    "TagScorer",
    "Vocabulary",
    "calibrate_to_prior",
    "enrol",
    "fit_calibration",
    "read_vocabulary",
    "tag_catalogue",
    "vocabulary_from_json",
    "vocabulary_to_json",
    "with_enrolled",
]
