"""One row of a manifest as a track, and a track as a row: the names of the columns and what their cells may hold.

Every source of tracks (tables, shards, data sets on disk) makes rows of cells and hands them to :func:`make_track`, so
that a field means the same wherever it is read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from xmodal.audio import AudioInfo, RangeAudio, RemoteAudio, StoredAudio
from xmodal.audio.stored import is_url
from xmodal.data.lyrics import LyricLine, parse_lyric_line, plain_lyric_line
from xmodal.data.tables import Table, json_list, parse_cell, parse_names, parse_seconds, parse_text
from xmodal.data.tracks import Caption, Track
from xmodal.errors import DataError

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "path": ("path", "file", "filename", "audio"),
    "captions": ("captions", "caption", "text", "description"),
    "tags": ("tags", "tag", "labels"),
    "absent": ("absent_tags",),
    "id": ("id",),
    "split": ("split", "subset"),
    "group": ("group",),
    "title": ("title",),
    "artist": ("artist",),
    "album": ("album",),
    "lyrics": ("lyrics",),
    "timed_lyrics": ("timed_lyrics",),
    "licence": ("licence", "license"),
    "source": ("source",),
    "start_seconds": ("start_seconds", "start"),
    "end_seconds": ("end_seconds", "end"),
    "stored": ("stored",),
}
"""The names of the columns, by field of :class:`Track`."""

_TEXTS = ("group", "title", "artist", "album", "lyrics", "licence", "source")
_TAKEN_NAMES = {name for names in COLUMNS.values() for name in names} | {"extra"}


def find_columns(
    table: Table,
    tag_fields: Sequence[str] | Mapping[str, str] | None = None,
    split_field: str = "split",
) -> dict[str, str]:
    """The column of each field that has one.

    Raises:
        DataError: If a column that was asked for is not there, or none holds the audio.
        ValueError: If ``tag_fields`` is one string.
    """
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


def make_track(
    cells: Mapping[str, Any], columns: Mapping[str, str], kinds: Mapping[str, str], roots: Sequence[Path]
) -> Track:
    """The track that a row describes.

    Args:
        cells: JSON-able values by column; that of the audio may be stored audio.
        columns: The column of each field, from :func:`find_columns`.
        kinds: The kind of tag that a further column holds.
        roots: Folders where relative paths may start, the first one with the file wins.

    Raises:
        ValueError: If a cell cannot be used; the message names the column.
    """

    def cell(field: str, parse: Callable[[Any], Any]) -> Any:
        """The field's value in this row, None where it has none."""
        value = cells.get(columns[field]) if field in columns else None
        return None if value is None else parse_cell(columns[field], parse, value)

    named = cell("path", lambda value: value if isinstance(value, StoredAudio) else parse_text(value))
    if named is None:
        raise ValueError(f"every row needs an audio file, and the column {columns['path']!r} is empty")
    path, data = _locate(named, cell("stored", dict), roots)
    start, end = cell("start_seconds", parse_seconds), cell("end_seconds", parse_seconds)
    tags: dict[str, tuple[str, ...]] = dict(cell("tags", _names_by_kind) or {})
    for column, kind in kinds.items():
        if cells.get(column) is not None:
            names = parse_cell(column, parse_names, cells[column])
            tags[kind] = tuple(dict.fromkeys(tags.get(kind, ()) + names))
    taken = {*columns.values(), *kinds}
    nested = cells.get("extra")
    extra = {name: value for name, value in cells.items() if name not in taken}
    if isinstance(nested, dict):  # how row_of keeps names that would be taken for a field
        extra.pop("extra", None)
        extra |= nested
    fragment = "" if start is None and end is None else f"#t={start or 0.0},{'' if end is None else end}"
    return Track(
        id=cell("id", parse_text) or id_of(str(named)) + fragment,
        path=path,
        start_seconds=start or 0.0,
        end_seconds=end,
        tags=tags,
        absent=cell("absent", _names_by_kind) or {},
        captions=cell("captions", _captions) or (),
        timed_lyrics=cell("timed_lyrics", _lyric_lines) or (),
        split=cell("split", parse_text),
        data=data,
        extra=extra,
        **{field: cell(field, parse_text) for field in _TEXTS},
    )


def row_of(track: Track, folder: Path) -> dict[str, Any]:
    """The JSON-able row from which :func:`make_track` makes the track again.

    Args:
        track: The track.
        folder: The manifest's folder; paths become relative to it.

    Raises:
        ValueError: If its audio is in memory or in a table, where no row can point to it.
    """
    row: dict[str, Any] = {"id": track.id, "path": relative(track.path, folder)}
    if isinstance(track.data, RemoteAudio):
        row["path"] = track.data.url
    elif isinstance(track.data, RangeAudio):
        row |= {"path": track.data.member, "stored": _plain_stored(track.data, folder)}
    elif track.data is not None:
        raise ValueError(
            f"the audio of track {track.id!r} is {track.data}, which a manifest cannot point to; write the tracks to "
            "shards (xmodal data pack), or save the audio to files"
        )
    if track.start_seconds:
        row["start_seconds"] = track.start_seconds
    row |= facts_of(track)
    return row


