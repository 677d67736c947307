"""Writes the golden names of spaces: models of our own towers whose weights are plain numbers.

    python tests/towers/write_spaces.py

Run it when a tower was added. Names that are there stay: a name that changes takes from everybody who has such a model
the use of all exports and indexes made with it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from tower_cases import AUDIO_TOWERS, TEXT_TOWERS

from xmodal.model import TwoTower
from xmodal.towers import HashedBagOfWordsTower

GOLDEN = Path(__file__).with_name("golden_spaces.json")
AUDIO = [
    name for name in AUDIO_TOWERS if name.split("-")[0] not in ("Clap", "Ast", "Mert", "Wav2Vec2")
]  # the names of their weights are transformers'
TEXT = ["bag", "bag-words", "char-ngrams", "fields"]
VIEWS = {"pooling": "top_k", "hop_seconds": 0.5, "last_window": "pad", "dim": 8}


def golden_models() -> dict[str, TwoTower]:
    """A model for each of our own towers, and one seen in another way."""
    models = {}
    for name in AUDIO:
        models[f"audio {name}"] = TwoTower(AUDIO_TOWERS[name](), HashedBagOfWordsTower(50, 8, 4), dim=12)
    for name in TEXT:
        models[f"text {name}"] = TwoTower(
            AUDIO_TOWERS["MobileCnn"](), TEXT_TOWERS[name](None), dim=12, text_hidden=6, window_seconds=3.0
        )
    for model in models.values():
        with_plain_weights(model)
    models["view"] = models["text bag"].viewed(VIEWS)
    return models


@torch.no_grad()
def with_plain_weights(model: TwoTower) -> None:
    """Every weight a small multiple of 1/64, by its place in its tensor, the same on every machine."""
    for tensor in model.state_dict().values():
        numbers = (torch.arange(tensor.numel()) % 13 - 6).reshape(tensor.shape)
        tensor.copy_(numbers / 64 if tensor.is_floating_point() else numbers)


if __name__ == "__main__":
    known = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    found = {name: model.space_id() for name, model in golden_models().items()}
    GOLDEN.write_text(json.dumps({**found, **known}, indent=1) + "\n")
