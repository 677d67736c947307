"""What the optimiser is told: rates by parameter and by step."""

from __future__ import annotations

import math
from collections.abc import Callable


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
