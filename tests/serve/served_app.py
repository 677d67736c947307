"""An application that runs, and a client that asks it without a network."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import httpx2

from serve.app import create_app


@asynccontextmanager
async def serving(settings, *, wait=True, **client):
    """A client of an application that runs; ``client.service`` is the application's state."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        if wait:
            await app.state.service.wait_ready()
        transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1", **client) as found:
            found.service = app.state.service
            yield found


def ask(settings, *requests, **client):
    """The answers to some requests, each ``(method, path, arguments)``, of an application of its own."""

    async def all_of_them():
        async with serving(settings, **client) as found:
            return [await found.request(method, path, **arguments) for method, path, arguments in requests]

    return asyncio.run(all_of_them())


def problem_of(answer, status, kind):
    """The sentence of a problem document, which has every member that it should."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["type"] == f"urn:xmodal:problem:{kind}"
    assert document["status"] == status
    assert document["title"]
    return document["detail"]
