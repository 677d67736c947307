"""From the tags of a piece to captions, in the wording of its split.

A caption is a head (what it is: moods, density, tempo, style, mode), then the players (lead, chords, backing, bass)
and the drums. Head and players have templates per split, filled by :func:`xmodal.text.render`: what stands in square
brackets is left out where the piece has no such tag, or the caption is not to name it. So any subset of a piece's tags
can be worded; frames put the clauses together. ``a(n)`` becomes the right article. No template has a word that
belongs to a tag ("low", "soft", "solo", "voice"). Phrases come from :mod:`xmodal.data.demo.vocabulary`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from xmodal.data.demo.score import Composition
from xmodal.data.demo.vocabulary import WORDS
from xmodal.text import render

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
            "a(n) [{adjectives} ][{style} ]piece[ in {mode}]",
            "[{adjectives} ][{style} ]music[ in {mode}]",
            "a(n) [{style} ]track[ in {mode}][, {adjectives}]",
            "some [{adjectives} ][{style} ]music[, set in {mode}]",
            "[{style} ]music[ that is {adjectives}][, in {mode}]",
            "a(n) [{adjectives} ]number[ in {style} style][, in {mode}]",
            "a(n) [{style} ]tune[: {adjectives}][, in {mode}]",
            "music[ of the kind {style}][, {adjectives}][, {mode} throughout]",
        ),
        "lead": (
            "a(n) [{touch} ][{lead} ]melody",
            "a(n) [{touch} ]melody[ on {lead}]",
            "a(n) [{touch} ]tune[ played by {lead}]",
            "a(n) [{touch} ]main line[ for {lead}]",
            "a(n) [{touch} ][{lead} ]part on top",
            "melody[ of {lead}][, {touch}]",
        ),
        "chords": (
            "{figure} on {chords}", "{figure} played by {chords}", "{chords} playing {figure}",
            "{chords} with {figure}", "accompaniment on {chords}, {figure}",
            "{chords} accompaniment", "{chords} chords", "{chords} behind it", "backing from {chords}",
            "{figure}", "accompanying {figure}", "{figure} underneath",
        ),
        "backing": ("{backing} in the background", "{backing} as a backdrop", "{backing} behind", "some {backing}"),
        "bass": ("{bass}", "{bass} underneath", "{bass} beneath", "{bass} as the foundation"),
    },
    "validation": {
        "head": ("a(n) [{adjectives} ]recording[ of {style}][ in {mode}]",),
        "lead": ("[{lead} carrying ]a(n) [{touch} ]main idea",),
        "chords": ("{figure} from {chords}", "support from {chords}", "support from {figure}"),
        "backing": ("a layer of {backing}",),
        "bass": ("{bass} below",),
    },
    "test": {
        "head": (
            "a(n) [{style} ]instrumental[ in {mode}][, {adjectives} in feel]",
            "this [{adjectives} ][{style} ]instrumental[, which is in {mode}]",
        ),
        "lead": ("a(n) [{touch} ][{lead} ]theme", "a(n) [{touch} ]theme[ taken by {lead}]"),
        "chords": (
            "{figure} in the {chords}", "{figure} added by {chords}",
            "harmony by {chords}", "{figure} as harmony",
        ),
        "backing": ("{backing} filling out the sound", "a bed of {backing}"),
        "bass": ("{bass} at the bottom", "a fundament of {bass}"),
    },
}  # fmt: skip
"""Templates by split and clause; those of a clause cover every set of slots that can occur."""

PLAYER_FRAMES: Mapping[str, tuple[str, ...]] = {
    "train": (
        "{head} with {players}",
        "{head}: {players}",
        "{players} in {head}",
        "{head} that has {players}",
        "{players} make {head}",
        "{head}. Playing are {players}",
    ),
    "validation": ("{head}. It has {players}", "{head} made of {players}"),
    "test": ("{head} where we hear {players}", "{head}; listen for {players}"),
}
"""How the head and the list of players are joined, by split."""

DRUM_FRAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("{text}, {drums}", "{drums}, {text}", "{text}, played {drums}", "{text}. It is {drums}"),
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
        if clause == "head" or any(_slots_of(template)[1] & set(filled) for template in templates)
    )
    if split == "train":
        rng.shuffle(players)
    text = head
    if players:
        text = rng.choice(PLAYER_FRAMES[split]).format(head=head, players=_listed(players))
    if "drums" in filled:
        text = rng.choice(DRUM_FRAMES[split]).format(text=text, drums=filled["drums"])
    return Text(text, frozenset(tag for _, tag in slots))


def _clause(templates: Sequence[str], filled: Mapping[str, str], rng: random.Random) -> str:
    """One of the templates that can say all that the clause has to say, and need nothing else."""
    slots = [_slots_of(template) for template in templates]
    said = frozenset(filled) & frozenset().union(*(could for _, could in slots))
    fitting = [template for template, (needs, could) in zip(templates, slots, strict=True) if needs <= said <= could]
    text = render(filled, rng.choice(fitting))
    return _ARTICLE.sub(lambda match: ("an " if match[1].lower() in "aeiou" else "a ") + match[1], text)


def _phrase(tag: str, split: str, rng: random.Random) -> str:
    return rng.choice(getattr(WORDS[tag], split))


def _listed(phrases: Sequence[str]) -> str:
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


@lru_cache(maxsize=512)
def _slots_of(template: str) -> tuple[frozenset[str], frozenset[str]]:
    """The slots that a template needs, and all that it has."""
    needed = re.sub(r"\[.*?\]", "", template)
    return frozenset(re.findall(r"{(\w+)}", needed)), frozenset(re.findall(r"{(\w+)}", template))
