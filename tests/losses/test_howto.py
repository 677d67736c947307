"""The worked example of ``docs/howto-loss.md`` is run as it is printed there."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import re
from pathlib import Path

import loss_cases
import loss_oracles
import pytest
import test_combined as combined
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


# Every test of the table but these: it is not meant to count weights as copies, nor to ignore a shift of all scores,
# and what is printed in a page is in no public module.
APART = {
    "test_a_text_of_weight_2_is_that_text_twice",
    "test_a_loss_of_differences_does_not_see_a_common_shift",
    "test_every_loss_is_public_and_cites_its_source",
    "test_a_loss_made_again_from_its_config_is_the_same",
}
FURTHER = {
    "name": ["many positives", "weighted pairs"],
    "dtype": [torch.float32, torch.float64],
    "seed": [7],
}


def checks():
    """Each test of the contract with each value of what it is run over besides the loss."""
    for name, test in vars(contract).items():
        if name.startswith("test_") and name not in APART:
            plain = getattr(getattr(test, "hypothesis", None), "inner_test", test)
            further = [each for each in inspect.signature(plain).parameters if each != "case"]
            for values in itertools.product(*(FURTHER[each] for each in further)):
                yield pytest.param(
                    functools.partial(plain, **dict(zip(further, values, strict=True))), id=f"{name} {values}"
                )


OF_ROWS = [
    combined.test_a_streamed_loss_has_the_value_and_gradients_of_the_whole,
    combined.test_a_memory_of_length_0_changes_nothing,
]


def complaint(check, case):
    """What a test of the tables says against a loss; nothing if it passes."""
    try:
        check(case)
    except AssertionError as failed:
        return str(failed)
    return ""


@pytest.mark.parametrize("check", list(checks()))
def test_the_example_inherits_every_test_of_the_table(case, check):
    assert complaint(check, case) == ""


@pytest.mark.parametrize("check", OF_ROWS)
def test_the_example_is_streamed_and_takes_a_memory_as_any_loss_of_rows(case, check):
    assert complaint(check, case) == ""


@pytest.mark.parametrize("check", [contract.test_a_loss_is_what_plain_loops_say, *OF_ROWS])
def test_the_tables_complain_of_the_example_with_a_fault(case, check):
    class Restless(type(case.make())):
        """Adds to its terms what depends on the batch and on how often it was asked."""

        def row_terms(self, pairs):
            total, count = super().row_terms(pairs)
            self.asked = getattr(self, "asked", 0) + 1
            return total + self.asked * count, count

    assert complaint(check, dataclasses.replace(case, make=lambda: Restless(0.3))) != ""


def test_the_tests_that_the_example_is_spared_are_tests():
    assert set(vars(contract)) > APART
