"""The client asks every route, gives what the server says, and raises what it refuses."""

from __future__ import annotations

import asyncio
import io
import json
from dataclasses import replace

import httpx2
import numpy as np
import pytest

import xmodal
from serve.app import create_app
from serve.client import Client, ServeError


def use(settings, scenario, **options):
    """Run ``scenario(client)`` against an application of its own."""

    async def inside():
        app = create_app(settings)
        async with app.router.lifespan_context(app):
            await app.state.service.wait_ready()
            transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
            async with Client("http://127.0.0.1", transport=transport, **options) as client:
                return await scenario(client)

    return asyncio.run(inside())


def test_every_question_is_answered(tiny_settings, served, tone_tracks, tmp_path):
    sound = tone_tracks.parent / "03.wav"

    async def everything(client):
        await client.wait_ready()
        info = await client.info()
        kept = await client.upload(sound)
        with sound.open("rb") as file:
            of_stream = await client.embed_audio(file)
        found = await client.search(terms=[{"audio": kept["audio"]}, {"text": "low", "weight": -0.001}], k=3, tags=2)
        line = await client.search(
            "id:tone03", k=2, where=["pitch=high"], group="motion", diversity=0.1, duplicates=1.0
        )
        return {
            "info": info,
            "found": found,
            "line": line,
            "similar": await client.similar("tone03", k=4, where=["pitch=low"]),
            "texts": await client.embed_texts([f"text {number}" for number in range(600)]),
            "sound": await client.embed_audio(sound, windows=True),
            "of_stream": of_stream,
            "stored": await client.embed_audio(id="tone03"),
            "tags": await client.tag(["tone03"], tags=["low", {"name": "high", "kind": "pitch"}], top=1),
            "heard": await client.tag(sound=sound),
            "all": [track["id"] async for track in client.tracks()],
            "some": [track["id"] async for track in client.tracks(where=["pitch=low"], title="1")],
            "track": await client.track("tone03"),
            "facets": await client.facets(),
            "vocabulary": await client.vocabulary(),
            "map": await client.map(),
            "waveform": await client.waveform("tone03", 10),
            "bytes": await client.download("tone03", tmp_path / "tone.wav"),
            "reload": await client.reload(),
        }

    got = use(tiny_settings, everything)
    embedder = xmodal.load(served / "model", device="cpu")
    assert got["info"]["space_id"] == got["found"]["space_id"] == got["reload"]["space_id"] == embedder.space_id
    assert got["found"]["hits"][0]["id"] == "tone03"
    assert {len(hit["tags"]) for hit in got["found"]["hits"]} == {2}
    assert len(got["line"]["hits"]) == 2, "steady and pulsing"
    assert {int(hit["id"][4:]) % 2 for hit in got["similar"]["hits"]} == {0}
    np.testing.assert_allclose(got["texts"][:3], embedder.embed_texts(["text 0", "text 1", "text 2"]), atol=1e-6)
    assert len(got["texts"]) == 600, "more than one request may have"
    np.testing.assert_allclose(got["sound"]["vector"], got["of_stream"]["vector"], atol=1e-6)
    np.testing.assert_allclose(got["sound"]["vector"], got["stored"]["vector"], atol=1e-5)
    assert len(got["tags"]["tracks"][0]["tags"]) == 1
    assert got["heard"]["tracks"][0]["id"] == "03.wav"
    assert got["all"] == [f"tone{number:02d}" for number in range(40)]
    assert got["some"] == ["tone10", "tone12", "tone14", "tone16", "tone18"]
    assert got["track"]["id"] == "tone03"
    assert {field["name"] for field in got["facets"]} >= {"pitch", "motion"}
    assert len(got["vocabulary"]) == 4
    assert len(got["map"]["points"]) == 40
    assert len(got["waveform"]["peaks"]) == 10
    assert (tmp_path / "tone.wav").read_bytes() == sound.read_bytes()
    assert got["bytes"] == sound.stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == ["tone.wav"]


def test_what_the_server_refuses_is_raised_with_its_sentence(tiny_settings, tmp_path):
    async def refused(client):
        found = []
        for coroutine in (
            client.track("none"),
            client.search("a", k=9999),
            client.upload(io.BytesIO(b"no sound")),
            client.download("none", tmp_path / "a.wav"),
        ):
            with pytest.raises(ServeError) as error:
                await coroutine
            found.append(error.value)
        return found

    track, long, upload, download = use(tiny_settings, refused)
    assert (track.status, track.kind) == (404, "unknown-id")
    assert str(track).startswith("the catalogue holds no track 'none'")
    assert (long.status, long.kind) == (422, "out-of-range")
    assert (upload.status, upload.kind) == (422, "bad-audio")
    assert download.status == 404
    assert not list(tmp_path.iterdir())


def test_the_token_is_sent(tiny_settings):
    token = "a-token-of-some-length"
    settings = replace(tiny_settings, token=(token,))

    async def ask(client):
        return await client.info()

    assert use(settings, ask, token=token)["token_needed"]
    with pytest.raises(ServeError) as refused:
        use(settings, ask)
    assert refused.value.status == 401


def answering(*answers):
    """A client to whose requests these are the answers, and the list of what it asked."""
    asked, left = [], list(answers)

    def answer(request):
        asked.append(request)
        return left.pop(0)

    return Client(transport=httpx2.MockTransport(answer)), asked


def problem(status, kind="queue-full", **headers):
    content = json.dumps({"type": f"urn:xmodal:problem:{kind}", "detail": "too much", "status": status})
    return httpx2.Response(status, content=content, headers={"content-type": "application/problem+json", **headers})


def test_a_request_for_which_there_is_no_room_is_sent_again_after_the_time_that_is_named():
    client, asked = answering(
        problem(429, **{"retry-after": "0"}), problem(503, **{"retry-after": "0"}), httpx2.Response(200, json={"a": 1})
    )
    assert asyncio.run(client.info()) == {"a": 1}
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("answers", "sent"),
    [
        ([problem(429)], 1),
        ([problem(429, **{"retry-after": "3600"})], 1),
        ([problem(504, **{"retry-after": "0"})], 1),
        ([problem(429, **{"retry-after": "0"})] * 4, 4),
    ],
)
def test_it_is_not_sent_again_for_ever(answers, sent):
    client, asked = answering(*answers)
    with pytest.raises(ServeError, match="too much"):
        asyncio.run(client.info())
    assert len(asked) == sent


def test_an_answer_that_is_not_the_servers_is_still_one_sentence():
    client, _ = answering(httpx2.Response(502, html="<h1>Bad gateway</h1>"))
    with pytest.raises(ServeError, match="the answer was 502 Bad Gateway") as error:
        asyncio.run(client.info())
    assert error.value.status == 502


def test_a_server_that_is_not_there_is_named():
    async def ask():
        async with Client("http://127.0.0.1:9", timeout_seconds=2) as client:
            await client.wait_ready(0.3)

    with pytest.raises(
        ServeError, match=r"the server at http://127.0.0.1:9 cannot be reached .*is it running\?"
    ) as error:
        asyncio.run(ask())
    assert error.value.status == 0


def test_one_text_is_no_list():
    with pytest.raises(ValueError, match="wrap it in a list"):
        asyncio.run(Client().embed_texts("a"))
