"""What an objective needs besides a batch's vectors, made from the training tracks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from xmodal.data.datasets import BatchFacts, PairBatch
from xmodal.data.register import KnownText, TextRegister
from xmodal.data.tracks import Track
from xmodal.errors import DataError
from xmodal.losses.base import EmbeddingLoss
from xmodal.losses.items import BatchItems, Vocabulary
from xmodal.losses.memory import CrossModalMemory
from xmodal.text import tag_prompts, words_key
from xmodal.towers.base import AudioTower
from xmodal.towers.pooling import attention_of

if TYPE_CHECKING:
    from xmodal.training.module import AlignmentModule


class Concepts:
    """Every tag of the training tracks as one text, in a fixed order.

    Args:
        tracks: The training tracks.

    Attributes:
        texts: One prompt for each concept.

    Raises:
        DataError: If no track has a tag.
    """

    def __init__(self, tracks: Sequence[Track]) -> None:
        self.tracks = tracks
        names: dict[tuple[str, str], str] = {}
        for track in tracks:
            for kind, tags in track.tags.items():
                for tag in tags:
                    names.setdefault((kind, words_key(tag)), tag)
        if not names:
            raise DataError(
                "the objective learns anchors for tags, and no training track has one; name data.tag_fields"
            )
        self.names = sorted(names)
        self.texts = [tag_prompts(names[key], key[0])[0] for key in self.names]
        self._columns: dict[str, list[int]] = {}  # a tag counts whatever its kind, as in every relevance
        for column, (_, tag) in enumerate(self.names):
            self._columns.setdefault(tag, []).append(column)

    def judge(self, rows: Sequence[int]) -> tuple[Bool[Tensor, "rows concepts"], Bool[Tensor, "rows concepts"]]:
        """Which concepts are right for training tracks, and which are known of them: a kind without tags is not."""
        relevance = torch.zeros(len(rows), len(self.names), dtype=torch.bool)
        valid = torch.zeros_like(relevance)
        for place, row in enumerate(rows):
            track = self.tracks[row]
            relevance[place, [column for tag in track.all_tags for column in self._columns[tag]]] = True
            valid[place] = torch.tensor([kind in track.tags for kind, _ in self.names])
        return relevance, valid


class ItemSource:
    """Makes, step by step, what the objectives of a module need, and tells them the vocabulary.

    Args:
        module: Encodes the texts, has the objectives and perhaps a momentum encoder.
        tracks: The training tracks.
    """

    def __init__(self, module: AlignmentModule, tracks: Sequence[Track]) -> None:
        self.module = module
        self.register = TextRegister(tracks)
        memories = [part for part in module.modules() if isinstance(part, CrossModalMemory)]
        self._most_texts = 10_000 + 4 * sum(memory.size for memory in memories)
        self.concepts: Concepts | None = None
        if "vocabulary" in module.needs:
            self.concepts = Concepts(tracks)
            with torch.no_grad():
                vectors = module.project_texts(self.concepts.texts).float()
            for part in module.modules():
                if isinstance(part, EmbeddingLoss) and "vocabulary" in part.needs:
                    part.meet_vocabulary(vectors)

    def of_audio(self, batch: PairBatch, audio_features: Float[Tensor, "audio audio_width"]) -> BatchItems:
        """What is needed of the batch's audio, and of the vocabulary."""
        module = self.module
        if len(self.register) > self._most_texts:
            self.remembered_texts()
        items = BatchItems(relevance_of=self.register.relevance)
        if "keys" in module.needs:
            items = replace(items, audio_keys=torch.tensor(batch.facts.rows, device=module.device))
            if module.key_encoder is not None:
                with torch.no_grad():
                    slow = module.key_encoder.network
                    keys = (
                        slow.project_encoded(audio_features)
                        if batch.encoded
                        else slow.project_audio(batch.features, batch.valid_frames)
                    )
                items = replace(items, key_audio=keys)
        if self.concepts is not None:
            relevance, valid = (each.to(module.device) for each in self.concepts.judge(batch.facts.rows))
            texts = module.project_texts(self.concepts.texts)
            items = replace(items, vocabulary=Vocabulary(texts, relevance, valid))
        if "features" in module.needs:
            items = replace(items, audio_features=audio_features)
        if "views" in module.needs:
            heard = heard_differently(batch.features, batch.valid_frames)
            second, vectors = module.encoder.windows(heard, batch.valid_frames, encoded=False)
            items = replace(items, second_audio_features=second, second_audio=vectors)
        if "attention" in module.needs:
            gap = attention_gap(module.network.audio, batch.features, batch.valid_frames)
            items = replace(items, attention_gap=gap)
        return items

    def of_texts(
        self, items: BatchItems, known: Sequence[KnownText], text_features: Float[Tensor, "text text_width"]
    ) -> BatchItems:
        """The same, with what is needed of some texts."""
        module = self.module
        if "keys" in module.needs:
            items = replace(items, text_keys=self.register.keys(known).to(module.device))
            if module.key_encoder is not None:
                network = module.key_encoder.network
                with torch.no_grad():
                    features = module.encode_texts([text.caption.text for text in known], network)
                    items = replace(items, key_text=network.project_text(features))
        return replace(items, text_features=text_features) if "features" in module.needs else items

    def remembered_texts(self) -> list[list[Any]]:
        """The texts that a memory still holds, for a checkpoint; the others are forgotten."""
        memories = [part for part in self.module.modules() if isinstance(part, CrossModalMemory)]
        self.register.keep_only(key for memory in memories for key in memory.text_keys.tolist())
        return self.register.state()


