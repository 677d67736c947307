"""Requests that nobody sane would send: the whole OpenAPI document by schemathesis, and the worst by hand. No 5xx."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import socket
import threading
import time

import httpx2
import hypothesis
import pytest
import schemathesis
import uvicorn
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance
from served_app import serving

from serve.app import create_app
from serve.connections import protocol


@pytest.fixture(scope="module")
def server(tiny_settings):
    """A real server on loopback, in a thread: its address."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    app = create_app(dataclasses.replace(tiny_settings, time_limit_seconds=20.0))
    running = uvicorn.Server(uvicorn.Config(app, log_config=None, http=protocol(10.0), timeout_graceful_shutdown=1))
    thread = threading.Thread(target=running.run, args=([taken],))
    thread.start()
    while not running.started:
        assert thread.is_alive()
        time.sleep(0.02)
    address = f"http://127.0.0.1:{taken.getsockname()[1]}"
    try:
        until = time.monotonic() + 60
        while httpx2.get(f"{address}/ready").status_code != 200:
            assert thread.is_alive()
            assert time.monotonic() < until
            time.sleep(0.05)
        yield address
    finally:
        running.should_exit = True
        thread.join()
        taken.close()


@pytest.fixture(scope="module")
def operations(server):
    schema = schemathesis.openapi.from_url(f"{server}/openapi.json")
    return {
        f"{operation.ok().method.upper()} {operation.ok().path}": operation.ok()
        for operation in schema.get_all_operations()
    }


def names():
    """The operations, known before a server runs."""
    from serve.settings import Settings

    document = create_app(Settings(index="nowhere")).openapi()
    return [f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods]


@pytest.mark.parametrize("name", names())
def test_whatever_is_asked_the_answer_is_no_server_error_and_fits_the_document(name, operations, server):
    operation = operations[name]
    statuses = set()

    @hypothesis.settings(
        max_examples=15,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )
    @hypothesis.given(case=operation.as_strategy())
    def ask(case):
        response = case.call(base_url=server, timeout=30)
        statuses.add(response.status_code)
        case.validate_response(response, checks=[not_a_server_error, response_schema_conformance])
        if response.status_code >= 400:
            assert response.headers["content-type"][0] == "application/problem+json"
            assert response.json()["detail"]

    ask()
    assert statuses


