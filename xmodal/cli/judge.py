"""The commands that put a model to the test, and two models side by side. Each returns the exit code."""

from __future__ import annotations

import dataclasses
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xmodal.cli.shared import embed_all, load_embedder, print_json, print_line, print_table
from xmodal.data.manifests import read_corpus
from xmodal.data.splits import split_tracks
from xmodal.data.tracks import Track
from xmodal.errors import DataError
from xmodal.evaluation import (
    Protocol,
    Report,
    compare_reports,
    judge,
    read_protocol,
    read_report,
    read_votes,
    refuse_leaks,
)
from xmodal.tagging import read_vocabulary
from xmodal.training import config_folder

# What the sweep tries: how a track becomes one vector, and how a tag is put into words.
_VIEWS: dict[str, dict[str, Any]] = {
    "mean of all windows": {"pooling": "mean"},
    "weighted by energy": {"pooling": "energy"},
    "three most typical windows": {"pooling": "top_k", "top_windows": 3},
    "one most typical window": {"pooling": "top_k", "top_windows": 1},
}


def evaluate(args: Namespace) -> int:
    """``xmodal evaluate``: how well a model finds and tags the tracks of a manifest."""
    protocol = _protocol(args)
    corpus = read_corpus(args.manifest, audio_root=args.audio_root, tag_fields=args.tag_fields, missing="skip")
    tracks = _split(corpus.tracks, protocol.split, args.manifest)
    if not args.allow_leaks:
        refuse_leaks(_training_tracks(args, corpus.tracks, protocol), tracks, protocol.refuse_leaks)
    if args.sweep:
        return _sweep(args, tracks, protocol)
    embedder = load_embedder(args.model, args, view=protocol.view)
    embedded = embed_all(embedder, protocol.judged(tracks))
    if not len(embedded.embeddings):
        return 1  # the reasons are on the error stream
    votes = None if args.votes is None else read_votes(args.votes)
    report = judge(embedder, tracks, protocol, manifest=str(args.manifest), embed=lambda *_: embedded, votes=votes)
    left_out = [{"path": str(one.path), "reason": one.reason} for one in corpus.set_aside]
    report.facts["failures"] = left_out + report.facts["failures"]
    if args.out is not None:
        from xmodal.report import write_report_page

        args.out.mkdir(parents=True, exist_ok=True)
        report.save(args.out / "report.json")
        write_report_page(report, args.out / "report.html")
    if args.json:
        print_json(report.to_dict())
        return 0
    _print(report, len(tracks))
    if args.out is not None:
        print_line(f"\n{args.out / 'report.html'}\n{args.out / 'report.json'}")
    return 0


def compare(args: Namespace) -> int:
    """``xmodal compare``: is one model better than another on the same queries, or was it luck?"""
    first, second = read_report(args.first), read_report(args.second)
    rows = compare_reports(first, second)
    if args.json:
        print_json({"first": first["space_id"], "second": second["space_id"], "tests": rows})
        return 0
    print_line(f"first: {first['model']}, space {first['space_id']}\nsecond: {second['model']}, {second['space_id']}\n")
    table = [["direction", "metric", "first", "second", "mean difference", "p", "queries"]]
    table += [
        [
            row["direction"].replace("_", " "),
            row["metric"],
            f"{row['first']:.4g}",
            f"{row['second']:.4g}",
            f"{row['difference']:+.4f}",
            f"{row['p_value']:.4f}",
            str(row["queries"]),
        ]
        for row in rows
    ]
    print_table(table)
    print_line("\np: share of random exchanges of the two models, group by group, that differ as much")
    return 0


def protocols(args: Namespace) -> int:
    """``xmodal protocols``: the protocols that come with xmodal."""
    paths = sorted((config_folder() / "protocols").glob("*.yaml"))
    known = [(path, read_protocol(path)) for path in paths]
    if args.json:
        print_json([{"file": str(path), "hash": each.hash(), **dataclasses.asdict(each)} for path, each in known])
        return 0
    print_table([["protocol", "name", "hash"], *([path.stem, each.name, each.hash()] for path, each in known)])
    return 0


