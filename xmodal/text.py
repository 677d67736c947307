"""From the fields of a track to the words that a text tower reads.

Conventions
-----------
Two texts are the same words when their :func:`words_key` is the same: letter case, runs of white space and the
compatibility variants of Unicode (full-width letters, ligatures) do not tell texts or tags apart.
A prompt template has one slot, ``{}``, and no article before it, so that any tag reads well in it.
Everything here depends on its arguments alone; chance comes from the ``random.Random`` that the caller gives.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

PROMPTS: Mapping[str, tuple[str, ...]] = {
    "instrument": ("{}", "{} music", "music with {}", "music played on {}", "the sound of {}"),
    "vocals": ("{}", "music with {}", "a song with {}"),
    "genre": ("{}", "{} music", "music in the style of {}"),
    "mood": ("{}", "{} music", "music that feels {}", "a piece that sounds {}"),
    "tempo": ("{}", "{} music", "music at {} tempo"),
    "theme": ("{}", "music for {}", "{} music"),
}
"""Prompt templates by kind of tag; :func:`prompts_for` finds the kind."""

ANY_PROMPTS: tuple[str, ...] = ("{}", "the sound of {}", "a recording of {}", "audio with {}")
"""Prompt templates for tags of any other kind."""

FIELDS: tuple[str, ...] = ("caption", "tags", "lyrics", "title", "artist", "album")
"""The fields that a text may name, in the order in which :func:`write_fields` writes them."""

FIELD_PROMPTS: Mapping[str, str] = {
    "caption": "{}",
    "tags": "{}",
    "lyrics": "{}",
    "title": "a piece called {}",
    "artist": "music by {}",
    "album": "from the album {}",
}
"""What stands around the text of a field before a tower reads it."""

_FIELD_NAME = re.compile(rf"(?<!\S)({'|'.join(FIELDS)}):(?=\s|\"|$)", re.IGNORECASE)
_QUOTED = re.compile(r'\s*"((?:[^"\\]|\\.)*)"', re.DOTALL)


_KIND_OF = {
    "instruments": "instrument",
    "vocal": "vocals",
    "genres": "genre",
    "style": "genre",
    "styles": "genre",
    "moods": "mood",
    "themes": "theme",
}
# In a sentence these stand before the word "music", in this order, and the next ones after "with".
_BEFORE_MUSIC = ("tempo", "mood", "genre")
_AFTER_WITH = ("instrument", "vocals")
_FIELD = re.compile(r"\{([^{}]*)\}")
_PART = re.compile(r"\[([^\[\]]*)\]|([^\[\]]+)|(.)", re.DOTALL)


class TagText(NamedTuple):
    """A text made of tags, and the tags that it names."""

    text: str
    tags: tuple[str, ...]


def normalise_text(text: str) -> str:
    """Unicode NFKC, every run of white space as one space, none at the ends. Idempotent; keeps letter case."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def words_key(text: str) -> str:
    """The form in which texts and tags are compared: :func:`normalise_text` without letter case. Idempotent.

    The folding is the Unicode Standard's compatibility caseless match (definition D146), which folds twice because
    a compatibility decomposition can bring new capital letters to light.
    """
    folded = unicodedata.normalize("NFD", normalise_text(text)).casefold()
    return normalise_text(unicodedata.normalize("NFKD", folded).casefold())


def render(fields: Mapping[str, Any], template: str) -> str:
    """Fill a template with the fields of a track.

    ``{name}`` stands for a field; a list is written with commas. A part in square brackets is left out when one of
    its fields is empty or not there: ``"{title}[ by {artist}][, {mood} music]"``.

    Args:
        fields: Values by name: text, number, or a list of these.
        template: Text with fields and optional parts; brackets do not nest.

    Returns:
        The text, without white space at its ends.

    Raises:
        ValueError: If a field outside brackets is empty or not there, or brackets and braces do not close.
    """
    written: list[str] = []
    for optional, plain, stray in _PART.findall(template):
        if stray or re.search(r"[{}]", _FIELD.sub("", optional or plain)):
            raise ValueError(f"brackets and braces must close and not nest, got the template {template!r}")
        missing = [name for name in _FIELD.findall(optional or plain) if not _field_text(fields.get(name))]
        if plain and missing:
            there = ", ".join(name for name, value in fields.items() if _field_text(value)) or "none"
            raise ValueError(
                f"the template {template!r} needs the field {missing[0]!r}, and the fields there are: {there}; "
                "put what may be missing into [square brackets]"
            )
        if not missing:
            written.append(_FIELD.sub(lambda match: _field_text(fields[match[1]]), optional or plain))
    return "".join(written).strip()


