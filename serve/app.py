"""The ASGI application: routes, errors, the page, and the time from start to stop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

import xmodal
from serve import limits, openapi, problems
from serve.access import Access
from serve.leaving import Leaving
from serve.limits import Limits
from serve.routes import admin, audio, catalogue, compat, embed, health, search, tag
from serve.service import Service
from serve.settings import Settings

_FORM_BYTES = 65_536  # what a form needs beside the file in it
STATIC = Path(__file__).parent / "static"


def create_app(settings: Settings, service: Service | None = None) -> FastAPI:
    """The application; it begins to load its model and index when it is started.

    ``app.state.service`` is its :class:`~serve.service.Service`.

    Args:
        settings: How it is set.
        service: Its state, where the caller wants to know of it too.

    Raises:
        ValueError: If a setting is out of range, a token is unfit, or there is no index to serve.
    """
    service = service or Service(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    app = FastAPI(
        title="xmodal",
        version=xmodal.__version__,
        summary="Search and tag a catalogue by words and by sound",
        lifespan=lifespan,
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
    )
    app.state.service = service
    problems.install(app)
    openapi.install(app)
    app.add_middleware(Leaving)  # inside of the limits, which count what it reads ahead
    limits.install(app, limits=_limits(settings), access=_access(settings), metrics=service.metrics)
    for module in (health, search, catalogue, audio, tag, embed, compat, admin):
        app.include_router(module.router)
    if STATIC.joinpath("index.html").is_file():
        app.mount("/static", StaticFiles(directory=STATIC), name="static")

        @app.get("/", include_in_schema=False)
        async def page() -> FileResponse:
            return FileResponse(STATIC / "index.html")

    return app


def _limits(settings: Settings) -> Limits:
    per_minute = settings.rate_limit_per_minute
    return Limits(
        json_bytes=settings.json_max_bytes,
        upload_bytes=settings.upload_max_bytes + _FORM_BYTES,
        bytes_in_flight=settings.bytes_in_flight + _FORM_BYTES,
        body_grace_seconds=settings.body_seconds,
        requests_per_second=per_minute / 60 if per_minute else None,
        burst=max(1, min(per_minute, 60)),
    )


def _access(settings: Settings) -> Access:
    admin = settings.admin_token
    if admin is not None and ":" not in admin:
        admin = f"admin:{admin}"
    return Access.of(
        settings.host,
        tokens=settings.token,
        admin_tokens=[] if admin is None else [admin],
        hosts=settings.host_name,
        origins=settings.origin,
    )
