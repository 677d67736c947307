"""Manifests: which audio files there are, and what is known about them.

Conventions
-----------
A manifest is a folder of audio, or a table with one track a row: CSV, TSV, JSON lines or Parquet. A column is found
by any of its names in :data:`COLUMNS`, in any letter case; the first name there is wins, and what no field takes is
kept in ``Track.extra``. ``docs/data.md`` describes the format for users.
"""

from __future__ import annotations

import json
import logging
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from xmodal.audio import AUDIO_SUFFIXES, find_audio
from xmodal.data.splits import SPLIT_NAMES
from xmodal.data.tables import Table, json_list, parse_cell, parse_names, parse_seconds, parse_text, read_table
from xmodal.data.tracks import Caption, Track
from xmodal.errors import DataError
from xmodal.text import captions_from_tags

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "path": ("path", "file", "filename", "audio"),
    "captions": ("captions", "caption", "text", "description"),
    "tags": ("tags", "tag", "labels"),
    "id": ("id",),
    "split": ("split", "subset"),
    "group": ("group",),
    "title": ("title",),
    "artist": ("artist",),
    "album": ("album",),
    "lyrics": ("lyrics",),
    "start_seconds": ("start_seconds", "start"),
    "end_seconds": ("end_seconds", "end"),
}
"""The names of the columns, by field of :class:`Track`."""

_TAKEN_NAMES = {name for names in COLUMNS.values() for name in names} | {"extra"}
_logger = logging.getLogger(__name__)


def read_tracks(
    source: str | Path,
    *,
    audio_root: str | Path | None = None,
    tag_fields: Sequence[str] | Mapping[str, str] | None = None,
    split_field: str = "split",
    missing: Literal["refuse", "skip"] = "refuse",
) -> list[Track]:
    """Read a corpus: a folder of audio, or a manifest.

    Args:
        source: A folder, in which the names of the folders around a file become its tags of kind "folder"; or a
            file ending in .csv, .tsv, .jsonl or .parquet.
        audio_root: Where relative paths start. None: the manifest's folder or, for a file that is not there, the
            folder above it.
        tag_fields: More columns that hold tags. The column's name is the kind; a mapping gives kinds by column.
        split_field: The column that holds the split.
        missing: What to do with rows whose audio file is not there: refuse the manifest, or leave them out and say
            so in the log.

    Returns:
        The tracks in the order of the manifest, at least one.

    Raises:
        DataError: If the source cannot be used; the message names the file, the line and the column.
        ValueError: If ``missing`` is neither of its values.
    """
    if missing not in ("refuse", "skip"):
        raise ValueError(f"missing must be 'refuse' or 'skip', got {missing!r}")
    source = Path(source)
    if source.is_dir():
        return _read_folder(source)
    if not source.exists():
        raise DataError(f"{source} does not exist; give a folder of audio or a manifest")
    table = read_table(source)
    columns = _find_columns(table, tag_fields, split_field)
    kinds = dict(tag_fields) if isinstance(tag_fields, Mapping) else {name: name for name in tag_fields or ()}
    beside = Path(os.path.abspath(source.parent))
    roots = [beside, beside.parent] if audio_root is None else [Path(os.path.abspath(audio_root))]
    tracks: list[Track] = []
    place_of: dict[str, str] = {}
    not_there: list[str] = []
    for row in table.rows:
        try:
            track = _make_track(row.cells, columns, kinds, roots)
        except ValueError as error:
            raise DataError(f"{source}, {row.place}: {error}") from error
        if track.id in place_of:
            raise DataError(
                f"{source}, {row.place}: ids must be unique, and {track.id!r} is already on {place_of[track.id]}; "
                f"rename one, or drop the column {columns.get('id', 'id')!r} to have ids made from the paths"
            )
        place_of[track.id] = row.place
        if track.path.is_file():
            tracks.append(track)
        else:
            not_there.append(f"{row.place}: {row.cells[columns['path']]}")
    if not_there:
        _report_missing(source, not_there, roots, refuse=missing == "refuse" or not tracks)
    return tracks


