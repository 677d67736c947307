"""Lyrics with their times: lines, and words where they are known.

Conventions
-----------
Times are seconds from the start of the audio file, as in every published annotation; a part of a file keeps them.
A time that is not known is None, and a word's times lie where the annotators put them, also outside of its line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LyricWord:
    """A word that is sung.

    Attributes:
        text: The word.
        start_seconds: Where it begins in the file; None: not known.
        end_seconds: Where it ends, not before its start; None: not known.
    """

    text: str
    start_seconds: float | None = None
    end_seconds: float | None = None

    def __post_init__(self) -> None:
        _check(self, "a word of lyrics")


@dataclass(frozen=True)
class LyricLine:
    """A line that is sung.

    Attributes:
        text: The line as it is written.
        start_seconds: Where it begins in the file; None: not known.
        end_seconds: Where it ends, not before its start; None: not known.
        words: Its words, where their times are known.
    """

    text: str
    start_seconds: float | None = None
    end_seconds: float | None = None
    words: tuple[LyricWord, ...] = ()

    def __post_init__(self) -> None:
        _check(self, "a line of lyrics")
        object.__setattr__(self, "words", tuple(self.words))


def parse_lyric_line(value: Any) -> LyricLine:
    """A line from its JSON form: a text, or ``{"text", "start", "end", "words": [{"text", "start", "end"}]}``.

    Raises:
        ValueError: If it is neither.
    """
    if isinstance(value, str):
        return LyricLine(value)
    fields = _fields(value, "a line of lyrics", {"text", "start", "end", "words"})
    words = value.get("words") or ()
    if not isinstance(words, (list, tuple)):
        raise ValueError(f"the words of a line of lyrics must be a list, got {words!r:.60}")
    return LyricLine(
        *fields, tuple(LyricWord(*_fields(word, "a word of lyrics", {"text", "start", "end"})) for word in words)
    )


def plain_lyric_line(line: LyricLine) -> dict[str, Any]:
    """The JSON form of a line, from which :func:`parse_lyric_line` makes it again."""
    plain = _plain(line)
    if line.words:
        plain["words"] = [_plain(word) for word in line.words]
    return plain


def _check(item: LyricWord | LyricLine, what: str) -> None:
    if not isinstance(item.text, str) or not item.text.strip():
        raise ValueError(f"{what} needs words, got {item.text!r}")
    for name in ("start_seconds", "end_seconds"):
        seconds = getattr(item, name)
        if seconds is None:
            continue
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < math.inf:
            raise ValueError(f"{name} of {what} must be a number of seconds from 0 on, got {seconds!r}")
        object.__setattr__(item, name, float(seconds))
    if item.start_seconds is not None and item.end_seconds is not None and item.end_seconds < item.start_seconds:
        raise ValueError(f"{what} ends at {item.end_seconds:g} s, before its start at {item.start_seconds:g} s")


def _fields(value: Any, what: str, names: set[str]) -> tuple[Any, Any, Any]:
    if not isinstance(value, Mapping) or "text" not in value:
        raise ValueError(f'{what} is {{"text": …, "start": seconds, "end": seconds}}, got {value!r:.60}')
    unknown = sorted(value.keys() - names)
    if unknown:
        raise ValueError(f"{what} has no field {unknown[0]!r}; it has: {', '.join(sorted(names))}")
    return value["text"], value.get("start"), value.get("end")


def _plain(item: LyricWord | LyricLine) -> dict[str, Any]:
    known = {"text": item.text, "start": item.start_seconds, "end": item.end_seconds}
    return {name: value for name, value in known.items() if value is not None}
