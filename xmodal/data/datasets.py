"""From tracks to batches: training pairs drawn anew each epoch, and fixed evaluation sets.

Where randomness lives: what a training item is depends on ``(seed, epoch, track)`` alone. The sampler hands the
epoch along with the index, so neither the number of workers nor the batch size nor a restart changes what is drawn.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from xmodal.data.augment import AudioAugmentation, MixPairs
from xmodal.data.hearings import Hearings, chance
from xmodal.data.kept import AnyWindows
from xmodal.data.texts import TextSource, draw_texts
from xmodal.data.tracks import Caption, Track, relevance_matrix, tag_matrices
from xmodal.data.windows import Features
from xmodal.errors import AudioError, DataError
from xmodal.text import captions_from_tags, tag_prompts
from xmodal.towers.spec_augment import SpecAugment


class BatchFacts:
    """Who the tracks and texts of a batch are: enough to judge them against those of another process's batch.

    Not a dataclass: Lightning looks for tensors inside of those, and refuses frozen ones such as a caption.

    Args:
        rows: The tracks, by their place in the training set's ``tracks``.
        captions: The texts.
        owners: The id of the track that each text was drawn for.
        prompts: The texts that name one tag.
        prompt_kinds: The kind of tag that each names.
        partners: Where tracks were mixed with others, for each track the other one (by its place, as in ``rows``)
            and the track's own share; empty where none was.
    """

    def __init__(
        self,
        rows: Sequence[int] = (),
        captions: Sequence[Caption] = (),
        owners: Sequence[str] = (),
        prompts: Sequence[Caption] = (),
        prompt_kinds: Sequence[str] = (),
        partners: Sequence[tuple[int, float]] = (),
    ) -> None:
        self.rows, self.captions, self.owners = tuple(rows), tuple(captions), tuple(owners)
        self.prompts, self.prompt_kinds = tuple(prompts), tuple(prompt_kinds)
        self.partners = tuple(partners)

    @classmethod
    def joined(cls, parts: Sequence[BatchFacts]) -> BatchFacts:
        """Several batches as one, in their order."""
        whole = cls()
        for name in vars(whole):
            setattr(whole, name, tuple(item for part in parts for item in getattr(part, name)))
        return whole


@dataclass
class PairBatch:
    """A training batch: tracks, one or more texts of each, and optionally prompts that name one tag.

    Attributes:
        features: ``[tracks, bands, frames]``, what ``AudioTower.features`` gives; or what a frozen tower made of it.
        valid_frames: Frames of each that are audio and not padding.
        texts: Texts of the tracks, those of one track in a row.
        relevance: ``[tracks, texts]``; with mixed tracks, the share of the track that a text is right for.
        prompts: Texts that name one tag each; may be empty.
        prompt_relevance: ``[tracks, prompts]``.
        prompt_valid: ``[tracks, prompts]``; False where a track says nothing about that kind of tag.
        failures: Tracks of this batch that could not be decoded, left out of all of the above.
        facts: Who they all are.
        encoded: The features are the vectors of a frozen tower, ``[tracks, feature_dim, 1]``.
    """

    features: Float[Tensor, "tracks bands frames"]
    valid_frames: Int[Tensor, " tracks"]
    texts: list[str]
    relevance: Bool[Tensor, "tracks texts"]
    prompts: list[str]
    prompt_relevance: Bool[Tensor, "tracks prompts"]
    prompt_valid: Bool[Tensor, "tracks prompts"]
    failures: list[AudioError]
    facts: BatchFacts = field(default_factory=BatchFacts)
    encoded: bool = False

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PairBatch:
        """The same batch with its tensors on another device; facts, texts and failures stay where they are."""
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=non_blocking)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved)


@dataclass
class WindowBatch:
    """Windows of an evaluation set, to be embedded and pooled by track.

    Attributes:
        features: ``[windows, bands, frames]``, or a frozen tower's vectors as in :class:`PairBatch`.
        valid_frames: Frames of each that are audio.
        rows: The track that each window belongs to.
        failures: Windows that could not be decoded, left out.
        entries: The windows' places in the set.
        shares: How much of each is audio and not padding, in (0, 1].
        energies: Sums of squared samples; NaN where only features were kept.
        encoded: The features are the vectors of a frozen tower, ``[windows, feature_dim, 1]``.
    """

    features: Float[Tensor, "windows bands frames"]
    valid_frames: Int[Tensor, " windows"]
    rows: Int[Tensor, " windows"]
    failures: list[AudioError]
    entries: Int[Tensor, " windows"]
    shares: Float[Tensor, " windows"]
    energies: Float[Tensor, " windows"]
    encoded: bool = False


class TrainingSet(Dataset[tuple[int, int]]):
    """Pairs of a window and texts of the same track, drawn anew each epoch.

    Args:
        windows: The tracks' windows, cached or not.
        captions: How many texts of each track to draw; a track that has fewer gives those.
        first_caption: Always draw a track's first caption, and the others by chance: for manifests in which the
            first one says most.
        tag_prompts: How many one-tag prompts to add to each batch.
        texts: Where the other texts come from; None for the captions, or for a track without one its tags.
        augment: What happens to the samples of a window; needs windows that are decoded each time.
        feature_augment: What happens to its features.
        mix_pairs: Mixes tracks with others; None for never.
        trim_padding: Cut the frames that are padding in every track of the batch.
        seed: Base of all draws.

    Raises:
        DataError: If no track can be used.
        ValueError: If ``augment`` is to change samples of which only features are kept.
    """

    def __init__(
        self,
        windows: AnyWindows,
        *,
        captions: int = 1,
        first_caption: bool = False,
        tag_prompts: int = 0,
        texts: Sequence[TextSource] | None = None,
        augment: Sequence[AudioAugmentation] = (),
        feature_augment: Sequence[SpecAugment] = (),
        mix_pairs: MixPairs | None = None,
        trim_padding: bool = False,
        seed: int = 0,
    ) -> None:
        self.windows = windows
        self.captions = captions
        self.first_caption = first_caption
        self.tracks = windows.tracks
        self.tag_prompts = tag_prompts
        self.sources = texts
        self.trim_padding = trim_padding
        self.seed = seed
        decodable = {row for row, _ in windows.entries}
        self.rows = [row for row in sorted(decodable) if self._can_be_described(self.tracks[row])]
        if not self.rows:
            raise DataError(
                "no track of the training split has both audio that can be decoded and a caption or tag; "
                "check the manifest's columns (docs/data.md)"
            )

        self.hearings = Hearings(
            windows, self.rows, augment=augment, feature_augment=feature_augment, mix_pairs=mix_pairs, seed=seed
        )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, int]:
        return key

    def __getitems__(self, keys: list[tuple[int, int]]) -> PairBatch:
        """The batch of the given ``(index, epoch)`` keys."""
        rows: list[int] = []
        windows: list[Features] = []
        captions: list[Caption] = []
        owners: list[str] = []
        failures: list[AudioError] = []
        partners: list[tuple[int, float]] = []
        for index, epoch in keys:
            row = self.rows[index]
            heard = self.hearings.hear(row, epoch)
            failures += heard.failures
            if heard.features is None:
                continue
            for one in dict.fromkeys((row, heard.partner)):
                drawn = self.draw(self.tracks[one], chance(self.seed, epoch, self.tracks[one].id, "texts"))
                owners += [self.tracks[one].id] * len(drawn)
                captions += drawn
            rows.append(row)
            windows.append(heard.features)
            partners.append((heard.partner, heard.share))
        prompts, kinds = self._prompts([self.tracks[row] for row in rows], random.Random(f"{self.seed}/{keys[0]}"))
        mixed = () if self.hearings.mix_pairs is None else tuple(partners)
        facts = BatchFacts(tuple(rows), tuple(captions), tuple(owners), tuple(prompts), tuple(kinds), mixed)
        relevance, prompt_relevance, prompt_valid = self.judge(facts, facts)
        return PairBatch(
            features=self._stack(windows),
            valid_frames=torch.tensor([item.valid_frames for item in windows], dtype=torch.long),
            texts=[caption.text for caption in captions],
            relevance=relevance,
            prompts=[prompt.text for prompt in prompts],
            prompt_relevance=prompt_relevance,
            prompt_valid=prompt_valid,
            failures=failures,
            facts=facts,
            encoded=self.windows.encoded,
        )

    def _stack(self, windows: Sequence[Features]) -> Float[Tensor, "tracks bands frames"]:
        if not windows:
            return torch.zeros(0, 0, 0)
        frames = max(item.valid_frames for item in windows) if self.trim_padding else None
        return torch.stack([item.values[:, :frames] for item in windows])

    def judge(
        self, audio: BatchFacts, text: BatchFacts
    ) -> tuple[Bool[Tensor, "tracks texts"], Bool[Tensor, "tracks prompts"], Bool[Tensor, "tracks prompts"]]:
        """Which texts and prompts of one batch are right for the tracks of another, or of the same.

        Returns:
            Relevance of the texts, relevance of the prompts, and where a prompt may be judged.
        """
        own = self._judge([self.tracks[row] for row in audio.rows], text)
        if not audio.partners:
            return own
        others = self._judge([self.tracks[row] for row, _ in audio.partners], text)
        share = torch.tensor([part for _, part in audio.partners])[:, None]
        relevance, prompt_relevance = (share * own[n] + (1 - share) * others[n] for n in range(2))
        # A tag that one of the two has is in the mixture, whatever is known of the other.
        return relevance, prompt_relevance, (own[2] & others[2]) | (prompt_relevance > 0)

    def _judge(
        self, tracks: list[Track], text: BatchFacts
    ) -> tuple[Bool[Tensor, "tracks texts"], Bool[Tensor, "tracks prompts"], Bool[Tensor, "tracks prompts"]]:
        named = [tag for prompt in text.prompts for tag in prompt.requires or ()]  # one each
        return (
            relevance_matrix(tracks, text.captions, text.owners),
            relevance_matrix(tracks, text.prompts, [None] * len(text.prompts)),
            # Of a tag that a track does not speak of nothing is known: unknown is not a negative.
            tag_matrices(tracks, list(zip(text.prompt_kinds, named, strict=True)))[1],
        )

    def draw(self, track: Track, rng: random.Random) -> list[Caption]:
        """Texts for a track: from the sources, else some of its captions, or sentences made of its tags."""
        if self.sources is not None:
            always = track.captions[: int(self.first_caption)]
            return draw_texts(track, self.sources, self.captions, rng, always)
        if track.captions:
            always = track.captions[: int(self.first_caption)]
            others = track.captions[len(always) :]
            return [*always, *rng.sample(others, min(self.captions - len(always), len(others)))]
        made = captions_from_tags(track.tags, rng, count=self.captions)
        return [Caption(text.text, frozenset(text.tags)) for text in made]

    def _can_be_described(self, track: Track) -> bool:
        if self.sources is not None:
            # A source says something of a track or not, whatever its dice; a few throws are for optional fields.
            return any(draw_texts(track, self.sources, 1, random.Random(throw)) for throw in range(4))
        return bool(track.captions or track.tags)

    def _prompts(self, tracks: Sequence[Track], rng: random.Random) -> tuple[list[Caption], list[str]]:
        """Prompts that name one tag of the batch each, and the kind of each tag."""
        present = sorted({(kind, tag) for track in tracks for kind, tags in track.tags.items() for tag in tags})
        chosen = rng.sample(present, min(self.tag_prompts, len(present)))
        prompts = [Caption(rng.choice(tag_prompts(tag, kind)), frozenset({tag})) for kind, tag in chosen]
        return prompts, [kind for kind, _ in chosen]


class EvaluationSet(Dataset[int]):
    """A fixed set: the same windows, texts and relevance every time it is judged.

    Args:
        windows: The tracks' windows, cached or not.
        captions_per_track: How many captions of each track are queries, the first ones; None for all.
        queries: Have texts at all; a set that is only embedded needs none.
    """

    def __init__(self, windows: AnyWindows, *, captions_per_track: int | None = None, queries: bool = True) -> None:
        self.windows = windows
        decodable = {row for row, _ in windows.entries}
        self.rows = sorted(decodable)
        self.tracks = [windows.tracks[row] for row in self.rows]
        self.texts: list[str] = []
        self.relevance = torch.zeros(len(self.tracks), 0, dtype=torch.bool)
        if queries:
            self.texts, self.relevance = evaluation_texts(self.tracks, captions_per_track)
        self._position = {row: position for position, row in enumerate(self.rows)}

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, entry: int) -> int:
        return entry

    def __getitems__(self, entries: list[int]) -> WindowBatch:
        """The batch of the given windows."""
        items = [self.windows[entry] for entry in entries]
        kept = [(entry, item) for entry, item in zip(entries, items, strict=True) if isinstance(item, Features)]
        return WindowBatch(
            features=torch.stack([item.values for _, item in kept]) if kept else torch.zeros(0, 0, 0),
            valid_frames=torch.tensor([item.valid_frames for _, item in kept], dtype=torch.long),
            rows=torch.tensor([self._position[self.windows.entries[entry][0]] for entry, _ in kept], dtype=torch.long),
            failures=[item for item in items if isinstance(item, AudioError)],
            entries=torch.tensor([entry for entry, _ in kept], dtype=torch.long),
            shares=torch.tensor([item.share for _, item in kept], dtype=torch.float32),
            energies=torch.tensor([item.energy for _, item in kept], dtype=torch.float32),
            encoded=self.windows.encoded,
        )


def evaluation_texts(
    tracks: Sequence[Track], captions_per_track: int | None = None
) -> tuple[list[str], Bool[Tensor, "tracks texts"]]:
    """The texts that a set is judged by, each distinct one once, and which tracks they are right for.

    A track without captions gives one plain text that names all of its tags.

    Raises:
        DataError: If no track has a caption or a tag.
    """
    captions: list[Caption] = []
    owners: list[int | str | None] = []
    for position, track in enumerate(tracks):
        own = track.captions[:captions_per_track]
        if not own and track.tags:
            names = [tag for tags in track.tags.values() for tag in tags]
            own = (Caption(", ".join(names), frozenset(names)),)
        captions += own
        owners += [position] * len(own)
    if not captions:
        raise DataError("no track of this split has a caption or a tag, so there is nothing to ask for")
    relevance = relevance_matrix(tracks, captions, owners)
    first = {caption.text: column for column, caption in reversed(list(enumerate(captions)))}
    columns = sorted(first.values())
    return [captions[column].text for column in columns], relevance[:, columns]
