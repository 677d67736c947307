"""FMA: the Free Music Archive with its genres (Defferrard et al., ISMIR 2017)."""

from __future__ import annotations

import ast
import csv
from collections.abc import Iterator
from typing import Literal, get_args

from xmodal.data.adapters.base import Adapter, Part, given
from xmodal.data.tracks import Track
from xmodal.errors import DataError

_URL = "https://os.unil.cloud.switch.ch/fma"
Subset = Literal["small", "medium", "large", "full"]
_SHA1 = {
    "fma_metadata": "f0df49ffe5f2a6008d7dc83c6915b31835dfe733",
    "fma_small": "ade154f733639d52e35e32f5593efe5be76c6d70",
    "fma_medium": "c67b69ea232021025fca9231fc1c7c1a063ab50b",
    "fma_large": "497109f4dd721066b5ce5e5f250ec604dc78939e",
    "fma_full": "0f0ace23fbe9ba30ecb7e95f763e435ea802b8ab",
}
_COUNTS = {"small": 8_000, "medium": 25_000, "large": 106_574, "full": 106_574}
_WANTED = {
    ("set", "split"): "split",
    ("set", "subset"): "subset",
    ("track", "title"): "title",
    ("track", "genre_top"): "genre",
    ("track", "genres_all"): "genres",
    ("track", "tags"): "tags",
    ("track", "license"): "licence",
    ("artist", "name"): "artist",
    ("artist", "id"): "artist_id",
    ("album", "title"): "album",
    ("album", "id"): "album_id",
}


class FMA(Adapter):
    """The Free Music Archive with its official split.

    Wants ``fma_metadata`` (``tracks.csv``, ``genres.csv``) and the folder of the subset, such as ``fma_small``
    (``000/000002.mp3``).

    Args:
        root: The folder of the copy, in which both lie.
        subset: "small" (8 balanced genres, clips), "medium" (16 genres, clips), "large" (all, clips) or "full" (all,
            whole tracks).
    """

    name = "FMA"
    homepage = "https://github.com/mdeff/fma"
    licence = "CC BY 4.0 (metadata); Creative Commons, a licence for each track"

    def __init__(self, root: str, subset: Subset = "small") -> None:
        super().__init__(root)
        if subset not in get_args(Subset):
            raise ValueError(f"subset must be one of {', '.join(get_args(Subset))}; got {subset!r}")
        self.subset = subset
        self.audio_url = f"{_URL}/fma_{subset}.zip"  # type: ignore[misc]
        self.expected = {"": _COUNTS[subset]}
        if subset == "small":
            self.expected |= {"train": 6_400, "validation": 800, "test": 800}
        lists = [f"fma_metadata/{name}" for name in ("tracks.csv", "genres.csv")]
        archives = ["fma_metadata.zip", f"fma_{subset}.zip"]
        self.parts = (
            *(Part(path, f"{_URL}/fma_metadata.zip") for path in lists),
            *(Part(name, f"{_URL}/{name}", sha1=_SHA1[name.removesuffix(".zip")], needed=False) for name in archives),
        )

    def tracks(self) -> Iterator[Track]:
        """One track for each row of ``tracks.csv`` that is in the subset."""
        sizes = get_args(Subset)
        inside = sizes[: sizes.index(self.subset) + 1]
        genres = {
            row["genre_id"]: row["title"]
            for row in self.rows(self.place("fma_metadata/genres.csv"), ["genre_id", "title"])
        }
        folder = self.place(f"fma_{self.subset}")
        for row in self._rows():
            # "full" holds what the other three do; the column knows three names.
            if self.subset not in ("large", "full") and row["subset"] not in inside:
                continue
            number = f"{int(row['id']):06d}"
            top = row["genre"]
            named = [genres[str(code)] for code in _codes(row["genres"]) if str(code) in genres]
            yield Track(
                id=number,
                path=folder / number[:3] / f"{number}.mp3",
                # Genres are of a taxonomy that was filled in; tags are what somebody felt like adding.
                tags=given(genre=tuple(dict.fromkeys(filter(None, (top, *named)))), tag=_strings(row["tags"])),
                absent={"tag": ()},
                split={"training": "train"}.get(row["split"], row["split"]),
                group=f"artist_{row['artist_id']}" if row["artist_id"] else None,
                source=f"{self.homepage} (track {int(row['id'])})",
                extra=given(genre_top=top, artist_id=row["artist_id"], album_id=row["album_id"], subset=row["subset"]),
                **given(title=row["title"], artist=row["artist"], album=row["album"], licence=row["licence"]),
            )

    def _rows(self) -> Iterator[dict[str, str]]:
        """The wanted columns of ``tracks.csv``, whose header is three rows: group, name, and the name of the index."""
        path = self.place("fma_metadata/tracks.csv")
        try:
            with path.open(newline="", encoding="utf-8") as file:
                reader = csv.reader(file)
                groups, names = next(reader), next(reader)
                if next(reader)[0] != "track_id":
                    raise DataError(f"{path} has not the three header rows of FMA; get it again from {_URL}")
                place = {_WANTED[key]: n for n, key in enumerate(zip(groups, names, strict=True)) if key in _WANTED}
                lost = set(_WANTED.values()) - place.keys()
                if lost:
                    raise DataError(f"{path} has no column for {min(lost)}; get it again from {_URL}")
                for cells in reader:
                    if len(cells) != len(names):
                        raise DataError(f"{path}, line {reader.line_num}: the row is cut short; get the file again")
                    yield {"id": cells[0], **{name: cells[n].strip() for name, n in place.items()}}
        except (csv.Error, UnicodeDecodeError, StopIteration, OSError, ValueError) as error:
            raise DataError(f"{path} is damaged ({error}); get it again from {_URL}") from error


def _codes(text: str) -> list[int]:
    return [int(code) for code in text.strip("[]").split(",") if code.strip().isdecimal()]


def _strings(text: str) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(str(name).strip() for name in ast.literal_eval(text or "[]") if str(name).strip()))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return ()  # a tag with unbalanced quotation marks; the genres are what counts
