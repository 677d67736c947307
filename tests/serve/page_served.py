"""A catalogue worth looking at, and a server that a browser can reach."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import uvicorn
from sound_files import PITCHES, RATE, kind_of, write_tone
from tiny import tiny_model

from serve.app import create_app
from serve.settings import Settings
from xmodal.cli import main

SECONDS = 4


def make_catalogue(folder: Path) -> Settings:
    """48 tones that grow louder, indexed by windows; ids, titles and artists hold what breaks careless pages."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(48):
        pitch, motion = kind_of(number)
        hertz = PITCHES[pitch] * rng.uniform(0.9, 1.1)
        write_tone(folder / f"{number:02d}.wav", rng, hertz, motion, np.linspace(0.1, 0.5, RATE * SECONDS))
        rows.append(
            {
                "id": f"tones/no {number:02d}?&",
                "path": f"{number:02d}.wav",
                "title": f"=<i>{pitch.title()}</i> & {motion}, {number:02d}",
                "artist": f"Artist {number % 5}" if number % 6 else "Me | You",
                "year": 1980 + number,
                "pitch": pitch,
                "motion": motion,
                "captions": [f"a {motion} {pitch} tone"],
                "split": "train",
            }
        )
    manifest = folder / "tones.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tiny_model().save(folder / "model")
    words = [str(manifest), "--model", str(folder / "model"), "--tag-fields", "pitch,motion", "--windows"]
    assert main(["embed", *words, "--out", str(folder / "windows.parquet")]) == 0
    assert main(["index", "build", str(folder / "windows.parquet"), "--out", str(folder / "index")]) == 0
    return Settings(index=str(folder / "index"), model=str(folder / "model"), device="cpu", watch=False)


@contextmanager
def reachable(settings: Settings, *, ready: bool = True) -> Iterator[str]:
    """The address of a server that listens, and is ready unless that is not wanted, in a thread of this process."""
    config = uvicorn.Config(create_app(settings), port=0, log_level="warning", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        address = None
        for _ in range(600):
            if address is None and server.started:
                address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
            if address is not None and (not ready or _is_ready(address)):
                break
            time.sleep(0.05)
        else:
            raise TimeoutError("the server did not become ready within 30 s")
        yield address
    finally:
        server.should_exit = True
        thread.join(30)


def _is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/ready", timeout=5):
            return True
    except OSError:
        return False
