"""What a training step hears of a track: a window of this epoch, augmented, perhaps mixed with another track's.

Every draw is a function of ``(seed, epoch, track)``; what is drawn for one purpose does not shift what is drawn for
another, so that an augmentation more changes neither the windows nor the texts.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from xmodal.data.augment import AudioAugmentation, MixPairs, augmented
from xmodal.data.kept import AnyWindows
from xmodal.data.windows import Features, WindowSet
from xmodal.errors import AudioError
from xmodal.towers.mel import LogMel
from xmodal.towers.spec_augment import SpecAugment


@dataclass(frozen=True)
class Hearing:
    """A window as it is given to the audio tower.

    Attributes:
        features: Its features; None where the track could not be decoded.
        partner: The track that is mixed in, by its row; the track itself where there is none.
        share: The track's own part of the energy.
        failures: The files that could not be decoded, the track's own or its partner's.
    """

    features: Features | None
    partner: int
    share: float = 1.0
    failures: tuple[AudioError, ...] = ()


def chance(seed: int, epoch: int, track_id: str, purpose: str) -> random.Random:
    """The random generator of a track in an epoch, one for each purpose."""
    return random.Random(f"{seed}/{epoch}/{track_id}/{purpose}")


class Hearings:
    """Draws the windows of training tracks.

    Args:
        windows: The tracks' windows.
        rows: The tracks that are trained on, from which others are mixed in.
        augment: What happens to the samples of a window; needs windows that are decoded each time.
        feature_augment: What happens to its features.
        mix_pairs: Mixes tracks with others; None for never.
        seed: Base of all draws.

    Raises:
        ValueError: If ``augment`` is to change samples of which only features are kept, or ``mix_pairs`` is to mix
            features that are no log-mel.
    """

    def __init__(
        self,
        windows: AnyWindows,
        rows: Sequence[int],
        *,
        augment: Sequence[AudioAugmentation] = (),
        feature_augment: Sequence[SpecAugment] = (),
        mix_pairs: MixPairs | None = None,
        seed: int = 0,
    ) -> None:
        if augment and not isinstance(windows, WindowSet):
            raise ValueError(
                "augment changes samples, and of cached windows only the features are kept; set cache: none, or use "
                "feature_augment"
            )
        if mix_pairs is not None and not isinstance(windows.front_end.front_end, LogMel):
            raise ValueError(
                "mix_pairs mixes log-mels, and this audio tower has another front end; leave mix_pairs out"
            )
        self.windows = windows
        self.rows = rows
        self.augment = list(augment)
        self.feature_augment = list(feature_augment)
        self.mix_pairs = mix_pairs
        self.seed = seed

    def hear(self, row: int, epoch: int) -> Hearing:
        """The window of a track in an epoch."""
        own = self._window(row, epoch)
        if isinstance(own, AudioError):
            return Hearing(None, row, failures=(own,))
        partner, share = self._partner(row, epoch)
        if partner == row:
            return Hearing(own, row)
        other = self._window(partner, epoch)
        if isinstance(other, AudioError):
            return Hearing(own, row, failures=(other,))
        return Hearing(self._mixed(own, other, share), partner, share)

    def _window(self, row: int, epoch: int) -> Features | AudioError:
        draw = self._chance(row, epoch, "window").random()
        item = self._augmented(row, epoch, draw) if self.augment else self.windows.random_window(row, draw)
        if self.feature_augment and isinstance(item, Features):
            generator = torch.Generator().manual_seed(self._chance(row, epoch, "features").getrandbits(63))
            values, valid = item.values[None], torch.tensor([item.valid_frames])
            for blanking in self.feature_augment:
                values = blanking.blank(values, valid, generator)
            item = Features(values[0], item.valid_frames)
        return item

    def _augmented(self, row: int, epoch: int, draw: float) -> Features | AudioError:
        windows = self.windows
        assert isinstance(windows, WindowSet)
        rate, length = windows.front_end.sample_rate, windows.window_samples
        reach = math.prod(augmentation.reach for augmentation in self.augment)
        samples = windows.samples(row, windows.random_start(row, draw), length * reach / rate)
        if isinstance(samples, AudioError):
            return samples

        def other(rng: np.random.Generator) -> np.ndarray | None:
            place = self.rows[int(rng.integers(len(self.rows)))]
            if place == row:
                return None
            found = windows.samples(place, windows.random_start(place, rng.random()))
            return None if isinstance(found, AudioError) else found

        rng = np.random.default_rng(self._chance(row, epoch, "augment").getrandbits(128))
        return windows.features(augmented(samples, rate, self.augment, rng, other, length=length))

    def _partner(self, row: int, epoch: int) -> tuple[int, float]:
        if self.mix_pairs is None:
            return row, 1.0
        rng = np.random.default_rng(self._chance(row, epoch, "mix").getrandbits(128))
        share = self.mix_pairs.share(rng)
        return (row, 1.0) if share == 1.0 else (self.rows[int(rng.integers(len(self.rows)))], share)

    def _mixed(self, own: Features, other: Features, share: float) -> Features:
        """The log-mel of a mixture of which ``share`` of the energy is the first one's."""
        front_end = self.windows.front_end.front_end
        assert isinstance(front_end, LogMel)
        nepers = front_end.std_db * math.log(10) / 10  # of energy, to a unit of log-mel
        parts = own.values * nepers + math.log(share), other.values * nepers + math.log1p(-share)
        return Features(torch.logaddexp(*parts) / nepers, max(own.valid_frames, other.valid_frames))

    def _chance(self, row: int, epoch: int, purpose: str) -> random.Random:
        return chance(self.seed, epoch, self.windows.tracks[row].id, purpose)