NAN = b'{"terms":[{"vector":[%s]}]}' % b",".join([b"NaN"] * 12)
WORST = {
    "NaN in a vector": ("POST", "/v1/search", NAN),
    "infinity in a vector": ("POST", "/v1/search", NAN.replace(b"NaN", b"Infinity")),
    "1e999 in a vector": ("POST", "/v1/search", NAN.replace(b"NaN", b"1e999")),
    "huge but finite": ("POST", "/v1/search", NAN.replace(b"NaN", b"1e308")),
    "zeros": ("POST", "/v1/search", NAN.replace(b"NaN", b"0")),
    "a vector of another length": ("POST", "/v1/search", b'{"terms":[{"vector":[1]}]}'),
    "a NaN weight": ("POST", "/v1/search", b'{"terms":[{"text":"a","weight":NaN}]}'),
    "a huge weight": ("POST", "/v1/search", b'{"terms":[{"text":"a","weight":1e308},{"text":"b","weight":1e308}]}'),
    "NaN diversity": ("POST", "/v1/search", b'{"query":"a","diversity":NaN}'),
    "a giant number": ("POST", "/v1/search", b'{"query":"a","k":' + b"9" * 400 + b"}"),
    "more digits than Python takes": ("POST", "/v1/search", b'{"query":"a","k":' + b"9" * 10_000 + b"}"),
    "negative offset": ("POST", "/v1/search", b'{"query":"a","offset":-1}'),
    "deep arrays": ("POST", "/v1/search", b'{"query":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "deep objects": ("POST", "/v1/search", b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "invalid UTF-8": ("POST", "/v1/search", b'{"query":"\xff\xfe\xfa"}'),
    "UTF-16": ("POST", "/v1/search", '{"query":"a"}'.encode("utf-16")),
    "a lone surrogate": ("POST", "/v1/search", b'{"query":"\\ud800"}'),
    "lone surrogates to embed": ("POST", "/v1/embed/text", b'{"texts":["\\udfff\\ud800"]}'),
    "a surrogate for OpenAI": ("POST", "/v1/embeddings", b'{"input":"\\ud800"}'),
    "a surrogate for TEI": ("POST", "/embed", b'{"inputs":"\\ud800"}'),
    "a surrogate in a track": ("POST", "/v1/search", b'{"terms":[{"track":"\\ud800"}]}'),
    "a surrogate in a filter": ("POST", "/v1/search", b'{"query":"a","where":["pitch=\\ud800"]}'),
    "NUL": ("POST", "/v1/search", b'{"query":"a\\u0000b"}'),
    "only a NUL": ("POST", "/v1/search", b'{"query":"\\u0000"}'),
    "blank": ("POST", "/v1/search", b'{"query":" \\u2003\\u200b "}'),
    "right to left": ("POST", "/v1/search", '{"query":"\u202eabc\u2066"}'.encode()),
    "900 kB of text": ("POST", "/v1/search", b'{"query":"' + b"a " * 450_000 + b'"}'),
    "2 MB": ("POST", "/v1/search", b'{"query":"' + b"a" * 2_000_000 + b'"}'),
    "many terms": ("POST", "/v1/search", json.dumps({"terms": [{"text": "a"}] * 20_000}).encode()),
    "many texts": ("POST", "/v1/embed/text", json.dumps({"texts": ["a"] * 100_000}).encode()),
    "an array": ("POST", "/v1/search", b"[]"),
    "null": ("POST", "/v1/search", b"null"),
    "nothing": ("POST", "/v1/search", b""),
    "a number": ("POST", "/v1/search", b"12"),
    "keys twice": ("POST", "/v1/search", b'{"query":"a","query":"b"}'),
    "negative weights alone": ("POST", "/v1/search", b'{"terms":[{"text":"a","weight":-1}]}'),
    "terms that cancel": (
        "POST",
        "/v1/search",
        b'{"terms":[{"text":"a","weight":1},{"text":"a","weight":-1}]}',
    ),
    "a query full of operators": ("POST", "/v1/search", json.dumps({"query": '"' * 999 + "+-*" * 300}).encode()),
    "a query that names a file": ("POST", "/v1/search", b'{"query":"\\"a\\" + /etc/passwd"}'),
    "a filter that is none": ("POST", "/v1/search", b'{"query":"a","where":["=","a","<=>","a=b=c"]}'),
    "a filter with a pattern": ("POST", "/v1/search", b'{"query":"a","where":["title=(a+)+$"]}'),
    "tags of nobody": ("POST", "/v1/tag", b'{"tracks":["none"],"tags":[]}'),
    "tags without names": ("POST", "/v1/tag", b'{"tracks":["tone00"],"tags":["",{"name":null}]}'),
    "a format of nobody": ("POST", "/v1/embeddings", b'{"input":"a","encoding_format":"pickle"}'),
    "negative dimensions": ("POST", "/v1/embeddings", b'{"input":"a","dimensions":-5}'),
    "token ids": ("POST", "/v1/embeddings", b'{"input":[1,2,3]}'),
    "no input": ("POST", "/v1/embeddings", b'{"input":[]}'),
    "a model file": ("POST", "/v1/reload", b'{"model":"/etc/passwd"}'),
    "a folder above": ("POST", "/v1/reload", b'{"index":"../../../.."}'),
    "a NUL in a folder": ("POST", "/v1/reload", b'{"index":"a\\u0000b"}'),
    "a database": ("POST", "/v1/reload", b'{"index":"postgresql://127.0.0.1:1/x"}'),
    "a long folder": ("POST", "/v1/reload", json.dumps({"index": "a/" * 5000}).encode()),
    "a path as id": ("GET", "/v1/audio?id=../../../../etc/passwd", b""),
    "a coded path as id": ("GET", "/v1/audio?id=%2e%2e%2f%2e%2e%2fetc%2fpasswd", b""),
    "a path": ("GET", "/static/../serve/settings.py", b""),
    "a coded path": ("GET", "/static/%2e%2e/settings.py", b""),
    "a double-coded path": ("GET", "/static/%252e%252e/settings.py", b""),
    "slashes": ("GET", "/static//etc/passwd", b""),
    "a NUL in a path": ("GET", "/static/%00", b""),
    "a NUL in an id": ("GET", "/v1/track?id=%00", b""),
    "invalid UTF-8 in an id": ("GET", "/v1/track?id=%ff%fe", b""),
    "invalid UTF-8 in a query": ("GET", "/v1/search?q=%ff%fe%80", b""),
    "a lone % ": ("GET", "/v1/search?q=%&k=%zz", b""),
    "1 MB in an address": ("GET", "/v1/search?q=" + "a" * 1_000_000, b""),
    "a thousand parameters": ("GET", "/v1/search?q=a" + "&where=x" * 1000, b""),
    "an offset of 2**64": ("GET", "/v1/tracks?offset=18446744073709551616&limit=1", b""),
    "NaN as a number": ("GET", "/v1/waveform?id=tone00&points=NaN", b""),
    "a range of nothing": ("GET", "/v1/tracks?limit=0", b""),
    "another method": ("DELETE", "/v1/search", b""),
    "TRACE": ("TRACE", "/", b""),
    "an odd method": ("BREW", "/v1/search", b""),
}


def test_the_worst_by_hand_is_refused_or_answered_and_never_a_server_error(tiny_settings, caplog):
    from asgi_calls import call

    wrong = {}

    async def main():
        settings = dataclasses.replace(tiny_settings, time_limit_seconds=20.0)
        async with serving(settings) as client:
            for what, (method, place, body) in WORST.items():
                head = {"content-type": "application/json"} if body or method == "POST" else {}
                path, _, query = place.partition("?")
                answer = await call(
                    client._transport.app, method, path, query=query.encode(), headers=head, body=[body] if body else []
                )
                text = answer.body.decode("utf-8", "replace")
                if answer.status >= 500:
                    wrong[what] = (answer.status, text[:300])
                elif answer.status >= 400:
                    if answer.headers["content-type"] != "application/problem+json":
                        wrong[what] = (answer.status, answer.headers["content-type"])
                elif "root:" in text or "class Settings" in text:
                    wrong[what] = "a file was served"
                if what.startswith(("NaN", "infinity", "1e999", "a NaN", "2 MB", "1 MB")) and answer.status < 400:
                    wrong[what] = (answer.status, text[:300])
                if answer.headers.get("content-type") == "application/json" and {"NaN", "Infinity"} & {*text.split()}:
                    wrong[what] = "no JSON"
            assert (await client.get("/v1/search", params={"q": "a"})).status_code == 200

    asyncio.run(main())
    assert not wrong
    assert "request failed" not in caplog.text


def test_an_index_whose_paths_lead_astray_serves_nothing_of_them(served, tiny_settings, tmp_path):
    """The paths of an index are its maker's words: none leads out of the library."""
    from xmodal.embeddings import Embeddings
    from xmodal.index import build_index, load_index

    library = tmp_path / "library"
    library.mkdir()
    secret = tmp_path / "secret.wav"
    original = load_index(served / "index")
    secret.write_bytes(b"RIFF secret")
    (library / "link.wav").symlink_to(secret)
    (library / "words.txt").write_text("secret")
    paths = [
        "/etc/passwd", str(secret), "../secret.wav", str(library / "link.wav"), str(library / "words.txt"),
        f"{library}/../secret.wav", "/dev/zero", "/proc/self/environ", "file:///etc/passwd", "http://127.0.0.1/a.wav",
        "a\0b.wav", "", ".", "~/a.wav", "\\\\host\\share\\a.wav", "a" * 5000 + ".wav",
    ]  # fmt: skip
    vectors = original.vectors()[: len(paths)]
    ids = [f"track {number} / ?" for number in range(len(paths))]
    facts = [{"path": path, "title": f"t{number}"} for number, path in enumerate(paths)]
    embeddings = Embeddings(ids, vectors, original.space_id, metadata=facts, model=original.model)
    build_index(embeddings, "flat").save(tmp_path / "index")
    settings = dataclasses.replace(tiny_settings, index=str(tmp_path / "index"), library=(str(library),))

    async def main():
        async with serving(settings) as client:
            descriptors = len(os.listdir("/proc/self/fd"))
            for id_ in ids:
                for route in ("/v1/audio", "/v1/waveform"):
                    answer = await client.get(route, params={"id": id_})
                    assert answer.status_code == 404, (route, id_, answer.text)
                    assert "secret" not in answer.text
                    assert str(tmp_path) not in answer.text
                answer = await client.post("/v1/embed/audio", params={"id": id_, "windows": "true"})
                assert answer.status_code in (200, 404)
            hits = (await client.get("/v1/search", params={"q": "low", "k": 20})).json()["hits"]
            assert all(hit["audio"] is None for hit in hits)
            assert len(os.listdir("/proc/self/fd")) <= descriptors + 2

    asyncio.run(main())
