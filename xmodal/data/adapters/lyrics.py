"""Songs with timed lyrics: DALI and JamendoLyrics, and other annotations written like theirs."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from xmodal.data.adapters.base import Adapter, Part, given
from xmodal.data.adapters.pickles import read_plain_pickle
from xmodal.data.lyrics import LyricLine, LyricWord
from xmodal.data.tracks import Track
from xmodal.errors import DataError


class DALI(Adapter):
    """DALI: songs with lyrics and notes, aligned by line and word (Meseguer-Brocal et al., ISMIR 2018, TISMIR 2020).

    Wants the annotations, one file a song: ``<id>.gz`` as they are distributed, or ``<id>.json`` as DALI's
    ``write_json`` writes them, "horizontal" or "vertical"; and the audio as ``<id>.mp3`` (any suffix), beside them or
    in ``audio``. A ``.gz`` holds a pickle, which is never unpickled: its data are read without running it. There is no
    official split.

    Args:
        root: The folder of the annotations.
        audio: Folder of the audio; None for the root and ``audio`` below it.
        minimum_score: Leave out songs whose alignment scored lower (NCC, from 0 to 1).
    """

    name = "DALI"
    homepage = "https://github.com/gabolsgabs/DALI"
    audio_url = "https://www.youtube.com (by DALI's own get_audio, as far as the videos are still there)"
    licence = "CC BY-NC-SA 4.0 (annotations)"

    def __init__(self, root: str, audio: str | None = None, minimum_score: float = 0.0) -> None:
        super().__init__(root)
        if not 0 <= minimum_score <= 1:
            raise ValueError(f"minimum_score is a correlation, from 0 to 1; got {minimum_score}")
        self.audio = None if audio is None else Path(audio).expanduser()
        self.minimum_score = minimum_score

    def tracks(self) -> Iterator[Track]:
        """One track for each annotation file, in the order of the ids."""
        found = self.audio_by_stem(self.root) if self.audio is None else self.audio_by_stem(self.audio)
        files = sorted({path.stem: path for ending in ("gz", "json") for path in self.root.glob(f"*.{ending}")}.items())
        if not files:
            raise DataError(f"{self.root} holds no annotations (<id>.gz or <id>.json); they come from {self.homepage}")
        for name, path in files:
            entry = _dali_entry(path)
            try:
                info, annotations = entry["info"], entry["annotations"]
                score = float(info.get("scores", {}).get("NCC", 1.0))
                lines = _dali_lines(annotations)
            except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                raise DataError(f"{path} is not written like a DALI annotation ({error!r}); get it again") from error
            if score < self.minimum_score:
                continue
            metadata = info.get("metadata") or {}
            song = str(info.get("id") or name)
            yield Track(
                id=song,
                path=found.get(song) or found.get(name) or (self.audio or self.root / "audio") / f"{song}.mp3",
                timed_lyrics=lines,
                tags=given(genre=tuple(dict.fromkeys(filter(None, map(_known, metadata.get("genres") or ()))))),
                absent={"genre": ()},
                licence=self.licence,
                extra=given(
                    language=_known(metadata.get("language")), score=score, year=_known(metadata.get("release_date"))
                ),
                **given(
                    title=_known(info.get("title")),
                    artist=_known(info.get("artist")),
                    album=_known(metadata.get("album")),
                    source=_video(info),
                ),
            )


class JamendoLyrics(Adapter):
    """JamendoLyrics: songs in four languages with lyrics aligned by line and word, to evaluate by.

    Wants ``JamendoLyrics.csv``, ``mp3/<name>.mp3``, ``lyrics/<name>.words.txt`` and ``annotations/words/<name>.csv``
    (``word_start,word_end,line_end``), or ``annotations/lines/<name>.csv`` (``start_time,end_time,lyrics_line``). All
    songs are test. Stoller et al., ICASSP 2019.

    Args:
        root: The folder of the copy (of its repository).
        language: Only songs of one language, such as "English"; None for all.
    """

    name = "JamendoLyrics"
    homepage = "https://github.com/f90/jamendolyrics"
    audio_url = f"{homepage}/tree/master/mp3"
    licence = "Creative Commons, a licence for each song"
    parts = (Part("JamendoLyrics.csv", f"{homepage}/blob/master/JamendoLyrics.csv"),)

    def __init__(self, root: str, language: str | None = None) -> None:
        super().__init__(root)
        self.language = language
        self.expected = {"": 79} if language is None else {}

    def tracks(self) -> Iterator[Track]:
        """One track for each row of ``JamendoLyrics.csv``."""
        listed = self.place("JamendoLyrics.csv")
        home = listed.parent
        any_row = False
        for row in self.rows(listed, ["URL", "Filepath", "Artist", "Title", "Language"]):
            if self.language is not None and row["Language"].lower() != self.language.lower():
                continue
            any_row = True
            name = row["Filepath"].removesuffix(".mp3")
            licence = " ".join((row.get("LicenseType") or "").split())
            yield Track(
                id=name,
                path=self.with_any_suffix(home / "mp3" / row["Filepath"]),
                timed_lyrics=self._lines(home, name),
                tags=given(genre=tuple(filter(None, [row.get("Genre")]))),
                split="test",
                extra={"language": row["Language"]},
                **given(
                    title=row["Title"],
                    artist=row["Artist"],
                    licence=f"CC {licence.removeprefix('CC').strip()}" if licence else None,
                    source=row["URL"],
                ),
            )
        if not any_row:
            raise DataError(
                f"{listed} has no song in {self.language!r}; its languages are English, French, German, Spanish"
            )

    def _lines(self, home: Path, name: str) -> tuple[LyricLine, ...]:
        words_file, times_file = home / "lyrics" / f"{name}.words.txt", home / "annotations" / "words" / f"{name}.csv"
        lines_file = home / "annotations" / "lines" / f"{name}.csv"
        if words_file.is_file() and times_file.is_file():
            return self._from_words(words_file, times_file)
        if lines_file.is_file():
            rows = self.rows(lines_file, ["start_time", "end_time", "lyrics_line"])
            try:
                return tuple(
                    LyricLine(row["lyrics_line"], float(row["start_time"]), float(row["end_time"]))
                    for row in rows
                    if row["lyrics_line"].strip()
                )
            except ValueError as error:
                raise DataError(f"{lines_file} is damaged ({error}); get it again from {self.homepage}") from error
        raise DataError(f"{times_file} is not there, nor {lines_file}; they come from {self.homepage}")

    def _from_words(self, words_file: Path, times_file: Path) -> tuple[LyricLine, ...]:
        """Lines of words; a line ends with the word that has a ``line_end``."""
        words = words_file.read_text("utf-8").split()
        times = list(self.rows(times_file, ["word_start", "word_end", "line_end"]))
        if len(words) != len(times):
            raise DataError(
                f"{times_file} has {len(times)} times for the {len(words)} words of {words_file}; get both again from "
                f"{self.homepage}"
            )
        lines: list[LyricLine] = []
        current: list[LyricWord] = []
        for word, row in zip(words, times, strict=True):
            try:
                start, end, line_end = (float(row[name] or "nan") for name in ("word_start", "word_end", "line_end"))
                current.append(LyricWord(word, start, None if math.isnan(end) else end))
                if not math.isnan(line_end):
                    lines.append(_line_of(current, line_end))
                    current = []
            except ValueError as error:
                raise DataError(f"{times_file} is damaged ({error}); get it again from {self.homepage}") from error
        if current:
            lines.append(_line_of(current, None))
        return tuple(lines)


def _line_of(words: Sequence[LyricWord], end: float | None) -> LyricLine:
    return LyricLine(" ".join(word.text for word in words), words[0].start_seconds, end, tuple(words))


def _dali_entry(path: Path) -> Mapping[str, Any]:
    try:
        if path.suffix == ".json":
            entry = json.loads(path.read_text("utf-8"))
        else:
            with gzip.open(path, "rb") as file:
                entry = read_plain_pickle(file.read())
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read ({error}); get it again") from error
    if not isinstance(entry, Mapping):
        raise DataError(f"{path} is not written like a DALI annotation; get it again")
    return entry


def _dali_lines(annotations: Mapping[str, Any]) -> tuple[LyricLine, ...]:
    """Lines with their words, from either way in which DALI writes them."""
    annot = annotations["annot"]
    if annotations.get("type") == "vertical":
        paragraphs = annot["hierarchical"]
        lines = [line for paragraph in paragraphs for line in paragraph["text"]]
        return tuple(_dali_line(line, line["text"]) for line in lines)
    # "index" of a word is the number of its line.
    words: dict[int, list[Mapping[str, Any]]] = {}
    for word in annot["words"]:
        words.setdefault(int(word["index"]), []).append(word)
    return tuple(_dali_line(line, words.get(number, [])) for number, line in enumerate(annot["lines"]))


def _dali_line(line: Mapping[str, Any], words: Sequence[Mapping[str, Any]]) -> LyricLine:
    sung = tuple(LyricWord(_text(word), *_times(word)) for word in words if _text(word))
    text = line["text"] if isinstance(line["text"], str) else " ".join(word.text for word in sung)
    return LyricLine(text, *_times(line), sung)


def _text(item: Mapping[str, Any]) -> str:
    """The text of a word: its own, or that of its notes joined."""
    text = item["text"]
    return (text if isinstance(text, str) else "".join(str(note["text"]) for note in text)).strip()


def _times(item: Mapping[str, Any]) -> tuple[float, float]:
    # An alignment may put the first syllable a little before the audio begins.
    start, end = (max(0.0, float(seconds)) for seconds in item["time"])
    return start, max(start, end)


def _known(value: Any) -> str | None:
    """A text, None for how DALI writes that there is none."""
    return None if value in (None, "", "None", "none", "unknown") else str(value)


def _video(info: Mapping[str, Any]) -> str | None:
    url = _known((info.get("audio") or {}).get("url"))
    return url if url is None or "/" in url else f"https://www.youtube.com/watch?v={url}"
