"""The load of serve_load.py: some clients that ask one text after another, each on a connection of its own.

    python benchmarks/serve_load_client.py PORT PATH?NAME=VALUE CLIENTS SECONDS FIRST DISTINCT [REQUESTS]

Prints one JSON object: how many answers, their latencies, failures, and the CPU time that asking took.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from itertools import count
from urllib.parse import quote


def _words(text: str) -> list[str]:
    return text.split()


MOODS = _words("slow fast calm sad cheerful dark dreamy angry tender epic lonely playful warm cold tense hopeful")
INSTRUMENTS = _words(
    "piano violin cello banjo guitar trumpet clarinet flute harp organ sitar drums bass marimba accordion choir "
    "saxophone oboe ukulele synthesizer harmonica tuba xylophone mandolin"
)
GENRES = _words("jazz folk rock techno ambient soul blues disco reggae waltz tango punk gospel samba funk opera")
PLACES = _words(
    "rain morning night train kitchen garden desert harbour castle winter market river island dance wedding film "
    "parade forest cafe stadium church road"
)
_LISTS = (MOODS, INSTRUMENTS, GENRES, PLACES, MOODS, INSTRUMENTS)
TEXTS = 1
for _one in _LISTS:
    TEXTS *= len(_one)


def text(number: int) -> str:
    """Text ``number``; as many as ``TEXTS`` differ from one another."""
    left = number * 10_000_019 % TEXTS  # neighbours are not alike; the step shares no divisor with the number of texts
    words = []
    for one in _LISTS:
        left, place = divmod(left, len(one))
        words.append(one[place])
    return "{} {} {} for a {}, a little {}, with {}".format(*words)


async def ask(port: int, path: str, numbers: count[int], distinct: int, state: dict[str, object], until: float) -> None:
    """One client: ask until the time is over or all requests are given out."""
    latencies: list[float] = state["latencies"]  # type: ignore[assignment]
    reader = writer = None
    while time.perf_counter() < until:
        number = next(numbers)
        if number >= state["most"]:  # type: ignore[operator]
            break
        words = text(number % distinct if distinct else number)
        request = f"GET {path}&q={quote(words)}&k=10 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        begun = time.perf_counter()
        try:
            if writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")  # type: ignore[union-attr]
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)  # type: ignore[union-attr]
            if not head.startswith(b"HTTP/1.1 200") or b'"score"' not in body:
                raise OSError(head.split(b"\r\n")[0].decode())
        except (OSError, asyncio.IncompleteReadError, IndexError) as error:
            state["failures"] += 1  # type: ignore[operator]
            state["failure"] = f"{type(error).__name__}: {error}"
            if writer is not None:
                writer.close()
            reader = writer = None
            continue
        if begun >= state["from"]:  # type: ignore[operator]
            latencies.append(time.perf_counter() - begun)
    if writer is not None:
        writer.close()


async def main(port: int, path: str, clients: int, seconds: float, first: int, distinct: int, most: int) -> None:
    """Run all clients and print what they saw."""
    begun = time.perf_counter()
    warm_up = min(1.0, seconds / 4)  # answers to what was asked in it are not counted
    state: dict[str, object] = {"latencies": [], "failures": 0, "failure": None, "from": begun + warm_up}
    state["most"] = first + most
    numbers = count(first)
    until = begun + warm_up + seconds
    await asyncio.gather(*(ask(port, path, numbers, distinct, state, until) for _ in range(clients)))
    wall = time.perf_counter() - begun - warm_up
    answer = {name: state[name] for name in ("latencies", "failures", "failure")}
    used = next(numbers) - first
    sys.stdout.write(json.dumps({**answer, "seconds": wall, "cpu_seconds": time.process_time(), "used": used}) + "\n")


if __name__ == "__main__":
    port, path, clients, seconds, first, distinct, *most = sys.argv[1:]
    asyncio.run(
        main(int(port), path, int(clients), float(seconds), int(first), int(distinct), int(most[0]) if most else 10**12)
    )
