"""Manifests: which audio there is, and what is known about it.

Conventions
-----------
A corpus is a folder of audio; a table with one track a row (CSV, TSV, JSON lines, Parquet); WebDataset shards; or a
Hugging Face data set on disk. A column is found by any of its names in :data:`COLUMNS`, in any letter case; the first
name there is wins, and what no field takes is kept in ``Track.extra``. ``docs/data.md`` describes the formats.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from xmodal.audio import AUDIO_SUFFIXES, find_audio
from xmodal.audio.stored import is_url
from xmodal.data.corpus import Corpus, Missing, SetAside, check_missing, refuse_or_report
from xmodal.data.huggingface import is_saved_dataset, read_saved_dataset
from xmodal.data.rows import COLUMNS, find_columns, id_of, json_line, make_track, row_of
from xmodal.data.shards import MANIFEST_NAME, find_shards, packed_shards, read_shards
from xmodal.data.splits import SPLIT_NAMES
from xmodal.data.tables import Table, read_table
from xmodal.data.tracks import Caption, Track
from xmodal.errors import DataError
from xmodal.text import captions_from_tags

__all__ = ["COLUMNS", "add_tag_captions", "read_corpus", "read_tracks", "write_tracks"]


def read_tracks(
    source: str | Path,
    *,
    audio_root: str | Path | None = None,
    tag_fields: Sequence[str] | Mapping[str, str] | None = None,
    split_field: str = "split",
    missing: Missing = "refuse",
) -> list[Track]:
    """The tracks of :func:`read_corpus`; what was left out is in the log alone."""
    return read_corpus(
        source, audio_root=audio_root, tag_fields=tag_fields, split_field=split_field, missing=missing
    ).tracks


def read_corpus(
    source: str | Path,
    *,
    audio_root: str | Path | None = None,
    tag_fields: Sequence[str] | Mapping[str, str] | None = None,
    split_field: str = "split",
    missing: Missing = "refuse",
) -> Corpus:
    """Read a corpus: a folder of audio, a manifest, shards, or a data set on disk.

    Args:
        source: A folder of audio, in which the names of the folders around a file become its tags of kind "folder"; a
            file ending in .csv, .tsv, .jsonl or .parquet; WebDataset shards (a .tar file, a folder of them, or names
            with a range such as ``shard-{000..041}.tar``, local or a URL that fsspec opens); or a folder to which
            Hugging Face ``datasets`` saved a data set.
        audio_root: Where a table's relative paths start. None: the manifest's folder or, for a file that is not
            there, the folder above it.
        tag_fields: More columns that hold tags. The column's name is the kind; a mapping gives kinds by column.
        split_field: The column that holds the split.
        missing: What to do with rows whose audio file is not there, and with shards that are cut short: refuse the
            source, or set them aside and say so in the log and in ``Corpus.set_aside``.

    Returns:
        The tracks in the order of the source, at least one, and what was set aside.

    Raises:
        DataError: If the source cannot be used; the message names the file, the line and the column.
        ValueError: If ``missing`` is neither of its values.
    """
    check_missing(missing)
    set_aside: list[SetAside] = []
    shards = find_shards(source)
    if not (is_url(str(source)) or shards or Path(source).exists()):
        raise DataError(f"{source} does not exist; give a folder of audio or a manifest")
    if shards:
        packed = Path(source, MANIFEST_NAME)
        if packed.is_file():  # it tells what the shards hold, and spares reading them through
            corpus = read_corpus(packed, tag_fields=tag_fields, split_field=split_field, missing=missing)
            _refuse_unlisted(packed, shards, corpus)
            return corpus
        table, set_aside = read_shards(source, shards)
    elif is_saved_dataset(source):
        table = read_saved_dataset(Path(source))
    elif Path(source).is_dir():
        return Corpus(_read_folder(Path(source)))
    else:
        table = read_table(Path(source))
    beside = Path(os.path.abspath(Path(source).parent))
    roots = [beside, beside.parent] if audio_root is None else [Path(os.path.abspath(audio_root))]
    tracks, without = _tracks_of(table, roots, tag_fields, split_field)
    advice, rest = "get the shards again", "what is whole"
    if without:
        advice = "give audio_root (--audio-root), the folder where the paths start"
        rest = "the files that are there, if any"
    if missing != "skip":
        advice += f", or missing='skip' to go on with {rest}"
    return refuse_or_report(source, Corpus(tracks, [*set_aside, *without]), missing, advice)


def write_tracks(tracks: Sequence[Track], path: str | Path) -> None:
    """Write tracks as JSON lines, with paths relative to the manifest, so that :func:`read_tracks` gives them back.

    The manifest appears under its name only when it is complete.

    Args:
        tracks: At least one, with unique ids.
        path: The manifest, ending in .jsonl; its folder is made if it is not there.

    Raises:
        ValueError: If the name or the tracks do not make a manifest, something in ``extra`` is not JSON-able, or the
            audio of a track is in memory.
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
                file.write(json_line(row_of(track, path.parent)))
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
                id=id_of(name),
                path=Path(os.path.abspath(path)),
                tags={"folder": words} if words else {},
                split=name.parts[0] if by_split else None,
            )
        )
    return tracks


def _tracks_of(
    table: Table,
    roots: Sequence[Path],
    tag_fields: Sequence[str] | Mapping[str, str] | None,
    split_field: str,
) -> tuple[list[Track], list[SetAside]]:
    """The tracks of a table's rows, and the rows whose audio is not there."""
    columns = find_columns(table, tag_fields, split_field)
    kinds = dict(tag_fields) if isinstance(tag_fields, Mapping) else {name: name for name in tag_fields or ()}
    looked = " and ".join(map(str, roots))
    tracks: list[Track] = []
    place_of: dict[str, str] = {}
    without: list[SetAside] = []
    shard_is_there: dict[str, bool] = {}
    for row in table.rows:
        try:
            track = make_track(row.cells, columns, kinds, roots)
        except ValueError as error:
            raise DataError(f"{table.path}, {row.place}: {error}") from error
        if track.id in place_of:
            raise DataError(
                f"{table.path}, {row.place}: ids must be unique, and {track.id!r} is already on {place_of[track.id]}; "
                f"rename one, or drop the column {columns.get('id', 'id')!r} to have ids made from the paths"
            )
        place_of[track.id] = row.place
        if _is_there(track, shard_is_there):
            tracks.append(track)
        else:
            named = id_of(str(row.cells[columns["path"]]))
            without.append(SetAside(track.id, named, f"the audio file is not under {looked}", row.place))
    return tracks, without


def _refuse_unlisted(manifest: Path, shards: Sequence[str], corpus: Corpus) -> None:
    listed = {os.path.basename(getattr(track.data, "container", "")) for track in corpus.tracks}
    listed |= {shard["name"] for shard in packed_shards(manifest.parent)}  # one may hold no track at all
    unlisted = sorted(shard for shard in shards if os.path.basename(shard) not in listed)
    if unlisted and not corpus.set_aside:
        raise DataError(
            f"{manifest} does not know {unlisted[0]}; delete the manifest to have the shards read through, or pack "
            "the corpus again"
        )


def _is_there(track: Track, shard_is_there: dict[str, bool]) -> bool:
    if track.data is None:
        return track.path.is_file()
    container = getattr(track.data, "container", None)
    if container is None or is_url(container):  # a URL is asked when it is read, not for every track here
        return True
    if container not in shard_is_there:
        shard_is_there[container] = os.path.isfile(container)
    return shard_is_there[container]
