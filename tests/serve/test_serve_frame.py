"""The server's frame: it loads, says what it serves, and refuses with problem documents."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from served_app import ask, serving
from served_app import problem_of as problem

from serve.app import create_app
from serve.settings import Settings
from xmodal.errors import SpaceMismatchError


def test_it_says_what_it_serves(tiny_settings, served):
    health, ready, info = ask(tiny_settings, ("GET", "/health", {}), ("GET", "/ready", {}), ("GET", "/v1/info", {}))
    assert health.json() == {"status": "ok"}
    found = info.json()
    assert ready.json() == {"status": "ready", "space_id": found["space_id"]}
    assert (found["tracks"], found["rows"], found["dim"], found["engine"]) == (40, 40, 12, "flat")
    assert found["model"].endswith("/model")
    assert not found["moments"]


def test_an_index_of_windows_is_one_of_moments(tiny_settings, served):
    (info,) = ask(replace(tiny_settings, index=str(served / "windows")), ("GET", "/v1/info", {}))
    assert info.json()["moments"]
    assert info.json()["tracks"] == 40 < info.json()["rows"]


def test_while_it_loads_it_lives_and_is_not_ready(tiny_settings):
    async def early():
        async with serving(tiny_settings, wait=False) as client:
            return [await client.get(path) for path in ("/health", "/ready", "/v1/info", "/v1/search?q=a")]

    health, *others = asyncio.run(early())
    assert health.status_code == 200
    for answer in others:
        assert "being loaded" in problem(answer, 503, "loading")
        assert answer.headers["retry-after"]


def test_a_server_that_drains_says_so_and_still_answers(tiny_settings):
    async def leaving():
        async with serving(tiny_settings) as client:
            client.service.draining = True
            return await client.get("/ready"), await client.get("/v1/search?q=calm")

    ready, found = asyncio.run(leaving())
    problem(ready, 503, "draining")
    assert found.status_code == 200


def test_what_does_not_fit_together_is_not_served(tiny_settings, tmp_path):
    from tiny import tiny_model

    tiny_model(seed=1).save(tmp_path / "other")

    async def start():
        async with serving(replace(tiny_settings, model=str(tmp_path / "other"))):
            pass

    with pytest.raises(SpaceMismatchError, match="name the model that made the index"):
        asyncio.run(start())


def test_without_an_index_there_is_no_application():
    with pytest.raises(ValueError, match="say which index"):
        create_app(Settings())


def test_a_text_finds_what_a_search_in_python_finds(tiny_settings, served):
    import xmodal
    from xmodal.index import load_index
    from xmodal.search import search

    embedder = xmodal.load(served / "model", device="cpu")
    vectors = embedder.embed_queries(["a low tone"])
    (expected,) = search(load_index(served / "index"), vectors, 5, space_id=embedder.space_id)
    (answer,) = ask(tiny_settings, ("GET", "/v1/search", {"params": {"q": "a low tone", "k": 5}}))
    hits = answer.json()["hits"]
    assert [hit["id"] for hit in hits] == [hit.id for hit in expected]
    assert [hit["score"] for hit in hits] == pytest.approx([hit.score for hit in expected], abs=1e-6)
    assert [hit["rank"] for hit in hits] == [1, 2, 3, 4, 5]
    assert answer.json()["space_id"] == embedder.space_id
    assert answer.json()["next_offset"] == 5


def test_pages_of_hits_are_one_list(tiny_settings):
    def query(k, offset):
        return "GET", "/v1/search", {"params": {"q": "a low tone", "k": k, "offset": offset}}

    whole, first, rest = (answer.json() for answer in ask(tiny_settings, query(40, 0), query(25, 0), query(25, 25)))
    assert first["hits"] + rest["hits"] == whole["hits"]
    assert (first["next_offset"], rest["next_offset"], whole["next_offset"]) == (25, None, None)


def test_where_the_files_lie_stays_on_the_server(tiny_settings, tone_tracks):
    found, listed = ask(tiny_settings, ("GET", "/v1/search?q=a", {}), ("GET", "/v1/tracks?limit=3", {}))
    assert str(tone_tracks.parent) not in found.text + listed.text
    assert listed.json()["tracks"][0]["metadata"]["file"] == "00.wav"


def test_tracks_come_in_pages(tiny_settings):
    first, last, named, track = (
        answer.json()
        for answer in ask(
            tiny_settings,
            ("GET", "/v1/tracks?limit=30", {}),
            ("GET", "/v1/tracks?limit=30&offset=30", {}),
            ("GET", "/v1/tracks?q=0", {}),
            ("GET", "/v1/track?id=tone07", {}),
        )
    )
    assert [one["id"] for one in first["tracks"] + last["tracks"]] == [f"tone{number:02d}" for number in range(40)]
    assert (first["total"], first["next_offset"], last["next_offset"]) == (40, 30, None)
    assert {one["id"] for one in named["tracks"]} == {"tone10", "tone20", "tone30", *(f"tone0{n}" for n in range(10))}
    assert sorted((tag["name"], tag["kind"]) for tag in track["tags"] if tag["given"]) == [
        ("high", "pitch"),
        ("pulsing", "motion"),
    ]


@pytest.mark.parametrize(
    ("method", "path", "status", "kind", "said"),
    [
        ("GET", "/nothing/here", 404, "not-found", "there is nothing at /nothing/here"),
        ("POST", "/v1/tracks", 405, "wrong-method", "does not answer POST"),
        ("GET", "/v1/search", 422, "out-of-range", "query.q: field required"),
        ("GET", "/v1/search?q=%20", 422, "out-of-range", "empty"),
        ("GET", "/v1/search?q=a&k=0", 422, "out-of-range", "query.k"),
        ("GET", "/v1/search?q=a&k=999&offset=9", 422, "out-of-range", "1000 at most"),
        ("GET", "/v1/search?q=a&where=genre", 422, "out-of-range", "is no condition"),
        ("GET", "/v1/search?q=" + "a" * 2001, 422, "out-of-range", "2000 characters"),
        ("GET", "/v1/tracks?limit=1001", 422, "out-of-range", "1000 at most"),
        ("GET", "/v1/tracks?offset=-1", 422, "out-of-range", "query.offset"),
        ("GET", "/v1/track?id=none", 404, "unknown-id", "holds no track 'none'"),
    ],
)
def test_a_refusal_is_a_problem_document_with_one_sentence(tiny_settings, method, path, status, kind, said):
    (answer,) = ask(tiny_settings, (method, path, {}))
    assert said in problem(answer, status, kind)