def facts_of(track: Track) -> dict[str, Any]:
    """The part of a track's row that says nothing about where its audio is."""
    row = dict(_given(track, "end_seconds", "title", "artist", "album", "split", "group", "licence", "source"))
    if track.timed_lyrics:
        row["timed_lyrics"] = [plain_lyric_line(line) for line in track.timed_lyrics]
    if track.lyrics != "\n".join(line.text for line in track.timed_lyrics):  # else the lines say it already
        row |= _given(track, "lyrics")
    row["tags"] = {kind: list(names) for kind, names in track.tags.items()}
    if track.absent:
        row["absent_tags"] = {kind: list(names) for kind, names in track.absent.items()}
    row["captions"] = [_plain_caption(caption) for caption in track.captions]
    hidden = {name: value for name, value in track.extra.items() if name.strip().lower() in _TAKEN_NAMES}
    row |= {name: value for name, value in track.extra.items() if name not in hidden}
    if hidden:
        row["extra"] = hidden
    return row


def json_line(row: Mapping[str, Any]) -> bytes:
    """A row as a line of JSON.

    Raises:
        ValueError: If a value is not JSON-able.
    """
    try:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"extra of track {row.get('id')!r} must be JSON-able: {error}") from error
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # a file name that is not Unicode: JSON's escapes can hold it, UTF-8 cannot
        return json.dumps(row).encode() + b"\n"


def id_of(path: str | Path) -> str:
    """The id of a track that is called by its path."""
    # A file name need not be Unicode; an id must, to be printed, hashed and written.
    text = path if isinstance(path, str) and is_url(path) else Path(path).as_posix()
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def relative(path: Path, folder: Path) -> str:
    """The path as a manifest in ``folder`` writes it."""
    path, folder = Path(os.path.abspath(path)), Path(os.path.abspath(folder))
    if path.is_relative_to(folder):
        return path.relative_to(folder).as_posix()
    return Path(os.path.relpath(path, folder.resolve())).as_posix()


def _names_by_kind(value: Any) -> dict[str, tuple[str, ...]]:
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


def _lyric_lines(value: Any) -> tuple[LyricLine, ...]:
    if isinstance(value, str):
        value = json_list(value)
    if not isinstance(value, list):
        raise ValueError(f'must be a list of lines [{{"text": …, "start": …, "end": …}}], got {value!r:.60}')
    return tuple(map(parse_lyric_line, value))


def _plain_caption(caption: Caption) -> str | dict[str, Any]:
    if caption.requires is None:
        return caption.text
    return {"text": caption.text, "requires": sorted(caption.requires)}


def _plain_stored(data: RangeAudio, folder: Path) -> dict[str, Any]:
    container = data.container if is_url(data.container) else relative(Path(data.container), folder)
    plain: dict[str, Any] = {"container": container, "offset": data.offset, "size": data.size}
    if data.info is not None:
        info = data.info
        plain |= {"rate": info.sample_rate, "channels": info.channels, "frames": info.frames, "format": info.format}
    return plain


def _parse_stored(member: str, plain: Mapping[str, Any], roots: Sequence[Path]) -> RangeAudio:
    try:
        container, offset, size = str(plain["container"]), int(plain["offset"]), int(plain["size"])
        info = None
        if "frames" in plain:
            rate, frames = int(plain["rate"]), int(plain["frames"])
            info = AudioInfo(rate, int(plain["channels"]), frames, frames / rate, str(plain["format"]))
    except (KeyError, ValueError, TypeError, ZeroDivisionError) as error:
        raise ValueError(
            f'"stored" says where audio lies in a shard, as {{"container", "offset", "size"}}; got {dict(plain)!r:.80}'
        ) from error
    if offset < 0 or size < 1:
        raise ValueError(f'"stored" needs an offset from 0 on and a size of at least 1, got {offset} and {size}')
    if not is_url(container):
        container = os.fspath(_find(container, roots))
    return RangeAudio(container, member, offset, size, info)


def _locate(
    named: str | StoredAudio, stored: Mapping[str, Any] | None, roots: Sequence[Path]
) -> tuple[Path, StoredAudio | None]:
    """Where the audio is for people, and what reads it if it is no file of its own."""
    if isinstance(named, str) and stored is not None:
        named = _parse_stored(named, stored, roots)
    elif isinstance(named, str) and is_url(named):
        named = RemoteAudio(named)
    if isinstance(named, StoredAudio):
        return Path(named.name), named
    return _find(named, roots), None


def _find(named: str, roots: Sequence[Path]) -> Path:
    """Where the file is; if it is nowhere, where it would be under the first root."""
    candidates = [_join(root, Path(named)) for root in roots]
    return next((path for path in candidates if path.is_file()), candidates[0])


def _join(root: Path, relative_path: Path) -> Path:
    # Going up from a folder that is a link means going up from where the link leads.
    base = root.resolve() if ".." in relative_path.parts else root
    return Path(os.path.normpath(base / relative_path))


def _given(track: Track, *fields: str) -> Iterator[tuple[str, Any]]:
    return ((field, getattr(track, field)) for field in fields if getattr(track, field) is not None)
