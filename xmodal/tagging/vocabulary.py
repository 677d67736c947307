"""A vocabulary of tags: names with their kinds, other names, definitions, parents and translations.

A vocabulary file is a text of lines (``a, b`` or ``mood: a, b``) or YAML, where a kind holds names, and a name may
hold facts::

    genre:
      electronic:
      techno: {synonyms: [tekno], parent: electronic, definition: repetitive electronic dance music}
    instrument:
      violin: {synonyms: [fiddle], translations: {de: [Geige, Violine], fr: [violon]}}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml
from jaxtyping import Bool, Float
from torch import Tensor

from xmodal.data.tracks import Track, tag_matrices
from xmodal.errors import DataError
from xmodal.text import words_key

_FACTS = ("synonyms", "definition", "parent", "translations")


@dataclass(frozen=True)
class Tag:
    """A word to tag with, and what is known about it.

    Attributes:
        name: As it is shown.
        kind: Such as "genre" or "mood"; chooses its prompts. None: any sound.
        synonyms: Other names of the same thing.
        definition: A sentence that says what it is; embedded as it stands.
        parent: Name of a broader tag of the same vocabulary: a track that has this tag has that one too.
        translations: Names by language code, for text towers that know the language.
    """

    name: str
    kind: str | None = None
    synonyms: tuple[str, ...] = ()
    definition: str | None = None
    parent: str | None = None
    translations: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name in (self.name, *self.synonyms, *(name for names in self.translations.values() for name in names)):
            if not words_key(name):
                raise ValueError(f"a tag must have a visible character, got {name!r}")


class Vocabulary(Sequence[Tag]):
    """Tags, each name once whatever its kind; synonyms and parents are checked.

    Args:
        tags: Tags; or names; or names by kind.

    Raises:
        ValueError: If there is no tag, a name is blank or stands for two tags, or a parent is missing or its own
            descendant.
    """

    def __init__(self, tags: Sequence[Tag | str] | Mapping[Any, Sequence[Tag | str]]) -> None:
        self._tags = tuple(_tags(tags))
        if not self._tags:
            raise ValueError("there must be at least one tag, got none")
        self._columns: dict[str, int] = {}
        for column, tag in enumerate(self._tags):
            for name in dict.fromkeys(map(words_key, (tag.name, *tag.synonyms))):
                if name in self._columns:
                    other = self._tags[self._columns[name]].name
                    raise ValueError(f"every tag must be named once, got {other!r} and {tag.name!r}; leave one out")
                self._columns[name] = column
        for tag in self._tags:
            if tag.parent is not None and words_key(tag.parent) not in self._columns:
                raise ValueError(f"{tag.name!r} has the parent {tag.parent!r}, which is no tag; add it or leave it out")
        for column in range(len(self._tags)):
            if column in self.ancestors(column):
                raise ValueError(f"{self._tags[column].name!r} is among its own parents; break the circle")

    def __getitem__(self, column):  # type: ignore[no-untyped-def]  # an index or a slice, as of any sequence
        return self._tags[column]

    def __len__(self) -> int:
        return len(self._tags)

    @property
    def names(self) -> list[str]:
        """Names in order."""
        return [tag.name for tag in self._tags]

    @property
    def kinds(self) -> list[str | None]:
        """The kind of each tag, in order."""
        return [tag.kind for tag in self._tags]

    def column(self, name: str) -> int | None:
        """Place of the tag that has this name or synonym; None if there is none."""
        return self._columns.get(words_key(name))

    def ancestors(self, column: int) -> list[int]:
        """The parent of a tag, its parent, and so on."""
        found: list[int] = []
        parent = self._tags[column].parent
        while parent is not None:
            above = self._columns[words_key(parent)]
            if above in found:  # a circle; the constructor refuses it
                break
            found.append(above)
            parent = self._tags[above].parent
        return found

    @cached_property
    def has_parents(self) -> bool:
        """Some tag has a parent."""
        return any(tag.parent is not None for tag in self._tags)

    def with_parents(self, probability: Float[Tensor, "tracks tags"]) -> Float[Tensor, "tracks tags"]:
        """Raise each tag to at least the highest of its descendants: a track of techno is one of electronic music."""
        if not self.has_parents:
            return probability
        raised = probability.clone()
        for column in range(len(self)):
            for above in self.ancestors(column):
                raised[:, above] = torch.maximum(raised[:, above], probability[:, column])
        return raised

    def labels(
        self, tags_of_tracks: Sequence[Mapping[str, Sequence[str]]]
    ) -> tuple[Bool[Tensor, "tracks tags"], Bool[Tensor, "tracks tags"]]:
        """Which tags the tracks have (by any of their names, or through a descendant), and which pairs may be judged.

        A track that has no tag of some kind says nothing about that kind, so those pairs are not valid. A tag without
        a kind is looked for in all kinds.

        Args:
            tags_of_tracks: Names by kind for each track, such as ``Track.tags``.

        Returns:
            Labels and valid.
        """
        names = [{words_key(name) for name in (tag.name, *tag.synonyms)} for tag in self._tags]
        labels = torch.zeros(len(tags_of_tracks), len(self), dtype=torch.bool)
        valid = torch.zeros_like(labels)
        for row, by_kind in enumerate(tags_of_tracks):
            keys = {kind: {words_key(name) for name in given} for kind, given in by_kind.items()}
            everything = set().union(*keys.values())
            known = [everything if kind is None else keys.get(kind, set()) for kind in self.kinds]
            labels[row] = torch.tensor([not own.isdisjoint(there) for own, there in zip(names, known, strict=True)])
            valid[row] = torch.tensor([bool(there) for there in known])
        return self._with_implied(labels, valid)

    def labels_of_tracks(
        self, tracks: Sequence[Track]
    ) -> tuple[Bool[Tensor, "tracks tags"], Bool[Tensor, "tracks tags"]]:
        """:meth:`labels` of tracks that may also deny tags; what :meth:`Track.has_tag` says counts."""
        labels = torch.zeros(len(tracks), len(self), dtype=torch.bool)
        valid = torch.zeros_like(labels)
        for column, tag in enumerate(self._tags):
            names = [(tag.kind, name) for name in (tag.name, *tag.synonyms)]
            own, known = tag_matrices(tracks, names)
            labels[:, column], valid[:, column] = own.any(dim=1), known.any(dim=1)
        return self._with_implied(labels, valid)

    def _with_implied(self, labels: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        if self.has_parents:
            for column in range(len(self)):
                for above in self.ancestors(column):
                    labels[:, above] |= labels[:, column]
                    valid[:, above] |= labels[:, column]  # having the narrower tag says that it has the broader one
        return labels, valid


def vocabulary_to_json(vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """Plain dicts, ready for JSON; :func:`vocabulary_from_json` reads them."""
    return [{name: value for name, value in asdict(tag).items() if value} for tag in vocabulary]


def vocabulary_from_json(rows: Sequence[Mapping[str, Any]]) -> Vocabulary:
    """What :func:`vocabulary_to_json` made."""
    return Vocabulary(
        [
            Tag(
                row["name"],
                row.get("kind"),
                tuple(row.get("synonyms", ())),
                row.get("definition"),
                row.get("parent"),
                {code: tuple(names) for code, names in row.get("translations", {}).items()},
            )
            for row in rows
        ]
    )


def read_vocabulary(given: str | Path) -> Vocabulary:
    """Read ``"a, b"``, or a file of lines (.txt), or YAML (.yaml, .yml) as the module says.

    Raises:
        OSError: If ``given`` has the ending of such a file and there is none.
        DataError: If a file does not hold a vocabulary.
    """
    path = Path(given)
    if path.suffix not in (".txt", ".yaml", ".yml") and not path.is_file():
        return Vocabulary(_split(str(given)))
    text = path.read_text("utf-8")
    try:
        return Vocabulary(_from_yaml(text) if path.suffix in (".yaml", ".yml") else _from_lines(text))
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} is not a vocabulary: {reason}") from error


def _from_lines(text: str) -> list[Tag]:
    tags = []
    for line in text.splitlines():
        before, colon, after = line.partition(":")
        kind, names = (before.strip(), after) if colon else (None, line)
        tags += [Tag(name, kind) for name in _split(names)]
    return tags


def _from_yaml(text: str) -> list[Tag]:
    read = yaml.safe_load(text)
    if isinstance(read, list):
        return [Tag(str(name)) for name in read]
    if not isinstance(read, dict):
        raise ValueError("it must hold names by kind")
    tags = []
    for kind, names in read.items():
        if not isinstance(names, (dict, list)):
            raise ValueError(f"{kind!r} must hold a list of names, or names with facts, got {names!r}")
        facts = names if isinstance(names, dict) else dict.fromkeys(names)
        tags += [_from_facts(str(name), str(kind), known or {}) for name, known in facts.items()]
    return tags


def _from_facts(name: str, kind: str, known: Any) -> Tag:
    if not isinstance(known, dict) or not known.keys() <= set(_FACTS):
        raise ValueError(f"the tag {name!r} may have {', '.join(_FACTS)}, got {known!r}")
    synonyms, translations = known.get("synonyms", ()), known.get("translations", {})
    if isinstance(synonyms, str) or not isinstance(translations, dict):
        raise ValueError(f"synonyms of {name!r} must be a list, and translations lists by language")
    return Tag(
        name,
        kind,
        tuple(map(str, synonyms)),
        known.get("definition"),
        known.get("parent"),
        {str(code): tuple(map(str, names)) for code, names in translations.items()},
    )


def _split(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _tags(given: Sequence[Tag | str] | Mapping[Any, Sequence[Tag | str]]) -> Iterator[Tag]:
    by_kind = given.items() if isinstance(given, Mapping) else [(None, given)]
    for kind, names in by_kind:
        if isinstance(names, str):
            raise ValueError(f"tags must be a list of names, got the text {names!r}; write [{names!r}]")
        for name in names:
            yield name if isinstance(name, Tag) else Tag(name, kind)
