"""What an index knows about tracks, looked at once: which there are, and how one is shown to a client."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xmodal.index import Index
from xmodal.maps import tag_list

# Shown beside the metadata, or nobody's business.
_OWN = ("path", "track", "start_seconds", "end_seconds")


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
    """

    def __init__(self, index: Index) -> None:
        self.index = index
        places: dict[str, int] = {}
        first_row: list[int] = []
        self.windowed = False
        self.titles: list[str] = []
        ids = list(index.ids)
        rows = index.rows_of(ids)  # in a database they are keys and no positions
        for row, id_, facts in zip(rows.tolist(), ids, index.metadata, strict=True):
            track = facts.get("track")
            self.windowed |= track is not None and facts.get("start_seconds") is not None
            name = id_ if track is None else str(track)
            if name not in places:
                places[name] = len(first_row)
                first_row.append(row)
                self.titles.append(title_of(name, facts))
        self.ids = list(places)
        self.first_row = np.asarray(first_row, np.int64)
        self._places = places

    def __len__(self) -> int:
        return len(self.ids)

    def place(self, id_: str) -> int | None:
        """Where a track stands, or None."""
        return self._places.get(id_)

    def facts(self, place: int) -> dict[str, Any]:
        """The metadata of a track."""
        return self.index.metadata[int(self.first_row[place])]


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
    kinds = {
        str(tag): key
        for key, value in facts.items()
        if key not in ("tags", "captions") and isinstance(value, list)
        for tag in value
        if isinstance(tag, str)
    }
    tags = facts.get("tags")
    if isinstance(tags, dict):
        kinds = {str(tag): str(kind) for kind, names in tags.items() for tag in names}
    return [{"name": tag, "kind": kinds.get(tag), "probability": None, "given": True} for tag in tag_list(tags)]


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
