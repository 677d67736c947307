"""What a batch is made of, for the objectives that need more than its vectors.

Most objectives need none of it. One that does names it in ``needs``; the training step asks :func:`needs_of` what a
whole objective needs, makes that and nothing else, and hands it on with :func:`xmodal.losses.apply_loss`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int, Real
from torch import Tensor, nn

Need = Literal["keys", "vocabulary", "features", "views", "attention"]
"""``keys``: names of the items and the rule between them; ``vocabulary``: every concept as a text; ``features``: what
the towers gave before the projection; ``views``: the batch's audio once more, heard differently; ``attention``:
whether the audio tower's attention over time moves with the clip."""

RelevanceOf = Callable[[Tensor, Tensor], Tensor]
"""From keys of audio and keys of texts to their relevance ``[audio, text]``; NaN where nobody may judge the pair."""


def same_key(audio_keys: Int[Tensor, " audio"], text_keys: Int[Tensor, " text"]) -> Bool[Tensor, "audio text"]:
    """Items belong together where their keys are equal: the rule for data of one text an audio."""
    return audio_keys[:, None] == text_keys[None, :]


@dataclass(frozen=True)
class Vocabulary:
    """Every concept of the data as one text, in an order that never changes during a run.

    Attributes:
        text: Their vectors, before normalisation.
        relevance: Which concepts are right for the batch's audio.
        valid: Which of them are known of it; None for all.
    """

    text: Float[Tensor, "concepts dim"]
    relevance: Real[Tensor, "audio concepts"]
    valid: Bool[Tensor, "audio concepts"] | None = None


@dataclass(frozen=True)
class BatchItems:
    """More about the items of a batch than their vectors; what nobody asked for is None.

    Attributes:
        audio_keys: The numbers by which ``relevance_of`` knows the audio.
        text_keys: The numbers by which it knows the texts.
        relevance_of: The rule that says which items of any two batches belong together.
        key_audio: Vectors of the same audio by a momentum encoder, without gradient.
        key_text: Vectors of the same texts by a momentum encoder, without gradient.
        vocabulary: Every concept as a text.
        audio_features: What the audio tower gave before the projection.
        text_features: What the text tower gave before the projection.
        second_audio: Vectors of the same audio, heard differently.
        second_audio_features: The tower's features of that second hearing.
        attention_gap: How far the tower's attention differs between a clip and the clip turned round.
    """

    audio_keys: Int[Tensor, " audio"] | None = None
    text_keys: Int[Tensor, " text"] | None = None
    relevance_of: RelevanceOf = same_key
    key_audio: Float[Tensor, "audio dim"] | None = None
    key_text: Float[Tensor, "text dim"] | None = None
    vocabulary: Vocabulary | None = None
    audio_features: Float[Tensor, "audio audio_width"] | None = None
    text_features: Float[Tensor, "text text_width"] | None = None
    second_audio: Float[Tensor, "audio dim"] | None = None
    second_audio_features: Float[Tensor, "audio audio_width"] | None = None
    attention_gap: Float[Tensor, " audio"] | None = None

    def gathered(self, gather: Callable[[Tensor], Tensor]) -> BatchItems:
        """The same of all processes; the vocabulary's texts are the same in each.

        Args:
            gather: Lays a tensor's rows of every process under one another.
        """
        parts: dict[str, Any] = {name: gather(value) for name, value in vars(self).items() if isinstance(value, Tensor)}
        if self.vocabulary is not None:
            valid = self.vocabulary.valid
            parts["vocabulary"] = replace(
                self.vocabulary,
                relevance=gather(self.vocabulary.relevance),
                valid=None if valid is None else gather(valid),
            )
        return replace(self, **parts)


def needs_of(loss: nn.Module) -> frozenset[Need]:
    """Everything that an objective and the objectives, miners and memories inside it need."""
    return frozenset[Need]().union(*(getattr(module, "needs", ()) for module in loss.modules()))


def judged_relevance(given: Real[Tensor, "audio text"]) -> tuple[Tensor, Bool[Tensor, "audio text"]]:
    """Relevance and validity from what a :data:`RelevanceOf` said."""
    if not given.is_floating_point():
        return given, torch.ones_like(given, dtype=torch.bool)
    return given.nan_to_num(), ~given.isnan()
