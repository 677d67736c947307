"""Numbers for texts, and the rule that says which tracks a text of any batch is right for.

A memory of past batches, and a batch that is spread over processes, hold pairs whose relevance no single batch has
stated. They are judged by what the text is (its words, the tags it names, its owner) and not by where it came from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xmodal.data.tracks import Caption, Track, relevance_matrix


class KnownText(NamedTuple):
    """A text and all that decides what it is right for.

    Attributes:
        caption: The words and the tags that they name.
        owner: The id of the track that it was drawn for; None for a text of nobody.
        kind: The kind of the tag that a one-tag prompt names: tracks without tags of that kind cannot be judged.
    """

    caption: Caption
    owner: str | None = None
    kind: str | None = None


class TextRegister:
    """Remembers texts by a number that is the same in every process and every run.

    Args:
        tracks: The training tracks; a track's key is its place here.
    """

    def __init__(self, tracks: Sequence[Track]) -> None:
        self.tracks = tracks
        self._texts: dict[int, KnownText] = {}

    def __len__(self) -> int:
        return len(self._texts)

    def keys(self, texts: Iterable[KnownText]) -> Int[Tensor, " texts"]:
        """The texts' numbers; from now on :meth:`relevance` knows them."""
        numbers = []
        for text in texts:
            number = _number(text)
            self._texts[number] = text
            numbers.append(number)
        return torch.tensor(numbers, dtype=torch.long)

    def relevance(
        self, audio_keys: Int[Tensor, " audio"], text_keys: Int[Tensor, " text"]
    ) -> Float[Tensor, "audio text"]:
        """1 where the text is right for the track, 0 where it is not, NaN where the track says nothing of that kind.

        Raises:
            ValueError: If a text was never registered.
        """
        tracks = [self.tracks[key] for key in audio_keys.tolist()]
        numbers = text_keys.tolist()
        unknown = [number for number in numbers if number not in self._texts]
        if unknown:
            raise ValueError(
                f"{len(unknown)} of {len(numbers)} text keys were never registered, the first: {unknown[0]}"
            )
        texts = [self._texts[number] for number in numbers]
        right = relevance_matrix(tracks, [text.caption for text in texts], [text.owner for text in texts]).float()
        for kind in {text.kind for text in texts} - {None}:
            silent = torch.tensor([kind not in track.tags for track in tracks], dtype=torch.bool)
            named = torch.tensor([text.kind == kind for text in texts], dtype=torch.bool)
            right[silent[:, None] & named[None, :]] = torch.nan
        return right.to(audio_keys.device)

    def keep_only(self, text_keys: Iterable[int]) -> None:
        """Forget every text but these."""
        self._texts = {key: self._texts[key] for key in set(text_keys) & self._texts.keys()}

    def state(self) -> list[list[Any]]:
        """The texts as plain values, for a checkpoint."""
        return [_plain(text) for text in self._texts.values()]

    def load_state(self, state: Iterable[Sequence[Any]]) -> None:
        """Know the texts of a checkpoint."""
        for words, requires, owner, kind in state:
            self.keys([KnownText(Caption(words, None if requires is None else frozenset(requires)), owner, kind)])


def _plain(text: KnownText) -> list[Any]:
    requires = text.caption.requires
    return [text.caption.text, None if requires is None else sorted(requires), text.owner, text.kind]


def _number(text: KnownText) -> int:
    digest = hashlib.blake2b(json.dumps(_plain(text)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1  # 63 bits: a torch integer has a sign
