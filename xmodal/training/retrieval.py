"""How a validation set is judged: windows pooled by track, and retrieval metrics in both directions."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from xmodal.metrics import KS, retrieval_metrics


def pool_windows(vectors: Float[Tensor, "windows dim"], rows: Tensor, tracks: int) -> Float[Tensor, "tracks dim"]:
    """One unit vector a track: the normalised mean of its windows. A track without windows gets zeros."""
    pooled = torch.zeros(tracks, vectors.shape[1]).index_add_(0, rows, vectors)
    return normalize(pooled, dim=-1)


def both_directions(score: Float[Tensor, "audio text"], relevance: Bool[Tensor, "audio text"]) -> dict[str, float]:
    """``text_to_audio/…`` and ``audio_to_text/…`` metrics of a score matrix.

    A result list longer than the pool is the whole pool, so that a small validation set has all the figures too.
    """
    figures: dict[str, float] = {}
    for direction, scores, right in (("text_to_audio", score.T, relevance.T), ("audio_to_text", score, relevance)):
        pool = scores.shape[1]
        shown = {k: min(k, pool) for k in KS}
        found = retrieval_metrics(scores, right, sorted(set(shown.values())), without_right="leave_out")
        names = {f"R@{k}": f"R@{shown[k]}" for k in KS} | {
            f"{name}@{max(KS)}": f"{name}@{shown[max(KS)]}" for name in ("mAP", "nDCG")
        }
        names |= {name: name for name in ("MedR", "MRR", "MAP@R")}
        figures |= {f"{direction}/{name}": found[source] for name, source in names.items()}
    return figures
