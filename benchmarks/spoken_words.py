"""Can words be found in speech, by spelling, from voices that training never heard?

    python benchmarks/spoken_words.py --audio ../shared/audio              # about three minutes on two cores
    python benchmarks/spoken_words.py --audio ../shared/audio --quick      # under a minute: shows that it runs

``--audio`` holds ``spoken_digits.jsonl`` (docs/results.md says what it is): ten words, four voices to train on, two
held out. One small CNN is trained against three text towers: hashed character n-grams, a hashed bag of words, and a
frozen MiniLM. Two tasks are judged on the held-out voices:

* words: a clip of one word and the ten words;
* lines: three words spoken one after the other (clips of one voice joined), and the written lines: the order counts,
  so that "one two three" is not "three two one". Lines of the test set are never lines of training.

The peer of each claim is chance; MiniLM and the bag of words stand beside it.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from xmodal.data.datasets import evaluation_texts
from xmodal.data.manifests import read_tracks
from xmodal.embedder import Embedder
from xmodal.evaluation import evaluate_retrieval
from xmodal.training import config_folder, run

TOWERS: dict[str, dict[str, Any]] = {
    "character n-grams": {"class_path": "xmodal.towers.CharNgramTower", "init_args": {"positions": 3, "buckets": 5000}},
    "bag of words": {"class_path": "xmodal.towers.HashedBagOfWordsTower", "init_args": {"buckets": 5000}},
    "frozen MiniLM": {
        "class_path": "xmodal.towers.SentenceTransformerTower",
        "init_args": {"model": "all-MiniLM-L6-v2"},
    },
}
WORDS_IN_A_LINE = 3
PAUSE_SECONDS = 0.05


def read_rows(audio: Path) -> list[dict[str, Any]]:
    """The manifest's rows, with paths that can be opened."""
    manifest = audio / "spoken_digits.jsonl"
    paths = {track.id: str(track.path) for track in read_tracks(manifest)}
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    return [{**row, "path": paths[row["id"]]} for row in rows]


def write_words(audio: Path, out: Path, *, takes: int) -> Path:
    """The words of the corpus as they are, fewer takes of each; validation is the last take of every training voice."""
    rows = read_rows(audio)
    kept = [row for row in rows if row["take"] < takes]
    for row in kept:
        row["tags"] = {"word": [row["word"]]}
        if row["split"] != "test":
            row["split"] = "valid" if row["take"] >= takes - 2 else "train"
        for name in ("word", "speaker", "take", "group"):
            row.pop(name)
    return write_manifest(out / "words.jsonl", kept)


