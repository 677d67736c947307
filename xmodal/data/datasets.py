"""From tracks to batches: windows, the cache of their features, training pairs and fixed evaluation sets.

Where randomness lives: what a training item is depends on ``(seed, epoch, track)`` alone. The sampler hands the
epoch along with the index, so neither the number of workers nor the batch size nor a restart changes what is drawn.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from xmodal.audio import WindowPolicy, load, probe
from xmodal.data.tracks import Caption, Track, relevance_matrix
from xmodal.errors import AudioError, DataError
from xmodal.text import captions_from_tags, tag_prompts
from xmodal.towers.base import AudioTower


@dataclass
class Features:
    """One window's log-mel and how many of its frames are audio."""

    values: Float[Tensor, "bands frames"]
    valid_frames: int


@dataclass
class PairBatch:
    """A training batch: tracks, one or more texts of each, and optionally prompts that name one tag.

    Attributes:
        features: ``[tracks, bands, frames]``, what ``AudioTower.features`` gives.
        valid_frames: Frames of each that are audio and not padding.
        texts: Texts of the tracks, those of one track in a row.
        relevance: ``[tracks, texts]``.
        prompts: Texts that name one tag each; may be empty.
        prompt_relevance: ``[tracks, prompts]``.
        prompt_valid: ``[tracks, prompts]``; False where a track says nothing about that kind of tag.
        failures: Tracks of this batch that could not be decoded, left out of all of the above.
    """

    features: Float[Tensor, "tracks bands frames"]
    valid_frames: Int[Tensor, " tracks"]
    texts: list[str]
    relevance: Bool[Tensor, "tracks texts"]
    prompts: list[str]
    prompt_relevance: Bool[Tensor, "tracks prompts"]
    prompt_valid: Bool[Tensor, "tracks prompts"]
    failures: list[AudioError]


@dataclass
class WindowBatch:
    """Windows of an evaluation set, to be embedded and pooled by track.

    Attributes:
        features: ``[windows, bands, frames]``.
        valid_frames: Frames of each that are audio.
        rows: The track that each window belongs to.
        failures: Windows that could not be decoded, left out.
    """

    features: Float[Tensor, "windows bands frames"]
    valid_frames: Int[Tensor, " windows"]
    rows: Int[Tensor, " windows"]
    failures: list[AudioError]


class WindowSet(Dataset[Features | AudioError]):
    """The windows of a list of tracks, as the tower's features, decoded when asked for.

    Args:
        tracks: The tracks; each is probed once, here, for its length.
        tower: Gives sample rate and front end.
        policy: Where the windows lie.

    Attributes:
        entries: ``(row of the track, start in seconds within the track)`` of each window.
        failures: Tracks that could not even be probed; they have no windows.
    """

    def __init__(self, tracks: Sequence[Track], tower: AudioTower, policy: WindowPolicy) -> None:
        self.tracks = list(tracks)
        self.tower = tower
        self.policy = policy
        self.entries: list[tuple[int, float]] = []
        self.failures: list[AudioError] = []
        self.seconds: list[float] = []
        rate = tower.sample_rate
        for row, track in enumerate(self.tracks):
            try:
                end = probe(track.path).duration_seconds
            except AudioError as error:
                self.failures.append(error)
                self.seconds.append(0.0)
                continue
            if track.end_seconds is not None:
                end = min(end, track.end_seconds)
            seconds = end - track.start_seconds
            self.seconds.append(max(seconds, 0.0))
            samples = max(round(seconds * rate), 1)
            self.entries += [(row, start / rate) for start in policy.starts(samples, rate)]

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, entry: int) -> Features | AudioError:
        row, start = self.entries[entry]
        return self.window(row, start)

    def window(self, row: int, start_seconds: float) -> Features | AudioError:
        """Features of the window of track ``row`` that begins at ``start_seconds`` of the track."""
        track = self.tracks[row]
        rate = self.tower.sample_rate
        length = round(self.policy.window_seconds * rate)
        wanted = self.policy.window_seconds
        if track.end_seconds is not None:
            wanted = min(wanted, track.end_seconds - track.start_seconds - start_seconds)
        try:
            samples = load(
                track.path,
                rate,
                start_seconds=track.start_seconds + start_seconds,
                duration_seconds=max(wanted, 1 / rate),
            )[:length]
        except AudioError as error:
            return error
        valid = len(samples)
        padded = np.zeros(length, dtype=np.float32)
        padded[:valid] = samples
        with torch.no_grad():
            values = self.tower.features(torch.from_numpy(padded)[None])[0]
            valid_frames = int(self.tower.valid_frames(torch.tensor([valid]))[0])
        return Features(values, valid_frames)

    def random_start(self, row: int, draw: float) -> float:
        """A start for a training window, uniform over the track; ``draw`` is uniform in [0, 1)."""
        return draw * max(self.seconds[row] - self.policy.window_seconds, 0.0)


