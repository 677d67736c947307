"""A cross-batch memory with two queues, one of audio and one of texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int, Real
from torch import Tensor, nn

from xmodal.configurable import Configurable
from xmodal.losses.base import Pairs, make_pairs
from xmodal.losses.numerics import check_range

RelevanceOf = Callable[[Tensor, Tensor], Tensor]
"""From keys of audio and keys of texts to their relevance ``[audio, text]``."""


def same_key(audio_keys: Int[Tensor, " audio"], text_keys: Int[Tensor, " text"]) -> Bool[Tensor, "audio text"]:
    """Items belong together where their keys are equal: the rule for data of one text an audio."""
    return audio_keys[:, None] == text_keys[None, :]


class CrossModalMemory(nn.Module, Configurable):
    """Vectors of the last batches as further candidates; they get no gradient.

    Each batch's audio meets the batch's texts and the remembered ones, its texts the batch's audio and the remembered
    ones; two remembered items never meet. A remembered item whose key is also in the batch is left out, since its
    fresh vector is there. Everything is kept in buffers, so a checkpoint holds the queues.

    Args:
        dim: Dimensions of the vectors.
        size: Items each queue holds; 0 remembers nothing.
        warmup_steps: Batches that are remembered before the memory is used, while vectors still move fast.

    References:
        Wang et al., "Cross-batch memory for embedding learning", CVPR 2020.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("2.13",)
    audio: Tensor
    text: Tensor
    audio_keys: Tensor
    text_keys: Tensor
    seen: Tensor
    steps: Tensor

    def __init__(self, dim: int, size: int = 4096, *, warmup_steps: int = 0) -> None:
        super().__init__()
        check_range("dim", dim, 1)
        check_range("size", size, 0)
        check_range("warmup_steps", warmup_steps, 0)
        self.size, self.warmup_steps = size, warmup_steps
        for side in ("audio", "text"):
            self.register_buffer(side, torch.zeros(size, dim))
            self.register_buffer(f"{side}_keys", torch.zeros(size, dtype=torch.long))
        self.register_buffer("seen", torch.zeros(2, dtype=torch.long))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def directions(
        self,
        audio: Float[Tensor, "audio dim"],
        text: Float[Tensor, "text dim"],
        relevance: Real[Tensor, "audio text"],
        valid: Bool[Tensor, "audio text"] | None,
        weight: Real[Tensor, "audio text"] | None,
        audio_keys: Int[Tensor, " audio"],
        text_keys: Int[Tensor, " text"],
        relevance_of: RelevanceOf = same_key,
    ) -> tuple[Pairs, Pairs]:
        """The batch's pairs and those with the memory, audio as anchors and texts as anchors.

        Args:
            audio: Unit vectors of the batch.
            text: Unit vectors of the batch.
            relevance: Of the batch's pairs.
            valid: Of the batch's pairs.
            weight: Of the batch's pairs.
            audio_keys: Numbers by which ``relevance_of`` knows the batch's audio.
            text_keys: Numbers by which it knows the texts.
            relevance_of: The rule that says which remembered items belong to the batch's.
        """
        batch = make_pairs(audio @ text.T, relevance, valid, weight)
        if int(self.steps) < self.warmup_steps:
            return batch, batch.transposed
        old_audio, old_audio_keys = self._remembered(self.audio, self.audio_keys, 0)
        old_text, old_text_keys = self._remembered(self.text, self.text_keys, 1)
        with_texts = make_pairs(
            audio @ old_text.to(audio.dtype).T,
            relevance_of(audio_keys, old_text_keys),
            ~torch.isin(old_text_keys, text_keys)[None, :].expand(len(audio), -1),
        )
        with_audio = make_pairs(
            text @ old_audio.to(text.dtype).T,
            relevance_of(old_audio_keys, text_keys).T,
            ~torch.isin(old_audio_keys, audio_keys)[None, :].expand(len(text), -1),
        )
        return _beside(batch, with_texts), _beside(batch.transposed, with_audio)

    @torch.no_grad()
    def remember(
        self,
        audio: Float[Tensor, "audio dim"],
        text: Float[Tensor, "text dim"],
        audio_keys: Int[Tensor, " audio"],
        text_keys: Int[Tensor, " text"],
    ) -> None:
        """Put a batch in the queues; the oldest items leave them."""
        for side, (vectors, keys, bank, bank_keys) in enumerate(
            ((audio, audio_keys, self.audio, self.audio_keys), (text, text_keys, self.text, self.text_keys))
        ):
            seen = int(self.seen[side])
            first = max(0, len(vectors) - self.size)  # of a batch larger than the queue only its end fits
            places = torch.arange(seen + first, seen + len(vectors), device=bank.device) % max(self.size, 1)
            bank[places] = vectors[first:].to(bank.dtype)
            bank_keys[places] = keys[first:]
            self.seen[side] += len(vectors)
        self.steps += 1

    def _remembered(self, bank: Tensor, keys: Tensor, side: int) -> tuple[Tensor, Tensor]:
        filled = min(int(self.seen[side]), self.size)
        # A copy: remember() overwrites the queue before the gradient of this batch is computed.
        return bank[:filled].clone(), keys[:filled].clone()


def _beside(one: Pairs, other: Pairs) -> Pairs:
    return Pairs(
        *(
            torch.cat([getattr(one, name), getattr(other, name)], dim=1)
            for name in ("score", "relevance", "valid", "weight")
        )
    )
