"""The commands that deal with corpora. Each returns the exit code: 1 says that something is missing or wrong."""

from __future__ import annotations

import inspect
import json
import random
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal.cli.shared import print_json, print_line, print_table, progress

if TYPE_CHECKING:  # the help comes without loading torch
    from xmodal.data.check import CheckReport
    from xmodal.data.corpus import Corpus, SetAside


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


def check(args: Namespace) -> int:
    """``xmodal data check``: what is wrong in a corpus."""
    from xmodal.data.check import check as check_corpus
    from xmodal.data.pack import verify_shards

    corpus = _read(args)
    try:
        with progress("decoding", len(corpus.tracks)) as advance:
            report = check_corpus(corpus, workers=args.workers, measurements=args.measurements, progress=advance)
    except KeyboardInterrupt:
        if args.measurements is not None:
            sys.stderr.write("xmodal: what was measured is kept; the same command goes on from there\n")
        raise
    altered = verify_shards(args.source) if Path(args.source).is_dir() else []
    wrong = report.wrong or bool(altered)
    if args.json:
        print_json(report.to_dict() | {"altered_shards": [asdict(one) for one in altered], "wrong": wrong})
    else:
        _print_check(args.source, report, altered)
    return 1 if wrong or (args.strict and report.findings) else 0


def _print_check(source: str, report: CheckReport, altered: Sequence[SetAside]) -> None:
    rows = [
        ["corpus", source],
        ["tracks", _listed({"": report.tracks} if set(report.splits) <= {""} else report.splits, "")],
    ]
    if report.seconds:
        seconds = dict(report.seconds)
        total = seconds.pop("total")
        spread = ", ".join(f"{name} {length:.1f} s" for name, length in seconds.items())
        rows += [["length", f"{total / 3600:.2f} hours; {spread}"]]
    rows += [
        ["sample rate", _listed(report.sample_rates, " Hz")],
        ["channels", _listed(report.channels, "")],
        ["format", _listed(report.formats, "")],
        ["licence", _listed({name or "none given": count for name, count in report.licences.items()}, "")],
        ["texts", ", ".join(f"{count} {name}" for name, count in report.texts.items() if count)],
    ]
    print_table(rows)
    findings = [["", "what", "how many", "for example"]]
    findings += [["wrong", f"shard altered: {one.reason}", "1", one.id] for one in altered]
    findings += [[one.level, one.what, str(one.count), "\n".join(one.examples[:3])] for one in report.findings]
    print_line("")
    if len(findings) > 1:
        print_table(findings)
    else:
        print_line("nothing is wrong")
    if report.failures:
        print_line("")
        print_table([["missing or unreadable", "reason"], *((one.id, one.reason) for one in report.failures[:20])])
        if len(report.failures) > 20:
            print_line(f"and {len(report.failures) - 20} more; --json lists them all")


def _listed(counts: dict[str, int], unit: str) -> str:
    """Counts by name, the six most frequent."""
    named = [f"{name}{unit}: {count}" if name else str(count) for name, count in list(counts.items())[:6]]
    more = sum(list(counts.values())[6:])
    return ", ".join(named) + (f", others: {more}" if more else "")


def _read(args: Namespace) -> Corpus:
    from xmodal.data.manifests import read_corpus

    return read_corpus(
        args.source,
        audio_root=args.audio_root,
        tag_fields=args.tag_fields,
        split_field=args.split_field,
        missing="skip",
    )


def zero_shot(args: Namespace) -> int:
    """``xmodal data zero-shot``: a manifest whose training part has never seen some of the tags."""
    from dataclasses import replace

    from xmodal.atomic import written_aside
    from xmodal.data.manifests import write_tracks
    from xmodal.data.splits import split_tracks
    from xmodal.errors import DataError
    from xmodal.evaluation import without_unseen, zero_shot_split
    from xmodal.evaluation.judge import vocabulary_of
    from xmodal.tagging import read_vocabulary

    parts = split_tracks(_read(args).tracks)
    tracks = [track for of_part in parts.values() for track in of_part]
    if args.kinds is not None:
        drawn_from = [replace(t, tags={k: n for k, n in t.tags.items() if k in args.kinds}) for t in tracks]
    vocabulary = vocabulary_of(tracks if args.kinds is None else drawn_from)
    if vocabulary is None:
        raise DataError(f"the tracks of {args.source} have no tags; name the columns with --tag-fields A,B")
    try:
        share = float(args.unseen)
    except ValueError:
        names = read_vocabulary(args.unseen).names
        strange = [name for name in names if vocabulary.column(name) is None]
        if strange:
            raise DataError(f"{strange[0]!r} is no tag of the tracks of {args.source}") from None
    else:
        labels, _ = vocabulary.labels_of_tracks(tracks)
        drawn = zero_shot_split(labels, unseen=share, seed=args.seed).unseen.tolist()
        names = [name for name, new in zip(vocabulary.names, drawn, strict=True) if new]
    written, counts = [], []
    for part, of_part in parts.items():
        found = without_unseen(of_part, names, keep=args.keep)
        set_of = {track.id: group for group in "ABC" for track in found[group]}
        kept = [track for track in of_part if track.id in set_of] if part == "test" else found["train"]
        written += [replace(t, split=part, extra={**t.extra, "zero_shot": set_of[t.id]}) for t in kept]
        counts.append([part, *(str(len(found[group])) for group in "ABC"), str(len(kept))])
    write_tracks(written, args.out / "manifest.jsonl")
    with written_aside(args.out / "unseen.txt") as aside:
        aside.write_text("".join(f"{name}\n" for name in names), "utf-8")
    if args.json:
        print_json({"manifest": str(args.out / "manifest.jsonl"), "unseen": names, "tags": len(vocabulary)})
        return 0
    print_line(f"{len(names)} of {len(vocabulary)} tags are unseen: {', '.join(names)}\n")
    print_table([["part", "A: seen tags alone", "B: both", "C: unseen alone", "kept"], *counts])
    print_line(f"\n{args.out / 'manifest.jsonl'}\n{args.out / 'unseen.txt'}")
    return 0


def pack(args: Namespace) -> int:
    """``xmodal data pack``: a corpus to shards."""
    from xmodal.data.pack import pack as write_shards

    corpus = _read(args)
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
