"""Retrieval metrics beside torchmetrics' on the same scores, and retrieval over a catalogue too large for a matrix.

    python benchmarks/metrics_speed.py              # a few minutes
    python benchmarks/metrics_speed.py --quick      # under a minute, smaller

torchmetrics is a dependency of Lightning, so it is there. It is given scores moved above 0, because its retrieval
metrics (1.9) leave out candidates whose score is 0 or less, and 0 cannot be told from such a score.
Times are those of the process's own CPU, both on the same number of threads.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn.functional import normalize
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMAP, RetrievalMRR, RetrievalNormalizedDCG

from xmodal.metrics import rank, rank_vectors, summary

GOAL = 20.0


def seconds(work: Callable[[], dict[str, float]]) -> tuple[float, dict[str, float]]:
    started = time.process_time()
    figures = work()
    return time.process_time() - started, figures


def highest_megabytes(*, anew: bool = False) -> float:
    """Highest resident size of this process (Linux), from now on if ``anew``."""
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]


def theirs(score: torch.Tensor, relevance: torch.Tensor) -> dict[str, float]:
    queries, candidates = score.shape
    preds, target = (score + 2).flatten(), relevance.flatten()
    indexes = torch.arange(queries).repeat_interleave(candidates)
    made = {
        "R@10": RetrievalHitRate(top_k=10),
        "MRR": RetrievalMRR(),
        "mAP": RetrievalMAP(),
        "nDCG@10": RetrievalNormalizedDCG(top_k=10),
    }
    return {name: float(metric(preds, target, indexes=indexes)) for name, metric in made.items()}


def ours(score: torch.Tensor, relevance: torch.Tensor) -> dict[str, float]:
    ranking = rank(score, relevance)
    return summary(
        {
            "R@10": ranking.hit(10),
            "MRR": ranking.reciprocal_rank(),
            "mAP": ranking.average_precision(),
            "nDCG@10": ranking.ndcg(10),
        }
    )


def catalogue(queries: int, candidates: int, dim: int = 512, right: int = 2) -> dict[str, float]:
    """Exact metrics of queries over candidates without a score matrix, beside the bare product of the blocks."""
    generator = torch.Generator().manual_seed(0)
    texts, tracks = (normalize(torch.randn(n, dim, generator=generator), dim=1) for n in (queries, candidates))
    rows = torch.arange(queries).repeat_interleave(right)
    own = (rows * right + torch.arange(right).repeat(queries)) % candidates
    relevance = torch.sparse_coo_tensor(
        torch.stack([rows, own]), torch.ones(len(rows), dtype=torch.bool), (queries, candidates), check_invariants=True
    )
    before = highest_megabytes(anew=True)
    spent, figures = seconds(lambda: summary(rank_vectors(texts, tracks, relevance).values()))
    after = highest_megabytes()

    def product() -> dict[str, float]:
        for block in texts.split(max(1, 2**23 // candidates)):
            block @ tracks.T
        return {}

    bare, _ = seconds(product)
    return {"seconds": spent, "bare product": bare, "megabytes above": after - before, **figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller")
    options = parser.parse_args()
    large = 10_000 if options.quick else 100_000
    found = catalogue(large, large)
    matrix = large * large * 4 / 1e6
    print(f"{large:,} queries over {large:,} candidates, 512 dimensions, 2 right answers each")
    print("  " + ", ".join(f"{name} {value:.4g}" for name, value in found.items()))
    claims = [
        {
            "claim": f"{large:,} x {large:,} retrieval: megabytes above the vectors, against the score matrix",
            "ours": found["megabytes above"],
            "peer": matrix,
            "ratio": found["megabytes above"] / matrix,
            "goal": "bounded: at most 1,000 MB",
            "met": found["megabytes above"] <= 1000,
        },
    ]
    for queries, candidates in ((500, 500), (500, 5_000)) if options.quick else ((1_000, 1_000), (1_000, 10_000)):
        generator = torch.Generator().manual_seed(1)
        score = torch.rand(queries, candidates, generator=generator) * 2 - 1
        relevance = torch.rand(queries, candidates, generator=generator) < 5 / candidates
        relevance[torch.arange(queries), torch.randint(candidates, (queries,), generator=generator)] = True
        ours(score[:50], relevance[:50]), theirs(score[:50], relevance[:50])  # both have run once before
        peer, their_figures = seconds(lambda s=score, r=relevance: theirs(s, r))  # type: ignore[misc]
        own, own_figures = seconds(lambda s=score, r=relevance: ours(s, r))  # type: ignore[misc]
        for name, value in own_figures.items():
            if abs(value - their_figures[name]) > 1e-5:
                raise SystemExit(f"{name}: ours {value}, torchmetrics {their_figures[name]}")
        print(f"{queries:,} x {candidates:,}: R@10, MRR, mAP, nDCG@10 in {own:.3f} s, torchmetrics {peer:.2f} s; equal")
        claims.append(
            {
                "claim": f"{queries:,} x {candidates:,} retrieval metrics, seconds, against torchmetrics",
                "ours": own,
                "peer": peer,
                "ratio": peer / own,
                "goal": GOAL,
                "met": peer / own >= GOAL,
            }
        )
    whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"highest resident size of the whole process, libraries and vectors included: {whole:,.0f} MB")
    for claim in claims:
        print(json.dumps(claim))


if __name__ == "__main__":
    main()