def prompts_for(kind: str | None = None, templates: Mapping[str, Sequence[str]] = PROMPTS) -> tuple[str, ...]:
    """The templates for tags of one kind.

    Args:
        kind: Such as "instrument" or "moods" (plurals and letter case do not matter); None or an unknown kind gives
            :data:`ANY_PROMPTS`.
        templates: Templates by kind, each with one ``{}``.

    Raises:
        ValueError: If a template has not exactly one slot.
    """
    chosen = tuple(templates.get(kind or "", ()) or templates.get(_kind(kind or ""), ()) or ANY_PROMPTS)
    for template in chosen:
        if template.count("{}") != 1:
            raise ValueError(f"a prompt template needs exactly one {{}}, got {template!r}")
    return chosen


def tag_prompts(tag: str, kind: str | None = None, templates: Mapping[str, Sequence[str]] = PROMPTS) -> tuple[str, ...]:
    """One tag in every template of its kind, for instance to average their vectors."""
    return tuple(template.replace("{}", tag) for template in prompts_for(kind, templates))


def captions_from_tags(
    tags: Mapping[str, Sequence[str]],
    rng: random.Random,
    *,
    count: int = 1,
    dropout: float = 0.3,
    max_tags: int = 6,
    templates: Mapping[str, Sequence[str]] = PROMPTS,
) -> list[TagText]:
    """Texts that name some of a track's tags, in changing order and wording.

    Each text names a tag with probability ``1 - dropout``, but at least one and at most ``max_tags``. A single tag
    is put into a prompt of its kind. Several become a list ("calm, flute, folk") or, if they are of musical kinds,
    with even chance a sentence ("calm folk music with flute").

    Args:
        tags: Names by kind.
        rng: The only source of chance.
        count: Number of texts to draw, at least 1.
        dropout: Probability of leaving a tag out, in [0, 1).
        max_tags: Most tags that a text may name, at least 1.
        templates: Prompt templates by kind.

    Returns:
        The texts drawn, without repetitions, each with the tags it names; none if there are no tags.

    Raises:
        ValueError: If ``count``, ``dropout`` or ``max_tags`` is out of range.
    """
    if count < 1 or max_tags < 1:
        raise ValueError(f"count and max_tags must be at least 1, got count={count} and max_tags={max_tags}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be from 0 to below 1, got {dropout}")
    distinct = {words_key(name): (kind, name) for kind, names in tags.items() for name in names if words_key(name)}
    if not distinct:
        return []
    drawn: dict[str, TagText] = {}
    for _ in range(count):
        shuffled = rng.sample(list(distinct.values()), len(distinct))
        # The first stays whatever the dice say: after a shuffle it is any of them.
        kept = shuffled[:1] + [tag for tag in shuffled[1:] if rng.random() >= dropout]
        tag_text = _tag_text(kept[:max_tags], rng, templates)
        drawn.setdefault(words_key(tag_text.text), tag_text)
    return list(drawn.values())


def names_fields(text: str) -> bool:
    """Whether a text names at least one field, as :func:`parse_fields` reads it."""
    return _next_field(text, 0) is not None


