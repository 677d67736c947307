"""A track, its captions, and which texts are right for which tracks.

Conventions
-----------
Tags are compared in the form of :func:`xmodal.text.words_key`: "Piano" and "piano" are one tag. The kind of a tag
does not take part in the comparison: a text that names "soft" is right for a soft dynamic and for a soft mood.

What a track says of a tag is one of three things. *Present*: ``tags`` names it. *Absent*: ``absent`` names it, or its
kind is labelled in full. *Unknown*: all else, and an unknown tag is no negative. A kind is labelled in full if it is in
``tags`` and not in ``absent``; where ``absent`` has it, only what it names is absent.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from xmodal.audio.stored import AudioLike, StoredAudio
from xmodal.data.lyrics import LyricLine
from xmodal.text import words_key


@dataclass(frozen=True)
class Caption:
    """A text that is right for a track.

    Attributes:
        text: The words, as a person would write them.
        requires: The tags that the text names, if they are known: any track that has them all is a right answer too.
            Held in the form in which tags are compared. None or empty: the text is right for its own track alone,
            and for those with the same words.
    """

    text: str
    requires: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text.strip():
            raise ValueError(f"a caption needs words, got {self.text!r}; leave empty captions out")
        if isinstance(self.requires, str):
            raise ValueError(
                f"requires is a set of tags, got the string {self.requires!r}; write {{{self.requires!r}}}"
            )
        if self.requires is not None:
            object.__setattr__(self, "requires", frozenset(_tag_key(tag) for tag in self.requires))

    @cached_property
    def words(self) -> str:
        """The text in the form in which texts are compared; every step asks for those of all captions of its tracks."""
        return words_key(self.text)


@dataclass(frozen=True)
class Track:
    """A file, or a part of one, and what is known about it.

    Attributes:
        id: Name of the track, unique in its manifest.
        path: The audio file; for stored audio, its place for people to read.
        start_seconds: Where in the file the track starts, at least 0.
        end_seconds: Where it ends, after its start; None: where the file ends.
        tags: Names by kind: ``{"instrument": ("flute", "piano"), "mood": ("calm",)}``. A kind without names is
            dropped: nothing is known about it.
        absent: Names that are known not to fit, by kind. A kind that stands here, were it with no name, is labelled
            in part: of its other names nothing is known.
        captions: The texts that are right for the track.
        lyrics: The words that are sung; None with ``timed_lyrics`` means those.
        timed_lyrics: The lines that are sung, with their times in seconds from the start of the file.
        title: Name of the piece.
        artist: Who plays it.
        album: Where it was published.
        split: The part of the corpus it belongs to, as the manifest says it.
        group: Tracks of one group (takes of one recording, a speaker) must not be on two sides of a split.
        licence: What may be done with the audio, such as "CC BY 4.0".
        source: Where it comes from, such as a URL or the name of a data set.
        data: The audio where it is no file of its own: bytes in memory, in a shard, behind a URL.
        extra: Everything else that the manifest says; JSON-able.

    An empty text (a blank title) is held as None.
    """

    id: str
    path: Path
    start_seconds: float = 0.0
    end_seconds: float | None = None
    # Mappings cannot be hashed, and the rest is enough to tell tracks apart.
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    absent: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    captions: tuple[Caption, ...] = ()
    lyrics: str | None = None
    timed_lyrics: tuple[LyricLine, ...] = ()
    title: str | None = None
    artist: str | None = None
    album: str | None = None
    split: str | None = None
    group: str | None = None
    licence: str | None = None
    source: str | None = None
    data: StoredAudio | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id.strip():
            raise ValueError(f"a track needs an id, got {self.id!r}")
        start, end = float(self.start_seconds), None if self.end_seconds is None else float(self.end_seconds)
        if not (math.isfinite(start) and start >= 0):
            raise ValueError(f"start_seconds must be 0 or later, got {self.start_seconds}")
        if end is not None and not (math.isfinite(end) and end > start):
            raise ValueError(f"end_seconds must be after start_seconds={start:g}, got {self.end_seconds}")
        captions = tuple(self.captions)
        if not all(isinstance(caption, Caption) for caption in captions):
            raise ValueError(f"captions must be Caption objects, got {captions!r}; wrap a text as Caption(text)")
        if not all(isinstance(line, LyricLine) for line in self.timed_lyrics):
            raise ValueError(f"timed_lyrics must be LyricLine objects, got {self.timed_lyrics!r}")
        for name in ("lyrics", "title", "artist", "album", "split", "group", "licence", "source"):
            text = getattr(self, name)
            if not (text is None or isinstance(text, str)):
                raise ValueError(f"{name} must be a text or None, got {text!r}")
            if text is not None and not text.strip():
                object.__setattr__(self, name, None)
        # object.__setattr__ is how a frozen dataclass sets its own fields.
        object.__setattr__(self, "path", Path(self.path))
        object.__setattr__(self, "start_seconds", start)
        object.__setattr__(self, "end_seconds", end)
        tags = {kind: _names(kind, names) for kind, names in self.tags.items() if names}
        absent = {kind: _names(kind, names) for kind, names in self.absent.items()}
        for kind, names in absent.items():
            both = {words_key(name) for name in names} & {words_key(name) for name in tags.get(kind, ())}
            if both:
                raise ValueError(f"{min(both)!r} is both among the tags of kind {kind!r} and among the absent ones")
        object.__setattr__(self, "tags", tags)
        object.__setattr__(self, "absent", absent)
        object.__setattr__(self, "captions", captions)
        object.__setattr__(self, "timed_lyrics", tuple(self.timed_lyrics))
        if self.lyrics is None and self.timed_lyrics:
            object.__setattr__(self, "lyrics", "\n".join(line.text for line in self.timed_lyrics))
        object.__setattr__(self, "extra", dict(self.extra))

    @property
    def audio(self) -> AudioLike:
        """What :mod:`xmodal.audio` reads: the stored audio, else the file."""
        return self.path if self.data is None else self.data

    def has_tag(self, tag: str, kind: str | None = None) -> bool | None:
        """Whether a tag fits: True, False, or None where the track does not say.

        Args:
            tag: The name, in any letter case.
            kind: Its kind; None looks in all kinds, and then the tag is absent if a kind denies it, or if every
                kind that the track has is labelled in full.
        """
        return self._says_of(words_key(tag), kind)

    def _says_of(self, key: str, kind: str | None) -> bool | None:
        """As :meth:`has_tag`, of a tag in the form in which tags are compared."""
        present, absent, full = self._labels
        if kind is not None:  # a step asks this of every track and prompt of its batch
            if key in present.get(kind, ()):
                return True
            return False if kind in full or key in absent.get(kind, ()) else None
        kinds = present.keys() | absent.keys()
        if any(key in names for names in present.values()):
            return True
        if any(key in names for names in absent.values()):
            return False
        return False if kinds and kinds <= full else None

    @cached_property
    def _labels(self) -> tuple[dict[str, frozenset[str]], dict[str, frozenset[str]], frozenset[str]]:
        """Present and absent names by kind, as compared, and the kinds that are labelled in full."""
        present, absent = (
            {kind: frozenset(map(words_key, names)) for kind, names in by_kind.items()}
            for by_kind in (self.tags, self.absent)
        )
        return present, absent, frozenset(present.keys() - absent.keys())

    @cached_property
    def all_tags(self) -> frozenset[str]:
        """The tags of every kind, in the form in which tags are compared."""
        return frozenset(words_key(name) for names in self.tags.values() for name in names)


def track_fields(track: Track) -> dict[str, Any]:
    """What :func:`xmodal.text.render` can write about a track.

    Returns:
        The tags by kind and under "tags" all of them, the first caption under "caption", then id, title, artist,
        album and lyrics, and everything in ``extra``; a field goes before a kind of tag of the same name, and that
        before ``extra``.
    """
    return {
        **track.extra,
        **track.tags,
        "tags": tuple(name for names in track.tags.values() for name in names),
        "caption": track.captions[0].text if track.captions else None,
        **{name: getattr(track, name) for name in ("id", "title", "artist", "album", "lyrics")},
    }


def tag_matrices(
    tracks: Sequence[Track], tags: Sequence[tuple[str | None, str]] | Sequence[tuple[str, str]]
) -> tuple[Bool[Tensor, "tracks tags"], Bool[Tensor, "tracks tags"]]:
    """Which tags the tracks have, and which pairs may be judged: of an unknown tag nothing is known.

    Args:
        tracks: The rows.
        tags: ``(kind, name)`` of the columns; a name of kind None is looked for in all kinds.

    Returns:
        Labels and valid; where valid is False, the label is False and means nothing.
    """
    columns = [(words_key(name), kind) for kind, name in tags]
    said = [[track._says_of(key, kind) for key, kind in columns] for track in tracks]
    shape = (len(tracks), len(tags))
    labels = torch.tensor([[answer is True for answer in row] for row in said], dtype=torch.bool).reshape(shape)
    valid = torch.tensor([[answer is not None for answer in row] for row in said], dtype=torch.bool).reshape(shape)
    return labels, valid


def track_metadata(track: Track) -> dict[str, Any]:
    """What an export and an index say about a track, so that a search can show it and filter by it.

    Returns:
        path, title, artist, album, licence, source, all tags under "tags" (in the form in which they are compared),
        the tags of each kind under its name, everything in ``extra``, and the part of the file that it is; what is
        unknown is left out. Where names meet, the first in this order counts.
    """
    known: dict[str, Any] = {
        "path": readable_path(track.path),
        **{name: getattr(track, name) for name in ("title", "artist", "album", "licence", "source")},
        "tags": sorted(track.all_tags),
    }
    for name, value in (*((kind, list(names)) for kind, names in track.tags.items()), *track.extra.items()):
        if name not in ("id", "vector"):  # the columns of an export itself
            known.setdefault(name, value)
    known |= {"start_seconds": track.start_seconds or None, "end_seconds": track.end_seconds}
    return {name: value for name, value in known.items() if value is not None and value != []}


def readable_path(path: str | os.PathLike[str]) -> str:
    """A path as text. A file name need not be Unicode, a column of text must be: other bytes are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def relevance_matrix(
    tracks: Sequence[Track],
    texts: Sequence[Caption],
    owners: Sequence[int | str | None],
) -> Bool[Tensor, "tracks texts"]:
    """Which texts are right for which tracks.

    Text j is right for track i if it is one of the track's own, or has the same words as one of the track's
    captions, or names tags (``requires``, not empty) that the track has all of.

    Args:
        tracks: The rows. A track may stand in several rows.
        texts: The columns.
        owners: For each text, the track it belongs to: a position in ``tracks``, or a track's id (every row with
            that id, which may be none: the owner can be in another batch), or None for a text of nobody.

    Raises:
        ValueError: If ``owners`` is not as long as ``texts``, or a position is outside ``tracks``.
    """
    if len(owners) != len(texts):
        raise ValueError(f"each text needs an owner (or None), got {len(texts)} texts and {len(owners)} owners")
    rows_of_id: dict[str, list[int]] = {}
    rows_of_words: dict[str, list[int]] = {}
    has_tag: dict[str, np.ndarray] = {}
    for row, track in enumerate(tracks):
        rows_of_id.setdefault(track.id, []).append(row)
        for caption in track.captions:
            rows_of_words.setdefault(caption.words, []).append(row)
        for tag in track.all_tags:
            if tag not in has_tag:
                has_tag[tag] = np.zeros(len(tracks), dtype=bool)
            has_tag[tag][row] = True

    nobody = np.zeros(len(tracks), dtype=bool)
    by_text = np.zeros((len(texts), len(tracks)), dtype=bool)
    for right, text, owner in zip(by_text, texts, owners, strict=True):
        if text.requires:
            right |= np.logical_and.reduce([has_tag.get(tag, nobody) for tag in text.requires])
        right[rows_of_words.get(text.words, [])] = True
        if isinstance(owner, str):
            right[rows_of_id.get(owner, [])] = True
        elif owner is not None:
            if not 0 <= owner < len(tracks):
                raise ValueError(f"an owner's position must be from 0 to {len(tracks) - 1}, got {owner}")
            right[owner] = True
    return torch.from_numpy(np.ascontiguousarray(by_text.T))


def _names(kind: str, names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise ValueError(f"tags of kind {kind!r} must be a list of names, got the string {names!r}; write [{names!r}]")
    for name in names:
        _tag_key(name)
    return tuple(dict.fromkeys(names))


def _tag_key(tag: str) -> str:
    if not isinstance(tag, str) or not tag.strip():
        raise ValueError(f"a tag must be a name, got {tag!r}")
    return words_key(tag)
