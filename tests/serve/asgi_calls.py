"""Calls an ASGI application as a server would, with bodies that come in pieces, slowly, or never."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json"
        document = json.loads(self.body)
        assert document["status"] == self.status
        assert document["detail"].strip()
        return document


async def call(
    app: Any,
    method: str = "GET",
    path: str = "/",
    *,
    query: bytes = b"",
    headers: dict[str, str] | Sequence[tuple[bytes, bytes]] = (),
    body: Sequence[bytes] = (),
    wait_seconds: float = 0.0,
    endless: bool = False,
    client: tuple[str, int] | None = ("127.0.0.1", 1234),
) -> Answer:
    """Send one request and collect the answer.

    Args:
        body: Pieces; ``wait_seconds`` pass before each.
        endless: The last piece is sent again and again.
    """
    if isinstance(headers, dict):
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    if not any(name == b"host" for name, _ in headers):
        headers = [(b"host", b"127.0.0.1:8000"), *headers]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "root_path": "",
        "headers": list(headers),
        "client": client,
        "server": ("127.0.0.1", 8000),
        "state": {},
    }
    pieces = list(body)
    position = 0
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        nonlocal position
        if position >= max(1, len(pieces)) and not endless:
            await asyncio.sleep(3600)
        await asyncio.sleep(wait_seconds)
        piece = pieces[min(position, len(pieces) - 1)] if pieces else b""
        position += 1
        return {"type": "http.request", "body": piece, "more_body": endless or position < len(pieces)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    starts = [message for message in sent if message["type"] == "http.response.start"]
    assert len(starts) == 1, f"an answer must start once, got {sent}"
    assert sent[0] is starts[0]
    return Answer(
        starts[0]["status"],
        {name.decode(): value.decode("latin-1") for name, value in starts[0]["headers"]},
        b"".join(message.get("body", b"") for message in sent[1:]),
    )