def _protocol(args: Namespace) -> Protocol:
    if args.protocol is None:
        protocol = Protocol(split=args.split or "test", captions=args.captions, classify=args.classify)
    else:
        named = Path(args.protocol)
        ready = config_folder() / "protocols" / f"{args.protocol}.yaml"
        protocol = read_protocol(named if named.is_file() or not ready.is_file() else ready)
        said = ("split", "captions", "classify")
        protocol = dataclasses.replace(protocol, **{n: getattr(args, n) for n in said if getattr(args, n) is not None})
    changed: dict[str, Any] = {
        name: getattr(args, name) for name in ("alike", "alike_exclude") if getattr(args, name) is not None
    }
    if args.unseen is not None:
        changed["unseen"] = tuple(read_vocabulary(args.unseen).names)
    return dataclasses.replace(protocol, **changed)


def _split(tracks: Sequence[Track], split: str, manifest: Any) -> list[Track]:
    chosen = list(tracks) if split == "all" else split_tracks(tracks)[split]
    if not chosen:
        raise DataError(f"{manifest} has no tracks in its {split} split; choose another with --split, or all")
    return list(chosen)


def _training_tracks(args: Namespace, tracks: Sequence[Track], protocol: Protocol) -> list[Track]:
    """What the model may have learnt from: the manifest's own training part, and what --train names."""
    seen: list[Track] = []
    if protocol.split in ("test", "validation"):
        seen += split_tracks(tracks)["train"]
    if args.train is not None:
        seen += read_corpus(args.train, missing="skip").tracks
    return seen


def _print(report: Report, asked: int) -> None:
    facts = report.facts
    name = facts["protocol"]["name"]
    print_line(
        f"{facts['tracks']} of {asked} tracks, space {facts['space_id']}, protocol {name} ({facts['protocol_hash']}), "
        f"data {facts['data_fingerprint']}\n"
    )
    for number, rows in enumerate(report.tables()):
        if number:
            print_line("")
        print_table(rows)


def _sweep(args: Namespace, tracks: Sequence[Track], protocol: Protocol) -> int:
    """How far each choice moves the figures: windows by themselves, then prompts by themselves."""
    kinds = sorted({kind for track in tracks for kind in track.tags})
    choices: list[tuple[str, Protocol]] = [("as the protocol says", protocol)]
    choices += [(f"windows: {name}", dataclasses.replace(protocol, view=view)) for name, view in _VIEWS.items()]
    hop = load_embedder(args.model, args).model.windows.window_seconds / 2
    choices.append((f"windows: hop of {hop:g} s", dataclasses.replace(protocol, view={"hop_seconds": hop})))
    bare: dict[str, tuple[str, ...]] = dict.fromkeys(kinds, ("{}",))
    choices.append(("prompts: the word alone", dataclasses.replace(protocol, prompts=bare)))
    sounds: dict[str, tuple[str, ...]] = dict.fromkeys(kinds, ("this is a sound of {}",))
    choices.append(("prompts: this is a sound of {}", dataclasses.replace(protocol, prompts=sounds)))
    choices.append(("prompts: less empty words", dataclasses.replace(protocol, null_prompts=True)))
    found = []
    vectors: dict[str, Any] = {}  # of each view once: prompts change no audio vector

    def embed_once(embedder: Any, chosen: Sequence[Track]) -> Any:
        key = embedder.space_id
        if key not in vectors:
            vectors[key] = embed_all(embedder, chosen)
        return vectors[key]

    for name, each in choices:
        sys.stderr.write(f"xmodal: {name}\n")
        embedder = load_embedder(args.model, args, view=each.view)
        found.append((name, judge(embedder, tracks, each, manifest=str(args.manifest), embed=embed_once).headline()))
    if args.json:
        print_json([{"choice": name, **figures} for name, figures in found])
        return 0
    _print_sweep(found)
    return 0


def _print_sweep(found: Sequence[tuple[str, dict[str, float]]]) -> None:
    """A table for each direction, and one for the rest: all in one would not fit a terminal."""
    columns = list(found[0][1])
    for direction in ("text_to_audio", "audio_to_text", ""):
        own = [c for c in columns if (c.startswith(direction) if direction else "_to_" not in c)]
        # Prompts are words for tags, so they move no figure of captions.
        chosen = [each for each in found if not (direction and each[0].startswith("prompts"))]
        if not own:
            continue
        rows = [[direction.replace("_", " ") or "tags and more", *(c.removeprefix(f"{direction} ") for c in own)]]
        rows += [[name, *(f"{figures[c]:.3f}" for c in own)] for name, figures in chosen]
        moved = [max(f[c] for _, f in chosen) - min(f[c] for _, f in chosen) for c in own]
        print_table([*rows, ["largest - smallest", *(f"{value:.3f}" for value in moved)]])
        print_line("")
