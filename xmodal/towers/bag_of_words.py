"""A small text tower without a pretrained part: hashed words and word pairs, averaged."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from xmodal.towers.base import TextBatch, TextTower, require_texts

_WORD = re.compile(r"\w+")
_UNLIMITED = 1_000_000_000


class HashedBagOfWordsTower(TextTower):
    """The average of the embeddings of all words and neighbouring word pairs, through a small network.

    Words are hashed into a table (Weinberger et al. 2009, arXiv:0902.2206; Joulin et al. 2017, arXiv:1607.01759), so
    there is no vocabulary to fit or to ship. A text is one chunk, however long.

    Args:
        buckets: Rows of the table; two words that hash alike share a row.
        embed_dim: Length of a row.
        feature_dim: Length of the vectors.
        pairs: Hash neighbouring pairs too, so that "not loud" is more than "not" and "loud".
    """

    def __init__(self, buckets: int = 20_000, embed_dim: int = 128, feature_dim: int = 256, pairs: bool = True) -> None:
        super().__init__()
        for name, value in (("buckets", buckets), ("embed_dim", embed_dim), ("feature_dim", feature_dim)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.buckets, self.pairs = buckets, pairs
        self.feature_dim, self.max_tokens = feature_dim, _UNLIMITED
        # Row 0 is padding, which EmbeddingBag leaves out of the average.
        self.table = nn.EmbeddingBag(buckets + 1, embed_dim, mode="mean", padding_idx=0)
        self.network = nn.Sequential(nn.LayerNorm(embed_dim), nn.Linear(embed_dim, feature_dim), nn.GELU())
        self.output = nn.Linear(feature_dim, feature_dim)

    def tokenize(self, texts: Sequence[str]) -> TextBatch:
        """Hash the words and pairs of each text into one row of ids."""
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
        return super().identity() | {"hash": "crc32", "buckets": self.buckets, "pairs": self.pairs}

    def _hashes(self, text: str) -> list[int]:
        # A text of signs alone ("!!!") is one word, so that every text that is not blank has a vector of its own.
        words = _WORD.findall(text.lower()) or [text.strip()]
        terms = words + [f"{first} {second}" for first, second in pairwise(words)] * self.pairs
        # crc32 and not hash(), which changes with every start of Python.
        return [1 + zlib.crc32(term.encode()) % self.buckets for term in terms]
