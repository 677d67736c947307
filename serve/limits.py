"""What may come in: sizes and times of requests, who may ask, from where, and how often. Pure ASGI, before any parsing.

FastAPI has no limit on a body and parses it whole, so bytes are counted here as they arrive. A body that trickles in is
given up, and so is one for which there is no room beside the others that are under way.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from serve.access import Access, Caller, RefusedError
from serve.metrics import Metrics
from serve.observed import Observed
from serve.problems import problem_response
from serve.rates import TokenBuckets, client_key

Scope = dict[str, Any]
MIB = 1024**2
_RETRY_SECONDS = 2
_NO_BODY = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True)
class Limits:
    """Sizes, times and rates.

    Attributes:
        json_bytes: Longest body that is no upload.
        upload_bytes: Longest ``multipart/form-data`` body to one of ``upload_paths``.
        bytes_in_flight: Bodies of all requests under way together.
        query_bytes: Longest path with query.
        header_bytes: All header names and values together.
        body_grace_seconds: A body may take this long, however slow it is.
        body_bytes_per_second: After that, it must have come at least as fast as this on average.
        requests_per_second: A client's share over time; None: no limit.
        burst: What a client may ask for at once before that share counts.
        upload_paths: Where uploads are taken.
    """

    json_bytes: int = MIB
    upload_bytes: int = 64 * MIB
    bytes_in_flight: int = 512 * MIB
    query_bytes: int = 8192
    header_bytes: int = 32_768
    body_grace_seconds: float = 20.0
    body_bytes_per_second: int = 8192
    requests_per_second: float | None = None
    burst: int = 60
    upload_paths: Sequence[str] = field(default=("/v1/uploads", "/v1/embed/audio", "/v1/tag"))

    def __post_init__(self) -> None:
        for name in ("json_bytes", "upload_bytes", "query_bytes", "header_bytes", "body_bytes_per_second", "burst"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.bytes_in_flight < max(self.json_bytes, self.upload_bytes):
            raise ValueError(
                f"bytes_in_flight={self.bytes_in_flight} is less than one body may have "
                f"({max(self.json_bytes, self.upload_bytes)}); no such body could ever be received"
            )
        if not self.body_grace_seconds > 0:
            raise ValueError(f"body_grace_seconds must be positive, got {self.body_grace_seconds}")
        if self.requests_per_second is not None and not self.requests_per_second > 0:
            raise ValueError(
                f"requests_per_second must be positive, or None for no limit, got {self.requests_per_second}"
            )


class Guard:
    """ASGI layer that lets a request pass if it keeps to the limits.

    To ``scope["state"]`` it adds ``client`` (the name of the token, or the address) and ``admin``.

    Args:
        app: The ASGI application within.
        limits: Sizes, times and rates.
        access: Tokens, hosts and origins.
        metrics: Where refusals are counted.
    """

    def __init__(self, app: Any, *, limits: Limits, access: Access, metrics: Metrics) -> None:
        self.app, self.limits, self.access, self.metrics = app, limits, access, metrics
        self._in_flight = 0
        rate = limits.requests_per_second
        self._buckets = None if rate is None else TokenBuckets(rate, limits.burst)

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Handle one connection, as ASGI has it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets here
            await send({"type": "websocket.close", "code": 1000})
            return
        head = _Head(scope)
        try:
            self._check_head(scope, head)
            caller = self._check_caller(scope, head)
        except RefusedError as refusal:
            await self._refuse(send, refusal)
            return
        state = scope.setdefault("state", {})
        state["client"], state["admin"] = caller.name, caller.admin
        if scope["method"] in _NO_BODY and not head.has_body:
            await self.app(scope, receive, send)
            return
        body = _Body(self, receive, self._longest_body(scope, head))
        await self._run(scope, body, send)

    def _check_head(self, scope: Scope, head: _Head) -> None:
        limits = self.limits
        # The path itself is decoded here and may be shorter than what was sent.
        asked = len(scope.get("raw_path") or scope["path"].encode()) + len(scope.get("query_string", b""))
        if asked > limits.query_bytes:
            raise RefusedError(
                414,
                "too-large",
                f"the address has {asked} bytes, more than {limits.query_bytes}; send long queries by POST",
            )
        if head.size > limits.header_bytes:
            raise RefusedError(431, "too-large", f"the headers have {head.size} bytes, more than {limits.header_bytes}")
        longest = self._longest_body(scope, head)
        if head.length is not None and head.length > longest:
            raise RefusedError(413, "too-large", _too_large(longest))

    def _longest_body(self, scope: Scope, head: _Head) -> int:
        upload = head.content_type.startswith(b"multipart/form-data") and scope["path"] in self.limits.upload_paths
        return self.limits.upload_bytes if upload else self.limits.json_bytes

    def _check_caller(self, scope: Scope, head: _Head) -> Caller:
        address = (scope.get("client") or ("unknown",))[0]
        caller = self.access.check(scope["method"], scope["path"], address, head.fields, scope.get("scheme", "http"))
        if self._buckets is not None and not self.access.is_open(scope["path"]):
            wait = self._buckets.take(client_key(caller.name), time.monotonic())
            if wait > 0:
                detail = f"there have been too many requests from {caller.name}; try again in {wait:.1f} s"
                raise RefusedError(429, "rate-limit", detail, {"Retry-After": str(math.ceil(wait))})
        return caller

    async def _run(self, scope: Scope, body: _Body, send: Any) -> None:
        """Run the application; if its body is refused meanwhile, that is the answer, whatever the application says."""
        started = False

        async def unless_refused(message: dict[str, Any]) -> None:
            nonlocal started
            if body.refusal is None or started:
                started = True
                await send(message)

        try:
            await self.app(scope, body.receive, unless_refused)
        except RefusedError:
            if started:
                raise
        finally:
            body.release()
        if body.refusal is not None and not started:
            await self._refuse(send, body.refusal)

    async def _refuse(self, send: Any, refusal: RefusedError) -> None:
        self.metrics.refused(refusal.kind)
        # Else the server would go on reading what is not wanted.
        headers = {**refusal.headers, "Connection": "close"}
        response = problem_response(refusal.status, refusal.detail, kind=refusal.kind, headers=headers)
        await response({"type": "http"}, _nothing, send)

    def _reserve(self, count: int) -> bool:
        if self._in_flight + count > self.limits.bytes_in_flight:
            return False
        self._in_flight += count
        self.metrics.body_bytes.set(self._in_flight)
        return True

    def _release(self, count: int) -> None:
        self._in_flight -= count
        self.metrics.body_bytes.set(self._in_flight)


class _Head:
    """What the limits need of a request's headers, read once."""

    def __init__(self, scope: Scope) -> None:
        self.size = 0
        self.fields: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            self.size += len(name) + len(value)
            self.fields.setdefault(name, value)
        self.content_type = self.fields.get(b"content-type", b"").lower()
        length = self.fields.get(b"content-length", b"")
        self.length = int(length) if length.isdigit() and len(length) < 19 else None
        self.has_body = bool(self.length) or b"transfer-encoding" in self.fields


