"""No entry of the list of methods is forgotten."""

from __future__ import annotations

from xmodal.losses.coverage import METHODS_PER_SECTION, NOT_HERE, implemented


def test_every_method_is_implemented_or_said_not_to_be_with_the_reason():
    entries = {f"{s}.{n:02d}" for s, count in METHODS_PER_SECTION.items() for n in range(1, count + 1)}
    assert len(entries) == 61
    done = set(implemented()) & entries
    assert done | set(NOT_HERE) == entries
    assert not done & set(NOT_HERE)
    assert all(len(reason) > 20 for reason in NOT_HERE.values())
