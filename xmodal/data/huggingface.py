"""Data sets that Hugging Face ``datasets`` saved to disk (``save_to_disk``), decoded by xmodal and not by ``datasets``.

This is the only module that imports ``datasets``, which the extra ``xmodal[datasets]`` installs.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xmodal.audio import AudioInfo, StoredAudio
from xmodal.data.tables import Row, Table
from xmodal.errors import AudioError, DataError


@dataclass(frozen=True)
class DatasetAudio(StoredAudio):
    """An audio file's bytes in a row of a data set on disk.

    Args:
        folder: Where the data set, or one split of it, was saved.
        column: Its column of audio.
        row: From 0.
    """

    folder: str
    column: str
    row: int
    info: AudioInfo | None = field(default=None, compare=False)

    @property
    def name(self) -> str:  # type: ignore[override]
        """The folder and the row."""
        return f"{self.folder}/row {self.row}"

    def read(self) -> bytes:
        """The bytes, from a memory map.

        Raises:
            AudioError: If the data set cannot be read any more.
        """
        try:
            content = _audio_column(self.folder, self.column)[self.row].as_py()["bytes"]
        except Exception as error:  # pyarrow, the library and the file system have errors of their own
            raise AudioError(self.name, f"cannot be read ({error}); save the data set again") from error
        return bytes(content)


def is_saved_dataset(source: str | os.PathLike[str]) -> bool:
    """Whether a folder is what ``save_to_disk`` writes."""
    folder = Path(source)
    return (folder / "dataset_dict.json").is_file() or all(
        (folder / name).is_file() for name in ("state.json", "dataset_info.json")
    )


def read_saved_dataset(folder: Path) -> Table:
    """The rows of a data set on disk; a data set of several splits gives the rows of all, each with its split.

    Raises:
        DataError: If the library is not installed, the folder is damaged, or no column holds audio.
    """
    splits: dict[str | None, Path] = {None: folder}
    if (folder / "dataset_dict.json").is_file():
        try:
            names = json.loads((folder / "dataset_dict.json").read_text("utf-8"))["splits"]
            splits = {str(name): folder / str(name) for name in names}
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{folder}/dataset_dict.json is damaged ({error}); save the data set again") from error
    rows = [row for split, place in splits.items() for row in _rows(os.path.abspath(place), split)]
    if not rows:
        raise DataError(f"{folder} has no rows; a data set needs at least one track")
    return Table(folder, tuple(dict.fromkeys(name for row in rows for name in row.cells)), tuple(rows))


def _rows(folder: str, split: str | None) -> Iterator[Row]:
    import pyarrow.compute
    from datasets import ClassLabel, Sequence

    dataset = _load(folder)
    column = _audio_name(dataset, folder)
    held = _audio_column(folder, column)
    has_bytes = pyarrow.compute.is_valid(pyarrow.compute.struct_field(held, "bytes")).to_pylist()
    paths = (
        pyarrow.compute.struct_field(held, "path").to_pylist()
        if held.type.get_field_index("path") >= 0
        else [None] * len(has_bytes)
    )
    names_of = {}
    for name, feature in dataset.features.items():
        inner = feature.feature if isinstance(feature, Sequence) else feature
        if isinstance(inner, ClassLabel):
            names_of[name] = inner.names
    where = "" if split is None else f"{split} "
    for number, cells in enumerate(dataset.remove_columns([column])):
        cells = json.loads(json.dumps(cells, default=str), parse_constant=lambda _: None)
        for name, names in names_of.items():
            cells[name] = _label(cells[name], names)
        if split is not None:
            cells.setdefault("split", split)
        cells["path"] = DatasetAudio(folder, column, number) if has_bytes[number] else paths[number]
        if "id" not in cells:  # the path that is kept beside the bytes need not be there, nor be unique
            cells["id"] = f"{where}row {number}".replace(" ", "-")
        yield Row(f"{where}row {number}", cells)


def _label(value: Any, names: list[str]) -> Any:
    """The name of a class; -1 is how the library writes that there is none."""
    if isinstance(value, list):
        return [_label(item, names) for item in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else None


def _audio_name(dataset: Any, folder: str) -> str:
    from datasets import Audio

    found = [name for name, feature in dataset.features.items() if isinstance(feature, Audio)]
    if len(found) != 1:
        raise DataError(
            f"{folder} must have one column of audio, got {len(found)} among: {', '.join(dataset.features)}; cast one "
            "with dataset.cast_column(name, datasets.Audio(decode=False)) and save it again"
        )
    return str(found[0])


@functools.lru_cache(maxsize=32)
def _audio_column(folder: str, column: str) -> Any:
    """The audio of a data set as an Arrow column in a memory map."""
    return _load(folder).data.column(column)


@functools.lru_cache(maxsize=32)
def _load(folder: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"{folder} was saved by the library datasets, which is not installed; install it with: "
            "pip install 'xmodal[datasets]'"
        ) from error
    try:
        dataset = datasets.load_from_disk(folder)
        name = _audio_name(dataset, folder)
        # Decoding is ours; with it on, the library needs a decoder of its own just to list the rows.
        return dataset.cast_column(name, datasets.Audio(decode=False))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} cannot be read as a saved data set ({error}); save it again") from error
