"""Every error that leaves the server: an RFC 9457 problem document with one clear sentence."""

from __future__ import annotations

import http
import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from xmodal.errors import AudioError, AudioTooLargeError, XmodalError

MEDIA_TYPE = "application/problem+json"

KINDS: Mapping[int, str] = {
    400: "bad-request",
    401: "token",
    403: "forbidden",
    404: "not-found",
    405: "wrong-method",
    409: "reload-refused",
    413: "too-large",
    415: "wrong-type",
    422: "out-of-range",
    429: "queue-full",
    500: "internal",
    503: "loading",
    504: "time-limit",
}
"""What ``type`` ends in when nothing narrower is said, by status."""


class Problem(Exception):  # noqa: N818  (RFC 9457's word)
    """Something that a client is told.

    Attributes:
        status: The HTTP status.
        detail: One sentence: what is wrong and what to do.
        kind: The last part of the document's ``type``; None for that of the status.
        headers: Headers of the answer, such as Retry-After.
        errors: Parts of the request that were refused: ``where`` and ``problem`` of each.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        kind: str | None = None,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[Mapping[str, str]] = (),
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.kind = status, detail, kind
        self.headers, self.errors = dict(headers or {}), list(errors)


def problem_response(
    status: int,
    detail: str,
    *,
    kind: str | None = None,
    headers: Mapping[str, str] | None = None,
    instance: str | None = None,
    errors: Sequence[Mapping[str, str]] = (),
) -> Response:
    """The answer that tells a client what is wrong; may be awaited as an ASGI application."""
    document: dict[str, Any] = {
        "type": f"urn:xmodal:problem:{kind or KINDS.get(status, 'internal')}",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if instance is not None:
        document["instance"] = instance
    if errors:
        document["errors"] = list(errors)
    # ASCII, because a name from outside may hold what UTF-8 cannot.
    return Response(json.dumps(document), status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Make every error that is expected a problem document; :mod:`serve.observed` does it for the others."""
    app.add_exception_handler(Problem, _of_problem)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(AudioError, _of_audio)
    app.add_exception_handler(XmodalError, _of_input)


async def _of_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return problem_response(
        error.status,
        error.detail,
        kind=error.kind,
        headers=error.headers,
        instance=request.url.path,
        errors=error.errors,
    )


async def _of_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    known = {
        404: f"there is nothing at {path}; the routes are listed in /openapi.json",
        405: f"{path} does not answer {request.method}; the methods are listed in /openapi.json",
    }
    said = known.get(error.status_code, str(error.detail))
    return problem_response(error.status_code, said, headers=error.headers, instance=path)


async def _of_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # What was sent is not repeated: it may be large, secret or no JSON (NaN).
    broken = [one for one in error.errors() if one["type"] == "json_invalid"]
    if broken:
        where = broken[0]["loc"][-1]
        cause = (broken[0].get("ctx") or {}).get("error", "")
        return problem_response(
            400,
            f"the body is no JSON ({str(cause) or 'it cannot be read'}, at character {where})",
            instance=request.url.path,
        )
    errors = [
        {"where": ".".join(map(str, one["loc"])), "problem": _sentence(one["msg"], one.get("ctx"))}
        for one in error.errors()[:20]
    ]
    said = "; ".join(f"{one['where']}: {one['problem']}" for one in errors[:3]) or "the request cannot be read"
    return problem_response(422, said, instance=request.url.path, errors=errors)


async def _of_audio(request: Request, error: Exception) -> Response:
    assert isinstance(error, AudioError)
    # Where files lie on this machine is nobody's business.
    status, kind = (413, "too-large") if isinstance(error, AudioTooLargeError) else (422, "bad-audio")
    return problem_response(status, f"{error.path.name}: {error.reason}", kind=kind, instance=request.url.path)


async def _of_input(request: Request, error: Exception) -> Response:
    return problem_response(422, " ".join(str(error).split()), instance=request.url.path)


def _sentence(message: str, context: Mapping[str, Any] | None) -> str:
    cause = (context or {}).get("error")
    return str(cause) if isinstance(cause, ValueError) else message[:1].lower() + message[1:]
