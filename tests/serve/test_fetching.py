"""Sounds by URL: from listed hosts alone, at public addresses, without leaving them, and never too much or too long."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest
from corrupt_audio import chirp, write
from served_app import problem_of, serving

from serve.fetching import AllowedHost, Fetcher, is_public
from serve.problems import Problem

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


@asynccontextmanager
async def host(answers):
    """A host on loopback that answers a path with bytes, or with what a coroutine writes; gives its port and log."""
    asked = []

    async def serve(reader, writer):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            asked.append(head)
            answer = answers[head.split()[1]]
            if callable(answer):
                await answer(writer)
            else:
                writer.write(answer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], asked
    finally:
        server.close()
        await asyncio.sleep(0.01)


async def endless(writer):
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"a" * 1000)
        await writer.drain()


async def trickle(writer):
    writer.write(HEAD % 1000)
    while True:
        writer.write(b"a")
        await writer.drain()
        await asyncio.sleep(0.02)


async def silence(writer):
    await asyncio.sleep(30)


def redirect(place):
    return f"HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode()


async def content_of(fetcher, url):
    async with fetcher.open(url) as fetched:
        parts = []
        while part := await fetched.read(1 << 20):
            parts.append(part)
        return fetched.name, b"".join(parts)


def fetch(path, answers, *, allowed="127.0.0.1:{port}", url="http://127.0.0.1:{port}", max_bytes=5000, seconds=5.0):
    """What comes of a URL, or the problem, and the heads of the requests that reached the host."""

    async def run():
        async with host(answers) as (port, asked):
            hosts = [one.format(port=port) for one in [allowed] if one]
            fetcher = Fetcher(hosts, max_bytes=max_bytes, seconds=seconds)
            try:
                found = await content_of(fetcher, url.format(port=port) + path)
            except Problem as problem:
                found = problem
            assert fetcher._under_way == 0
            return found, asked

    return asyncio.run(asyncio.wait_for(run(), 20))


def test_a_file_of_a_listed_host_is_fetched_whole_and_named_after_its_url():
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    (name, content), asked = fetch("/a/my%20song.wav?part=1", {"/a/my%20song.wav?part=1": HEAD % 5 + b"abcde"})
    assert (name, content) == ("my song.wav", b"abcde")
    assert asked[0].startswith("GET /a/my%20song.wav?part=1 HTTP/1.1\r\n")
    assert "authorization" not in asked[0].lower()
    assert fetch("/", {"/": chunked})[0] == ("", b"abcde")
    assert fetch("/a", {"/a": redirect("b?x"), "/b?x": HEAD % 1 + b"z"})[0] == ("b", b"z")


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        (HEAD % 6000, 413, "more"),
        (endless, 413, "more"),
        (trickle, 422, "too slowly"),
        (silence, 422, "in time"),
        (HEAD % 10 + b"abc", 422, "broke off"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 422, "answers 404"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", 422, "compressed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", 422, "RemoteProtocolError"),
        (b"SSH-2.0\r\n\r\n", 422, "RemoteProtocolError"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"a" * 100_000, 422, "RemoteProtocolError"),
        (b"", 422, "RemoteProtocolError"),
        (redirect("http://169.254.169.254/latest"), 422, "another host"),
        (redirect("http://127.0.0.1:1/"), 422, "another host"),
        (redirect("//localhost/"), 422, "another host"),
        (redirect("file:///etc/passwd"), 422, "another host"),
        (redirect("/a"), 422, "more than 3 times"),
    ],
)
def test_what_a_host_may_not_do_is_a_problem_and_ends_at_once(answer, status, said):
    problem, asked = fetch("/a", {"/a": answer}, seconds=0.3 if answer in (trickle, silence) else 5.0)
    assert (problem.status, said in problem.detail) == (status, True), problem.detail
    assert len(asked) == (4 if "times" in said else 1)


def test_a_redirect_to_another_host_is_not_followed_though_that_one_is_listed_too():
    async def run():
        answers = {"/b": HEAD % 1 + b"z"}
        async with host(answers) as (port, asked):
            answers["/a"] = redirect(f"http://store.internal:{port}/b")
            hosts = [f"127.0.0.1:{port}", f"store.internal:{port}=127.0.0.1"]
            fetcher = Fetcher(hosts, max_bytes=5000, seconds=5.0)
            assert (await content_of(fetcher, f"http://store.internal:{port}/b"))[1] == b"z"
            with pytest.raises(Problem, match="another host"):
                await content_of(fetcher, f"http://127.0.0.1:{port}/a")
            assert len(asked) == 2

    asyncio.run(run())


@pytest.mark.parametrize(
    ("allowed", "url", "status", "said"),
    [
        ("", "http://127.0.0.1:{port}", 403, "fetches nothing"),
        ("cdn.example", "http://127.0.0.1:{port}", 403, "may not fetch from 127.0.0.1"),
        ("127.0.0.1", "http://127.0.0.1:{port}", 403, "may not fetch"),  # another port
        ("127.0.0.1:{port}", "http://127.1:{port}", 403, "may not fetch"),
        ("127.0.0.1:{port}", "http://2130706433:{port}", 403, "may not fetch"),
        ("127.0.0.1:{port}", "http://127.0.0.1.evil.example:{port}", 403, "may not fetch"),
        ("127.0.0.1:{port}", "http://127.0.0.1:{port}@evil.example", 422, "name or a password"),
        ("127.0.0.1:{port}", "http://evil.example\\@127.0.0.1:{port}", 422, "http or https"),
        ("127.0.0.1:{port}", "ftp://127.0.0.1:{port}", 422, "http or https"),
        ("127.0.0.1:{port}", "file://", 422, "http or https"),
        ("127.0.0.1:{port}", "http://127.0.0.1:{port}/\r\nHost: other", 422, "http or https"),
        ("127.0.0.1:{port}", "http://127.0.0.1:{port}/é", 422, "http or https"),
        ("127.0.0.1:{port}", "http://127.0.0.1:99999999", 422, "http or https"),
        ("127.0.0.1:{port}", "http://[::1", 422, "http or https"),
        ("127.0.0.1:{port}", "http://127.0.0.1:{port}/" + "a" * 2000, 422, "http or https"),
        ("localhost:{port}", "http://localhost:{port}", 422, "no public address"),
    ],
)
def test_what_is_not_on_the_list_is_never_asked(allowed, url, status, said):
    problem, asked = fetch("/a", {"/a": HEAD % 1 + b"a"}, allowed=allowed, url=url)
    assert (problem.status, said in problem.detail) == (status, True), problem.detail
    assert asked == []


def test_a_host_without_a_public_address_is_reached_where_the_list_says_that_it_is():
    answers = {"/a": HEAD % 1 + b"a"}
    found, asked = fetch("/a", answers, allowed="store.internal:{port}=127.0.0.1", url="http://store.internal:{port}")
    assert found == ("a", b"a")
    assert "\r\nhost: store.internal:" in asked[0].lower()


@pytest.mark.parametrize(
    "text",
    ["", "*", "*.example", "http://a.example", "a.example/path", "me@a.example", "a:b", "a=b", "a=", "é.test"],
)
def test_what_names_no_host_is_refused_at_the_start(text):
    with pytest.raises(ValueError, match="cdn.example:8443"):
        AllowedHost.of(text)


def test_the_forms_of_a_host():
    assert AllowedHost.of(" CDN.example ") == AllowedHost("cdn.example")
    assert AllowedHost.of("a.example:8443") == AllowedHost("a.example", 8443)
    assert AllowedHost.of("10.0.0.5") == AllowedHost("10.0.0.5", None, "10.0.0.5")
    assert AllowedHost.of("[::1]:80") == AllowedHost("::1", 80, "::1")
    assert AllowedHost.of("store.internal:9000=10.0.0.5") == AllowedHost("store.internal", 9000, "10.0.0.5")


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True), ("2606:2800:220:1::1", True), ("127.0.0.1", False), ("10.1.2.3", False),
        ("172.16.0.1", False), ("192.168.1.1", False), ("169.254.169.254", False), ("100.64.0.1", False),
        ("0.0.0.0", False), ("224.0.0.1", False), ("::1", False), ("fe80::1", False), ("fc00::1", False),
        ("::ffff:127.0.0.1", False), ("64:ff9b::7f00:1", False), ("2002:7f00:1::", False), ("::", False),
        ("fe80::1%eth0", False), ("localhost", False),
    ],
)  # fmt: skip
def test_addresses_of_ones_own_networks_are_not_public(address, public):
    assert is_public(address) is public


def test_a_sound_by_url_has_the_vector_that_it_has_when_it_is_sent(tiny_settings, tmp_path):
    content = write(tmp_path / "a.wav", chirp(1.3, 8000), 8000).read_bytes()

    async def run():
        async with host({"/tone.wav": HEAD % len(content) + content, "/x": HEAD % 4 + b"RIFF"}) as (port, _):
            url = f"http://127.0.0.1:{port}"
            async with serving(replace(tiny_settings, fetch_host=(f"127.0.0.1:{port}",))) as client:
                sent = await client.post("/v1/embed/audio", files={"file": ("a.wav", content)})
                fetched = await client.post("/v1/embed/audio", params={"url": f"{url}/tone.wav"})
                kept = await client.post("/v1/uploads", params={"url": f"{url}/tone.wav"})
                broken = await client.post("/v1/uploads", params={"url": f"{url}/x"})
                both = await client.post("/v1/uploads", params={"url": f"{url}/x"}, files={"file": ("a.wav", content)})
                assert client.service.store._bytes == 0
            async with serving(tiny_settings) as client:
                refused = await client.post("/v1/uploads", params={"url": f"{url}/tone.wav"})
        return sent, fetched, kept, broken, both, refused

    sent, fetched, kept, broken, both, refused = asyncio.run(run())
    np.testing.assert_allclose(fetched.json()["vector"], sent.json()["vector"], atol=1e-6)
    assert kept.json()["name"] == "tone.wav"
    assert problem_of(broken, 422, "bad-audio").startswith("x: ")
    problem_of(both, 422, "out-of-range")
    assert "send the file itself" in problem_of(refused, 403, "fetch-refused")
