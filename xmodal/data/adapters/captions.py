"""Data sets of captions: MusicCaps, Song Describer, AudioCaps and Clotho."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from xmodal.data.adapters.base import Adapter, Part, given
from xmodal.data.tracks import Caption, Track
from xmodal.errors import DataError


class MusicCaps(Adapter):
    """MusicCaps: 10-second clips of AudioSet, described by musicians (Agostinelli et al., 2023).

    Wants ``musiccaps-public.csv``, and the audio that the user has under the names that downloaders give it:
    ``<ytid>.wav``, ``[<ytid>]-[<start>-<end>].wav``, ``<ytid>_<start>_<end>.wav``, with any suffix, in any folder of
    the root. The part of AudioSet that a clip is from is its split: evaluation is test.

    Args:
        root: The folder of the copy.
        whole_videos: The files are whole videos, and the clip is the part from ``start_s`` to ``end_s``; otherwise they
            are the clips.
    """

    name = "MusicCaps"
    homepage = "https://huggingface.co/datasets/google/MusicCaps"
    audio_url = "https://www.youtube.com (the videos named in musiccaps-public.csv, as far as they are still there)"
    licence = "CC BY-SA 4.0 (captions)"
    parts = (Part("musiccaps-public.csv", f"{homepage}/resolve/main/musiccaps-public.csv"),)
    expected = {"": 5_521, "train": 2_663, "test": 2_858}

    def __init__(self, root: str, whole_videos: bool = False) -> None:
        super().__init__(root)
        self.whole_videos = whole_videos

    def tracks(self) -> Iterator[Track]:
        """One track for each row of the list; its aspects are what it was heard to have, others are unknown."""
        found = self.audio_by_stem(self.root)
        columns = ["ytid", "start_s", "end_s", "aspect_list", "caption", "is_audioset_eval"]
        path = self.place("musiccaps-public.csv")
        for row in self.rows(path, columns):
            name, start, end = row["ytid"], float(row["start_s"]), float(row["end_s"])
            file = _file_of(found, name, start, end) or self.root / "audio" / f"{name}.wav"
            part: dict[str, Any] = {"start_seconds": start, "end_seconds": end} if self.whole_videos else {}
            yield Track(
                id=name,
                path=file,
                captions=(Caption(row["caption"]),),
                tags={"aspect": _python_list(path, row["aspect_list"])},
                absent={"aspect": ()},  # an aspect that nobody wrote down may fit all the same
                split="test" if row["is_audioset_eval"] == "True" else "train",
                licence=self.licence,
                source=f"https://www.youtube.com/watch?v={name}",
                extra=given(
                    audioset=row.get("audioset_positive_labels"),
                    author=row.get("author_id"),
                    balanced=row.get("is_balanced_subset") == "True",
                ),
                **part,
            )


class SongDescriber(Adapter):
    """The Song Describer Dataset: 1,106 captions of 706 tracks, to evaluate by (Manco et al., 2023).

    Wants ``song_describer.csv`` and the two-minute clips of ``audio.zip`` (``47/1004047.2min.mp3``). All tracks are
    test: the data set has no other part.

    Args:
        root: The folder of the copy.
        subset: "all" captions, or the "valid" ones, which its makers reviewed.
    """

    name = "Song Describer"
    homepage = "https://zenodo.org/records/10072001"
    audio_url = f"{homepage}/files/audio.zip"
    licence = "CC BY-SA 4.0 (captions); Creative Commons, a licence for each track"
    parts = (Part("song_describer.csv", f"{homepage}/files/song_describer.csv"),)

    def __init__(self, root: str, subset: Literal["all", "valid"] = "all") -> None:
        super().__init__(root)
        if subset not in ("all", "valid"):
            raise ValueError(f"subset must be 'all' or 'valid', got {subset!r}")
        self.subset = subset
        self.expected = {"": 706} if subset == "all" else {}

    def tracks(self) -> Iterator[Track]:
        """One track for each recording, with all of its captions."""
        columns = ["caption_id", "track_id", "caption", "is_valid_subset", "artist_id", "album_id", "path", "duration"]
        by_track: dict[str, list[dict[str, str]]] = {}
        for row in self.rows(self.place("song_describer.csv"), columns):
            if self.subset == "all" or row["is_valid_subset"] == "True":
                by_track.setdefault(row["track_id"], []).append(row)
        for name, rows in by_track.items():
            path = rows[0]["path"].removesuffix(".mp3")
            yield Track(
                id=name,
                path=self._file(path),
                captions=tuple(Caption(row["caption"]) for row in rows),
                split="test",
                group=f"artist_{rows[0]['artist_id']}",
                licence=self.licence,
                source=f"https://www.jamendo.com/track/{name}",
                extra={"artist_id": rows[0]["artist_id"], "album_id": rows[0]["album_id"]},
            )

    def _file(self, path: str) -> Path:
        folders = (self.root, self.root / "audio", self.root / "audio" / "audio")
        names = [folder / f"{path}{ending}" for folder in folders for ending in (".2min.mp3", ".mp3")]
        return next((file for file in names if file.is_file()), names[2])


class AudioCaps(Adapter):
    """AudioCaps: 10-second clips of AudioSet with captions (Kim et al., NAACL 2019).

    Wants ``train.csv``, ``val.csv`` and ``test.csv``, and the audio that the user has: ``<youtube_id>_<start>.wav``,
    ``<youtube_id>.wav``, ``Y<youtube_id>.wav`` or ``<audiocap_id>.wav``, with any suffix, in any folder of the root.

    Args:
        root: The folder of the copy.
        version: "1.0" (2019) or "2.0" (2025); they share validation and test.
        whole_videos: The files are whole videos, and a clip is the ten seconds from ``start_time`` on.
    """

    name = "AudioCaps"
    homepage = "https://github.com/cdjkim/audiocaps"
    audio_url = "https://www.youtube.com (the videos named in the lists, as far as they are still there)"
    licence = "MIT (captions)"

    def __init__(self, root: str, version: Literal["1.0", "2.0"] = "1.0", whole_videos: bool = False) -> None:
        super().__init__(root)
        if version not in ("1.0", "2.0"):
            raise ValueError(f"version must be '1.0' or '2.0', got {version!r}")
        self.version = version
        self.whole_videos = whole_videos
        folder = "dataset" if version == "1.0" else "dataset2.0"
        url = f"{self.homepage}/tree/master/{folder}"
        self.parts = tuple(Part(name, f"{url}/{name}") for name in ("train.csv", "val.csv", "test.csv"))
        if version == "1.0":  # one row a clip in train, five in the other lists
            self.expected = {"train": 49_838, "validation": 495, "test": 975}

    def tracks(self) -> Iterator[Track]:
        """One track for each clip, with all of its captions."""
        found = self.audio_by_stem(self.root)
        columns = ["audiocap_id", "youtube_id", "start_time", "caption"]
        for split in ("train", "val", "test"):
            clips: dict[tuple[str, str], list[dict[str, str]]] = {}
            for row in self.rows(self.place(f"{split}.csv"), columns):
                clips.setdefault((row["youtube_id"], row["start_time"]), []).append(row)
            for (video, start_time), rows in clips.items():
                start = float(start_time)
                file = _file_of(found, video, start, start + 10)
                file = file or next((found[row["audiocap_id"]] for row in rows if row["audiocap_id"] in found), None)
                part: dict[str, Any] = {"start_seconds": start, "end_seconds": start + 10} if self.whole_videos else {}
                yield Track(
                    id=f"{split}/{video}_{start_time}",
                    path=file or self.root / "audio" / f"{video}_{start_time}.wav",
                    captions=tuple(Caption(row["caption"]) for row in rows if row["caption"].strip()),
                    split=split,
                    group=video,
                    licence=self.licence,
                    source=f"https://www.youtube.com/watch?v={video}",
                    extra={"audiocap_ids": [row["audiocap_id"] for row in rows]},
                    **part,
                )


_CLOTHO = {
    "development": (
        3_839,
        "c8b05bc7acdb13895bb3c6a29608667e",
        "d4090b39ce9f2491908eebf4d5b09bae",
        "170d20935ecfdf161ce1bb154118cda5",
    ),
    "validation": (
        1_045,
        "7dba730be08bada48bd15dc4e668df59",
        "5879e023032b22a2c930aaa0528bead4",
        "2e010427c56b1ce6008b0f03f41048ce",
    ),
    "evaluation": (
        1_045,
        "4569624ccadf96223f19cb59fe4f849f",
        "1b16b9e57cf7bdb7f13a13802aeb57e2",
        "13946f054d4e1bf48079813aac61bf77",
    ),
}
"""By part of Clotho 2.1: the number of clips, and MD5 of the audio's archive, the captions and the metadata."""


