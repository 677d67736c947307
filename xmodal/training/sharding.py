"""Weights that are split over the processes (FSDP2): each keeps a part, with its gradient and optimiser states.

Conventions
-----------
A *unit* is a part of the network whose weights are gathered from all processes when its turn comes, and given up again
after it: each layer of a tower's largest stack, the rest of the tower, each projection. Gradients are averaged over the
processes, as DDP's are. *Whole* in every process remain frozen towers, scalars, a metric head and what the objectives
learn; their gradients are averaged after the backward pass.

Gathering is something that all processes do together: one that runs a unit less often than the others leaves them
waiting for ever. :class:`~xmodal.training.encoding.BatchEncoder` sees to that where processes have unequal numbers of
rows.

References:
    Zhao et al., "PyTorch FSDP: experiences on scaling fully sharded data parallel", VLDB 2023; Rajbhandari et al.,
    "ZeRO: memory optimizations toward training trillion parameter models", SC 2020.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from xmodal.model import TwoTower
from xmodal.training.tuning import stacks


class ShardedNetwork:
    """A network whose trained towers and projections are split, and how to put it together again.

    The network itself is changed: its weights become parts, under the names that they had. What the first process holds
    at this moment is what all of them begin with.

    Args:
        network: The network, whole and the same in every process but for its values.
        mesh: The processes, in one dimension.

    Attributes:
        built: A network that is built like it, empty where it is split: configs and identities name a tower's class,
            and FSDP gives split modules classes of its own.
    """

    def __init__(self, network: TwoTower, mesh: DeviceMesh) -> None:
        self.network = network
        units = list(_units(network))
        split = {id(each) for unit in units for each in _splittable(unit)}
        # Copied before they are split: FSDP's modules cannot be.
        memo: dict[int, Any] = {
            id(each): nn.Parameter(each.detach().to("meta"), each.requires_grad) if id(each) in split else each
            for each in network.parameters()
        }
        memo |= {id(tower): tower for tower in (network.audio, network.text) if tower.frozen}
        self.built = copy.deepcopy(network, memo)
        share_from_first([*network.parameters(), *network.buffers()])
        for unit in units:
            for parameter in _splittable(unit):  # a layout such as channels-last cannot be cut into parts
                parameter.data = parameter.data.contiguous()
            # Given up after every forward pass: a validation has no backward pass that would do it.
            ignored = set(unit.parameters()) - set(_splittable(unit))
            fully_shard(unit, mesh=mesh, ignored_params=ignored, reshard_after_forward=True)
        for tower in (network.audio, network.text):
            register_fsdp_forward_method(tower, "encode")  # does nothing where a tower is whole

    def whole(self) -> TwoTower:
        """A whole network with the weights of this moment, on the CPU; all processes must ask for it together."""
        network = copy.deepcopy(self.built)
        network.load_state_dict(whole_state(self.network.state_dict()), assign=True)
        return network


def _units(network: TwoTower) -> Iterator[nn.Module]:
    """From the innermost to the outermost."""
    for tower in (network.audio, network.text):
        # A frozen tower has no gradients and is asked for texts that are new to its process alone.
        if not tower.frozen and any(each.requires_grad for each in tower.parameters()):
            layers = max((layers for _, layers in stacks(tower)), key=_size, default=())
            yield from (layer for layer in layers if next(_splittable(layer), None) is not None)
            yield tower
    yield from (network.audio_projection, network.text_projection)


def _size(module: nn.Module) -> int:
    return sum(each.numel() for each in module.parameters())


def _splittable(module: nn.Module) -> Iterator[nn.Parameter]:
    return (each for each in module.parameters() if each.ndim)


# -- tensors in parts -------------------------------------------------------------------------------------------


def local(tensor: Tensor) -> Tensor:
    """This process's part, which shares the tensor's memory; of a whole tensor all of it."""
    part: Tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return part.detach()


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor; of one in parts on the CPU, and all processes must ask together."""
    return tensor.full_tensor().detach().cpu() if isinstance(tensor, DTensor) else tensor.detach()


