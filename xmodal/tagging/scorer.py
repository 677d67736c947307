"""Words become vectors, and a track's tags are the words nearest to it. The conventions are those of the package."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from xmodal.embeddings import unit_rows
from xmodal.tagging.vocabulary import Tag, Vocabulary
from xmodal.text import PROMPTS, prompts_for, tag_prompts

Matrix = Tensor | np.ndarray
TextEmbedder = Callable[[list[str]], Float[Matrix, "texts dim"]]

TEMPLATES: Mapping[str, tuple[str, ...]] = {
    **PROMPTS,
    "mode": ("{}", "music in {}", "a piece in {}"),
    "density": ("{}", "{} music", "a piece that sounds {}"),
    "drums": ("{}", "music with {}", "a piece with {}"),
    "register": ("{}", "music in {}", "a melody in {}"),
    "articulation": ("{}", "{} notes", "{} playing"),
    "accompaniment": ("{}", "music with {}", "accompanied by {}"),
    "key": ("{}", "music in {}", "a piece in the key of {}"),
    "era": ("{}", "music from the {}", "{} music"),
    "vocals": ("{}", "music with {}", "a song with {}"),
}
"""Prompt templates by kind of tag: those of :mod:`xmodal.text`, and those that only tagging needs."""

NULL_PROMPTS = ("music", "a sound", "an audio recording")
"""Texts that say nothing of a track; see ``null_prompts``."""


class TagScorer:
    """A vocabulary, embedded once, that scores any number of tracks.

    Args:
        tags: A vocabulary; or names; or names by kind. Each name once, whatever its kind.
        embed_texts: Texts to unit vectors ``[texts, dim]``, for instance :meth:`xmodal.embedder.Embedder.embed_texts`.
        templates: Prompt templates by kind, each with one ``{}``; or one list for tags of every kind. Kinds that are
            not there get :data:`xmodal.text.ANY_PROMPTS`.
        languages: Codes of languages whose translations join a tag's names; the text tower must know them.
        null_prompts: Texts without content, such as :data:`NULL_PROMPTS`, whose mean vector is subtracted from every
            tag's: a track near to words as such is then not near to every tag. Empty: no correction.
        reference: Unit vectors of a catalogue of tracks, whose mean score of each tag is subtracted. None: no
            correction.

    Attributes:
        vocabulary: The tags.
        tags: Their names, in the order given.
        kinds: The kind of each, or None.
        vectors: Unit vectors ``[tags, dim]``.
        weights: What a track's vector is multiplied with, ``[tags, dim]``: the unit vectors less the null prompt's.
        offsets: What is subtracted from each tag's product.

    Raises:
        ValueError: If there is no tag, a tag is blank or named twice, a template has not exactly one ``{}``, a
            language has no translation, or a vector is not of length 1.
    """

    def __init__(
        self,
        tags: Vocabulary | Sequence[str] | Mapping[str, Sequence[str]] | Mapping[None, Sequence[str]],
        embed_texts: TextEmbedder,
        *,
        templates: Mapping[str, Sequence[str]] | Sequence[str] = TEMPLATES,
        languages: Sequence[str] = (),
        null_prompts: Sequence[str] = (),
        reference: Float[Matrix, "tracks dim"] | None = None,
    ) -> None:
        self.vocabulary = tags if isinstance(tags, Vocabulary) else Vocabulary(tags)
        self.tags = self.vocabulary.names
        self.kinds = self.vocabulary.kinds
        by_kind = templates if isinstance(templates, Mapping) else {kind or "": templates for kind in self.kinds}
        if not all(by_kind.values()):
            raise ValueError('templates must not be empty; ("{}",) is the tag alone')
        for kind in by_kind:
            prompts_for(kind, by_kind)  # refuses a template without a slot even where no tag needs it
        for code in languages:
            if not any(code in tag.translations for tag in self.vocabulary):
                raise ValueError(f"no tag has a translation for the language {code!r}; add one or leave it out")
        namings = [_namings(tag, by_kind, languages) for tag in self.vocabulary]
        texts = [text for groups in namings for group in groups for text in group]
        embedded = _checked_vectors([*texts, *null_prompts], embed_texts)
        # Prompts make a name, names make a tag, each step a mean of unit vectors: a name with many prompts and a
        # definition with one count the same.
        names = _group_means(embedded[: len(texts)], [len(group) for groups in namings for group in groups])
        self.vectors: Float[Tensor, "tags dim"] = _group_means(names, [len(groups) for groups in namings])
        self.weights: Float[Tensor, "tags dim"] = self.vectors
        if null_prompts:
            self.weights = self.vectors - _group_means(embedded[len(texts) :], [len(null_prompts)])
        self.offsets: Float[Tensor, " tags"] = torch.zeros(len(self.tags))
        if reference is not None:
            self.offsets = self.score(reference).mean(dim=0)

    def score(self, audio: Float[Matrix, "tracks dim"]) -> Float[Tensor, "tracks tags"]:
        """Cosines of tracks and tags, less the null prompt's and the reference catalogue's mean where they are used.

        Raises:
            ValueError: If a vector is not of length 1 or of another dimension than the tags'.
        """
        tracks = torch.from_numpy(unit_rows(audio, "audio"))
        if tracks.shape[1] != self.vectors.shape[1]:
            raise ValueError(
                f"tracks and tags must be of one space, got vectors of {tracks.shape[1]} and {self.vectors.shape[1]} "
                "dimensions; embed both with one model"
            )
        return torch.addmm(-self.offsets, tracks, self.weights.T)

    def rank_tags(
        self, audio_vector: Float[Matrix, " dim"], *, top: int | None = None, kind: str | None = None
    ) -> list[tuple[str, float]]:
        """The tags of one track from the nearest down, each with its score.

        Args:
            audio_vector: Unit vector of the track.
            top: At most so many; None for all.
            kind: Only tags of this kind; None for every kind.

        Raises:
            ValueError: If ``top`` is below 1 or there is no tag of the kind.
        """
        if top is not None and top < 1:
            raise ValueError(f"top must be at least 1, got {top}")
        columns = self._columns(kind)
        scores = self.score(audio_vector[None])[0, columns]
        order = scores.argsort(descending=True, stable=True)[:top]
        return [(self.tags[columns[place]], float(scores[place])) for place in order.tolist()]

    def shares(
        self, audio: Float[Matrix, "tracks dim"], kind: str | None = None, *, temperature: float = 0.05
    ) -> Float[Tensor, "tracks tags_of_kind"]:
        """How the tags of one kind compare on each track: softmax of score / temperature over them, sum 1.

        Shares are for bars in a display. They are not probabilities of presence: they sum to 1 on a track that has
        none of the tags and on one that has them all, and they follow the temperature.
        :class:`xmodal.tagging.Calibration` makes probabilities.

        Args:
            audio: Unit vectors of tracks.
            kind: The tags to compare, in the order of ``tags``; None for all.
            temperature: The smaller, the more goes to the nearest tag.

        Raises:
            ValueError: If ``temperature`` is not positive or there is no tag of the kind.
        """
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        return (self.score(audio)[:, self._columns(kind)] / temperature).softmax(dim=1)

    def labels(
        self, tags_of_tracks: Sequence[Mapping[str, Sequence[str]]]
    ) -> tuple[Bool[Tensor, "tracks tags"], Bool[Tensor, "tracks tags"]]:
        """Labels and valid pairs of tracks; see :meth:`Vocabulary.labels`."""
        return self.vocabulary.labels(tags_of_tracks)

    def with_rows(self, rows: Sequence[tuple[str, str | None, Float[Tensor, " dim"], float]]) -> TagScorer:
        """A copy with more tags: name, kind, weights and offset of each; a name that is there is replaced.

        Raises:
            ValueError: If weights have another dimension than the tags'.
        """
        made = copy.copy(self)
        tags, weights, offsets = list(self.vocabulary), list(self.weights), list(self.offsets)
        for name, kind, weight, offset in rows:
            if weight.shape != self.weights.shape[1:]:
                raise ValueError(
                    f"the weights of {name!r} must be of dimension {self.weights.shape[1]}, got {tuple(weight.shape)}"
                )
            column = self.vocabulary.column(name)
            if column is None:
                tags.append(Tag(name, kind))
                weights.append(weight)
                offsets.append(torch.tensor(offset))
            else:
                weights[column], offsets[column] = weight, torch.tensor(offset)
        made.vocabulary = Vocabulary(tags)
        made.tags, made.kinds = made.vocabulary.names, made.vocabulary.kinds
        made.weights, made.offsets = torch.stack(weights), torch.stack(offsets).to(self.offsets)
        made.vectors = torch.cat([self.vectors, normalize(made.weights[len(self.vectors) :], dim=1)])
        return made

    def _columns(self, kind: str | None) -> list[int]:
        columns = [column for column, own in enumerate(self.kinds) if kind is None or own == kind]
        if not columns:
            there = ", ".join(sorted({str(own) for own in self.kinds}))
            raise ValueError(f"there is no tag of kind {kind!r}; the kinds there are: {there}")
        return columns


def _namings(tag: Tag, templates: Mapping[str, Sequence[str]], languages: Sequence[str]) -> list[tuple[str, ...]]:
    """The prompts of each name of a tag. Templates are English, so a translation stands alone."""
    spoken = [tag_prompts(name, tag.kind, templates) for name in (tag.name, *tag.synonyms)]
    spoken += [(name,) for code in languages for name in tag.translations.get(code, ())]
    return spoken if tag.definition is None else [*spoken, (tag.definition,)]


def _checked_vectors(texts: list[str], embed_texts: TextEmbedder) -> Float[Tensor, "texts dim"]:
    embedded = torch.from_numpy(unit_rows(embed_texts(texts), "the prompts' vectors"))
    if len(embedded) != len(texts):
        raise ValueError(f"embed_texts must give a vector for each of {len(texts)} prompts, got {len(embedded)}")
    return embedded


def _group_means(vectors: Float[Tensor, "rows dim"], sizes: Sequence[int]) -> Float[Tensor, "groups dim"]:
    """Normalised means of runs of rows."""
    owner = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return normalize(torch.zeros(len(sizes), vectors.shape[1]).index_add_(0, owner, vectors), dim=1)
