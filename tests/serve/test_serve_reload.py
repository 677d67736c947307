"""A new model and index take the place of those that answer, with no failed request, or nothing changes."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace

import numpy as np
import pytest
from served_app import problem_of, serving
from tiny import tiny_model

import serve.deployed
from serve import schemas
from xmodal.cli import main
from xmodal.embeddings import Embeddings
from xmodal.index import build_index, load_index
from xmodal.index.swap import swap_in


@pytest.fixture(scope="module")
def second(tone_tracks, tmp_path_factory):
    """Another model with an index of its own."""
    folder = tmp_path_factory.mktemp("second")
    tiny_model(seed=5).save(folder / "model")
    words = [str(tone_tracks), "--model", str(folder / "model"), "--tag-fields", "pitch,motion"]
    assert main(["embed", *words, "--out", str(folder / "v.parquet")]) == 0
    assert main(["index", "build", str(folder / "v.parquet"), "--out", str(folder / "index")]) == 0
    return folder


async def until(condition, seconds=20.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


def test_no_request_fails_while_another_model_and_index_take_over(tiny_settings, served, second):
    places = [
        {"model": str(second / "model"), "index": str(second / "index")},
        {"model": str(served / "model"), "index": str(served / "index")},
    ]

    async def under_load():
        async with serving(tiny_settings) as client:
            answers, stop = [], asyncio.Event()

            async def ask(number):
                count = 0
                while not stop.is_set():
                    count += 1
                    path = ("/v1/search", "/v1/similar")[number % 2]
                    what = {"q": f"tone {number} {count}"} if number % 2 == 0 else {"id": f"tone{count % 40:02d}"}
                    answers.append(await client.get(path, params=what))

            asking = [asyncio.create_task(ask(number)) for number in range(6)]
            old = client.service.running
            swaps = [await client.post("/v1/reload", json=place) for place in (*places, *places)]
            stop.set()
            await asyncio.gather(*asking)
            with pytest.raises(Exception, match="stopping"):  # what was replaced has been given back
                await old.texts.of(["never asked before"])
            return answers, swaps

    answers, swaps = asyncio.run(under_load())
    assert {answer.status_code for answer in answers} == {200}
    spaces = {answer.json()["space_id"] for answer in answers}
    one, two = (load_index(folder / "index").space_id for folder in (served, second))
    assert spaces == {one, two}
    for answer, (now, before) in zip(swaps, [(two, one), (one, two)] * 2, strict=True):
        schemas.Reloaded.model_validate(answer.json())
        assert (answer.json()["space_id"], answer.json()["before"]["space_id"]) == (now, before)


def test_a_request_ends_on_what_it_began_with(tiny_settings, served, second):
    async def across():
        async with serving(tiny_settings) as client:
            service = client.service
            async with service.request() as running:
                await service.reload(str(second / "model"), str(second / "index"))
                (vector,) = await running.texts.of(["a new text"])
                users = running.users
            return running.deployed, vector, users, running.users, service.running.deployed

    old, vector, during, after, new = asyncio.run(across())
    assert (during, after) == (1, 0)
    np.testing.assert_allclose(vector, old.embedder.embed_queries(["a new text"])[0], atol=1e-6)
    assert old.space_id != new.space_id


def broken(folder):
    (next(folder.glob("*/vectors.faiss"), None) or next(folder.glob("**/*.faiss"))).write_bytes(b"broken")


def test_what_fails_its_self_check_changes_nothing(tiny_settings, served, second, tmp_path, monkeypatch):
    index = load_index(served / "index")
    empty = Embeddings([], np.zeros((0, 12), np.float32), index.space_id)
    build_index(empty).save(tmp_path / "empty")
    shutil.copytree(served / "index", tmp_path / "broken")
    broken(tmp_path / "broken")
    refused = [
        ({"index": str(tmp_path / "none")}, "there is no index here"),
        ({"index": str(tmp_path / "broken")}, "broken"),
        ({"index": str(tmp_path / "empty"), "model": str(served / "model")}, "holds no tracks"),
        ({"model": str(tmp_path / "none")}, "none"),
        ({"model": str(second / "model")}, "name the model that made the index"),
        ({"index": str(second / "index"), "model": str(served / "model")}, "name the model that made the index"),
    ]

    async def all_of_them():
        async with serving(tiny_settings) as client:
            before = (await client.get("/v1/search?q=tone")).json()["hits"]
            answers = [await client.post("/v1/reload", json=body) for body, _ in refused]
            # An index that finds the wrong rows, and a model whose text vectors are no numbers.
            for name, value in (
                ("search", lambda self, *rest, **named: (np.zeros((16, 1)), np.full((16, 1), 3))),
                ("vectors", lambda self, *rest: np.full((16, 12), np.nan, np.float32)),
            ):
                with monkeypatch.context() as patch:
                    patch.setattr(type(index), name, value)
                    answers.append(await client.post("/v1/reload", json={}))
            with monkeypatch.context() as patch:
                nan = lambda self, texts: np.full((len(texts), 12), np.nan, np.float32)  # noqa: E731
                patch.setattr(serve.deployed.Embedder, "embed_texts", nan)
                answers.append(await client.post("/v1/reload", json={}))
            return before, (await client.get("/v1/search?q=tone")).json()["hits"], answers, client.service

    before, after, answers, service = asyncio.run(all_of_them())
    assert before == after
    said = [problem_of(answer, 409, "reload-refused") for answer in answers]
    for sentence, (_, message) in zip(said, refused, strict=False):
        assert sentence.startswith("what is served stays: ")
        assert message in sentence
    assert "does not find its own row" in said[6]
    assert "no unit vector" in said[8]
    assert service.running.deployed.index_place == str(served / "index")


def test_only_the_owner_may_reload(tiny_settings):
    async def ask(settings, token, **headers):
        async with serving(settings) as client:
            headers = {**headers, **({} if token is None else {"Authorization": f"Bearer {token}"})}
            return await client.post("/v1/reload", json={}, headers=headers)

    user, owner = "user-token-of-some-length", "admin-token-of-some-length"
    settings = replace(tiny_settings, token=(user,), admin_token=owner)
    problem_of(asyncio.run(ask(settings, user)), 403, "forbidden")
    problem_of(asyncio.run(ask(settings, None)), 401, "token")
    problem_of(asyncio.run(ask(tiny_settings, None, **{"X-Forwarded-For": "1.2.3.4"})), 403, "forbidden")
    assert asyncio.run(ask(settings, owner)).status_code == 200


def test_an_index_that_is_swapped_into_the_folder_is_noticed_and_a_bad_one_is_not_taken(
    tiny_settings, served, second, tmp_path, monkeypatch
):
    monkeypatch.setattr("serve.service._WATCH_SECONDS", 0.05)
    shutil.copytree(served / "index", tmp_path / "live")
    index = load_index(served / "index")
    fewer = index.export(range(10))
    build_index(fewer).save(tmp_path / "fewer")

    async def watch():
        async with serving(replace(tiny_settings, index=str(tmp_path / "live"), watch=True)) as client:
            counts = [(await client.get("/v1/info")).json()["tracks"]]
            await asyncio.to_thread(swap_in, tmp_path / "fewer", tmp_path / "live")
            await until(lambda: len(client.service.running.deployed.catalogue) == 10)
            counts.append((await client.get("/v1/info")).json()["tracks"])
            refused = client.service.metrics.reloads.labels("refused")
            await asyncio.to_thread(swap_in, second / "index", tmp_path / "live")
            await until(lambda: refused._value.get() == 1)
            await asyncio.sleep(0.3)
            counts.append((await client.get("/v1/info")).json()["tracks"])
            return counts, refused._value.get()

    counts, refused = asyncio.run(watch())
    assert counts == [40, 10, 10]
    assert refused == 1, "a broken one is tried once"


def test_uploads_and_remembered_texts_belong_to_a_space(tiny_settings, served, second, tone_tracks):
    sound = (tone_tracks.parent / "03.wav").read_bytes()

    async def across():
        async with serving(tiny_settings) as client:
            kept = (await client.post("/v1/uploads", files={"file": ("a.wav", sound)})).json()
            terms = {"terms": [{"audio": kept["audio"]}]}
            first = await client.post("/v1/embed/text", json={"texts": ["low"]})
            await client.post("/v1/reload", json={"model": str(second / "model"), "index": str(second / "index")})
            return (
                first,
                await client.post("/v1/embed/text", json={"texts": ["low"]}),
                await client.post("/v1/search", json=terms),
            )

    first, second_, searched = asyncio.run(across())
    assert first.json()["vectors"] != second_.json()["vectors"]
    assert "send the file again" in problem_of(searched, 404, "unknown-upload")
