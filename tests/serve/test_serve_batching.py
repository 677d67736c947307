"""Requests share passes of the model; what waits is bounded; who leaves takes its items along."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies
from served_app import problem_of, serving

import xmodal
from serve.batching import Batcher
from serve.problems import Problem
from serve.texts import TextCache, TextVectors


class Computer:
    """Doubles numbers, one batch at a time, and waits at a gate if it is closed."""

    def __init__(self):
        self.batches, self.gate, self.begun = [], threading.Event(), threading.Event()
        self.gate.set()

    def __call__(self, items):
        self.batches.append(list(items))
        self.begun.set()
        assert self.gate.wait(10)
        if any(item == "bad" for item in items):
            raise ValueError("bad is no number")
        return [2 * item for item in items]


@contextmanager
def closed(computer):
    computer.gate.clear()
    computer.begun.clear()
    try:
        yield
    finally:
        computer.gate.set()


def run(scenario, **options):
    """Run ``scenario(batcher, computer)``; gives what it gives and the computer."""

    async def inside():
        computer = Computer()
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(
                computer, executor, **({"max_batch": 4, "max_wait_seconds": 0.01, "queue": 100} | options)
            )
            try:
                return await asyncio.wait_for(scenario(batcher, computer), 20), computer
            finally:
                await batcher.close()

    return asyncio.run(inside())


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


def test_requests_that_come_together_share_batches_and_get_their_own_results():
    async def many(batcher, computer):
        return await asyncio.gather(*(batcher.submit([number, -number]) for number in range(1, 9)))

    results, computer = run(many)
    assert results == [[2 * number, -2 * number] for number in range(1, 9)]
    assert [len(batch) for batch in computer.batches] == [4, 4, 4, 4]


def together(batcher):
    """Two requests that come together: whoever is next may wait for company."""
    return asyncio.gather(batcher.submit([8]), batcher.submit([9]))


def test_a_batch_that_is_not_full_waits_only_so_long():
    async def one(batcher, computer):
        await together(batcher)
        begun = asyncio.get_running_loop().time()
        return await batcher.submit([1]), asyncio.get_running_loop().time() - begun

    (result, seconds), computer = run(one, max_wait_seconds=0.05)
    assert result == [2]
    assert computer.batches == [[8, 9], [1]]
    assert seconds >= 0.05


def test_who_asks_alone_does_not_wait_for_others():
    async def alone(batcher, computer):
        return [await batcher.submit([1]), await batcher.submit([2, 3]), await batcher.submit([4])]

    results, computer = run(alone, max_wait_seconds=60.0)  # the test would give up before
    assert results == [[2], [4, 6], [8]]
    assert computer.batches == [[1], [2, 3], [4]]


def test_what_comes_while_a_batch_waits_joins_it():
    async def two(batcher, computer):
        await together(batcher)
        first = asyncio.create_task(batcher.submit([1]))
        await asyncio.sleep(0.02)
        return await asyncio.gather(first, batcher.submit([2]))

    results, computer = run(two, max_wait_seconds=5.0, max_batch=2)
    assert results == [[2], [4]]
    assert computer.batches == [[8, 9], [1, 2]]


def test_a_full_queue_refuses_at_once_and_says_when_to_come_again():
    async def crowd(batcher, computer):
        with closed(computer):
            working = asyncio.create_task(batcher.submit([1, 2, 3, 4]))
            await until(computer.begun.is_set)
            waiting = asyncio.create_task(batcher.submit([5, 6]))
            await until(lambda: batcher.count() == 2)
            with pytest.raises(Problem, match="2 items are waiting and the queue holds 3") as refused:
                await batcher.submit([7, 8])
            fits = asyncio.create_task(batcher.submit([7]))
            await until(lambda: batcher.count() == 3)
        return refused.value, await asyncio.gather(working, waiting, fits)

    (refused, results), _ = run(crowd, queue=3)
    assert refused.status == 429
    assert int(refused.headers["Retry-After"]) >= 1
    assert results == [[2, 4, 6, 8], [10, 12], [14]]


def test_a_request_larger_than_the_queue_is_answered_when_nothing_waits():
    async def large(batcher, computer):
        return await batcher.submit(list(range(10)))

    assert run(large, queue=3)[0] == [2 * number for number in range(10)]


def test_who_leaves_is_not_computed_and_makes_room():
    async def leave(batcher, computer):
        with closed(computer):
            working = asyncio.create_task(batcher.submit([1]))
            await until(computer.begun.is_set)
            leaving = asyncio.create_task(batcher.submit([2, 3]))
            staying = asyncio.create_task(batcher.submit([4]))
            await until(lambda: batcher.count() == 3)
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
            assert batcher.count() == 1
        return await asyncio.gather(working, staying)

    results, computer = run(leave, queue=3)
    assert results == [[2], [8]]
    assert computer.batches == [[1], [4]]


def test_who_leaves_while_it_is_computed_does_not_disturb_its_batch():
    async def leave(batcher, computer):
        with closed(computer):
            leaving = asyncio.create_task(batcher.submit([1]))
            staying = asyncio.create_task(batcher.submit([2]))
            await until(computer.begun.is_set)
            leaving.cancel()
            await asyncio.sleep(0)
        return await staying, batcher.count()

    assert run(leave, max_batch=2)[0] == ([4], 0)


def test_an_item_that_fails_fails_alone():
    async def mixed(batcher, computer):
        return await asyncio.gather(*(batcher.submit([item]) for item in (1, "bad", 3, 4)), return_exceptions=True)

    (first, bad, *others), computer = run(mixed)
    assert (first, others) == ([2], [[6], [8]])
    assert isinstance(bad, ValueError)
    assert computer.batches[0] == [1, "bad", 3, 4]


def test_a_closed_batcher_refuses_what_waits_and_what_comes():
    async def close(batcher, computer):
        with closed(computer):
            working = asyncio.create_task(batcher.submit([1]))
            await until(computer.begun.is_set)
            waiting = asyncio.create_task(batcher.submit([2]))
            await until(lambda: batcher.count() == 1)
            await batcher.close()
        found = []
        for coroutine in (waiting, batcher.submit([3])):
            with pytest.raises(Problem) as refused:
                await coroutine
            found.append(refused.value.status)
        working.cancel()
        return found

    assert run(close)[0] == [503, 503]


@given(
    sizes=strategies.lists(strategies.integers(0, 9), min_size=1, max_size=12),
    max_batch=strategies.integers(1, 7),
    leave=strategies.sets(strategies.integers(0, 11)),
)
@settings(max_examples=25, deadline=None)
def test_everybody_gets_its_own_whatever_the_sizes_and_whoever_leaves(sizes, max_batch, leave):
    async def all_of_them(batcher, computer):
        tasks = [
            asyncio.create_task(batcher.submit([100 * number + item for item in range(size)]))
            for number, size in enumerate(sizes)
        ]
        await asyncio.sleep(0)
        for number in leave & set(range(len(tasks))):
            tasks[number].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True), batcher.count()

    (results, waiting), computer = run(all_of_them, max_batch=max_batch, max_wait_seconds=0.001)
    for number, (size, result) in enumerate(zip(sizes, results, strict=True)):
        if number not in leave or not isinstance(result, asyncio.CancelledError):
            assert result == [2 * (100 * number + item) for item in range(size)]
    assert waiting == 0
    assert max(map(len, computer.batches), default=0) <= max_batch
    computed = [item for batch in computer.batches for item in batch]
    assert len(computed) == len(set(computed))


def test_texts_are_remembered_by_space_and_the_oldest_goes():
    async def ask(batcher):
        cache = TextCache(2)
        first, second = TextVectors("one", batcher, cache), TextVectors("two", batcher, cache)
        found = [await first.of(["a", "a", "b"]), await first.of(["b"]), await second.of(["a"]), await first.of(["a"])]
        return found, len(cache)

    class Repeater(Computer):
        def __call__(self, items):
            self.batches.append(list(items))
            return [np.frombuffer(2 * item.encode(), np.uint8) for item in items]

    async def inside():
        repeater = Repeater()
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(repeater, executor, max_batch=8, max_wait_seconds=0, queue=9)
            result = await ask(batcher)
            await batcher.close()
        return result, repeater.batches

    (found, size), batches = asyncio.run(inside())
    said = [["".join(map(chr, vector)) for vector in vectors] for vectors in found]
    assert said == [["aa", "aa", "bb"], ["bb"], ["aa"], ["aa"]]
    assert batches == [["a", "b"], ["a"], ["a"]], "once a text, once more in another space, and again when forgotten"
    assert size == 2


def test_concurrent_texts_share_batches_and_have_the_vectors_that_they_have_alone(tiny_settings, served):
    texts = [" ".join(["low tone"] * (1 + number % 5)) + f" {number}" for number in range(40)]
    alone = xmodal.load(served / "model", device="cpu").embed_queries
    sizes = []

    async def together():
        async with serving(replace(tiny_settings, max_wait_ms=50.0)) as client:
            texts_queue = client.service.running._texts
            observe = texts_queue._observe
            texts_queue._observe = lambda size, *rest: (sizes.append(size), observe(size, *rest))
            answers = await asyncio.gather(*(client.post("/v1/embed/text", json={"texts": [text]}) for text in texts))
            return [answer.json()["vectors"][0] for answer in answers]

    found = asyncio.run(together())
    np.testing.assert_allclose(found, np.concatenate([alone([text]) for text in texts]), atol=1e-6)
    assert sum(sizes) == 40
    assert len(sizes) <= 4, "batches of 32"


def test_searches_that_come_together_are_one_look_at_the_index(tiny_settings):
    async def together():
        async with serving(replace(tiny_settings, max_wait_ms=50.0)) as client:
            queries = [f"tone {number}" for number in range(12)]
            one_by_one = [(await client.get("/v1/search", params={"q": query})).json()["hits"] for query in queries]
            index, calls = client.service.running.deployed.index, []
            search = index.search
            index.search = lambda vectors, *rest, **named: (
                calls.append(len(vectors)),
                search(vectors, *rest, **named),
            )[1]
            answers = await asyncio.gather(*(client.get("/v1/search", params={"q": query}) for query in queries))
            return one_by_one, [answer.json()["hits"] for answer in answers], calls

    one_by_one, at_once, calls = asyncio.run(together())
    for first, second in zip(one_by_one, at_once, strict=True):
        assert [hit["id"] for hit in first] == [hit["id"] for hit in second]
        assert [hit["score"] for hit in first] == pytest.approx([hit["score"] for hit in second], abs=1e-6)
    assert sum(calls) == 12
    assert max(calls) > 1


@contextmanager
def slow_model(client):
    """The model waits at a gate until the block ends; gives the texts that it has been asked for."""
    gate, asked = threading.Event(), []
    embedder = client.service.running.deployed.embedder
    embed = embedder.embed_queries

    def wait(texts):
        asked.extend(texts)
        assert gate.wait(10)
        return embed(texts)

    embedder.embed_queries = wait
    try:
        yield asked
    finally:
        gate.set()
        del embedder.embed_queries


def test_a_request_that_takes_too_long_is_given_up_and_not_computed(tiny_settings):
    async def late():
        async with serving(replace(tiny_settings, time_limit_seconds=0.3, max_batch=1)) as client:
            with slow_model(client) as asked:
                first = asyncio.create_task(client.get("/v1/search?q=first"))
                await until(lambda: asked)
                second = await client.get("/v1/search?q=second")
            return await first, second, asked, await client.get("/v1/search?q=third")

    first, second, asked, third = asyncio.run(late())
    for answer in (first, second):
        assert "0.3 s" in problem_of(answer, 504, "time-limit")
    assert asked == ["first"]
    assert third.status_code == 200


def test_too_many_texts_are_answered_429(tiny_settings):
    async def crowd():
        async with serving(replace(tiny_settings, queue=2, max_batch=1)) as client:
            with slow_model(client) as asked:
                tasks = [asyncio.create_task(client.get("/v1/search?q=0"))]
                await until(lambda: asked)
                tasks += [asyncio.create_task(client.get(f"/v1/search?q={number}")) for number in (1, 2)]
                await until(lambda: client.service.running._texts.count() == 2)
                refused = await client.get("/v1/search?q=3")
            return refused, [answer.status_code for answer in await asyncio.gather(*tasks)]

    refused, statuses = asyncio.run(crowd())
    problem_of(refused, 429, "queue-full")
    assert int(refused.headers["retry-after"]) >= 1
    assert statuses == [200, 200, 200]


def test_a_client_that_leaves_is_not_computed(tiny_settings):
    """By plain ASGI calls, because the client of the other tests cannot leave."""

    async def leave():
        async with serving(replace(tiny_settings, max_batch=1)) as client:
            app = client._transport.app
            with slow_model(client) as asked:
                first = asyncio.create_task(client.get("/v1/search?q=first"))
                await until(lambda: asked)
                left, sent = asyncio.Event(), []
                messages = [{"type": "http.request", "body": b"", "more_body": False}]

                async def receive():
                    if messages:
                        return messages.pop()
                    await left.wait()
                    return {"type": "http.disconnect"}

                async def send(message):
                    sent.append(message)

                scope = {
                    "type": "http", "method": "GET", "path": "/v1/search", "raw_path": b"/v1/search",
                    "query_string": b"q=second", "headers": [(b"host", b"127.0.0.1")], "client": ("127.0.0.1", 1),
                    "server": ("127.0.0.1", 80), "scheme": "http", "http_version": "1.1", "asgi": {"version": "3.0"},
                    "root_path": "",
                }  # fmt: skip
                second = asyncio.create_task(app(scope, receive, send))
                await until(lambda: client.service.running._texts.count() == 1)
                left.set()
                await asyncio.wait_for(second, 5)
                waiting = client.service.running._texts.count()
            return await first, asked, sent, waiting, client.service.running.users

    first, asked, sent, waiting, users = asyncio.run(leave())
    assert first.status_code == 200
    assert asked == ["first"]
    assert (sent, waiting, users) == ([], 0, 0)


def test_the_event_loop_answers_while_the_model_computes(tiny_settings):
    async def meanwhile():
        async with serving(tiny_settings) as client:
            with slow_model(client) as asked:
                slow = asyncio.create_task(client.get("/v1/search?q=first"))
                await until(lambda: asked)
                answers = [(await client.get(path)).status_code for path in ("/health", "/ready", "/v1/tracks")]
                done = slow.done()
            await slow
            return answers, done

    assert asyncio.run(meanwhile()) == ([200, 200, 200], False)
