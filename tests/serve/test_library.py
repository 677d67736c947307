"""Only audio files inside the library are served, whatever the index and the disk say."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest
from asgi_calls import call

from serve.library import MEDIA_TYPES, AudioResponse, Library, NotInLibraryError
from xmodal.audio import AUDIO_SUFFIXES

SECRET = b"secret outside the library"


@pytest.fixture
def place(tmp_path):
    library = tmp_path / "library"
    (library / "rock" / "deep").mkdir(parents=True)
    (library / "rock" / "a.flac").write_bytes(b"fLaC" + bytes(range(200)))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.flac").write_bytes(SECRET)
    (tmp_path / "library-2").mkdir()
    (tmp_path / "library-2" / "b.flac").write_bytes(SECRET)
    return tmp_path


def content(opened):
    with opened:
        return os.pread(opened.descriptor, 10**6, 0)


def test_a_file_of_the_library_is_opened_by_its_own_path_or_one_relative_to_the_root(place):
    library = Library([place / "library"])
    for path in (place / "library/rock/a.flac", "rock/a.flac", "./rock/../rock/a.flac"):
        assert content(library.open(path)).startswith(b"fLaC")
        assert library.path_of({"path": str(path)}) == place / "library/rock/a.flac"
    assert library.open("rock/a.flac").media_type == "audio/flac"


def odd_paths(place):
    library, outside = place / "library", place / "outside"
    (library / "out.flac").symlink_to(outside / "secret.flac")
    (library / "rock" / "folder").symlink_to(outside)
    (library / "loop.flac").symlink_to(library / "loop.flac")
    (library / "chain.flac").symlink_to(library / "out.flac")
    (library / "fd.flac").symlink_to("/proc/self/environ")
    os.mkfifo(library / "pipe.flac")
    (library / "folder.flac").mkdir()
    (library / "notes.txt").write_bytes(SECRET)
    (library / ".env").write_bytes(SECRET)
    (library / "notes.flac").symlink_to(library / "notes.txt")
    server = socket.socket(socket.AF_UNIX)
    server.bind(os.path.relpath(library / "socket.flac"))
    server.close()
    return {
        "absolute outside": outside / "secret.flac",
        "dots": "../outside/secret.flac",
        "many dots": "../" * 40 + "etc/passwd",
        "dots inside an absolute path": f"{library}/rock/../../outside/secret.flac",
        "a neighbour with a name that begins alike": place / "library-2" / "b.flac",
        "a link out": library / "out.flac",
        "a chain of links out": "chain.flac",
        "a link of folders": "rock/folder/secret.flac",
        "a loop of links": "loop.flac",
        "a link into proc": "fd.flac",
        "a pipe": "pipe.flac",
        "a socket": "socket.flac",
        "a folder": "folder.flac",
        "the root": library,
        "the root by dot": ".",
        "empty": "",
        "no audio": "notes.txt",
        "hidden": ".env",
        "a link to no audio": "notes.flac",
        "missing": "rock/missing.flac",
        "NUL": "rock/a.flac\0.flac",
        "a URL": "https://example.com/a.flac",
        "a file URL": f"file://{outside}/secret.flac",
        "percent escapes": "..%2foutside%2fsecret.flac",
        "backslashes": "..\\outside\\secret.flac",
        "home": "~/secret.flac",
        "lone surrogate": "\ud800.flac",
        "too long": "a" * 100_000 + ".flac",
        "a device": "/dev/zero",
        "a descriptor": "/dev/fd/0",
    }


def test_nothing_else_is_opened(place):
    library = Library([place / "library"])
    assert library.path_of({}) is library.path_of({"path": 7}) is None
    before = len(os.listdir("/proc/self/fd"))
    for what, path in odd_paths(place).items():
        with pytest.raises(NotInLibraryError, match="there is no audio of this track here") as refused:
            library.open(path)
        assert refused.value.reason, what
        assert str(place) not in str(refused.value)
        assert library.path_of({"path": str(path)}) is None, what
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_link_that_stays_inside_is_followed(place):
    (place / "library" / "alias.flac").symlink_to(place / "library" / "rock" / "a.flac")
    (place / "by-link").symlink_to(place / "library")
    for root in ("library", "by-link"):
        library = Library([place / root])
        assert content(library.open("alias.flac")).startswith(b"fLaC")
        assert content(library.open(place / "by-link" / "rock" / "a.flac")).startswith(b"fLaC")


@pytest.mark.parametrize("exchange", ["file", "folder", "pipe"])
def test_what_is_exchanged_while_it_is_opened_is_refused(place, monkeypatch, exchange):
    library = Library([place / "library"])
    target, original = place / "library" / "rock" / "a.flac", os.open

    def exchanging(path, *args, **kwargs):
        if Path(path) == target:
            if exchange == "folder":
                target.parent.rename(place / "moved")
                target.parent.symlink_to(place / "outside")
                (place / "outside" / "a.flac").write_bytes(SECRET)
            else:
                target.unlink()
                os.mkfifo(target) if exchange == "pipe" else target.symlink_to(place / "outside" / "secret.flac")
        return original(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", exchanging)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(NotInLibraryError):
        library.open(target)
    assert len(os.listdir("/proc/self/fd")) == before


def test_several_roots_and_none(place):
    both = Library([place / "library", place / "library-2"])
    assert content(both.open("b.flac")) == SECRET
    assert content(both.open("rock/a.flac")).startswith(b"fLaC")
    with pytest.raises(NotInLibraryError) as refused:
        Library([]).open(place / "library/rock/a.flac")
    assert refused.value.reason == "no library is configured"


def test_a_library_that_is_no_folder_or_everything_is_refused(place):
    with pytest.raises(ValueError, match="is not a folder"):
        Library([place / "missing"])
    with pytest.raises(ValueError, match="root of the file system"):
        Library(["/"])


def test_every_kind_of_audio_that_browsers_play_has_its_type():
    assert set(MEDIA_TYPES) <= AUDIO_SUFFIXES
    assert all(kind.startswith("audio/") for kind in MEDIA_TYPES.values())


# The answer


def answer(place, headers=None, method="GET"):
    library = Library([place / "library"])
    return asyncio.run(call(AudioResponse(library.open("rock/a.flac")), method, headers=headers or {}))


def test_ranges_are_served_as_asked_and_odd_ones_refused_with_a_problem(place):
    whole = (place / "library/rock/a.flac").read_bytes()
    complete = answer(place)
    assert (complete.status, complete.body, complete.headers["accept-ranges"]) == (200, whole, "bytes")
    assert complete.headers["content-type"] == "audio/flac"
    for said, first, last in (("bytes=0-3", 0, 4), ("bytes=200-", 200, 204), ("bytes=-4", 200, 204)):
        part = answer(place, {"range": said})
        assert (part.status, part.body) == (206, whole[first:last])
        assert part.headers["content-range"] == f"bytes {first}-{last - 1}/204"
    beyond = answer(place, {"range": "bytes=204-"})
    assert (beyond.status, beyond.headers["content-range"]) == (416, "bytes */204")
    assert "204 bytes" in beyond.problem["detail"]
    for odd in ("bytes=9-2", "lines=0-3", "bytes", "bytes=a-b", "bytes=0-3,999-"):
        assert answer(place, {"range": odd}).status in (200, 400, 416)
    many = answer(place, {"range": "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 200, 2))})
    assert many.status == 206
    flood = answer(place, {"range": "bytes=" + "0-," * 5000})
    assert len(flood.body) < 2 * len(whole) + 300


def test_what_has_not_changed_is_not_sent_again(place):
    tag = answer(place).headers["etag"]
    for said in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        same = answer(place, {"if-none-match": said})
        assert (same.status, same.body, same.headers["etag"]) == (304, b"", tag)
        assert answer(place, {"if-none-match": said, "range": "bytes=0-3"}).status == 304
    assert answer(place, {"if-none-match": '"other"'}).status == 200
    assert answer(place, {"if-none-match": '"other"', "range": "bytes=0-3"}).status == 206
    assert answer(place, {"if-range": '"other"', "range": "bytes=0-3"}).status == 200
    assert answer(place, {"if-range": tag, "range": "bytes=0-3"}).status == 206


def test_the_descriptor_is_closed_whatever_becomes_of_the_answer(place):
    library = Library([place / "library"])

    def count():
        return len(os.listdir("/proc/self/fd"))

    async def broken(message):
        raise OSError("the client left")

    before = count()
    for headers in ({}, {"range": "bytes=0-3"}, {"range": "bytes=999-"}, {"if-none-match": "*"}):
        answer(place, headers)
    assert count() == before
    scope = {"type": "http", "method": "GET", "headers": [], "asgi": {"spec_version": "2.4"}}
    with pytest.raises(OSError, match="left"):
        asyncio.run(AudioResponse(library.open("rock/a.flac"))(scope, None, broken))
    assert count() == before
    AudioResponse(library.open("rock/a.flac"))  # made and never sent
    assert count() == before


def test_a_file_that_is_replaced_while_it_is_sent_gives_the_one_that_was_checked(place):
    library = Library([place / "library"])
    response = AudioResponse(library.open("rock/a.flac"))
    whole = (place / "library/rock/a.flac").read_bytes()
    (place / "library/rock/a.flac").unlink()
    (place / "library/rock/a.flac").symlink_to(place / "outside" / "secret.flac")
    assert asyncio.run(call(response)).body == whole