def whole_state(state: Any) -> Any:
    """A state dict of a module or of an optimiser with :func:`whole` tensors, at any depth."""
    if isinstance(state, dict):
        return {name: whole_state(value) for name, value in state.items()}
    if isinstance(state, list):
        return [whole_state(value) for value in state]
    return whole(state) if isinstance(state, Tensor) else state


def split_like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor in the parts in which another one lies; whole if that is."""
    if not isinstance(other, DTensor) or isinstance(tensor, DTensor):
        return tensor
    # Every process has the whole tensor and takes its own part of it, without asking the others.
    return distribute_tensor(
        tensor.to(other.to_local().device), other.device_mesh, other.placements, src_data_rank=None
    )


# -- what whole parameters need ---------------------------------------------------------------------------------


def share_from_first(tensors: Iterable[Tensor]) -> None:
    """Give every process the first one's values, one message for each kind of numbers."""
    _together(tensors, lambda values: dist.broadcast(values, 0))


def average_whole_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients of the parameters that are whole; a process without a gradient counts as one of zeros.

    A parameter that has no gradient in any process is left without one.
    """
    shared = [each for each in parameters if each.requires_grad and not isinstance(each, DTensor)]
    if not shared:
        return
    found = torch.tensor([each.grad is not None for each in shared], dtype=torch.int32, device=shared[0].device)
    dist.all_reduce(found)
    learning = [each for each, there in zip(shared, found.tolist(), strict=True) if there]
    for each in learning:
        if each.grad is None:
            each.grad = torch.zeros_like(each)
    _together((each.grad for each in learning if each.grad is not None), _average)


def _average(values: Tensor) -> None:
    dist.all_reduce(values)
    values /= dist.get_world_size()


@torch.no_grad()
def _together(tensors: Iterable[Tensor], message: Callable[[Tensor], object]) -> None:
    kinds: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault(tensor.dtype, []).append(tensor)
    for same in kinds.values():
        flat = torch.cat([each.detach().reshape(-1) for each in same])
        message(flat)
        for tensor, values in zip(same, flat.split([each.numel() for each in same]), strict=True):
            tensor.copy_(values.view(tensor.shape))


# -- gradients and steps over both kinds ------------------------------------------------------------------------


def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """The norm of all tensors as one vector, parts of other processes too; all processes must ask together."""
    parts = [each for each in tensors if isinstance(each, DTensor)]
    others = [each for each in tensors if not isinstance(each, DTensor)]
    squared = torch.nn.utils.get_total_norm(others).square()
    if parts:
        theirs = torch.nn.utils.get_total_norm([local(each) for each in parts]).square()
        dist.all_reduce(theirs)
        squared = squared.to(theirs) + theirs
    return squared.sqrt()


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], limit: float, *, by_value: bool) -> None:
    """As ``torch.nn.utils.clip_grad_norm_`` or ``clip_grad_value_``, where some gradients lie in parts."""
    gradients = [each.grad for each in parameters if each.grad is not None]
    if by_value:
        for gradient in gradients:
            local(gradient).clamp_(-limit, limit)
        return
    factor = (limit / (total_norm(gradients) + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        local(gradient).mul_(factor)


class ShardedAdamW(torch.optim.AdamW):
    """AdamW over groups that hold split and whole parameters, which its kernels for many tensors do not take together.

    Its state dict has the groups of an ordinary one, so that a run can go on with another number of processes.
    """

    def step(self, closure: Any = None) -> Any:
        """One step, the split parameters of a group after the whole ones."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        # Of a checkpoint from one device the groups say "fused", a kernel that is not made for parts.
        own = {"fused": None}
        self.param_groups = [
            {**group, **own, "params": some} for group in groups for some in _apart(group["params"]) if some
        ]
        try:
            super().step()
        finally:
            self.param_groups = groups
        return loss


def _apart(parameters: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    split: list[Tensor] = [each for each in parameters if isinstance(each, DTensor)]
    return [each for each in parameters if not isinstance(each, DTensor)], split
