"""A small model, and two indexes of little tones."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from page_served import make_catalogue, reachable
from served_app import serving
from tiny import tiny_model

from serve.settings import Settings
from xmodal.cli import main


def _children(*, zombies: bool) -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == os.getpid() and (zombies or fields[0] != "Z"):
                found.add(int(entry.name))
    return found


@pytest.fixture
def children() -> Callable[..., set[int]]:
    """The processes that this test has started and that are still there; tests before it may have left some."""
    others = _children(zombies=True)
    return lambda *, zombies=False: _children(zombies=zombies) - others


@pytest.fixture(scope="session")
def served(tone_tracks, tmp_path_factory):
    """A folder with ``model``, an index of tracks, ``index``, and one of their windows, ``windows``."""
    folder = tmp_path_factory.mktemp("served")
    tiny_model().save(folder / "model")
    for name, extra in (("index", []), ("windows", ["--windows"])):
        words = [str(tone_tracks), "--model", str(folder / "model"), "--tag-fields", "pitch,motion"]
        assert main(["embed", *words, "--out", str(folder / f"{name}.parquet"), *extra]) == 0
        assert main(["index", "build", str(folder / f"{name}.parquet"), "--out", str(folder / name)]) == 0
    return folder


@pytest.fixture(scope="session")
def tiny_settings(served):
    """Settings for the index of tracks; ``dataclasses.replace`` makes others of them."""
    return Settings(index=str(served / "index"), model=str(served / "model"), device="cpu", watch=False)


@pytest.fixture(scope="session")
def client_of_tones(tiny_settings):
    """``ask(method, path, **arguments)`` of one application that all refusals share."""
    with asyncio.Runner() as runner:
        running = serving(tiny_settings)
        client = runner.run(running.__aenter__())
        yield lambda method, path, **arguments: runner.run(client.request(method, path, **arguments))
        runner.run(running.__aexit__(None, None, None))


@pytest.fixture(scope="session")
def page_settings(tmp_path_factory):
    """Settings for a catalogue with titles, artists, years, tags and moments."""
    return make_catalogue(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="session")
def page_server(page_settings):
    """The address of the page and its server."""
    with reachable(page_settings) as address:
        yield address


@pytest.fixture(scope="module")
def tabs(browser, page_server):
    """Where tests open their tabs: what was fetched once is not fetched again."""
    context = browser.new_context(base_url=page_server)
    yield context
    context.close()


@pytest.fixture
def visit(browser, tabs, page_server):
    """Opens the page; afterwards it must not have complained, nor asked anybody but its own server."""
    opened, complaints = [], []

    def open_page(hash="", *, base=page_server, width=1280, height=800, ready=True, **options):
        context = browser.new_context(base_url=base, **options) if options or base != page_server else tabs
        page = context.new_page()
        opened.append(page if context is tabs else context)
        page.set_viewport_size({"width": width, "height": height})
        page.set_default_timeout(30_000)  # a machine may be busy with other tests
        page.complaints = complaints
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on(
            "request",
            lambda asked: None if asked.url.startswith((base, "blob:", "data:")) else complaints.append(asked.url),
        )
        page.goto(f"{base}/{hash}")
        if ready:
            page.wait_for_selector("#text:enabled")
        return page

    yield open_page
    for one in opened:
        one.close()
    assert complaints == []
