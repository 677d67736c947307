"""Connections over a real socket: who trickles a head, says nothing, or talks nonsense does not hold one for long."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serve.access import Access
from serve.connections import protocol
from serve.limits import Guard, Limits
from serve.metrics import Metrics

REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["path"] == "/slow":
        await asyncio.sleep(0.6)
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def listening(base, application=app, head_seconds=0.3):
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    config = uvicorn.Config(application, http=protocol(head_seconds, base), log_config=None, timeout_keep_alive=60)
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None
    running = asyncio.create_task(server.serve([taken]))
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield taken.getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        await running
        taken.close()


async def rest(reader):
    """What comes until the other side ends the connection."""
    try:
        return await asyncio.wait_for(reader.read(), 20)
    except ConnectionResetError:
        return b""


def test_answers_do_not_wait_for_acknowledgements():
    """asyncio turns Nagle's algorithm off for sockets that say they are TCP, and only for those."""
    from serve.server import listen

    taken = listen("127.0.0.1", 0)
    assert taken.proto == socket.IPPROTO_TCP
    taken.close()


def converse(base, conversation):
    """Runs ``conversation(reader, writer)`` over a connection of its own to a server."""

    async def main():
        async with listening(base) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await conversation(reader, writer)
            writer.close()

    asyncio.run(main())


BOTH = pytest.mark.parametrize("base", [H11Protocol, HttpToolsProtocol])


@BOTH
@pytest.mark.parametrize("said", [b"", b"GET", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "])
def test_a_head_that_never_ends_is_given_up(base, said):
    async def begin(reader, writer):
        writer.write(said)
        assert await rest(reader) == b""

    converse(base, begin)


@BOTH
def test_a_head_that_trickles_is_given_up_also_the_second_of_a_connection(base):
    async def trickle(reader, writer):
        writer.write(REQUEST)
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        began = asyncio.get_running_loop().time()
        try:
            for number in range(200):
                writer.write(b"GET / HTTP/1.1\r\n" if number == 0 else b"X-A: b\r\n")
                await writer.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            pass
        assert asyncio.get_running_loop().time() - began < 8

    converse(base, trickle)


@BOTH
def test_slow_answers_and_idle_connections_are_not_touched(base):
    async def come_and_go(reader, writer):
        for path in (b"/slow", b"/", b"/slow"):
            writer.write(REQUEST.replace(b"GET /", b"GET " + path))
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(0.5)  # longer than a head may take: that is the keep-alive's business

    converse(base, come_and_go)


@BOTH
def test_pipelined_requests_are_all_answered(base):
    async def main():
        async with listening(base) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(REQUEST * 3)
            for _ in range(3):
                assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
            writer.close()

    asyncio.run(main())


@BOTH
def test_nonsense_and_absurd_heads_get_an_error_and_no_exception(base):
    guard = Guard(app, limits=Limits(body_grace_seconds=0.3), access=Access(), metrics=Metrics())
    heads = {
        b"\x00\x01\x02\xff\r\n\r\n": (400,),
        b"GET / HTTP/9.9\r\n\r\n": (400, 505, 200),
        b"GET /?q=" + b"x" * 10**6 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n": (400, 414),
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"y" * 10**6 + b"\r\n\r\n": (400, 431),
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"A: b\r\n" * 20_000 + b"\r\n": (400, 431),
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -5\r\n\r\n": (400,),
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999999999999999\r\n\r\n": (400, 408, 413),
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n": (400, 408),
        b"GET /%ff%fe?q=%ff%fe%00 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n": (200, 400),
        b"GET /\xff\xfe HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n": (200, 400),
    }

    async def main():
        async with listening(base, guard) as port:
            for head, statuses in heads.items():
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    writer.write(head)
                    line = await asyncio.wait_for(reader.readline(), 10)
                    assert line, head[:60]
                    assert int(line.split()[1]) in statuses, (head[:60], line)
                except ConnectionError:  # cut off in the middle of what was too long
                    assert len(head) > 50_000
                writer.close()

    asyncio.run(main())


@BOTH
def test_an_endless_chunked_body_is_cut_off(base):
    guard = Guard(app, limits=Limits(json_bytes=100_000), access=Access(), metrics=Metrics())

    async def main():
        async with listening(base, guard) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
            sent = 0
            try:
                while sent < 50_000_000:
                    writer.write(b"10000\r\n" + bytes(65536) + b"\r\n")
                    await asyncio.wait_for(writer.drain(), 10)
                    sent += 65536
            except ConnectionError:
                pass
            assert sent < 50_000_000, "the server closed the connection"
            writer.close()

    asyncio.run(main())
