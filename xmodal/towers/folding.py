"""The same network in fewer passes over memory, for inference.

In evaluation a batch normalisation is ``a * x + b`` with constants a channel, and what stands before it a convolution;
so ``a`` belongs in that convolution's weights and ``b`` in its bias. Of networks of others, whose code is not ours to
change, a tower may name modules that a quicker one of its own can stand in for. Vectors move by rounding alone (the
contract tests hold every tower to 1e-6).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)
_FOLDABLE = {(nn.Conv1d, nn.BatchNorm1d), (nn.Conv2d, nn.BatchNorm2d)}


def folded(module: Module, quicker: Mapping[str, Callable[[Any], nn.Module]] | None = None) -> Module:
    """A copy for inference that shares every weight but those of folded convolutions, or the module itself.

    Folded are the pairs of names that a module's class lists as ``folds = (("conv", "bn"), ...)``: it promises that the
    one's output goes to the other alone. A pair is left as it is if something is special about it: another class or
    type of number, hooks, a parametrisation, training mode, or a normalisation that keeps no averages. The copy knows
    nothing of later changes of the weights.

    A module's class may also list ``quicker = {"Name": make}``: inside it, ``make(other)`` stands in for a module whose
    class has this name, unless that is in training mode or has hooks.
    """
    quicker = getattr(type(module), "quicker", quicker) or {}
    inside: dict[str, Any] = {
        name: child if child is None else _replaced(child, quicker) for name, child in module._modules.items()
    }
    for conv_name, norm_name in getattr(type(module), "folds", ()):
        conv, norm = inside.get(conv_name), inside.get(norm_name)
        if conv is not None and norm is not None and _can_be_folded(conv, norm):
            inside[conv_name], inside[norm_name] = _fold(conv, norm), nn.Identity()
    if all(inside[name] is child for name, child in module._modules.items()):
        return module
    other = copy.copy(module)
    other._modules = inside
    return other


def _replaced(child: nn.Module, quicker: Mapping[str, Callable[[Any], nn.Module]]) -> nn.Module:
    make = quicker.get(type(child).__name__)
    return folded(child, quicker) if make is None or child.training or any(_hooks(child)) else make(child)


def _can_be_folded(conv: Any, norm: Any) -> bool:
    return bool(
        (type(conv), type(norm)) in _FOLDABLE  # exact classes: a parametrisation makes another
        and not norm.training
        and norm.running_mean is not None
        and conv.weight.dtype == norm.running_var.dtype == torch.float32
        and not any((*_hooks(conv), *_hooks(norm)))
    )


def _hooks(module: nn.Module) -> tuple[object, ...]:
    return module._forward_hooks, module._forward_pre_hooks, module._backward_hooks


@torch.no_grad()
def _fold(conv: Any, norm: Any) -> nn.Module:
    # In double precision, as it is done once and the result is rounded once.
    gain = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        gain = gain * norm.weight.double()
    before = -norm.running_mean.double() if conv.bias is None else conv.bias.double() - norm.running_mean.double()
    bias = before * gain if norm.bias is None else before * gain + norm.bias.double()
    weight = conv.weight.double() * gain.reshape(-1, *[1] * (conv.weight.dim() - 1))
    other = copy.copy(conv)
    other._parameters = {
        "weight": nn.Parameter(torch.empty_like(conv.weight).copy_(weight), requires_grad=False),  # laid out as it was
        "bias": nn.Parameter(bias.float(), requires_grad=False),
    }
    return other
