"""The words of ``index``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from xmodal.cli.parsers.arguments import add_engine_options, count


def add_index(commands: Any, common: argparse.ArgumentParser, model: argparse.ArgumentParser) -> None:
    """Make, change, move, swap, compare or describe indexes."""
    index = commands.add_parser("index", help="make, change, move, compare or describe searchable indexes")
    actions = index.add_subparsers(dest="action", required=True, metavar="ACTION")
    build = actions.add_parser("build", parents=[common], help="vectors to an index")
    build.add_argument("embeddings", type=Path, metavar="VECTORS", help="what xmodal embed wrote: a file or a folder")
    add_engine_options(build)
    build.set_defaults(module="indexes", run="index_build")
    for name, what in [
        ("add", "put more vectors into an index"),
        ("update", "give an index newer vectors and metadata, and add those that it has not"),
    ]:
        change = actions.add_parser(name, parents=[common], help=what)
        change.add_argument("index", metavar="INDEX", help="the index folder, or the address of a collection")
        change.add_argument("embeddings", type=Path, metavar="VECTORS", help="what xmodal embed wrote")
        if name == "update":
            change.add_argument("--prune", action="store_true", help="also remove the ids that VECTORS has not")
        change.set_defaults(module="indexes", run="index_change")
    remove = actions.add_parser("remove", parents=[common], help="forget some ids")
    remove.add_argument("index", metavar="INDEX", help="the index folder, or the address of a collection")
    remove.add_argument("ids", nargs="*", metavar="ID")
    remove.add_argument("--where", action="append", default=[], metavar="CONDITION", help="all that fulfil it")
    remove.set_defaults(module="indexes", run="index_remove")
    move = actions.add_parser("move", parents=[common], help="the rows of one index into another engine")
    move.add_argument("index", metavar="INDEX", help="the index folder, or the address of a collection")
    add_engine_options(move)
    move.set_defaults(module="indexes", run="index_move")
    swap = actions.add_parser("swap", parents=[common], help="put a new index in place of one that is searched")
    swap.add_argument("new", metavar="NEW", help="the folder of the new index; it stays")
    swap.add_argument("live", metavar="LIVE", help="the folder that is searched")
    swap.set_defaults(module="indexes", run="index_swap")
    compare = actions.add_parser("compare", parents=[common, model], help="how far two indexes agree")
    compare.add_argument("first", metavar="A", help="an index")
    compare.add_argument("second", metavar="B", help="another, of any space")
    compare.add_argument("-k", type=count, default=10, help="length of the lists (default 10)")
    compare.add_argument("--queries", type=count, default=1000, help="tracks to ask for (default 1000)")
    compare.add_argument("--texts", type=Path, metavar="FILE", help="ask for these texts instead, one a line")
    compare.add_argument("--worst", type=count, default=10, help="queries to list (default 10)")
    compare.add_argument("--json", action="store_true", help="as JSON")
    compare.set_defaults(module="indexes", run="index_compare")
    info = actions.add_parser("info", parents=[common], help="say what an index holds")
    info.add_argument("index", metavar="INDEX", help="the index folder, or the address of a collection")
    info.add_argument("--ids", action="store_true", help="list the ids, one a line")
    info.add_argument("--json", action="store_true", help="as JSON")
    info.set_defaults(module="indexes", run="index_info")
