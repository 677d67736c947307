"""What all routes share: the service, answers as JSON, and files that come in."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request, Response
from starlette.datastructures import UploadFile

from serve.decoding import Decoded, ReadableUpload
from serve.problems import Problem
from serve.running import Running
from serve.service import Service
from xmodal.embedder import FileWindows

UPLOAD_BODY: Mapping[str, Any] = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "required": ["file"],
            "properties": {"file": {"type": "string", "format": "binary", "description": "an audio file"}},
        }
    }
}


def service_of(request: Request) -> Service:
    """The state of the application."""
    service: Service = request.app.state.service
    return service


class Answer(Response):
    """JSON that is written as it is; its shape is promised by the route's model and kept by the tests."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes."""
        return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def is_form(request: Request) -> bool:
    """Whether a request brings a file."""
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


@asynccontextmanager
async def file_of(request: Request) -> AsyncIterator[UploadFile]:
    """The file in the form field ``file``.

    Raises:
        Problem: 415 if the body is no form, 422 if it has no such file, or an empty one.
    """
    if not is_form(request):
        raise Problem(415, "send the sound as multipart/form-data with the field file, as in: curl -F file=@song.mp3")
    async with request.form(max_files=1, max_fields=8) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise Problem(422, "the form has no file in the field file; send it as in: curl -F file=@song.mp3")
        if not file.size:
            raise Problem(422, "the file is empty", kind="bad-audio")
        yield file


async def hear(request: Request, running: Running, url: str | None = None) -> tuple[str, Decoded, FileWindows]:
    """The file of a request: what it is called, its samples, and its windows with their vectors.

    Args:
        request: It brings the file, unless there is a ``url``.
        running: The model.
        url: Where the file is to be fetched.

    Raises:
        Problem: If there is no file, or no room for it now.
        AudioError: If it cannot be decoded.
    """
    service = service_of(request)
    if url is not None:
        async with service.fetcher.open(url) as fetched:
            name = shown_name(fetched.name)
            decoded = await _decoded(service, running, fetched, name)
    else:
        async with file_of(request) as file:
            if (file.size or 0) > service.settings.upload_max_bytes:
                raise Problem(
                    413, f"a sound may have {service.settings.upload_max_bytes} bytes, this one has {file.size}"
                )
            name = shown_name(file.filename)
            decoded = await _decoded(service, running, file, name)
    return name, decoded, await running.embed(decoded)


async def _decoded(service: Service, running: Running, file: ReadableUpload, name: str) -> Decoded:
    async with service.store.receive(file) as path:
        return await service.decoders.decode(path, running.deployed.embedder.model.sample_rate, name=name)


def shown_name(name: str | None) -> str:
    """The bare name of a file as a client calls it, in visible characters."""
    bare = (name or "").replace("\\", "/").rpartition("/")[2]
    visible = "".join(sign for sign in bare if unicodedata.category(sign)[0] != "C").strip()
    return visible[:200] or "sound"
