"""The peer of serve_load.py: text search as one writes it in an afternoon, FastAPI + sentence-transformers + FAISS.

    python benchmarks/serve_load_peer.py FOLDER PORT

The same encoder with the same projection, the same FAISS graph with the same breadth, the same facts about tracks. A
plain ``def`` end point, which FastAPI runs in its threads; no batching.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow.parquet as pq
import torch
import uvicorn
from fastapi import FastAPI

import xmodal.compat  # noqa: F401  (sentence_transformers imports torchaudio where that is installed)
from xmodal.index.base import walk_breadth
from xmodal.index.folder import checked_data, read_manifest

# isort: split
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense


def encoder(folder: Path) -> SentenceTransformer:
    """MiniLM and a linear map, of sentence-transformers' own modules."""
    model = SentenceTransformer(str(folder / "minilm"), device="cpu")
    weight = torch.from_numpy(np.load(folder / "projection.npy"))
    dense = Dense(weight.shape[1], weight.shape[0], bias=False, activation_function=torch.nn.Identity())
    with torch.no_grad():
        dense.linear.weight.copy_(weight)
    model.append(dense)
    return model


def application(folder: Path) -> FastAPI:
    """GET /search?q=…&k=10."""
    data = checked_data(folder / "index", manifest := read_manifest(folder / "index"))
    index = faiss.read_index(str(data / "graph.faiss"))
    # What xmodal takes for so many rows, unless the index says otherwise.
    index.hnsw.efSearch = manifest["settings"]["ef_search"] or walk_breadth(index.ntotal)
    tracks = pq.read_table(data / "items.parquet").to_pylist()
    model = encoder(folder)
    app = FastAPI()

    @app.get("/search")
    def search(q: str, k: int = 10) -> dict[str, Any]:
        vector = model.encode([q], normalize_embeddings=True, show_progress_bar=False)
        scores, rows = index.search(np.asarray(vector, np.float32), k)
        return {
            "hits": [
                {"score": float(score), **tracks[row]} for score, row in zip(scores[0], rows[0].tolist(), strict=True)
            ]
        }

    return app


if __name__ == "__main__":
    uvicorn.run(application(Path(sys.argv[1])), port=int(sys.argv[2]), log_level="warning")
