"""A model of xmodal as a module of sentence-transformers, for texts and audio.

    from sentence_transformers import SentenceTransformer
    from xmodal.interop.sentence_transformers import XmodalModule

    model = SentenceTransformer(modules=[XmodalModule.of("demo/model")])
    model.similarity(model.encode(["slow piano"]), model.encode(["song.mp3", {"array": x, "sampling_rate": 44100}]))

An item is a text unless it is audio: a path (``Path``, or text that ends like an audio file), samples as a NumPy array
or tensor at the model's rate, ``{"array", "sampling_rate"}``, or ``{"audio": ...}``; sentence-transformers wants one
kind a call. What ``SentenceTransformer.save`` wrote is loaded with its ``trust_remote_code=True``, which it asks for
every module but its own; no code lies in the folder. Audio is cut into windows and pooled as in every other place, so
the vectors are those of ``xmodal embed``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import xmodal.compat  # noqa: F401  (sentence_transformers imports torchaudio where that is installed)

# isort: split
from sentence_transformers.base.modules import InputModule

from xmodal.embedder import load
from xmodal.interop.sounds import embed_samples, is_audio, samples_of
from xmodal.model import TwoTower


class XmodalModule(InputModule):
    """The only module that a ``SentenceTransformer`` needs around a model of xmodal.

    Args:
        model: The model.
    """

    save_in_root = False

    def __init__(self, model: TwoTower) -> None:
        super().__init__()
        self.model = model.eval()

    @classmethod
    def of(cls, source: str | Path, *, trust: bool = False) -> XmodalModule:
        """Wrap a model folder, or what the Hugging Face Hub holds under an id (ModelError if it is no model)."""
        return cls(load(source, device="cpu", trust=trust).model)

    @property
    def modalities(self) -> list[Any]:
        """Texts and audio."""
        return ["text", "audio"]

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Decode audio; texts go on as they are.

        Args:
            inputs: Texts and audio, in any mixture.
            prompt: Put before every text.
            **kwargs: Sentence-transformers' own, which say nothing here.

        Raises:
            AudioError: If a file cannot be decoded.
            ValueError: If samples are not finite, or an item is neither.
        """
        items: list[Any] = []
        for item in inputs:
            if is_audio(item):
                items.append(samples_of(item, self.model.sample_rate))
            elif isinstance(item, str):
                items.append(f"{prompt or ''}{item}")
            else:
                raise ValueError(f"an item must be a text or audio (path, array, dict), got {type(item).__name__}")
        return {"input_features": items}

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Unit vectors in ``sentence_embedding``, in the order of the items."""
        items = features["input_features"]
        texts = [row for row, item in enumerate(items) if isinstance(item, str)]
        sounds = [row for row, item in enumerate(items) if not isinstance(item, str)]
        vectors = torch.empty(len(items), self.model.dim, device=self.model.device)
        if texts:
            vectors[texts] = self.model.embed_text([items[row] for row in texts]).float()
        if sounds:
            vectors[sounds] = embed_samples(self.model, [items[row] for row in sounds])
        return features | {"sentence_embedding": vectors}

    def get_embedding_dimension(self) -> int:
        """Length of the vectors."""
        return self.model.dim

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Write the model folder inside of the folder of sentence-transformers."""
        self.model.save(output_path, overwrite=True)

    @classmethod
    def load(  # type: ignore[override]  # theirs hands a dozen settings through that a model folder does not need
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        **kwargs: Any,
    ) -> XmodalModule:
        """Read what :meth:`save` wrote, from a folder or the Hub."""
        place = cls.load_dir_path(
            model_name_or_path,
            subfolder=subfolder,
            token=token,
            cache_folder=cache_folder,
            revision=revision,
            local_files_only=local_files_only,
        )
        return cls(TwoTower.load(str(place)))
