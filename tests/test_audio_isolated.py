"""A file may do to its decoder what it likes: it is one bad file."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from decoder_traps import set_traps

from xmodal.audio import IsolatedDecoder, load, probe
from xmodal.errors import AudioError


@pytest.fixture
def trapped(tmp_path, monkeypatch):
    set_traps(tmp_path, monkeypatch)


@pytest.fixture
def files(tmp_path):
    samples = 0.1 * np.sin(np.arange(44100) * 0.1).astype("float32")

    def write(name):
        soundfile.write(tmp_path / name, samples, 44100)
        return tmp_path / name

    return write


def test_it_gives_the_very_samples_and_facts_that_load_and_probe_give(files):
    decoder, path = IsolatedDecoder(), files("good.flac")
    assert decoder.probe(path) == probe(path)
    whole = decoder.load(path, 16000)
    assert np.array_equal(whole, load(path, 16000))
    part = decoder.load(path, 44100, start_seconds=0.25, duration_seconds=0.5)
    assert np.array_equal(part, load(path, 44100, start_seconds=0.25, duration_seconds=0.5))
    part[0] = 0.5  # the caller's own
    decoder.close()


def test_its_errors_are_those_of_load_and_it_goes_on_after_them(files, tmp_path):
    decoder, good = IsolatedDecoder(), files("good.wav")
    (tmp_path / "bad.wav").write_bytes(b"RIFF is not enough")
    for call in (decoder.probe, lambda path: decoder.load(path, 8000)):
        with pytest.raises(AudioError) as isolated:
            call(tmp_path / "bad.wav")
        with pytest.raises(AudioError) as direct:
            probe(tmp_path / "bad.wav")
        assert str(isolated.value) == str(direct.value)
        assert isolated.value.path == tmp_path / "bad.wav"
    with pytest.raises(ValueError, match="sample_rate"):
        decoder.load(good, 3)
    assert len(decoder.load(good, 8000)) == 8000
    decoder.close()


def test_a_file_that_crashes_hangs_or_ends_the_decoder_is_named_and_the_next_one_decoded(trapped, files):
    decoder = IsolatedDecoder(time_limit_seconds=1.0)
    good, crash, leave, hang = (files(f"{name}.wav") for name in ("good", "crash", "leave", "hang"))
    with pytest.raises(AudioError, match=r"crash.wav: crashed its decoder \(SIGSEGV\)"):
        decoder.load(crash, 8000)
    assert len(decoder.load(good, 8000)) == 8000
    with pytest.raises(AudioError, match=r"crashed its decoder \(exit code 3\)"):
        decoder.probe(leave)
    begun = time.monotonic()
    with pytest.raises(AudioError, match="hang.wav: was not decoded within 1 s"):
        decoder.load(hang, 8000)
    assert time.monotonic() - begun < 30  # and not the 1,000 s that it sleeps
    assert len(decoder.load(good, 8000)) == 8000
    decoder.close()


def test_what_a_decoder_prints_is_not_taken_for_an_answer(trapped, files):
    decoder = IsolatedDecoder()
    assert len(decoder.load(files("chatter.wav"), 8000)) == 8000
    decoder.close()


def test_a_copy_has_a_child_of_its_own_and_closing_ends_it(files):
    decoder = IsolatedDecoder(time_limit_seconds=7.0)
    path = files("good.wav")
    decoder.load(path, 8000)
    copy = pickle.loads(pickle.dumps(decoder))
    assert copy.time_limit_seconds == 7.0
    copy.load(path, 8000)
    children = [one._child.process.pid for one in (decoder, copy)]
    assert children[0] != children[1]
    decoder.close()
    copy.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
    assert len(decoder.load(path, 8000)) == 8000, "closing is not the end of it"
    decoder.close()


def test_a_child_that_was_killed_from_outside_is_replaced_and_its_file_not_blamed(files):
    decoder, path = IsolatedDecoder(), files("good.wav")
    decoder.load(path, 8000)
    os.kill(decoder._child.process.pid, signal.SIGKILL)
    assert len(decoder.load(path, 8000)) == 8000
    decoder.close()


def test_a_limit_that_is_no_time_is_refused():
    with pytest.raises(ValueError, match="time_limit_seconds must be positive"):
        IsolatedDecoder(time_limit_seconds=0)


def test_a_decoder_whose_child_has_ended_with_its_thread_leaves_nothing_open(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(100, np.float32), 8000)
    decoder = IsolatedDecoder()
    thread = threading.Thread(target=decoder.load, args=(path, 8000))
    thread.start()
    thread.join()  # the kernel ends the child with the thread that started it
    process, errors = decoder._child.process, decoder._child.errors
    process.wait(10)
    del decoder
    gc.collect()
    assert process.stdin.closed
    assert process.stdout.closed
    assert errors.closed
