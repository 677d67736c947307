"""Embedding on the machines of a Ray cluster: the same job, with actors in place of threads.

The only module that imports ray. Every machine must see the model folder and the audio under the same paths (a network
file system, or URLs). The machine that started the job writes the parts, so a kill loses as little as without Ray.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from xmodal.data.tracks import Track
from xmodal.embedder import Embedder, Outcome, load
from xmodal.export.job import Source

_PIECES = 32  # a batch: small enough to spread, large enough to share forward passes


def on_ray(embedder: Embedder, *, address: str | None = None, actors: int | None = None, trust: bool = False) -> Source:
    """Embed tracks on Ray, for :func:`xmodal.export.export`.

    Args:
        embedder: The model here; the actors load the same folder, and refuse another space.
        address: The cluster ("auto", "ray://host:10001"); None starts one on this machine.
        actors: Processes; None for one less than the cluster has cores, which leaves one to move data.
        trust: Let the model name classes from outside xmodal.

    Raises:
        ValueError: If ray is not installed, or the embedder does not know its folder.
    """
    try:
        import ray
    except ImportError as error:
        raise ValueError("embedding on a cluster needs ray; install it with: pip install 'xmodal[ray]'") from error
    if embedder.source is None:
        raise ValueError("embedding on a cluster needs a model folder that all machines see; load the model from one")
    gpus = 1 if embedder.device.type == "cuda" else 0
    settings: dict[str, Any] = {
        "folder": embedder.source,
        "device": embedder.device.type,
        "trust": trust,
        "view": embedder.view,
        "batch_size": embedder.batch_size,
        "workers": embedder.workers if gpus else 1,
    }

    def source(tracks: Sequence[Track]) -> Iterator[tuple[int, Outcome]]:
        if not tracks:
            return
        if not ray.is_initialized():
            ray.init(address=address, log_to_driver=False, include_dashboard=False)
        ray.data.DataContext.get_current().enable_progress_bars = False
        processes = actors or max(1, int(ray.cluster_resources().get("CPU", 2)) - 1)
        rows = [{"position": position, "track": pickle.dumps(track)} for position, track in enumerate(tracks)]
        blocks = min(len(rows), max(processes, min(len(rows) // _PIECES, 16 * processes)))
        embedded = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
            _Actor,
            fn_constructor_kwargs={"space_id": embedder.space_id, "settings": settings},
            batch_size=min(_PIECES, -(-len(rows) // blocks)),
            compute=ray.data.ActorPoolStrategy(size=processes),
            num_cpus=1,
            num_gpus=gpus,
        )
        for row in embedded.iter_rows():
            yield int(row["position"]), pickle.loads(row["outcome"])

    return source


class _Actor:
    """A process with the model; embeds batches of tracks."""

    def __init__(self, space_id: str, settings: dict[str, Any]) -> None:
        self.embedder = load(**settings)
        if self.embedder.space_id != space_id:
            raise RuntimeError(
                f"{settings['folder']} holds space {self.embedder.space_id} on this machine, {space_id} on the one "
                "that started the job; copy the model again"
            )

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        tracks = [pickle.loads(track) for track in batch["track"]]
        found = dict(self.embedder.iterate_windows(tracks))
        places = range(len(tracks))
        return {
            "position": [int(batch["position"][place]) for place in places],
            "outcome": [pickle.dumps(found[place]) for place in places],
        }
