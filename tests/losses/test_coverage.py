"""No entry of the list of methods is forgotten, and its page says what the code does."""

from __future__ import annotations

import importlib
import inspect
import re

import pytest
import write_methods
import yaml

from xmodal import losses
from xmodal.configurable import instantiate
from xmodal.losses import coverage

METHODS = coverage.methods()
EVERY = {(method.id or method.name, choice.name): choice for method in METHODS for choice in method.choices}
CHOICES = {key: choice for key, choice in EVERY.items() if choice.line is None}
ELSEWHERE = {key: choice for key, choice in EVERY.items() if choice.line is not None}


def test_every_method_is_there_once_and_implemented_or_said_not_to_be_with_the_reason():
    expected = [f"{s}.{n:02d}" for s, count in coverage.METHODS_PER_SECTION.items() for n in range(1, count + 1)]
    assert len(expected) == 61
    assert [method.id for method in METHODS if coverage.in_survey(method)] == expected
    for method in METHODS:
        assert method.choices or method.note.startswith(("Out: ", "Not yet: ", "Formula not available, closest: "))


def test_every_number_that_a_class_names_has_a_row():
    assert set(coverage.implemented()) <= {method.id for method in METHODS}


def test_every_public_class_is_in_the_table():
    assert {name for _, name in CHOICES} == set(coverage.public_classes())


def test_every_setting_belongs_to_a_row():
    assert set(coverage.SETTINGS) <= set(CHOICES)


@pytest.mark.parametrize("choice", CHOICES.values(), ids=[" ".join(key) for key in CHOICES])
def test_the_line_of_yaml_makes_the_class(choice):
    line = yaml.safe_load(choice.yaml)
    config = line[0] if isinstance(line, list) else next(iter(line.values()))
    made = instantiate(config)
    assert type(made) is getattr(losses, choice.name)
    for name, value in config.get("init_args", {}).items():
        if not isinstance(value, (dict, list)):
            assert made.config["init_args"][name] == value


@pytest.mark.parametrize("choice", ELSEWHERE.values(), ids=[" ".join(key) for key in ELSEWHERE])
def test_what_stands_elsewhere_is_there_and_is_made_by_its_line(choice):
    module, _, name = choice.config["class_path"].rpartition(".")
    found = getattr(importlib.import_module(module), name)
    config = next(iter(yaml.safe_load(choice.line).values())) if choice.line else None
    if isinstance(config, dict):
        assert type(instantiate(config)) is found
    else:
        assert callable(found)
        assert bool(choice.line) == inspect.isclass(found)


def test_what_is_left_out_or_only_partly_there_is_known():
    assert not [method.id for method in METHODS if method.note.startswith("Not yet")]
    survey = [method for method in METHODS if coverage.in_survey(method)]
    assert [method.id for method in survey if method.note.startswith("Partly")] == []
    without = {method.id: method.note.split(":")[0].split(",")[0] for method in survey if not method.choices}
    assert without == {"2.05": "Formula not available", "2.18": "Formula not available", "4.08": "Out"}
    assert all(method.tested for method in survey if method.choices)


def test_every_class_that_a_note_names_can_be_imported():
    from xmodal import towers
    from xmodal.data import samplers

    for method in METHODS:
        for name in re.findall(r"\b[A-Z][a-z]\w*(?:Batches|Loss|Miner|Pool|Regularizer|Anchors)\b", method.note):
            assert any(hasattr(module, name) for module in (losses, samplers, towers)), (method.id, name)


def test_where_a_line_belongs():
    keys = {name: choice.yaml.split(" ")[0] for (_, name), choice in CHOICES.items()}
    assert keys["TripletLoss"] == "loss:"
    assert keys["RhoMiner"] == "miner:"
    assert keys["CrossModalMemory"] == "memory:"
    assert keys["SphericalRegularizer"] == keys["IntraPairVarianceLoss"] == "-"


def test_an_entry_with_an_untested_class_is_not_tested():
    tested, untested = coverage.Choice("A", {}, ("loops",)), coverage.Choice("B", {}, ())
    assert coverage.Method("1.01", "", (tested,), "").tested
    assert not coverage.Method("1.01", "", (tested, untested), "").tested
    assert not coverage.Method("1.01", "", (), "").tested


def test_what_holds_a_class_to_its_formula_is_read_from_the_tests():
    evidence = write_methods.evidence()
    assert evidence["TripletLoss"] == ["loops", "pytorch-metric-learning"]
    assert evidence["SigLIPLoss"] == ["loops"]  # no such loss in the other library
    assert evidence["MultiSimilarityMiner"] == ["pytorch-metric-learning"]
    assert evidence["SpanningTreeMiner"] == ["test_miners.py"]


def test_the_page_and_the_evidence_are_those_of_this_code():
    again = "run python tests/losses/write_methods.py"
    assert write_methods.EVIDENCE.read_text(encoding="utf-8") == write_methods.evidence_text(), again
    assert write_methods.PAGE.read_text(encoding="utf-8") == coverage.page(), again
