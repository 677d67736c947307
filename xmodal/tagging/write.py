"""Tags into files: ID3, Vorbis comments and MP4 atoms, never half-written, and a way back.

Each kind of tag is a field of its name (``GENRE``, ``MOOD``, ``INSTRUMENT``; tags without a kind go to ``TAGS``): the
standard frames for genre and mood, free-form ones for others. Needs the extra ``xmodal[write]``, whose library is under
the GPL.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xmodal.errors import AudioError, DataError

_STANDARD_ID3 = {"GENRE": "TCON", "MOOD": "TMOO"}
_STANDARD_MP4 = {"GENRE": "\xa9gen"}


def write_tags(path: str | Path, tags: Mapping[str | None, Sequence[str]], undo: str | Path) -> None:
    """Write tags into a file, after its old ones are safe in the undo file.

    The file is copied beside itself, changed there, flushed and renamed: a kill leaves the old file or the new one.

    Args:
        path: mp3, flac, ogg, opus or m4a.
        tags: Names by kind. A kind without names is taken out of the file; kinds that are not named stay.
        undo: A file of JSON lines to which what stood there is added; :func:`undo_tags` reads it.

    Raises:
        AudioError: If the file holds no tags that can be written.
        OSError: If it cannot be written.
    """
    path = Path(path).absolute()
    fields = {field_name(kind): list(names) for kind, names in tags.items()}
    before = read_fields(path, list(fields))
    line = json.dumps({"path": str(path), "before": before, "after": fields}, ensure_ascii=False) + "\n"
    with Path(undo).open("a", encoding="utf-8") as record:
        record.write(line)
        record.flush()
        os.fsync(record.fileno())
    _replace(path, fields)


def undo_tags(undo: str | Path) -> tuple[int, list[str]]:
    """Give files the fields back that they had before :func:`write_tags`, the last change first.

    Returns:
        How many changes were taken back, and a sentence for each that could not be: the file is gone, or a field was
        changed by someone else since, whose change is kept.

    Raises:
        DataError: If ``undo`` is no such file.
    """
    try:
        changes = [json.loads(line) for line in Path(undo).read_text("utf-8").splitlines()]
        todo = [(Path(change["path"]), change["before"], change["after"]) for change in reversed(changes)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{undo} is no undo file of xmodal tag --write: {error}") from error
    done, kept = 0, []
    for path, before, after in todo:
        try:
            if read_fields(path, list(after)) != after:
                kept.append(f"{path}: its tags were changed since; they are left as they are")
                continue
            _replace(path, before)
        except (AudioError, OSError) as error:
            kept.append(f"{path}: {error}")
            continue
        done += 1
    return done, kept


def field_name(kind: str | None) -> str:
    """The field for a kind of tag: its name in capitals, of letters, digits and spaces; TAGS for none."""
    name = "".join(letter if letter.isalnum() else " " for letter in kind or "").strip().upper()
    return name or "TAGS"


def read_fields(path: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """What a file says in some fields; an empty list where it says nothing.

    Raises:
        AudioError: If the file holds no tags that can be read.
    """
    file = _opened(path)
    return {name: _get(file, name) for name in names}


def _replace(path: Path, fields: Mapping[str, Sequence[str]]) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    aside = Path(name)
    try:
        shutil.copy2(path, aside)
        file = _opened(aside)
        if file.tags is None:
            file.add_tags()
        for field, values in fields.items():
            _set(file, field, list(values))
        file.save()
        with aside.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def _opened(path: Path) -> Any:
    try:
        import mutagen
    except ModuleNotFoundError as error:
        raise DataError('writing tags into files needs one more package: pip install "xmodal[write]"') from error
    try:
        file = mutagen.File(path)
    except mutagen.MutagenError as error:
        raise AudioError(path, f"its tags cannot be read ({error})") from error
    if file is None or not (_is_id3(file) or _is_mp4(file) or _is_vorbis(file)):
        raise AudioError(path, "tags can be written into mp3, flac, ogg, opus and m4a files only")
    return file


def _is_id3(file: Any) -> bool:
    from mutagen.mp3 import MP3

    return isinstance(file, MP3)


def _is_mp4(file: Any) -> bool:
    from mutagen.mp4 import MP4

    return isinstance(file, MP4)


def _is_vorbis(file: Any) -> bool:
    from mutagen.flac import FLAC
    from mutagen.oggopus import OggOpus
    from mutagen.oggvorbis import OggVorbis

    return isinstance(file, (FLAC, OggOpus, OggVorbis))


def _get(file: Any, field: str) -> list[str]:
    if file.tags is None:
        return []
    if _is_id3(file):
        frame = file.tags.get(_STANDARD_ID3.get(field, f"TXXX:{field}"))
        return [] if frame is None else [str(text) for text in frame.text]
    if _is_mp4(file):
        values = file.tags.get(_STANDARD_MP4.get(field, f"----:com.apple.iTunes:{field}"), [])
        return [bytes(value).decode() if isinstance(value, bytes) else str(value) for value in values]
    return [str(value) for value in file.tags.get(field, [])]


def _set(file: Any, field: str, values: list[str]) -> None:
    if _is_id3(file):
        from mutagen import id3

        key = _STANDARD_ID3.get(field, f"TXXX:{field}")
        file.tags.delall(key)
        if values and field in _STANDARD_ID3:
            file.tags.add(getattr(id3, key)(encoding=id3.Encoding.UTF8, text=values))
        elif values:
            file.tags.add(id3.TXXX(encoding=id3.Encoding.UTF8, desc=field, text=values))
        return
    key, stored = field, values
    if _is_mp4(file):
        from mutagen.mp4 import MP4FreeForm

        key = _STANDARD_MP4.get(field, f"----:com.apple.iTunes:{field}")
        if field not in _STANDARD_MP4:
            stored = [MP4FreeForm(value.encode()) for value in values]  # type: ignore[misc]
    if values:
        file.tags[key] = stored
    elif key in file.tags:
        del file.tags[key]
