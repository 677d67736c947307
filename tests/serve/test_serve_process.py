"""The server as a process: it says where it listens, leaves politely, and refuses to start with one sentence."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

import serve.server
import serve.service
from serve import __main__ as command
from serve.server import listen, run
from serve.settings import Settings
from xmodal.cli import main

ROOT = Path(__file__).resolve().parents[2]


class Served:
    """A server in this process's main thread, and what a thread beside it asks of it."""

    def __init__(self, settings, scenario, capsys, monkeypatch):
        self.result, self.error = None, None
        made = []
        create = serve.server.create_app
        monkeypatch.setattr(serve.server, "create_app", lambda *rest: made.append(rest[1]) or create(*rest))

        def ask():
            try:
                while not (printed := capsys.readouterr().out):
                    time.sleep(0.01)
                self.printed = printed
                with httpx2.Client(base_url=printed.split()[-1], timeout=10) as client:
                    self.result = scenario(client, made[0])
            except BaseException as error:
                self.error = error
                os.kill(os.getpid(), signal.SIGTERM)

        asking = threading.Thread(target=ask)
        asking.start()
        self.code = asyncio.run(run(settings))
        asking.join(20)
        if self.error is not None:
            raise self.error


def stop():
    os.kill(os.getpid(), signal.SIGTERM)


def slowly(service, seconds):
    """The model takes its time."""
    embedder = service.running.deployed.embedder
    embed = type(embedder).embed_queries
    begun = threading.Event()

    def wait(texts):
        begun.set()
        time.sleep(seconds)
        return embed(embedder, texts)

    embedder.embed_queries = wait
    return begun


def test_it_prints_its_address_and_a_running_request_is_answered_before_it_leaves(tiny_settings, capsys, monkeypatch):
    def scenario(client, service):
        begun, found = slowly(service, 0.5), []
        asking = threading.Thread(target=lambda: found.append(client.get("/v1/search?q=tone")))
        asking.start()
        assert begun.wait(5)
        stop()
        asking.join(10)
        return found[0].status_code

    served = Served(replace(tiny_settings, port=0), scenario, capsys, monkeypatch)
    assert served.printed.startswith("40 tracks of space ")
    assert "http://127.0.0.1:" in served.printed
    assert (served.result, served.code) == (200, 0)


def test_while_it_drains_a_balancer_hears_of_it_and_nobody_is_refused(tiny_settings, capsys, monkeypatch):
    def scenario(client, service):
        assert client.get("/ready").status_code == 200
        stop()
        until = time.monotonic() + 5
        while (ready := client.get("/ready").status_code) != 503 and time.monotonic() < until:
            time.sleep(0.01)
        return ready, client.get("/health").status_code, client.get("/v1/search?q=tone").status_code

    settings = replace(tiny_settings, port=0, drain_delay_seconds=1.5)
    served = Served(settings, scenario, capsys, monkeypatch)
    assert (served.result, served.code) == ((503, 200, 200), 0)


def test_a_request_that_never_ends_does_not_hold_it_up_for_ever(tiny_settings, capsys, monkeypatch):
    def scenario(client, service):
        begun, found = slowly(service, 2.5), []

        def ask():
            try:
                found.append(client.get("/v1/search?q=tone").status_code)
            except httpx2.TransportError as error:
                found.append(type(error).__name__)

        asking = threading.Thread(target=ask)
        asking.start()
        assert begun.wait(5)
        stop()
        asking.join(10)
        return found

    served = Served(replace(tiny_settings, port=0, drain_seconds=1.0), scenario, capsys, monkeypatch)
    assert served.result != [200]
    assert served.code == 0


def test_a_stop_while_it_loads_is_no_accident(tiny_settings, capsys, monkeypatch):
    deploy = serve.service.deploy

    def stopped(*rest, **named):
        stop()
        time.sleep(0.3)
        return deploy(*rest, **named)

    monkeypatch.setattr("serve.service.deploy", stopped)
    assert asyncio.run(run(replace(tiny_settings, port=0))) == 0
    said = capsys.readouterr()
    assert (said.out, "Traceback" in said.err) == ("", False)


def test_an_address_that_is_taken_is_refused_with_a_sentence(tiny_settings, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ValueError, match=rf"cannot listen on 127.0.0.1 port {port} .*choose another with --port"):
            listen("127.0.0.1", port)
        words = ["serve", "--index", str(tiny_settings.index), "--port", str(port)]
        assert main(words) == 2
    assert "cannot listen" in capsys.readouterr().err


def test_what_cannot_be_served_ends_with_one_sentence(tmp_path, capsys):
    assert main(["serve", "--index", str(tmp_path / "none"), "--port", "0"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("xmodal: ")
    assert "there is no index here" in error
    assert error.count("\n") == 1


def test_python_minus_m_serve_and_xmodal_serve_are_one_command(capsys):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "serve", "--help"], capture_output=True, text=True, check=True, env=environment
    )
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    assert done.stdout.split() == capsys.readouterr().out.split()


def test_without_the_libraries_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "serve.server", None)
    assert main(["serve", "--index", "x"]) == 2
    assert "pip install 'xmodal[serve]'" in capsys.readouterr().err


def test_without_an_index_the_demo_is_made_once_and_served(tmp_path, monkeypatch, capsys):
    made = []

    def make(words, check):
        folder = Path(words[-1])
        (folder / "index").mkdir(parents=True)
        (folder / "index" / "index.json").write_text("{}")
        (folder / "model").mkdir()
        made.append(words)
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(command.subprocess, "run", make)
    settings = Settings(demo=tmp_path / "demo")
    for _ in range(2):
        found = command.with_demo(settings)
        assert (found.index, found.model) == (str(tmp_path / "demo" / "index"), str(tmp_path / "demo" / "model"))
    assert len(made) == 1
    assert made[0][-3:] == ["demo", "--keep", str(tmp_path / "demo")], "the clips stay, to be played"
    assert "the demo is made in" in capsys.readouterr().out


def test_a_demo_that_cannot_be_made_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(command.subprocess, "run", lambda words, check: subprocess.CompletedProcess(words, 1))
    with pytest.raises(command.ModelError, match=r"could not be made \(exit code 1\); name an index with --index DIR"):
        command.with_demo(Settings(demo=tmp_path / "demo"))
