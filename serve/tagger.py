"""The tags of tracks: those that the metadata give, and those that the model hears, each with its probability."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from serve.catalogue import Catalogue, given_tags
from serve.settings import Settings
from xmodal.embedder import Embedder
from xmodal.errors import ModelError
from xmodal.tagging import (
    Calibration,
    TagScorer,
    Vocabulary,
    calibrate_to_prior,
    read_vocabulary,
    tag_catalogue,
    vocabulary_from_json,
)
from xmodal.text import words_key

CALIBRATION = "calibration.json"
_MOST_TAGS = 300
_REFERENCE = 2_000  # tracks that stand for the catalogue
_PRIOR = 0.1  # share of tracks that have a tag of which nothing is known
_COUNTED = 200_000  # tracks over which tags are counted


class Tagger:
    """A vocabulary that judges any track.

    Args:
        scorer: The vocabulary.
        calibration: Of the same tags; scores to probabilities.
        calibrated: Whether it was fitted on labels; otherwise each tag is taken to be as frequent as assumed.
    """

    def __init__(self, scorer: TagScorer, calibration: Calibration, *, calibrated: bool) -> None:
        self.scorer, self.calibration, self.calibrated = scorer, calibration, calibrated

    def probabilities(self, vectors: Float32[np.ndarray, "tracks dim"]) -> Float32[np.ndarray, "tracks tags"]:
        """Probability of each tag on each track; a tag is at least as likely as those beneath it."""
        found = self.calibration.probabilities(self.scorer.score(vectors))
        return self.scorer.vocabulary.with_parents(found).numpy()

    def tags_of(
        self,
        vectors: Float32[np.ndarray, "tracks dim"],
        facts: Sequence[Mapping[str, Any]],
        *,
        top: int | None,
        beyond: bool = True,
    ) -> list[list[dict[str, Any]]]:
        """For each track its ``top`` tags, the likeliest first; None for all of the vocabulary.

        A tag that the metadata give has its probability too. With ``beyond`` given tags that the vocabulary does not
        know come last; nothing can be said of their probability.
        """
        return [
            self._described(row, given_tags(own), top, beyond)
            for row, own in zip(self.probabilities(vectors), facts, strict=True)
        ]

    def _described(
        self, probability: Float32[np.ndarray, " tags"], given: list[dict[str, Any]], top: int | None, beyond: bool
    ) -> list[dict[str, Any]]:
        own = {words_key(tag["name"]) for tag in given}
        order = np.argsort(-probability, kind="stable")[:top].tolist()
        found = [
            {
                "name": self.scorer.tags[column],
                "kind": self.scorer.kinds[column],
                "probability": round(float(probability[column]), 4),
                "given": words_key(self.scorer.tags[column]) in own,
            }
            for column in order
        ]
        unknown = [tag for tag in given if beyond and self.scorer.vocabulary.column(tag["name"]) is None]
        return [*found, *unknown][:top]

    def counts(self, catalogue: Catalogue) -> list[tuple[str, str | None, int]]:
        """Name and kind of each tag, and how many tracks would be given it (of an even choice of 200,000)."""
        vectors = catalogue.vectors(catalogue.spread(_COUNTED))
        given = Counter(tag_catalogue(vectors, self.scorer, self.calibration).tag.tolist())
        names = zip(self.scorer.tags, self.scorer.kinds, strict=True)
        return sorted(
            ((name, kind, given[column]) for column, (name, kind) in enumerate(names)), key=lambda tag: -tag[2]
        )


def make_tagger(
    settings: Settings, embedder: Embedder, catalogue: Catalogue, model_place: str, index_place: str
) -> Tagger | None:
    """The vocabulary of the settings, of a calibration beside the model or the index, or of the catalogue's own tags.

    Returns:
        None if there is none of them.

    Raises:
        XmodalError: If a file cannot be read, or the calibration was fitted in another space.
        ValueError: If a tag is named twice.
    """
    fitted = _calibration(settings, model_place, index_place)
    if settings.tags is not None:
        vocabulary = read_vocabulary(settings.tags)
    elif fitted is not None:
        vocabulary = vocabulary_from_json(fitted.report["vocabulary"])
    else:
        tags = _most_frequent(catalogue)
        if not tags:
            return None
        vocabulary = Vocabulary(tags)
    if fitted is not None:
        if fitted.report.get("reference") or fitted.report.get("null prompts"):
            raise ModelError(
                "the calibration was fitted with --reference or --null-prompts, which a server does not use; fit it "
                "again without: xmodal tag fit MANIFEST --model MODEL"
            )
        scorer = TagScorer(vocabulary, embedder.embed_texts)
        return Tagger(scorer, fitted.for_tags(scorer.tags, embedder.space_id), calibrated=True)
    return uncalibrated(vocabulary, embedder, catalogue)


def uncalibrated(vocabulary: Vocabulary, embedder: Embedder, catalogue: Catalogue) -> Tagger:
    """Probabilities without labels: each tag is given to as many tracks as the metadata give it to, else to a tenth.

    Scores are compared with those of an even choice of the catalogue's tracks.
    """
    scorer = TagScorer(vocabulary, embedder.embed_texts)
    reference = catalogue.vectors(catalogue.spread(_REFERENCE))
    if len(reference) < 2:
        reference = np.repeat(reference, 2, axis=0)
    known = {words_key(name): count / len(catalogue) for name, _, count in catalogue.tags}
    priors = [min(max(known.get(words_key(tag.name), _PRIOR), 0.5 / len(catalogue), 1e-4), 0.5) for tag in vocabulary]
    calibration = calibrate_to_prior(
        scorer.score(reference), torch.tensor(priors, dtype=torch.float64), scorer.tags, embedder.space_id
    )
    return Tagger(scorer, calibration, calibrated=False)


def _calibration(settings: Settings, model_place: str, index_place: str) -> Calibration | None:
    if settings.calibration is not None:
        return Calibration.load(settings.calibration)
    for place in (model_place, index_place):
        path = Path(place) / CALIBRATION
        if path.is_file():
            return Calibration.load(path)
    return None


def _most_frequent(catalogue: Catalogue) -> dict[str | None, list[str]]:
    """The catalogue's own tags by kind, each once."""
    kinds: dict[str | None, list[str]] = {}
    seen: set[str] = set()
    for name, kind, _ in catalogue.tags:
        if (key := words_key(name)) and key not in seen and len(seen) < _MOST_TAGS:
            seen.add(key)
            kinds.setdefault(kind, []).append(name)
    return kinds
