"""The two functions that become graphs: windows to unit vectors, and chunks of tokens to unit vectors of texts.

A text tower pools chunks with loops over lists, which no graph can hold. Here the same sums are written with a matrix
``belongs`` [texts, chunks] that says which chunk is of which text. Tests hold both forms to the same vectors.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from xmodal.errors import ModelError
from xmodal.model import TwoTower
from xmodal.towers import ClapTextTower, HashedBagOfWordsTower, SentenceTransformerTower
from xmodal.towers.base import TextBatch


class AudioGraph(nn.Module):
    """Windows and their valid samples to unit vectors, front end included.

    Args:
        model: The model, in evaluation mode.
    """

    def __init__(self, model: TwoTower) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, waveform: Float[Tensor, "windows samples"], valid_samples: Int[Tensor, " windows"]
    ) -> Float[Tensor, "windows dim"]:
        """As :meth:`TwoTower.embed_audio`."""
        return self.model.embed_audio(waveform, valid_samples)


class TextGraph(nn.Module):
    """Chunks of tokens to unit vectors of texts. The inputs are those of :func:`text_inputs`, in its order.

    Args:
        model: The model, in evaluation mode.

    Raises:
        ModelError: If its text tower is of a class that is not known here.
    """

    def __init__(self, model: TwoTower) -> None:
        super().__init__()
        if not isinstance(model.text, SentenceTransformerTower | ClapTextTower | HashedBagOfWordsTower):
            raise ModelError(f"a text tower of class {type(model.text).__name__} cannot be exported to ONNX")
        self.model = model

    def forward(self, *inputs: Tensor) -> Float[Tensor, "texts dim"]:
        """Unit vectors of texts."""
        tower: Any = self.model.text
        if isinstance(tower, HashedBagOfWordsTower):
            ids = inputs[0]
            # EmbeddingBag's mean over what is not padding; the bag itself has no form in ONNX.
            there = (ids != 0).float()[:, :, None]
            rows = F.embedding(ids, tower.table.weight) * there
            features = tower.output(tower.network(rows.sum(dim=1) / there.sum(dim=1).clamp(min=1.0)))
        elif isinstance(tower, ClapTextTower):
            input_ids, attention_mask, weight, belongs = inputs
            vectors = tower.encoder(input_ids=input_ids, attention_mask=attention_mask).text_embeds
            features = F.normalize(_mean(F.normalize(vectors, dim=-1), weight, belongs), dim=-1)
        else:
            features = self._sentences(tower, *inputs)
        return F.normalize(self.model.project_text(features), dim=-1)

    @staticmethod
    def _sentences(tower: SentenceTransformerTower, *inputs: Tensor) -> Tensor:
        *tokens, weight, belongs = inputs
        names = ["input_ids", "attention_mask", "token_type_ids"][: len(tokens)]
        mask = tokens[1]
        out = tower.encoder(dict(zip(names, tokens, strict=True)))
        vectors = out["sentence_embedding"]
        whole = _mean(vectors, weight, belongs) if tower.chunk_pooling == "mean" else _largest(vectors, belongs)
        if tower.normalises:
            whole = F.normalize(whole, dim=-1)
        head = tower.token_head
        if head is None:
            return whole
        scores = head.scores(out["token_embeddings"])  # [chunks, tokens, heads]
        mine = (belongs[:, :, None] * mask[None].float())[..., None] > 0  # [texts, chunks, tokens, 1]
        weights = scores[None].masked_fill(~mine, -torch.inf).flatten(1, 2).softmax(dim=1)
        values = head.values(out["token_embeddings"]).unflatten(2, (head.heads, -1)).flatten(0, 1)
        attended = torch.einsum("tph,phw->thw", weights, values).flatten(1)
        features: Tensor = head.output(torch.cat([attended, whole], dim=1))
        return features


def text_inputs(model: TwoTower, batch: TextBatch) -> dict[str, Tensor]:
    """The graph's inputs by name, from what the tower's ``tokenize`` gave."""
    if isinstance(model.text, HashedBagOfWordsTower):
        return {"ids": batch.inputs["ids"]}
    tokens = {
        name: batch.inputs[name]
        for name in ("input_ids", "attention_mask", "token_type_ids")
        if name in batch.inputs and not (name == "token_type_ids" and isinstance(model.text, ClapTextTower))
    }
    belongs = (batch.owner[None, :] == torch.arange(batch.count)[:, None]).float()
    return tokens | {"chunk_weight": batch.inputs["chunk_weight"].float(), "belongs": belongs}


def _mean(vectors: Tensor, weight: Tensor, belongs: Tensor) -> Tensor:
    share = belongs * weight[None, :]
    return (share / share.sum(dim=1, keepdim=True)) @ vectors


def _largest(vectors: Tensor, belongs: Tensor) -> Tensor:
    return vectors[None].masked_fill((belongs == 0)[:, :, None], -torch.inf).amax(dim=1)
