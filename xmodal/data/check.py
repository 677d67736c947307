"""Is a corpus what it should be: counts, lengths, rates, silence, clipping, copies, leaks between splits, licences.

Every track is decoded to its end. What cannot be trusted is *wrong*: files that are missing or cannot be decoded,
silence, one recording on two sides of a split. What somebody should know of is a *note*: copies on one side, artists or
captions on both sides, clipping, unknown licences.
"""

from __future__ import annotations

import base64
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np

from xmodal.data.corpus import Corpus, SetAside
from xmodal.data.measure import CLIPPED_RUN, Measurement, measure, near_copies
from xmodal.data.splits import SPLIT_NAMES
from xmodal.data.tracks import Track
from xmodal.errors import AudioError
from xmodal.text import words_key

EXAMPLES = 5
_CLIPPED_PER_MINUTE = 10


@dataclass(frozen=True)
class Finding:
    """Something about a corpus that is wrong, or that one should know.

    Attributes:
        level: "wrong" or "note".
        what: What it is, a sentence without its full stop.
        count: How many tracks, pairs or groups it is about.
        examples: Ids of some of them; a group of copies is one text.
    """

    level: Literal["wrong", "note"]
    what: str
    count: int
    examples: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class CheckReport:
    """What a corpus is like.

    Attributes:
        tracks: Tracks whose audio was decoded.
        splits: Their number by split; "" for none.
        seconds: Their length: total, shortest, median, 95 of 100 at most, longest.
        sample_rates: Tracks by rate in Hz.
        channels: Tracks by number of channels.
        formats: Tracks by container and codec.
        licences: Tracks by licence; "" for none.
        texts: How many tracks have captions, tags, lyrics; and how many captions and different tags there are.
        findings: What is wrong, then what one should know.
        failures: What is missing or cannot be decoded.
    """

    tracks: int
    splits: dict[str, int]
    seconds: dict[str, float]
    sample_rates: dict[str, int]
    channels: dict[str, int]
    formats: dict[str, int]
    licences: dict[str, int]
    texts: dict[str, int]
    findings: list[Finding]
    failures: list[SetAside]

    @property
    def wrong(self) -> bool:
        """Whether something is wrong."""
        return any(finding.level == "wrong" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-able values."""
        return asdict(self) | {"wrong": self.wrong}


def check(
    corpus: Corpus,
    *,
    workers: int = 2,
    measurements: str | Path | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> CheckReport:
    """Decode and compare all tracks of a corpus.

    Args:
        corpus: What :func:`xmodal.data.read_corpus` gave; what it set aside is reported.
        workers: Decoding threads.
        measurements: A JSON-lines file to which each track's measurements are added, and from which those of files
            that have not changed since are taken: a stopped check goes on where it was. None keeps nothing.
        progress: Called with the number of tracks finished since the last call.
    """
    measured: list[tuple[Track, Measurement]] = []
    failures = list(corpus.set_aside)
    for track, outcome in _measure_all(corpus.tracks, workers, None if measurements is None else Path(measurements)):
        if isinstance(outcome, Measurement):
            measured.append((track, outcome))
        else:
            failures.append(SetAside(track.id, str(track.path), outcome))
        progress(1)
    tracks = [track for track, _ in measured]
    lengths = np.array([one.seconds for _, one in measured])
    findings = [*_of_failures(failures), *_of_sound(measured), *_of_copies(measured), *_of_texts(tracks)]
    findings.sort(key=lambda finding: finding.level, reverse=True)  # "wrong" before "note"
    return CheckReport(
        tracks=len(tracks),
        splits=_counted(_split_of(track) or "" for track in tracks),
        seconds=_lengths(lengths),
        sample_rates=_counted(str(one.sample_rate) for _, one in measured),
        channels=_counted(str(one.channels) for _, one in measured),
        formats=_counted(one.format for _, one in measured),
        licences=_counted(track.licence or "" for track in tracks),
        texts={
            "with captions": sum(bool(track.captions) for track in tracks),
            "with tags": sum(bool(track.tags) for track in tracks),
            "with lyrics": sum(bool(track.lyrics) for track in tracks),
            "captions": sum(len(track.captions) for track in tracks),
            "different tags": len({tag for track in tracks for tag in track.all_tags}),
        },
        findings=findings,
        failures=failures,
    )


# What each track's own audio says


def _of_failures(failures: Sequence[SetAside]) -> Iterator[Finding]:
    if failures:
        yield Finding(
            "wrong", "missing, or cannot be decoded to the end", len(failures), _some(one.id for one in failures)
        )


def _of_sound(measured: Sequence[tuple[Track, Measurement]]) -> Iterator[Finding]:
    silent = [track.id for track, one in measured if one.silent_share == 1.0]
    if silent:
        yield Finding("wrong", "silent: nothing is above -60 dB", len(silent), _some(silent))
    mostly = [track.id for track, one in measured if 0.9 < one.silent_share < 1.0]
    if mostly:
        yield Finding("note", "silent for more than nine tenths of their length", len(mostly), _some(mostly))
    clipped = [
        (one.clipped_runs / max(one.seconds, 1.0), track.id)
        for track, one in measured
        if one.clipped_runs > max(1.0, one.seconds / 60 * _CLIPPED_PER_MINUTE)
    ]
    if clipped:
        what = f"clipped: runs of {CLIPPED_RUN} or more samples at full scale, more than {_CLIPPED_PER_MINUTE} a minute"
        yield Finding("note", what, len(clipped), _some(name for _, name in sorted(clipped, reverse=True)))
    rates = {one.sample_rate for _, one in measured}
    if len(rates) > 1 and min(rates) < max(rates) / 2:
        low = [track.id for track, one in measured if one.sample_rate < max(rates) / 2]
        what = f"recorded at less than half of the highest rate, {max(rates)} Hz: they lack what is above"
        yield Finding("note", what, len(low), _some(low))


# Copies and leaks


def _of_copies(measured: Sequence[tuple[Track, Measurement]]) -> Iterator[Finding]:
    tracks = [track for track, _ in measured]
    same_file = _groups((one.file_digest, track.start_seconds, track.end_seconds) for track, one in measured)
    same_audio = _groups(one.audio_digest for _, one in measured)
    near = near_copies([(one.fingerprint, one.heard) for _, one in measured])
    exact = {pair for group in same_audio for pair in combinations(group, 2)}
    near_pairs = [(first, second) for first, second, _ in near if (first, second) not in exact]
    for what, groups in (
        ("the same bytes twice", same_file),
        ("the same decoded audio in other bytes", [group for group in same_audio if group not in same_file]),
        ("nearly the same audio: another encoding or level of one recording", [list(pair) for pair in near_pairs]),
    ):
        if groups:
            yield Finding("note", what, len(groups), _named(groups, tracks))

    if len({_split_of(track) for track in tracks}) < 2:
        return
    from_one_file = _groups(one.file_digest for _, one in measured)
    for what, groups in (
        ("one recording is in several splits: the same file, or parts of it", from_one_file),
        ("one recording is in several splits: the same audio in other bytes", same_audio),
        ("one recording is in several splits: nearly the same audio", [list(pair) for pair in near_pairs]),
        ("a group is in several splits", _groups(track.group for track in tracks)),
    ):
        across = _across(groups, tracks)
        if "other bytes" in what:
            across = [group for group in across if group not in from_one_file]
        if across:
            yield Finding("wrong", what, len(across), _named(across, tracks))
    across = _across(_groups(track.artist and words_key(track.artist) for track in tracks), tracks)
    if across:
        names = [f"{tracks[group[0]].artist} ({_splits_of(group, tracks)})" for group in across]
        yield Finding("note", "an artist is in several splits", len(across), _some(names))
    captions: dict[str, list[int]] = {}
    for row, track in enumerate(tracks):
        for key in {words_key(caption.text) for caption in track.captions}:
            captions.setdefault(key, []).append(row)
    texts = {text: rows for text, rows in captions.items() if _across([rows], tracks)}
    if texts:
        names = [f"“{text[:60]}” ({_splits_of(rows, tracks)})" for text, rows in texts.items()]
        yield Finding("note", "a caption is in several splits", len(texts), _some(names))


def _of_texts(tracks: Sequence[Track]) -> Iterator[Finding]:
    without = [track.id for track in tracks if not (track.captions or track.tags or track.lyrics)]
    if without:
        yield Finding("note", "without a caption, a tag or lyrics: nothing to learn from", len(without), _some(without))
    unlicensed = [track.id for track in tracks if not track.licence]
    if unlicensed:
        yield Finding("note", "without a licence", len(unlicensed), _some(unlicensed))
    unsplit = [track.id for track in tracks if track.split is None]
    if 0 < len(unsplit) < len(tracks):
        yield Finding("wrong", "without a split, while others have one", len(unsplit), _some(unsplit))


def _groups(keys: Iterable[Any]) -> list[list[int]]:
    """Positions that have the same key, two at least; None is nobody's."""
    by_key: dict[Any, list[int]] = {}
    for position, key in enumerate(keys):
        if key is not None:
            by_key.setdefault(key, []).append(position)
    return [group for group in by_key.values() if len(group) > 1]


def _across(groups: Iterable[list[int]], tracks: Sequence[Track]) -> list[list[int]]:
    return [group for group in groups if len({_split_of(tracks[row]) for row in group} - {None}) > 1]


def _split_of(track: Track) -> str | None:
    return None if track.split is None else SPLIT_NAMES.get(track.split.strip().lower(), track.split)


def _splits_of(group: Sequence[int], tracks: Sequence[Track]) -> str:
    return ", ".join(sorted({_split_of(tracks[row]) or "none" for row in group}))


def _named(groups: Sequence[list[int]], tracks: Sequence[Track]) -> list[str]:
    return _some(" = ".join(_with_split(tracks[row]) for row in group[:4]) for group in groups)


def _with_split(track: Track) -> str:
    return track.id if track.split is None else f"{track.id} ({_split_of(track)})"


def _some(names: Iterable[str]) -> list[str]:
    return [name for name, _ in zip(names, range(EXAMPLES), strict=False)]


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


def _lengths(seconds: np.ndarray) -> dict[str, float]:
    if len(seconds) == 0:
        return {}
    return {
        "total": round(float(seconds.sum()), 3),
        "shortest": round(float(seconds.min()), 3),
        "median": round(float(np.median(seconds)), 3),
        "95 %": round(float(np.quantile(seconds, 0.95)), 3),
        "longest": round(float(seconds.max()), 3),
    }


# Measuring, with what was measured before


def _measure_all(
    tracks: Sequence[Track], workers: int, remembered: Path | None
) -> Iterator[tuple[Track, Measurement | str]]:
    known = {} if remembered is None else _remembered(remembered)
    log = None if remembered is None else remembered.open("a", encoding="utf-8")
    if log is not None and log.tell():
        log.write("\n")  # the last run may have been killed in the middle of a line; empty lines are none
    try:
        with ThreadPoolExecutor(workers) as pool:
            ahead = 4 * workers
            waiting = [pool.submit(_measured, track, known) for track in tracks[:ahead]]
            for position, track in enumerate(tracks):
                key, outcome, is_new = waiting.pop(0).result()
                if position + ahead < len(tracks):
                    waiting.append(pool.submit(_measured, tracks[position + ahead], known))
                if log is not None and is_new and isinstance(outcome, Measurement):
                    log.write(json.dumps({"key": key, **_plain(outcome)}) + "\n")
                    log.flush()
                yield track, outcome
    finally:
        if log is not None:
            log.close()


def _measured(track: Track, known: dict[str, Measurement]) -> tuple[str, Measurement | str, bool]:
    key = _key(track)
    if key in known:
        return key, known[key], False
    try:
        return key, measure(track), True
    except AudioError as error:
        return key, error.reason, True
    except Exception as error:  # a file that a decoder chokes on must not end the check of all others
        return key, f"cannot be measured ({error!r})", True


def _key(track: Track) -> str:
    place = getattr(track.data, "container", None) or track.path
    try:
        status = os.stat(place)
        changed: list[Any] = [status.st_size, status.st_mtime_ns]
    except OSError:
        changed = []
    return json.dumps([str(track.audio), *changed, track.start_seconds, track.end_seconds])


def _remembered(path: Path) -> dict[str, Measurement]:
    known: dict[str, Measurement] = {}
    if path.is_file():
        for line in path.read_bytes().splitlines():
            try:
                row = json.loads(line)
                key = row.pop("key")
                known[key] = _made(row)
            except (ValueError, KeyError, TypeError):
                continue  # the line that was being written when the last run was killed
    return known


def _plain(one: Measurement) -> dict[str, Any]:
    words = one.fingerprint.astype("<u4").tobytes()
    heard = np.packbits(one.heard).tobytes()
    encoded = {"fingerprint": base64.b64encode(words).decode(), "heard": base64.b64encode(heard).decode()}
    return {name: getattr(one, name) for name in one.__dataclass_fields__} | encoded


def _made(row: dict[str, Any]) -> Measurement:
    words = np.frombuffer(base64.b64decode(row["fingerprint"]), "<u4")
    bits = np.unpackbits(np.frombuffer(base64.b64decode(row["heard"]), np.uint8), count=len(words))
    return Measurement(**row | {"fingerprint": words, "heard": bits.astype(bool)})
