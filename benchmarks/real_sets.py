"""Train on public recordings and judge on their held-out parts, beside the ridge baseline and chance.

    python benchmarks/real_sets.py --audio ../shared/audio --out runs/real_sets        # minutes on two cores
    python benchmarks/real_sets.py --audio ../shared/audio --quick                     # two sets, few epochs

``--audio`` holds the manifests ``esc10.jsonl``, ``cc0notes.jsonl``, ``spoken_digits.jsonl`` and ``folkrender.jsonl``
(docs/results.md says what they are). Each set is trained from its YAML in configs/data and judged on the split that
its publishers gave: ESC-10 by its five folds, the others by their test split. Finished runs are kept in ``--out``
and not trained again. The peer of each claim is ridge regression from mel statistics to the same text vectors.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from xmodal.data.datasets import evaluation_texts
from xmodal.embedder import Embedder
from xmodal.evaluation import evaluate_retrieval, evaluate_tags
from xmodal.evaluation.methods import methods_of_run
from xmodal.metrics import rank
from xmodal.tagging import TagScorer
from xmodal.training import config_folder, run

SETS: dict[str, dict[str, Any]] = {
    "esc10": {"label": "label", "folds": (1, 2, 3, 4, 5), "epochs": 60},
    "cc0notes": {"label": "instrument", "folds": (None,), "epochs": 30},
    "spoken_digits": {"label": "word", "folds": (None,), "epochs": 20},
    "folkrender": {"label": "instrument", "folds": (None,), "epochs": 40},
}


def judge(name: str, audio: Path, out: Path, fold: int | None, epochs: int) -> dict[str, Any]:
    """Train one run and give its figures by method."""
    configs = config_folder()
    words = ["fit", "--config", str(configs / "base.yaml"), "--config", str(configs / "data" / f"{name}.yaml")]
    words += ["--data.manifest", str(audio / f"{name}.jsonl"), "--runs", str(out / "runs"), "--name", name]
    words += ["--trainer.max_epochs", str(epochs), "--trainer.check_val_every_n_epoch", str(max(epochs // 10, 1))]
    if fold is not None:
        words += ["--data.test_fold", str(fold)]
    fitted = run(words)
    tracks = fitted.datamodule.read()["test"]
    embedder = Embedder(fitted.model.network)
    texts, relevance = evaluation_texts(tracks)
    label = SETS[name]["label"]
    names = sorted({tag for track in tracks for tag in track.tags[label]})
    figures: dict[str, Any] = {"tracks": len(tracks), "texts": len(texts), "labels": len(names), "methods": {}}
    for method in methods_of_run(fitted, embedder, tracks):
        found = evaluate_retrieval(method.audio, method.embed_texts(texts), relevance, without_right="leave_out")
        scorer = TagScorer({label: names}, method.embed_texts)
        labels, valid = scorer.vocabulary.labels_of_tracks(tracks)
        tagged = evaluate_tags(method.audio, scorer.vectors, labels, scorer.tags, valid=valid)
        first = rank(scorer.score(method.audio), labels).hit(1)
        figures["methods"][method.name] = {
            "text_to_audio R@10": found.text_to_audio.values["R@10"],
            "text_to_audio mAP@10": found.text_to_audio.values["mAP@10"],
            "audio_to_text R@1": found.audio_to_text.values["R@1"],
            "tag ROC-AUC": tagged.values["ROC-AUC"],
            "tag mAP": tagged.values["PR-AUC"],
            "accuracy": float(first.double().mean()),
        }
        figures["methods"]["chance"] = {
            "text_to_audio R@10": found.text_to_audio.chance["R@10"],
            "text_to_audio mAP@10": found.text_to_audio.chance["mAP@10"],
            "audio_to_text R@1": found.audio_to_text.chance["R@1"],
            "tag ROC-AUC": 0.5,
            "tag mAP": tagged.chance["PR-AUC"],
            "accuracy": float(labels.double().mean()),
        }
    return figures


def mean_over_folds(figures: list[dict[str, Any]]) -> dict[str, Any]:
    methods = figures[0]["methods"]
    return {
        "tracks": [figure["tracks"] for figure in figures],
        "texts": figures[0]["texts"],
        "labels": figures[0]["labels"],
        "methods": {
            method: {
                name: statistics.fmean(figure["methods"][method][name] for figure in figures)
                for name in methods[method]
            }
            for method in methods
        },
    }


def table(name: str, result: dict[str, Any]) -> str:
    methods = result["methods"]
    columns = [*(column for column in methods if column != "chance"), "chance"]
    lines = [f"| {name} | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    lines += [
        f"| {figure} | " + " | ".join(f"{methods[column][figure]:.3f}" for column in columns) + " |"
        for figure in methods[columns[0]]
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, required=True, help="folder of the manifests")
    parser.add_argument("--out", type=Path, default=Path("runs/real_sets"), help="where runs and figures are kept")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--quick", action="store_true", help="two small sets, few epochs: shows that it runs")
    options = parser.parse_args()
    out = options.out / "quick" if options.quick else options.out
    out.mkdir(parents=True, exist_ok=True)
    results = {}
    for name in ["esc10", "cc0notes"] if options.quick else options.sets:
        folds = SETS[name]["folds"][:1] if options.quick else SETS[name]["folds"]
        figures = []
        for fold in folds:
            kept = out / f"{name}-{fold or 'test'}.json"
            if not kept.exists():
                epochs = 2 if options.quick else SETS[name]["epochs"]
                found = judge(name, options.audio, out, fold, epochs)
                kept.write_text(json.dumps(found, indent=1) + "\n")
            figures.append(json.loads(kept.read_text()))
        results[name] = mean_over_folds(figures)
    for name, result in results.items():
        print(f"\n{result['tracks']} held-out tracks, {result['texts']} texts, {result['labels']} labels\n")
        print(table(name, result))
    print()
    for name, result in results.items():
        ours, peer = (result["methods"][key]["accuracy"] for key in ("xmodal", "ridge on mel statistics"))
        claim = {"claim": f"{name}: accuracy by words against ridge on mel statistics", "ours": ours, "peer": peer}
        print(json.dumps(claim | {"ratio": ours / peer, "goal": 1.0, "met": ours / peer >= 1.0}))


if __name__ == "__main__":
    main()
