"""A query to hits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from serve.catalogue import given_tags, shown
from serve.deployed import Deployed
from xmodal.search import Hit, find_moments, search


def find(
    deployed: Deployed, query: Float32[np.ndarray, " dim"], k: int, *, where: Sequence[str], moments: bool
) -> list[Hit]:
    """The best ``k`` tracks of a query, with the moments that answer if they are wanted and known."""
    with deployed.index.reading():
        hits = search(deployed.index, query[None], k, space_id=deployed.space_id, where=where)[0]
        if moments and deployed.catalogue.windowed:
            hits = find_moments(deployed.index, query, hits, deployed.embedder.model.windows.window_seconds)
    return hits


def hit_view(hit: Hit) -> dict[str, Any]:
    """A hit as clients see it."""
    id_ = str(hit.metadata.get("track", hit.id))
    return {
        "rank": hit.rank,
        **shown(id_, hit.metadata),
        "score": hit.score,
        "tags": given_tags(hit.metadata),
        "audio": None,
        "start_seconds": hit.start_seconds,
        "end_seconds": hit.end_seconds,
    }
