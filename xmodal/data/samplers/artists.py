"""Batches that know the artist: never two tracks of one as each other's negatives, or mostly such."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Int

from xmodal.data.samplers.base import PlannedBatches
from xmodal.errors import DataError
from xmodal.text import words_key


class ArtistBatches(PlannedBatches):
    """Artists kept apart, or together: negatives chosen by side information (after Royo-Letelier et al. 2018).

    "apart": no two tracks of an artist are in a batch, so that none of them is pushed away from a sibling. Every track
    is heard once an epoch as far as that allows: of an artist with more tracks than there are batches some are left
    out, and in their place others may come twice.

    "together": an artist's tracks stand side by side, so that most negatives are of the same artist, and the model
    must hear what tells apart tracks of one voice and one studio. Every track at most once an epoch.

    A track without an artist is taken for one of an artist of its own.

    Args:
        mode: "apart" or "together".
        field: The column of the manifest that says whose a track is; "artist", "album", "group", or one in ``extra``.
    """

    def __init__(self, mode: Literal["apart", "together"] = "apart", field: str = "artist") -> None:
        super().__init__()
        if mode not in ("apart", "together"):
            raise ValueError(f"mode must be 'apart' or 'together', got {mode!r}")
        self.mode, self.field = mode, field
        self._members: list[np.ndarray] = []
        self._artist = np.zeros(0, dtype=np.int64)

    def prepared(self) -> None:
        """Sort the tracks by artist.

        Raises:
            DataError: If no track names an artist, or there are fewer artists than a batch has tracks.
        """
        super().prepared()
        members: dict[str, list[int]] = {}
        for index, track in enumerate(self.tracks):
            name = getattr(track, self.field, None) or track.extra.get(self.field)
            # A space begins no key, so that no artist is called like a track.
            members.setdefault(f" {index}" if name is None else words_key(str(name)), []).append(index)
        if all(key.startswith(" ") for key in members):
            raise DataError(f"no training track has anything in the column {self.field!r}; name another one")
        if self.mode == "apart" and len(members) < self.global_batch_size:
            raise DataError(
                f"a batch of {self.global_batch_size} tracks of different artists needs as many artists, and there are "
                f"{len(members)}; lower data.batch_size"
            )
        self._members = [np.array(indices) for indices in members.values()]
        self._artist = np.zeros(len(self.tracks), dtype=np.int64)
        for number, indices in enumerate(self._members):
            self._artist[indices] = number

    def plan_epoch(self, rng: np.random.Generator) -> Int[np.ndarray, "batches batch"]:
        """The tracks dealt out by artist."""
        return self._apart(rng) if self.mode == "apart" else self._together(rng)

    def _together(self, rng: np.random.Generator) -> np.ndarray:
        artists = [rng.permutation(self._members[number]) for number in rng.permutation(len(self._members))]
        return rng.permutation(self.deal(np.concatenate(artists)))

    def _apart(self, rng: np.random.Generator) -> np.ndarray:
        batches, size = len(self), self.global_batch_size
        room = np.full(batches, size)
        dealt: list[list[int]] = [[] for _ in range(batches)]
        # Those with most tracks first, each to the emptiest batches: any other order fills fewer places.
        chance = rng.random(len(self._members))
        for number in sorted(range(len(self._members)), key=lambda n: (-len(self._members[n]), chance[n])):
            tracks = rng.permutation(self._members[number])[:batches]
            emptiest = np.lexsort((rng.random(batches), -room))[: len(tracks)]
            for batch, track in zip(emptiest, tracks, strict=True):
                if room[batch]:
                    dealt[batch].append(int(track))
                    room[batch] -= 1
        for batch in dealt:
            if len(batch) < size:  # one artist has a large part of all tracks
                there = {self._artist[index] for index in batch}
                absent = [number for number in range(len(self._members)) if number not in there]
                chosen = rng.choice(absent, size - len(batch), replace=False)
                batch += [int(rng.choice(self._members[number])) for number in chosen]
        return rng.permutation(np.array(dealt))