def parse_fields(text: str) -> dict[str, str]:
    r"""Read a text that may name fields: ``lyrics: "…" tags: jazz, slow``.

    The rule: a field is its name (:data:`FIELDS`, in any letter case) at the start of the text or after white space,
    a colon, and white space or a double quote. Its value is what stands in double quotes right after it, where ``\"``
    is a quote and ``\\`` a backslash, or everything up to the next field outside of quotes or the end. Words that
    belong to no field are the caption. A field that is named twice has both values: tags with a comma between them,
    others on lines of their own. A field without words is left out.

    Args:
        text: Words with or without fields.

    Returns:
        Values by field, in the order in which the text names them; ``{"caption": text}`` if it names none.
    """
    found: dict[str, list[str]] = {}

    def keep(field: str, value: str) -> None:
        if value.strip():
            found.setdefault(field, []).append(value.strip())

    place, field = 0, "caption"
    while True:
        named = _next_field(text, place)
        keep(field, text[place : len(text) if named is None else named.start()])
        if named is None:
            break
        field, place = named[1].lower(), named.end()
        quoted = _QUOTED.match(text, place)
        if quoted:
            keep(field, re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL))
            field, place = "caption", quoted.end()
    if not found:  # names and colons alone: then they are the words
        return {"caption": text.strip()}
    return {field: (", " if field == "tags" else "\n").join(values) for field, values in found.items()}


def write_fields(fields: Mapping[str, str]) -> str:
    """The text that :func:`parse_fields` reads as these fields; a caption alone is written as it is, if it can be.

    Raises:
        ValueError: If a field is unknown or there is no value with words.
    """
    unknown = sorted(set(fields) - set(FIELDS))
    if unknown:
        raise ValueError(f"there is no field {unknown[0]!r}; the fields are: {', '.join(FIELDS)}")
    values = {field: fields[field].strip() for field in FIELDS if fields.get(field, "").strip()}
    if not values:
        raise ValueError(f"at least one field needs words, got {dict(fields)!r}")
    if list(values) == ["caption"] and not names_fields(values["caption"]):
        return values["caption"]
    escaped = {field: value.replace("\\", "\\\\").replace('"', '\\"') for field, value in values.items()}
    return " ".join(f'{field}: "{value}"' for field, value in escaped.items())


def split_lines(lyrics: str, lines: int) -> list[str]:
    """Groups of ``lines`` lines that hold words; an empty line, which ends a verse, ends a group as well.

    Raises:
        ValueError: If ``lines`` is below 1 or there are no words.
    """
    if lines < 1:
        raise ValueError(f"lines must be at least 1, got {lines}")
    groups: list[list[str]] = [[]]
    for line in lyrics.splitlines():
        if not line.strip() or len(groups[-1]) == lines:
            groups.append([])
        if line.strip():
            groups[-1].append(line.strip())
    found = ["\n".join(group) for group in groups if group]
    if not found:
        raise ValueError(f"lyrics need words, got {lyrics!r}")
    return found


def _next_field(text: str, start: int) -> re.Match[str] | None:
    return _FIELD_NAME.search(text, start)


def _tag_text(tags: Sequence[tuple[str, str]], rng: random.Random, templates: Mapping[str, Sequence[str]]) -> TagText:
    names = tuple(name for _, name in tags)
    if len(tags) == 1:
        kind, name = tags[0]
        return TagText(rng.choice(prompts_for(kind, templates)).replace("{}", name), names)
    kinds = {_kind(kind) for kind, _ in tags}
    if kinds <= {*_BEFORE_MUSIC, *_AFTER_WITH} and rng.random() < 0.5:
        before = " ".join(name for role in _BEFORE_MUSIC for kind, name in tags if _kind(kind) == role)
        after = [name for kind, name in tags if _kind(kind) in _AFTER_WITH]
        last = " and ".join(filter(None, [", ".join(after[:-1]), *after[-1:]]))
        return TagText(f"{before} music".strip() + (f" with {last}" if last else ""), names)
    return TagText(", ".join(names), names)


def _kind(kind: str) -> str:
    lowered = kind.lower()
    return _KIND_OF.get(lowered, lowered)


def _field_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, Sequence):
        return ", ".join(filter(None, map(_field_text, value)))
    return str(value)
