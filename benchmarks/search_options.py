"""What each search option costs and gains, on trained models and their held-out tracks.

    xmodal demo --out runs/demo
    python benchmarks/real_sets.py --audio ../shared/audio --out runs/real_sets
    python benchmarks/search_options.py --demo runs/demo --real runs/real_sets --audio ../shared/audio
    python benchmarks/search_options.py ... --quick        # one set

Text queries over all held-out tracks of a set. An option is judged by the mAP@10 and R@1 of its lists (right answers by
the relevance of docs/data.md), and diversity also by the mean cosine between the tracks of a list: lower is more
different. The bank of the hub corrections is the texts of the training tracks. The peer of each claim is the plain
order by cosine; nothing is tuned: every option runs with its defaults.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from xmodal.data.datasets import evaluation_texts
from xmodal.data.manifests import read_tracks
from xmodal.embedder import Embedder, load
from xmodal.index import build_index
from xmodal.metrics.hubness import HubCorrection, HubMethod
from xmodal.search import Hit, Refinement, refined_search
from xmodal.training import config_folder

REAL = ("esc10", "cc0notes", "spoken_digits")
METHODS: tuple[HubMethod, ...] = ("csls", "inverted softmax", "querybank norm")
K, QUERIES = 10, 400


def judge(embedder: Embedder, held_out: list[Any], training: list[Any]) -> dict[str, dict[str, float]]:
    texts, relevance = evaluation_texts(held_out)
    known = relevance.any(dim=0)
    chosen = np.flatnonzero(known.numpy())[:: max(1, int(known.sum()) // QUERIES)]
    queries = embedder.embed_texts([texts[place] for place in chosen])
    right = relevance.numpy()[:, chosen].T
    embeddings = embedder.embed_files(held_out, raise_errors=True).embeddings
    index = build_index(embeddings, "exact")
    row_of = {id_: row for row, id_ in enumerate(index.ids)}
    bank_texts = evaluation_texts(training)[0][:1000]
    bank = torch.from_numpy(embedder.embed_texts(bank_texts) @ embeddings.vectors.T)
    options = {"cosine": Refinement()}
    options |= {name: Refinement(hubs=HubCorrection.fit(bank, name)) for name in METHODS}
    options["k-reciprocal"] = Refinement(reciprocal=True)
    options |= {f"MMR {balance}": Refinement(balance=balance) for balance in (0.9, 0.7, 0.5)}
    options["no duplicates"] = Refinement(duplicates=0.995)
    found = {}
    for name, refinement in options.items():
        lists = [
            refined_search(index, query, K, refinement, space_id=index.space_id, one_per=None) for query in queries
        ]
        found[name] = figures(lists, right, row_of, embeddings.vectors)
    return found


def figures(lists: list[list[Hit]], right: np.ndarray, row_of: dict[str, int], vectors: np.ndarray) -> dict[str, float]:
    first, precision, likeness = [], [], []
    for hits, wanted in zip(lists, right, strict=True):
        rows = [row_of[hit.id] for hit in hits]
        good = wanted[rows]
        first.append(float(good[0]))
        ranks = np.flatnonzero(good) + 1
        precision.append(float(np.sum(np.arange(1, len(ranks) + 1) / ranks)) / min(K, int(wanted.sum())))
        cosines = vectors[rows] @ vectors[rows].T
        likeness.append(float(cosines[~np.eye(len(rows), dtype=bool)].mean()))
    means = {"R@1": first, "mAP@10": precision, "cosine within a list": likeness}
    return {name: float(np.mean(values)) for name, values in means.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, help="what xmodal demo wrote")
    parser.add_argument("--real", type=Path, help="what benchmarks/real_sets.py wrote")
    parser.add_argument("--audio", type=Path, help="folder of the real sets' manifests")
    parser.add_argument("--quick", action="store_true", help="one set: shows that it runs")
    options = parser.parse_args()
    sets: list[tuple[str, Path, Path]] = []
    if options.demo:
        sets.append(("demo", options.demo / "model", options.demo / "corpus" / "manifest.jsonl"))
    if options.real and options.audio:
        for name in REAL:
            run = f"{name}-fold1" if name == "esc10" else name
            folder = options.real / "runs" / run / "version_0" / "model"
            sets.append((name, folder, options.audio / f"{name}.jsonl"))
    if not sets:
        parser.error("name trained models with --demo, or with --real and --audio")
    claims = []
    for name, model, manifest in sets[:1] if options.quick else sets:
        config = config_folder() / "data" / f"{name}.yaml"
        said = yaml.safe_load(config.read_text())["data"] if config.exists() else {}
        folds = said.get("fold_field")  # its run held the first fold out
        tracks = read_tracks(manifest, tag_fields=said.get("tag_fields"), split_field=folds or "split")
        held = [track for track in tracks if track.split == ("1" if folds else "test")]
        rest = [track for track in tracks if (track.split != "1" if folds else track.split == "train")]
        found = judge(load(model, device="cpu"), held, rest)
        names = list(found["cosine"])
        print(f"\n{len(held)} held-out tracks\n\n| {name} | {' | '.join(names)} |\n|---|" + "---:|" * len(names))
        for option, row in found.items():
            print(f"| {option} | " + " | ".join(f"{row[figure]:.3f}" for figure in names) + " |")
        for option in ("csls", "inverted softmax", "querybank norm", "k-reciprocal"):
            ours, peer = found[option]["mAP@10"], found["cosine"]["mAP@10"]
            claim = {"claim": f"{name}: mAP@10 with {option} against plain cosines", "ours": ours, "peer": peer}
            claims.append(claim | {"ratio": ours / peer, "goal": 1.0, "met": ours >= peer})
    print()
    for claim in claims:
        print(json.dumps(claim))


if __name__ == "__main__":
    main()
