"""From an application to a process that listens, says where, and leaves politely."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from types import FrameType

import uvicorn

from serve import logs
from serve.app import create_app
from serve.connections import protocol
from serve.service import Service
from serve.settings import Settings
from xmodal.errors import XmodalError

_SWITCH_SECONDS = 0.0005


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound.

    Raises:
        ValueError: If the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol named: else asyncio leaves Nagle's algorithm on, and every answer waits 40 ms.
    taken = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((host, port))
    except OSError as error:
        taken.close()
        raise ValueError(
            f"cannot listen on {host} port {port} ({error.strerror or error}); choose another with --port, or 0 for "
            "any that is free"
        ) from error
    return taken


async def run(settings: Settings) -> int:
    """Serve until a signal says to stop; returns the exit code.

    The first SIGTERM or SIGINT begins the drain: /ready says no at once, the socket closes after
    ``drain_delay_seconds``, and running requests get ``drain_seconds``. A second one does not wait.
    """
    logs.configure(settings.log_level, form=settings.log_format)
    # After each operation the model's thread asks for the interpreter again, and a busy event loop may keep it this
    # long: a pass has hundreds of operations, so Python's 5 ms would hold it up for longer than it computes.
    sys.setswitchinterval(_SWITCH_SECONDS)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # its coming and going is ours to say
    taken = listen(settings.host, settings.port)
    host, port = taken.getsockname()[:2]
    address = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
    service = Service(settings)
    config = uvicorn.Config(
        create_app(settings, service),
        access_log=False,
        log_config=None,
        server_header=False,
        limit_concurrency=settings.connections,
        http=protocol(settings.head_seconds),
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
    )
    server = _Server(config, service)
    serving = asyncio.create_task(server.serve([taken]))
    loaded = asyncio.create_task(service.wait_ready())
    await asyncio.wait([serving, loaded], return_when=asyncio.FIRST_COMPLETED)
    if not loaded.done():  # stopped while loading
        loaded.cancel()
        await serving
        return server.exit_code
    if (error := loaded.exception()) is not None:
        server.should_exit = True
        await serving
        if not isinstance(error, XmodalError | ValueError | OSError):
            raise error
        sys.stderr.write(f"xmodal: {' '.join(str(error).split())}\n")
        return 2
    if not service.draining:  # else it was stopped while it loaded
        deployed = loaded.result().deployed
        sys.stdout.write(f"{len(deployed.catalogue):,} tracks of space {deployed.space_id} at {address}\n")
        sys.stdout.flush()
    await serving
    return server.exit_code


class _Server(uvicorn.Server):
    """uvicorn's server with a drain of two steps and an exit code of its own."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service
        self.exit_code = 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called in the main thread between two instructions, so it only leaves notes for the loop."""
        if self.service.draining:
            self.should_exit = self.force_exit = True
            return
        self.exit_code = 130 if sig == signal.SIGINT else 0
        self.service.draining = True
        delay = self.service.settings.drain_delay_seconds
        if delay:
            loop = asyncio.get_event_loop()
            loop.call_soon_threadsafe(loop.call_later, delay, setattr, self, "should_exit", True)
        else:
            self.should_exit = True
