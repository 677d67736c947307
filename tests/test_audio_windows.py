"""Where windows lie, and that the streamed ones are those cut from memory."""

from __future__ import annotations

import dataclasses
import itertools
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xmodal.audio import Window, WindowPolicy, cut
from xmodal.audio.policy import cut_stream

RATE = 10

lengths = st.integers(1, 400)
policies = st.builds(
    WindowPolicy,
    window_seconds=st.integers(1, 60).map(lambda samples: samples / RATE),
    hop_seconds=st.none() | st.integers(1, 90).map(lambda samples: samples / RATE),
    last=st.sampled_from(["shift", "pad", "drop"]),
)


def starts_by_walking(samples: int, window: int, hop: int, last: str) -> list[int]:
    """The rule again, as one would do it by hand."""
    if samples <= window:
        return [0]
    starts, start = [], 0
    while start + window <= samples:
        starts.append(start)
        start += hop
    end_of_last = starts[-1] + window
    if end_of_last < samples and last == "shift":
        starts.append(samples - window)
    if end_of_last < samples and last == "pad" and start < samples:
        starts.append(start)
    return starts


@given(lengths, policies)
def test_starts_follow_the_written_rule(samples, policy):
    window, hop = policy.window_samples(RATE), policy.hop_samples(RATE)
    assert policy.starts(samples, RATE) == starts_by_walking(samples, window, hop, policy.last)


@given(lengths, policies)
@example(400, WindowPolicy(1.0, 9.0, "shift"))
@example(400, WindowPolicy(1.0, 9.0, "pad"))
def test_starts_keep_their_promises(samples, policy):
    window, hop = policy.window_samples(RATE), policy.hop_samples(RATE)
    starts = policy.starts(samples, RATE)
    assert starts[0] == 0
    assert all(0 < later - earlier <= hop for earlier, later in itertools.pairwise(starts))
    assert all(start + window <= samples for start in starts[:-1])
    assert starts[-1] < samples
    if policy.last == "shift" and samples >= window:
        assert starts[-1] + window == samples
    if policy.last == "drop" and samples >= window:
        assert starts[-1] + window <= samples
    if policy.last != "drop" and hop <= window:
        covered = {sample for start in starts for sample in range(start, start + window)}
        assert covered >= set(range(samples))


@pytest.mark.parametrize(
    ("last", "expected"), [("shift", [0, 10, 20, 25]), ("pad", [0, 10, 20, 30]), ("drop", [0, 10, 20])]
)
def test_the_last_rules_on_three_and_a_half_windows(last, expected):
    assert WindowPolicy(1.0, last=last).starts(35, RATE) == expected


@pytest.mark.parametrize("last", ["shift", "pad", "drop"])
def test_audio_that_ends_with_a_window_needs_no_extra_one(last):
    assert WindowPolicy(1.0, last=last).starts(30, RATE) == [0, 10, 20]


@pytest.mark.parametrize("last", ["shift", "pad", "drop"])
@pytest.mark.parametrize("samples", [1, 9])
def test_audio_shorter_than_a_window_gives_one_window_padded_with_zeros(samples, last):
    (window,) = cut(np.full(samples, 0.5, np.float32), RATE, WindowPolicy(1.0, last=last))
    assert window.samples.tolist() == [0.5] * samples + [0.0] * (10 - samples)
    assert (window.start_seconds, window.valid_samples) == (0.0, samples)


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="at least one sample to be cut into windows, got 0"):
        WindowPolicy().starts(0, RATE)


@pytest.mark.parametrize("name", ["window_seconds", "hop_seconds"])
@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, "10", True])
def test_lengths_that_are_no_positive_number_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a positive number of seconds, got"):
        WindowPolicy(**{name: value})


def test_an_unknown_last_rule_is_refused():
    with pytest.raises(ValueError, match="last must be 'shift', 'pad' or 'drop', got 'wrap'"):
        WindowPolicy(last="wrap")


@pytest.mark.parametrize("policy", [WindowPolicy(0.04), WindowPolicy(1.0, 0.04)])
def test_lengths_below_one_sample_are_refused(policy):
    with pytest.raises(ValueError, match="is shorter than one sample at 10 Hz"):
        policy.starts(100, RATE)


def test_equal_policies_have_equal_descriptions():
    assert repr(dataclasses.asdict(WindowPolicy(10, 5))) == repr(dataclasses.asdict(WindowPolicy(10.0, np.float64(5))))


@given(lengths, policies)
def test_every_window_is_the_samples_at_its_start(samples, policy):
    signal = np.arange(1, samples + 1, dtype=np.float32)
    window = policy.window_samples(RATE)
    for item, start in zip(cut(signal, RATE, policy), policy.starts(samples, RATE), strict=True):
        assert len(item.samples) == window
        assert item.samples.dtype == np.float32
        assert item.start_seconds == start / RATE
        assert item.valid_samples == min(window, samples - start)
        assert np.array_equal(item.samples[: item.valid_samples], signal[start : start + window])
        assert not item.samples[item.valid_samples :].any()


def test_samples_that_are_not_mono_are_refused():
    with pytest.raises(ValueError, match=r"must be mono, of shape \[samples\], got shape \[2, 100\]"):
        cut(np.zeros((2, 100), np.float32), RATE, WindowPolicy())


def same(left: Window, right: Window) -> bool:
    return (
        np.array_equal(left.samples, right.samples)
        and left.start_seconds == right.start_seconds
        and left.valid_samples == right.valid_samples
    )


@given(lengths, policies, st.lists(st.integers(1, 120), min_size=1, max_size=8))
def test_streamed_windows_are_those_cut_from_memory(samples, policy, block_lengths):
    signal = np.arange(1, samples + 1, dtype=np.float32)
    ends = np.cumsum(block_lengths * math.ceil(samples / sum(block_lengths)))
    blocks = [part.copy() for part in np.split(signal, ends) if len(part)]
    streamed = list(cut_stream(blocks, RATE, policy))
    whole = cut(signal, RATE, policy)
    assert len(streamed) == len(whole)
    assert all(same(left, right) for left, right in zip(streamed, whole, strict=True))


def test_streamed_windows_share_no_memory():
    first, second, *_ = cut_stream([np.arange(50, dtype=np.float32)], RATE, WindowPolicy(2.0, 1.0))
    first.samples[:] = -1
    assert second.samples[0] == 10


def test_a_stream_without_samples_gives_no_window():
    assert list(cut_stream([], RATE, WindowPolicy())) == []


@pytest.mark.parametrize("hop_seconds", [20.0, 1.0, 1e5])
def test_a_stream_holds_no_more_than_a_few_windows(hop_seconds):
    block, window = 10_000, 20_000
    stream = (np.zeros(block, np.float32) for _ in range(300))
    tracemalloc.start()
    try:
        count = sum(1 for _ in cut_stream(stream, 1_000, WindowPolicy(window / 1_000, hop_seconds)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count > 1
    assert peak < 4 * (7 * window + 2 * block)
