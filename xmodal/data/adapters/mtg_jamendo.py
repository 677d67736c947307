"""MTG-Jamendo: full tracks under Creative Commons with tags of their uploaders (Bogdanov et al., 2019)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from xmodal.data.adapters.base import Adapter, Part, given
from xmodal.data.tracks import Track
from xmodal.errors import DataError

_URL = "https://github.com/MTG/mtg-jamendo-dataset"
Subset = Literal[
    "autotagging", "autotagging_top50tags", "autotagging_genre", "autotagging_instrument", "autotagging_moodtheme"
]
_COLUMNS = ("TRACK_ID", "ARTIST_ID", "ALBUM_ID", "PATH", "DURATION", "TAGS")
_KINDS = {"mood/theme": "mood"}


class MTGJamendo(Adapter):
    """MTG-Jamendo with one of its five official splits.

    Wants a clone of its repository as root (the lists of ``data/splits``), and the audio (``00/1234500.mp3`` or the
    smaller ``00/1234500.low.mp3``) in the root, in ``audio`` below it, or elsewhere.

    Args:
        root: The clone of the repository.
        audio: Folder of the audio; None looks in the root and one folder below.
        subset: Which tags, and so which tracks.
        split: Which of the official random splits, from 0 to 4.
    """

    name = "MTG-Jamendo"
    homepage = "https://mtg.github.io/mtg-jamendo-dataset"
    audio_url = f"{_URL}#downloading-the-data (scripts/download/download.py)"
    licence = "Creative Commons, a licence for each track (audio_licenses.txt)"

    def __init__(self, root: str, audio: str | None = None, subset: Subset = "autotagging", split: int = 0) -> None:
        super().__init__(root)
        if subset not in get_args(Subset):
            raise ValueError(f"subset must be one of {', '.join(get_args(Subset))}; got {subset!r}")
        if split not in range(5):
            raise ValueError(f"split must be from 0 to 4, got {split}")
        self.audio = None if audio is None else Path(audio).expanduser()
        self.subset = subset
        self.split = split
        self.parts = tuple(
            Part(self._list(part), f"{_URL}/tree/master/data") for part in ("train", "validation", "test")
        )
        # The readme says it for the whole; a split leaves out tags that are not in all of its parts.
        self.expected = {"": 55_525} if subset == "autotagging" else {}

    def tracks(self) -> Iterator[Track]:
        """One track for each row of the three lists of the split."""
        names = self._names()
        folder = self._folder()
        for part in ("train", "validation", "test"):
            for cells in self._rows(self.place(self._list(part))):
                track_id, artist, album, path, duration, *tags = cells
                by_kind: dict[str, tuple[str, ...]] = {}
                for tag in tags:
                    kind, _, name = tag.partition("---")
                    kind = _KINDS.get(kind, kind)
                    by_kind[kind] = (*by_kind.get(kind, ()), name)
                low = folder / f"{path.removesuffix('.mp3')}.low.mp3"
                yield Track(
                    id=track_id,
                    path=low if low.is_file() else folder / path,
                    tags=by_kind,
                    split=part,
                    group=artist,
                    licence=self.licence,
                    source=f"https://www.jamendo.com/track/{int(track_id.removeprefix('track_'))}",
                    extra={"artist_id": artist, "album_id": album, "duration": float(duration)},
                    **names.get(track_id, {}),
                )

    def checksums_of_audio(self) -> Iterable[tuple[Path, str, str]]:
        """Those of the repository's ``data/download/*_sha256_tracks.txt``."""
        folder = self._folder()
        name = "autotagging_moodtheme" if self.subset == "autotagging_moodtheme" else "raw_30s"
        for kind in ("audio", "audio-low"):
            listed = self.place(f"data/download/{name}_{kind}_sha256_tracks.txt")
            if listed.is_file():
                for line in listed.read_text("utf-8").splitlines():
                    digest, _, path = line.strip().partition(" ")
                    yield folder / path.strip(), "sha256", digest

    def _list(self, part: str) -> str:
        return f"data/splits/split-{self.split}/{self.subset}-{part}.tsv"

    def _folder(self) -> Path:
        if self.audio is not None:
            return self.audio
        return next(
            (folder.parent for n in range(100) if (folder := self.place(f"{n:02d}")).is_dir()), self.root / "audio"
        )

    def _rows(self, path: Path) -> Iterator[list[str]]:
        # Tags are further columns, which have no name; quotation marks stand for themselves.
        lines = path.read_text("utf-8").splitlines()
        if not lines or tuple(lines[0].split("\t")) != _COLUMNS:
            raise DataError(f"{path} does not begin with the columns {', '.join(_COLUMNS)}; get it again from {_URL}")
        for number, line in enumerate(lines[1:], start=2):
            cells = line.split("\t")
            if len(cells) < len(_COLUMNS):
                raise DataError(f"{path}, line {number}: the row is cut short; get the file again from {_URL}")
            yield cells

    def _names(self) -> dict[str, dict[str, Any]]:
        """Title, artist and album by track, if the copy has ``raw.meta.tsv``."""
        path = self.place("data/raw.meta.tsv")
        names: dict[str, dict[str, Any]] = {}
        if path.is_file():
            for line in path.read_text("utf-8").splitlines()[1:]:
                cells = line.split("\t")
                if len(cells) == 8:  # a handful of rows have a tab in a title
                    names[cells[0]] = given(title=cells[3], artist=cells[4], album=cells[5])
        return names
