"""Where windows lie in a signal: one fixed rule, for samples in memory and for streams of any length."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

LastWindow = Literal["shift", "pad", "drop"]


@dataclass(frozen=True)
class WindowPolicy:
    """Length, hop and last-window rule of the windows that a signal is cut into.

    Windows begin at sample 0 and every hop after it, for as long as a whole window fits. ``last`` says what becomes of
    samples after the last whole window:

    * ``"shift"``: one more window, which ends where the audio ends and so overlaps the one before it more than usual;
    * ``"pad"``: one more window at the next hop, zero-padded at its end (none if the next hop lies beyond the audio,
      which only a hop longer than the window can cause);
    * ``"drop"``: nothing.

    Audio shorter than one window gives one window under every rule, zero-padded at its end. With a hop no longer than
    the window, ``"shift"`` and ``"pad"`` cover every sample.

    Args:
        window_seconds: Length of a window.
        hop_seconds: Distance between the starts of neighbours; None means the window's own length.
        last: The rule for what remains at the end.

    Raises:
        ValueError: If a length is not a positive finite number or ``last`` is not one of the rules.
    """

    window_seconds: float = 10.0
    hop_seconds: float | None = None
    last: LastWindow = "shift"

    def __post_init__(self) -> None:
        # The policy is part of a space's identity, and 10 and 10.0 must not be two identities.
        object.__setattr__(self, "window_seconds", _positive("window_seconds", self.window_seconds))
        if self.hop_seconds is not None:
            object.__setattr__(self, "hop_seconds", _positive("hop_seconds", self.hop_seconds))
        if self.last not in get_args(LastWindow):
            raise ValueError(f"last must be 'shift', 'pad' or 'drop', got {self.last!r}")

    def window_samples(self, sample_rate: int) -> int:
        """Samples in a window at ``sample_rate`` Hz, at least 1."""
        return _in_samples("window_seconds", self.window_seconds, sample_rate)

    def hop_samples(self, sample_rate: int) -> int:
        """Samples from one window's start to the next one's at ``sample_rate`` Hz, at least 1."""
        if self.hop_seconds is None:
            return self.window_samples(sample_rate)
        return _in_samples("hop_seconds", self.hop_seconds, sample_rate)

    def starts(self, samples: int, sample_rate: int) -> list[int]:
        """Start samples of the windows of a signal, ascending.

        Args:
            samples: Length of the signal, at least 1.
            sample_rate: In Hz.

        Returns:
            One start per window. Only a signal shorter than the window, or ``last="pad"``, gives a window that reaches
            beyond the signal, and only the last one does.

        Raises:
            ValueError: If there is no sample, or a window or hop is shorter than one sample.
        """
        if samples < 1:
            raise ValueError(f"a signal needs at least one sample to be cut into windows, got {samples}")
        window, hop = self.window_samples(sample_rate), self.hop_samples(sample_rate)
        starts = list(range(0, samples - window + 1, hop))
        extra = self._extra_start(starts[-1] if starts else None, samples, window, hop)
        return starts if extra is None else [*starts, extra]

    def _extra_start(self, last_start: int | None, samples: int, window: int, hop: int) -> int | None:
        """Start of the window after the last whole one, or None if the rule gives none."""
        if last_start is None:
            return 0
        if last_start + window == samples or self.last == "drop":
            return None
        if self.last == "shift":
            return samples - window
        return last_start + hop if last_start + hop < samples else None


@dataclass(frozen=True, eq=False)
class Window:
    """One window of a signal.

    Attributes:
        samples: A full window of float32 samples; what lies beyond the audio is zero.
        start_seconds: Where it begins, from the start of the file (or of the samples given to :func:`cut`).
        valid_samples: How many of its samples are audio; the rest, at the end, is padding.
    """

    samples: Float[np.ndarray, " window"]
    start_seconds: float
    valid_samples: int


def cut(samples: Float[np.ndarray, " samples"], sample_rate: int, policy: WindowPolicy) -> list[Window]:
    """Windows of samples in memory.

    Args:
        samples: Mono signal with at least one sample.
        sample_rate: Its rate in Hz.
        policy: Where the windows lie.

    Returns:
        The windows in order. Whole windows are views of ``samples`` where those are float32 already.

    Raises:
        ValueError: If ``samples`` is empty or not one-dimensional, or a window or hop is shorter than one sample.
    """
    samples = np.asarray(samples, dtype=np.float32)
    if samples.ndim != 1:
        raise ValueError(f"samples must be mono, of shape [samples], got shape {list(samples.shape)}; mix them first")
    window = policy.window_samples(sample_rate)
    return [
        _window(samples[start : start + window], window, start / sample_rate)
        for start in policy.starts(len(samples), sample_rate)
    ]


def cut_stream(
    blocks: Iterable[Float[np.ndarray, " samples"]], sample_rate: int, policy: WindowPolicy, first_sample: int = 0
) -> Iterator[Window]:
    """The windows that :func:`cut` gives for all blocks joined, holding about two windows and one block at a time.

    Args:
        blocks: Consecutive parts of a mono float32 signal.
        sample_rate: In Hz.
        policy: Where the windows lie.
        first_sample: Where the stream begins in its file, for ``start_seconds``.

    Yields:
        Windows in order, each with samples of its own.
    """
    window, hop = policy.window_samples(sample_rate), policy.hop_samples(sample_rate)
    parts: list[np.ndarray] = []  # the samples from `base` to `seen`
    base = seen = next_start = 0
    last_start: int | None = None

    def window_at(start: int) -> Window:
        inside = parts[0][start - base : start - base + window]
        return _window(inside.copy(), window, (first_sample + start) / sample_rate)

    for block in blocks:
        parts.append(block)
        seen += len(block)
        # Joined only when a window is complete or much is waiting, so that small blocks cost no quadratic copying.
        if seen < next_start + window and seen - base <= 2 * window:
            continue
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
        parts = [joined]
        while next_start + window <= seen:
            yield window_at(next_start)
            last_start, next_start = next_start, next_start + hop
        # The next window begins after `seen - window`, and "shift" may yet need all from there on. What a hop longer
        # than the window passes over is dropped with the rest.
        keep = max(base, seen - window)
        parts, base = [joined[keep - base :]], keep
    if seen == 0:
        return
    extra = policy._extra_start(last_start, seen, window, hop)
    if extra is not None:
        parts = [np.concatenate(parts)]
        yield window_at(extra)


def _window(inside: np.ndarray, window: int, start_seconds: float) -> Window:
    valid = len(inside)
    if valid < window:
        padded = np.zeros(window, dtype=np.float32)
        padded[:valid] = inside
        inside = padded
    return Window(inside, start_seconds, valid)


def _positive(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a positive number of seconds, got {value!r}")
    return float(value)


def _in_samples(name: str, seconds: float, sample_rate: int) -> int:
    samples = round(seconds * sample_rate)
    if samples < 1:
        raise ValueError(f"{name}={seconds} is shorter than one sample at {sample_rate} Hz; use a longer one")
    return samples