def write_lines(audio: Path, out: Path, *, train: int, test: int) -> Path:
    """Lines of three words, clips of one voice joined; no line of one split is a line of another."""
    rng = random.Random(0)
    rows = read_rows(audio)
    clips: dict[tuple[str, str], list[str]] = {}
    split_of = {}
    for row in rows:
        clips.setdefault((row["speaker"], row["word"]), []).append(row["path"])
        split_of[row["speaker"]] = "test" if row["split"] == "test" else "train"
    words = sorted({word for _, word in clips})
    every = [(a, b, c) for a in words for b in words for c in words]
    rng.shuffle(every)
    # A tenth of all lines is for validation and a fifth for testing: training never has them.
    parts = {"valid": every[:100], "test": every[100:300], "train": every[300:]}
    counts = {"train": train, "valid": 100, "test": test}
    folder = out / "lines"
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for split, lines in parts.items():
        voices = sorted(v for v, part in split_of.items() if (part == "test") == (split == "test"))
        for number in range(counts[split]):
            line = lines[number % len(lines)]
            voice = voices[number // len(lines) % len(voices)] if split == "test" else rng.choice(voices)
            pieces = []
            for word in line:
                samples, rate = soundfile.read(rng.choice(clips[voice, word]), dtype="float32")
                pieces += [samples, np.zeros(round(PAUSE_SECONDS * rate), np.float32)]
            path = folder / f"{split}-{number:04d}.flac"
            soundfile.write(path, np.concatenate(pieces), rate)
            made.append({"id": path.stem, "path": str(path), "captions": [" ".join(line)], "split": split})
    return write_manifest(out / "lines.jsonl", made)


def write_manifest(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def judge(task: str, manifest: Path, tower: dict[str, Any], out: Path, epochs: int) -> dict[str, Any]:
    """Train one model and give its figures on the voices that it never heard."""
    long = task == "lines"
    audio = {
        "class_path": "xmodal.towers.MobileCnn",
        "init_args": {
            "sample_rate": 8000, "n_fft": 256, "hop": 128 if long else 80, "bands": 40, "width": 0.75,
            "feature_dim": 256, "augment": {"class_path": "xmodal.towers.SpecAugment"},
        },
    }  # fmt: skip
    if long:  # what was said when: an average over time would forget the order
        audio["init_args"]["pooling"] = {"class_path": "xmodal.towers.SegmentPool", "init_args": {"segments": 6}}
    words = ["fit", "--config", str(config_folder() / "base.yaml"), "--data.manifest", str(manifest)]
    settings = {
        "model.audio": audio, "model.text": tower, "model.dim": 128, "model.window_seconds": 2.5 if long else 0.75,
        "model.text_hidden": 256, "model.text_learning_rate": 0.001, "model.learning_rate": 0.002, "data.workers": 0,
        "data.batch_size": 64, "data.cache": "memory", "data.tag_prompts": 0 if long else 10,
        "trainer.max_epochs": epochs, "trainer.check_val_every_n_epoch": max(epochs // 4, 1),
        "trainer.enable_progress_bar": False, "trainer.callbacks": [],
    }  # fmt: skip
    for key, value in settings.items():
        words += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
    begun = time.monotonic()
    fitted = run([*words, "--runs", str(out / "runs"), "--name", task])
    trained = time.monotonic() - begun
    tracks = [track for track in read_tracks(manifest) if track.split == "test"]
    embedder = Embedder(fitted.model.network)
    vectors = embedder.embed_files(tracks, raise_errors=True).embeddings.vectors
    texts, relevance = evaluation_texts(tracks)
    found = evaluate_retrieval(vectors, embedder.embed_texts(texts), torch.as_tensor(relevance))
    figures: dict[str, Any] = {"seconds": trained, "clips": len(tracks), "texts": len(texts)}
    for direction in ("text_to_audio", "audio_to_text"):
        result = getattr(found, direction)
        for metric in ("R@1", "R@5", "R@10", "mAP@10"):
            if metric in result.values:
                figures[f"{direction} {metric}"] = result.values[metric]
                figures[f"{direction} {metric} chance"] = result.chance[metric]
    return figures


def table(task: str, results: dict[str, dict[str, Any]]) -> str:
    first = next(iter(results.values()))
    metrics = [name for name in first if "@" in name and not name.endswith("chance")]
    lines = [f"| {task} | {' | '.join(results)} | chance |", "|---|" + "---:|" * (len(results) + 1)]
    for metric in metrics:
        cells = [f"{result[metric]:.3f}" for result in results.values()]
        lines.append(f"| {metric} | {' | '.join(cells)} | {first[f'{metric} chance']:.3f} |")
    seconds = " | ".join(f"{result['seconds']:.0f}" for result in results.values())
    lines.append(f"| training, s | {seconds} | |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, required=True, help="the folder of spoken_digits.jsonl")
    parser.add_argument(
        "--out", type=Path, help="keep runs and figures here, and do not train again what is there (default: nowhere)"
    )
    parser.add_argument("--quick", action="store_true", help="the n-gram tower alone, few epochs: shows that it runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as aside:
        out = options.out or Path(aside)
        out.mkdir(parents=True, exist_ok=True)
        manifests = {
            "words": write_words(options.audio, out, takes=8 if options.quick else 20),
            "lines": write_lines(options.audio, out, train=200 if options.quick else 1200, test=400),
        }
        epochs = {"words": 3, "lines": 3} if options.quick else {"words": 12, "lines": 16}
        towers = dict(list(TOWERS.items())[: 1 if options.quick else None])
        results: dict[str, dict[str, Any]] = {}
        for task, manifest in manifests.items():
            for name, tower in towers.items():
                kept = out / f"{task}-{name.replace(' ', '-')}-{epochs[task]}.json"
                if not kept.exists():
                    kept.write_text(json.dumps(judge(task, manifest, tower, out, epochs[task]), indent=1))
                results.setdefault(task, {})[name] = json.loads(kept.read_text())
    for task, found in results.items():
        first = next(iter(found.values()))
        print(f"\n{first['clips']} clips of two voices never heard, {first['texts']} texts\n\n{table(task, found)}")
    print()
    for task, found in results.items():
        ours = found["character n-grams"]
        for metric in ("audio_to_text R@1", "text_to_audio mAP@10"):
            peer = ours[f"{metric} chance"]
            claim = {"claim": f"{task}: {metric}, unheard voices, against chance", "ours": ours[metric], "peer": peer}
            ratio = ours[metric] / peer
            print(json.dumps(claim | {"ratio": ratio, "goal": 3.0, "met": ratio >= 3.0}))


if __name__ == "__main__":
    main()
