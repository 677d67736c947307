"""A server decodes in a few children that files cannot harm it through; uploads lie on disk no longer than needed."""

from __future__ import annotations

import asyncio
import io
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corrupt_audio import chirp, flac_that_claims, write
from decoder_traps import set_traps
from prometheus_client.parser import text_string_to_metric_families

from serve.decoding import DecoderPool, OverloadedError, UploadStore
from serve.metrics import Metrics
from serve.problems import Problem
from xmodal.audio import AudioLimits, load, probe
from xmodal.errors import AudioError, AudioTooLargeError

LIMITS = AudioLimits(seconds=20.0, channels=8, rate_hz=192_000)
MIB = 1024**2


def run(work, **settings):
    """Run ``await work(pool)`` and give its result; the children are gone afterwards."""

    async def main():
        pool = DecoderPool(**{"workers": 1, "time_limit_seconds": 5.0, "limits": LIMITS, **settings})
        try:
            return await work(pool)
        finally:
            await pool.close()

    return asyncio.run(main())


def counted(metrics):
    return {
        (family.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics.expose()[0].decode())
        for sample in family.samples
        if sample.name.endswith("_total")
    }


def test_it_gives_the_very_samples_of_load_for_every_kind(tmp_path):
    paths = [write(tmp_path / f"a{kind}", chirp(1.0, 48000, 2), 48000) for kind in (".wav", ".mp3", ".m4a", ".opus")]

    async def work(pool):
        return [await pool.decode(path, 16000, name="upload") for path in paths]

    for path, decoded in zip(paths, run(work), strict=True):
        assert np.array_equal(decoded.samples, load(path, 16000))
        assert decoded.info == probe(path)


def test_limits_are_judged_from_the_header_before_anything_is_decoded(tmp_path):
    long = flac_that_claims(write(tmp_path / "a.flac", chirp(0.5, 8000), 8000), 8000 * 21)
    wide = tmp_path / "wide.wav"
    soundfile.write(wide, np.zeros((100, 9), np.float32), 8000)
    fast = tmp_path / "fast.wav"
    soundfile.write(fast, np.zeros(100, np.float32), 192_001)
    edge = tmp_path / "edge.wav"
    soundfile.write(edge, np.zeros((192_000, 8), np.float32), 192_000)

    async def work(pool):
        for path, said in (
            (long, "holds more audio than the limit of 20 s"),
            (wide, "has 9 channels, more than the limit of 8"),
            (fast, "has 192001 Hz, more than the limit of 192000"),
        ):
            with pytest.raises(AudioTooLargeError, match=said) as refused:
                await pool.decode(path, 8000, name="upload.bin")
            assert str(refused.value).startswith("upload.bin: ")
            assert str(tmp_path) not in str(refused.value)
        return await pool.decode(edge, 8000, name="edge")

    metrics = Metrics()
    assert len(run(work, metrics=metrics).samples) == 8000
    assert counted(metrics)["xmodal_decodes", "too_large"] == 3
    assert counted(metrics)["xmodal_decodes", "done"] == 1


def test_a_length_that_is_not_declared_is_counted_while_it_is_decoded(tmp_path):
    path = flac_that_claims(write(tmp_path / "a.flac", chirp(1.0, 8000), 8000), 0)

    async def work(pool):
        decoded = await pool.decode(path, 8000, name="a")
        assert decoded.info.frames == 8000
        short = DecoderPool(workers=1, limits=AudioLimits(seconds=0.5))
        try:
            with pytest.raises(AudioTooLargeError):
                await short.decode(path, 8000, name="a")
        finally:
            await short.close()

    run(work)


