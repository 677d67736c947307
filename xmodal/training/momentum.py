"""A slow copy of the network whose vectors are the candidates of a memory."""

from __future__ import annotations

import copy
from typing import Self

import torch
from torch import nn

from xmodal.model import TwoTower


class MomentumEncoder(nn.Module):
    """Weights that follow the network's: ``slow = momentum * slow + (1 - momentum) * network`` at every step.

    What is frozen in the network is shared and not copied, and running statistics are taken over as they are. It is
    always in evaluation mode, so that a key is what the network would say at inference.

    Args:
        network: The network that is trained.
        momentum: Share of the slow weights that stays, from 0 (the network of the last step) to below 1.

    References:
        He et al., "Momentum contrast for unsupervised visual representation learning", CVPR 2020.
    """

    def __init__(self, network: TwoTower, momentum: float) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise ValueError(f"key_momentum must be from 0 to below 1, got {momentum}")
        self.momentum = momentum
        shared = {id(each): each for each in network.parameters() if not each.requires_grad}
        for module in network.modules():
            weights = list(module.parameters())
            if weights and all(id(each) in shared for each in weights):
                shared[id(module)] = module  # type: ignore[assignment]  # a memo holds whatever must not be copied
        self.network = copy.deepcopy(network, dict(shared))
        self.network.requires_grad_(False)
        self.train(False)

    @torch.no_grad()
    def follow(self, network: TwoTower) -> None:
        """Move towards the network."""
        for slow, fast in zip(self.network.parameters(), network.parameters(), strict=True):
            if slow is not fast:
                slow.lerp_(fast.to(slow.dtype), 1.0 - self.momentum)
        for statistic, now in zip(self.network.buffers(), network.buffers(), strict=True):
            if statistic is not now:
                statistic.copy_(now)

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)