def write_tracks(tracks: Sequence[Track], path: str | Path) -> None:
    """Write tracks as JSON lines, with paths relative to the manifest, so that :func:`read_tracks` gives them back.

    The manifest appears under its name only when it is complete.

    Args:
        tracks: At least one, with unique ids.
        path: The manifest, ending in .jsonl; its folder is made if it is not there.

    Raises:
        ValueError: If the name or the tracks do not make a manifest, or something in ``extra`` is not JSON-able.
    """
    path = Path(path)
    if path.suffix.lower() != ".jsonl":
        raise ValueError(f"tracks are written as JSON lines, to a name ending in .jsonl; got {path}")
    if not tracks:
        raise ValueError(f"a manifest needs at least one track, got none to write to {path}")
    ids = {track.id for track in tracks}
    if len(ids) < len(tracks):
        raise ValueError(f"a manifest needs unique ids, got {len(ids)} different ids for {len(tracks)} tracks")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with aside.open("wb") as file:
            for track in tracks:
                file.write(_json_line(track, path.parent))
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def add_tag_captions(tracks: Sequence[Track], *, per_track: int = 1, seed: int = 0) -> list[Track]:
    """Give every track that has tags but no caption captions made of its tags.

    A track's captions depend on its id, its tags and the seed, not on the other tracks. A data set that wants new
    wordings in every epoch calls :func:`xmodal.text.captions_from_tags` itself.

    Args:
        tracks: Any tracks; those with captions or without tags are returned as they are.
        per_track: Number of captions to draw for a track; it may get fewer, because no two are the same.
        seed: Start of the chance.
    """
    filled = []
    for track in tracks:
        if not track.captions:
            texts = captions_from_tags(track.tags, random.Random(f"{seed}:{track.id}"), count=per_track)
            track = replace(track, captions=tuple(Caption(text, frozenset(tags)) for text, tags in texts))
        filled.append(track)
    return filled


def _read_folder(folder: Path) -> list[Track]:
    paths = find_audio(folder)
    if not paths:
        raise DataError(f"{folder} holds no audio; looked for files ending in {', '.join(sorted(AUDIO_SUFFIXES))}")
    relative = [path.relative_to(folder) for path in paths]
    # A corpus laid out as train/…, test/… names the split there, and "test" is no tag.
    by_split = all(len(name.parts) > 1 and name.parts[0].lower() in SPLIT_NAMES for name in relative)
    tracks = []
    for path, name in zip(paths, relative, strict=True):
        folders = name.parts[1 if by_split else 0 : -1]
        words = tuple(word for word in (part.replace("_", " ").strip() for part in folders) if word)
        tracks.append(
            Track(
                id=_id_of(name),
                path=Path(os.path.abspath(path)),
                tags={"folder": words} if words else {},
                split=name.parts[0] if by_split else None,
            )
        )
    return tracks


def _find_columns(
    table: Table,
    tag_fields: Sequence[str] | Mapping[str, str] | None,
    split_field: str,
) -> dict[str, str]:
    """The column of each field that has one."""
    if isinstance(tag_fields, str):
        raise ValueError(f"tag_fields is a list of columns, got the string {tag_fields!r}; write [{tag_fields!r}]")
    for wanted in [*(tag_fields or ()), *([split_field] if split_field != "split" else [])]:
        if wanted not in table.names:
            raise DataError(f"{table.path} has no column {wanted!r}; its columns are: {', '.join(table.names)}")
    columns: dict[str, str] = {}
    for field, synonyms in COLUMNS.items():
        # A column that the caller names as tags of a kind of its own is not also the column of tags without a kind.
        free = [name for name in table.names if not (field == "tags" and name in (tag_fields or ()))]
        found = [name for synonym in synonyms for name in free if name.strip().lower() == synonym]
        if found:
            columns[field] = found[0]
    if split_field != "split":
        columns["split"] = split_field
    if "path" not in columns:
        raise DataError(
            f"{table.path} has no column for the audio file ({', '.join(COLUMNS['path'])}); "
            f"its columns are: {', '.join(table.names)}; rename the one that holds the paths"
        )
    return columns


def _make_track(
    cells: Mapping[str, Any], columns: Mapping[str, str], kinds: Mapping[str, str], roots: Sequence[Path]
) -> Track:
    def cell(field: str, parse: Callable[[Any], Any]) -> Any:
        """The field's value in this row, None where it has none."""
        value = cells.get(columns[field]) if field in columns else None
        return None if value is None else parse_cell(columns[field], parse, value)

    named_path = cell("path", parse_text)
    if named_path is None:
        raise ValueError(f"every row needs an audio file, and the column {columns['path']!r} is empty")
    start, end = cell("start_seconds", parse_seconds), cell("end_seconds", parse_seconds)
    tags: dict[str, tuple[str, ...]] = dict(cell("tags", _tags_by_kind) or {})
    for column, kind in kinds.items():
        if cells.get(column) is not None:
            names = parse_cell(column, parse_names, cells[column])
            tags[kind] = tuple(dict.fromkeys(tags.get(kind, ()) + names))
    taken = {*columns.values(), *kinds}
    nested = cells.get("extra")
    extra = {name: value for name, value in cells.items() if name not in taken}
    if isinstance(nested, dict):  # how write_tracks keeps names that would be taken for a field
        extra.pop("extra", None)
        extra |= nested
    fragment = "" if start is None and end is None else f"#t={start or 0.0},{'' if end is None else end}"
    return Track(
        id=cell("id", parse_text) or _id_of(Path(named_path)) + fragment,
        path=_locate(named_path, roots),
        start_seconds=start or 0.0,
        end_seconds=end,
        tags=tags,
        captions=cell("captions", _captions) or (),
        split=cell("split", parse_text),
        extra=extra,
        **{field: cell(field, parse_text) for field in ("group", "title", "artist", "album", "lyrics")},
    )


