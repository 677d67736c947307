"""Sounds and notes: ESC-50, NSynth and OpenMIC-2018."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from xmodal.data.adapters.base import Adapter, Part, given
from xmodal.data.tracks import Track
from xmodal.errors import DataError

_QUALITIES = (
    *("bright", "dark", "distortion", "fast decay", "long release", "multiphonic", "nonlinear env", "percussive"),
    *("reverb", "tempo-synced"),
)


class ESC50(Adapter):
    """ESC-50: 2,000 environmental sounds of 50 classes in five official folds (Piczak, ACM MM 2015).

    Wants ``meta/esc50.csv`` and ``audio/1-100032-A-0.wav``. There is no official split but the folds: use
    ``data.fold_field: fold`` and report the mean over the five.

    Args:
        root: The folder of the copy (of its repository).
        esc10: Only the 400 clips of ESC-10, which are CC BY.
    """

    name = "ESC-50"
    homepage = "https://github.com/karolpiczak/ESC-50"
    audio_url = f"{homepage}/archive/master.zip"
    licence = "CC BY-NC 4.0 (ESC-10: CC BY 4.0)"
    parts = (Part("meta/esc50.csv", f"{homepage}/blob/master/meta/esc50.csv"),)

    def __init__(self, root: str, esc10: bool = False) -> None:
        super().__init__(root)
        self.esc10 = esc10
        self.expected = {"": 400 if esc10 else 2_000}

    def tracks(self) -> Iterator[Track]:
        """One track for each row of ``esc50.csv``; clips of one recording on Freesound are a group."""
        folder = self.place("audio")
        columns = ["filename", "fold", "target", "category", "esc10", "src_file", "take"]
        for row in self.rows(self.place("meta/esc50.csv"), columns):
            in_esc10 = row["esc10"] == "True"
            if self.esc10 and not in_esc10:
                continue
            yield Track(
                id=row["filename"].rpartition(".")[0],
                path=self.with_any_suffix(folder / row["filename"]),
                tags={"sound": (row["category"].replace("_", " "),)},
                group=f"freesound_{row['src_file']}",
                licence="CC BY 4.0" if in_esc10 else "CC BY-NC 4.0",
                source=f"https://freesound.org/s/{row['src_file']}",
                extra={"fold": int(row["fold"]), "target": int(row["target"]), "take": row["take"], "esc10": in_esc10},
            )


class NSynth(Adapter):
    """NSynth: 305,979 single notes of synthesised and recorded instruments (Engel et al., ICML 2017).

    Wants ``nsynth-train``, ``nsynth-valid`` and ``nsynth-test``, each with ``examples.json`` and ``audio``. A copy may
    have only some of the three. No instrument of train is in the others.

    Args:
        root: The folder of the copy.
    """

    name = "NSynth"
    homepage = "https://magenta.tensorflow.org/datasets/nsynth"
    audio_url = "http://download.magenta.tensorflow.org/datasets/nsynth/nsynth-train.jsonwav.tar.gz (and valid, test)"
    licence = "CC BY 4.0"
    _counts = {"train": 289_205, "valid": 12_678, "test": 4_096}

    def __init__(self, root: str) -> None:
        super().__init__(root)
        there = [split for split in self._counts if self.root.is_dir() and self.place(f"nsynth-{split}").is_dir()]
        self.splits = there or list(self._counts)
        self.parts = tuple(
            Part(f"nsynth-{split}/examples.json", self.audio_url.replace("train", split, 1).partition(" ")[0])
            for split in self.splits
        )
        self.expected = {("validation" if name == "valid" else name): self._counts[name] for name in self.splits}

    def tracks(self) -> Iterator[Track]:
        """One track for each note; the qualities that were judged of every note are present or absent."""
        for split in self.splits:
            path = self.place(f"nsynth-{split}/examples.json")
            for name, note in _json_object(path).items():
                try:
                    family = str(note["instrument_family_str"])
                    qualities = [str(quality).replace("_", " ") for quality in note["qualities_str"]]
                    yield Track(
                        id=name,
                        path=path.parent / "audio" / f"{name}.wav",
                        tags=given(
                            instrument=(family.replace("_", " "),),
                            source=(str(note["instrument_source_str"]),),
                            quality=tuple(qualities),
                        ),
                        # Each note was judged for all ten, so that a note without any says that all are absent.
                        absent={"quality": tuple(name for name in _QUALITIES if name not in qualities)},
                        split=split,
                        group=str(note["instrument_str"]),
                        licence=self.licence,
                        source=self.homepage,
                        extra={"pitch": int(note["pitch"]), "velocity": int(note["velocity"])},
                    )
                except (KeyError, TypeError, ValueError) as error:
                    raise DataError(f"{path}: the note {name!r} has no {error}; get the file again") from error


class OpenMIC2018(Adapter):
    """OpenMIC-2018: 20,000 ten-second clips of FMA, each judged for a few of 20 instruments.

    Humphrey et al., ISMIR 2018.

    Wants ``openmic-2018-aggregated-labels.csv``, ``openmic-2018-metadata.csv``, ``partitions/split01_train.csv`` and
    ``split01_test.csv``, and ``audio/000/000046_3840.ogg``. A relevance of at least ``threshold`` is present, a lower
    one absent; what nobody judged is unknown.

    Args:
        root: The folder of the copy (``openmic-2018``).
        threshold: Relevance from which an instrument counts as heard, in [0, 1].
    """

    name = "OpenMIC-2018"
    homepage = "https://zenodo.org/records/1432913"
    audio_url = f"{homepage}/files/openmic-2018-v1.0.0.tgz"
    licence = "CC BY 4.0 (labels); Creative Commons, a licence for each clip"
    parts = (
        Part("openmic-2018-aggregated-labels.csv", audio_url),
        Part("openmic-2018-metadata.csv", audio_url),
        Part("partitions/split01_train.csv", audio_url),
        Part("partitions/split01_test.csv", audio_url),
        Part("openmic-2018-v1.0.0.tgz", audio_url, md5="e4ccf187e2bb5ab2e115416e8aafe7f4", needed=False),
    )
    expected = {"train": 14_915, "test": 5_085}

    def __init__(self, root: str, threshold: float = 0.5) -> None:
        super().__init__(root)
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold is a relevance, from 0 to 1; got {threshold}")
        self.threshold = threshold

    def tracks(self) -> Iterator[Track]:
        """One track for each clip of the official partition."""
        present: dict[str, list[str]] = {}
        absent: dict[str, list[str]] = {}
        labels = self.place("openmic-2018-aggregated-labels.csv")
        for row in self.rows(labels, ["sample_key", "instrument", "relevance"]):
            side = present if float(row["relevance"]) >= self.threshold else absent
            side.setdefault(row["sample_key"], []).append(row["instrument"].replace("_", " "))
        facts = {row["sample_key"]: row for row in self.rows(self.place("openmic-2018-metadata.csv"), ["sample_key"])}
        folder = self.place("audio")
        for split in ("train", "test"):
            listed = self.place(f"partitions/split01_{split}.csv").read_text("utf-8").split()
            for name in listed:
                if name == "sample_key":
                    continue
                row = facts.get(name, {})
                yield Track(
                    id=name,
                    path=self.with_any_suffix(folder / name[:3] / f"{name}.ogg"),
                    tags=given(instrument=tuple(present.get(name, ()))),
                    absent={
                        "instrument": tuple(one for one in absent.get(name, ()) if one not in present.get(name, ()))
                    },
                    split=split,
                    group=f"artist_{row['artist_id']}" if row.get("artist_id") else name.partition("_")[0],
                    **given(
                        title=row.get("track_title"),
                        artist=row.get("artist_name"),
                        album=row.get("album_title"),
                        licence=row.get("license_title") or self.licence,
                        source=row.get("track_url") or self.homepage,
                        extra=given(track_id=row.get("track_id"), start=row.get("start_time")),
                    ),
                )


def _json_object(path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise DataError(f"{path} is damaged ({error}); get it again") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} must be one JSON object; get it again")
    return value
