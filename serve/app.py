"""The ASGI application: routes, errors, the page, and the time from start to stop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

import xmodal
from serve import problems
from serve.routes import health, search, tracks
from serve.service import Service
from serve.settings import Settings

STATIC = Path(__file__).parent / "static"


def create_app(settings: Settings, service: Service | None = None) -> FastAPI:
    """The application; it begins to load its model and index when it is started.

    ``app.state.service`` is its :class:`~serve.service.Service`.

    Args:
        settings: How it is set.
        service: Its state, where the caller wants to know of it too.

    Raises:
        ValueError: If a setting is out of range, or there is no index to serve.
    """
    service = service or Service(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
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
    for module in (health, search, tracks):
        app.include_router(module.router)
    if STATIC.joinpath("index.html").is_file():
        app.mount("/static", StaticFiles(directory=STATIC), name="static")

        @app.get("/", include_in_schema=False)
        async def page() -> FileResponse:
            return FileResponse(STATIC / "index.html")

    return app
