"""From the tags of a piece to captions, in the wording of its split.

A caption is put together from clauses (what it is, who leads, what accompanies, the bass, the drums, the mode).
Each clause has templates per split, and every template says in its slots what it needs, so that any subset of a
piece's tags can be worded. Phrases come from :mod:`xmodal.data.demo.vocabulary`.
"""

from __future__ import annotations

import random
import string
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from xmodal.data.demo.composer import Composition
from xmodal.data.demo.vocabulary import WORDS

SPLITS = ("train", "validation", "test")

KINDS = ("full", "long", "short", "tag", "tag")
"""What the captions of a track are, in order: nearly everything that can be heard; four to six tags; two or three;
one tag, twice. A track's ``extra["caption_kinds"]`` repeats it."""


class Text(NamedTuple):
    """A caption and the tags that it names."""

    text: str
    tags: frozenset[str]


CLAUSES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "train": {
        "head": (
            "{adjectives} {style} music", "{adjectives} {style} piece", "{style} music, {adjectives}",
            "{style} track that is {adjectives}",
            "{style} music", "{style} piece", "{style} track",
            "{adjectives} music", "{adjectives} piece", "{adjectives} tune",
            "music", "piece of music",
        ),
        "lead": (
            "{touch} {lead} melody", "melody on {touch} {lead}", "{touch} {lead} playing the tune",
            "led by {touch} {lead}",
            "{lead} melody", "melody on {lead}", "{lead} playing the tune", "led by {lead}",
            "{touch} melody", "melody that is {touch}",
        ),
        "chords": (
            "{figure} on {chords}", "{chords} playing {figure}", "over {chords} with {figure}",
            "{chords} accompaniment", "backed by {chords}", "over {chords}",
            "{figure} underneath", "accompanied by {figure}",
        ),
        "backing": ("{backing} in the background", "soft {backing} behind", "plus {backing}"),
        "bass": ("{bass} line", "and {bass}", "{bass} underneath"),
        "drums": ("{drums}",),
        "mode": ("in {mode}", "set in {mode}"),
    },
    "validation": {
        "head": (
            "{adjectives} recording of {style}", "something {adjectives}, {style} in kind",
            "recording of {style}", "{adjectives} recording", "recording",
        ),
        "lead": (
            "the main voice is {touch} {lead}", "{touch} {lead} up front",
            "the main voice is {lead}", "{lead} up front", "the main voice is {touch}",
        ),
        "chords": (
            "{chords} supporting with {figure}", "supported by {chords}", "supported by {figure}",
        ),
        "backing": ("a layer of {backing}",),
        "bass": ("{bass} at the bottom",),
        "drums": ("{drums} here",),
        "mode": ("written in {mode}",),
    },
    "test": {
        "head": (
            "an instrumental clip of {adjectives} {style}", "{style} instrumental, {adjectives} in feel",
            "an instrumental clip of {style}", "{style} instrumental",
            "an instrumental clip, {adjectives} in feel", "an instrumental clip",
        ),
        "lead": (
            "{touch} {lead} takes the lead", "featuring {touch} {lead} as the soloist",
            "{lead} takes the lead", "featuring {lead} as the soloist", "the leading part is {touch}",
        ),
        "chords": (
            "while {chords} provides {figure}", "above {figure} from {chords}",
            "while {chords} provides the harmony", "above {chords}",
            "with harmony from {figure}",
        ),
        "backing": ("and {backing} filling out the sound", "joined by {backing}"),
        "bass": ("{bass} holds the low end", "grounded by {bass}"),
        "drums": ("played {drums}",),
        "mode": ("the harmony is in {mode}", "harmonised in {mode}"),
    },
}  # fmt: skip
"""Clause templates by split; those of a clause cover every set of slots that can occur."""

FRAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("{first}, {rest}", "{first} with {rest}", "{first}: {rest}", "{rest}; {first}"),
    "validation": ("{first} - {rest}", "{first}. It has: {rest}"),
    "test": ("{first}; here {rest}", "{first} in which we hear {rest}"),
}
"""How the first clause and the others are joined, by split."""

PROMPTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "train": {
        "instrument": ("{}", "music with {}", "{} music", "the sound of {}", "{} playing"),
        "style": ("{}", "{} music", "a piece in {} style"),
        "drums": ("music {}", "a piece {}", "{}"),
        "mode": ("music in {}", "a piece in {}", "in {}"),
        "register": ("{} melody", "music with a {} melody", "{} music"),
        "articulation": ("{} melody", "music with a {} melody", "{} playing"),
        "accompaniment": ("{}", "music with {}", "accompanied by {}"),
        "": ("{}", "{} music", "a piece that sounds {}"),
    },
    "validation": {
        "instrument": ("a recording featuring {}",),
        "style": ("a {} recording",),
        "drums": ("a recording made {}",),
        "mode": ("a recording in {}",),
        "register": ("a recording with {} notes",),
        "articulation": ("a recording with {} notes",),
        "accompaniment": ("a recording supported by {}",),
        "": ("a recording that is {}",),
    },
    "test": {
        "instrument": ("a clip in which {} can be heard", "an instrumental with {}"),
        "style": ("a {} instrumental", "an example of {}"),
        "drums": ("an instrumental {}",),
        "mode": ("an instrumental in {}",),
        "register": ("the lead plays {} notes",),
        "articulation": ("the lead plays {} notes",),
        "accompaniment": ("the harmony is made of {}",),
        "": ("an instrumental that feels {}", "a clip with a {} character"),
    },
}
"""Prompts with one tag, by split and kind; the kind "" is all others."""

# Which clause slot a tag fills; the slots of instruments depend on the part that they play.
_ADJECTIVES = ("mood", "density", "tempo")
_TOUCH = ("register", "articulation")


def captions_for(composition: Composition, split: str, seed: int) -> list[Text]:
    """The captions of a piece, of the kinds that :data:`KINDS` lists.

    Args:
        composition: The piece.
        split: Whose wording to use.
        seed: The same seed gives the same captions.

    Raises:
        ValueError: If ``split`` is none of :data:`SPLITS`.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    rng = random.Random(seed)
    slots = _slots(composition)
    singles = [(kind, tag) for kind, tags in composition.tags.items() for tag in tags]
    texts = []
    for kind in KINDS:
        if kind == "tag":
            tag_kind, tag = rng.choice(singles)
            texts.append(prompt(tag, tag_kind, split, rng))
        else:
            count = {"full": len(slots), "long": rng.randint(4, 6), "short": rng.randint(2, 3)}[kind]
            chosen = sorted(rng.sample(range(len(slots)), min(count, len(slots))))
            texts.append(_sentence([slots[index] for index in chosen], split, rng))
    return texts


def prompt(tag: str, kind: str, split: str, rng: random.Random) -> Text:
    """A text that names one tag."""
    by_kind = PROMPTS[split]
    template = rng.choice(by_kind.get(kind, by_kind[""]))
    return Text(template.format(_phrase(tag, split, rng)), frozenset({tag}))


def prompts(tag: str, kind: str, split: str) -> list[str]:
    """Every text of one split that names one tag and nothing else: an ensemble for tagging."""
    by_kind = PROMPTS[split]
    return [
        template.format(phrase) for template in by_kind.get(kind, by_kind[""]) for phrase in getattr(WORDS[tag], split)
    ]


def _slots(composition: Composition) -> list[tuple[str, str]]:
    """(slot, tag) pairs in the order in which they are spoken."""
    tags = composition.tags
    slots = [("adjectives", tag) for kind in _ADJECTIVES for tag in tags.get(kind, ())]
    slots += [("style", tag) for tag in tags["style"]]
    slots += [("touch", tag) for kind in _TOUCH for tag in tags.get(kind, ())]
    by_role = {part.role: part.instrument for part in composition.parts if not part.is_drum}
    slots += [(role, by_role[role]) for role in ("lead", "chords", "backing", "bass") if role in by_role]
    slots += [("figure", tags["accompaniment"][0])]
    slots += [("drums", tag) for tag in tags["drums"]]
    slots += [("mode", tag) for tag in tags["mode"]]
    return slots


def _sentence(slots: Sequence[tuple[str, str]], split: str, rng: random.Random) -> Text:
    words: dict[str, list[str]] = {}
    for slot, tag in slots:
        words.setdefault(slot, []).append(_phrase(tag, split, rng))
    filled = {slot: _listed(phrases) for slot, phrases in words.items()}
    clauses = []
    for clause, templates in CLAUSES[split].items():
        used = {slot for template in templates for slot in _slots_of(template)} & set(filled)
        if not used and clause != "head":
            continue
        fitting = [template for template in templates if _slots_of(template) == used]
        clauses.append(rng.choice(fitting).format(**filled))
    if len(clauses) == 1:
        text = clauses[0]
    else:
        first, *rest = clauses
        if split == "train":
            rng.shuffle(rest)
        text = rng.choice(FRAMES[split]).format(first=first, rest=", ".join(rest))
    return Text(text, frozenset(tag for _, tag in slots))


def _phrase(tag: str, split: str, rng: random.Random) -> str:
    return rng.choice(getattr(WORDS[tag], split))


def _listed(phrases: Sequence[str]) -> str:
    return ", ".join(phrases)


@lru_cache(maxsize=512)
def _slots_of(template: str) -> frozenset[str]:
    return frozenset(name for _, name, _, _ in string.Formatter().parse(template) if name)
