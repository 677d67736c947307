"""``make results``: train, judge and write the figures of docs/results.md, with one command.

    make results                                                   # audio in ../shared/audio, the demo in demo/
    make results AUDIO=DIR DEMO=DIR LOSSES=rows.jsonl
    python benchmarks/results.py --audio DIR --demo DIR --losses rows.jsonl --only esc10 losses

It rewrites the blocks between ``<!-- results: NAME -->`` and its end, and no other line. What is finished is kept in
``--out``, so that a run that was stopped, by a kill too, goes on where it was; ``--anew`` forgets it. A part whose data
are not there is left as it stands on the page, and the reason is printed.

The demo's model is trained first if ``--demo`` holds none (about six minutes). Given one, the rest takes about a
quarter of an hour on two cores, nearly all of it training: ESC-10 five times, three sets once, all of them together
once. ``--losses`` is what ``benchmarks/losses_train.py --out`` wrote.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import real_sets
import results_page
import torch
import unseen_tags

from xmodal.atomic import written_aside
from xmodal.data import Track
from xmodal.data.demo import UNSEEN_WORDS, build_corpus
from xmodal.data.manifests import read_tracks
from xmodal.embedder import Embedder, load
from xmodal.evaluation import Protocol, evaluate_tags, label_matrix, probe
from xmodal.evaluation.methods import Method
from xmodal.runs import versions
from xmodal.tagging import TagScorer

PAGE = Path(__file__).parents[1] / "docs" / "results.md"
DEMO_KINDS = ("style", "tempo", "mode")
LEARNT = 1000  # training clips of the demo that its probes learn from


class NotThereError(Exception):
    """What a part needs is not there; the message says what."""


def real_set(name: str, options: argparse.Namespace) -> str:
    if not (options.audio / f"{name}.jsonl").is_file():
        raise NotThereError(f"there is no {options.audio / name}.jsonl; say where with --audio")
    facts = real_sets.SETS[name]
    runs = []
    for fold in facts["folds"]:
        if len(facts["folds"]) > 1:
            say(f"  fold {fold} of {len(facts['folds'])}")
        runs.append(real_sets.kept_run(name, options.audio, options.out, fold, facts["epochs"]))
    return results_page.real_set_table(runs)


def unseen(options: argparse.Namespace) -> str:
    missing = [name for name in unseen_tags.FIELDS if not (options.audio / f"{name}.jsonl").is_file()]
    if missing:
        raise NotThereError(f"there is no {options.audio / missing[0]}.jsonl; say where with --audio")
    return results_page.unseen_table(unseen_tags.kept_run(options.audio, options.out, unseen_tags.EPOCHS))


def losses(options: argparse.Namespace) -> str:
    if options.losses is None or not options.losses.is_file():
        raise NotThereError("rows of benchmarks/losses_train.py are given with --losses FILE.jsonl")
    rows = [json.loads(line) for line in options.losses.read_text("utf-8").splitlines() if line.strip()]
    latest = {(row["objective"], row["seed"]): row for row in rows if row["steps"] == 60 and row["clips"] == 1000}
    if not latest:
        raise NotThereError(f"{options.losses} holds no rows of 60 steps on 1000 clips")
    return results_page.family_table(list(latest.values()))


def demo(options: argparse.Namespace) -> str:
    folder: Path = options.demo
    if not (folder / "results.json").is_file() or not (folder / "model").is_dir():
        say("  no trained demo: it is composed and trained first")
        command = [sys.executable, "-c", "import sys; from xmodal.cli import main; sys.exit(main())"]
        subprocess.run([*command, "demo", "--keep", str(folder)], check=True)
    written = json.loads((folder / "results.json").read_text("utf-8"))
    kept = options.out / f"demo-{written['space_id']}.json"
    if not kept.exists():
        manifest = folder / "corpus" / "manifest.jsonl"
        if not manifest.is_file():
            say("  composing the demo's clips again")
            build_corpus(folder / "corpus", clips=written["clips"], seed=0, workers=os.cpu_count() or 1)
        found = judge_demo(load(folder / "model"), read_tracks(manifest))
        with written_aside(kept) as aside:
            aside.write_text(json.dumps(found) + "\n")
    return results_page.demo_table(written | json.loads(kept.read_text()))


def judge_demo(embedder: Embedder, tracks: list[Track]) -> dict[str, Any]:
    """What ``xmodal demo`` does not say: accuracy by words and by probe, and words that no caption used."""
    test = [track for track in tracks if track.split == "test"]
    learn = [track for track in tracks if track.split == "train"][:LEARNT]
    rows = [*learn, *test]
    say(f"  embedding {len(rows)} clips")
    vectors = embedder.embed_files(rows, raise_errors=True).embeddings.vectors
    ours = Method(real_sets.OURS, vectors[len(learn) :], embedder.embed_texts)
    classification, probes = {}, {}
    for kind in DEMO_KINDS:
        protocol = Protocol(name=kind, directions=("tags",), tag_kinds=(kind,), classify=kind)
        classification[kind] = real_sets.report_of(ours, test, protocol)["classification"]
        _, labels = label_matrix([track.tags for track in rows], kind)
        part = (torch.arange(len(rows)) >= len(learn)).int()
        probes[kind] = probe(vectors, labels, folds=part, judged=[1]).to_dict()
    kind_of = {tag: kind for track in test for kind, tags in track.tags.items() for tag in tags}
    words = {word: tag for word, tag in UNSEEN_WORDS.items() if tag in kind_of}
    by_kind: dict[str, list[str]] = {}
    for word, tag in words.items():
        by_kind.setdefault(kind_of[tag], []).append(word)
    scorer = TagScorer(by_kind, embedder.embed_texts)
    said = [[track.has_tag(words[word], kind) for word, kind in zip(scorer.tags, scorer.kinds, strict=True)]
            for track in test]  # fmt: skip
    labels, valid = (torch.tensor([[answer(cell) for cell in row] for row in said])
                     for answer in (lambda cell: cell is True, lambda cell: cell is not None))  # fmt: skip
    strange = evaluate_tags(vectors[len(learn) :], scorer.vectors, labels, scorer.tags, valid=valid)
    return {"classification": classification, "probes": probes, "unseen words": strange.to_dict()}


PARTS: dict[str, Callable[[argparse.Namespace], str]] = {
    "losses": losses,
    "demo": demo,
    **{name: (lambda options, name=name: real_set(name, options)) for name in real_sets.SETS},  # type: ignore[misc]
    "unseen": unseen,
}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, default=Path("../shared/audio"), help="folder of the public sets")
    parser.add_argument(
        "--demo", type=Path, default=Path("demo"), help="folder of the demo, trained if it is not there"
    )
    parser.add_argument("--losses", type=Path, help="rows of benchmarks/losses_train.py")
    parser.add_argument("--out", type=Path, default=Path("runs/results"), help="where finished parts are kept")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page to write (default: docs/results.md)")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--anew", action="store_true", help="forget what is finished")
    options = parser.parse_args()
    if options.anew:
        shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True, exist_ok=True)
    chosen = options.only or list(PARTS)
    written, left = [], []
    for number, name in enumerate(chosen, start=1):
        say(f"[{number}/{len(chosen)}] {name}")
        begun = time.monotonic()
        try:
            body = PARTS[name](options)
        except NotThereError as reason:
            left.append(f"{name}: {reason}")
            say(f"  left as it stands: {reason}")
            continue
        # Part by part: a kill later loses nothing, and prose that was changed meanwhile is read again.
        page = results_page.put(options.page.read_text("utf-8"), name, body)
        with written_aside(options.page) as aside:
            aside.write_text(page, "utf-8")
        written.append(name)
        say(f"  {time.monotonic() - begun:.0f} s")
    made = versions()
    said = ", ".join(f"{name} {made[name]}" for name in ("xmodal", "torch", "python") if made.get(name))
    print(f"{options.page}: {len(written)} blocks written ({', '.join(written)}), {said}, {os.cpu_count()} processors")
    for line in left:
        print(f"left as it stood: {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