_CLOTHO_URL = "https://zenodo.org/records/4783391"


def _clotho_parts() -> tuple[Part, ...]:
    parts: list[Part] = []
    for name, (_, *digests) in _CLOTHO.items():
        for kind, ending, needed in (("audio", "7z", False), ("captions", "csv", True), ("metadata", "csv", False)):
            file = f"clotho_{kind}_{name}.{ending}"
            parts.append(Part(file, f"{_CLOTHO_URL}/files/{file}", md5=digests[len(parts) % 3], needed=needed))
    return tuple(parts)


class Clotho(Adapter):
    """Clotho 2.1: field recordings with five captions each (Drossos et al., ICASSP 2020).

    Wants ``clotho_captions_*.csv``, ``clotho_metadata_*.csv`` and the unpacked ``clotho_audio_*.7z`` (folders
    ``development``, ``validation``, ``evaluation``), which are train, validation and test.

    Args:
        root: The folder of the copy.
    """

    name = "Clotho"
    homepage = _CLOTHO_URL
    audio_url = f"{homepage}/files/clotho_audio_development.7z (and validation, evaluation)"
    licence = "Tampere University, non-commercial (captions); Creative Commons, a licence for each recording"
    parts = _clotho_parts()
    expected = {"train": 3_839, "validation": 1_045, "test": 1_045}

    def tracks(self) -> Iterator[Track]:
        """One track for each row of the three lists of captions."""
        for part, split in (("development", "train"), ("validation", "validation"), ("evaluation", "test")):
            metadata = self.place(f"clotho_metadata_{part}.csv")
            facts: dict[str, dict[str, str]] = {}
            if metadata.is_file():  # Latin-1: names of recordings are as their makers wrote them
                facts = {row["file_name"]: row for row in self.rows(metadata, ["file_name"], encoding="latin-1")}
            folder = self.place(part)
            columns = ["file_name", *(f"caption_{number}" for number in range(1, 6))]
            for row in self.rows(self.place(f"clotho_captions_{part}.csv"), columns):
                known = facts.get(row["file_name"], {})
                keywords = tuple(filter(None, (word.strip() for word in (known.get("keywords") or "").split(";"))))
                yield Track(
                    id=f"{part}/{row['file_name']}",
                    path=folder / row["file_name"],
                    captions=tuple(Caption(row[column]) for column in columns[1:]),
                    tags={"keyword": keywords},
                    absent={"keyword": ()} if keywords else {},  # of Freesound's uploaders, who did not look for all
                    split=split,
                    **given(
                        group=_number(known.get("sound_id")),
                        artist=known.get("manufacturer"),
                        licence=known.get("license") or self.licence,
                        source=known.get("sound_link") or self.homepage,
                    ),
                )


def _number(text: str | None) -> str | None:
    """The number of a recording; where it is not known, the list says so in words."""
    return text if text and text.isdecimal() else None


def _file_of(found: dict[str, Path], video: str, start: float, end: float) -> Path | None:
    """The file of a clip under one of the names that downloaders give it."""
    first, last = int(start), int(end)
    names = (
        f"{video}_{first}",
        f"{video}_{first}_{last}",
        f"{video}_{1000 * first}_{1000 * last}",
        f"[{video}]-[{first}-{last}]",
        f"{video}-[{first}-{last}]",
        video,
        f"Y{video}",
    )
    return next((found[name] for name in names if name in found), None)


def _python_list(path: Path, text: str) -> tuple[str, ...]:
    """The names in a list that is written as Python writes it."""
    try:
        names = ast.literal_eval(text)
        return tuple(dict.fromkeys(name.strip() for name in names if name.strip()))
    except (ValueError, SyntaxError, TypeError, AttributeError, MemoryError, RecursionError) as error:
        raise DataError(f"{path}: {text[:60]!r} is no list of aspects ({error}); get the file again") from error
