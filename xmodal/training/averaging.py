"""An exponential moving average of the weights, which validation and the exported model use."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xmodal.training.sharding import local, split_like, whole, whole_state


class AveragedWeights:
    """The average of a network's trained weights and running statistics over the steps.

    After step t the average moves by ``1 - min(decay, (1 + t) / (10 + t))`` towards the weights, so that a short run is
    not held back by its random start. Weights that are not trained have no average.

    Args:
        network: Whose weights.
        decay: From 0 (no average at all) to below 1; 0.999 looks back about a thousand steps.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"ema_decay must be from 0 to below 1, got {decay}")
        self.decay = decay
        self.swapped = False
        self.restart(network)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the weights after an optimiser's step."""
        live = _averaged(network)
        self._move_to(live)
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        names = list(self.values)
        torch._foreach_lerp_(
            [local(self.values[name]) for name in names], [local(live[name]) for name in names], 1 - decay
        )

    @torch.no_grad()
    def swap(self, network: nn.Module) -> None:
        """Exchange the network's weights and the average; a second call puts them back."""
        live = _averaged(network)
        self._move_to(live)
        for name, value in live.items():
            kept = local(value).clone()
            local(value).copy_(local(self.values[name]))
            local(self.values[name]).copy_(kept)
        self.swapped = not self.swapped

    @torch.no_grad()
    def copy_to(self, network: nn.Module) -> None:
        """Give another network of the same build, and whole, the average."""
        for name, value in _averaged(network).items():
            value.copy_(whole(self.values[name]))

    def restart(self, network: nn.Module) -> None:
        """Begin anew from the network's weights."""
        self.steps = 0
        self.values = {name: value.detach().clone() for name, value in _averaged(network).items()}

    def state_dict(self) -> dict[str, object]:
        """For a checkpoint."""
        return {"steps": self.steps, "values": whole_state(self.values)}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """From a checkpoint.

        Raises:
            ValueError: If it holds other weights than the network trains.
        """
        steps, values = state["steps"], state["values"]
        assert isinstance(steps, int)
        assert isinstance(values, dict)
        if values.keys() != self.values.keys():
            differing = sorted(values.keys() ^ self.values.keys())
            raise ValueError(f"the average in the checkpoint is of other weights: {', '.join(differing[:5])}")
        self.steps = steps
        self.values = {name: split_like(value.clone(), self.values[name]) for name, value in values.items()}

    def _move_to(self, live: dict[str, Tensor]) -> None:
        self.values = {name: value.to(live[name].device) for name, value in self.values.items()}


def _averaged(network: nn.Module) -> dict[str, Tensor]:
    """Trained parameters and floating running statistics; what is not trained and a counter have no average."""
    trained = {name: value for name, value in network.named_parameters() if value.requires_grad}
    stats = {
        f"{prefix}.{name}": buffer
        for prefix, module in network.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for name, buffer in module.named_buffers(recurse=False)
        if buffer.is_floating_point()
    }
    return trained | stats
