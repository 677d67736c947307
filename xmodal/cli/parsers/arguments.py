"""What several commands take, and what the words of an argument may be."""

from __future__ import annotations

import argparse
import math
from pathlib import Path


def model_options() -> argparse.ArgumentParser:
    """Options of every command that runs a model."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--device", help="cpu, cuda, mps ... (default: the first accelerator there is, else the CPU)")
    options.add_argument("--batch-size", type=count, default=32, help="windows to a forward pass (default 32)")
    options.add_argument("--workers", type=count, help="threads that decode (default: one a core)")
    options.add_argument("--trust", action="store_true", help="let the model name classes from outside xmodal")
    return options


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Where an index is made, and of what kind."""
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


def add_source_options(command: argparse.ArgumentParser) -> None:
    """Which tracks, and how their file is read."""
    command.add_argument(
        "source", metavar="CORPUS", help="a manifest (csv, jsonl ...), a folder of audio, shards, a saved data set"
    )
    command.add_argument("--audio-root", type=Path, help="where the manifest's relative paths start")
    command.add_argument("--tag-fields", type=names, metavar="A,B", help="more columns that hold tags")
    command.add_argument("--split-field", default="split", metavar="NAME", help="the column of the split, or of folds")
    command.add_argument("--workers", type=count, default=2, help="threads (default 2)")
    command.add_argument("--json", action="store_true", help="as JSON")


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def counts(text: str) -> list[int]:
    """Such numbers between commas."""
    return [count(number) for number in names(text)]


def share(text: str) -> float:
    """A number between 0 and 1."""
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"must be a number between 0 and 1, got {text!r}")
    return share


def names(text: str) -> list[str]:
    """Words between commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def weight(text: str) -> float:
    """A number above 0."""
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return weight
