"""Conditions on metadata: which rows of an index may answer a query.

Conventions
-----------
A value of metadata is seen as words, as a number, or as both: text counts as words in the form of
:func:`xmodal.text.words_key` ("Piano" and "piano" are one), a list of texts as each of them, a text that is a number
also as that number, a truth value as the word "true" or "false". What lies in a dict has the key "outer.inner".
``tag`` is short for ``tags`` and ``duration`` for ``duration_seconds``.

All conditions must hold. A row without the key fulfils ``!=`` and nothing else.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from xmodal.text import words_key

Comparison = Literal["=", "!=", "<", "<=", ">", ">="]
_LONGEST_TOKEN = 200  # bytes
_SHORT = {"tag": "tags", "duration": "duration_seconds"}
_VALUE = re.compile(r'\s*("(?:[^"]|"")*"(?=\s*(?:\||$))|[^|]*)')  # in quotes as a whole, or up to the next bar
_SYNTAX = re.compile(r"\s*([^=<>!]+?)\s*(!=|<=|>=|=|<|>)\s*(.+?)\s*", re.DOTALL)


@dataclass(frozen=True)
class Condition:
    """One condition on one key.

    Attributes:
        key: The key of the metadata.
        comparison: ``=`` and ``!=`` compare words or numbers, the others numbers.
        values: One value; for ``=`` and ``!=`` any number of them, and one that matches is enough.
    """

    key: str
    comparison: Comparison
    values: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", _SHORT.get(self.key, self.key))
        if self.comparison not in get_args(Comparison):
            raise ValueError(
                f"a condition compares by one of {' '.join(get_args(Comparison))}, got {self.comparison!r}"
            )
        if not self.values or isinstance(self.values, str):
            raise ValueError(f"the condition on {self.key!r} needs a list of values, got {self.values!r}")
        if self.comparison in ("=", "!="):
            return
        if len(self.values) != 1 or as_number(self.values[0]) is None:
            raise ValueError(
                f"{self.key}{self.comparison} needs one number, got {'|'.join(self.values)!r}; write for example "
                f"{self.key}{self.comparison}1990"
            )

    @property
    def bound(self) -> float:
        """The number that ``<``, ``<=``, ``>`` or ``>=`` compares with."""
        number = as_number(self.values[0])
        assert number is not None
        return number

    @property
    def words(self) -> list[str]:
        """The values of ``=`` or ``!=`` as words."""
        return [words_key(value) for value in self.values]

    @property
    def numbers(self) -> list[float]:
        """The values of ``=`` or ``!=`` that are numbers."""
        return [number for value in self.values if (number := as_number(value)) is not None]


def parse_where(texts: str | Iterable[str]) -> tuple[Condition, ...]:
    """Read conditions as a user writes them.

    ``genre=rock``, ``genre=rock|jazz`` (one of them), ``tags!=vocals``, ``year>=1990``, ``year=1990..1999`` (from,
    to), ``duration<300``. A value in quotes is taken as it stands: ``artist="Me | You"|Them``, ``title="1990..1999"``;
    a quote in it is written twice.

    Raises:
        ValueError: If a text is no such condition.
    """
    conditions: list[Condition] = []
    for text in [texts] if isinstance(texts, str) else texts:
        found = _SYNTAX.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is no condition; write for example genre=rock, year>=1990 or year=1990..1999")
        key, comparison, value = found.groups()
        low, dots, high = value.partition("..")
        if comparison == "=" and dots and as_number(low) is not None and as_number(high) is not None:
            conditions += [Condition(key, ">=", (low,)), Condition(key, "<=", (high,))]
        else:
            parts = _one_of(value) if comparison in ("=", "!=") else (value,)
            conditions.append(Condition(key, comparison, parts))  # type: ignore[arg-type]  # the syntax allows no other
    return tuple(conditions)


def _one_of(value: str) -> tuple[str, ...]:
    """The values between the bars; one in quotes is as it stands, with "" for a quote."""
    parts, bar = [], -1
    while True:
        found = _VALUE.match(value, bar + 1)
        assert found is not None, "the pattern takes any text"
        part = found[1].strip()
        quoted = len(part) > 1 and part[0] == part[-1] == '"' and '"' not in part[1:-1].replace('""', "")
        parts.append(part[1:-1].replace('""', '"') if quoted else part)
        if (bar := value.find("|", found.end())) < 0:
            return tuple(parts)


def facets(metadata: Mapping[str, Any]) -> tuple[dict[str, list[str]], dict[str, float]]:
    """See metadata as conditions see them: words by key, and numbers by key."""
    words: dict[str, list[str]] = {}
    numbers: dict[str, float] = {}
    for key, value in _flat(metadata, ""):
        if isinstance(value, bool):
            words[key] = [str(value).lower()]
        elif isinstance(value, (int, float)):
            numbers[key] = float(value)
        elif isinstance(value, str):
            words[key] = [words_key(value)]
            number = as_number(value)
            if number is not None:
                numbers[key] = number
        elif isinstance(value, (list, tuple)):
            words[key] = [words_key(item) for item in value if isinstance(item, str)]
    if "duration" in numbers:
        numbers.setdefault("duration_seconds", numbers["duration"])
    return words, numbers


def tokens(metadata: Mapping[str, Any]) -> tuple[list[str], dict[str, float]]:
    """Metadata as a database keeps them: what ``=`` compares with as a set of texts, and numbers by key."""
    words, numbers = facets(metadata)
    said = [_token(key, "=", word) for key, found in words.items() for word in found]
    return sorted({*said, *(_token(key, "#", repr(number)) for key, number in numbers.items())}), numbers


def wanted_tokens(condition: Condition) -> list[str]:
    """The :func:`tokens` of which a row needs one to fulfil ``=``."""
    said = [_token(condition.key, "=", word) for word in condition.words]
    return [*said, *(_token(condition.key, "#", repr(number)) for number in condition.numbers)]


def _token(key: str, sign: str, text: str) -> str:
    token = f"{key}{sign}{text}"
    if len(token.encode()) > _LONGEST_TOKEN:  # databases index short texts only
        return f"{key[:32]}{sign}{hashlib.blake2b(token.encode(), digest_size=16).hexdigest()}"
    return token


def holds(condition: Condition, words: Mapping[str, Sequence[str]], numbers: Mapping[str, float]) -> bool:
    """Whether a condition holds for the :func:`facets` of one row; the reference for every engine."""
    number = numbers.get(condition.key)
    if condition.comparison in ("=", "!="):
        equal = bool(set(condition.words) & set(words.get(condition.key, ()))) or number in condition.numbers
        return equal == (condition.comparison == "=")
    if number is None:
        return False
    return {
        "<": number < condition.bound,
        "<=": number <= condition.bound,
        ">": number > condition.bound,
        ">=": number >= condition.bound,
    }[condition.comparison]


def as_number(text: str) -> float | None:
    """The finite number that a text writes, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _flat(metadata: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in metadata.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
