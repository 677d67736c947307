"""Random numbers by a key: every generator, the same again, and none that anybody else draws from is moved."""

from __future__ import annotations

import random

import numpy as np
import torch

from xmodal.training.draws import seed_draws, seeded_draws

CPU = torch.device("cpu")


def drawn():
    return random.random(), float(np.random.rand()), float(torch.rand(())), int(torch.randperm(1000)[0])


def test_a_key_gives_the_same_numbers_in_every_generator_and_another_key_others():
    seed_draws(3, "epoch", 1)
    first = drawn()
    drawn()
    seed_draws(3, "epoch", 1)
    assert drawn() == first
    seed_draws(3, "epoch", 2)
    assert all(again != before for again, before in zip(drawn(), first, strict=True))


def test_torch_draws_what_its_own_seed_would_give(monkeypatch):
    # Devices are seeded one by one, because torch.manual_seed writes down the call stack for those not in use.
    seeds = []
    monkeypatch.setattr("xmodal.training.draws._seed_torch", seeds.append)
    seed_draws("key")
    monkeypatch.undo()
    torch.manual_seed(seeds[0])
    expected = torch.rand(4)
    seed_draws("key")
    assert torch.equal(torch.rand(4), expected)


def test_a_card_and_any_other_device_are_seeded_too(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: seeded.append(("cuda", seed)))
    monkeypatch.setattr(torch, "manual_seed", lambda seed: seeded.append(("all", seed)))
    for kind in ("cuda", "mps"):
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda kind=kind, **_: torch.device(kind))
        seed_draws("key")
    assert [name for name, _ in seeded] == ["cuda", "all"]
    assert seeded[0][1] == seeded[1][1]


def test_what_is_drawn_inside_is_not_seen_outside():
    seed_draws("outside")
    expected = drawn()
    seed_draws("outside")
    with seeded_draws(CPU, "inside"):
        inside = drawn()
    assert drawn() == expected
    with seeded_draws(CPU, "inside"):
        assert drawn() == inside
