"""Writes the golden indexes and exports of the current format, which later versions must go on reading.

    python tests/index/write_golden.py

Run it once for a new format version and never for an old one: the files of old versions are what users have.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from xmodal.embeddings import Embeddings
from xmodal.index import build_index, folder

GOLDEN = Path(__file__).parent / "golden"
ROWS, DIM, SPACE = 12, 8, "0123456789abcdef"


def corpus() -> Embeddings:
    vectors = np.random.default_rng(5).normal(size=(ROWS, DIM))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    facts = [{"title": f"Title {row}", "tags": ["piano", "calm"][: row % 3], "year": 1990 + row} for row in range(ROWS)]
    return Embeddings([f"t{row}" for row in range(ROWS)], vectors, SPACE, facts, model="models/first")


def main(kinds: list[str]) -> None:
    for kind in kinds:
        place = GOLDEN / f"v{folder.FORMAT_VERSION}-{kind}"
        index = build_index(corpus(), kind)
        index.remove(["t3"])
        index.save(place)
        print(place)


if __name__ == "__main__":
    main(sys.argv[1:] or ["exact", "flat", "hnsw", "ivf"])
