"""Random numbers that a restart, a second hearing or another process can repeat."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_draws(*key: object) -> None:
    """Begin every generator (Python, NumPy, torch on every device) anew, from a key such as (seed, epoch, batch)."""
    number = int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "little")
    random.seed(number)
    np.random.seed(number % 2**32)
    _seed_torch(number % 2**63)


def _seed_torch(seed: int) -> None:
    """``torch.manual_seed``, which also writes down the call stack for each kind of device that is not in use: 2 ms."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None and accelerator.type != "cuda":
        torch.manual_seed(seed)
        return
    torch.default_generator.manual_seed(seed)
    if accelerator is not None:
        torch.cuda.manual_seed_all(seed)


def draw_states(device: torch.device) -> dict[str, Any]:
    """Where every generator stands, in plain values that a checkpoint may hold."""
    version, state, gauss = random.getstate()
    kind, keys, place, has_gauss, cached = np.random.get_state(legacy=True)
    assert isinstance(keys, np.ndarray)
    states = {
        "python": [version, list(state), gauss],
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), int(place), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_draws(states: dict[str, Any], device: torch.device) -> None:
    """Put every generator back to where :func:`draw_states` found it."""
    version, state, gauss = states["python"]
    random.setstate((version, tuple(state), gauss))
    kind, keys, place, has_gauss, cached = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), place, has_gauss, cached))
    torch.set_rng_state(states["torch"].cpu())
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)


@contextmanager
def seeded_draws(device: torch.device, *key: object) -> Iterator[None]:
    """Inside, every process draws the same numbers from the key; outside, as if nothing had been drawn."""
    before = draw_states(device)
    seed_draws(*key)
    try:
        yield
    finally:
        restore_draws(before, device)
