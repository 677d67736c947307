"""Writes ``checkpoint_vN.ckpt``, a training checkpoint of today's format, and what the model in it says of two inputs.

    python tests/golden/write_checkpoint.py

Run it once when ``CHECKPOINT_VERSION`` rises, and keep the older files: they must go on loading for ever.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import soundfile
import torch

from xmodal.training import AlignmentModule, config_folder, run

FOLDER = Path(__file__).parent
WORDS = ["a low tone", "high"]
MODEL = {
    "model.audio.init_args": {"sample_rate": 8000, "n_fft": 256, "hop": 80, "bands": 16, "width": 0.1},
    "model.text.init_args": {"buckets": 50, "embed_dim": 8, "feature_dim": 8},
}


def arguments(folder: Path) -> list[str]:
    """A run of two epochs on twelve tones, as small as it gets."""
    manifest = write_tones(folder)
    words = ["--config", str(config_folder() / "base.yaml"), "--config", str(config_folder() / "smoke.yaml")]
    words += ["--data.manifest", str(manifest), "--runs", str(folder), "--name", "golden", "--model.dim", "8"]
    for key, values in MODEL.items():
        for name, value in (values | {"feature_dim": 8}).items():
            words += [f"--{key}.{name}", str(value)]
    return [*words, "--trainer.accelerator", "cpu", "--trainer.max_epochs", "2", "--data.batch_size", "4"]


def write_tones(folder: Path) -> Path:
    """Twelve tones of a second, low or high, and their manifest."""
    rows = []
    for number in range(12):
        pitch = ("low", "high")[number % 2]
        frequency = {"low": 220.0, "high": 1760.0}[pitch] * (1 + number / 100)
        tone = 0.4 * np.sin(2 * np.pi * frequency * np.arange(8000) / 8000)
        soundfile.write(folder / f"{number:02d}.wav", tone.astype("float32"), 8000)
        split = ("train", "train", "train", "train", "valid", "test")[number // 2]
        rows.append({"id": f"t{number}", "path": f"{number:02d}.wav", "captions": [f"a {pitch} tone"], "split": split})
    manifest = folder / "tones.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


def answers(module: AlignmentModule) -> dict[str, list[list[float]]]:
    """Vectors of one ramp of log-mel values and of two texts."""
    module.eval()
    features = torch.linspace(-1.0, 1.0, 16 * 101).reshape(1, 16, 101)
    with torch.no_grad():
        audio = module.network.embed_audio_features(features, torch.tensor([101]))
        return {"audio": audio.tolist(), "text": module.network.embed_text(WORDS).tolist()}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        module = run(["fit", *arguments(folder)]).model
        last = next(folder.rglob("last.ckpt"))
        checkpoint = torch.load(last, weights_only=True)
        version = checkpoint["xmodal"]["format_version"]
        module.on_load_checkpoint(checkpoint)
        module.load_state_dict(checkpoint["state_dict"])  # after a run the module holds the best weights
        shutil.copy(last, FOLDER / f"checkpoint_v{version}.ckpt")
        (FOLDER / f"checkpoint_v{version}.json").write_text(json.dumps(answers(module)) + "\n")


if __name__ == "__main__":
    main()