class CachedWindowSet(Dataset[Features | AudioError]):
    """A :class:`WindowSet` whose features are in memory as float16: decoded once, read every epoch.

    Log-mel of the tower is normalised to a few units, where float16 is exact to about 0.1 %, less than the noise
    of any recording. Exported vectors never come from here.
    """

    def __init__(self, windows: WindowSet, *, workers: int, progress: Callable[[int, int], None] | None = None) -> None:
        self.tracks = windows.tracks
        self.tower = windows.tower
        self.failures = list(windows.failures)
        self.entries: list[tuple[int, float]] = []
        values: Tensor | None = None
        valid: list[int] = []
        failed_rows: set[int] = set()
        loader = DataLoader(
            windows, batch_size=None, num_workers=workers, prefetch_factor=64 if workers else None, collate_fn=_as_half
        )
        for done, (entry, item) in enumerate(zip(windows.entries, loader, strict=True), start=1):
            if isinstance(item, AudioError):
                if entry[0] not in failed_rows:  # one report a file, however many windows it has
                    failed_rows.add(entry[0])
                    self.failures.append(item)
            else:
                if values is None:
                    values = torch.empty(len(windows), *item.values.shape, dtype=torch.float16)
                values[len(valid)] = item.values
                valid.append(item.valid_frames)
                self.entries.append(entry)
            if progress is not None and (done % 50 == 0 or done == len(windows)):
                progress(done, len(windows))
        if values is None:
            raise DataError(f"none of the {len(self.tracks)} tracks could be decoded; the first: {self.failures[0]}")
        self.values = values[: len(valid)]
        self.valid_frames = torch.tensor(valid)
        self._first: dict[int, list[int]] = {}
        for position, (row, _) in enumerate(self.entries):
            self._first.setdefault(row, []).append(position)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, entry: int) -> Features:
        return Features(self.values[entry].float(), int(self.valid_frames[entry]))

    def random_window(self, row: int, draw: float) -> Features:
        """One of the track's windows; ``draw`` is uniform in [0, 1)."""
        entries = self._first[row]
        return self[entries[int(draw * len(entries))]]


