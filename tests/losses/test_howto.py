"""The worked example of ``docs/howto-loss.md`` is run as it is printed there."""

from __future__ import annotations

import re
from pathlib import Path

import loss_cases
import loss_oracles
import pytest
import test_loss_contract as contract
import torch

BLOCKS = re.findall(
    r"```python\n(.*?)```", (Path(__file__).parents[2] / "docs" / "howto-loss.md").read_text(encoding="utf-8"), re.S
)


@pytest.fixture(scope="module")
def case():
    names = {**vars(loss_oracles), "Case": loss_cases.Case, "__name__": "example"}
    exec(BLOCKS[0], names)
    exec(BLOCKS[1], names)
    return eval(BLOCKS[2], names)


@pytest.mark.parametrize(
    "check",
    [
        contract.test_a_loss_is_what_plain_loops_say,
        contract.test_a_batch_without_a_term_costs_nothing,
        contract.test_a_loss_is_the_weighted_mean_of_its_two_directions,
        contract.test_a_pair_of_weight_0_is_a_pair_that_is_not_valid,
        contract.test_what_stands_at_an_invalid_place_does_not_matter,
        contract.test_a_nan_at_a_valid_place_is_never_hidden,
        contract.test_a_better_positive_or_a_worse_negative_never_costs_more,
    ],
)
def test_the_example_passes_the_contract(case, check):
    check(case)


def test_the_example_has_right_gradients_and_survives_degenerate_batches(case):
    contract.test_gradients_are_those_of_finite_differences(case, "many positives")
    contract.test_a_degenerate_batch_gives_a_finite_value_and_gradients(case, torch.float32)
