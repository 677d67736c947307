"""The windows of tracks as the tower's features, decoded when asked for; :mod:`xmodal.data.kept` keeps them.

All kinds of windows answer alike: ``windows[entry]`` is one window of the fixed policy and ``random_window(row, draw)``
one for training, and either may be the :class:`~xmodal.errors.AudioError` that says why there is none. A file that
failed once is set aside for good: what cannot be decoded is not tried again in every epoch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from xmodal.audio import AudioInfo, AudioLike, IsolatedDecoder, StoredAudio, WindowPolicy, load, probe
from xmodal.data.cache import FeatureCache
from xmodal.data.samples import Decode, SampleCache
from xmodal.data.tracks import Track
from xmodal.errors import AudioError
from xmodal.towers.base import AudioTower
from xmodal.towers.mel import LogMel

# Long tracks are decoded in parts of this length, so that a day of audio does not have to fit into memory.
_PART_SECONDS = 600.0


@dataclass
class Features:
    """One window's features.

    Attributes:
        values: What the front end makes of it; of a frozen tower perhaps its vector, as one column.
        valid_frames: How many of its frames are audio.
        share: How much of the window is audio and not padding, in (0, 1].
        energy: Sum of its squared samples; NaN where only the features were kept.
    """

    values: Float[Tensor, "bands frames"]
    valid_frames: int
    share: float = 1.0
    energy: float = math.nan


@dataclass
class TrackFeatures:
    """All windows of a track, log-mel in float16.

    It is normalised to a few units, where float16 is exact to about 0.1 %, less than the noise of any recording.
    Exported vectors never come from here.
    """

    values: Float[Tensor, "windows bands frames"]
    valid_frames: Int[Tensor, " windows"]


class LightTower(AudioTower):
    """What the loading of data needs of a tower: its rate and its features, on the CPU, without the network's weights.

    Args:
        tower: The tower; its features must be those of its front end, as :class:`AudioTower` makes them.
    """

    def __init__(self, tower: AudioTower) -> None:
        super().__init__(copy.deepcopy(tower.front_end).cpu(), tower.feature_dim)
        self.requires_grad_(False)

    def encode(self, features: Tensor, valid_frames: Tensor | None = None) -> Tensor:
        """Not what it is for.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("a front end makes features and no vectors")


def front_end_of(tower: AudioTower) -> AudioTower:
    """The light part of a tower that worker processes get a copy of; a tower with features of its own goes whole."""
    kind = type(tower)
    if kind.features is AudioTower.features and kind.valid_frames is AudioTower.valid_frames:
        return LightTower(tower)
    return copy.deepcopy(tower).cpu().eval()


