"""Fixtures that several rooms share."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sound_files import PITCHES, RATE, kind_of, write_tone

import xmodal.compat  # noqa: F401  (transformers imports torchaudio)

# Where one fixture serves a whole file at the cost of many processes, or one test takes as long as a hundred others.
_LONG = (
    "test_processes.py",
    "test_kills.py",
    "test_onnx.py",
    "test_compiled.py",
    "test_demo.py",
    "test_demo_corpus.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: at the end a core would wait for them, or two would share out a file and pay twice for it."""
    place = {name: number for number, name in enumerate(_LONG)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(scope="session")
def shared_audio() -> Path:
    """Real recordings that lie beside the checkout, not in it."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "audio"
    if not folder.is_dir():
        pytest.skip("the real recordings are not beside this checkout (shared/audio)")
    return folder


# Of a module: while playwright runs, its thread has an event loop, and nobody else's asyncio.run would work there.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium, driven by playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright, to test pages in a browser")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium is installed to test pages in (Debian: apt-get install chromium)")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=program, args=[*quiet, "--disable-component-update"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def tone_tracks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of 40 little tones, low or high, steady or pulsing, that any tower can tell apart."""
    folder = tmp_path_factory.mktemp("tones")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(40):
        pitch, motion = kind_of(number)
        hertz = PITCHES[pitch] * rng.uniform(0.95, 1.05)
        seconds = 1.2 + 0.1 * (number % 7)
        write_tone(folder / f"{number:02d}.wav", rng, hertz, motion, np.full(round(seconds * RATE), 0.4))
        rows.append(
            {
                "id": f"tone{number:02d}",
                "path": f"{number:02d}.wav",
                "pitch": pitch,
                "motion": motion,
                "captions": [f"a {motion} {pitch} tone", f"{pitch} and {motion}"],
                "split": ("train", "train", "train", "valid", "test")[number // 4 % 5],
            }
        )
    manifest = folder / "tones.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformers folder with a random two-layer BERT that knows the words w0 to w199."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny_encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{number}" for number in range(200))]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(words),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=64,
            initializer_range=0.5,  # far from linear, so that every token moves the vector
        )
        BertModel(config).save_pretrained(folder)
    return folder
