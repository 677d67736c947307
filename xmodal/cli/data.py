"""The commands that deal with corpora. Each returns the exit code: 1 says that something is missing or wrong."""

from __future__ import annotations

import inspect
import json
import random
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from xmodal.cli.shared import print_json, print_line, print_table, progress


def take_in(args: Namespace) -> int:
    """``xmodal data import``: check a copy of a published data set and write its manifest."""
    from xmodal.data.manifests import write_tracks

    adapter = _adapter(args.name, str(args.root), args.option)
    if args.out is not None and args.out.suffix.lower() != ".jsonl":
        raise ValueError(f"--out must name a file ending in .jsonl, got {args.out}")
    with progress("hashing", None) as advance:
        done = 0

        def moved(number: int, total: int) -> None:
            nonlocal done
            advance(number - done, total)
            done = number

        report = adapter.check(checksums=args.checksums, progress=moved)
    if args.out is not None:
        write_tracks(report.corpus.tracks, args.out)
    if args.json:
        facts = {
            "name": report.name,
            "homepage": report.homepage,
            "licence": report.licence,
            "root": str(report.root),
            "tracks": len(report.corpus.tracks),
            "splits": report.splits,
            "set_aside": [asdict(one) for one in report.corpus.set_aside],
            "findings": [asdict(finding) for finding in report.findings],
        }
        print_json(facts | ({"manifest": str(args.out)} if args.out is not None else {}))
    else:
        splits = ", ".join(f"{count} {name or 'without a split'}" for name, count in report.splits.items())
        print_line(f"{report.name} in {report.root}: {len(report.corpus.tracks)} tracks ({splits})")
        print_line(f"licence: {report.licence}\n{report.homepage}")
        known = sum(one.reason in adapter.broken.values() for one in report.corpus.set_aside)
        if known:
            print_line(f"{known} files that are unusable in every copy are left out")
        if report.findings:
            print_line("")
            print_table(
                [["missing or wrong", "how many", "for example", "comes from"], *map(_finding, report.findings)]
            )
        else:
            print_line("nothing is missing")
        if args.out is not None:
            print_line(f"\n{len(report.corpus.tracks)} tracks in {args.out}")
    return 1 if report.findings else 0


def pack(args: Namespace) -> int:
    """``xmodal data pack``: a corpus to shards."""
    from xmodal.data.manifests import read_corpus
    from xmodal.data.pack import pack as write_shards

    corpus = read_corpus(
        args.source,
        audio_root=args.audio_root,
        tag_fields=args.tag_fields,
        split_field=args.split_field,
        missing="skip",
    )
    tracks = list(corpus.tracks)
    if args.shuffle is not None:
        random.Random(args.shuffle).shuffle(tracks)
    try:
        with progress("packing", len(tracks)) as advance:
            report = write_shards(
                tracks, args.out, samples_per_shard=args.samples, workers=args.workers, progress=advance
            )
    except KeyboardInterrupt:
        sys.stderr.write("xmodal: what is finished is kept; the same command goes on from there\n")
        raise
    set_aside = [*corpus.set_aside, *report.set_aside]
    if args.json:
        facts = {"out": str(args.out), "tracks": report.tracks, "shards": report.shards, "bytes": report.bytes}
        print_json({**facts, "kept": report.kept, "set_aside": [asdict(one) for one in set_aside]})
    else:
        kept = f", {report.kept} of them kept from before" if report.kept else ""
        print_line(
            f"{report.tracks} tracks in {report.shards} shards ({report.bytes / 1e6:.1f} MB){kept}, in {args.out}"
        )
        if set_aside:
            print_line(f"{len(set_aside)} set aside:")
            print_table([["track", "reason"], *((one.id, one.reason) for one in set_aside[:20])])
    return 1 if set_aside else 0


def _finding(finding: Any) -> Sequence[str]:
    return finding.what, str(finding.count), finding.examples[0] if finding.examples else "", finding.source


def _adapter(name: str, root: str, options: Sequence[str]) -> Any:
    """The adapter that a name means, whatever its letter case and hyphens."""
    from xmodal.data import adapters

    classes = {
        item.__name__: item
        for item in vars(adapters).values()
        if inspect.isclass(item) and issubclass(item, adapters.Adapter) and item is not adapters.Adapter
    }
    plain = {_plain(key): value for key, value in classes.items()}
    if _plain(name) not in plain:
        raise ValueError(f"there is no adapter {name!r}; there are: {', '.join(sorted(classes))}")
    cls = plain[_plain(name)]
    known = list(inspect.signature(cls).parameters)[1:]
    arguments: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or key not in known:
            raise ValueError(
                f"--option {option!r}: {cls.__name__} takes {', '.join(f'{one}=…' for one in known) or 'no options'}"
            )
        try:
            arguments[key] = json.loads(value)
        except json.JSONDecodeError:
            arguments[key] = value
        if isinstance(inspect.signature(cls).parameters[key].default, str) and not isinstance(arguments[key], str):
            arguments[key] = value  # version=2.0 is a name, not a number
    return cls(root, **arguments)


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())
