"""Where the texts of a training step come from: captions, tags in new words each time, fields in templates.

A source draws one text of a track at a time, by the chance it is given. :func:`draw_texts` asks several sources in
turn, so that captions, tag lists and metadata can be mixed by a list in YAML.
"""

from __future__ import annotations

import random
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from xmodal.configurable import Configurable
from xmodal.data.tracks import Caption, Track, track_fields
from xmodal.text import PROMPTS, captions_from_tags, prompts_for, render, words_key

_FIELD = re.compile(r"\{([^{}]*)\}")


class TextSource(Configurable, ABC):
    """Draws texts of a track.

    Args:
        weight: How often it is asked, against the weights of the other sources that have something to say.
    """

    def __init__(self, weight: float = 1.0) -> None:
        if not weight > 0:
            raise ValueError(f"weight must be positive, got {weight}")
        self.weight = weight

    @abstractmethod
    def draw(self, track: Track, rng: random.Random) -> Caption | None:
        """One text, or None where the track has nothing that this source speaks of."""


class CaptionText(TextSource):
    """One of the track's captions.

    Args:
        sentence_dropout: Of a caption of several sentences, leave each out with this probability, but not all. The
            tags that the shorter caption names are then not known any more.
        weight: How often it is asked.
    """

    def __init__(self, sentence_dropout: float = 0.0, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.sentence_dropout = _share("sentence_dropout", sentence_dropout)

    def draw(self, track: Track, rng: random.Random) -> Caption | None:
        """A caption of the track."""
        if not track.captions:
            return None
        caption = rng.choice(track.captions)
        sentences = re.split(r"(?<=[.!?])\s+", caption.text)
        if not self.sentence_dropout or len(sentences) < 2:
            return caption
        always = rng.randrange(len(sentences))
        kept = [s for n, s in enumerate(sentences) if n == always or rng.random() >= self.sentence_dropout]
        return caption if len(kept) == len(sentences) else Caption(" ".join(kept))


class TagText(TextSource):
    """Some of the track's tags, in changing order and wording; :func:`xmodal.text.captions_from_tags`.

    Args:
        dropout: Probability of leaving a tag out.
        max_tags: Most tags that a text names.
        kinds: Kinds of tags to name; None for all.
        templates: Prompt templates by kind for a single tag, each with one ``{}``; None for those of the project.
        weight: How often it is asked.
    """

    def __init__(
        self,
        dropout: float = 0.3,
        max_tags: int = 6,
        kinds: list[str] | None = None,
        templates: dict[str, list[str]] | None = None,
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight)
        if max_tags < 1:
            raise ValueError(f"max_tags must be at least 1, got {max_tags}")
        self.dropout, self.max_tags, self.kinds = _share("dropout", dropout), max_tags, kinds
        self.templates: Mapping[str, Sequence[str]] = {**PROMPTS, **(templates or {})}
        for kind in self.templates:
            prompts_for(kind, self.templates)  # refuses a template without a slot here, and not in a worker

    def draw(self, track: Track, rng: random.Random) -> Caption | None:
        """A text that names tags of the track."""
        tags = {kind: names for kind, names in track.tags.items() if self.kinds is None or kind in self.kinds}
        made = captions_from_tags(tags, rng, dropout=self.dropout, max_tags=self.max_tags, templates=self.templates)
        return Caption(made[0].text, frozenset(made[0].tags)) if made else None


class FieldText(TextSource):
    """The track's fields in one of several templates; :func:`xmodal.text.render`.

    Args:
        templates: Such as ``"{title}[ by {artist}][, {mood} music]"``; a part in brackets is left out
            where its field is empty.
        field_dropout: Probability of treating a field in brackets as empty.
        weight: How often it is asked.
    """

    def __init__(self, templates: list[str], field_dropout: float = 0.0, weight: float = 1.0) -> None:
        super().__init__(weight)
        if not templates:
            raise ValueError("templates must hold at least one template, got none")
        for template in templates:
            render(dict.fromkeys(_FIELD.findall(template), "x"), template)  # refuses brackets that do not close
        self.templates, self.field_dropout = list(templates), _share("field_dropout", field_dropout)

    def draw(self, track: Track, rng: random.Random) -> Caption | None:
        """A template, filled; None where every template needs a field that is empty."""
        fields = track_fields(track)
        for template in rng.sample(self.templates, len(self.templates)):
            optional = {name for part in re.findall(r"\[([^\[\]]*)\]", template) for name in _FIELD.findall(part)}
            needed = set(_FIELD.findall(re.sub(r"\[[^\[\]]*\]", "", template)))
            dropped = {name for name in sorted(optional - needed) if rng.random() < self.field_dropout}
            try:
                text = render({name: value for name, value in fields.items() if name not in dropped}, template)
            except ValueError:
                continue
            if text:
                return Caption(text)
        return None


def draw_texts(
    track: Track, sources: Sequence[TextSource], count: int, rng: random.Random, always: Sequence[Caption] = ()
) -> list[Caption]:
    """Up to ``count`` texts of a track, no two of the same words, each from a source drawn by weight.

    The texts in ``always`` come first and count. A track of which no source has anything to say gives no others.
    """
    drawn = {words_key(caption.text): caption for caption in always}
    for _ in range(4 * count):  # a track may have fewer different texts than are asked for
        if len(drawn) >= count:
            break
        remaining = list(sources)
        text = None
        while remaining and text is None:
            (source,) = rng.choices(remaining, [source.weight for source in remaining])
            remaining.remove(source)
            text = source.draw(track, rng)
        if text is None:
            break
        drawn.setdefault(words_key(text.text), text)
    return list(drawn.values())


def _share(name: str, value: float) -> float:
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be from 0 to below 1, got {value}")
    return value
