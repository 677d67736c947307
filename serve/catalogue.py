"""What an index knows about tracks, gathered once: which there are, what they can be filtered by, how one is shown."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from xmodal.index import Condition, Index
from xmodal.maps import layout, tag_list
from xmodal.text import words_key

# Of one row and not of a track, or nobody's business.
_OWN = frozenset({"path", "track", "start_seconds", "end_seconds", "content", "line"})
_NO_FACETS = _OWN | {"title", "captions", "lyrics", "id", "sha256", "url", "duration"}
_BLOCK = 10_000  # rows whose metadata are looked at together
_MOST_VALUES = 200


class Catalogue:
    """The tracks of an index.

    A track is what its rows have in common: rows whose metadata name one ``track`` are its windows, and a row that
    names none is a track of its own.

    Args:
        index: Not changed while it is served.

    Attributes:
        ids: Of each track, in the order of the index.
        first_row: The row of each track that stands first.
        windowed: Whether tracks are in the index window by window.
        titles: What each track is called, by which a listing is searched.
        folders: The folders that the files lie in.
    """

    def __init__(self, index: Index) -> None:
        self.index = index
        ids = list(index.ids)
        rows = index.rows_of(ids)  # in a database they are keys and no positions
        tracks = index.values("track", rows)
        self._places: dict[str, int] = {}
        firsts: list[int] = []
        names: list[Any] = []
        for id_, row, track in zip(ids, rows.tolist(), tracks, strict=True):
            name = id_ if track is None else str(track)
            if self._places.setdefault(name, len(firsts)) == len(firsts):
                firsts.append(row)
                names.append(track)
        self.ids = list(self._places)
        self.first_row = np.asarray(firsts, np.int64)
        self._names = names  # as the metadata have them; None for a track of one row
        self.windowed = len(self.ids) < len(ids) or any(
            start is not None
            for name, start in zip(names, index.values("start_seconds", self.first_row), strict=True)
            if name is not None
        )
        self.titles: list[str] = []
        self.folders: set[str] = set()
        self._facets: dict[str, _Facet] = {}
        self._tags: Counter[tuple[str, str | None]] = Counter()
        for place, facts in enumerate(self._all_facts()):
            self.titles.append(title_of(self.ids[place], facts))
            if isinstance(facts.get("path"), str) and "://" not in facts["path"]:
                self.folders.add(os.path.dirname(facts["path"]))
            for key, value in _flat(facts):
                if (facet := self._facets.get(key)) is None:
                    facet = self._facets[key] = _Facet()
                facet.count(value)
            for tag in given_tags(facts):
                self._tags[tag["name"], tag["kind"]] += 1

    def __len__(self) -> int:
        return len(self.ids)

    def place(self, id_: str) -> int | None:
        """Where a track stands, or None."""
        return self._places.get(id_)

    def facts(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """The metadata of some tracks: those of their first rows."""
        return self.index.facts(self.first_row[list(places)])

    def places(self, where: Sequence[Condition]) -> Sequence[int]:
        """The tracks of which a row fulfils all conditions, rising."""
        if not where:
            return range(len(self))
        chosen = self.index.select(where)
        if not self.windowed:
            return np.flatnonzero(np.isin(self.first_row, chosen)).tolist()
        ids = self.index.ids_of(chosen)
        names = self.index.values("track", chosen)
        found = {self._places[id_ if name is None else str(name)] for id_, name in zip(ids, names, strict=True)}
        return sorted(found)

    def starts(self, place: int) -> list[float]:
        """Where the windows of a track start, rising; none for a track that is in the index as a whole."""
        if self._names[place] is None:
            return []
        return sorted(
            float(start) for start in self.index.values("start_seconds", self._rows([place])[0]) if start is not None
        )

    def vectors(self, places: Sequence[int]) -> Float32[np.ndarray, "tracks dim"]:
        """The unit vector of each of some tracks: the mean direction of its rows."""
        if not self.windowed:
            return np.asarray(self.index.vectors(self.first_row[list(places)]), np.float32)
        groups = self._rows(places)
        vectors = np.asarray(self.index.vectors(np.concatenate(groups)), np.float32)
        begins = np.cumsum([0, *(len(rows) for rows in groups[:-1])])
        sums = np.add.reduceat(vectors.astype(np.float64), begins, axis=0)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        # Windows that cancel have no mean direction; then the first is as good as any.
        return np.where(lengths > 1e-6, sums / np.maximum(lengths, 1e-6), vectors[begins]).astype(np.float32)

    def spread(self, count: int) -> list[int]:
        """At most ``count`` places, evenly over the catalogue."""
        return np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int)).tolist()

    @property
    def tags(self) -> list[tuple[str, str | None, int]]:
        """Name and kind of each tag that the metadata give, and how many tracks have it; the most frequent first."""
        return [(name, kind, count) for (name, kind), count in self._tags.most_common()]

    @cached_property
    def facets(self) -> list[dict[str, Any]]:
        """What tracks can be filtered by: of each key its values with their numbers, or its range."""
        found = []
        for key, facet in self._facets.items():
            described = facet.described()
            if described is not None:
                found.append({"name": key, **described})
        return found

    def map(self, points: int) -> tuple[str, list[int], list[list[float]]]:
        """Two coordinates of at most ``points`` tracks: how, which, and where (from -1 to 1)."""
        places = self.spread(points)
        if len(places) < 2:
            return "a single track", places, [[0.0, 0.0]] * len(places)
        at, method = layout(self.vectors(places))
        return method, places, np.round(at, 4).tolist()

    def _rows(self, places: Sequence[int]) -> list[Int64[np.ndarray, " rows"]]:
        named = [place for place in places if self._names[place] is not None]
        groups = dict(zip(named, self.index.rows_of_tracks([self._names[place] for place in named]), strict=True))
        return [groups[place] if place in groups else self.first_row[[place]] for place in places]

    def _all_facts(self) -> Iterator[dict[str, Any]]:
        for first in range(0, len(self), _BLOCK):
            yield from self.index.facts(self.first_row[first : first + _BLOCK])


@dataclass
class _Facet:
    """The values of one key over all tracks, as they are written."""

    texts: Counter[str] = field(default_factory=Counter)
    numbers: int = 0
    least: float = float("inf")
    most: float = float("-inf")
    is_list: bool = False
    tracks: int = 0

    def count(self, value: Any) -> None:
        self.tracks += 1
        if isinstance(value, str):
            self.texts[value] += 1
        elif isinstance(value, bool):
            self.texts[str(value).lower()] += 1
        elif isinstance(value, int | float):
            self.numbers += 1
            self.least, self.most = min(self.least, value), max(self.most, value)
        elif isinstance(value, list):
            self.is_list = True
            self.texts.update(one for one in value if isinstance(one, str))

    def described(self) -> dict[str, Any] | None:
        if self.numbers:
            return {"kind": "number", "min": self.least, "max": self.most}
        # What is different on most tracks is a name and divides nothing.
        if not self.texts or (len(self.texts) > _MOST_VALUES and len(self.texts) > self.tracks / 2):
            return None
        words: Counter[str] = Counter()  # spellings of one word are one value, as conditions see it
        shown: dict[str, str] = {}
        for text, count in self.texts.items():
            if word := words_key(text):
                words[word] += count
                shown.setdefault(word, text)
        values = [{"value": shown[word], "count": count} for word, count in words.most_common(_MOST_VALUES)]
        return {"kind": "tags" if self.is_list else "text", "values": values} if values else None


def title_of(id_: str, facts: Mapping[str, Any]) -> str:
    """A track's title, else the name of its file, else its id."""
    if facts.get("title"):
        return str(facts["title"])
    return Path(str(facts["path"])).stem if facts.get("path") else id_


