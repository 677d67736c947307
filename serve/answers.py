"""A problem document (RFC 9457) sent straight over ASGI, for the layers that lie around the application."""

from __future__ import annotations

import json
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

Headers = Iterable[tuple[bytes, bytes]]


async def send_problem(send: Any, status: int, detail: str, headers: Headers = ()) -> None:
    """Send a whole answer.

    Args:
        send: ASGI's.
        status: Of the answer, an HTTP error.
        detail: One sentence: what is wrong and what to do.
        headers: Further ones, names in lower case.
    """
    document = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    body = json.dumps(document).encode()
    head = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})
