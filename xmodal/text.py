"""From the fields of a track to the words that a text tower reads.

Conventions
-----------
Two texts are the same words when their :func:`words_key` is the same: letter case, runs of white space and the
compatibility variants of Unicode (full-width letters, ligatures) do not tell texts or tags apart.
"""

from __future__ import annotations

import unicodedata


def normalise_text(text: str) -> str:
    """Unicode NFKC, every run of white space as one space, none at the ends. Idempotent; keeps letter case."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def words_key(text: str) -> str:
    """The form in which texts and tags are compared: :func:`normalise_text` without letter case. Idempotent."""
    # Case folding can leave a string that NFKC would still change (U+0345 and others), hence the second pass.
    return normalise_text(normalise_text(text).casefold())
