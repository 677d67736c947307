"""What Prometheus reads: right counts, under names whose number no client can raise."""

from __future__ import annotations

import asyncio

from asgi_calls import call
from prometheus_client.parser import text_string_to_metric_families

from serve.metrics import Metrics
from serve.observed import Observed


def samples(metrics):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.expose()[0].decode())
        for sample in family.samples
    }


def test_requests_are_counted_by_template_and_status_whatever_their_paths():
    async def app(scope, receive, send):
        if scope["path"].startswith("/v1/track"):
            scope["route"] = type("Route", (), {"path": "/v1/track"})()
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    metrics = Metrics()
    before = len(samples(metrics))
    for number in range(50):
        asyncio.run(call(Observed(app, metrics=metrics), f"METHOD{number}", f"/made-up/{number}"))
        asyncio.run(call(Observed(app, metrics=metrics), "GET", f"/v1/track?{number}"))
    found = samples(metrics)
    assert found["xmodal_requests_total", ("method", "other"), ("route", "other"), ("status", "404")] == 50
    assert found["xmodal_requests_total", ("method", "GET"), ("route", "/v1/track"), ("status", "404")] == 50
    assert found["xmodal_request_seconds_count", ("route", "/v1/track")] == 50
    assert found["xmodal_requests_under_way",] == 0
    assert len(found) - before < 60, "a hundred different requests make two series and their buckets"


def test_a_client_that_left_before_its_answer_is_counted_as_such():
    async def app(scope, receive, send):
        raise asyncio.CancelledError

    metrics = Metrics()

    async def cancelled():
        try:
            await call(Observed(app, metrics=metrics))
        except asyncio.CancelledError:
            return

    asyncio.run(cancelled())
    found = samples(metrics)
    assert found["xmodal_requests_total", ("method", "GET"), ("route", "other"), ("status", "499")] == 1
    assert found["xmodal_requests_under_way",] == 0


def test_two_servers_in_one_process_count_apart_and_memory_is_told():
    first, second = Metrics(), Metrics()
    first.tracks.set(7)
    assert samples(first)["xmodal_tracks",] == 7
    assert samples(second)["xmodal_tracks",] == 0
    assert samples(first)["process_resident_memory_bytes",] > 1e6
    assert samples(first)["process_open_fds",] > 2