class TrainingSet(Dataset[tuple[int, int]]):
    """Pairs of a window and texts of the same track, drawn anew each epoch.

    Args:
        windows: The tracks' windows, cached or not.
        captions: How many texts of each track to draw; a track that has fewer gives those.
        first_caption: Always draw a track's first caption, and the others by chance: for manifests in which the
            first one says most.
        tag_prompts: How many one-tag prompts to add to each batch.
        seed: Base of all draws.
    """

    def __init__(
        self,
        windows: WindowSet | CachedWindowSet,
        *,
        captions: int = 1,
        first_caption: bool = False,
        tag_prompts: int = 0,
        seed: int = 0,
    ) -> None:
        self.windows = windows
        self.captions = captions
        self.first_caption = first_caption
        self.tracks = windows.tracks
        self.tag_prompts = tag_prompts
        self.seed = seed
        decodable = {row for row, _ in windows.entries}
        self.rows = [row for row in sorted(decodable) if self.tracks[row].captions or self.tracks[row].tags]
        if not self.rows:
            raise DataError(
                "no track of the training split has both audio that can be decoded and a caption or tag; "
                "check the manifest's columns (docs/data.md)"
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
        owners: list[int | str | None] = []
        failures: list[AudioError] = []
        for index, epoch in keys:
            row = self.rows[index]
            rng = random.Random(f"{self.seed}/{epoch}/{self.tracks[row].id}")
            draw = rng.random()
            if isinstance(self.windows, CachedWindowSet):
                item: Features | AudioError = self.windows.random_window(row, draw)
            else:
                item = self.windows.window(row, self.windows.random_start(row, draw))
            if isinstance(item, AudioError):
                failures.append(item)
                continue
            drawn = self.draw(self.tracks[row], rng)
            owners += [len(rows)] * len(drawn)
            rows.append(row)
            windows.append(item)
            captions += drawn
        tracks = [self.tracks[row] for row in rows]
        prompts, owners_valid = self._prompts(tracks, random.Random(f"{self.seed}/{keys[0]}"))
        return PairBatch(
            features=torch.stack([item.values for item in windows]) if windows else torch.zeros(0, 0, 0),
            valid_frames=torch.tensor([item.valid_frames for item in windows], dtype=torch.long),
            texts=[caption.text for caption in captions],
            relevance=relevance_matrix(tracks, captions, owners),
            prompts=[prompt.text for prompt in prompts],
            prompt_relevance=relevance_matrix(tracks, prompts, [None] * len(prompts)),
            prompt_valid=owners_valid,
            failures=failures,
        )

    def draw(self, track: Track, rng: random.Random) -> list[Caption]:
        """Texts for a track: some of its captions, or sentences made of its tags if it has none."""
        if track.captions:
            always = track.captions[: int(self.first_caption)]
            others = track.captions[len(always) :]
            return [*always, *rng.sample(others, min(self.captions - len(always), len(others)))]
        made = captions_from_tags(track.tags, rng, count=self.captions)
        return [Caption(text.text, frozenset(text.tags)) for text in made]

    def _prompts(
        self, tracks: Sequence[Track], rng: random.Random
    ) -> tuple[list[Caption], Bool[Tensor, "tracks prompts"]]:
        present = sorted({(kind, tag) for track in tracks for kind, tags in track.tags.items() for tag in tags})
        chosen = rng.sample(present, min(self.tag_prompts, len(present)))
        prompts = [Caption(rng.choice(tag_prompts(tag, kind)), frozenset({tag})) for kind, tag in chosen]
        # A track with no tag of a kind says nothing about that kind: unknown is not a negative.
        valid = torch.tensor([[kind in track.tags for kind, _ in chosen] for track in tracks], dtype=torch.bool)
        return prompts, valid.reshape(len(tracks), len(chosen))


class EvaluationSet(Dataset[int]):
    """A fixed set: the same windows, texts and relevance every time it is judged.

    Args:
        windows: The tracks' windows, cached or not.
        captions_per_track: How many captions of each track are queries, the first ones; None for all.
        queries: Have texts at all; a set that is only embedded needs none.
    """

    def __init__(
        self, windows: WindowSet | CachedWindowSet, *, captions_per_track: int | None = None, queries: bool = True
    ) -> None:
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


class EpochSampler(Sampler[tuple[int, int]]):
    """A seeded permutation an epoch, shared out among processes, as ``(index, epoch)``.

    Args:
        length: Number of items.
        shuffle: Permute; else in order.
        seed: Base of the permutation.
        rank: This process.
        world_size: Number of processes. Each gets ``length // world_size`` items, so that all take as many steps.
    """

    def __init__(self, length: int, *, shuffle: bool = True, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be from 0 to {world_size - 1}, got {rank}")
        self.length, self.shuffle, self.seed, self.rank, self.world_size = length, shuffle, seed, rank, world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives; Lightning calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length // self.world_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.arange(self.length)
        if self.shuffle:
            np.random.default_rng([self.seed, self.epoch]).shuffle(order)
        mine = order[self.rank : len(self) * self.world_size : self.world_size]
        return iter([(int(index), self.epoch) for index in mine])


def _as_half(item: Any) -> Features | AudioError:
    return item if isinstance(item, AudioError) else Features(item.values.half(), item.valid_frames)
