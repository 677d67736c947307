"""Tags that training has not seen: one model of all public sets, a fifth of the tags of every kind held out.

    python benchmarks/unseen_tags.py --audio ../shared/audio --out runs/unseen         # a few minutes on two cores
    python benchmarks/unseen_tags.py --audio ../shared/audio --quick                   # few epochs: shows that it runs

The sets and splits are those of benchmarks/real_sets.py (ESC-10: its fifth fold is the test part; spoken digits: six
takes of each word and speaker). Of sounds, instruments and words a fifth each is unseen, drawn over frequencies. The
model, ridge and random projection learn from the tracks that have seen tags alone, without captions that name an
unseen one (set A of Choi et al. 2019), and are judged on the test tracks of A, B and C by one protocol.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from real_sets import OURS, RIDGE, kept_or_made, report_of, trained
from results_page import unseen_table

from xmodal.data import Track
from xmodal.data.manifests import read_tracks, write_tracks
from xmodal.data.splits import fold_split, split_tracks
from xmodal.embedder import Embedder
from xmodal.evaluation import Protocol, without_unseen, zero_shot_split
from xmodal.evaluation.judge import vocabulary_of
from xmodal.evaluation.methods import methods_of_run

# Columns of tags and what kind each is.
FIELDS: dict[str, dict[str, str]] = {
    "esc10": {"label": "sound"},
    "cc0notes": {"instrument": "instrument", "family": "family", "articulation": "articulation"},
    "spoken_digits": {"word": "word"},
    "folkrender": {"instrument": "instrument", "tempo": "tempo", "meter": "meter", "mode": "mode"},
}
DRAWN = ("sound", "instrument", "word")
SHARE, EPOCHS, TEST_FOLD, TAKES = 0.2, 12, 5, 6


def read_parts(audio: Path) -> dict[str, list[Track]]:
    """Train, validation and test of all sets that are there."""
    parts: dict[str, list[Track]] = {"train": [], "validation": [], "test": []}
    for name, fields in FIELDS.items():
        manifest = audio / f"{name}.jsonl"
        if not manifest.is_file():
            continue
        tracks = read_tracks(manifest, tag_fields=fields)
        tracks = [track for track in tracks if int(track.extra.get("take", 0)) < TAKES]
        own = fold_split(tracks, "fold", TEST_FOLD) if name == "esc10" else split_tracks(tracks)
        for part, of_part in own.items():
            kept = [{kind: names for kind, names in t.tags.items() if kind in fields.values()} for t in of_part]
            parts[part] += [replace(track, split=part, tags=tags) for track, tags in zip(of_part, kept, strict=True)]
    return parts


def draw_unseen(tracks: list[Track]) -> list[str]:
    """A fifth of the tags of each kind that is drawn from."""
    names = []
    for kind in DRAWN:
        only = [replace(track, tags={kind: track.tags.get(kind, ())}) for track in tracks]
        vocabulary = vocabulary_of(only)
        if vocabulary is not None and len(vocabulary) >= 5:
            labels, _ = vocabulary.labels_of_tracks(only)
            drawn = zero_shot_split(labels, unseen=SHARE, seed=0).unseen.tolist()
            names += [name for name, new in zip(vocabulary.names, drawn, strict=True) if new]
    return names


def judge_run(audio: Path, out: Path, epochs: int) -> dict[str, Any]:
    begun = time.monotonic()
    parts = read_parts(audio)
    unseen = draw_unseen([track for of_part in parts.values() for track in of_part])
    kept = [t for part in ("train", "validation") for t in without_unseen(parts[part], unseen)["train"]]
    write_tracks([*kept, *parts["test"]], out / "manifest.jsonl")
    words = ["--data.manifest", str(out / "manifest.jsonl"), "--model.window_seconds", "5.0"]
    words += ["--trainer.max_epochs", str(epochs), "--trainer.check_val_every_n_epoch", str(max(epochs // 5, 1))]
    fitted = trained(words, out, "unseen")
    tracks = fitted.datamodule.read()["test"]
    protocol = Protocol(name="unseen tags", directions=("tags",), tag_kinds=DRAWN, unseen=tuple(unseen))
    methods = methods_of_run(fitted, Embedder(fitted.model.network), tracks)
    return {
        "methods": {method.name: report_of(method, tracks, protocol) for method in methods},
        "training_tracks": len(fitted.datamodule.read()["train"]),
        "epochs": epochs,
        "seconds": time.monotonic() - begun,
    }


def kept_run(audio: Path, out: Path, epochs: int) -> dict[str, Any]:
    """:func:`judge_run`, or what an earlier call kept of the same."""
    return kept_or_made(
        out / "unseen.json", lambda found: found["epochs"] == epochs, lambda: judge_run(audio, out, epochs)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, required=True, help="folder of the manifests")
    parser.add_argument("--out", type=Path, default=Path("runs/unseen"), help="where the run and its figures are kept")
    parser.add_argument("--quick", action="store_true", help="two epochs: shows that it runs")
    options = parser.parse_args()
    out = options.out / "quick" if options.quick else options.out
    out.mkdir(parents=True, exist_ok=True)
    found = kept_run(options.audio, out, 2 if options.quick else EPOCHS)
    print(f"\n{unseen_table(found)}\n")
    unseen = found["methods"][OURS]["zero_shot"]["unseen"]
    means = {}
    for method in (OURS, RIDGE):
        per_tag = found["methods"][method]["tags"]["per_tag"]
        means[method] = statistics.fmean(per_tag[tag]["ROC-AUC"] for tag in unseen if tag in per_tag)
    claim = {"claim": "ROC-AUC of unseen tags against chance", "ours": means[OURS], "peer": 0.5}
    print(json.dumps(claim | {"ratio": means[OURS] / 0.5, "goal": 1.0, "met": means[OURS] > 0.5}))
    claim = {"claim": "ROC-AUC of unseen tags against ridge", "ours": means[OURS], "peer": means[RIDGE]}
    ratio = means[OURS] / means[RIDGE]
    print(json.dumps(claim | {"ratio": ratio, "goal": 1.0, "met": ratio >= 1.0}))


if __name__ == "__main__":
    main()
