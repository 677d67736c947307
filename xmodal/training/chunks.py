"""Large batches in little memory: a tower encodes a few items at a time, and again for the gradient.

This is GradCache (Gao et al., "Scaling deep contrastive learning batch size under memory limited setup", RepL4NLP
2021): vectors of the whole batch are made chunk by chunk without keeping activations, the loss sees them all, and each
chunk is encoded once more when its gradient is asked for. The second time draws the very random numbers of the first,
so dropout and augmentation blank the same places. Batch normalisation normalises by each chunk's own statistics, and
its running averages learn from each chunk once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from xmodal.training.draws import draw_states, restore_draws


def in_chunks(
    encode: Callable[..., tuple[Tensor, ...]],
    *items: Any,
    size: int | None,
    modules: nn.Module,
    device: torch.device,
) -> tuple[Tensor, ...]:
    """``encode(*items)``, at most ``size`` items at a time.

    Args:
        encode: From tensors or lists of items to tensors of one row an item.
        items: Tensors or lists of one length, at least 1.
        size: Items a chunk; None for all at once, with their activations kept.
        modules: What ``encode`` runs through; its batch normalisation learns once from each chunk.
        device: Where it runs.
    """
    if size is None or not torch.is_grad_enabled():
        return encode(*items)
    chunks = []
    for start in range(0, len(items[0]), size):
        chunk = [each[start : start + size] for each in items]
        chunks.append(encode_twice(encode, *chunk, modules=modules, device=device))
    return tuple(torch.cat(parts) for parts in zip(*chunks, strict=True))


def encode_twice(encode: Callable[..., Any], *arguments: Any, modules: nn.Module, device: torch.device) -> Any:
    """``encode(*arguments)`` without keeping what its gradient needs, which is computed again when it is asked for."""

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        states: dict[str, Any] = {}
        return _first(states, device), _again(states, modules, device)

    # torch's own way of keeping random numbers looks for devices among tensor arguments alone, and leaves out
    # Python's and NumPy's generators.
    return checkpoint(encode, *arguments, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)


@contextmanager
def _first(states: dict[str, Any], device: torch.device) -> Iterator[None]:
    states.update(draw_states(device))
    yield


@contextmanager
def _again(states: dict[str, Any], modules: nn.Module, device: torch.device) -> Iterator[None]:
    outside = draw_states(device)
    restore_draws(states, device)
    norms = [module for module in modules.modules() if isinstance(module, _BatchNorm)]
    before = [(module.momentum, module.num_batches_tracked) for module in norms]
    for module in norms:
        # With a momentum of 0 the running averages stay; the counter would go on all the same, so it counts a copy.
        module.momentum = 0.0
        if module.num_batches_tracked is not None:
            module.num_batches_tracked = module.num_batches_tracked.clone()
    try:
        yield
    finally:
        for module, (momentum, tracked) in zip(norms, before, strict=True):
            module.momentum, module.num_batches_tracked = momentum, tracked
        restore_draws(outside, device)


def checkpoint_layers(layers: Iterable[nn.Module]) -> None:
    """Let each layer keep only its input in training and compute the rest again for the gradient.

    The layer becomes an object of a subclass that does so: unlike a wrapper it keeps its name among the weights, and
    unlike a replaced method it can be copied.
    """
    for layer in layers:
        kind = type(layer)
        layer.__class__ = type(kind.__name__, (kind,), {"forward": _forward_twice, "_once": kind.forward})


def _forward_twice(self: nn.Module, *arguments: Any, **named: Any) -> Any:
    once = functools.partial(type(self)._once, self, **named)  # type: ignore[attr-defined]
    if not (self.training and torch.is_grad_enabled()):
        return once(*arguments)
    weight = next(self.parameters(), None)
    device = torch.device("cpu") if weight is None else weight.device
    return encode_twice(once, *arguments, modules=self, device=device)
