"""Texts to vectors as clients of others expect it: OpenAI's, and those of text-embeddings-inference."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

import xmodal
from serve.asked import check_texts, refusals
from serve.problems import Problem
from serve.routes.answers import Answer, service_of
from serve.schemas import OpenAIAnswer, OpenAIRequest, TeiRequest

router = APIRouter(tags=["clients of others"])


@router.post("/v1/embeddings", summary="Texts to vectors, as OpenAI does it", response_model=OpenAIAnswer)
async def openai(request: Request, body: OpenAIRequest) -> Response:
    """Vectors as lists of numbers or as base64 of little-endian float32. `dimensions` must be the model's own."""
    service = service_of(request)
    texts = [body.input] if isinstance(body.input, str) else body.input
    check_texts(service.settings, texts)
    async with service.request() as running:
        dim = running.deployed.embedder.dim
        if body.dimensions not in (None, dim):
            raise Problem(
                422, f"the vectors of space {running.deployed.space_id} have {dim} dimensions; leave dimensions out"
            )
        with refusals():
            vectors = await running.texts.of(texts)
    words = sum(len(text.split()) for text in texts)
    return Answer(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": number, "embedding": _written(vector, body.encoding_format)}
                for number, vector in enumerate(vectors)
            ],
            "model": running.deployed.name,
            "usage": {"prompt_tokens": words, "total_tokens": words},
            "space_id": running.deployed.space_id,
        }
    )


@router.get("/v1/models", summary="The model, as OpenAI lists it")
async def models(request: Request) -> dict[str, Any]:
    """One model: the one that is served."""
    deployed = service_of(request).running.deployed
    model = {
        "id": deployed.name,
        "object": "model",
        "created": 0,
        "owned_by": "xmodal",
        "space_id": deployed.space_id,
    }
    return {"object": "list", "data": [model]}


@router.post(
    "/embed", summary="Texts to vectors, as text-embeddings-inference does it", response_model=list[list[float]]
)
async def tei(request: Request, body: TeiRequest) -> Response:
    """Always unit vectors, and never of a text that was cut: long ones are read in parts."""
    service = service_of(request)
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    check_texts(service.settings, texts)
    if not body.normalize:
        raise Problem(422, "every vector here has length 1; leave normalize out, or send true")
    async with service.request() as running:
        with refusals():
            vectors = await running.texts.of(texts)
    # The answer is a bare list by that interface, so the space is named in the head.
    return Answer(np.stack(vectors).tolist(), headers={"X-Space-Id": running.deployed.space_id})


@router.get("/info", summary="The model, as text-embeddings-inference describes it")
async def info(request: Request) -> dict[str, Any]:
    """What clients ask before they send texts."""
    service = service_of(request)
    deployed, settings = service.running.deployed, service.settings
    return {
        "model_id": deployed.name,
        "model_sha": deployed.space_id,
        "model_dtype": "float32",
        "model_type": {"embedding": {"pooling": "mean"}},
        "max_concurrent_requests": settings.queue,
        "max_input_length": settings.max_text,
        "max_batch_tokens": settings.max_batch * settings.max_text,
        "max_batch_requests": settings.max_batch,
        "max_client_batch_size": settings.max_texts,
        "auto_truncate": False,
        "tokenization_workers": 1,
        "version": xmodal.__version__,
        "space_id": deployed.space_id,
    }


def _written(vector: np.ndarray, form: str) -> Any:
    if form == "float":
        return vector.tolist()
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
