"""A small text tower that reads spelling: hashed character n-grams, averaged."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from xmodal.text import words_key
from xmodal.towers.base import TextBatch, TextTower, require_texts

_WORD = re.compile(r"\w+")
_UNLIMITED = 1_000_000_000


class CharNgramTower(TextTower):
    """The average of the embeddings of all words and of the character n-grams of each, through a small network.

    A word is written between ``<`` and ``>`` before it is cut, so that a beginning differs from an end (Bojanowski et
    al. 2017, arXiv:1607.04606). Words that are spelt alike lie near one another, which a bag of words cannot see:
    "sings" and "singing", a name that was misspelt, a word that training never had. There is no vocabulary to fit or
    to ship.

    Args:
        shortest: Characters of the shortest n-grams, with the word's ends counted.
        longest: Characters of the longest.
        positions: Hash each n-gram of the first words together with the place of its word, so that "one two" is not
            "two one"; 0: the order of words does not matter. Words beyond it are hashed without a place.
        buckets: Rows of the table; two n-grams that hash alike share a row.
        embed_dim: Length of a row.
        feature_dim: Length of the vectors.
    """

    def __init__(
        self,
        shortest: int = 2,
        longest: int = 5,
        *,
        positions: int = 0,
        buckets: int = 50_000,
        embed_dim: int = 128,
        feature_dim: int = 256,
    ) -> None:
        super().__init__()
        if not 1 <= shortest <= longest:
            raise ValueError(f"n-grams must be of 1 or more characters, shortest first, got {shortest} to {longest}")
        for name, value in (("buckets", buckets), ("embed_dim", embed_dim), ("feature_dim", feature_dim)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if positions < 0:
            raise ValueError(f"positions must be at least 0, got {positions}")
        self.shortest, self.longest, self.positions, self.buckets = shortest, longest, positions, buckets
        self.feature_dim, self.max_tokens = feature_dim, _UNLIMITED
        # Row 0 is padding, which EmbeddingBag leaves out of the average.
        self.table = nn.EmbeddingBag(buckets + 1, embed_dim, mode="mean", padding_idx=0)
        self.network = nn.Sequential(nn.LayerNorm(embed_dim), nn.Linear(embed_dim, feature_dim), nn.GELU())
        self.output = nn.Linear(feature_dim, feature_dim)

    def tokenize(self, texts: Sequence[str]) -> TextBatch:
        """Hash the words and n-grams of each text into one row of ids."""
        rows = [self._hashes(text) for text in require_texts(texts)]
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        for row, hashes in enumerate(rows):
            ids[row, : len(hashes)] = torch.tensor(hashes)
        return TextBatch({"ids": ids}, torch.arange(len(rows)), len(rows))

    def encode(self, batch: TextBatch) -> Float[Tensor, "texts feature_dim"]:
        """One vector a text."""
        return self.output(self.network(self.table(batch.inputs["ids"])))

    def identity(self) -> dict[str, Any]:
        """The hash function and what is hashed."""
        return super().identity() | {
            "hash": "crc32",
            "ngrams": [self.shortest, self.longest],
            "positions": self.positions,
            "buckets": self.buckets,
        }

    def _hashes(self, text: str) -> list[int]:
        # A text of signs alone ("!!!") is one word, so that every text that is not blank has a vector of its own.
        words = _WORD.findall(words_key(text)) or [text.strip()]
        terms: list[str] = []
        for place, word in enumerate(words):
            mark = f"{place} " if place < self.positions else ""
            terms += [mark + term for term in self._terms(f"<{word}>")]
        # crc32 and not hash(), which changes with every start of Python.
        return [1 + zlib.crc32(term.encode()) % self.buckets for term in terms]

    def _terms(self, word: str) -> list[str]:
        grams = [
            word[start : start + length]
            for length in range(self.shortest, min(self.longest, len(word) - 1) + 1)
            for start in range(len(word) - length + 1)
        ]
        return [word, *grams]
