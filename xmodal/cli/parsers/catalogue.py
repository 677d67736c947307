"""The words of ``embed``, ``search`` and ``map``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from xmodal.cli.parsers.arguments import count, names, share, weight


def add_embed(commands: Any, common: argparse.ArgumentParser, model: argparse.ArgumentParser) -> None:
    """Audio files to vectors."""
    embed = commands.add_parser("embed", parents=[common, model], help="audio files to vectors in files")
    embed.add_argument("source", metavar="AUDIO", help="a folder of audio, a manifest (csv, jsonl ...) or shards (tar)")
    embed.add_argument("--model", required=True, help="the model folder")
    embed.add_argument(
        "--out", type=Path, required=True, metavar="OUT", help="a file ending in .parquet, or a folder of shards"
    )
    embed.add_argument(
        "--format",
        default="parquet",
        choices=["parquet", "npy", "safetensors", "webdataset", "datasets"],
        help="of the shards in a folder (default parquet; datasets: for datasets.load_from_disk)",
    )
    embed.add_argument(
        "--dtype",
        default="float32",
        choices=["float32", "float16", "int8"],
        help="how vectors are kept (default float32; of int8 only the direction counts)",
    )
    embed.add_argument("--shard-rows", type=count, default=100_000, help="rows of a shard (default 100000)")
    embed.add_argument("--audio-root", type=Path, help="where the manifest's relative paths start")
    embed.add_argument("--tag-fields", type=names, metavar="A,B", help="more columns that hold tags")
    embed.add_argument(
        "--windows", action="store_true", help="a vector for each window, so that a search finds the moment in a track"
    )
    embed.add_argument(
        "--pooling",
        choices=["mean", "energy", "top_k", "windows"],
        help="how windows become a track's vector: the mean of all, weighted by loudness, of the most typical ones, or "
        "each kept (default: as the model says)",
    )
    embed.add_argument("--top-windows", type=count, metavar="N", help="how many windows top_k keeps")
    embed.add_argument(
        "--hop", type=weight, metavar="SECONDS", help="from window to window (default: as the model says)"
    )
    embed.add_argument("--dim", type=count, metavar="N", help="keep the first N dimensions (a Matryoshka model)")
    embed.add_argument(
        "--ray",
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="embed on a Ray cluster ('auto', 'ray://host:10001'); without an address on one started here",
    )
    embed.add_argument(
        "--lyrics", action="store_true", help="not the audio but the lyrics: a vector for each group of lines"
    )
    embed.add_argument("--lines", type=count, metavar="N", help="lines of lyrics to a group (default: the model's)")
    embed.set_defaults(module="catalogue", run="embed")


def add_search(commands: Any, common: argparse.ArgumentParser, model: argparse.ArgumentParser) -> None:
    """Words or audio to tracks."""
    search = commands.add_parser(
        "search",
        parents=[common, model],
        help="words or audio to tracks",
        description="Everything that is asked for is one query: its vector is the sum of the unit vectors of all "
        "words, files and ids, less those of --minus times their weight, brought back to length 1. WORDS may say all: "
        '\'"piano" + this.mp3 - "vocals" + 2 * id:clip-1\': terms between + and - (with blanks around them), each '
        "words, a file, or id: and a stored track, with a weight if wanted; after a minus it is a half.",
    )
    search.add_argument(
        "words",
        nargs="*",
        metavar="WORDS",
        help='what to look for: "slow sad piano", or by field: lyrics: "by the sea" tags: jazz, calm',
    )
    search.add_argument("--index", required=True, metavar="INDEX", help="the index folder, or a collection's address")
    search.add_argument("--audio", type=Path, action="append", default=[], metavar="FILE", help="more like this file")
    search.add_argument("--like", action="append", default=[], metavar="ID", help="more like this row of the index")
    search.add_argument("--minus", action="append", default=[], metavar="WORDS", help="less like these words")
    search.add_argument("--minus-weight", type=weight, default=0.5, help="weight of each --minus (default 0.5)")
    search.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="CONDITION",
        help='only tracks whose metadata fulfil it: "genre=rock", "tag=piano|organ", "year=1990..1999", "duration<300"',
    )
    search.add_argument("-k", type=count, default=10, help="number of hits (default 10)")
    search.add_argument(
        "--late",
        action="store_true",
        help="each group of lines of WORDS finds its own best row of a track, and the track has the mean (MaxSim)",
    )
    search.add_argument("--lines", type=count, metavar="N", help="with --late: lines to a group (default: the model's)")
    search.add_argument(
        "--one-per", metavar="KEY", help="at most --most hits of each artist, album ... (a metadata key)"
    )
    search.add_argument("--most", type=count, default=1, metavar="N", help="with --one-per (default 1)")
    search.add_argument(
        "--no-duplicates", action="store_true", help="leave out other copies, also of the query's tracks"
    )
    search.add_argument(
        "--diverse", type=share, metavar="SHARE", help="MMR: near 0 only score counts, near 1 only difference"
    )
    search.add_argument("--rerank", action="store_true", help="order by who is a neighbour of whom both ways")
    search.add_argument(
        "--hubs",
        choices=["csls", "inverted-softmax", "querybank-norm"],
        help="correct for tracks that are near to everything, measured on --bank",
    )
    search.add_argument(
        "--bank", type=Path, metavar="FILE", help="with --hubs: queries, one a line (default: the tags in the index)"
    )
    search.add_argument("--m3u", type=Path, metavar="FILE", help="write the hits as a playlist too")
    search.add_argument("--all-windows", action="store_true", help="list every window of a track, not only its best")
    search.add_argument("--model", help="the model folder (default: the one that made the index)")
    search.add_argument("--json", action="store_true", help="as JSON")
    search.set_defaults(module="catalogue", run="search")


def add_map(commands: Any, common: argparse.ArgumentParser, model: argparse.ArgumentParser) -> None:
    """A catalogue as one page."""
    draw = commands.add_parser(
        "map", parents=[common, model], help="an interactive map of a catalogue, in one HTML file"
    )
    draw.add_argument("source", type=Path, metavar="VECTORS", help="what xmodal embed wrote, or an index folder")
    draw.add_argument("--out", type=Path, required=True, metavar="FILE.html", help="the page")
    draw.add_argument("--method", choices=["pca", "umap"], default="pca", help="how many axes become two (pca)")
    draw.add_argument(
        "--query", action="append", default=[], metavar="WORDS", help="colour by the score of these words"
    )
    draw.add_argument("--model", help="with --query: the model folder (default: the one that made the vectors)")
    draw.add_argument("--title", help="of the page (default: the name of the vectors)")
    draw.add_argument("--similarity", type=Path, metavar="FILE.png", help="draw the cosines among tracks too")
    draw.add_argument(
        "--neighbours", type=Path, metavar="FILE.png", help="draw tracks with their nearest neighbours too"
    )
    draw.add_argument("--most", type=count, default=40, metavar="N", help="tracks in these pictures (default 40)")
    draw.set_defaults(module="look", run="draw_map")
