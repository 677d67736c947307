"""A small model, and two indexes of little tones."""

from __future__ import annotations

import asyncio

import pytest
from served_app import serving
from tiny import tiny_model

from serve.settings import Settings
from xmodal.cli import main


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
