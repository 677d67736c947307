"""How many examples is a tag's name worth? mAP against the number of examples, for several weights of the text.

    python benchmarks/results.py --audio ../shared/audio --only cc0notes esc10 unseen      # trains what this looks at
    python benchmarks/few_shots.py --audio ../shared/audio --results runs/results --out few_shots
    python benchmarks/few_shots.py ... --quick                                              # fewer repeats

``xmodal tag enrol`` mixes a tag's name and its examples; ``prior`` says how many examples the name is worth, and its
default is ``PRIOR_EXAMPLES``. The cases: labels that a model was trained with (ESC-10, cc0notes), whose names it knows
as well as it can; instruments that training did not see (benchmarks/unseen_tags.py), whose names say little; and the
instruments that the same model saw. Half of the groups give examples and the other half is judged, again and again.
The peer of the claim is the better of examples alone and text alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
from real_sets import OURS

from xmodal.data import Track
from xmodal.data.manifests import read_tracks
from xmodal.data.splits import fold_split, split_tracks
from xmodal.embedder import load
from xmodal.embeddings import written_aside
from xmodal.evaluation import FewShotCurve, few_shot_curve
from xmodal.tag_plots import plot_few_shots
from xmodal.tagging import TagScorer
from xmodal.tagging.examples import PRIOR_EXAMPLES

PRIORS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)
SHOTS = (1, 2, 5, 10)
DRAWN_KIND = "instrument"


def cases(options: argparse.Namespace) -> dict[str, tuple[Path, list[Track], list[str], str]]:
    """Model folder, judged tracks, tags and their kind of each case."""
    found: dict[str, tuple[Path, list[Track], list[str], str]] = {}
    for name, kind in (("cc0notes", "instrument"), ("esc10", "label")):
        tracks = read_tracks(options.audio / f"{name}.jsonl", tag_fields=[kind])
        parts = fold_split(tracks, "fold", 1) if name == "esc10" else split_tracks(tracks)
        names = sorted({tag for track in parts["test"] for tag in track.tags.get(kind, ())})
        model = options.results / "runs" / name / "version_0" / "model"
        found[f"{name}: labels of training"] = (model, parts["test"], names, kind)
    kept = json.loads((options.results / "unseen.json").read_text())
    report = kept["methods"][OURS]
    unseen = set(report["zero_shot"]["unseen"])
    # Of one kind, so that of every pair something is known.
    tracks = [
        t for t in read_tracks(options.results / "manifest.jsonl") if t.split == "test" and t.tags.get(DRAWN_KIND)
    ]
    model = options.results / "runs" / "unseen" / "version_0" / "model"
    names = sorted({tag for track in tracks for tag in track.tags[DRAWN_KIND]})
    for title, wanted in (("instruments that training did not see", True), ("instruments that it saw", False)):
        found[title] = (model, tracks, [name for name in names if (name in unseen) == wanted], DRAWN_KIND)
    return found


def judge(model: Path, tracks: list[Track], tags: list[str], kind: str, repeats: int) -> dict[str, Any]:
    """One curve for each prior, over the same halves and examples."""
    embedder = load(model)
    vectors = embedder.embed_files(tracks, raise_errors=True).embeddings.vectors
    scorer = TagScorer({kind: tags}, embedder.embed_texts)
    labels, _ = scorer.vocabulary.labels_of_tracks(tracks)
    groups = torch.from_numpy(np.unique([t.group or t.id for t in tracks], return_inverse=True)[1])
    curves = {
        prior: few_shot_curve(
            vectors, labels, text=scorer.vectors, groups=groups, shots=SHOTS, repeats=repeats, prior=prior
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
    parser.add_argument("--quick", action="store_true", help="one case, two repeats")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    claims = []
    for name, (model, tracks, tags, kind) in list(cases(options).items())[: 1 if options.quick else None]:
        found = judge(model, tracks, tags, kind, 2 if options.quick else 10)
        stem = name.replace(":", "").replace(" ", "-")
        with written_aside(options.out / f"{stem}.json") as aside:
            aside.write_text(json.dumps(found, indent=1) + "\n")
        curve = FewShotCurve(SHOTS, found["mean"], found["spread"], found["text"], found["tags"])
        plot_few_shots(curve, options.out / f"{stem}.png", title=f"{name}, {found['tags']} tags")
        print(f"\n{name}: {found['tags']} tags, {found['tracks']} tracks; text alone {found['text']:.3f}\n")
        print(f"| mAP after examples | {' | '.join(map(str, SHOTS))} | mean |\n|---|{'---:|' * (len(SHOTS) + 1)}")
        for way, values in found["mean"].items():
            print(f"| {way} | {' | '.join(f'{v:.3f}' for v in values)} | {statistics.fmean(values):.3f} |", flush=True)
        ours = statistics.fmean(found["mean"][f"prior {PRIOR_EXAMPLES:g}"])
        peer = max(statistics.fmean(found["mean"]["examples alone"]), found["text"])
        claim = {"claim": f"{name}: mean mAP over 1 to 10 examples against the better of text and examples"}
        claims.append(claim | {"ours": ours, "peer": peer, "ratio": ours / peer, "goal": 1.0, "met": ours >= peer})
    print()
    for claim in claims:
        print(json.dumps(claim))


if __name__ == "__main__":
    main()
