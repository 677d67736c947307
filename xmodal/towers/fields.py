"""Texts that name fields: ``lyrics: "…" tags: jazz, slow``, read field by field and fused to one vector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from xmodal.text import FIELD_PROMPTS, FIELDS, parse_fields, split_lines
from xmodal.towers.base import TextBatch, TextTower, require_texts

_PART, _FIELD = "field_part", "field_number"


class FieldsTower(TextTower):
    """Reads each field of a text with one text tower, in its own prompt, and fuses the fields to one vector.

    A text is written as :func:`xmodal.text.parse_fields` says; one that names no field is a caption. Lyrics are cut
    into groups of lines that are read one by one and pooled. The fields' vectors are then added with weights that sum
    to 1 over the fields that the text has.

    Args:
        text: Reads the words of every field.
        prompts: Templates by field, each with one ``{}``; fields that are not there have
            :data:`xmodal.text.FIELD_PROMPTS`.
        weights: Weight of each field, at least 0, before they are divided by their sum; those not there have 1.
        learn_weights: Train the weights, from these on.
        heads: Give each field a linear map of its own, which begins as the identity.
        lines: Lines of lyrics that are read together.
        lyrics_pooling: From the vectors of the groups of lines to that of the lyrics: "mean", "max" of each feature,
            or "attention" (Ilse et al. 2018, as :class:`xmodal.towers.AttentionPool`).

    Attributes:
        given_weights: The weights, where they are not learned.

    Raises:
        ValueError: If a prompt has not exactly one slot, a field is unknown, or a weight or ``lines`` is out of range.
    """

    given_weights: Tensor
    reads_fields = True

    def __init__(
        self,
        text: TextTower,
        *,
        prompts: dict[str, str] | None = None,
        weights: dict[str, float] | None = None,
        learn_weights: bool = False,
        heads: bool = False,
        lines: int = 4,
        lyrics_pooling: Literal["mean", "max", "attention"] = "mean",
    ) -> None:
        super().__init__()
        for named in (prompts or {}, weights or {}):
            unknown = sorted(set(named) - set(FIELDS))
            if unknown:
                raise ValueError(f"there is no field {unknown[0]!r}; the fields are: {', '.join(FIELDS)}")
        self.prompts = {field: (prompts or {}).get(field, FIELD_PROMPTS[field]) for field in FIELDS}
        for field, prompt in self.prompts.items():
            if prompt.count("{}") != 1:
                raise ValueError(f"the prompt of {field} needs exactly one {{}}, got {prompt!r}")
        start = [float((weights or {}).get(field, 1.0)) for field in FIELDS]
        if min(start) < 0 or max(start) == 0 or (learn_weights and min(start) == 0):
            raise ValueError(f"weights must be 0 or more (above 0 to be learned) and not all 0, got {weights}")
        if lines < 1:
            raise ValueError(f"lines must be at least 1, got {lines}")
        if lyrics_pooling not in ("mean", "max", "attention"):
            raise ValueError(f"lyrics_pooling must be 'mean', 'max' or 'attention', got {lyrics_pooling!r}")
        self.text = text
        self.frozen = text.frozen
        self.asset_prefixes = tuple(f"text.{prefix}" for prefix in text.asset_prefixes)
        self.feature_dim, self.max_tokens = text.feature_dim, text.max_tokens
        self.lines, self.lyrics_pooling = lines, lyrics_pooling
        self.learn_weights = learn_weights
        if learn_weights:
            self.log_weights = nn.Parameter(torch.tensor(start).log())
        else:
            self.register_buffer("given_weights", torch.tensor(start))
        self.heads = nn.ModuleDict({field: _identity(self.feature_dim) for field in FIELDS}) if heads else None
        self.scorer: nn.Module | None = None
        if lyrics_pooling == "attention":
            hidden = min(128, self.feature_dim)
            self.scorer = nn.Sequential(
                nn.Linear(self.feature_dim, hidden), nn.Tanh(), nn.Linear(hidden, 1, bias=False)
            )

    def tokenize(self, texts: Sequence[str]) -> TextBatch:
        """Cut texts into fields, lyrics into groups of lines, and these into the inner tower's chunks."""
        parts: list[str] = []
        field_of, text_of = [], []
        for number, text in enumerate(require_texts(texts)):
            for field, value in parse_fields(text).items():
                pieces = split_lines(value, self.lines) if field == "lyrics" else [value]
                parts += [self.prompts[field].replace("{}", piece) for piece in pieces]
                field_of += [FIELDS.index(field)] * len(pieces)
                text_of += [number] * len(pieces)
        inner = self.text.tokenize(parts)
        places = {_PART: inner.owner, _FIELD: torch.tensor(field_of)[inner.owner]}
        return TextBatch(inner.inputs | places, torch.tensor(text_of)[inner.owner], len(texts))

    def encode(self, batch: TextBatch) -> Float[Tensor, "texts feature_dim"]:
        """One vector a text."""
        if self.frozen:
            return self.combine(self.read(batch))
        inner, field, owner = _parts(batch)
        return self._fuse(self.text.encode(inner), field, owner, batch.count)

    def read(self, batch: TextBatch, *, half: bool = False) -> list[Tensor]:
        """What a frozen inner tower says of each part, a row each (or several), after its field and its number."""
        if not self.frozen:
            return list(self.encode(batch))
        inner, field, owner = _parts(batch)
        readings = self.text.read(inner, half=half)
        of_text: list[list[Tensor]] = [[] for _ in range(batch.count)]
        for reading, kind, text in zip(readings, field.tolist(), owner.tolist(), strict=True):
            rows = torch.atleast_2d(reading)
            # The last column tells a part that is one vector from a part that is a row for each token.
            label = rows.new_tensor([kind, len(of_text[text]), reading.ndim]).expand(len(rows), 3)
            of_text[text].append(torch.cat([label, rows], dim=1))
        return [torch.cat(parts) for parts in of_text]

    def combine(self, readings: Sequence[Tensor]) -> Float[Tensor, "texts feature_dim"]:
        """The rest of :meth:`encode`."""
        if not self.frozen:
            return torch.stack(list(readings))
        parts: list[Tensor] = []
        fields, owners = [], []
        for text, reading in enumerate(readings):
            label = reading[:, :3].round().long()
            _, counts = torch.unique_consecutive(label[:, 1], return_counts=True)
            for rows, (kind, _, ndim) in zip(
                reading[:, 3:].split(counts.tolist()), label[counts.cumsum(0) - 1].tolist(), strict=True
            ):
                parts.append(rows[0] if ndim == 1 else rows)
                fields.append(kind)
                owners.append(text)
        features = self.text.combine(parts)
        device = features.device
        return self._fuse(
            features, torch.tensor(fields, device=device), torch.tensor(owners, device=device), len(readings)
        )

    def save_assets(self, folder: Path) -> dict[str, Any]:
        """What the inner tower needs besides its weights."""
        return {f"text.{name}": value for name, value in self.text.save_assets(folder).items()}

    def field_weights(self) -> dict[str, float]:
        """The weight of each field in a text that has them all; their sum is 1."""
        weights = self._weights().detach()
        return dict(zip(FIELDS, (weights / weights.sum()).tolist(), strict=True))

    def identity(self) -> dict[str, Any]:
        """The inner tower's, and how fields are written, prompted, cut and pooled."""
        return super().identity() | {
            "text": self.text.identity(),
            "fields": list(FIELDS),
            "prompts": self.prompts,
            "heads": self.heads is not None,
            "lines": self.lines,
            "lyrics_pooling": self.lyrics_pooling,
        }

    def _weights(self) -> Float[Tensor, " fields"]:
        return self.log_weights.float().exp() if self.learn_weights else self.given_weights

    def _fuse(
        self,
        features: Float[Tensor, "parts feature_dim"],
        field: Int[Tensor, " parts"],
        owner: Int[Tensor, " parts"],
        count: int,
    ) -> Float[Tensor, "texts feature_dim"]:
        if self.heads is not None:
            rows = [(field == number).nonzero().flatten() for number in range(len(FIELDS))]
            mapped = [self.heads[name](features[mine]) for name, mine in zip(FIELDS, rows, strict=True)]
            features = torch.cat(mapped)[torch.cat(rows).argsort()]
        # A slot is a field of a text; most have one part, lyrics have many.
        slot, part_slot = torch.unique(owner * len(FIELDS) + field, return_inverse=True)
        pooled = self._pool(features, part_slot, len(slot))
        text, kind = slot // len(FIELDS), slot % len(FIELDS)
        weight = self._weights()[kind]
        total = weight.new_zeros(count).index_add(0, text, weight)
        # A text whose fields all have weight 0 is the plain mean of them.
        nothing = total[text] <= 0
        share = torch.where(
            nothing, 1.0 / torch.bincount(text, minlength=count)[text], weight / total[text].clamp(1e-12)
        )
        fused = pooled.new_zeros(count, pooled.shape[1])
        return fused.index_add(0, text, pooled * share[:, None].to(pooled.dtype))

    def _pool(self, features: Tensor, slot: Tensor, slots: int) -> Tensor:
        if self.lyrics_pooling == "max":
            lowest = features.new_full((slots, features.shape[1]), -torch.inf)
            return lowest.scatter_reduce(0, slot[:, None].expand_as(features), features, reduce="amax")
        if self.scorer is None:
            weight = features.new_ones(len(features))
        else:
            scores = self.scorer(features)[:, 0].float()
            highest = scores.new_full((slots,), -torch.inf).scatter_reduce(0, slot, scores.detach(), reduce="amax")
            weight = (scores - highest[slot]).exp().to(features.dtype)
        total = weight.new_zeros(slots).index_add(0, slot, weight)
        pooled = features.new_zeros(slots, features.shape[1])
        return pooled.index_add(0, slot, features * (weight / total[slot])[:, None])


def _parts(batch: TextBatch) -> tuple[TextBatch, Int[Tensor, " parts"], Int[Tensor, " parts"]]:
    """The inner tower's batch, in which every part is a text, and the field and the text of each part."""
    inputs = dict(batch.inputs)
    part, field = inputs.pop(_PART), inputs.pop(_FIELD)
    # The first chunk of a part speaks for it.
    first = torch.cat([part.new_ones(1, dtype=torch.bool), part[1:] != part[:-1]]).nonzero().flatten()
    return TextBatch(inputs, part, len(first)), field[first], batch.owner[first]


def _identity(width: int) -> nn.Linear:
    layer = nn.Linear(width, width)
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