class _Body:
    """A request's body on its way in, counted and timed."""

    def __init__(self, guard: Guard, receive: Any, longest: int) -> None:
        self._guard, self._receive, self._longest = guard, receive, longest
        self._bytes, self._over = 0, False
        self._began = time.monotonic()
        self.refusal: RefusedError | None = None

    async def receive(self) -> dict[str, Any]:
        """ASGI's receive.

        Raises:
            RefusedError: If there is too much of it, it is too slow, or there is no room.
        """
        if self.refusal is not None:
            raise self.refusal
        if self._over:  # now the application waits for the client to leave, which may take any time
            message: dict[str, Any] = await self._receive()
            return message
        limits = self._guard.limits
        by = self._began + limits.body_grace_seconds + self._bytes / limits.body_bytes_per_second
        try:
            async with asyncio.timeout(by - time.monotonic()):
                message = await self._receive()
        except TimeoutError:
            raise self._refused(408, "slow", "the body of the request came too slowly and was given up") from None
        if message["type"] != "http.request":
            return message
        chunk = len(message.get("body", b""))
        if self._bytes + chunk > self._longest:
            raise self._refused(413, "too-large", _too_large(self._longest))
        if chunk and not self._guard._reserve(chunk):
            raise self._refused(
                429, "queue-full", "too many uploads are under way; try again in a moment", retry=_RETRY_SECONDS
            )
        self._bytes += chunk
        self._over = not message.get("more_body", False)
        return message

    def release(self) -> None:
        """The request is over, and its bytes are free for others."""
        self._guard._release(self._bytes)

    def _refused(self, status: int, kind: str, detail: str, *, retry: int | None = None) -> RefusedError:
        self.refusal = RefusedError(status, kind, detail, {} if retry is None else {"Retry-After": str(retry)})
        return self.refusal


async def _nothing() -> dict[str, Any]:
    return {"type": "http.disconnect"}


def _too_large(longest: int) -> str:
    size = f"{longest / MIB:g} MiB" if longest >= MIB else f"{longest} bytes"
    return f"the body of the request is larger than {size}; send less at once"


def install(app: Any, *, limits: Limits, access: Access, metrics: Metrics) -> None:
    """Put the layers around a Starlette or FastAPI application: Observed, CORS if any origin is let in, Guard.

    Args:
        app: The application; it must not have begun to serve.
        limits: Sizes, times and rates.
        access: Tokens, hosts and origins.
        metrics: Where to count.
    """
    app.add_middleware(Guard, limits=limits, access=access, metrics=metrics)
    if access.origins:
        from starlette.middleware.cors import CORSMiddleware

        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(access.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "range"],
            expose_headers=["retry-after", "x-request-id", "content-range"],
        )
    app.add_middleware(Observed, metrics=metrics, shared=bool(access.origins))