def known_texts(facts: BatchFacts) -> list[KnownText]:
    """The texts of a batch with what decides which tracks they are right for."""
    return [KnownText(caption, owner) for caption, owner in zip(facts.captions, facts.owners, strict=True)]


def known_prompts(facts: BatchFacts) -> list[KnownText]:
    """The one-tag prompts of a batch, likewise."""
    return [KnownText(prompt, None, kind) for prompt, kind in zip(facts.prompts, facts.prompt_kinds, strict=True)]


def heard_differently(
    features: Float[Tensor, "clips bands frames"], valid_frames: Int[Tensor, " clips"] | None
) -> Float[Tensor, "clips bands frames"]:
    """The same clips begun elsewhere and going round, with a tenth of the time silent: a second hearing.

    What is in a clip stays in it, and where in the clip it is does not. Draws from torch's generator.
    """
    clips, _, frames = features.shape
    length = torch.full((clips,), frames, device=features.device) if valid_frames is None else valid_frames
    place = torch.arange(frames, device=features.device)[None, :].expand(clips, -1)
    draws = torch.rand((2, clips, 1), device=features.device)
    moved = turned_round(features, (draws[0, :, 0] * length).long(), length)
    first = (draws[1] * 0.9 * length[:, None]).long()
    silent = (place >= first) & (place < first + (length[:, None] // 10))
    return moved.masked_fill(silent[:, None, :], 0.0)


def turned_round(
    values: Float[Tensor, "clips *bands frames"], by: Int[Tensor, " clips"], length: Int[Tensor, " clips"]
) -> Float[Tensor, "clips *bands frames"]:
    """Each clip's first ``length`` frames begun ``by`` frames later and going round; the rest stays where it is."""
    place = torch.arange(values.shape[-1], device=values.device)[None, :]
    source = torch.where(place < length[:, None], (place + by[:, None]) % length[:, None], place)
    return values.gather(-1, source[:, None, :].expand_as(values) if values.dim() == 3 else source)


def attention_gap(
    tower: AudioTower, features: Float[Tensor, "clips bands frames"], valid_frames: Int[Tensor, " clips"] | None
) -> Float[Tensor, " clips"]:
    """How far a tower's attention over time differs between each clip and the same clip turned round, turned back.

    The mean over the attention's steps of the squared difference, times the square of their number: 0 where attention
    moves along. The turn is a whole number of steps, drawn from torch's generator. The tower hears all clips at once,
    whatever ``chunk_size`` says.

    Raises:
        ValueError: If the tower does not pool by attention.
    """
    clips, _, frames = features.shape
    if clips == 0:  # a process whose files could not be decoded
        return features.new_zeros(0)
    length = torch.full((clips,), frames, device=features.device) if valid_frames is None else valid_frames
    with attention_of(tower) as heard:
        tower.encode(features, valid_frames)
        steps = heard[0].shape[1]
        stride = 1 << math.ceil(math.log2(frames / steps))  # a tower halves the frames again and again
        count = (-(-length // stride)).clamp(max=steps)
        turn = (torch.rand(clips, device=features.device) * count).long()
        tower.encode(turned_round(features, turn * stride, length), valid_frames)
    first, second = heard
    return (turned_round(first, turn, count) - second).square().sum(dim=1) * count