class WindowSet(Dataset[Features | AudioError]):
    """The windows of a list of tracks, decoded when asked for.

    Args:
        tracks: The tracks.
        tower: Gives sample rate and front end.
        policy: Where the windows lie.
        decoder: Decodes in a process of its own, so that no file can hang or end this one; None decodes in this one.
        facts: What is known of the files; those that are not in it are probed here.
        cache: Keep decoded samples there; None decodes each window.

    Attributes:
        entries: ``(row of the track, start in seconds within the track)`` of each window.
        failures: Tracks that could not even be probed; they have no windows.
        seconds: Length of each track; 0 where it is not known.
        file_rates: Sample rate of each track's file in Hz; 0 where it is not known.
        facts: What the files that could be probed declare.
        encoded: Whether windows are vectors of a frozen tower and not its features: never here.
    """

    encoded = False

    def __init__(
        self,
        tracks: Sequence[Track],
        tower: AudioTower,
        policy: WindowPolicy,
        *,
        decoder: IsolatedDecoder | None = None,
        facts: Mapping[AudioLike, AudioInfo] | None = None,
        cache: FeatureCache | None = None,
    ) -> None:
        self.tracks = list(tracks)
        self.front_end = front_end_of(tower)
        self.policy = policy
        self.decoder = decoder
        self.kept = None if cache is None else SampleCache(cache, self._decode)
        self.entries: list[tuple[int, float]] = []
        self.failures: list[AudioError] = []
        self.seconds: list[float] = []
        self._file_seconds: list[float] = []
        self.file_rates: list[int] = []
        self._set_aside: dict[int, AudioError] = {}
        known: dict[AudioLike, AudioInfo | AudioError] = dict(facts or {})
        rate = tower.sample_rate
        for row, track in enumerate(self.tracks):
            info = known[track.audio] = known.get(track.audio) or self._probe(track.audio)
            self.seconds.append(0.0)
            self._file_seconds.append(0.0)
            self.file_rates.append(0)
            if isinstance(info, AudioError):
                self.failures.append(info)
                continue
            end = self._file_seconds[row] = info.duration_seconds
            if track.end_seconds is not None:
                end = min(end, track.end_seconds)
            seconds = end - track.start_seconds
            self.seconds[row] = max(seconds, 0.0)
            self.file_rates[row] = info.sample_rate
            samples = max(round(seconds * rate), 1)
            self.entries += [(row, start / rate) for start in policy.starts(samples, rate)]
        self.facts = {audio: info for audio, info in known.items() if isinstance(info, AudioInfo)}

    @property
    def window_samples(self) -> int:
        """Samples of a window at the tower's rate."""
        return self.policy.window_samples(self.front_end.sample_rate)

    @cached_property
    def window_frames(self) -> int:
        """Frames of a whole window."""
        return int(self.front_end.valid_frames(torch.tensor([self.window_samples]))[0])

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, entry: int) -> Features | AudioError:
        row, start = self.entries[entry]
        samples = self.samples(row, start)
        return samples if isinstance(samples, AudioError) else self.features(samples)

    def random_start(self, row: int, draw: float) -> float:
        """A start for a training window, uniform over the track; ``draw`` is uniform in [0, 1)."""
        return draw * max(self.seconds[row] - self.policy.window_seconds, 0.0)

    def random_window(self, row: int, draw: float) -> Features | AudioError:
        """A window of the track that may begin anywhere; ``draw`` is uniform in [0, 1)."""
        samples = self.samples(row, self.random_start(row, draw))
        return samples if isinstance(samples, AudioError) else self.features(samples)

    def samples(
        self, row: int, start_seconds: float, duration_seconds: float | None = None
    ) -> Float[np.ndarray, " samples"] | AudioError:
        """Samples of track ``row`` from ``start_seconds`` of the track: a window, or less where the track ends."""
        track, rate = self.tracks[row], self.front_end.sample_rate
        if row in self._set_aside:
            return self._set_aside[row]
        length = self.window_samples if duration_seconds is None else round(duration_seconds * rate)
        wanted = length / rate
        if track.end_seconds is not None:
            wanted = min(wanted, track.end_seconds - track.start_seconds - start_seconds)
        start, wanted = track.start_seconds + start_seconds, max(wanted, 1 / rate)
        try:
            if self.kept is not None:
                seconds = self._file_seconds[row]
                return self.kept.load(
                    track.audio, rate, start_seconds=start, duration_seconds=wanted, file_seconds=seconds
                )[:length]
            return self._decode(track.audio, rate, start_seconds=start, duration_seconds=wanted)[:length]
        except AudioError as error:
            self._set_aside[row] = error
            return error

    def features(self, samples: Float[np.ndarray, " samples"]) -> Features:
        """Features of one window's samples, at most a window long."""
        padded = np.zeros(self.window_samples, dtype=np.float32)
        padded[: len(samples)] = samples
        with torch.no_grad():
            values = self.front_end.features(torch.from_numpy(padded)[None])[0]
            valid_frames = int(self.front_end.valid_frames(torch.tensor([len(samples)]))[0])
        return Features(values, valid_frames, len(samples) / len(padded), float(np.dot(samples, samples)))

    def track(self, row: int, *, exact: bool = False) -> TrackFeatures | AudioError:
        """All windows of a track. One part that cannot be decoded sets the whole track aside.

        Args:
            row: The track.
            exact: Keep float32 where log-mels would be halved.
        """
        rate, length = self.front_end.sample_rate, self.window_samples
        starts = [round(start * rate) for start in self.starts(row)]
        values: list[Tensor] = []
        valid: list[int] = []
        first, part = 0, np.zeros(0, dtype=np.float32)
        for start in starts:
            if not values or start + length > first + len(part):
                # From this window on, for ten minutes: a Vorbis file is decoded from its start for every part of it.
                first = start
                got = self.samples(row, start / rate, max(_PART_SECONDS, length / rate))
                if isinstance(got, AudioError):
                    return got
                part = got
            window = self.features(part[start - first : start - first + length])
            # Half precision would be heard in samples, which a front end may give as they are.
            halve = isinstance(self.front_end.front_end, LogMel) and not exact
            values.append(window.values.half() if halve else window.values)
            valid.append(window.valid_frames)
        return TrackFeatures(torch.stack(values), torch.tensor(valid))

    def starts(self, row: int) -> list[float]:
        """Starts of the windows of a track, in seconds within the track."""
        rate = self.front_end.sample_rate
        samples = max(round(self.seconds[row] * rate), 1)
        return [start / rate for start in self.policy.starts(samples, rate)]

    def cache_key(self, row: int) -> dict[str, Any]:
        """What a track's features hang on, besides the bytes of its file."""
        track = self.tracks[row]
        return {
            "front_end": self.front_end.front_end.identity()
            if isinstance(self.front_end, LightTower)
            else self.front_end.identity(),
            "start_seconds": track.start_seconds,
            "end_seconds": track.end_seconds,
            "window_seconds": self.policy.window_seconds,
            "hop_seconds": self.policy.hop_seconds,
            "last": self.policy.last,
        }

    @property
    def _decode(self) -> Decode:
        return load if self.decoder is None else self.decoder.load

    def _probe(self, audio: AudioLike) -> AudioInfo | AudioError:
        if isinstance(audio, StoredAudio) and audio.info is not None:
            return audio.info
        try:
            return probe(audio) if self.decoder is None else self.decoder.probe(audio)
        except AudioError as error:
            return error
