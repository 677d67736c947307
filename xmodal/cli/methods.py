"""``xmodal methods``: what there is to train with."""

from __future__ import annotations

from argparse import Namespace

from xmodal.cli.shared import print_json, print_table


def methods(args: Namespace) -> int:
    """``xmodal methods``: the entries of the survey and the standard pieces, with the classes that implement them."""
    from xmodal.losses.coverage import methods as all_methods

    entries = all_methods()
    if args.json:
        print_json([method.as_json() for method in entries])
        return 0
    rows = [["id", "method", "class in xmodal.losses", "oracle", "note"]]
    for method in entries:
        classes = "\n".join(choice.brief for choice in method.choices)
        oracles = dict.fromkeys(oracle for choice in method.choices for oracle in choice.tested_against)
        rows.append([method.id, method.name, classes, "\n".join(oracles), method.note])
    print_table(rows)
    return 0
