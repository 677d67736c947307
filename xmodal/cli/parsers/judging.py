"""The words of the commands that judge models and runs, and of those that take models in and out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from xmodal.cli.parsers.arguments import count, names


def add_evaluation(commands: Any, common: argparse.ArgumentParser, model: argparse.ArgumentParser) -> None:
    """How well a model finds and tags tracks, and whether another does better."""
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
    evaluate.add_argument("--tag-fields", type=names, metavar="A,B", help="more columns that hold tags")
    evaluate.add_argument("--captions", type=count, metavar="N", help="use the first N captions of a track only")
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


def add_doctor(commands: Any, common: argparse.ArgumentParser, model: argparse.ArgumentParser) -> None:
    """Is a space healthy?"""
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
    doctor.add_argument("--tag-fields", type=names, metavar="A,B", help="more columns that hold tags")
    doctor.add_argument("--audio-root", type=Path, help="where the manifest's relative paths start")
    doctor.add_argument("--most", type=count, default=2000, help="tracks to look at, drawn evenly (default 2000)")
    doctor.add_argument("--plot", type=Path, metavar="FILE.png", help="draw spectra, cosines, hubs and the map")
    doctor.add_argument(
        "--tensorboard", type=Path, metavar="DIR", help="write figures and picture as TensorBoard events"
    )
    doctor.add_argument("--json", action="store_true", help="as JSON")
    doctor.set_defaults(module="doctor", run="doctor")


def add_lists(commands: Any, common: argparse.ArgumentParser) -> None:
    """What there is: runs, methods."""
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
    runs.add_argument("--columns", type=names, metavar="A,B", help="the columns to show")
    runs.add_argument("--differ", action="store_true", help="add every configuration key in which the runs differ")
    runs.add_argument("--json", action="store_true", help="as JSON, with everything that is known")
    runs.set_defaults(module="runs", run="runs")

    methods = commands.add_parser(
        "methods", parents=[common], help="the losses, miners and memories, and their sources"
    )
    methods.add_argument("--json", action="store_true", help="as JSON, with the line of YAML that selects each")
    methods.set_defaults(module="methods", run="methods")


def add_exchange(commands: Any, common: argparse.ArgumentParser, model: argparse.ArgumentParser) -> None:
    """Models from elsewhere and to elsewhere."""
    fetch = commands.add_parser("import", parents=[common], help="a published CLAP model as a model folder")
    fetch.add_argument("source", metavar="MODEL", help="a folder or Hub id, e.g. laion/clap-htsat-unfused")
    fetch.add_argument("--out", type=Path, required=True, metavar="DIR", help="the model folder")
    fetch.set_defaults(module="interop", run="import_model")

    onnx = commands.add_parser(
        "export-onnx", parents=[common, model], help="both towers as ONNX graphs, and how far they are from the model"
    )
    onnx.add_argument("model", metavar="MODEL", help="the model folder")
    onnx.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder of the export")
    onnx.add_argument("--precision", type=names, default=["fp32"], metavar="A,B", help="of fp32, fp16, int8 (fp32)")
    onnx.add_argument("--check", type=Path, metavar="MANIFEST", help="tracks with texts: compare what is found")
    onnx.add_argument("--audio-root", type=Path, help="where the manifest's relative paths start")
    onnx.add_argument("--tag-fields", type=names, metavar="A,B", help="more columns that hold tags")
    onnx.add_argument("--force", action="store_true", help="replace an export that is there")
    onnx.add_argument("--json", action="store_true", help="the report as JSON")
    onnx.set_defaults(module="interop", run="export_onnx")
