"""What training and test tracks share, and should not: audio, recordings, artists, captions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from xmodal.audio import digest
from xmodal.data.tracks import Track
from xmodal.errors import AudioError, DataError
from xmodal.text import words_key


class SharedThing(NamedTuple):
    """One thing that is on both sides."""

    kind: str
    what: str
    train: str
    test: str


def find_leaks(train: Sequence[Track], test: Sequence[Track], kinds: Sequence[str]) -> list[SharedThing]:
    """Look for what is on both sides; one entry for each test track and kind.

    Args:
        train: Tracks that the model may have learnt from.
        test: Tracks that it is judged by.
        kinds: "audio" (the same bytes, and parts of a file that overlap), "group", "artist", "caption" (the same
            words; a text made of tags is none).
    """
    keys: dict[str, Callable[[Track], Iterable[str]]] = {
        "group": lambda track: [track.group] if track.group else [],
        "artist": lambda track: [words_key(track.artist)] if track.artist else [],
        "caption": lambda track: [words_key(caption.text) for caption in track.captions],
    }
    found = []
    for kind in kinds:
        found += _shared_audio(train, test) if kind == "audio" else _shared(kind, train, test, keys[kind])
    return found


def refuse_leaks(train: Sequence[Track], test: Sequence[Track], kinds: Sequence[str]) -> None:
    """Refuse to judge by tracks that training has seen.

    Raises:
        DataError: With the first leak of each kind and how many there are.
    """
    found = find_leaks(train, test, kinds)
    if found:
        said = []
        for kind in dict.fromkeys(thing.kind for thing in found):
            own = [thing for thing in found if thing.kind == kind]
            said.append(
                f"{len(own)} test tracks share {kind} with training, first {own[0].test!r} with {own[0].train!r} "
                f"({own[0].what})"
            )
        raise DataError(
            f"the figures would be worth nothing: {'; '.join(said)}; take them out of one side, or say that it is so "
            "with --allow-leaks"
        )


def _shared(
    kind: str, train: Sequence[Track], test: Sequence[Track], keys: Callable[[Track], Iterable[str]]
) -> list[SharedThing]:
    seen: dict[str, str] = {}
    for track in train:
        for key in keys(track):
            seen.setdefault(key, track.id)
    found = []
    for track in test:
        own = next((key for key in keys(track) if key in seen), None)
        if own is not None:
            found.append(SharedThing(kind, own, seen[own], track.id))
    return found


def _shared_audio(train: Sequence[Track], test: Sequence[Track]) -> list[SharedThing]:
    digests: dict[object, str | None] = {}

    def content(track: Track) -> str | None:
        if track.path not in digests:
            try:
                digests[track.path] = digest(track.path)
            except AudioError:  # it will be set aside, with its reason, when it is to be embedded
                digests[track.path] = None
        return digests[track.path]

    seen: dict[str, list[Track]] = {}
    for track in train:
        own = content(track)
        if own is not None:
            seen.setdefault(own, []).append(track)
    found = []
    for track in test:
        same = next((other for other in seen.get(content(track) or "", []) if _overlap(track, other)), None)
        if same is not None:
            found.append(SharedThing("audio", "the same content", same.id, track.id))
    return found


def _overlap(one: Track, other: Track) -> bool:
    return one.start_seconds < (other.end_seconds or float("inf")) and other.start_seconds < (
        one.end_seconds or float("inf")
    )
