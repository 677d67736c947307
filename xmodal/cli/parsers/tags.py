"""The words of ``tag`` and ``probe``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from xmodal.cli.parsers.arguments import count, counts, names, share, weight


def add_tagging(commands: Any, common: argparse.ArgumentParser, model: argparse.ArgumentParser) -> None:
    """Words of a vocabulary that fit, what makes them probabilities, tags from examples, and probes."""
    how = argparse.ArgumentParser(add_help=False)
    how.add_argument("--languages", type=names, default=[], metavar="A,B", help="use the tags' names in these too")
    how.add_argument(
        "--null-prompts", action="store_true", help="score how much nearer a file is to a tag than to empty words"
    )
    labelled = argparse.ArgumentParser(add_help=False)
    labelled.add_argument("manifest", type=Path, metavar="MANIFEST", help="tracks with tags")
    labelled.add_argument("--model", required=True, help="the model folder")
    labelled.add_argument("--audio-root", type=Path, help="where the manifest's relative paths start")
    labelled.add_argument("--tag-fields", type=names, metavar="A,B", help="more columns that hold tags")
    labelled.add_argument("--folds", type=count, default=5, help="parts of the cross-validation (default 5)")
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
        "--prior", type=share, help="without labels: give each tag to this share of the --reference catalogue"
    )
    tag.add_argument("--enrolled", type=Path, metavar="FILE.json", help="tags made by xmodal tag enrol, too")
    tag.add_argument("-k", type=count, help="at most so many words a file (default 5; with probabilities all likely)")
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
    fit.add_argument("--max-error", type=share, help="leave pairs undecided until at most this share is wrong")
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
    enrol.add_argument("--text-weight", type=weight, default=4.0, help="examples that the name is worth (default 4)")
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
        "--probes", type=names, default=["linear", "knn", "prototype"], metavar="A,B", help="linear, knn, prototype"
    )
    probe.add_argument("--curve", type=Path, metavar="FILE.png", help="draw mAP against the number of examples")
    probe.add_argument("--shots", type=counts, default=[1, 2, 5, 10, 20], metavar="A,B", help="numbers of examples")
    probe.set_defaults(module="tags", run="probe")
