"""Embedding on GPUs with Ray Serve: texts and sounds to vectors, which any `xmodal serve` takes as terms of a query.

    pip install 'xmodal[serve]' 'ray[serve]'
    XMODAL_MODEL=/data/model serve run deploy.ray_embed:app     # on a node of the Ray cluster

    POST /       {"texts": ["slow piano", …]}                  → {"space_id", "dim", "vectors"}
    POST /       an audio file as the body (audio/*)           → the same, one vector

Workers with a GPU each embed; workers that search need none. Requests that come together share a batch.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from serve.decoding import DecoderPool
from serve.problems import Problem, problem_response
from xmodal.audio import AudioLimits, cut
from xmodal.embedder import Embedder, load
from xmodal.errors import AudioError

MAX_BODY_BYTES = 50 * 2**20
MAX_TEXTS, MAX_CHARACTERS = 256, 2000


class Worker:
    """A model on one device; what the deployment below wraps, and what the tests call without Ray.

    Args:
        model: The model folder.
        device: "cuda", "cpu" ...; None takes the first accelerator.
    """

    def __init__(self, model: str, device: str | None = None) -> None:
        self.embedder: Embedder = load(model, device=device, batch_size=256)
        self.decoders = DecoderPool(limits=AudioLimits(seconds=900.0, channels=8, rate_hz=192_000))

    def embed_texts(self, batch: list[list[str]]) -> list[np.ndarray]:
        """The vectors of the texts of several requests, by one call of the model."""
        vectors = self.embedder.embed_queries([text for texts in batch for text in texts])
        return np.split(vectors, np.cumsum([len(texts) for texts in batch])[:-1])

    async def embed_audio(self, content: bytes) -> np.ndarray:
        """The vector of an audio file (AudioError if it is none)."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            model = self.embedder.model
            decoded = await self.decoders.decode(file.name, model.sample_rate, name="audio")
        windows = cut(decoded.samples, model.sample_rate, model.windows)
        size = self.embedder.batch_size

        def embed() -> np.ndarray:
            parts = [self.embedder.embed_windows(windows[at : at + size]) for at in range(0, len(windows), size)]
            return self.embedder.file_of(windows, np.concatenate(parts)).pooled()

        return await asyncio.to_thread(embed)

    def shown(self, vectors: np.ndarray) -> dict[str, Any]:
        """Vectors as clients see them."""
        return {"space_id": self.embedder.space_id, "dim": self.embedder.dim, "vectors": vectors.tolist()}


def texts_of(body: bytes) -> list[str]:
    """The texts of a request (Problem 422 if there are none)."""
    try:
        texts = json.loads(body)["texts"]
    except (ValueError, TypeError, LookupError, RecursionError):
        raise Problem(422, 'send {"texts": ["…"]} as JSON, or an audio file as audio/*') from None
    if not isinstance(texts, list) or not 1 <= len(texts) <= MAX_TEXTS:
        raise Problem(422, f"from 1 to {MAX_TEXTS} texts may be sent at once")
    for text in texts:
        if not isinstance(text, str) or not text.strip() or len(text) > MAX_CHARACTERS or not _is_unicode(text):
            raise Problem(422, f"each text needs words, and at most {MAX_CHARACTERS} characters")
    return texts


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a pair
        return False
    return True


def deployment(model: str, *, gpus: float = 1.0, replicas: int = 1) -> Any:
    """The application for ``ray.serve.run``; Ray is imported here and nowhere else."""
    from ray import serve
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response

    class Embedding:
        def __init__(self) -> None:
            self.worker = Worker(model, "cuda" if gpus else "cpu")

        @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.004)
        async def texts(self, batch: list[list[str]]) -> list[np.ndarray]:
            return await asyncio.to_thread(self.worker.embed_texts, batch)

        async def __call__(self, request: Request) -> Response:
            try:
                body = bytearray()
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > MAX_BODY_BYTES:
                        raise Problem(413, f"the body is larger than {MAX_BODY_BYTES >> 20} MiB; send less at once")
                if request.headers.get("content-type", "").startswith("audio/"):
                    vectors = (await self.worker.embed_audio(bytes(body)))[None]
                else:
                    vectors = await self.texts(texts_of(bytes(body)))
            except Problem as problem:
                return problem_response(problem.status, problem.detail, kind=problem.kind, headers=problem.headers)
            except AudioError as error:
                return problem_response(422, f"audio: {error.reason}", kind="bad-audio")
            return JSONResponse(self.worker.shown(vectors))

    resources = {"num_gpus": gpus, "num_cpus": 2}
    made: Any = serve.deployment(num_replicas=replicas, max_ongoing_requests=128, ray_actor_options=resources)
    return made(Embedding).bind()


def __getattr__(name: str) -> Any:
    if name == "app":  # what `serve run deploy.ray_embed:app` asks for
        return deployment(str(Path(os.environ["XMODAL_MODEL"])), gpus=float(os.environ.get("XMODAL_GPUS", "1")))
    raise AttributeError(name)
