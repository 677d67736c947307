"""Long texts as overlapping chunks of tokens, and one vector from the vectors of the chunks: no word is dropped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from xmodal.errors import ModelError
from xmodal.towers.base import TextBatch, require_texts


class Chunker:
    """A fast tokenizer with its limits.

    Args:
        tokenizer: A transformers tokenizer.
        name: Of the encoder, for messages.
        limit: Tokens that the encoder reads at most, special tokens included.
        max_tokens: Tokens of a chunk; None means ``limit``.
        overlap: Tokens that a chunk shares with the one before.

    Raises:
        ModelError: If the tokenizer is not a fast one.
        ValueError: If the chunks would be longer than the encoder reads, or would overlap altogether.
    """

    def __init__(self, tokenizer: Any, name: str, limit: int, max_tokens: int | None, overlap: int) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ModelError(f"{name} has no fast tokenizer (tokenizer.json), which cutting long texts needs")
        self.tokenizer = tokenizer
        self.max_tokens = limit if max_tokens is None else max_tokens
        self.special_tokens = int(tokenizer.num_special_tokens_to_add())
        room = self.max_tokens - self.special_tokens
        if room < 1 or self.max_tokens > limit:
            raise ValueError(f"max_tokens must be from {self.special_tokens + 1} to {limit}, got {max_tokens}")
        if not 0 <= overlap < room:
            raise ValueError(f"chunk_overlap must be from 0 to {room - 1} for chunks of {room} tokens, got {overlap}")
        self.overlap = overlap

    @cached_property
    def digest(self) -> str:
        """A hash of all that the tokenizer knows; made once, since every checkpoint asks."""
        known = json.loads(self.tokenizer.backend_tokenizer.to_str())
        for transient in ("truncation", "padding"):  # left there by the last call; not what the tokenizer knows
            known.pop(transient, None)
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()

    def __call__(self, texts: Sequence[str], prompt: str = "") -> TextBatch:
        """Cut texts into chunks; ``inputs["chunk_weight"]`` counts the new tokens of each.

        Args:
            texts: At least one, none of them blank.
            prompt: What the encoder wants before every text.
        """
        tokens = self.tokenizer(
            [prompt + text for text in require_texts(texts)],
            truncation=True,
            max_length=self.max_tokens,
            stride=self.overlap,
            return_overflowing_tokens=True,  # what truncation cuts off comes back as further chunks
            return_attention_mask=True,
            padding=True,
            return_tensors="pt",
            verbose=False,
        )
        owner = tokens.pop("overflow_to_sample_mapping")
        inputs = dict(tokens)
        new_tokens = inputs["attention_mask"].sum(dim=1) - self.special_tokens
        continues = torch.cat([torch.zeros(1, dtype=torch.bool), owner[1:] == owner[:-1]])
        inputs["chunk_weight"] = (new_tokens - self.overlap * continues).clamp(min=1)
        return TextBatch(inputs, owner, len(texts))


def pool_chunks(
    vectors: Float[Tensor, "chunks width"],
    batch: TextBatch,
    *,
    how: Literal["mean", "max"] = "mean",
    normalise: bool = False,
) -> Float[Tensor, "texts width"]:
    """One vector a text: the mean of its chunks' vectors by their new tokens, or their maximum."""
    if how == "mean":
        weight = batch.inputs["chunk_weight"][:, None]
        total = weight.new_zeros(batch.count, 1).index_add(0, batch.owner, weight)
        pooled = vectors.new_zeros(batch.count, vectors.shape[1])
        pooled = pooled.index_add(0, batch.owner, vectors * (weight / total[batch.owner]))
    else:
        owner = batch.owner[:, None].expand_as(vectors)
        lowest = vectors.new_full((batch.count, vectors.shape[1]), -torch.inf)
        pooled = lowest.scatter_reduce(0, owner, vectors, reduce="amax")
    return F.normalize(pooled, dim=1) if normalise else pooled
