"""Decoding in a process of its own: a file that hangs or kills the decoder is one bad file, not a dead run.

The decoders are C libraries, and no exception leaves them when they crash or loop. :class:`IsolatedDecoder` gives each
file to a child process, waits for a limited time, and starts another child if that one is gone. The child is this
interpreter with this module, so that the samples are those of :func:`xmodal.audio.load`, bit for bit.

Answers are samples and JSON: a child that a file has taken over can say wrong things, and nothing that runs here. With
a limit of memory it can also hold no more than that, write no files to speak of, and sees nothing of the environment.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import pickle
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float

from xmodal.audio.files import AudioLimits, load, load_within, probe
from xmodal.audio.stored import AudioInfo, AudioLike, place_of
from xmodal.errors import AudioError, AudioTooLargeError

_HEAD = struct.Struct("<cQ")  # kind of answer, bytes that follow
_FACTS_HEAD = struct.Struct("<I")  # bytes of JSON, before the samples
_VALUE, _ERROR = b"v", b"e"
_PIPE_BYTES = 1 << 20  # what a pipe holds at most without privileges: a 10-s window at 24 kHz passes in one piece
_START_SECONDS = 60.0
_MEND = "re-encode it or get a complete copy"
_PR_SET_PDEATHSIG = 1
_WRITABLE_BYTES = 16 << 20  # for a confined child: what its libraries say goes to a file
_ENVIRONMENT = frozenset(
    {"PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONHOME", "TMPDIR", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"}
)


class DecoderFailedError(RuntimeError):
    """The decoder's program failed on a file in a way that no file should make it fail."""


