"""A request whose client has left is given up: what it waits for is taken out of the queues before it is computed."""

from __future__ import annotations

import asyncio
from typing import Any


class Leaving:
    """ASGI layer that cancels the work of a request when its client closes the connection.

    It reads what comes in a message ahead of the application, because only who asks learns that the client has left.

    Args:
        app: The ASGI application within.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle one connection, as ASGI has it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        came: asyncio.Queue[Any] = asyncio.Queue(1)
        answered = False

        async def send_on(message: Any) -> None:
            nonlocal answered
            answered = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        async def read_ahead() -> None:
            while True:
                try:
                    message = await receive()
                except Exception as error:  # the layer outside refuses the body: the application is to hear it
                    await came.put(error)
                    return
                if message["type"] == "http.disconnect":
                    # Servers say so too when the answer is complete; that is no leaving.
                    if not answered:
                        work.cancel()
                    await came.put(message)
                    return
                await came.put(message)

        async def receive_ahead() -> Any:
            message = await came.get()
            if isinstance(message, Exception):
                raise message
            return message

        work = asyncio.ensure_future(self.app(scope, receive_ahead, send_on))
        reading = asyncio.ensure_future(read_ahead())
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError:  # the server itself is stopping
            work.cancel()
            await asyncio.wait([work])
            raise
        finally:
            reading.cancel()
            await asyncio.wait([reading])
        if not work.cancelled():
            work.result()  # or what it raised
