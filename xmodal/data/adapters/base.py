"""What every adapter does: read the user's copy of a published data set, check it, and say what is missing.

An adapter is one small module that knows a data set's files: where each comes from, how the lists are written, what the
official split is, and how many tracks there should be. Nothing is downloaded here. A checksum is only in the table
where its publisher or a well-known loader states it; a part without one is checked by its being there and by counting.
"""

from __future__ import annotations

import csv
import hashlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from xmodal.audio import AUDIO_SUFFIXES, find_audio
from xmodal.data.corpus import Corpus, SetAside, TrackSource
from xmodal.data.splits import SPLIT_NAMES
from xmodal.data.tracks import Track
from xmodal.errors import DataError

EXAMPLES = 3
NOT_THERE = "audio file is not there"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Part:
    """A file or folder of a data set's distribution.

    Attributes:
        path: Where it lies under the root; other places where copies have it, further on.
        url: Where it comes from.
        md5: Published checksum of the file.
        sha1: The same, by SHA-1.
        sha256: The same, by SHA-256.
        needed: Whether the tracks can be read without it. An archive that was unpacked need not be there any more; if
            it is there, it is checked.
    """

    path: str
    url: str
    md5: str | None = None
    sha1: str | None = None
    sha256: str | None = None
    needed: bool = True

    @property
    def checksum(self) -> tuple[str, str] | None:
        """The algorithm and the digest."""
        known = {"md5": self.md5, "sha1": self.sha1, "sha256": self.sha256}
        return next(((name, digest) for name, digest in known.items() if digest), None)


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        what: A sentence without its full stop.
        count: How many files or rows it is about.
        examples: Some of them.
        source: Where what is missing comes from.
    """

    what: str
    count: int = 1
    examples: tuple[str, ...] = ()
    source: str = ""


@dataclass(frozen=True)
class CopyReport:
    """What a copy of a data set holds.

    Attributes:
        name: Of the data set.
        homepage: Of the data set.
        licence: What its publishers say about its use.
        root: The copy.
        corpus: The tracks that are there, and those that are not.
        splits: Tracks that are there, by split.
        findings: What is missing or wrong; empty for a whole copy.
    """

    name: str
    homepage: str
    licence: str
    root: Path
    corpus: Corpus
    splits: dict[str, int]
    findings: list[Finding] = field(default_factory=list)


class Adapter(TrackSource):
    """Reads one published data set from the user's copy.

    Args:
        root: The folder of the copy.

    Attributes:
        name: As its publishers write it.
        homepage: Where it is described.
        audio_url: Where its audio comes from.
        licence: What its publishers say about its use.
        parts: The files and folders of the distribution.
        expected: Tracks by split ("" for all) in the published data set, as far as its publishers say it.
        broken: Files that are known to be unusable in every copy, with the reason.
    """

    name: ClassVar[str]
    homepage: ClassVar[str]
    audio_url: ClassVar[str]
    licence: ClassVar[str]
    parts: Sequence[Part] = ()
    expected: Mapping[str, int] = {}
    broken: ClassVar[Mapping[str, str]] = {}

    def __init__(self, root: str) -> None:
        self.root = Path(root).expanduser()

    def __str__(self) -> str:
        return f"{self.name} in {self.root}"

    @abstractmethod
    def tracks(self) -> Iterator[Track]:
        """Every track that the lists of this copy name, whether its audio is there or not, in the lists' order."""

    def read(self) -> Corpus:
        """The tracks whose audio is there; the others are set aside with their reasons.

        Raises:
            DataError: If a list is not there or damaged, or not one audio file is there.
        """
        self._require_lists()
        there: list[Track] = []
        aside: list[SetAside] = []
        seen: set[str] = set()
        for track in self.tracks():
            if track.id in seen:
                raise DataError(
                    f"{self}: the lists name the track {track.id!r} twice; get them again from {self.homepage}"
                )
            seen.add(track.id)
            reason = self._why_not(track)
            if reason is None:
                there.append(track)
            else:
                aside.append(SetAside(track.id, str(track.path), reason))
        if not there:
            example = f", such as {aside[0].path}" if aside else ""
            raise DataError(
                f"{self}: none of the {len(aside)} audio files is there{example}; they come from {self.audio_url}"
            )
        return Corpus(there, aside)

    def check(self, *, checksums: bool = False, progress: Progress | None = None) -> CopyReport:
        """Compare the copy with what was published.

        Args:
            checksums: Hash files whose checksum is published, which reads them whole; lists are always hashed.
            progress: Called with the number of files hashed and to be hashed.

        Raises:
            DataError: If a list is not there, or not one audio file is there.
        """
        corpus = self.read()
        splits = Counter(track.split or "" for track in corpus.tracks)
        findings = [*self._missing(corpus), *self._miscounted(corpus)]
        findings += self._altered(checksums, progress)
        return CopyReport(
            self.name, self.homepage, self.licence, self.root, corpus, dict(sorted(splits.items())), findings
        )

    def checksums_of_audio(self) -> Iterable[tuple[Path, str, str]]:
        """Published checksums of single audio files, as (file, algorithm, digest), from lists that the copy has."""
        return ()

    def _why_not(self, track: Track) -> str | None:
        known = next((why for name, why in self.broken.items() if track.path.as_posix().endswith(name)), None)
        if known is not None:
            return known
        return None if track.path.is_file() else NOT_THERE

    def _require_lists(self) -> None:
        if not self.root.is_dir():
            raise DataError(f"{self.root} is no folder; give the folder of your copy of {self.name} ({self.homepage})")
        lost = [part for part in self.parts if part.needed and not self.place(part.path).exists()]
        if lost:
            named = "; ".join(f"{part.path} comes from {part.url}" for part in lost[:EXAMPLES])
            more = f"; and {len(lost) - EXAMPLES} more" if len(lost) > EXAMPLES else ""
            raise DataError(f"{self.root} is no whole copy of {self.name}: {named}{more}")

    def place(self, path: str) -> Path:
        """Where a part lies; people unpack archives in the root or one folder below it."""
        direct = self.root / path
        if direct.exists():
            return direct
        below = sorted(folder / path for folder in self.root.iterdir() if folder.is_dir() and (folder / path).exists())
        return below[0] if below else direct

    def _missing(self, corpus: Corpus) -> Iterator[Finding]:
        by_reason: dict[str, list[str]] = {}
        for one in corpus.set_aside:
            by_reason.setdefault(one.reason, []).append(one.path)
        for reason, paths in by_reason.items():
            if reason in self.broken.values():
                continue  # so it is in every copy, and nothing can be done about it
            what = "audio files are not there" if reason == NOT_THERE else reason
            yield Finding(what, len(paths), tuple(paths[:EXAMPLES]), self.audio_url)

    def _miscounted(self, corpus: Corpus) -> Iterator[Finding]:
        total = len(corpus.tracks) + len(corpus.set_aside)
        if "" in self.expected and total != self.expected[""]:
            what = f"the lists name {total} tracks, and {self.expected['']} were published"
            yield Finding(what, abs(total - self.expected[""]), (), self.homepage)
        if set(self.expected) - {""}:
            listed: Counter[str] = Counter()
            for track in self.tracks():
                listed[SPLIT_NAMES.get((track.split or "").lower(), track.split or "")] += 1
            for split, count in self.expected.items():
                if split and listed[split] != count:
                    what = f"the lists name {listed[split]} tracks for {split}, and {count} were published"
                    yield Finding(what, abs(listed[split] - count), (), self.homepage)

    def _altered(self, checksums: bool, progress: Progress | None) -> list[Finding]:
        wanted: list[tuple[Path, str, str, str]] = []
        for part in self.parts:
            place = self.place(part.path)
            if part.checksum is not None and place.is_file() and (part.needed or checksums):
                wanted.append((place, *part.checksum, part.url))
        if checksums:
            audio = (
                (path, algorithm, digest) for path, algorithm, digest in self.checksums_of_audio() if path.is_file()
            )
            wanted += [(path, algorithm, digest, self.audio_url) for path, algorithm, digest in audio]
        findings = []
        for done, (path, algorithm, digest, url) in enumerate(wanted, start=1):
            with path.open("rb") as file:
                found = hashlib.file_digest(file, algorithm).hexdigest()
            if found != digest:
                what = f"{path} is not the published file: its {algorithm} is {found} and should be {digest}"
                findings.append(Finding(what, 1, (str(path),), url))
            if progress is not None:
                progress(done, len(wanted))
        return findings

    def rows(
        self,
        path: Path,
        columns: Sequence[str],
        *,
        delimiter: str = ",",
        encoding: str = "utf-8-sig",
    ) -> Iterator[dict[str, str]]:
        """The rows of a list, with the columns that it must have.

        Raises:
            DataError: If the list is damaged or a column is not there.
        """
        try:
            with path.open(newline="", encoding=encoding) as file:
                reader = csv.DictReader(file, delimiter=delimiter, restkey="")
                lost = [column for column in columns if column not in (reader.fieldnames or ())]
                if lost:
                    raise DataError(f"{path} has no column {lost[0]!r}; get it again from {self.homepage}")
                for row in reader:
                    if None in row.values():  # fewer cells than the header has
                        raise DataError(f"{path}, line {reader.line_num}: the row is cut short; get the file again")
                    yield row
        except (csv.Error, UnicodeDecodeError, OSError) as error:
            raise DataError(f"{path} is damaged ({error}); get it again from {self.homepage}") from error

    def audio_by_stem(self, folder: Path) -> dict[str, Path]:
        """The audio files of a folder by their names without suffix; nothing if the folder is not there."""
        return {path.stem: path for path in find_audio(folder)} if folder.is_dir() else {}

    def with_any_suffix(self, path: Path) -> Path:
        """The file, or one of the same name with another suffix of audio, as converted copies have it."""
        if path.is_file() or not path.parent.is_dir():
            return path
        others = [path.with_suffix(suffix) for suffix in sorted(AUDIO_SUFFIXES)]
        return next((other for other in others if other.is_file()), path)


def given(**fields: Any) -> dict[str, Any]:
    """The fields that have a value."""
    return {name: value for name, value in fields.items() if value not in (None, "", (), [], {})}