class IsolatedDecoder:
    """:func:`~xmodal.audio.load` and :func:`~xmodal.audio.probe` in a child process.

    The child is started by the first call, ends with its parent, and serves one call at a time. A copy that went to
    another process by pickle starts a child of its own there.

    Args:
        time_limit_seconds: What one call may take before its file is given up.
        memory_limit_bytes: What the child may hold beyond its program, and send at most. None: no limit, and the child
            is a process like its parent.

    Attributes:
        timeouts: Calls that were given up after the time limit.
        crashes: Times that the child was gone.
    """

    def __init__(self, *, time_limit_seconds: float = 60.0, memory_limit_bytes: int | None = None) -> None:
        if not time_limit_seconds > 0:
            raise ValueError(f"time_limit_seconds must be positive, got {time_limit_seconds}")
        if memory_limit_bytes is not None and memory_limit_bytes < 1:
            raise ValueError(f"memory_limit_bytes must be at least 1, or None for no limit, got {memory_limit_bytes}")
        self.time_limit_seconds = time_limit_seconds
        self.memory_limit_bytes = memory_limit_bytes
        self.timeouts = self.crashes = 0
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._aborted = False

    def start(self) -> None:
        """Start the child now, so that the first call need not wait for it."""
        with self._lock:
            self._running_child()

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
        return self._ask("load", audio, (sample_rate,), options)[1]

    def load_within(
        self,
        audio: AudioLike,
        sample_rate: int,
        limits: AudioLimits,
        *,
        start_seconds: float = 0.0,
        end_seconds: float | None = None,
    ) -> tuple[AudioInfo, Float[np.ndarray, " samples"]]:
        """What :func:`xmodal.audio.load_within` gives.

        Raises:
            AudioError: Also if the file took too long, crashed the decoder or needed too much memory.
        """
        options = {"start_seconds": start_seconds, "end_seconds": end_seconds}
        facts, samples = self._ask("load_within", audio, (sample_rate, limits), options)
        # Also NaN fails this, which load_within itself never gives.
        if len(samples) == 0 or not (samples.min() >= -1 and samples.max() <= 1):
            raise self._senseless(audio)
        return self._info(facts, audio), samples

    def probe(self, audio: AudioLike) -> AudioInfo:
        """What :func:`xmodal.audio.probe` gives.

        Raises:
            AudioError: Also if the file took too long or crashed the decoder.
        """
        return self._info(self._ask("probe", audio, (), {})[0], audio)

    def close(self) -> None:
        """End the child, if there is one; the next call starts another."""
        with self._lock:
            self._end()

    def abort(self) -> None:
        """From another thread: end the child at once. The call under way and all later ones raise AudioError."""
        self._aborted = True
        child = self._child
        if child is not None:
            child.process.kill()

    def _ask(
        self, name: str, audio: AudioLike, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[dict[str, Any], np.ndarray]:
        with self._lock:
            try:
                kind, payload = self._answer((name, audio, arguments, options))
            except (EOFError, BrokenPipeError):
                # The child may have been killed for no fault of the file. Twice is no chance.
                self.crashes += 1
                self._end()
                try:
                    kind, payload = self._answer((name, audio, arguments, options))
                except (EOFError, BrokenPipeError):
                    self.crashes += 1
                    raise AudioError(place_of(audio), f"crashed its decoder ({self._end()}); {_MEND}") from None
        try:
            if kind == _ERROR:
                said = json.loads(payload)
                error = self._error(str(said["kind"]), str(said["reason"]), audio)
            else:
                length = _FACTS_HEAD.unpack_from(payload)[0]
                facts = json.loads(payload[_FACTS_HEAD.size : _FACTS_HEAD.size + length])
                # The JSON is padded so that the samples begin at a multiple of four.
                return facts, np.frombuffer(payload, dtype=np.float32, offset=_FACTS_HEAD.size + length)
        except (ValueError, TypeError, KeyError, struct.error):
            raise self._senseless(audio) from None
        raise error

    def _info(self, facts: dict[str, Any], audio: AudioLike) -> AudioInfo:
        try:
            return AudioInfo(
                int(facts["sample_rate"]),
                int(facts["channels"]),
                int(facts["frames"]),
                float(facts["duration_seconds"]),
                str(facts["format"]),
            )
        except (ValueError, TypeError, KeyError):
            raise self._senseless(audio) from None

    def _senseless(self, audio: AudioLike) -> AudioError:
        self.crashes += 1
        self.close()
        return AudioError(place_of(audio), f"made its decoder give a senseless answer; {_MEND}")

    def _error(self, kind: str, reason: str, audio: AudioLike) -> Exception:
        if kind == "memory":
            reason = "needs more memory to decode than is allowed; re-encode it, or divide it"
        made: dict[str, Callable[[], Exception]] = {
            "value": lambda: ValueError(reason),
            "large": lambda: AudioTooLargeError(place_of(audio), reason),
            "program": lambda: DecoderFailedError(f"the decoder failed on {place_of(audio)}: {reason}"),
        }
        return made.get(kind, lambda: AudioError(place_of(audio), reason))()

    def _running_child(self) -> _Child:
        if self._child is None or self._child.owner != os.getpid():
            self._child = _Child(self.memory_limit_bytes)
        return self._child

    def _answer(self, question: tuple[str, AudioLike, Any, Any]) -> tuple[bytes, bytearray]:
        try:
            child = None if self._aborted else self._running_child()
            if child is None or self._aborted:  # also while it was starting
                raise AudioError(place_of(question[1]), "was given up before it was decoded")
            return child.ask(question, self.time_limit_seconds)
        except TimeoutError:
            self.timeouts += 1
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
        return {"time_limit_seconds": self.time_limit_seconds, "memory_limit_bytes": self.memory_limit_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


class _Child:
    """A running child and the two pipes to it."""

    def __init__(self, memory_limit_bytes: int | None) -> None:
        self.owner = os.getpid()
        self.longest = memory_limit_bytes or sys.maxsize
        # In a file and not a pipe: decoders may write any amount of warnings, and nobody reads along.
        self.errors: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the child)
        search = [entry for entry in sys.path if entry]
        code = (
            f"import sys; sys.path[:0] = {search!r}; from xmodal.audio.isolated import serve; "
            f"serve({memory_limit_bytes!r})"
        )
        confined = {name: value for name, value in os.environ.items() if name in _ENVIRONMENT}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=None if memory_limit_bytes is None else confined,
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
        if length > self.longest:
            self.process.kill()
            raise EOFError
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
        if getattr(self, "process", None) is not None and self.owner == os.getpid():
            # Also if it has ended already, as it does with the thread that started it: the pipes are still open then.
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
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


def serve(memory_limit_bytes: int | None = None) -> None:
    """The child's side: answer questions from standard input until it ends.

    Args:
        memory_limit_bytes: As for :class:`IsolatedDecoder`.
    """
    if sys.platform == "linux":
        # A child that hangs in a decoder reads no end of input; the kernel ends it when its parent's thread ends.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not be taken for an answer
    calls: dict[str, Any] = {"load": load, "load_within": load_within, "probe": probe}
    if memory_limit_bytes is not None:
        _confine(memory_limit_bytes)
    _send(answers, b"")
    while len(head := questions.read(_HEAD.size)) == _HEAD.size:
        name, audio, arguments, options = pickle.loads(questions.read(_HEAD.unpack(head)[1]))
        try:
            value = calls[name](audio, *arguments, **options)
        except Exception as error:
            _send(answers, json.dumps(_said(error)).encode(), _ERROR)
        else:
            _send_value(answers, value)


def _said(error: Exception) -> dict[str, str]:
    if isinstance(error, AudioError):
        return {"kind": "large" if isinstance(error, AudioTooLargeError) else "audio", "reason": error.reason}
    if isinstance(error, MemoryError):
        return {"kind": "memory", "reason": ""}
    if isinstance(error, ValueError):
        return {"kind": "value", "reason": str(error)}
    return {"kind": "program", "reason": f"{type(error).__name__}: {error}"}


def _send_value(answers: Any, value: AudioInfo | np.ndarray | tuple[AudioInfo, np.ndarray]) -> None:
    info, samples = (
        value if isinstance(value, tuple) else (None, value) if isinstance(value, np.ndarray) else (value, None)
    )
    facts = json.dumps(None if info is None else asdict(info)).encode()
    facts += b" " * (-len(facts) % 4)
    size = 0 if samples is None else samples.nbytes
    answers.write(_HEAD.pack(_VALUE, _FACTS_HEAD.size + len(facts) + size) + _FACTS_HEAD.pack(len(facts)) + facts)
    if samples is not None:
        answers.write(np.ascontiguousarray(samples, dtype=np.float32).data)
    answers.flush()


def _confine(memory_bytes: int) -> None:
    """Limit what this process may hold and write from now on."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit then fails, and nothing else
    resource.setrlimit(resource.RLIMIT_FSIZE, (_WRITABLE_BYTES, _WRITABLE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
