"""Decoding in a process of its own: a file that hangs or kills the decoder is one bad file, not a dead run.

The decoders are C libraries, and no exception leaves them when they crash or loop. :class:`IsolatedDecoder` gives each
file to a child process, waits for a limited time, and starts another child if that one is gone. The child is this
interpreter with this module, so that the samples are those of :func:`xmodal.audio.load`, bit for bit.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float

from xmodal.audio.files import load, probe
from xmodal.audio.stored import AudioInfo, AudioLike, place_of
from xmodal.errors import AudioError

_HEAD = struct.Struct("<cQ")  # kind of answer, bytes that follow
_SAMPLES, _VALUE, _ERROR = b"s", b"v", b"e"
_PIPE_BYTES = 1 << 20  # what a pipe holds at most without privileges: a 10-s window at 24 kHz passes in one piece
_START_SECONDS = 60.0
_MEND = "re-encode it or get a complete copy"
_PR_SET_PDEATHSIG = 1


class IsolatedDecoder:
    """:func:`~xmodal.audio.load` and :func:`~xmodal.audio.probe` in a child process.

    The child is started by the first call, ends with its parent, and serves one call at a time. A copy that went to
    another process by pickle starts a child of its own there.

    Args:
        time_limit_seconds: What one call may take before its file is given up.
    """

    def __init__(self, *, time_limit_seconds: float = 60.0) -> None:
        if not time_limit_seconds > 0:
            raise ValueError(f"time_limit_seconds must be positive, got {time_limit_seconds}")
        self.time_limit_seconds = time_limit_seconds
        self._lock = threading.Lock()
        self._child: _Child | None = None

    def load(
        self,
        audio: AudioLike,
        sample_rate: int,
        *,
        start_seconds: float = 0.0,
        duration_seconds: float | None = None,
    ) -> Float[np.ndarray, " samples"]:
        """What :func:`xmodal.audio.load` gives.

        Raises:
            AudioError: Also if the file took too long or crashed the decoder.
        """
        options = {"start_seconds": start_seconds, "duration_seconds": duration_seconds}
        samples: np.ndarray = self._ask("load", audio, (sample_rate,), options)
        return samples

    def probe(self, audio: AudioLike) -> AudioInfo:
        """What :func:`xmodal.audio.probe` gives.

        Raises:
            AudioError: Also if the file took too long or crashed the decoder.
        """
        info: AudioInfo = self._ask("probe", audio, (), {})
        return info

    def close(self) -> None:
        """End the child, if there is one; the next call starts another."""
        with self._lock:
            self._end()

    def _ask(self, name: str, audio: AudioLike, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        with self._lock:
            try:
                kind, payload = self._answer((name, audio, arguments, options))
            except (EOFError, BrokenPipeError):
                # The child may have been killed for no fault of the file. Twice is no chance.
                self._end()
                try:
                    kind, payload = self._answer((name, audio, arguments, options))
                except (EOFError, BrokenPipeError):
                    raise AudioError(place_of(audio), f"crashed its decoder ({self._end()}); {_MEND}") from None
        if kind == _SAMPLES:
            return np.frombuffer(payload, dtype=np.float32)
        value = pickle.loads(payload)
        if kind == _ERROR:
            raise value
        return value

    def _answer(self, question: tuple[str, AudioLike, Any, Any]) -> tuple[bytes, bytearray]:
        if self._child is None or self._child.owner != os.getpid():
            self._child = _Child()
        try:
            return self._child.ask(question, self.time_limit_seconds)
        except TimeoutError:
            self._end()
            raise AudioError(
                place_of(question[1]),
                f"was not decoded within {self.time_limit_seconds:g} s and was given up; re-encode it, or raise the "
                "time limit if it is only slow to read",
            ) from None
        except (EOFError, BrokenPipeError):
            raise
        except BaseException:
            # Interrupted between question and answer: the next question would read this one's answer.
            self._end()
            raise

    def _end(self) -> str:
        child, self._child = self._child, None
        ended = None if child is None else child.kill()
        return signal.Signals(-ended).name if ended is not None and ended < 0 else f"exit code {ended}"

    def __getstate__(self) -> dict[str, Any]:
        return {"time_limit_seconds": self.time_limit_seconds}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


class _Child:
    """A running child and the two pipes to it."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        # In a file and not a pipe: decoders may write any amount of warnings, and nobody reads along.
        self.errors: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the child)
        search = [entry for entry in sys.path if entry]
        code = f"import sys; sys.path[:0] = {search!r}; from xmodal.audio.isolated import serve; serve()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.questions, self.answers = self.process.stdin, self.process.stdout
        _widen(self.answers.fileno())
        try:
            self._answer(_START_SECONDS)  # its greeting
        except (EOFError, TimeoutError):
            self.kill()
            self.errors.seek(0)
            said = self.errors.read()[-2000:].decode(errors="replace").strip()
            raise RuntimeError(f"the decoder's process did not start: {said or 'it said nothing'}") from None

    def ask(self, question: Any, seconds: float) -> tuple[bytes, bytearray]:
        _send(self.questions, pickle.dumps(question))
        return self._answer(seconds)

    def _answer(self, seconds: float) -> tuple[bytes, bytearray]:
        deadline = time.monotonic() + seconds
        kind, length = _HEAD.unpack(self._read(_HEAD.size, deadline))
        return kind, self._read(length, deadline)

    def _read(self, length: int, deadline: float) -> bytearray:
        data, filled = bytearray(length), 0
        descriptor = self.answers.fileno()
        while filled < length:
            if not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError
            count = os.readv(descriptor, [memoryview(data)[filled:]])
            if count == 0:
                raise EOFError
            filled += count
        return data

    def kill(self) -> int | None:
        """End the process; how it ended if it had ended by itself, as :attr:`subprocess.Popen.returncode`."""
        try:
            # Its end of the pipe is closed a moment before the kernel says how it ended.
            ended: int | None = self.process.wait(5.0 if _hung_up(self.answers.fileno()) else 0.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            ended = None
        with contextlib.suppress(BrokenPipeError):  # a question that it did not live to read
            self.questions.close()
        self.answers.close()
        return ended

    def __del__(self) -> None:
        if getattr(self, "owner", None) == os.getpid() and self.process.poll() is None:
            self.kill()
        if hasattr(self, "errors"):
            self.errors.close()


def _hung_up(descriptor: int) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return any(event & select.POLLHUP for _, event in poller.poll(0))


def _widen(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # a matter of speed alone
        fcntl.fcntl(descriptor, getattr(fcntl, "F_SETPIPE_SZ", 1031), _PIPE_BYTES)


def _send(stream: Any, payload: bytes, kind: bytes = _VALUE) -> None:
    stream.write(_HEAD.pack(kind, len(payload)) + payload)
    stream.flush()


def serve() -> None:
    """The child's side: answer questions from standard input until it ends."""
    if sys.platform == "linux":
        # A child that hangs in a decoder reads no end of input; the kernel ends it when its parent's thread ends.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not be taken for an answer
    calls: dict[str, Any] = {"load": load, "probe": probe}
    _send(answers, b"")
    while len(head := questions.read(_HEAD.size)) == _HEAD.size:
        name, audio, arguments, options = pickle.loads(questions.read(_HEAD.unpack(head)[1]))
        try:
            value = calls[name](audio, *arguments, **options)
        except Exception as error:
            _send(answers, pickle.dumps(error), _ERROR)
        else:
            if isinstance(value, np.ndarray):
                answers.write(_HEAD.pack(_SAMPLES, value.nbytes))
                answers.write(np.ascontiguousarray(value, dtype=np.float32).data)
                answers.flush()
            else:
                _send(answers, pickle.dumps(value))
