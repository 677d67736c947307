"""Tags from examples: a new tag is enrolled from one to twenty tracks, without retraining, and taken out again.

A tag known by n example tracks is a prototype, the normalised mean of their vectors (Snell et al., NeurIPS 2017), and
where its name says something to the text tower, a text vector as well. Audio lies nearer to audio than to text, so
the two are not averaged as they are: each is first brought to a mean of 0 and a deviation of 1 over a reference
catalogue. With weight ``w = n / (n + trust * prior)`` the score is ``(1 - w) z_text + w z_prototype``, brought back to
the scale of the text's cosines, so that it stands beside those of the other tags. It is linear in the track's vector,
so an enrolled tag is a row of weights and an offset like any other.

A model that was never trained on anything like the name puts its examples anywhere, often at the very end. *Trust* is
what the examples themselves say of the name: ``2 a - 1``, and at least 0, where ``a`` is how often it ranks an example
above a track of the catalogue (the area under its ROC curve). A name that finds the examples keeps its whole prior, one
that ranks them as chance would has none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from xmodal.atomic import written_aside
from xmodal.embeddings import unit_rows
from xmodal.errors import ModelError, SpaceMismatchError
from xmodal.tagging.scorer import TagScorer
from xmodal.text import words_key

Matrix = Tensor | np.ndarray
FORMAT_VERSION = 1
PRIOR_EXAMPLES = 4.0


@dataclass(frozen=True)
class EnrolledTag:
    """A tag that was made from examples.

    Attributes:
        name: As it is shown.
        kind: Such as "genre"; or None.
        weights: What a track's vector is multiplied with, ``[dim]``.
        offset: What is subtracted from the product.
        examples: The tracks that it was made from, for the record.
    """

    name: str
    kind: str | None
    weights: Float[Tensor, " dim"]
    offset: float
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class EnrolledTags:
    """The enrolled tags of one space, in a JSON file.

    Attributes:
        space_id: The space of the examples' vectors.
        tags: By name, in the form in which tags are compared.
    """

    space_id: str
    tags: Mapping[str, EnrolledTag] = field(default_factory=dict)

    def with_tag(self, tag: EnrolledTag) -> EnrolledTags:
        """These and one more, which replaces a tag of the same name."""
        return EnrolledTags(self.space_id, {**self.tags, words_key(tag.name): tag})

    def without(self, name: str) -> EnrolledTags:
        """These without one.

        Raises:
            ValueError: If it is not there.
        """
        if words_key(name) not in self.tags:
            there = ", ".join(tag.name for tag in self.tags.values()) or "none"
            raise ValueError(f"{name!r} is not enrolled; the enrolled tags are: {there}")
        return EnrolledTags(self.space_id, {key: tag for key, tag in self.tags.items() if key != words_key(name)})

    def save(self, path: str | Path) -> None:
        """Write one JSON file; a kill at any moment leaves the old file or the new one."""
        rows = [
            {
                "name": tag.name,
                "kind": tag.kind,
                "weights": tag.weights.tolist(),
                "offset": tag.offset,
                "examples": list(tag.examples),
            }
            for tag in self.tags.values()
        ]
        written = {"format_version": FORMAT_VERSION, "space_id": self.space_id, "tags": rows}
        with written_aside(path) as aside:
            aside.write_text(json.dumps(written, ensure_ascii=False) + "\n", "utf-8")

    @classmethod
    def load(cls, path: str | Path, space_id: str) -> EnrolledTags:
        """Read what :meth:`save` wrote.

        Raises:
            ModelError: If the file is missing, damaged or of a newer format.
            SpaceMismatchError: If its space is not ``space_id``.
        """
        try:
            read: dict[str, Any] = json.loads(Path(path).read_text("utf-8"))
            if read["format_version"] != FORMAT_VERSION:
                raise ModelError(
                    f"{path} has format version {read['format_version']} but this xmodal reads {FORMAT_VERSION}; "
                    "update xmodal"
                )
            tags = [
                EnrolledTag(
                    row["name"], row["kind"], torch.tensor(row["weights"]), row["offset"], tuple(row["examples"])
                )
                for row in read["tags"]
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"{path} holds no enrolled tags that can be read ({error}); "
                "make it with: xmodal tag enrol NAME FILE ... --model MODEL --into FILE.json"
            ) from error
        if read["space_id"] != space_id:
            raise SpaceMismatchError(
                f"{path} holds tags of space {read['space_id']} but the model makes vectors of space {space_id}; "
                "enrol them again with: xmodal tag enrol NAME FILE ... --model MODEL --into FILE.json"
            )
        return cls(space_id, {words_key(tag.name): tag for tag in tags})


def enrol(
    name: str,
    examples: Float[Matrix, "examples dim"],
    text_vector: Float[Matrix, " dim"] | None = None,
    *,
    reference: Float[Matrix, "tracks dim"] | None = None,
    prior: float = PRIOR_EXAMPLES,
    kind: str | None = None,
    example_ids: Sequence[str] = (),
) -> EnrolledTag:
    """Make a tag from example tracks and, if its name means something, its text.

    Args:
        name: As it is shown.
        examples: Unit vectors of tracks that have the tag; at least one.
        text_vector: The tag's unit vector from a :class:`TagScorer`. None: the examples say it all.
        reference: Unit vectors of a catalogue, at least 2, for means and deviations. None: the text and the prototype
            are weighed as unit vectors, which favours the examples, and no mean is subtracted.
        prior: How many examples the text is worth, if the examples bear it out (with a ``reference``).
        kind: Kind of the tag.
        example_ids: Names of the examples, for the record.

    Raises:
        ValueError: If there is no example, vectors are not unit vectors of one dimension, or ``prior`` is negative.
    """
    if not words_key(name):
        raise ValueError(f"a tag must have a visible character, got {name!r}")
    if not prior >= 0:
        raise ValueError(f"prior is a number of examples, at least 0; got {prior}")
    shown = torch.from_numpy(unit_rows(examples, "examples"))
    if not len(shown):
        raise ValueError(f"the tag {name!r} needs at least one example")
    prototype = normalize(shown.mean(dim=0), dim=0)
    text = prototype if text_vector is None else torch.from_numpy(unit_rows(text_vector[None], "text_vector"))[0]
    prior = 0.0 if text_vector is None else prior
    if reference is None:
        share = len(shown) / (len(shown) + prior)
        weights = normalize((1 - share) * text + share * prototype, dim=0)
        return EnrolledTag(name, kind, weights, 0.0, tuple(example_ids))
    catalogue = torch.from_numpy(unit_rows(reference, "reference"))
    if len(catalogue) < 2:
        raise ValueError(f"the reference must have at least 2 tracks, got {len(catalogue)}")
    share = len(shown) / (len(shown) + prior * _trust(shown @ text, catalogue @ text))
    text_scale, prototype_scale = (
        (catalogue @ vector).std(correction=0).clamp(min=1e-6) for vector in (text, prototype)
    )
    weights = (1 - share) * text + share * (text_scale / prototype_scale) * prototype
    return EnrolledTag(name, kind, weights, float((catalogue @ weights).mean()), tuple(example_ids))


def _trust(of_examples: Float[Tensor, " examples"], of_catalogue: Float[Tensor, " tracks"]) -> float:
    """How far the text's scores tell the examples from the catalogue; equal scores count half."""
    ordered = of_catalogue.sort().values
    below = torch.searchsorted(ordered, of_examples.contiguous())
    not_above = torch.searchsorted(ordered, of_examples.contiguous(), right=True)
    return max(0.0, float((below + not_above).double().mean()) / len(ordered) - 1.0)


def with_enrolled(scorer: TagScorer, enrolled: EnrolledTags) -> TagScorer:
    """A scorer that knows the enrolled tags too; one of the same name takes the place of the word's.

    Raises:
        ValueError: If their dimension is another.
    """
    return scorer.with_rows([(tag.name, tag.kind, tag.weights, tag.offset) for tag in enrolled.tags.values()])