def _tags_by_kind(value: Any) -> dict[str, tuple[str, ...]]:
    if isinstance(value, dict):
        return {kind: parse_names(names) for kind, names in value.items() if names is not None}
    return {"tag": parse_names(value)}


def _captions(value: Any) -> tuple[Caption, ...]:
    """A caption or a list of them; in a text, bars part them: a semicolon may well be punctuation."""
    if isinstance(value, str):
        listed = json_list(value)
        value = [item.strip() for item in value.split("|")] if listed is None else listed
    items = value if isinstance(value, list) else [value]
    captions = []
    for item in items:
        if isinstance(item, dict):
            if "text" not in item:
                raise ValueError(f'a caption is a text or {{"text": …, "requires": […]}}, got {json.dumps(item)[:60]}')
            requires = item.get("requires")
            captions.append(Caption(item["text"], None if requires is None else frozenset(parse_names(requires))))
        elif item is not None and (word := parse_text(item)):
            captions.append(Caption(word))
    return tuple(captions)


def _id_of(path: Path) -> str:
    # A file name need not be Unicode; an id must, to be printed, hashed and written.
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def _locate(named: str, roots: Sequence[Path]) -> Path:
    """Where the file is; if it is nowhere, where it would be under the first root."""
    candidates = [_join(root, Path(named)) for root in roots]
    return next((path for path in candidates if path.is_file()), candidates[0])


def _join(root: Path, relative: Path) -> Path:
    # Going up from a folder that is a link means going up from where the link leads.
    base = root.resolve() if ".." in relative.parts else root
    return Path(os.path.normpath(base / relative))


def _report_missing(source: Path, not_there: Sequence[str], roots: Sequence[Path], *, refuse: bool) -> None:
    named = "; ".join(not_there[:3]) + ("; …" if len(not_there) > 3 else "")
    looked = " and ".join(map(str, roots))
    if refuse:
        raise DataError(
            f"{source}: {len(not_there)} audio files are not under {looked} ({named}); give audio_root, the folder "
            "where the paths start, or missing='skip' to go on with the files that are there, if any"
        )
    _logger.warning("%s: %d audio files left out, not under %s (%s)", source, len(not_there), looked, named)


def _json_line(track: Track, folder: Path) -> bytes:
    row: dict[str, Any] = {"id": track.id, "path": _relative(track.path, folder)}
    if track.start_seconds:
        row["start_seconds"] = track.start_seconds
    row |= _given(track, "end_seconds", "title", "artist", "album", "split", "group", "lyrics")
    row["tags"] = {kind: list(names) for kind, names in track.tags.items()}
    row["captions"] = [_plain_caption(caption) for caption in track.captions]
    hidden = {name: value for name, value in track.extra.items() if name.strip().lower() in _TAKEN_NAMES}
    row |= {name: value for name, value in track.extra.items() if name not in hidden}
    if hidden:
        row["extra"] = hidden
    try:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"extra of track {track.id!r} must be JSON-able: {error}") from error
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # a file name that is not Unicode: JSON's escapes can hold it, UTF-8 cannot
        return json.dumps(row).encode() + b"\n"


def _given(track: Track, *fields: str) -> Iterator[tuple[str, Any]]:
    return ((field, getattr(track, field)) for field in fields if getattr(track, field) is not None)


def _plain_caption(caption: Caption) -> str | dict[str, Any]:
    if caption.requires is None:
        return caption.text
    return {"text": caption.text, "requires": sorted(caption.requires)}


def _relative(path: Path, folder: Path) -> str:
    path, folder = Path(os.path.abspath(path)), Path(os.path.abspath(folder))
    if path.is_relative_to(folder):
        return path.relative_to(folder).as_posix()
    return Path(os.path.relpath(path, folder.resolve())).as_posix()
