"""The words of ``data``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from xmodal.cli.parsers.arguments import add_source_options, count, names


def add_data(commands: Any, common: argparse.ArgumentParser) -> None:
    """Take in, check, divide and pack a corpus."""
    data = commands.add_parser("data", help="take in published data sets, check a corpus, pack it into shards")
    actions = data.add_subparsers(dest="action", required=True, metavar="ACTION")
    take = actions.add_parser(
        "import",
        parents=[common],
        help="check your copy of a published data set, and write a manifest of it",
        description="Reads and checks your copy of a published data set; exit code 1 says that something is missing or "
        "altered. Without --out it only checks.",
    )
    take.add_argument("name", metavar="NAME", help="GTZAN, FMA, Clotho ... (an adapter of xmodal.data.adapters)")
    take.add_argument("root", type=Path, metavar="DIR", help="the folder of your copy")
    take.add_argument("--out", type=Path, metavar="FILE.jsonl", help="the manifest to write, of what is there")
    take.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="an argument of the adapter: subset=small"
    )
    take.add_argument("--checksums", action="store_true", help="hash archives and audio whose checksum is published")
    take.add_argument("--json", action="store_true", help="as JSON")
    take.set_defaults(module="data", run="take_in")
    check = actions.add_parser(
        "check",
        parents=[common],
        help="decode a corpus and look for what is wrong in it",
        description="Counts, lengths, rates, silence, clipping, copies, leaks between splits, licences. Exit code 1 "
        "says that something is wrong.",
    )
    add_source_options(check)
    check.add_argument("--strict", action="store_true", help="exit code 1 also where there are only notes")
    check.add_argument(
        "--measurements",
        type=Path,
        metavar="FILE.jsonl",
        help="keep what was measured, so that the next check is quick",
    )
    check.set_defaults(module="data", run="check")
    unseen = actions.add_parser(
        "zero-shot",
        parents=[common],
        help="a manifest whose training part has never seen some of the tags",
        description="Divides tags into seen and unseen, and tracks into A (seen tags alone), B (both) and C (unseen "
        "alone), as Choi et al. (2019) do. Writes DIR/manifest.jsonl and DIR/unseen.txt: train and validation are of "
        "A, the test part is as it was, with its set in the column zero_shot.",
    )
    add_source_options(unseen)
    unseen.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write to")
    unseen.add_argument(
        "--unseen", default="0.2", metavar="SHARE|A,B|FILE", help="a share of the tags, or their names (default 0.2)"
    )
    unseen.add_argument("--kinds", type=names, metavar="A,B", help="draw from tags of these kinds (default: all)")
    unseen.add_argument(
        "--keep", choices=["a", "ab"], default="a", help="ab: train on B too, without its unseen tags (default a)"
    )
    unseen.add_argument("--seed", type=int, default=0, help="of the draw")
    unseen.set_defaults(module="data", run="zero_shot")
    pack = actions.add_parser(
        "pack",
        parents=[common],
        help="write a corpus to WebDataset shards",
        description="Writes tar shards with a manifest.jsonl and a shards.json beside them. Run again, it goes on "
        "where it was stopped, and keeps the shards that are still true.",
    )
    add_source_options(pack)
    pack.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder of the shards")
    pack.add_argument("--samples", type=count, default=1000, help="tracks to a shard (default 1000)")
    pack.add_argument("--shuffle", type=int, metavar="SEED", help="in an order shuffled by this seed, for streaming")
    pack.set_defaults(module="data", run="pack")
