"""How many examples is a tag's name worth? mAP against the number of examples, for several weights of the text.

    python benchmarks/results.py --audio ../shared/audio --only cc0notes esc10 unseen      # trains what this looks at
    python benchmarks/few_shots.py --audio ../shared/audio --results runs/results --out few_shots
    python benchmarks/few_shots.py ... --quick                                              # fewer repeats

``xmodal tag enrol`` mixes a tag's name and its examples; ``prior`` says how many examples the name is worth, and its
default is ``PRIOR_EXAMPLES``. The cases: labels that a model was trained with (ESC-10, cc0notes), whose names it knows
as well as it can; tags that training did not see (benchmarks/unseen_tags.py), whose names say little; and the tags
that the same model saw. Half of the groups give examples and the other half is judged, again and again.
The peer of the claim is the better of examples alone and text alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from real_sets import OURS
from unseen_tags import DRAWN

from xmodal.atomic import written_aside
from xmodal.data import Track
from xmodal.data.manifests import read_tracks
from xmodal.data.splits import fold_split, split_tracks
from xmodal.embedder import load
from xmodal.evaluation import FewShotCurve, few_shot_curve
from xmodal.tag_plots import plot_few_shots
from xmodal.tagging import TagScorer
from xmodal.tagging.examples import PRIOR_EXAMPLES

PRIORS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)
SHOTS, FEW = (1, 2, 5, 10), (1, 2, 4)


class Case(NamedTuple):
    """A model, the tracks that it is judged by, and the tags and numbers of examples to try."""

    model: Path
    tracks: list[Track]
    tags: list[str]
    kind: str
    shots: tuple[int, ...]


def cases(options: argparse.Namespace) -> dict[str, Case]:
    found: dict[str, Case] = {}
    for name, kind in (("cc0notes", "instrument"), ("esc10", "label")):
        tracks = read_tracks(options.audio / f"{name}.jsonl", tag_fields=[kind])
        parts = fold_split(tracks, "fold", 1) if name == "esc10" else split_tracks(tracks)
        names = sorted({tag for track in parts["test"] for tag in track.tags.get(kind, ())})
        run = "esc10-fold1" if name == "esc10" else name
        model = options.results / "runs" / run / "version_0" / "model"
        found[f"{name}: labels of training"] = Case(model, parts["test"], names, kind, FEW if run != name else SHOTS)
    kept = json.loads((options.results / "unseen.json").read_text())
    unseen = set(kept["methods"][OURS]["zero_shot"]["unseen"])
    model = options.results / "runs" / "unseen" / "version_0" / "model"
    every = [track for track in read_tracks(options.results / "manifest.jsonl") if track.split == "test"]
    for kind in DRAWN:  # kind by kind, so that of every pair something is known
        tracks = [track for track in every if track.tags.get(kind)]
        names = sorted({tag for track in tracks for tag in track.tags[kind]})
        for title, wanted in (("did not see", True), ("saw", False)):
            chosen = [name for name in names if (name in unseen) == wanted]
            found[f"{kind}s that training {title}"] = Case(model, tracks, chosen, kind, FEW)
    return found


def judge(case: Case, repeats: int) -> dict[str, Any]:
    """One curve for each prior, over the same halves and examples."""
    model, tracks, tags, kind, shots = case
    embedder = load(model)
    vectors = embedder.embed_files(tracks, raise_errors=True).embeddings.vectors
    scorer = TagScorer({kind: tags}, embedder.embed_texts)
    labels, _ = scorer.vocabulary.labels_of_tracks(tracks)
    groups = torch.from_numpy(np.unique([t.group or t.id for t in tracks], return_inverse=True)[1])
    curves = {
        prior: few_shot_curve(
            vectors, labels, text=scorer.vectors, groups=groups, shots=shots, repeats=repeats, prior=prior
        )
        for prior in PRIORS
    }
    first = curves[PRIORS[0]]
    return {
        "tags": first.tags,
        "tracks": len(tracks),
        "text": first.text,
        "mean": {"examples alone": first.mean["prototype"], "linear": first.mean["linear"]}
        | {f"prior {prior:g}": curve.mean["both"] for prior, curve in curves.items()},
        "spread": {"examples alone": first.spread["prototype"], "linear": first.spread["linear"]}
        | {f"prior {prior:g}": curve.spread["both"] for prior, curve in curves.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, required=True, help="folder of the public sets")
    parser.add_argument("--results", type=Path, default=Path("runs/results"), help="where benchmarks/results.py worked")
    parser.add_argument("--out", type=Path, default=Path("runs/few_shots"), help="where figures and pictures go")
    parser.add_argument("--only", default="", metavar="TEXT", help="the cases whose name begins so")
    parser.add_argument("--quick", action="store_true", help="one case, two repeats")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    claims = []
    chosen = [(name, case) for name, case in cases(options).items() if name.startswith(options.only)]
    for name, case in chosen[: 1 if options.quick else None]:
        found = judge(case, 2 if options.quick else 10)
        stem = name.replace(":", "").replace(" ", "-")
        with written_aside(options.out / f"{stem}.json") as aside:
            aside.write_text(json.dumps(found, indent=1) + "\n")
        curve = FewShotCurve(case.shots, found["mean"], found["spread"], found["text"], found["tags"])
        plot_few_shots(curve, options.out / f"{stem}.png", title=f"{name}, {found['tags']} tags")
        print(f"\n{name}: {found['tags']} tags, {found['tracks']} tracks; text alone {found['text']:.3f}\n")
        rule = "---:|" * (len(case.shots) + 1)
        print(f"| mAP after examples | {' | '.join(map(str, case.shots))} | mean |\n|---|{rule}")
        for way, values in found["mean"].items():
            print(f"| {way} | {' | '.join(f'{v:.3f}' for v in values)} | {statistics.fmean(values):.3f} |", flush=True)
        ours = statistics.fmean(found["mean"][f"prior {PRIOR_EXAMPLES:g}"])
        peer = max(statistics.fmean(found["mean"]["examples alone"]), found["text"])
        claim = {"claim": f"{name}: mean mAP over the numbers of examples against the better of text and examples"}
        claims.append(claim | {"ours": ours, "peer": peer, "ratio": ours / peer, "goal": 1.0, "met": ours >= peer})
    print()
    for claim in claims:
        print(json.dumps(claim))


if __name__ == "__main__":
    main()
