"""What the optimiser is told: rates by parameter and by step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import nn

from xmodal.training.tuning import layer_rates

if TYPE_CHECKING:
    from xmodal.training.module import AlignmentModule


def parameter_groups(module: AlignmentModule) -> list[dict[str, Any]]:
    """The trained parameters by learning rate and weight decay.

    A tower's layers learn at its tuning's rate times their layer's share; pretrained encoders at
    ``audio_learning_rate`` and ``text_learning_rate``; anchors at their own; everything else at ``learning_rate``.
    Biases, gains, anchors and the losses' scalars are not decayed.
    """
    network = module.network
    audio, text = (
        tuple(f"network.{side}.{prefix}" for prefix in getattr(network, side).asset_prefixes)
        for side in ("audio", "text")
    )
    shares: dict[str, float] = {}
    for side, tuning in (("audio", module.audio_tuning), ("text", module.text_tuning)):
        tower = getattr(network, side)
        shares |= {f"network.{side}.{name}": share for name, share in layer_rates(tower, tuning.layer_decay).items()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        anchors = name.rpartition(".")[2] == "proxies"
        rate = module.learning_rate
        if anchors:
            rate = module.proxy_learning_rate
        elif name.startswith("network.audio.") and module.audio_tuning.learning_rate is not None:
            rate = module.audio_tuning.learning_rate
        elif name.startswith(audio):
            rate = module.audio_learning_rate
        elif name.startswith(text):
            given = module.text_tuning.learning_rate
            rate = module.text_learning_rate if given is None else given
        elif name.startswith("network.text.") and module.text_tuning.learning_rate is not None:
            rate = module.text_tuning.learning_rate
        decay = module.weight_decay if parameter.ndim > 1 and not anchors else 0.0
        groups.setdefault((rate * shares.get(name, 1.0), decay), []).append(parameter)
    return [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()]


def learning_rate_factor(steps: int, warmup: int, schedule: str) -> Callable[[int], float]:
    """Factor of the learning rate by step: linear from 0 over ``warmup`` steps, then cosine to 0 or constant."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if schedule == "constant":
            return 1.0
        done = (step - warmup) / max(steps - warmup, 1)
        return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    return factor
