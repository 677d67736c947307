"""What a step encodes: a batch's tracks and texts, chunk by chunk, by every process as often as by the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from xmodal.data.datasets import PairBatch
from xmodal.training.chunks import in_chunks
from xmodal.training.gather import process_count, row_counts
from xmodal.training.tuning import stacks

if TYPE_CHECKING:
    from xmodal.training.module import AlignmentModule

Encoded = tuple[Float[Tensor, "rows features"], Float[Tensor, "rows dim"]]
"""A tower's features of items, and their vectors before normalisation."""


class BatchEncoder:
    """Encodes the tracks and texts of a module's batches with the network that it trains.

    Args:
        module: Has the network.
        chunk_size: Items at a time in training (:mod:`xmodal.training.chunks`); None for all at once.

    Attributes:
        audio_tower: The audio tower's ``encode``, compiled or not.
    """

    def __init__(self, module: AlignmentModule, chunk_size: int | None) -> None:
        self.module = module
        self.chunk_size = chunk_size
        self.audio_tower: Callable[..., Tensor] = module.network.audio.encode

    def compile(self) -> None:
        """Compile the audio tower and the layers of the text tower."""
        self.audio_tower = torch.compile(self.module.network.audio.encode)
        for _, layers in stacks(self.module.network.text):
            for layer in layers:
                layer.compile(dynamic=True)

    def audio(self, batch: PairBatch) -> Encoded:
        """The tracks of a batch."""
        return self.windows(batch.features, batch.valid_frames, encoded=batch.encoded)

    def windows(self, features: Tensor, valid_frames: Tensor, *, encoded: bool) -> Encoded:
        """Windows, from log-mels or, if ``encoded``, from what a frozen tower said of them."""
        network = self.module.network

        def encode(features: Tensor, valid_frames: Tensor) -> Encoded:
            found = features[:, :, 0] if encoded else self.audio_tower(features, valid_frames)
            return found, network.project_encoded(found)

        def spare() -> tuple[Tensor, Tensor]:
            return self._silence(encoded=encoded, dtype=features.dtype)

        return self._encode(encode, (features, valid_frames), spare, network.audio.feature_dim)

    def texts(self, texts: Sequence[str]) -> Encoded:
        """Texts."""
        module, network = self.module, self.module.network

        def encode(given: Sequence[Any]) -> Encoded:
            # A frozen tower has read the texts beforehand: only what is trained on top runs twice.
            found = network.text.combine(given) if network.text.frozen else module.encode_texts(given)
            return found, network.project_text(found)

        def given(texts: Sequence[str]) -> tuple[Sequence[Any]]:
            return (module.read_texts(texts) if network.text.frozen else texts,)

        items = given(texts) if len(texts) else ([],)
        return self._encode(encode, items, lambda: given(["silence"]), network.text.feature_dim)

    def follow(self, *, encoded: bool, dtype: torch.dtype) -> None:
        """Gather the weights as often as processes do that embed windows; for one that has none."""
        features, valid_frames = self._silence(encoded=encoded, dtype=dtype)
        if encoded:
            self.module.network.project_encoded(features[:, :, 0])
        else:
            self.module.network.project_audio(features, valid_frames)

    def _silence(self, *, encoded: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Features and valid frames of one silent window."""
        module = self.module
        if encoded:
            features = torch.zeros(1, module.network.audio.feature_dim, 1, device=module.device)
        else:
            waveform = torch.zeros(1, module.network.window_samples, device=module.device)
            features = module.network.audio.features(waveform)
        return features.to(dtype), torch.tensor([features.shape[-1]], device=module.device)

    def _encode(
        self, encode: Callable[..., Encoded], items: tuple[Any, ...], spare: Callable[[], tuple[Any, ...]], width: int
    ) -> Encoded:
        network, own = self.module.network, len(items[0])

        def resting(*arguments: Any) -> Encoded:
            with _at_rest(network):
                return encode(*arguments)

        options: dict[str, Any] = {"size": self.chunk_size, "modules": network, "device": self.module.device}
        rounds = self._rounds_to_follow(own)  # asked by all before any of them gathers
        parts = [in_chunks(encode, *items, **options)] if own else []
        for _ in range(rounds):
            # Only the gathering of the weights matters, forwards and backwards; the vectors are thrown away.
            features, vectors = in_chunks(resting, *spare(), **options)
            parts.append((features[:0], vectors[:0]))
        if not parts:
            return self._no_rows(width), self._no_rows(network.dim)
        if len(parts) == 1:
            return parts[0][0], parts[0][1]
        return torch.cat([features for features, _ in parts]), torch.cat([vectors for _, vectors in parts])

    def _no_rows(self, width: int) -> Tensor:
        """No rows, whose gradient reaches every weight all the same: under DDP processes must agree on that."""
        none = torch.zeros(0, width, device=self.module.device)
        if process_count() == 1 or self.module.sharded is not None:
            return none
        return none + zero_of([self.module.network])

    def _rounds_to_follow(self, own: int) -> int:
        """How often the process that has most to encode gathers a tower's weights after this one has no more rows."""
        if self.module.sharded is None:
            return 0

        def rounds(rows: int) -> int:
            size = self.chunk_size if torch.is_grad_enabled() else None
            return min(rows, 1) if size is None else -(-rows // size)

        return max(rounds(rows) for rows in row_counts(own, self.module.device)) - rounds(own)


@contextmanager
def _at_rest(network: nn.Module) -> Iterator[None]:
    """Inside, nothing is drawn and no running statistic learns."""
    modes = [(module, module.training) for module in network.modules()]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def zero_of(modules: Sequence[nn.Module]) -> Tensor:
    """A zero that has a gradient of zero for every trained parameter of the modules."""
    trained = [each for module in modules for each in module.parameters() if each.requires_grad]
    return torch.stack([0.0 * each.sum().float() for each in trained]).sum() if trained else torch.zeros(())
