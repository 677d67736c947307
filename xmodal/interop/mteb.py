"""A model of xmodal for mteb's tasks on texts and audio (retrieval, classification, zero-shot, clustering, pairs).

import mteb
from xmodal.interop.mteb import MtebModel

result = mteb.evaluate(MtebModel.of("demo/model"), mteb.get_tasks(tasks=["..."]))
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

import xmodal.compat  # noqa: F401  (mteb imports transformers)

# isort: split
from mteb.models.model_meta import ModelMeta, ScoringFunction

from xmodal.embedder import Embedder, load
from xmodal.interop.sounds import embed_samples, samples_of


class MtebModel:
    """The encoder that mteb asks for.

    Args:
        embedder: The model, ready to embed.
        name: As ``organisation/model``, for mteb's results.
    """

    def __init__(self, embedder: Embedder, name: str = "xmodal/model") -> None:
        self.embedder = embedder
        self._meta = ModelMeta(
            loader=None,
            name=name,
            revision=embedder.space_id,
            release_date=None,
            languages=None,
            n_parameters=sum(weight.numel() for weight in embedder.model.parameters()),
            memory_usage_mb=None,
            max_tokens=None,
            embed_dim=embedder.dim,
            license=None,
            open_weights=True,
            public_training_code=None,
            public_training_data=None,
            framework=["PyTorch"],
            similarity_fn_name=ScoringFunction.COSINE,
            use_instructions=False,
            training_datasets=None,
            modalities=["text", "audio"],
        )

    @classmethod
    def of(cls, source: str | Path, *, name: str = "xmodal/model", device: str | None = None) -> MtebModel:
        """Load a model folder, or what the Hugging Face Hub holds under an id (ModelError if it is no model)."""
        return cls(load(source, device=device), name)

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """What mteb writes beside the results; the revision is the ``space_id``."""
        return self._meta

    def encode(
        self,
        inputs: Iterable[dict[str, Any]],
        *,
        task_metadata: Any = None,
        hf_split: str = "",
        hf_subset: str = "",
        prompt_type: Any = None,
        **kwargs: Any,
    ) -> Float32[np.ndarray, "items dim"]:
        """Unit vectors of all items of all batches, in order.

        Args:
            inputs: Batches with a column ``audio`` or ``text``; of an item with both, the audio is heard.
            task_metadata: mteb's description of the task; not looked at, there are no prompts.
            hf_split: mteb's.
            hf_subset: mteb's.
            prompt_type: mteb's.
            **kwargs: mteb's settings of the encoding, such as its batch size.

        Raises:
            ValueError: If a batch has neither column.
            AudioError: If a file cannot be decoded.
        """
        model = self.embedder.model
        vectors = [np.zeros((0, self.embedder.dim), np.float32)]
        for batch in inputs:
            if batch.get("audio") is not None:
                clips = [samples_of(item, model.sample_rate) for item in batch["audio"]]
                vectors.append(embed_samples(model, clips, self.embedder.batch_size).cpu().numpy())
            elif batch.get("text") is not None:
                vectors.append(self.embedder.embed_texts(list(batch["text"])))
            else:
                raise ValueError(f"a batch must have a column audio or text, got {', '.join(sorted(batch))}")
        return np.concatenate(vectors)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Cosines of all pairs."""
        first, second = (torch.as_tensor(rows, dtype=torch.float32) for rows in (embeddings1, embeddings2))
        return torch.atleast_2d(first) @ torch.atleast_2d(second).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Cosines of equal rows."""
        first, second = (torch.as_tensor(rows, dtype=torch.float32) for rows in (embeddings1, embeddings2))
        return (torch.atleast_2d(first) * torch.atleast_2d(second)).sum(dim=-1)
