"""From the fields of a track to texts that name them, for a text tower that reads fields."""

from __future__ import annotations

import random
from collections.abc import Mapping

from xmodal.data.texts import TextSource
from xmodal.data.tracks import Caption, Track
from xmodal.text import FIELDS, split_lines, write_fields


class FieldTexts(TextSource):
    """Writes a track's fields as one text, with some of them left out in training.

    What is drawn depends on the random generator given, and that on (seed, epoch, track) alone.

    Args:
        fields: The fields to write, of :data:`xmodal.text.FIELDS`; None for all.
        dropout: Probability of leaving a field out of a training text, by field; 0 for those not named. One field
            always stays.
        tag_dropout: Probability of leaving a single tag out; one always stays. Tags are shuffled.
        lyrics_lines: In training, so many lines in a row from a random place of the lyrics; 0: all of them.
        weight: How often it is asked, beside other sources.

    Raises:
        ValueError: If a field is unknown, none is given, or a probability is not from 0 to below 1.
    """

    def __init__(
        self,
        fields: list[str] | None = None,
        *,
        dropout: dict[str, float] | None = None,
        tag_dropout: float = 0.0,
        lyrics_lines: int = 0,
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight)
        self.fields = FIELDS if fields is None else tuple(fields)
        self.dropout = dict(dropout or {})
        unknown = sorted({*self.fields, *self.dropout} - set(FIELDS))
        if unknown or not self.fields:
            named = repr(unknown[0]) if unknown else "none"
            raise ValueError(f"fields must be some of {', '.join(FIELDS)}, got {named}")
        for name, share in {**self.dropout, "tag_dropout": tag_dropout}.items():
            if not 0 <= share < 1:
                raise ValueError(f"the dropout of {name} must be from 0 to below 1, got {share}")
        if lyrics_lines < 0:
            raise ValueError(f"lyrics_lines must be at least 0, got {lyrics_lines}")
        self.tag_dropout, self.lyrics_lines = tag_dropout, lyrics_lines

    def whole(self, track: Track) -> Caption | None:
        """The text with everything that is known; None for a track of which nothing is."""
        return _caption(self._values(track))

    def draw(self, track: Track, rng: random.Random) -> Caption | None:
        """A training text: a random caption, shuffled tags, a part of the lyrics, and some fields left out."""
        values = self._values(track, rng)
        order = rng.sample(sorted(values), len(values))
        # The first stays whatever the dice say: after a shuffle it is any of them.
        kept = order[:1] + [field for field in order[1:] if rng.random() >= self.dropout.get(field, 0.0)]
        return _caption({field: values[field] for field in kept})

    def _values(self, track: Track, rng: random.Random | None = None) -> dict[str, str]:
        tags = [name for names in track.tags.values() for name in names]
        captions = [caption.text for caption in track.captions]
        lyrics = track.lyrics
        if rng is not None:
            tags = rng.sample(tags, len(tags))
            tags = tags[:1] + [tag for tag in tags[1:] if rng.random() >= self.tag_dropout]
            captions = rng.sample(captions, min(1, len(captions)))
            if lyrics is not None and self.lyrics_lines:
                lines = "\n".join(split_lines(lyrics, 1)).splitlines()
                first = rng.randrange(max(len(lines) - self.lyrics_lines, 0) + 1)
                lyrics = "\n".join(lines[first : first + self.lyrics_lines])
        known: Mapping[str, str | None] = {
            "caption": captions[0] if captions else None,
            "tags": ", ".join(tags),
            "lyrics": lyrics,
            "title": track.title,
            "artist": track.artist,
            "album": track.album,
        }
        return {field: value for field in self.fields if (value := known[field])}


def _caption(values: Mapping[str, str]) -> Caption | None:
    return Caption(write_fields(values)) if values else None
