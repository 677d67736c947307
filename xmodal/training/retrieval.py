"""How a validation set is judged: windows pooled by track, and retrieval metrics in both directions."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from xmodal.data.datasets import WindowBatch
from xmodal.metrics import KS, retrieval_metrics
from xmodal.training.gather import gather_rows
from xmodal.view import Pooling, pool


class HeardWindows:
    """The windows that a process has embedded, and those of all processes together."""

    def __init__(self) -> None:
        self._parts: list[tuple[Tensor, ...]] = []

    def clear(self) -> None:
        """Forget them."""
        self._parts.clear()

    def add(self, vectors: Float[Tensor, "windows dim"], batch: WindowBatch) -> None:
        """Take a batch."""
        self._parts.append((vectors.float(), batch.rows, batch.shares, batch.energies))

    def tracks(
        self, count: int, dim: int, *, pooling: Pooling, top_windows: int, device: torch.device
    ) -> Float[Tensor, "tracks dim"] | None:
        """One unit vector a track, on the CPU, in every process; None if nobody has heard anything."""
        none = torch.zeros(0, device=device)
        nothing = (torch.zeros(0, dim, device=device), none.long(), none, none)
        # Each process embedded windows of its own, each window one of them: together they are all.
        vectors, rows, shares, energies = (
            gather_rows(torch.cat(parts)).cpu() for parts in zip(*self._parts, nothing, strict=True)
        )
        if not len(rows):
            return None
        return pool_windows(
            vectors, rows, count, shares=shares, energies=energies, pooling=pooling, top_windows=top_windows
        )


def pool_windows(
    vectors: Float[Tensor, "windows dim"],
    rows: Int[Tensor, " windows"],
    tracks: int,
    *,
    shares: Float[Tensor, " windows"] | None = None,
    energies: Float[Tensor, " windows"] | None = None,
    pooling: Pooling = "mean",
    top_windows: int = 3,
) -> Float[Tensor, "tracks dim"]:
    """One unit vector a track, as :func:`xmodal.view.pool` makes it. A track without windows gets zeros.

    Args:
        vectors: Unit vectors of the windows, those of a track in their order.
        rows: The track of each.
        tracks: How many tracks there are.
        shares: How much of each window is audio; None for all of it.
        energies: Of each window; None or NaN where they are not known, and then ``energy`` is ``mean``.
        pooling: The rule.
        top_windows: How many windows ``top_k`` keeps.
    """
    weights = torch.ones(len(rows)) if shares is None else shares
    if energies is None or bool(energies.isnan().any()):
        energies = torch.zeros(len(rows))
    pooled = torch.zeros(tracks, vectors.shape[1])
    order = rows.argsort(stable=True)
    there, counts = rows[order].unique_consecutive(return_counts=True)
    for row, places in zip(there.tolist(), order.split(counts.tolist()), strict=True):
        own, weight, energy = (each[places].numpy() for each in (vectors, weights, energies))
        pooled[row] = torch.from_numpy(pool(own, weight, energy, pooling, top_windows))
    return pooled


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
