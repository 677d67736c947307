"""Connections that may not linger: the head of a request has a time limit, which uvicorn itself does not know.

A client that opens a connection and says nothing, or one byte of a header a minute, would hold it for ever. Bodies have
their limit in :mod:`serve.limits`; the time between two requests is uvicorn's ``timeout_keep_alive``.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

try:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
except ImportError:  # it comes with uvicorn[standard], and is a matter of speed alone
    _fastest: Any = H11Protocol
else:
    _fastest = HttpToolsProtocol


def protocol(head_seconds: float, base: Any = None) -> type[asyncio.Protocol]:
    """A protocol of uvicorn's whose connections are closed if the head of a request does not come in time.

    Args:
        head_seconds: From the connection's beginning, or the first byte of a further request, to the end of its head.
        base: uvicorn's; None for the fastest that is installed.
    """
    base = base or _fastest

    class TimedProtocol(base):
        """uvicorn's protocol with a clock."""

        _clock: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._start()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._answering():
                self._stop()
            elif self._clock is None:  # part of the next head
                self._start()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._stop()  # what was read on the way was a whole request, or data_received comes again

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def _answering(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _start(self) -> None:
            self._clock = self.loop.call_later(head_seconds, self._give_up)

        def _stop(self) -> None:
            if self._clock is not None:
                self._clock.cancel()
                self._clock = None

        def _give_up(self) -> None:
            self._clock = None
            if not self._answering() and not self.transport.is_closing():
                self.transport.abort()

    return TimedProtocol
