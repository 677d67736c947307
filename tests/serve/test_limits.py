"""What may come in: sizes, times, rates, tokens, hosts and origins, each refused with a problem document."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import tracemalloc

import pytest
from asgi_calls import call
from hypothesis import given, settings
from hypothesis import strategies as st

import serve.access
from serve.access import Access, RefusedError, is_loopback, parse_tokens
from serve.limits import MIB, Guard, Limits
from serve.metrics import Metrics
from serve.rates import TokenBuckets, client_key

TOKEN, OTHER, ADMIN = "a" * 24, "b" * 24, "c" * 24


class Reader:
    """An application that reads the whole body and says how long it was; like FastAPI, it hides what goes wrong."""

    def __init__(self, hide: bool = True) -> None:
        self.hide, self.seen, self.state = hide, None, None

    async def __call__(self, scope, receive, send):
        self.state = dict(scope["state"])
        length, more, status = 0, True, 200
        try:
            while more:
                message = await receive()
                length += len(message["body"])
                more = message["more_body"]
        except Exception:
            if not self.hide:
                raise
            status = 400
        self.seen = length
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": str(length).encode()})


def guarded(app=None, access=None, **limits):
    return Guard(app or Reader(), limits=Limits(**limits), access=access or Access(), metrics=Metrics())


def ask(guard, *args, **kwargs):
    return asyncio.run(call(guard, *args, **kwargs))


# Sizes


@pytest.mark.parametrize("hide", [True, False])
@pytest.mark.parametrize("declared", [True, False])
def test_a_body_one_byte_too_long_is_refused_and_the_longest_passes(hide, declared):
    guard = guarded(Reader(hide), json_bytes=1000)
    for length, status in ((1000, 200), (1001, 413)):
        headers = {"content-length": str(length)} if declared else {"transfer-encoding": "chunked"}
        answer = ask(guard, "POST", "/v1/search", headers=headers, body=[b"x" * 500, b"x" * (length - 500)])
        assert answer.status == status
    assert "larger than 1000 bytes" in answer.problem["detail"]
    assert answer.headers["connection"] == "close", "else the server would read the rest"


def test_a_body_that_says_it_is_too_long_is_not_read_at_all():
    reader = Reader()
    answer = ask(guarded(reader), "POST", "/v1/search", headers={"content-length": str(10**15)}, body=[b"x"])
    assert answer.status == 413
    assert reader.seen is None


def test_an_endless_body_ends_with_a_refusal_and_keeps_nothing():
    tracemalloc.start()
    answer = ask(
        guarded(json_bytes=MIB), "POST", "/v1/search", headers={"transfer-encoding": "chunked"}, body=[bytes(65536)],
        endless=True,
    )  # fmt: skip
    assert answer.status == 413
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("path", "content_type", "status"),
    [
        ("/v1/uploads", "multipart/form-data; boundary=x", 200),
        ("/v1/embed/audio", "Multipart/Form-Data; boundary=x", 200),
        ("/v1/uploads", "application/json", 413),
        ("/v1/search", "multipart/form-data; boundary=x", 413),
        ("/v1/uploads/", "multipart/form-data; boundary=x", 413),
    ],
)
def test_only_uploads_where_uploads_are_taken_may_be_long(path, content_type, status):
    guard = guarded(json_bytes=100, upload_bytes=10_000)
    answer = ask(guard, "POST", path, headers={"content-type": content_type}, body=[b"x" * 5000])
    assert answer.status == status


def test_bodies_under_way_share_a_bound_and_free_their_room():
    guard = guarded(json_bytes=100, upload_bytes=100, bytes_in_flight=250)

    async def both():
        slow = [
            asyncio.create_task(call(guard, "POST", "/v1/search", body=[b"x" * 100, b""], wait_seconds=0.05))
            for _ in range(4)
        ]
        return [(await one).status for one in slow]

    statuses = asyncio.run(both())
    assert sorted(statuses) == [200, 200, 429, 429]
    assert guard._in_flight == 0
    assert ask(guard, "POST", "/v1/search", body=[b"x" * 100]).status == 200
    assert 'xmodal_refused_total{reason="queue-full"} 2.0' in guard.metrics.expose()[0].decode()


def test_no_room_names_a_time_to_try_again():
    guard = guarded(json_bytes=100, upload_bytes=100, bytes_in_flight=100)
    guard._in_flight = 50
    answer = ask(guard, "POST", "/v1/search", body=[b"x" * 100])
    assert (answer.status, answer.headers["retry-after"]) == (429, "2")


def test_a_long_query_and_long_headers_are_refused():
    guard = guarded()
    answer = ask(guard, "GET", "/v1/search", query=b"q=" + b"x" * 10**6)
    assert answer.status == 414
    assert "POST" in answer.problem["detail"]
    assert ask(guard, "GET", "/" + "p" * 9000).status == 414
    assert ask(guard, "GET", "/", query=b"q=" + b"x" * 8000).status == 200
    many = [(b"x-%d" % number, b"v" * 100) for number in range(400)]
    assert ask(guard, "GET", "/", headers=many).status == 431


# Times


def test_a_body_that_trickles_is_given_up_and_a_steady_slow_one_is_not():
    slow = guarded(body_grace_seconds=0.2, body_bytes_per_second=10**6)
    answer = ask(slow, "POST", "/v1/search", headers={"transfer-encoding": "chunked"}, body=[b"x"], endless=True,
                 wait_seconds=0.05)  # fmt: skip
    assert answer.status == 408
    assert answer.headers["connection"] == "close"
    steady = guarded(body_grace_seconds=0.2, body_bytes_per_second=10)
    assert ask(steady, "POST", "/v1/search", body=[b"x" * 20] * 8, wait_seconds=0.05).status == 200


def test_a_body_that_never_comes_is_given_up():
    answer = ask(
        guarded(body_grace_seconds=0.1), "POST", "/", headers={"content-length": "5"}, body=[b"xx", b""],
        wait_seconds=3600,
    )  # fmt: skip
    assert answer.status == 408


def test_waiting_for_the_client_to_leave_has_no_time_limit():
    async def app(scope, receive, send):
        assert (await receive())["more_body"] is False
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receive(), 0.3)  # longer than a body may take
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    assert ask(guarded(app, body_grace_seconds=0.1), "POST", "/v1/search", body=[b"x"]).status == 200


# Rates


@given(
    st.lists(st.floats(0, 2), min_size=1, max_size=60),
    st.floats(0.1, 50, allow_nan=False),
    st.integers(1, 10),
)
@settings(max_examples=60, deadline=None)
def test_in_any_stretch_of_time_a_client_gets_its_burst_and_its_rate_and_no_more(gaps, rate, burst):
    buckets, now, taken = TokenBuckets(rate, burst), 0.0, []
    for gap in gaps:
        now += gap
        wait = buckets.take("a", now)
        if wait == 0:
            taken.append(now)
        else:
            assert buckets.take("a", now) == pytest.approx(wait), "a refusal takes nothing"
            assert buckets.take("a", now + wait + 1e-6) == 0
            now += wait + 1e-6
            taken.append(now)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + rate * (taken[last] - taken[first]) + 1e-3


def test_clients_have_buckets_of_their_own_and_the_oldest_is_forgotten():
    buckets = TokenBuckets(1, 1, most_clients=3)
    assert [buckets.take(name, 0.0) for name in "abc"] == [0, 0, 0]
    assert buckets.take("a", 0.5) == pytest.approx(0.5)
    assert buckets.take("d", 0.5) == 0
    assert len(buckets) == 3
    assert buckets.take("a", 0.5) > 0, "b was asked for longer ago"
    assert buckets.take("b", 0.5) == 0


def test_an_ipv6_client_cannot_change_its_bucket_within_its_network():
    assert client_key("2001:db8::1") == client_key("2001:db8::ffff:2") != client_key("2001:db8:0:1::1")
    assert client_key("::ffff:10.0.0.1") == client_key("10.0.0.1") == "10.0.0.1"
    assert client_key("alice") == "alice"


def test_beyond_the_rate_a_client_is_told_when_to_come_back_and_others_go_on():
    guard = guarded(requests_per_second=0.5, burst=2)
    statuses = [ask(guard, "GET", "/v1/info").status for _ in range(3)]
    assert statuses == [200, 200, 429]
    answer = ask(guard, "GET", "/v1/info")
    assert 1 <= int(answer.headers["retry-after"]) <= 3
    assert ask(guard, "GET", "/health").status == 200
    assert ask(guard, "GET", "/v1/info", client=("10.0.0.9", 1)).status == 200


# Tokens


def test_with_tokens_only_their_owners_are_served_and_the_page_is_open():
    access = Access(parse_tokens([f"alice:{TOKEN}", OTHER]), parse_tokens([f"root:{ADMIN}"]))
    reader = Reader()
    guard = guarded(reader, access)
    answer = ask(guard, "GET", "/v1/search")
    assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Bearer realm="xmodal"')
    assert "a token is needed" in answer.problem["detail"]
    for wrong in (TOKEN[:-1], TOKEN + "a", "A" * 24, "", hashlib.sha256(TOKEN.encode()).hexdigest()):
        assert ask(guard, "GET", "/v1/search", headers={"authorization": f"Bearer {wrong}"}).status == 401
    for token, name, admin in ((TOKEN, "alice", False), (OTHER, "token2", False), (ADMIN, "root", True)):
        assert ask(guard, "GET", "/v1/search", headers={"authorization": f"bearer {token}"}).status == 200
        assert (reader.state["client"], reader.state["admin"]) == (name, admin)
    assert ask(guard, "GET", "/v1/audio", headers={"cookie": f"a=b; xmodal_token={TOKEN}"}).status == 200
    assert ask(guard, "GET", "/v1/audio", headers={"cookie": "xmodal_token=wrong; a"}).status == 401
    for path in ("/", "/static/app.js", "/health", "/ready"):
        assert ask(guard, "GET", path).status == 200
    for path in ("/metrics", "/static", "/v1/", "//", "/staticx", "/healthy", "/ready/", "/favicon.ico/x"):
        assert ask(guard, "GET", path).status == 401


def test_every_token_is_compared_in_constant_time_whichever_is_right(monkeypatch):
    compared, original = [], hmac.compare_digest

    def compare(a, b):
        compared.append((a, b))
        return original(a, b)

    monkeypatch.setattr(serve.access.hmac, "compare_digest", compare)
    access = Access(parse_tokens([f"t{number}:{number:024d}" for number in range(5)]))
    for token in (f"{0:024d}", f"{4:024d}", "x" * 24):
        compared.clear()
        headers = {b"authorization": b"Bearer " + token.encode()}
        if token[0] == "x":
            with pytest.raises(RefusedError, match="not known"):
                access.check("GET", "/v1/info", "10.0.0.1", headers)
        else:
            access.check("GET", "/v1/info", "10.0.0.1", headers)
        assert len(compared) == 5


def test_tokens_are_kept_as_hashes_and_may_be_given_as_such():
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    assert parse_tokens([f"alice:{TOKEN}"]) == parse_tokens([f"alice:sha256:{digest}"]) == {"alice": digest}
    assert TOKEN not in repr(Access(parse_tokens([TOKEN])))


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["alice:short"], "'alice' needs at least 16 characters"),
        (["alice:sha256:12"], "needs at least 16 characters, or sha256: and 64 hex digits"),
        ([f"a b:{TOKEN}"], "no plain word"),
        ([f"a:{TOKEN}", f"a:{OTHER}"], "two tokens with the name 'a'"),
    ],
)
def test_an_unfit_token_is_refused_without_being_repeated(texts, said):
    with pytest.raises(ValueError, match=said) as refused:
        parse_tokens(texts)
    assert texts[0].partition(":")[2] not in str(refused.value)


def test_without_tokens_who_is_on_this_machine_is_admin_unless_through_a_proxy():
    for address, headers, admin in (
        ("127.0.0.1", {}, True),
        ("::1", {}, True),
        ("::ffff:127.0.0.1", {}, True),
        ("10.0.0.1", {}, False),
        ("127.0.0.1", {b"x-forwarded-for": b"1.2.3.4"}, False),
        ("127.0.0.1", {b"via": b"1.1 proxy"}, False),
        ("nonsense", {}, False),
    ):
        assert Access().check("POST", "/v1/reload", address, headers).admin is admin
    only_admin = Access(admin_tokens=parse_tokens([f"root:{ADMIN}"]))
    assert not only_admin.check("GET", "/v1/info", "127.0.0.1", {}).admin, "with an admin token, loopback alone is not"
    assert only_admin.check("GET", "/v1/info", "10.0.0.1", {b"authorization": b"Bearer " + ADMIN.encode()}).admin


# Hosts and origins


@pytest.mark.parametrize(
    ("bound", "hosts", "host", "status"),
    [
        ("127.0.0.1", [], "127.0.0.1:8000", 200),
        ("127.0.0.1", [], "LocalHost:8000", 200),
        ("127.0.0.1", [], "[::1]:8000", 200),
        ("127.0.0.1", [], "evil.example:8000", 421),
        ("127.0.0.1", [], "127.0.0.1.evil.example", 421),
        ("127.0.0.1", [], "", 421),
        ("127.0.0.1", ["music.example"], "music.example", 200),
        ("::1", [], "[::1]:8000", 200),
        ("localhost", [], "evil.example", 421),
        ("0.0.0.0", [], "anything.example", 200),
        ("0.0.0.0", ["Music.Example"], "music.example:443", 200),
        ("0.0.0.0", ["music.example"], "other.example", 421),
        ("0.0.0.0", ["music.example"], "127.0.0.1:8000", 200),
    ],
)
def test_on_loopback_only_its_own_names_are_answered(bound, hosts, host, status):
    guard = guarded(access=Access.of(bound, hosts=hosts))
    assert ask(guard, "GET", "/v1/info", headers={"host": host}).status == status


@pytest.mark.parametrize(
    ("method", "origin", "status"),
    [
        ("POST", "http://127.0.0.1:8000", 200),
        ("POST", "https://music.example", 200),
        ("POST", "http://evil.example", 403),
        ("POST", "null", 403),
        ("POST", "http://127.0.0.1:9000", 403),
        ("GET", "http://evil.example", 200),
        ("POST", None, 200),
    ],
)
def test_a_page_of_another_origin_cannot_send_what_changes_something(method, origin, status):
    guard = guarded(access=Access(origins=["https://music.example"]))
    headers = {} if origin is None else {"origin": origin}
    assert ask(guard, method, "/v1/search", headers=headers, body=[b"{}"]).status == status


def test_loopback_is_known_in_every_spelling():
    assert all(map(is_loopback, ("127.0.0.1", "127.3.2.1", "::1", "[::1]", "::ffff:127.0.0.1")))
    assert not any(map(is_loopback, ("10.0.0.1", "localhost.evil", "::", "0.0.0.0", "")))


# Settings


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"json_bytes": 0}, "json_bytes must be at least 1"),
        ({"bytes_in_flight": 5}, "less than one body may have"),
        ({"body_grace_seconds": 0}, "body_grace_seconds must be positive"),
        ({"requests_per_second": 0.0}, "requests_per_second must be positive"),
    ],
)
def test_limits_that_would_refuse_everything_are_refused(values, said):
    with pytest.raises(ValueError, match=said):
        Limits(**values)


def test_an_origin_that_is_none_and_a_name_used_twice_are_refused():
    with pytest.raises(ValueError, match="an origin is a scheme and a host"):
        Access(origins=["music.example"])
    with pytest.raises(ValueError, match="token and an admin token"):
        Access(parse_tokens([f"a:{TOKEN}"]), parse_tokens([f"a:{ADMIN}"]))


def test_a_web_socket_is_closed_and_lifespan_passes():
    seen, sent = [], []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    async def send(message):
        sent.append(message)

    guard = guarded(app)
    asyncio.run(guard({"type": "lifespan"}, None, send))
    asyncio.run(guard({"type": "websocket"}, None, send))
    assert seen == ["lifespan"]
    assert sent == [{"type": "websocket.close", "code": 1000}]
