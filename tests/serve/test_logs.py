"""Each request leaves one line, with an id that the client sees too, and with nothing that the client has said."""

from __future__ import annotations

import asyncio
import io
import json
import logging

import pytest
from asgi_calls import call

from serve import logs
from serve.access import Access
from serve.limits import Limits, install
from serve.metrics import Metrics
from serve.observed import CONTENT_POLICY, Observed

SECRET = "very-secret-token-of-alice"


@pytest.fixture
def lines():
    names = (logs.LOGGER.name, "uvicorn", "uvicorn.error", "uvicorn.access")
    before = [(logging.getLogger(name), logging.getLogger(name).__dict__.copy()) for name in names]
    stream = io.StringIO()
    logs.configure("info", stream=stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    for logger, state in before:
        logger.__dict__.update(state)


class Route:
    path = "/v1/search"


async def fine(scope, receive, send):
    scope["route"] = Route()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"fine"})


def test_a_line_has_the_facts_of_a_request_and_not_its_words(lines):
    app = Observed(fine, metrics=Metrics())
    answer = asyncio.run(
        call(
            app,
            "GET",
            "/v1/search",
            query=b"q=my+private+words",
            headers={"authorization": f"Bearer {SECRET}", "cookie": f"xmodal_token={SECRET}"},
        )
    )
    (line,) = lines()
    assert line.keys() == {"time", "level", "event", "request", "method", "route", "status", "ms", "client"}
    assert (line["event"], line["route"], line["status"], line["client"]) == ("request", "/v1/search", 200, "127.0.0.1")
    assert line["request"] == answer.headers["x-request-id"]
    assert line["time"].endswith("+00:00")
    assert line["ms"] >= 0
    assert SECRET not in json.dumps(line)
    assert "private" not in json.dumps(line)


@pytest.mark.parametrize(
    ("given", "kept"),
    [("abc-1_2.3", True), ("x" * 64, True), ("x" * 65, False), ('a"b\\n', False), ("a b", False), ("", False)],
)
def test_a_plain_request_id_is_kept_and_any_other_replaced(given, kept):
    answer = asyncio.run(call(Observed(fine, metrics=Metrics()), headers={"x-request-id": given}))
    assert (answer.headers["x-request-id"] == given) is kept
    assert len(answer.headers["x-request-id"]) >= 9


def test_a_failure_is_a_500_that_says_nothing_and_a_line_that_says_where(lines):
    async def failing(scope, receive, send):
        raise RuntimeError(SECRET)

    answer = asyncio.run(call(Observed(failing, metrics=Metrics())))
    assert answer.status == 500
    assert SECRET not in answer.body.decode()
    assert answer.headers["x-request-id"] in answer.problem["detail"]
    error, request = lines()
    assert (error["level"], error["error"]) == ("error", "RuntimeError")
    assert any("test_logs.py" in place and "failing" in place for place in error["at"])
    assert request["status"] == 500
    assert SECRET not in json.dumps([error, request])


def test_half_an_answer_is_not_continued_with_another(lines):
    async def failing(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("late")

    with pytest.raises(RuntimeError, match="late"):
        asyncio.run(call(Observed(failing, metrics=Metrics())))
    assert [line["event"] for line in lines()] == ["request failed", "request"]


def test_whatever_is_logged_stays_on_one_line(lines):
    logs.log("odd", {"text": 'a\nb\r"\ud800\u2028', "object": object()})
    (line,) = lines()
    assert line["text"] == 'a\nb\r"\ud800\u2028'


def test_uvicorn_says_its_own_things_as_json_and_no_addresses_with_queries(lines):
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    logging.getLogger("uvicorn.access").info("GET /?q=private")
    assert [line["event"] for line in lines()] == ["Invalid HTTP request received."]


def test_questions_after_health_leave_no_line_unless_the_answer_is_no(lines):
    statuses = []

    async def health(scope, receive, send):
        scope["route"] = type("Route", (), {"path": "/ready"})()
        await send({"type": "http.response.start", "status": statuses[-1], "headers": []})
        await send({"type": "http.response.body", "body": b""})

    for status, count in ((200, 0), (503, 1)):
        statuses.append(status)
        asyncio.run(call(Observed(health, metrics=Metrics())))
        assert len(lines()) == count


def test_an_unknown_level_is_refused():
    with pytest.raises(ValueError, match="log level must be debug, info, warning or error, got 'loud'"):
        logs.configure("loud")


def test_every_answer_has_the_security_headers_also_refusals():
    from starlette.applications import Starlette

    app = Starlette()
    install(app, limits=Limits(), access=Access(hosts=["music.example"]), metrics=Metrics())
    for host, status in (("music.example", 404), ("evil.example", 421)):
        answer = asyncio.run(call(app, "GET", "/nothing", headers={"host": host}))
        assert answer.status == status
        assert answer.headers["content-security-policy"] == CONTENT_POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in answer.headers
    assert "unsafe" not in CONTENT_POLICY
    assert "frame-ancestors 'none'" in CONTENT_POLICY


def test_only_listed_origins_are_let_in_and_none_by_default():
    from starlette.applications import Starlette

    def preflight(access, origin):
        app = Starlette()
        install(app, limits=Limits(), access=access, metrics=Metrics())
        headers = {"origin": origin, "access-control-request-method": "POST"}
        return asyncio.run(call(app, "OPTIONS", "/v1/search", headers=headers))

    listed = Access(origins=["https://music.example"])
    right = preflight(listed, "https://music.example")
    assert (right.status, right.headers["access-control-allow-origin"]) == (200, "https://music.example")
    assert "access-control-allow-credentials" not in right.headers
    assert "access-control-allow-origin" not in preflight(listed, "https://evil.example").headers
    assert "access-control-allow-origin" not in preflight(Access(), "https://music.example").headers
