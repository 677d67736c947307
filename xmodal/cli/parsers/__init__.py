"""What may be said on the command line; what a command does is in the module beside this package that it names.

Only argparse is needed here, so that ``--help`` comes at once.
"""

from __future__ import annotations

import argparse

from xmodal import __version__
from xmodal.cli.parsers.arguments import model_options
from xmodal.cli.parsers.catalogue import add_embed, add_map, add_search
from xmodal.cli.parsers.data import add_data
from xmodal.cli.parsers.indexes import add_index
from xmodal.cli.parsers.judging import add_doctor, add_evaluation, add_exchange, add_lists
from xmodal.cli.parsers.tags import add_tagging


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands, in the order in which ``--help`` lists them."""
    top = argparse.ArgumentParser(prog="xmodal", description="Audio and words in one vector space: train, search, tag.")
    top.add_argument("--version", action="version", version=f"xmodal {__version__}")
    top.set_defaults(debug=False)
    common = argparse.ArgumentParser(add_help=False)
    # No default here: a subcommand's would overwrite what was said before it.
    common.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show an error's traceback")
    top.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    model = model_options()
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    add_data(commands, common)
    add_embed(commands, common, model)
    add_index(commands, common, model)
    add_search(commands, common, model)
    add_tagging(commands, common, model)
    add_evaluation(commands, common, model)
    add_doctor(commands, common, model)
    add_lists(commands, common)
    add_map(commands, common, model)
    add_exchange(commands, common, model)
    for name, what in [
        ("train", "fit, validate, test or predict from YAML"),
        ("serve", "search and tag in the browser and over HTTP"),
        ("demo", "the whole path on made music"),
    ]:
        commands.add_parser(name, add_help=False, help=f"{what}; see: xmodal {name} --help")
    return top
