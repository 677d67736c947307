"""From the tags of a piece to captions, in the wording of its split.

A caption is a head (what it is: moods, density, tempo, style, mode), then the players (lead, chords, backing, bass)
and the drums. Head and players have templates per split, and every template says in its slots what it needs, so that
any subset of a piece's tags can be worded; frames put them together. ``a(n)`` in a template becomes the right article.
Phrases come from :mod:`xmodal.data.demo.vocabulary`.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from xmodal.data.demo.score import Composition
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
            "a(n) {adjectives} {style} piece in {mode}", "{adjectives} {style} music in {mode}",
            "{style} in {mode}, {adjectives}",
            "a(n) {adjectives} {style} piece", "{adjectives} {style} music", "{style} that is {adjectives}",
            "a(n) {adjectives} piece in {mode}", "{adjectives} music in {mode}",
            "a(n) {style} piece in {mode}", "{style} music in {mode}",
            "a(n) {adjectives} piece", "{adjectives} music",
            "a(n) {style} piece", "{style} music",
            "a piece in {mode}", "music in {mode}",
            "a piece of music", "music",
        ),
        "lead": (
            "a(n) {touch} {lead} melody", "a(n) {touch} melody on {lead}", "a(n) {touch} tune played by {lead}",
            "a(n) {lead} melody", "a melody on {lead}", "a tune played by {lead}",
            "a(n) {touch} melody", "a(n) {touch} tune",
        ),
        "chords": (
            "{figure} on {chords}", "{figure} played by {chords}", "{chords} playing {figure}",
            "{chords} accompaniment", "{chords} chords",
            "{figure}",
        ),
        "backing": ("{backing} in the background", "soft {backing}"),
        "bass": ("{bass}", "a(n) {bass} line"),
    },
    "validation": {
        "head": (
            "a recording of {style}, {adjectives} and in {mode}",
            "a recording of {style}, {adjectives}", "a(n) {adjectives} recording in {mode}",
            "a recording of {style} in {mode}",
            "a(n) {adjectives} recording", "a recording of {style}", "a recording in {mode}",
            "a recording",
        ),
        "lead": (
            "{lead} singing out with {touch} notes", "{lead} singing out", "a(n) {touch} main voice",
        ),
        "chords": ("{figure} from {chords}", "support from {chords}", "support from {figure}"),
        "backing": ("a layer of {backing}",),
        "bass": ("{bass} below",),
    },
    "test": {
        "head": (
            "a(n) {style} instrumental in {mode}, {adjectives} in feel",
            "this {style} instrumental is {adjectives} and in {mode}",
            "a(n) {style} instrumental, {adjectives} in feel", "an instrumental in {mode}, {adjectives} in feel",
            "a(n) {style} instrumental in {mode}",
            "an instrumental, {adjectives} in feel", "a(n) {style} instrumental", "an instrumental in {mode}",
            "an instrumental",
        ),
        "lead": (
            "{lead} as the soloist, {touch} in its notes", "a(n) {touch} {lead} solo",
            "{lead} as the soloist", "a(n) {lead} solo",
            "a(n) {touch} solo",
        ),
        "chords": (
            "{figure} in the {chords}", "{figure} added by {chords}",
            "harmony by {chords}", "{figure} as harmony",
        ),
        "backing": ("{backing} filling out the sound", "a bed of {backing}"),
        "bass": ("{bass} at the low end", "a foundation of {bass}"),
    },
}  # fmt: skip
"""Templates by split and clause; those of a clause cover every set of slots that can occur."""

PLAYER_FRAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("{head} with {players}", "{head}: {players}", "{players} in {head}"),
    "validation": ("{head}. It has {players}", "{head} made of {players}"),
    "test": ("{head} where we hear {players}", "{head}; listen for {players}"),
}
"""How the head and the list of players are joined, by split."""

DRUM_FRAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("{text}, {drums}", "{drums}, {text}"),
    "validation": ("{text}, performed {drums}",),
    "test": ("{text}, all of it {drums}", "{text}; it goes {drums}"),
}
"""How the words on drums are joined to the rest, by split."""

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
_ARTICLE = re.compile(r"\ba\(n\) (\w)")


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
    named: set[str] = set()
    for role in ("lead", "chords", "backing", "bass"):
        if role in by_role and by_role[role] not in named:  # two guitars are named once
            named.add(by_role[role])
            slots.append((role, by_role[role]))
    slots += [("figure", tags["accompaniment"][0])]
    slots += [("drums", tag) for tag in tags["drums"]]
    slots += [("mode", tag) for tag in tags["mode"]]
    return slots


def _sentence(slots: Sequence[tuple[str, str]], split: str, rng: random.Random) -> Text:
    words: dict[str, list[str]] = {}
    for slot, tag in slots:
        words.setdefault(slot, []).append(_phrase(tag, split, rng))
    filled = {slot: ", ".join(phrases) for slot, phrases in words.items()}
    head, *players = (
        _clause(templates, filled, rng)
        for clause, templates in CLAUSES[split].items()
        if clause == "head" or _slots_of("".join(templates)) & set(filled)
    )
    text = head
    if players:
        text = rng.choice(PLAYER_FRAMES[split]).format(head=head, players=_listed(players))
    if "drums" in filled:
        text = rng.choice(DRUM_FRAMES[split]).format(text=text, drums=filled["drums"])
    return Text(text, frozenset(tag for _, tag in slots))


def _clause(templates: Sequence[str], filled: Mapping[str, str], rng: random.Random) -> str:
    """One of the templates that use all slots of the clause that are filled, and no other."""
    used = _slots_of("".join(templates)) & set(filled)
    text = rng.choice([template for template in templates if _slots_of(template) == used]).format(**filled)
    return _ARTICLE.sub(lambda match: ("an " if match[1].lower() in "aeiou" else "a ") + match[1], text)


def _phrase(tag: str, split: str, rng: random.Random) -> str:
    return rng.choice(getattr(WORDS[tag], split))


def _listed(phrases: Sequence[str]) -> str:
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


@lru_cache(maxsize=512)
def _slots_of(template: str) -> frozenset[str]:
    return frozenset(name for _, name, _, _ in string.Formatter().parse(template) if name)