def shown(id_: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """A track as clients see it, without tags and audio; where its file lies on this machine is left out."""
    seconds = facts.get("duration_seconds", facts.get("duration"))
    return {
        "id": id_,
        "title": title_of(id_, facts),
        "artist": _text(facts.get("artist")),
        "album": _text(facts.get("album")),
        "duration_seconds": float(seconds) if isinstance(seconds, int | float) else None,
        "metadata": {
            **{key: value for key, value in facts.items() if key not in _OWN},
            **({"file": Path(str(facts["path"])).name} if facts.get("path") else {}),
        },
    }


def given_tags(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tags that the metadata give a track; their kind, where a list under the kind's name holds them too."""
    tags = facts.get("tags")
    if isinstance(tags, dict):
        kinds = {str(tag): str(kind) for kind, names in tags.items() for tag in names}
    else:
        kinds = {
            tag: key
            for key, value in facts.items()
            if key not in ("tags", "captions") and isinstance(value, list)
            for tag in value
            if isinstance(tag, str)
        }
    names = dict.fromkeys(tag_list(tags))
    return [{"name": tag, "kind": kinds.get(tag), "probability": None, "given": True} for tag in names]


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in facts.items():
        if prefix or key not in _NO_FACETS:
            if isinstance(value, dict):
                yield from _flat(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