def test_a_bomb_is_refused_and_what_needs_too_much_memory_too(tmp_path):
    bomb = tmp_path / "bomb.flac"
    soundfile.write(bomb, np.zeros((8000 * 60 * 60, 1), np.int16), 8000)  # an hour of silence in some kilobytes
    assert bomb.stat().st_size < 200_000

    async def refused(pool):
        with pytest.raises(AudioTooLargeError):
            await pool.decode(bomb, 8000, name="bomb")

    async def full(pool):
        with pytest.raises(AudioError, match="needs more memory|crashed its decoder"):
            await pool.decode(bomb, 48000, name="bomb")
        good = write(tmp_path / "good.wav", chirp(0.5, 8000), 8000)
        return await pool.decode(good, 8000, name="good")

    run(refused)
    wide_open = AudioLimits(seconds=7200.0)
    assert len(run(full, limits=wide_open, memory_bytes=160 * MIB).samples) == 4000


def test_a_file_that_hangs_or_crashes_the_decoder_is_given_up_and_the_next_is_decoded(tmp_path, monkeypatch, children):
    set_traps(tmp_path, monkeypatch)
    good, hang, crash = (write(tmp_path / f"{name}.wav", chirp(0.2, 8000), 8000) for name in ("good", "hang", "crash"))
    metrics = Metrics()

    async def work(pool):
        with pytest.raises(AudioError, match="was not decoded within 1 s"):
            await pool.decode(hang, 8000, name="a")
        with pytest.raises(AudioError, match="crashed its decoder"):
            await pool.decode(crash, 8000, name="b")
        return await pool.decode(good, 8000, name="c")

    assert len(run(work, time_limit_seconds=1.0, metrics=metrics).samples) == 1600
    said = counted(metrics)
    assert said["xmodal_decodes", "timeout"] == said["xmodal_decodes", "crashed"] == 1
    assert said["xmodal_decoder_kills", "time"] == 1
    assert not children()


def test_a_client_that_leaves_ends_its_decoder_at_once(tmp_path, monkeypatch, children):
    set_traps(tmp_path, monkeypatch)
    hang = write(tmp_path / "hang.wav", chirp(0.2, 8000), 8000)
    good = write(tmp_path / "good.wav", chirp(0.2, 8000), 8000)
    metrics = Metrics()

    async def work(pool):
        await pool.start()
        (child,) = children()
        task = asyncio.create_task(pool.decode(hang, 8000, name="a"))
        await asyncio.sleep(0.2)
        waiting = asyncio.create_task(pool.decode(good, 8000, name="b"))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        began = time.monotonic()
        assert len((await waiting).samples) == 1600, "who waits gets another child"
        assert time.monotonic() - began < 20, "and not after the time limit"
        assert child not in children()

    run(work, time_limit_seconds=1000.0, metrics=metrics)
    assert counted(metrics)["xmodal_decoder_kills", "left"] == 1
    assert not children()


def test_who_leaves_while_waiting_costs_nothing(tmp_path, monkeypatch):
    set_traps(tmp_path, monkeypatch)
    hang = write(tmp_path / "hang.wav", chirp(0.2, 8000), 8000)
    good = write(tmp_path / "good.wav", chirp(0.2, 8000), 8000)

    async def work(pool):
        first = asyncio.create_task(pool.decode(hang, 8000, name="a"))
        await asyncio.sleep(0)
        waiting = [asyncio.create_task(pool.decode(good, 8000, name="b")) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="2 audio files wait") as refused:
            await pool.decode(good, 8000, name="c")
        assert refused.value.status == 429
        assert int(refused.value.headers["Retry-After"]) >= 1
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert pool._waiting_now == 0
        with pytest.raises(AudioError, match="not decoded within"):
            await first
        return await pool.decode(good, 8000, name="d")

    assert len(run(work, waiting=2, time_limit_seconds=1.5).samples) == 1600


