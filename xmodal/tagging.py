"""Zero-shot tags: a vocabulary of words becomes vectors, and a track's tags are the words nearest to it.

Conventions
-----------
* A tag is put into every prompt template of its kind; its vector is the normalised mean of the prompts' unit vectors
  (prompt ensembling in embedding space, Radford et al. 2021).
* A score is the cosine of a track and a tag. It orders tracks for a tag, and tags for a track. It is no probability,
  and no threshold on it means the same for two tags.
* Words differ in how near they are to audio as such: some tags score high on every track. With a ``reference``
  catalogue r_1 ... r_n the score becomes ``a·t - mean_i r_i·t = (a - mean r)·t``, how much nearer the track is than an
  average track. This changes the order of tags for a track, never the order of tracks for a tag.
* Tags are compared by :func:`xmodal.text.words_key`: "Piano" and "piano" are one tag.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from xmodal.embeddings import unit_rows
from xmodal.text import PROMPTS, prompts_for, tag_prompts, words_key

Matrix = Tensor | np.ndarray

TEMPLATES: Mapping[str, tuple[str, ...]] = {
    **PROMPTS,
    "mode": ("{}", "music in {}", "a piece in {}"),
    "density": ("{}", "{} music", "a piece that sounds {}"),
    "drums": ("{}", "music with {}", "a piece with {}"),
    "register": ("{}", "music in {}", "a melody in {}"),
    "articulation": ("{}", "{} notes", "{} playing"),
    "accompaniment": ("{}", "music with {}", "accompanied by {}"),
}
"""Prompt templates by kind of tag: those of :mod:`xmodal.text`, and those that only tagging needs."""


class TagScorer:
    """A vocabulary, embedded once, that scores any number of tracks.

    Args:
        tags: Names, or names by kind. Each name once, whatever its kind.
        embed_texts: Texts to unit vectors ``[texts, dim]``, for instance :meth:`xmodal.embedder.Embedder.embed_texts`.
        templates: Prompt templates by kind, each with one ``{}``; or one list for tags of every kind. Kinds that are
            not there get :data:`xmodal.text.ANY_PROMPTS`.
        reference: Unit vectors of a catalogue of tracks, whose mean score of each tag is subtracted. None: no
            correction.

    Attributes:
        tags: The names, in the order given.
        kinds: The kind of each, or None.
        vectors: Unit vectors ``[tags, dim]``.
        offsets: What is subtracted from each tag's cosine.

    Raises:
        ValueError: If there is no tag, a tag is blank or named twice, a template has not exactly one ``{}``, or a
            vector is not of length 1.
    """

    def __init__(
        self,
        tags: Sequence[str] | Mapping[str, Sequence[str]],
        embed_texts: Callable[[list[str]], Float[Matrix, "texts dim"]],
        *,
        templates: Mapping[str, Sequence[str]] | Sequence[str] = TEMPLATES,
        reference: Float[Matrix, "tracks dim"] | None = None,
    ) -> None:
        pairs = _vocabulary(tags)
        self.tags = [tag for tag, _ in pairs]
        self.kinds = [kind for _, kind in pairs]
        by_kind = templates if isinstance(templates, Mapping) else {kind or "": templates for kind in self.kinds}
        if not all(by_kind.values()):
            raise ValueError('templates must not be empty; ("{}",) is the tag alone')
        for kind in by_kind:
            prompts_for(kind, by_kind)  # refuses a template without a slot even where no tag needs it
        prompts = [tag_prompts(tag, kind, by_kind) for tag, kind in pairs]
        texts = [text for group in prompts for text in group]
        embedded = torch.from_numpy(unit_rows(embed_texts(texts), "the prompts' vectors"))
        if len(embedded) != len(texts):
            raise ValueError(f"embed_texts must give a vector for each of {len(texts)} prompts, got {len(embedded)}")
        owner = torch.arange(len(prompts)).repeat_interleave(torch.tensor([len(group) for group in prompts]))
        summed = torch.zeros(len(prompts), embedded.shape[1]).index_add_(0, owner, embedded)
        self.vectors: Float[Tensor, "tags dim"] = normalize(summed, dim=1)
        self.offsets: Float[Tensor, " tags"] = torch.zeros(len(self.tags))
        if reference is not None:
            self.offsets = self.score(reference).mean(dim=0)

    def score(self, audio: Float[Matrix, "tracks dim"]) -> Float[Tensor, "tracks tags"]:
        """Cosines of tracks and tags, less the reference catalogue's mean if there is one.

        Raises:
            ValueError: If a vector is not of length 1 or of another dimension than the tags'.
        """
        tracks = torch.from_numpy(unit_rows(audio, "audio"))
        if tracks.shape[1] != self.vectors.shape[1]:
            raise ValueError(
                f"tracks and tags must be of one space, got vectors of {tracks.shape[1]} and {self.vectors.shape[1]} "
                "dimensions; embed both with one model"
            )
        return tracks @ self.vectors.T - self.offsets

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
        """Which tags the tracks have, and which pairs may be judged, for :func:`xmodal.evaluation.evaluate_tags`.

        A track that has no tag of some kind says nothing about that kind, so those pairs are not valid. A tag without
        a kind is looked for in all kinds.

        Args:
            tags_of_tracks: Names by kind for each track, such as ``Track.tags``.

        Returns:
            Labels and valid.
        """
        own = [words_key(tag) for tag in self.tags]
        labels = torch.zeros(len(tags_of_tracks), len(own), dtype=torch.bool)
        valid = torch.zeros_like(labels)
        for row, by_kind in enumerate(tags_of_tracks):
            keys = {kind: {words_key(name) for name in names} for kind, names in by_kind.items()}
            everything = set().union(*keys.values())
            known = [everything if kind is None else keys.get(kind, set()) for kind in self.kinds]
            labels[row] = torch.tensor([key in names for key, names in zip(own, known, strict=True)])
            valid[row] = torch.tensor([bool(names) for names in known])
        return labels, valid

    def _columns(self, kind: str | None) -> list[int]:
        columns = [column for column, own in enumerate(self.kinds) if kind is None or own == kind]
        if not columns:
            there = ", ".join(sorted({str(own) for own in self.kinds}))
            raise ValueError(f"there is no tag of kind {kind!r}; the kinds there are: {there}")
        return columns


def _vocabulary(tags: Sequence[str] | Mapping[str, Sequence[str]]) -> list[tuple[str, str | None]]:
    by_kind: list[tuple[str | None, Sequence[str]]] = (
        list(tags.items()) if isinstance(tags, Mapping) else [(None, tags)]
    )
    pairs: list[tuple[str, str | None]] = []
    seen: dict[str, str] = {}
    for kind, names in by_kind:
        if isinstance(names, str):
            raise ValueError(f"tags must be a list of names, got the text {names!r}; write [{names!r}]")
        for name in names:
            key = words_key(name)
            if not key:
                raise ValueError(f"a tag must have a visible character, got {name!r}")
            if key in seen:
                raise ValueError(f"every tag must be named once, got {seen[key]!r} and {name!r}; leave one out")
            seen[key] = name
            pairs.append((name, kind))
    if not pairs:
        raise ValueError("there must be at least one tag, got none")
    return pairs
