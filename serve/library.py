"""The audio that a server may play: files that the index names and that lie inside the library's folders.

A path is taken from the index alone, never from a request. Its links are followed first; then the file is opened once,
what was opened is looked at again, and it is served from that descriptor, so that nothing can be exchanged in between.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.responses import FileResponse

from serve.problems import Problem, problem_response
from xmodal.audio import AUDIO_SUFFIXES

# What browsers play, by suffix; Python's own table depends on the machine. Others are downloaded.
MEDIA_TYPES = {
    ".3gp": "audio/3gpp",
    ".aac": "audio/aac",
    ".aif": "audio/aiff",
    ".aifc": "audio/aiff",
    ".aiff": "audio/aiff",
    ".au": "audio/basic",
    ".flac": "audio/flac",
    ".m4a": "audio/mp4",
    ".m4b": "audio/mp4",
    ".mka": "audio/x-matroska",
    ".mp2": "audio/mpeg",
    ".mp3": "audio/mpeg",
    ".mpga": "audio/mpeg",
    ".oga": "audio/ogg",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".snd": "audio/basic",
    ".wav": "audio/wav",
    ".wave": "audio/wav",
    ".weba": "audio/webm",
    ".webm": "audio/webm",
    ".wma": "audio/x-ms-wma",
}


def media_type(path: Path) -> str:
    """For the Content-Type header."""
    return MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream")


class NotInLibraryError(Problem):
    """A file that may not be played.

    Attributes:
        reason: Why, for the log; clients are told only that there is no audio.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(404, "there is no audio of this track here", kind="no-audio")
        self.reason = reason


@dataclass
class OpenedAudio:
    """An open file of the library.

    Attributes:
        descriptor: Whoever has this object closes it.
        status: Of the very file that is open.
        path: Where it is, without links.
        media_type: For the Content-Type header.
    """

    descriptor: int
    status: os.stat_result
    path: Path
    media_type: str

    def close(self) -> None:
        """Close the descriptor, once."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __del__(self) -> None:  # an answer that was made and never sent
        self.close()

    def __enter__(self) -> OpenedAudio:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Library:
    """Folders whose audio files may be played.

    Args:
        roots: The folders. None at all means that nothing is played.

    Raises:
        ValueError: If one is no folder, or is the root of the file system.
    """

    def __init__(self, roots: Sequence[str | Path]) -> None:
        self.roots: tuple[Path, ...] = ()
        for root in roots:
            real = Path(os.path.realpath(root))
            if not real.is_dir():
                raise ValueError(f"the library {root} is not a folder; name a folder of audio files")
            if real == Path(real.anchor):
                raise ValueError("the root of the file system cannot be the library; name a folder of audio files")
            self.roots = (*self.roots, real)

    def open(self, path: str | os.PathLike[str]) -> OpenedAudio:
        """Open a file.

        Args:
            path: As the index has it; a relative one is looked for in each root.

        Raises:
            NotInLibraryError: If it is not a readable audio file inside the library.
        """
        real = self._inside(path)
        try:
            # NONBLOCK, because a named pipe put in its place would wait for a writer.
            descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise NotInLibraryError(f"cannot be opened ({error.strerror})") from None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise NotInLibraryError("is no regular file")
            # A folder on the way may have become a link since: ask for the way once more, and whether it is this file.
            again = self._inside(real)
            now = os.stat(again, follow_symlinks=False)
            if again != real or (now.st_dev, now.st_ino) != (status.st_dev, status.st_ino):
                raise NotInLibraryError("was exchanged while it was opened")
        except OSError as error:
            os.close(descriptor)
            raise NotInLibraryError(f"was exchanged while it was opened ({error.strerror})") from None
        except NotInLibraryError:
            os.close(descriptor)
            raise
        return OpenedAudio(descriptor, status, real, media_type(real))

    def path_of(self, metadata: Mapping[str, Any]) -> Path | None:
        """The file of a track as its metadata name it, without links; None if it may not be played."""
        path = metadata.get("path")
        if not isinstance(path, str):
            return None
        try:
            real = self._inside(path)
            return real if real.is_file() else None
        except (NotInLibraryError, OSError):
            return None

    def _inside(self, path: str | os.PathLike[str]) -> Path:
        """The file without links, which lies inside a root and is named like audio."""
        text = os.fspath(path)
        if not self.roots:
            raise NotInLibraryError("no library is configured")
        if "\0" in text:
            raise NotInLibraryError("is no possible path")
        for root in self.roots:
            try:
                real = Path(os.path.realpath(os.path.join(root, text)))  # an absolute path stays what it is
                inside = real.is_relative_to(root) and real != root and (os.path.isabs(text) or real.exists())
            except (OSError, ValueError):  # a name that is too long or that no file can have
                continue
            if inside:
                if real.suffix.lower() not in AUDIO_SUFFIXES:
                    raise NotInLibraryError("is not named like audio")
                return real
        raise NotInLibraryError("lies outside the library")


class AudioResponse(FileResponse):
    """A file of the library as an answer: whole (200), in part (206), or not at all as it has not changed (304).

    Args:
        opened: Closed when the answer is over, whatever happens.
    """

    def __init__(self, opened: OpenedAudio) -> None:
        self._opened = opened
        super().__init__(
            f"/dev/fd/{opened.descriptor}",
            media_type=opened.media_type,
            stat_result=opened.status,
            headers={"cache-control": "private, max-age=0, must-revalidate", "x-content-type-options": "nosniff"},
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer, as ASGI has it."""
        try:
            headers = dict(scope["headers"])
            if _matches(headers.get(b"if-none-match"), self.headers["etag"]):  # before any range: RFC 9110, 13.2.2
                kept = [(name, value) for name, value in self.raw_headers if name in (b"etag", b"cache-control")]
                await send({"type": "http.response.start", "status": 304, "headers": kept})
                await send({"type": "http.response.body", "body": b""})
                return
            await super().__call__(scope, receive, _Problems(receive, send, self.headers["content-length"]))
        finally:
            self._opened.close()


class _Problems:
    """ASGI's send, which makes problem documents of the plain refusals of Starlette's answer to a range."""

    def __init__(self, receive: Any, send: Any, size: str) -> None:
        self._receive, self._send, self._size, self._replaced = receive, send, size, False

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start" and message["status"] in (400, 416):
            self._replaced = True
            detail = f"the range cannot be served, the file has {self._size} bytes; write it as bytes=FIRST-LAST"
            headers = {"Content-Range": f"bytes */{self._size}"} if message["status"] == 416 else {}
            response = problem_response(message["status"], detail, kind="range", headers=headers)
            await response({"type": "http"}, self._receive, self._send)
        elif not self._replaced:
            await self._send(message)


def _matches(header: bytes | None, etag: str) -> bool:
    if header is None:
        return False
    said = {part.strip().removeprefix("W/") for part in header.decode("latin-1").split(",")}
    return etag in said or "*" in said
