"""How much of a tower is trained: all of it, none, or low-rank additions; and how fast each of its layers."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from xmodal.towers.base import AudioTower, TextTower


@dataclass
class TowerTuning:
    """How a tower is trained.

    Attributes:
        train: "all"; "none" locks the tower, dropout and running statistics too, so that the projection alone learns
            (locked-image tuning, Zhai et al., "LiT", CVPR 2022); "lora" adds low-rank matrices to its linear layers and
            trains these alone (Hu et al., "LoRA", ICLR 2022).
        learning_rate: Peak rate of the tower's top layer; None: what the model's ``learning_rate`` and
            ``text_learning_rate`` say.
        layer_decay: Each layer below the top has this share of the rate of the one above it, from above 0 to 1.
        lora_rank: Rank of the additions.
        lora_alpha: The additions are scaled by ``lora_alpha / lora_rank``.
        lora_targets: Names of the linear layers that get one (the last part of their path, such as "query"); None for
            every linear layer of the tower's stack of layers.
    """

    train: Literal["all", "none", "lora"] = "all"
    learning_rate: float | None = None
    layer_decay: float = 1.0
    lora_rank: int = 8
    lora_alpha: float = 16.0
    lora_targets: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay must be above 0 and at most 1, got {self.layer_decay}")
        if self.lora_rank < 1:
            raise ValueError(f"lora_rank must be at least 1, got {self.lora_rank}")


class LowRankLinear(nn.Module):
    """A frozen linear layer and a trained low-rank addition, which begins as nothing.

    Args:
        base: The layer.
        rank: Rank of the addition.
        alpha: The addition is scaled by ``alpha / rank``.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = alpha / rank
        self.down = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.up = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, values: Float[Tensor, "*items inputs"]) -> Float[Tensor, "*items outputs"]:
        """The layer's output and the addition's."""
        added: Tensor = (values @ self.down.T) @ self.up.T
        return self.base(values) + self.scale * added

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """One linear layer that does the same."""
        layer = copy.deepcopy(self.base)
        layer.weight += self.scale * (self.up @ self.down)
        return layer


def apply_tuning(tower: AudioTower | TextTower, tuning: TowerTuning, side: str) -> None:
    """Freeze what a tower's tuning does not train, and add what it adds.

    Raises:
        ValueError: If low-rank additions are asked of a tower that is frozen, or that has no such layers.
    """
    if tuning.train == "none":
        tower.requires_grad_(False)
        tower.frozen = True
    if tuning.train != "lora":
        return
    if getattr(tower, "frozen", False):
        raise ValueError(
            f"{side}_tuning.train is 'lora', but the {side} tower is frozen, so that its answers are cached; "
            "set its trainable: true, LoRA then freezes all but its additions"
        )
    wanted = tuning.lora_targets
    inside = [prefix for prefix, _ in stacks(tower)]
    chosen = [
        (name, layer)
        for name, layer in tower.named_modules()
        if isinstance(layer, nn.Linear)
        and (name.rpartition(".")[2] in wanted if wanted else any(name.startswith(f"{each}.") for each in inside))
    ]
    if not chosen:
        names = sorted({name.rpartition(".")[2] for name, each in tower.named_modules() if isinstance(each, nn.Linear)})
        raise ValueError(
            f"{side}_tuning asks for LoRA on {list(wanted) if wanted else 'the linear layers of a stack'}, but the "
            f"{type(tower).__name__} has no such layers; its linear layers are {', '.join(names) or 'none'}"
        )
    tower.requires_grad_(False)
    for name, layer in chosen:
        _replace(tower, name, LowRankLinear(layer, tuning.lora_rank, tuning.lora_alpha))


def merge_additions(network: nn.Module) -> None:
    """Put every low-rank addition into the weights of its layer, so that what is left is an ordinary network."""
    for name, layer in list(network.named_modules()):
        if isinstance(layer, LowRankLinear):
            _replace(network, name, layer.merged())


def stacks(tower: nn.Module) -> Iterator[tuple[str, nn.ModuleList]]:
    """The tower's stacks of layers: its lists of two modules or more that lie in no other such list."""
    found: list[str] = []
    for name, module in tower.named_modules():
        if (
            isinstance(module, nn.ModuleList)
            and len(module) > 1
            and not any(name.startswith(f"{each}.") for each in found)
        ):
            found.append(name)
            yield name, module


def layer_rates(tower: nn.Module, decay: float) -> dict[str, float]:
    """The share of the tower's rate that each parameter learns at, by its layer.

    The layers are the tower's longest stack; what was built before it (embeddings) lies below all of them and what was
    built after it (pooling, heads) belongs to the top.
    """
    names = [name for name, _ in tower.named_parameters()]
    stack = max(stacks(tower), key=lambda each: len(each[1]), default=None)
    if decay == 1 or stack is None:
        return dict.fromkeys(names, 1.0)
    prefix, layers = stack
    first = next((place for place, name in enumerate(names) if name.startswith(f"{prefix}.")), 0)
    rates = {}
    for place, name in enumerate(names):
        if name.startswith(f"{prefix}."):
            below = len(layers) - 1 - int(name.removeprefix(f"{prefix}.").partition(".")[0])
        else:
            below = len(layers) if place < first else 0
        rates[name] = decay**below
    return rates


def _replace(root: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(root.get_submodule(parent), own, module)
