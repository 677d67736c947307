"""GTZAN: 1,000 clips of ten genres (Tzanetakis & Cook, 2002), with the split that leaves out its known faults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from xmodal.data.adapters.base import Adapter, Part
from xmodal.data.tracks import Track

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")

# fmt: off
FAULT_FILTERED: Mapping[str, Mapping[str, str]] = {
    "train": {
        "blues": "29-49 73-97",
        "classical": "30-33 43-48 50-67 80-99",
        "country": "19-26 28-29 65-99",
        "disco": "5 15-20 22-37 39-45 47 49 53-54 56-57 59 61 70 73-74 89",
        "hiphop": "2-25 28-29 31-38 41-42 55-61 77-80",
        "jazz": "0-1 11-24 41 47-72",
        "metal": "2-3 5 21 24 35 46-57 59-66 69 71-72 79-80 84 86 89-99",
        "pop": "2-9 11-12 16-20 23-29 31-36 38-42 44 46 49-50 80 97-99",
        "reggae": "0-2 4 6 9 11-12 14-32 42-45 49-51 54-60 63 69",
        "rock": "0-9 16-26 57-70 91-99",
    },
    "validation": {
        "blues": "0-11 50-60",
        "classical": "0-10 68-76",
        "country": "0-7 9-18 27 41-42 45 49",
        "disco": "0 2-4 6-14 46 48 52 67-68 72 75 90 95",
        "hiphop": "81-98",
        "jazz": "2-10 25-32",
        "metal": "0-1 6-11 16-20 36-37 68 76-77 81-82",
        "pop": "10 53 55 58-62 81 83-86",
        "reggae": "61-62 70 72 74 76-78 85 92-99",
        "rock": "38 49-56 71-85",
    },
    "test": {
        "blues": "12-28 61-72 98-99",
        "classical": "11-29 34-41 49 77-79",
        "country": "30-40 43-44 46-48 50-51 53-64",
        "disco": "1 21 58 62-66 69 76-88 91-94 96-97 99",
        "hiphop": "0 26-27 30 40 43-45 51-54 62-75 99",
        "jazz": "73-99",
        "metal": "12-15 22-23 25-33 38-39 67 70 73-75 78 83 85 87-88",
        "pop": "0-1 13-14 43 63-66 69-79 82 88-96",
        "reggae": "34-40 46-48 52-53 64-68 71 79 82-84 87-90",
        "rock": "10-15 27-37 39-48 86-90",
    },
}
# fmt: on
"""Numbers of the clips by part and genre: no repetition, no artist in two parts.

From Kereliuk et al., 2015 (arXiv:1507.04761)."""


class GTZAN(Adapter):
    """GTZAN with the fault-filtered split (443 train, 197 validation, 290 test), or all of it without a split.

    Wants the folders of genres with ``blues.00000.wav`` (or ``.au``, ``.mp3`` ...), in the root or in ``genres``,
    ``genres_original`` or ``Data/genres_original`` below it.

    Args:
        root: The folder of the copy.
        split: "filtered", or "none" for all 1,000 clips, faults included.
    """

    name = "GTZAN"
    homepage = "http://marsyas.info/downloads/datasets.html"
    audio_url = "https://www.kaggle.com/datasets/andradaolteanu/gtzan-dataset-music-genre-classification"
    licence = "none given; research"
    parts = (
        Part(
            "genres.tar.gz",
            "http://opihi.cs.uvic.ca/sound/genres.tar.gz",
            sha256="24347e0223d2ba798e0a558c4c172d9d4a19c00bb7963fe055d183dadb4ef2c6",
            needed=False,
        ),
    )

    def __init__(self, root: str, split: Literal["filtered", "none"] = "filtered") -> None:
        super().__init__(root)
        if split not in ("filtered", "none"):
            raise ValueError(f"split must be 'filtered' or 'none', got {split!r}")
        self.split = split
        self.expected = {"train": 443, "validation": 197, "test": 290} if split == "filtered" else {"": 1_000}

    def tracks(self) -> Iterator[Track]:
        """One track for each clip of the split, genre by genre."""
        folder = self._folder()
        for part, genre, number in _filtered() if self.split == "filtered" else _everything():
            name = f"{genre}.{number:05d}"
            yield Track(
                id=name,
                path=self.with_any_suffix(folder / genre / f"{name}.wav"),
                tags={"genre": ("hip hop" if genre == "hiphop" else genre,)},
                split=part,
                licence=self.licence,
                source=self.homepage,
            )

    def _folder(self) -> Path:
        places = [self.root, *(self.root / name for name in ("genres", "genres_original", "Data/genres_original"))]
        return next((place for place in places if (place / "blues").is_dir()), places[1])


def _filtered() -> Iterator[tuple[str | None, str, int]]:
    for part, by_genre in FAULT_FILTERED.items():
        for genre, ranges in by_genre.items():
            for stretch in ranges.split():
                first, _, last = stretch.partition("-")
                for number in range(int(first), int(last or first) + 1):
                    yield part, genre, number


def _everything() -> Iterator[tuple[str | None, str, int]]:
    return ((None, genre, number) for genre in GENRES for number in range(100))
