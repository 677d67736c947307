"""Writes ``xmodal/losses/evidence.json`` and ``docs/methods.md``: what the losses are tested against, and all of them.

Not run by the tests. From the root of the repository:

    python tests/losses/write_methods.py

A class counts as tested if the contract's tables hold it against loops, if recorded values of another library do, or,
where there is neither, if a test module other than the contract names it. What stands outside of the losses counts as
tested if a test module names it.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path

from embedding_cases import EMBEDDING_CASES
from loss_cases import CASES

from xmodal.losses.coverage import ELSEWHERE, page, public_classes

TESTS = Path(__file__).parent
ROOT = TESTS.parents[1]
EVIDENCE = ROOT / "xmodal" / "losses" / "evidence.json"
PAGE = ROOT / "docs" / "methods.md"
LOOPS, PEER = "loops", "pytorch-metric-learning"
# The contract alone, which every class is run through, is no test of a value; the how-to has a class of its own.
NO_VALUES = {
    "test_loss_contract.py",
    "test_embedding_contract.py",
    "test_tower_contract.py",
    "test_howto.py",
    "test_coverage.py",
    "test_loss_memory.py",
    "test_published_audio_towers.py",
}


def evidence() -> dict[str, list[str]]:
    """What holds each public class to its formula."""
    looped = {type(case.make()).__name__ for case in [*CASES, *EMBEDDING_CASES] if case.oracle is not None}
    recorded, used = set(), {}
    for path in sorted(TESTS.glob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        used[path.name] = _named(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and "GOLDEN" in _named(node):
                recorded |= _named(node)
    found = {}
    for name in public_classes():
        held = [LOOPS] * (name in looped) + [PEER] * (name in recorded)
        own = [file for file, names in used.items() if file not in NO_VALUES and name in names]
        if held or own:
            found[name] = held or own
    everywhere = {
        path.name: _named(ast.parse(path.read_text(encoding="utf-8")))
        for path in sorted(TESTS.parent.rglob("test_*.py"))
    }
    for choices in ELSEWHERE.values():
        for name in (path.rpartition(".")[2] for path, _ in choices):
            own = [file for file, names in everywhere.items() if file not in NO_VALUES and name in names]
            if own:
                found[name] = own
    return dict(sorted(found.items()))


def _named(node: ast.AST) -> set[str]:
    """Names used as ``X`` or ``losses.X``, decorators included; importing a name does not use it."""
    names = (each for each in ast.walk(node) if isinstance(each, (ast.Name, ast.Attribute)))
    return {each.id if isinstance(each, ast.Name) else each.attr for each in names}


def evidence_text() -> str:
    """The contents of ``evidence.json``."""
    return json.dumps(evidence(), indent=1) + "\n"


if __name__ == "__main__":
    EVIDENCE.write_text(evidence_text(), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
