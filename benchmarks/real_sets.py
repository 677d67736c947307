"""Train on public recordings and judge on their held-out parts, beside the ridge baseline and chance.

    python benchmarks/real_sets.py --audio ../shared/audio --out runs/real_sets        # minutes on two cores
    python benchmarks/real_sets.py --audio ../shared/audio --quick                     # two sets, few epochs

``--audio`` holds the manifests ``esc10.jsonl``, ``cc0notes.jsonl``, ``spoken_digits.jsonl`` and ``folkrender.jsonl``
(docs/results.md says what they are). Each set is trained from its YAML in configs/data and judged on the split that
its publishers gave: ESC-10 by its five folds, the others by their test split. Finished runs are kept in ``--out``
and not trained again, and one that was stopped goes on from its last checkpoint. The peer of each claim is ridge
regression from mel statistics to the same text vectors.

Every method is judged by the same protocol (:mod:`xmodal.evaluation`), and what is kept is its whole report. Probes
are learnt on the training part and judged on the held-out one, from the model's vectors and from mel statistics.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from xmodal.atomic import written_aside
from xmodal.data.tracks import Track
from xmodal.data.windows import WindowSet
from xmodal.embedder import Embedder
from xmodal.evaluation import Protocol, judge, label_matrix, probe
from xmodal.evaluation.methods import Method, methods_of_run, track_statistics
from xmodal.metrics import KS
from xmodal.model import TwoTower
from xmodal.training import Cli, config_folder, run
from xmodal.training.command import build

SETS: dict[str, dict[str, Any]] = {
    "esc10": {"label": "label", "folds": (1, 2, 3, 4, 5), "epochs": 60},
    "cc0notes": {"label": "instrument", "folds": (None,), "epochs": 30},
    "spoken_digits": {"label": "word", "folds": (None,), "epochs": 20},
    "folkrender": {"label": "instrument", "folds": (None,), "epochs": 40},
}
OURS, RIDGE = "xmodal", "ridge on mel statistics"


def trained(words: list[str], out: Path, name: str) -> Cli:
    """A training run: a finished one is loaded, one that was stopped goes on from its last checkpoint."""
    configs = config_folder()
    words = ["--config", str(configs / "base.yaml"), *words]
    finished = out / "runs" / name / "version_0" / "model"
    if not finished.is_dir():  # it appears in one step, when training has ended
        return run(["fit", *words, "--runs", str(out / "runs"), "--name", name, "--resume"])
    made = build(words)
    network = made.model.network
    network.load_state_dict(TwoTower.load(finished).state_dict())
    made.datamodule.prepare("fit", network.audio, network.windows)
    return made


def train(name: str, audio: Path, out: Path, fold: int | None, epochs: int) -> Cli:
    """One training run from the set's YAML."""
    words = [
        "--config",
        str(config_folder() / "data" / f"{name}.yaml"),
        "--data.manifest",
        str(audio / f"{name}.jsonl"),
    ]
    words += ["--trainer.max_epochs", str(epochs), "--trainer.check_val_every_n_epoch", str(max(epochs // 10, 1))]
    if fold is not None:
        words += ["--data.test_fold", str(fold)]
    return trained(words, out, name if fold is None else f"{name}-fold{fold}")


def report_of(method: Method, tracks: Sequence[Track], protocol: Protocol) -> dict[str, Any]:
    """A method's report by the protocol, as :func:`xmodal.evaluation.judge` makes it of a model."""
    vectors = np.asarray(method.audio, dtype=np.float32)
    stand_in = SimpleNamespace(
        source=method.name, space_id="", embed_texts=lambda texts: np.asarray(method.embed_texts(texts), np.float32)
    )

    def embed(_: Any, chosen: Sequence[Track]) -> Any:
        ids = [str(row) for row in range(len(chosen))]
        return SimpleNamespace(embeddings=SimpleNamespace(ids=ids, vectors=vectors), failures=[])

    report = judge(stand_in, tracks, protocol, embed=embed).to_dict()  # type: ignore[arg-type]
    del report["answers"]  # they name paths and help nobody here
    return report


def probes(fitted: Cli, embedder: Embedder, parts: dict[str, list[Track]], kind: str) -> dict[str, Any]:
    """Linear probes on the model's vectors and on mel statistics, and nearest neighbours on the former."""
    learn, test = [t for t in parts["train"] + parts["validation"] if t.tags.get(kind)], parts["test"]
    tracks = [*learn, *(t for t in test if t.tags.get(kind))]
    _, labels = label_matrix([track.tags for track in tracks], kind)
    part = np.arange(len(tracks)) >= len(learn)
    groups = np.unique([track.group or track.id for track in tracks], return_inverse=True)[1]
    network = fitted.model.network
    heard = track_statistics(WindowSet(tracks, network.audio, network.windows), refuse=True)
    mel = torch.stack([heard[row] for row in range(len(tracks))])
    mel = normalize((mel - mel[: len(learn)].mean(0)) / mel[: len(learn)].std(0).clamp(min=1e-6), dim=1)
    vectors = embedder.embed_files(tracks, raise_errors=True).embeddings.vectors
    inputs = {"linear": vectors, "knn": vectors, "linear on mel statistics": mel}
    return {
        name: probe(
            rows, labels, kind=name.split()[0], groups=torch.from_numpy(groups), folds=part.astype(int), judged=[1]
        ).to_dict()
        for name, rows in inputs.items()
    }


def judge_run(name: str, audio: Path, out: Path, fold: int | None, epochs: int) -> dict[str, Any]:
    """Train one run and give each method's report and the probes."""
    begun = time.monotonic()
    fitted = train(name, audio, out, fold, epochs)
    trained = time.monotonic() - begun
    parts = fitted.datamodule.read()
    embedder = Embedder(fitted.model.network)
    kind = SETS[name]["label"]
    protocol = Protocol(name=name, relevance="tags", classify=kind, tag_kinds=(kind,), ks=KS)
    methods = methods_of_run(fitted, embedder, parts["test"])
    return {
        "methods": {method.name: report_of(method, parts["test"], protocol) for method in methods},
        "probes": probes(fitted, embedder, parts, kind),
        "training_tracks": len(parts["train"]),
        "training_seconds": trained,
        "seconds": time.monotonic() - begun,
    }


def kept_run(name: str, audio: Path, out: Path, fold: int | None, epochs: int) -> dict[str, Any]:
    """:func:`judge_run`, or what an earlier call kept of the same."""
    return kept_or_made(
        out / f"{name}-{fold or 'test'}.json",
        lambda found: found.get("epochs") == epochs and "probes" in found,
        lambda: judge_run(name, audio, out, fold, epochs) | {"epochs": epochs},
    )


def kept_or_made(
    path: Path, fits: Callable[[dict[str, Any]], bool], make: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """What an earlier call wrote into a JSON file, if it still fits; else what is made now, written there."""
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text())
        if fits(found):
            return found
    found = make()
    with written_aside(path) as aside:
        aside.write_text(json.dumps(found) + "\n")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, required=True, help="folder of the manifests")
    parser.add_argument("--out", type=Path, default=Path("runs/real_sets"), help="where runs and figures are kept")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--quick", action="store_true", help="two small sets, few epochs: shows that it runs")
    options = parser.parse_args()
    from results_page import real_set_table  # which lies beside this script

    out = options.out / "quick" if options.quick else options.out
    out.mkdir(parents=True, exist_ok=True)
    claims = []
    for name in ["esc10", "cc0notes"] if options.quick else options.sets:
        folds = SETS[name]["folds"][:1] if options.quick else SETS[name]["folds"]
        epochs = 2 if options.quick else SETS[name]["epochs"]
        runs = [kept_run(name, options.audio, out, fold, epochs) for fold in folds]
        print(f"\n{name}\n\n{real_set_table(runs)}", flush=True)
        ours, peer = (
            sum(each["methods"][key]["classification"]["accuracy"] for each in runs) / len(runs)
            for key in (OURS, RIDGE)
        )
        claim = {"claim": f"{name}: accuracy by words against ridge on mel statistics", "ours": ours, "peer": peer}
        claims.append(claim | {"ratio": ours / peer, "goal": 1.0, "met": ours / peer >= 1.0})
    print()
    for claim in claims:
        print(json.dumps(claim))


if __name__ == "__main__":
    main()
