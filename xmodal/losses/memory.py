"""A cross-batch memory with two queues, one of audio and one of texts."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Real
from torch import Tensor, nn

from xmodal.configurable import Configurable
from xmodal.losses.base import Pairs, make_pairs
from xmodal.losses.items import BatchItems, Need, judged_relevance
from xmodal.losses.numerics import check_range


class CrossModalMemory(nn.Module, Configurable):
    """Vectors of the last batches as further candidates; they get no gradient.

    Each batch's audio meets the batch's texts and the remembered ones, its texts the batch's audio and the remembered
    ones; two remembered items never meet. A remembered item whose key is also in the batch is left out, since its
    fresh vector is there. Everything is kept in buffers, so a checkpoint holds the queues.

    With vectors of a momentum encoder (``BatchItems.key_audio`` and ``key_text``) these are remembered, and the batch
    meets them in the place of its own others, so that all candidates of an anchor come from one slow encoder and only
    the anchor gets a gradient (He et al. 2020; Li et al. 2021).

    Args:
        dim: Dimensions of the vectors.
        size: Items each queue holds; 0 remembers nothing.
        warmup_steps: Batches that are remembered before the memory is used, while vectors still move fast.

    References:
        Wang et al., "Cross-batch memory for embedding learning", CVPR 2020. He et al., "Momentum contrast for
        unsupervised visual representation learning", CVPR 2020. Li et al., "Align before fuse", NeurIPS 2021.
    """

    method_ids: ClassVar[tuple[str, ...]] = ("2.13",)
    needs: ClassVar[frozenset[Need]] = frozenset({"keys"})
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
        items: BatchItems,
    ) -> tuple[Pairs, Pairs]:
        """The batch's pairs and those with the memory, audio as anchors and texts as anchors.

        Args:
            audio: Unit vectors of the batch.
            text: Unit vectors of the batch.
            relevance: Of the batch's pairs.
            valid: Of the batch's pairs.
            weight: Of the batch's pairs.
            items: Keys of the batch and the rule between keys; vectors of a momentum encoder, if there is one.

        Raises:
            ValueError: If there are no keys.
        """
        audio_keys, text_keys = _keys(items)
        key_audio = audio if items.key_audio is None else F.normalize(items.key_audio.to(audio.dtype), dim=1)
        key_text = text if items.key_text is None else F.normalize(items.key_text.to(text.dtype), dim=1)
        rows = make_pairs(audio @ key_text.T, relevance, valid, weight)
        columns = (
            rows.transposed
            if items.key_audio is None and items.key_text is None
            else make_pairs(key_audio @ text.T, relevance, valid, weight).transposed
        )
        if int(self.steps) < self.warmup_steps:
            return rows, columns
        old_audio, old_audio_keys = self._remembered(self.audio, self.audio_keys, 0)
        old_text, old_text_keys = self._remembered(self.text, self.text_keys, 1)
        right, judged = judged_relevance(items.relevance_of(audio_keys, old_text_keys))
        with_texts = make_pairs(
            audio @ old_text.to(audio.dtype).T, right, judged & ~torch.isin(old_text_keys, text_keys)
        )
        right, judged = judged_relevance(items.relevance_of(old_audio_keys, text_keys).T)
        with_audio = make_pairs(
            text @ old_audio.to(text.dtype).T, right, judged & ~torch.isin(old_audio_keys, audio_keys)
        )
        return _beside(rows, with_texts), _beside(columns, with_audio)

    def remember_batch(
        self, audio: Float[Tensor, "audio dim"], text: Float[Tensor, "text dim"], items: BatchItems
    ) -> None:
        """Put a batch in the queues: its vectors of any norm, or those of the momentum encoder."""
        audio = audio if items.key_audio is None else items.key_audio
        text = text if items.key_text is None else items.key_text
        self.remember(F.normalize(audio, dim=1), F.normalize(text, dim=1), *_keys(items))

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


def _keys(items: BatchItems) -> tuple[Tensor, Tensor]:
    if items.audio_keys is None or items.text_keys is None:
        raise ValueError("a memory needs audio_keys and text_keys, one whole number an item of the batch")
    return items.audio_keys, items.text_keys


def _beside(one: Pairs, other: Pairs) -> Pairs:
    score, relevance, valid, weight = (
        torch.cat([getattr(one, name), getattr(other, name)], dim=1)
        for name in ("score", "relevance", "valid", "weight")
    )
    return Pairs(score, relevance, valid, weight)
