"""``xmodal runs``: training runs side by side."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from xmodal.cli.shared import print_json, print_line, print_table
from xmodal.runs import MONITOR, differing, list_runs, sort_runs

COLUMNS = ("run", "status", "started", "minutes", "epochs", "steps", MONITOR, "loss", "doctor", "data", "git")


def runs(args: Namespace) -> int:
    """``xmodal runs``: a table of the runs below a folder."""
    found = list_runs(args.folder)
    if args.sort is not None:
        if not any(run.value(args.sort) is not None for run in found):
            raise ValueError(f"no run knows {args.sort!r}; the metrics there are: {_known(found)}")
        found = sort_runs(found, args.sort)
    if args.reverse:
        found.reverse()
    if args.json:
        print_json([run.as_json() for run in found])
        return 0
    if not found:
        print_line(f"no runs below {args.folder}")
        return 0
    columns = list(args.columns or COLUMNS)
    if args.differ:
        columns += [key for key in differing(found) if key not in columns]
    rows = [[column.removeprefix("validation/").replace("_to_", "→") for column in columns]]
    print_table(rows + [[_cell(run.value(column)) for column in columns] for run in found])
    return 0


def _known(found: list[Any]) -> str:
    return ", ".join(sorted({name for run in found for name in run.best})[:20]) or "none"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
