"""No objective makes a tensor that grows with the cube of the batch: measured on every tensor of a step."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from embedding_cases import DIM, EMBEDDING_CASES
from loss_cases import CASES
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from xmodal import losses
from xmodal.losses import apply_loss
from xmodal.losses.coverage import public_classes
from xmodal.losses.miners import Miner

N, M = 96, 128
LIMIT = 12 * N * M  # N * N * M would be 8 times as much again, and so would a list of the triples


class Largest(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that any operation made, forward or backward."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        made = [each.untyped_storage().nbytes() // each.element_size() for each in tree_leaves(result) if is_real(each)]
        self.numel = max([self.numel, *made])
        return result


def is_real(value):
    return isinstance(value, torch.Tensor) and value.layout == torch.strided


def largest(loss):
    generator = torch.Generator().manual_seed(0)
    audio, text = (torch.randn((items, DIM), generator=generator).requires_grad_() for items in (N, M))
    relevance = (torch.rand((N, M), generator=generator) < 0.25).float()
    with Largest() as seen:
        apply_loss(loss, audio, text, relevance).backward()
    return seen.numel


EVERY = {case.name: case.make for case in [*CASES, *EMBEDDING_CASES]} | {
    "learned anchors": lambda: losses.LearnedAnchors(losses.NCALoss(), DIM, concepts=M, per_concept=3),
    "proxy graph": lambda: losses.ProxyGraphLoss(DIM, concepts=M, per_concept=3),
    "meta classes": lambda: losses.MetaClassLoss(2, 3, concepts=M),
}


@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY.keys())
def test_no_tensor_of_a_step_is_much_larger_than_the_score_matrix(make):
    assert largest(make()) <= LIMIT


def test_the_measure_sees_a_table_of_triples():
    class AllTriples(losses.PairwiseLoss):
        def one_direction(self, pairs):
            gaps = pairs.score[:, None, :] - pairs.score[:, :, None]
            return F.relu(gaps).mean()

    assert largest(AllTriples()) >= N * N * M


def test_every_objective_is_measured():
    measured = {type(make()).__name__ for make in EVERY.values()}
    # The auxiliary heads see the features of one batch; test_auxiliary.py holds them to their formulas.
    others = {"AttentionConsistency", "CrossModalMemory", "DiverseHeads", "InterclassHead"} | {
        name for name in public_classes() if issubclass(getattr(losses, name), Miner)
    }
    assert measured == set(public_classes()) - others
