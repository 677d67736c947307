"""What a request may ask for: checked before anything is done, refused with one sentence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from serve.problems import Problem
from serve.settings import Settings
from xmodal.index import Condition, parse_where


@contextmanager
def refusals() -> Iterator[None]:
    """A ValueError of the block is the request's fault: a library refused what was asked.

    Raises:
        Problem: 422 with its sentence.
    """
    try:
        yield
    except ValueError as error:
        raise Problem(422, " ".join(str(error).split())) from error


def check_page(settings: Settings, count: int, offset: int, name: str = "k") -> None:
    """Refuse a page that reaches too far (Problem 422)."""
    if count + offset > settings.max_hits:
        raise Problem(
            422,
            f"offset and {name} together may be {settings.max_hits} at most, got {offset} and {count}; ask for less",
        )


def check_texts(settings: Settings, texts: Sequence[str]) -> None:
    """Refuse too many texts, a long one, or one without words (Problem 422)."""
    if not 1 <= len(texts) <= settings.max_texts:
        raise Problem(422, f"from 1 to {settings.max_texts} texts may be sent at once, got {len(texts)}")
    for number, text in enumerate(texts):
        if len(text) > settings.max_text:
            raise Problem(
                422, f"a text may have {settings.max_text} characters, text {number} has {len(text)}; send a part of it"
            )
        if not text.strip():
            raise Problem(422, f"text {number} is empty; a vector of no words would mean nothing")


def conditions(settings: Settings, where: Sequence[str] | None) -> tuple[Condition, ...]:
    """Read the conditions of a filter.

    Raises:
        Problem: 422 if one is none, or there are too many.
    """
    if where and len(where) > settings.max_terms:
        raise Problem(422, f"at most {settings.max_terms} conditions may be asked for, got {len(where)}")
    with refusals():
        return parse_where(where or ())
