"""The command line: ``xmodal data | embed | index | search | tag | serve | evaluate | doctor | runs | train | demo``.

This module only knows the words; what a command needs is imported when it runs, so that ``--help`` comes at once.
An error that is the input's fault is one sentence on the error stream and exit code 2, a stop by hand is 130.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from xmodal import __version__
from xmodal.errors import XmodalError

_TAG_ACTIONS = ("fit", "enrol", "forget", "undo")
# Their words after the command belong to a parser of their own.
_HANDED_ON = {"train": "xmodal.training", "demo": "xmodal.demo", "serve": "serve.__main__"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The words after ``xmodal``; None for those of the process.

    Returns:
        The exit code: 0 done, 1 not one file could be embedded or the doctor found an illness, 2 the input was refused,
        130 stopped by hand, 141 nobody reads the output.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a title that the terminal cannot show must not end a search
            stream.reconfigure(errors="backslashreplace")
    parser = _parser()
    words = list(sys.argv[1:] if argv is None else argv)
    if len(words) > 1 and words[0] == "tag" and words[1] in _TAG_ACTIONS:
        words[:2] = [f"tag {words[1]}"]  # "xmodal tag FILE" came first; a file of such a name is ./fit
    args, rest = parser.parse_known_args(words)
    if rest and args.command not in _HANDED_ON:
        parser.error(f"unknown argument {rest[0]!r}; see: xmodal {args.command} --help")
    try:
        if args.command in _HANDED_ON:
            code = import_module(_HANDED_ON[args.command]).main(rest)
        else:
            code = getattr(import_module(f"xmodal.cli.{args.module}"), args.run)(args)
        sys.stdout.flush()  # here, where a reader that has gone can still be caught
    except BrokenPipeError:
        # Python flushes once more on its way out; that must not fail as well.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        sys.stderr.write("xmodal: stopped\n")
        return 130
    except (XmodalError, ValueError, OSError) as error:
        if args.debug:
            raise
        sys.stderr.write(f"xmodal: {' '.join(str(error).split())}\n")
        return 2
    return int(code or 0)


def _parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="xmodal", description="Audio and words in one vector space: train, search, tag.")
    top.add_argument("--version", action="version", version=f"xmodal {__version__}")
    top.set_defaults(debug=False)
    common = argparse.ArgumentParser(add_help=False)
    # No default here: a subcommand's would overwrite what was said before it.
    common.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show an error's traceback")
    top.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    model = _model_options()
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    _add_data_commands(commands, common)
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
    embed.add_argument("--shard-rows", type=_count, default=100_000, help="rows of a shard (default 100000)")
    embed.add_argument("--audio-root", type=Path, help="where the manifest's relative paths start")
    embed.add_argument("--tag-fields", type=_names, metavar="A,B", help="more columns that hold tags")
    embed.add_argument(
        "--windows", action="store_true", help="a vector for each window, so that a search finds the moment in a track"
    )
    embed.add_argument(
        "--pooling",
        choices=["mean", "energy", "top_k", "windows"],
        help="how windows become a track's vector: the mean of all, weighted by loudness, of the most typical ones, or "
        "each kept (default: as the model says)",
    )
    embed.add_argument("--top-windows", type=_count, metavar="N", help="how many windows top_k keeps")
    embed.add_argument(
        "--hop", type=_weight, metavar="SECONDS", help="from window to window (default: as the model says)"
    )
    embed.add_argument("--dim", type=_count, metavar="N", help="keep the first N dimensions (a Matryoshka model)")
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
    embed.add_argument("--lines", type=_count, metavar="N", help="lines of lyrics to a group (default: the model's)")
    embed.set_defaults(module="catalogue", run="embed")

    index = commands.add_parser("index", help="make, change, move, compare or describe searchable indexes")
    actions = index.add_subparsers(dest="action", required=True, metavar="ACTION")
    build = actions.add_parser("build", parents=[common], help="vectors to an index")
    build.add_argument("embeddings", type=Path, metavar="VECTORS", help="what xmodal embed wrote: a file or a folder")
    _add_engine_options(build)
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
    _add_engine_options(move)
    move.set_defaults(module="indexes", run="index_move")
    swap = actions.add_parser("swap", parents=[common], help="put a new index in place of one that is searched")
    swap.add_argument("new", metavar="NEW", help="the folder of the new index; it stays")
    swap.add_argument("live", metavar="LIVE", help="the folder that is searched")
    swap.set_defaults(module="indexes", run="index_swap")
    compare = actions.add_parser("compare", parents=[common, model], help="how far two indexes agree")
    compare.add_argument("first", metavar="A", help="an index")
    compare.add_argument("second", metavar="B", help="another, of any space")
    compare.add_argument("-k", type=_count, default=10, help="length of the lists (default 10)")
    compare.add_argument("--queries", type=_count, default=1000, help="tracks to ask for (default 1000)")
    compare.add_argument("--texts", type=Path, metavar="FILE", help="ask for these texts instead, one a line")
    compare.add_argument("--worst", type=_count, default=10, help="queries to list (default 10)")
    compare.add_argument("--json", action="store_true", help="as JSON")
    compare.set_defaults(module="indexes", run="index_compare")
    info = actions.add_parser("info", parents=[common], help="say what an index holds")
    info.add_argument("index", metavar="INDEX", help="the index folder, or the address of a collection")
    info.add_argument("--ids", action="store_true", help="list the ids, one a line")
    info.add_argument("--json", action="store_true", help="as JSON")
    info.set_defaults(module="indexes", run="index_info")

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
    search.add_argument("--minus-weight", type=_weight, default=0.5, help="weight of each --minus (default 0.5)")
    search.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="CONDITION",
        help='only tracks whose metadata fulfil it: "genre=rock", "tag=piano|organ", "year=1990..1999", "duration<300"',
    )
    search.add_argument("-k", type=_count, default=10, help="number of hits (default 10)")
    search.add_argument(
        "--late",
        action="store_true",
        help="each group of lines of WORDS finds its own best row of a track, and the track has the mean (MaxSim)",
    )
    search.add_argument(
        "--lines", type=_count, metavar="N", help="with --late: lines to a group (default: the model's)"
    )
    search.add_argument(
        "--one-per", metavar="KEY", help="at most --most hits of each artist, album ... (a metadata key)"
    )
    search.add_argument("--most", type=_count, default=1, metavar="N", help="with --one-per (default 1)")
    search.add_argument(
        "--no-duplicates", action="store_true", help="leave out other copies, also of the query's tracks"
    )
    search.add_argument(
        "--diverse", type=_share, metavar="SHARE", help="MMR: near 0 only score counts, near 1 only difference"
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

    _add_tagging(commands, common, model)

    evaluate = commands.add_parser("evaluate", parents=[common, model], help="how well a model finds and tags tracks")
    evaluate.add_argument("manifest", metavar="MANIFEST", help="tracks with captions or tags")
    evaluate.add_argument("--model", required=True, help="the model folder")
    evaluate.add_argument(
        "--protocol", metavar="NAME|FILE.yaml", help="the rules: one of xmodal protocols, or a file (default: plain)"
    )
    evaluate.add_argument(
        "--split",
        choices=["train", "validation", "test", "all"],
        help="the tracks to judge by (default test; a manifest without splits is divided as in training)",
    )
    evaluate.add_argument("--tag-fields", type=_names, metavar="A,B", help="more columns that hold tags")
    evaluate.add_argument("--captions", type=_count, metavar="N", help="use the first N captions of a track only")
    evaluate.add_argument("--audio-root", type=Path, help="where the manifest's relative paths start")
    evaluate.add_argument("--classify", metavar="KIND", help="a kind of which each track has one tag: accuracy, too")
    evaluate.add_argument("--unseen", metavar="A,B|FILE", help="tags that training has not seen, to judge apart")
    evaluate.add_argument(
        "--alike", metavar="FIELD", help="audio against audio: a kind of tag, group, artist, a column"
    )
    evaluate.add_argument(
        "--alike-exclude", choices=["artist", "group"], help="of these no track answers another of its own"
    )
    evaluate.add_argument("--votes", metavar="FILE", help="people's votes on triplets (docs/howto-evaluate.md)")
    evaluate.add_argument("--train", metavar="MANIFEST", help="what the model was trained on, to look for leaks")
    evaluate.add_argument("--allow-leaks", action="store_true", help="judge although train and test share something")
    evaluate.add_argument("--out", type=Path, metavar="DIR", help="write report.html and report.json")
    evaluate.add_argument(
        "--sweep", action="store_true", help="show how far the choice of windows and of prompts moves the figures"
    )
    evaluate.add_argument("--json", action="store_true", help="as JSON, with the figures of every tag and query")
    evaluate.set_defaults(module="judge", run="evaluate")

    compare = commands.add_parser("compare", parents=[common], help="two models on the same queries: better, or lucky?")
    compare.add_argument("first", type=Path, metavar="REPORT.json", help="what xmodal evaluate --out wrote")
    compare.add_argument("second", type=Path, metavar="REPORT.json", help="of the other model")
    compare.add_argument("--json", action="store_true", help="as JSON")
    compare.set_defaults(module="judge", run="compare")

    protocols = commands.add_parser("protocols", parents=[common], help="the evaluation protocols that are ready")
    protocols.add_argument("--json", action="store_true", help="as JSON")
    protocols.set_defaults(module="judge", run="protocols")

    doctor = commands.add_parser(
        "doctor",
        parents=[common, model],
        help="is a model's space healthy? collapse, hubs, modality gap, untrained weights ...",
        description="Every check prints its figure, a verdict and what to do. Exit code 1 if something is ill.",
    )
    doctor.add_argument("model", metavar="MODEL", help="a model folder, or the folder of a run")
    doctor.add_argument(
        "manifest", type=Path, metavar="DATA", help="tracks with captions or tags, or a folder of audio"
    )
    doctor.add_argument(
        "--split",
        default="all",
        choices=["train", "validation", "test", "all"],
        help="the tracks to look at (default all; a manifest without splits is divided as in training)",
    )
    doctor.add_argument("--tag-fields", type=_names, metavar="A,B", help="more columns that hold tags")
    doctor.add_argument("--audio-root", type=Path, help="where the manifest's relative paths start")
    doctor.add_argument("--most", type=_count, default=2000, help="tracks to look at, drawn evenly (default 2000)")
    doctor.add_argument("--plot", type=Path, metavar="FILE.png", help="draw spectra, cosines, hubs and the map")
    doctor.add_argument(
        "--tensorboard", type=Path, metavar="DIR", help="write figures and picture as TensorBoard events"
    )
    doctor.add_argument("--json", action="store_true", help="as JSON")
    doctor.set_defaults(module="doctor", run="doctor")

    runs = commands.add_parser(
        "runs",
        parents=[common],
        help="training runs side by side",
        description="A column is a short name (run, status, minutes, loss, git ...), a metric (its best value), or a "
        "dotted key of the configuration (model.learning_rate) or of run.json (data.files_sha256).",
    )
    runs.add_argument("folder", type=Path, nargs="?", default=Path("runs"), metavar="DIR", help="default: runs")
    runs.add_argument("--sort", metavar="COLUMN", help="by this column; metrics best first")
    runs.add_argument("--reverse", action="store_true", help="turn the order round")
    runs.add_argument("--columns", type=_names, metavar="A,B", help="the columns to show")
    runs.add_argument("--differ", action="store_true", help="add every configuration key in which the runs differ")
    runs.add_argument("--json", action="store_true", help="as JSON, with everything that is known")
    runs.set_defaults(module="runs", run="runs")

    methods = commands.add_parser(
        "methods", parents=[common], help="the losses, miners and memories, and their sources"
    )
    methods.add_argument("--json", action="store_true", help="as JSON, with the line of YAML that selects each")
    methods.set_defaults(module="methods", run="methods")

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
    draw.add_argument("--most", type=_count, default=40, metavar="N", help="tracks in these pictures (default 40)")
    draw.set_defaults(module="look", run="draw_map")

    fetch = commands.add_parser("import", parents=[common], help="a published CLAP model as a model folder")
    fetch.add_argument("source", metavar="MODEL", help="a folder or Hub id, e.g. laion/clap-htsat-unfused")
    fetch.add_argument("--out", type=Path, required=True, metavar="DIR", help="the model folder")
    fetch.set_defaults(module="interop", run="import_model")

    onnx = commands.add_parser(
        "export-onnx", parents=[common, model], help="both towers as ONNX graphs, and how far they are from the model"
    )
    onnx.add_argument("model", metavar="MODEL", help="the model folder")
    onnx.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder of the export")
    onnx.add_argument("--precision", type=_names, default=["fp32"], metavar="A,B", help="of fp32, fp16, int8 (fp32)")
    onnx.add_argument("--check", type=Path, metavar="MANIFEST", help="tracks with texts: compare what is found")
    onnx.add_argument("--audio-root", type=Path, help="where the manifest's relative paths start")
    onnx.add_argument("--tag-fields", type=_names, metavar="A,B", help="more columns that hold tags")
    onnx.add_argument("--force", action="store_true", help="replace an export that is there")
    onnx.add_argument("--json", action="store_true", help="the report as JSON")
    onnx.set_defaults(module="interop", run="export_onnx")

    for name, what in [
        ("train", "fit, validate, test or predict from YAML"),
        ("serve", "search and tag in the browser and over HTTP"),
        ("demo", "the whole path on made music"),
    ]:
        commands.add_parser(name, add_help=False, help=f"{what}; see: xmodal {name} --help")
    return top


def _add_data_commands(commands: Any, common: argparse.ArgumentParser) -> None:
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
    _add_source_options(check)
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
    _add_source_options(unseen)
    unseen.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write to")
    unseen.add_argument(
        "--unseen", default="0.2", metavar="SHARE|A,B|FILE", help="a share of the tags, or their names (default 0.2)"
    )
    unseen.add_argument("--kinds", type=_names, metavar="A,B", help="draw from tags of these kinds (default: all)")
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
    _add_source_options(pack)
    pack.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder of the shards")
    pack.add_argument("--samples", type=_count, default=1000, help="tracks to a shard (default 1000)")
    pack.add_argument("--shuffle", type=int, metavar="SEED", help="in an order shuffled by this seed, for streaming")
    pack.set_defaults(module="data", run="pack")


def _add_source_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "source", metavar="CORPUS", help="a manifest (csv, jsonl ...), a folder of audio, shards, a saved data set"
    )
    command.add_argument("--audio-root", type=Path, help="where the manifest's relative paths start")
    command.add_argument("--tag-fields", type=_names, metavar="A,B", help="more columns that hold tags")
    command.add_argument("--split-field", default="split", metavar="NAME", help="the column of the split, or of folds")
    command.add_argument("--workers", type=_count, default=2, help="threads (default 2)")
    command.add_argument("--json", action="store_true", help="as JSON")


def _add_tagging(
    commands: Any, common: argparse.ArgumentParser, model: argparse.ArgumentParser
) -> None:  # argparse does not name the type of its subparsers
    how = argparse.ArgumentParser(add_help=False)
    how.add_argument("--languages", type=_names, default=[], metavar="A,B", help="use the tags' names in these too")
    how.add_argument(
        "--null-prompts", action="store_true", help="score how much nearer a file is to a tag than to empty words"
    )
    labelled = argparse.ArgumentParser(add_help=False)
    labelled.add_argument("manifest", type=Path, metavar="MANIFEST", help="tracks with tags")
    labelled.add_argument("--model", required=True, help="the model folder")
    labelled.add_argument("--audio-root", type=Path, help="where the manifest's relative paths start")
    labelled.add_argument("--tag-fields", type=_names, metavar="A,B", help="more columns that hold tags")
    labelled.add_argument("--folds", type=_count, default=5, help="parts of the cross-validation (default 5)")
    labelled.add_argument("--seed", type=int, default=0, help="of the division into folds")
    labelled.add_argument("--json", action="store_true", help="as JSON")
    splits = ["train", "validation", "test", "all"]

    tag = commands.add_parser(
        "tag",
        parents=[common, model, how],
        help="the words that fit a file; also: xmodal tag fit | enrol | forget | undo",
        description="Files to the words of a vocabulary. Scores are cosines; with --calibration (xmodal tag fit) or "
        "--prior they become probabilities, and only likely tags are given.",
    )
    tag.add_argument("files", nargs="+", type=Path, metavar="FILE", help="audio files, or folders of them")
    tag.add_argument("--model", required=True, help="the model folder")
    tag.add_argument(
        "--tags",
        help='"a, b"; or a text file with lines like "a, b" or "mood: a, b"; or YAML (default: the calibration\'s)',
    )
    tag.add_argument(
        "--reference",
        type=Path,
        metavar="FILE.parquet",
        help="vectors of a catalogue: score how much nearer a file is to a word than the catalogue is on average",
    )
    likely = tag.add_mutually_exclusive_group()
    likely.add_argument("--calibration", type=Path, metavar="FILE.json", help="what xmodal tag fit wrote")
    likely.add_argument(
        "--prior", type=_share, help="without labels: give each tag to this share of the --reference catalogue"
    )
    tag.add_argument("--enrolled", type=Path, metavar="FILE.json", help="tags made by xmodal tag enrol, too")
    tag.add_argument("-k", type=_count, help="at most so many words a file (default 5; with probabilities all likely)")
    form = tag.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as JSON")
    form.add_argument("--csv", action="store_true", help="as CSV, a line a tag")
    tag.add_argument("--curves", type=Path, metavar="DIR", help="the tags over time: a PNG and a JSON file each")
    tag.add_argument("--why", type=Path, metavar="DIR", help="a picture of what raised the best tag of each file")
    tag.add_argument(
        "--write", action="store_true", help="write likely tags into the files (needs xmodal[write]; see --undo)"
    )
    tag.add_argument("--undo", type=Path, metavar="FILE.jsonl", help="where --write keeps what stood there before")
    tag.set_defaults(module="tags", run="tag")

    fit = commands.add_parser("tag fit", parents=[common, model, labelled, how])
    fit.add_argument("--tags", help="the vocabulary (default: the tags of the manifest)")
    fit.add_argument("--out", type=Path, required=True, metavar="FILE.json", help="where to write")
    fit.add_argument(
        "--split", default="validation", choices=splits, help="the tracks to fit on (default validation; never train)"
    )
    fit.add_argument("--method", default="auto", choices=["auto", "temperature", "platt", "isotonic"])
    fit.add_argument("--max-error", type=_share, help="leave pairs undecided until at most this share is wrong")
    fit.add_argument("--reference", type=Path, metavar="FILE.parquet", help="as in xmodal tag")
    fit.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the reliability curve")
    fit.set_defaults(module="tags", run="tag_fit")

    enrol = commands.add_parser("tag enrol", parents=[common, model])
    enrol.add_argument("name", help="the new tag")
    enrol.add_argument("files", nargs="+", type=Path, metavar="FILE", help="files that have it, or folders of them")
    enrol.add_argument("--model", required=True, help="the model folder")
    enrol.add_argument("--into", type=Path, required=True, metavar="FILE.json", help="made if absent")
    enrol.add_argument("--kind", help="such as genre or mood")
    enrol.add_argument("--reference", type=Path, metavar="FILE.parquet", help="vectors of a catalogue; recommended")
    enrol.add_argument("--text-weight", type=_weight, default=4.0, help="examples that the name is worth (default 4)")
    enrol.add_argument("--no-text", action="store_true", help="the name means nothing to the model")
    enrol.set_defaults(module="tags", run="tag_enrol")

    forget = commands.add_parser("tag forget", parents=[common])
    forget.add_argument("name", help="the tag to take out")
    forget.add_argument("--from", dest="source", type=Path, required=True, metavar="FILE.json")
    forget.set_defaults(module="tags", run="tag_forget")

    undo = commands.add_parser("tag undo", parents=[common])
    undo.add_argument("undo", type=Path, metavar="FILE.jsonl", help="what xmodal tag --write kept")
    undo.set_defaults(module="tags", run="tag_undo")

    probe = commands.add_parser(
        "probe", parents=[common, model, labelled], help="what frozen vectors know of one kind of tag"
    )
    probe.add_argument("--kind", required=True, help="the kind of tag, such as genre")
    probe.add_argument("--split", default="all", choices=splits, help="the tracks to divide (default all)")
    probe.add_argument(
        "--probes", type=_names, default=["linear", "knn", "prototype"], metavar="A,B", help="linear, knn, prototype"
    )
    probe.add_argument("--curve", type=Path, metavar="FILE.png", help="draw mAP against the number of examples")
    probe.add_argument("--shots", type=_counts, default=[1, 2, 5, 10, 20], metavar="A,B", help="numbers of examples")
    probe.set_defaults(module="tags", run="probe")


def _model_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--device", help="cpu, cuda, mps ... (default: the first accelerator there is, else the CPU)")
    options.add_argument("--batch-size", type=_count, default=32, help="windows to a forward pass (default 32)")
    options.add_argument("--workers", type=_count, help="threads that decode (default: one a core)")
    options.add_argument("--trust", action="store_true", help="let the model name classes from outside xmodal")
    return options


def _add_engine_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="DIR", help="the index folder")
    parser.add_argument(
        "--kind",
        default="auto",
        choices=["auto", "exact", "flat", "hnsw", "ivf"],
        help="exact: reference; flat: every vector compared; hnsw: a graph, for many; ivf: lists of codes, for more "
        "than the memory holds; auto (default): by size and memory",
    )
    parser.add_argument(
        "--engine",
        metavar="URL",
        help="keep the rows in a database: milvus://host:19530, postgresql://user@host/database, each with "
        "?collection=NAME; --out then writes a folder that points there",
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def _counts(text: str) -> list[int]:
    return [_count(number) for number in _names(text)]


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"must be a number between 0 and 1, got {text!r}")
    return share


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return weight
