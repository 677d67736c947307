"""The outermost layer: each request gets an id, is counted, and leaves one line in the log; each answer is guarded."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import MutableMapping
from typing import Any

from serve import logs
from serve.metrics import Metrics
from serve.problems import problem_response

Scope = dict[str, Any]
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
CLIENT_LEFT = 499  # nginx's number for it; no client ever reads it
# What the page needs and no more: its own scripts, styles and pictures, and audio from here or from a dropped file.
CONTENT_POLICY = "; ".join(
    [
        "default-src 'self'",
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
_QUIET = frozenset({"/health", "/ready", "/metrics"})  # asked every few seconds: a line each only if they fail


class Observed:
    """ASGI layer that names, counts and logs requests, and adds the security headers to every answer.

    A request may bring its own ``X-Request-Id`` of up to 64 letters, digits, dots, dashes and underscores; the answer
    carries it back. The line has the route's template and never the path or the query, which are the client's words.

    Args:
        app: The ASGI application within. What it raises becomes a 500 that says nothing of it.
        metrics: Where to count.
        shared: Whether pages of other origins may use the answers (CORS lets some in).
    """

    def __init__(self, app: Any, *, metrics: Metrics, shared: bool = False) -> None:
        self.app, self.metrics = app, metrics
        self._headers = [
            (b"content-security-policy", CONTENT_POLICY.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-opener-policy", b"same-origin"),
            (b"cross-origin-resource-policy", b"cross-origin" if shared else b"same-origin"),
        ]

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Handle one connection, as ASGI has it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id = _request_id(scope["headers"])
        scope.setdefault("state", {})["request_id"] = request_id
        status = CLIENT_LEFT
        own = [*self._headers, (b"x-request-id", request_id.encode())]

        async def named(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), *own]}
            await send(message)

        self.metrics.begin()
        try:
            await self.app(scope, receive, named)
        except Exception as error:
            logs.log_error("request failed", error, {"request": request_id})
            if status != CLIENT_LEFT:
                raise  # half an answer is out: the server must cut the connection
            detail = f"the server failed to answer this request; its log says why, under {request_id}"
            await problem_response(500, detail)({"type": "http"}, receive, named)
        finally:
            seconds = time.perf_counter() - began
            route = getattr(scope.get("route"), "path", None)
            self.metrics.end(scope["method"], route, status, seconds)
            if logs.LOGGER.isEnabledFor(logging.INFO) and not (route in _QUIET and status == 200):
                facts = {
                    "request": request_id,
                    "method": scope["method"][:16],
                    "route": route or "other",
                    "status": status,
                    "ms": round(1000 * seconds, 2),
                    "client": scope["state"].get("client") or (scope.get("client") or ("?",))[0],
                }
                logs.log("request", facts)


def _request_id(headers: list[tuple[bytes, bytes]]) -> str:
    for name, value in headers:
        if name == b"x-request-id":
            return value.decode() if _REQUEST_ID.fullmatch(value) else uuid.uuid4().hex
    return uuid.uuid4().hex