def test_closing_ends_children_that_work(tmp_path, monkeypatch, children):
    set_traps(tmp_path, monkeypatch)
    hang = write(tmp_path / "hang.wav", chirp(0.2, 8000), 8000)

    async def main():
        pool = DecoderPool(workers=2, time_limit_seconds=1000.0)
        await pool.start()
        assert len(children()) == 2
        task = asyncio.create_task(pool.decode(hang, 8000, name="a"))
        await asyncio.sleep(0.2)
        await pool.close()
        with pytest.raises(AudioError, match="given up"):
            await task
        with pytest.raises(Problem, match="stopping"):
            await pool.decode(hang, 8000, name="a")

    asyncio.run(main())
    assert not children()


def test_a_child_knows_nothing_of_the_servers_environment_and_writes_no_large_files(tmp_path, monkeypatch):
    (tmp_path / "spy").mkdir()
    (tmp_path / "spy" / "soundfile.py").write_text(
        "import os, sys\n"
        "folder = os.path.dirname(os.path.abspath(__file__))\n"
        "sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != folder]\n"
        "del sys.modules['soundfile']\n"
        "import soundfile\n"
        "original = soundfile.SoundFile.__init__\n"
        "def spying(self, *args, **kwargs):\n"
        "    with open(folder + '/seen', 'w') as file: file.write(repr(dict(os.environ)))\n"
        "    try:\n"
        "        with open(folder + '/large', 'wb') as file: file.write(bytes(64 << 20))\n"
        "    except OSError: pass\n"
        "    return original(self, *args, **kwargs)\n"
        "soundfile.SoundFile.__init__ = spying\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "spy")
    monkeypatch.setenv("XMODAL_SERVE_TOKEN", "very-secret")
    good = write(tmp_path / "good.wav", chirp(0.2, 8000), 8000)

    async def work(pool):
        return await pool.decode(good, 8000, name="a")

    assert len(run(work).samples) == 1600
    assert "very-secret" not in (tmp_path / "spy" / "seen").read_text()
    assert (tmp_path / "spy" / "large").stat().st_size <= 16 * MIB


LIAR = """
import os, struct, sys
folder = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != folder]
del sys.modules["soundfile"]
import soundfile
original = soundfile.SoundFile.__init__
FACTS = b'{"sample_rate":8000,"channels":1,"frames":2,"duration_seconds":1.0,"format":"wav"}  '
LIES = {
    "long": struct.pack("<cQ", b"v", 2**60),
    "short": struct.pack("<cQ", b"v", 1) + b"x",
    "kind": struct.pack("<cQ", b"?", 4) + bytes(4),
    "json": struct.pack("<cQ", b"v", 8) + struct.pack("<I", 4) + b"{{{{",
    "facts": struct.pack("<cQ", b"v", 12) + struct.pack("<I", 4) + b"[1] " + bytes(4),
    "error": struct.pack("<cQ", b"e", 4) + b"[12]",
}
for name, value in (("nan", float("nan")), ("loud", 1e9)):
    payload = struct.pack("<I", len(FACTS)) + FACTS + struct.pack("<2f", 0, value)
    LIES[name] = struct.pack("<cQ", b"v", len(payload)) + payload
def lying(self, descriptor, *args, **kwargs):
    lie = LIES.get(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")).removesuffix(".wav"))
    if lie is not None:
        def send(answers, value):
            answers.write(lie)
            answers.flush()
        isolated = sys.modules["xmodal.audio.isolated"]
        isolated._send_value = send
    return original(self, descriptor, *args, **kwargs)
soundfile.SoundFile.__init__ = lying
"""


def test_a_child_that_lies_makes_one_bad_file_and_is_replaced(tmp_path, monkeypatch):
    (tmp_path / "liar").mkdir()
    (tmp_path / "liar" / "soundfile.py").write_text(LIAR)
    monkeypatch.syspath_prepend(tmp_path / "liar")
    good = write(tmp_path / "good.wav", chirp(0.2, 8000), 8000)

    async def work(pool):
        for lie in ("short", "kind", "json", "facts", "error", "nan", "loud", "long"):
            path = write(tmp_path / f"{lie}.wav", chirp(0.2, 8000), 8000)
            with pytest.raises(AudioError, match="senseless answer|crashed its decoder"):
                await pool.decode(path, 8000, name="a")
        assert len((await pool.decode(good, 8000, name="b")).samples) == 1600

    run(work)


# Uploads


class Upload:
    def __init__(self, content, wait_seconds=0.0):
        self.file, self.wait_seconds = io.BytesIO(content), wait_seconds

    async def read(self, size=-1):
        await asyncio.sleep(self.wait_seconds)
        return self.file.read(size)


def test_an_upload_is_a_private_file_under_a_random_name_and_gone_afterwards(tmp_path):
    store = UploadStore(tmp_path)

    async def main():
        names = set()
        for _ in range(3):
            async with store.receive(Upload(b"x" * 3_000_000)) as path:
                assert path.read_bytes() == b"x" * 3_000_000
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
                assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
                names.add(path.name)
            assert not path.exists()
        assert len(names) == 3
        with pytest.raises(RuntimeError, match="while in use"):
            async with store.receive(Upload(b"abc")) as path:
                raise RuntimeError("while in use")
        assert not path.exists()

    asyncio.run(main())
    assert os.listdir(store.folder) == ["lock"]
    store.close()
    assert os.listdir(tmp_path) == []


def test_uploads_together_have_a_bound_on_disk_and_free_it(tmp_path):
    metrics = Metrics()
    store = UploadStore(tmp_path, max_bytes=4 * MIB, metrics=metrics)
    largest = 0

    async def one():
        nonlocal largest
        try:
            async with store.receive(Upload(b"x" * (3 * MIB // 2), wait_seconds=0.001)):
                largest = max(largest, sum(file.stat().st_size for file in store.folder.iterdir()))
                await asyncio.sleep(0.05)
        except OverloadedError:
            return "refused"
        return "kept"

    async def main():
        return await asyncio.gather(*(one() for _ in range(20)))

    outcomes = asyncio.run(main())
    assert 1 <= outcomes.count("kept") <= 2
    assert largest <= 4 * MIB
    assert store._bytes == 0
    assert asyncio.run(one()) == "kept"
    assert os.listdir(store.folder) == ["lock"]
    store.close()


def test_a_client_that_leaves_in_the_middle_leaves_no_file(tmp_path):
    store = UploadStore(tmp_path)

    async def main():
        async def receive():
            async with store.receive(Upload(b"x" * 5 * MIB, wait_seconds=0.02)):
                await asyncio.sleep(3600)

        task = asyncio.create_task(receive())
        await asyncio.sleep(0.05)
        assert len(os.listdir(store.folder)) == 2
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    assert os.listdir(store.folder) == ["lock"]
    assert store._bytes == 0
    store.close()


def test_what_a_killed_server_left_is_swept_and_what_a_live_one_has_is_not(tmp_path):
    code = (
        "import sys, pathlib, time\n"
        "from serve.decoding import UploadStore\n"
        "store = UploadStore(pathlib.Path(sys.argv[1]))\n"
        "(store.folder / 'upload').write_bytes(b'x')\n"
        "print(store.folder, flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    left = Path(process.stdout.readline().strip())
    live = UploadStore(tmp_path)
    assert (left / "upload").exists()
    process.kill()
    process.wait()
    process.stdout.close()
    (tmp_path / "xmodal-uploads-not-ours").mkdir()
    other = UploadStore(tmp_path)
    assert not left.exists()
    assert live.folder.exists()
    assert (tmp_path / "xmodal-uploads-not-ours").exists()
    for store in (live, other):
        store.close()


@pytest.mark.parametrize("values", [{"workers": 0}, {"waiting": -1}])
def test_a_pool_of_nobody_is_refused(values):
    with pytest.raises(ValueError, match="workers must be at least 1"):
        DecoderPool(**values)
