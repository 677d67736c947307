"""A vocabulary of 1,000 tags over 100,000 tracks: scored, calibrated and thresholded, beside the bare matrix product.

    python benchmarks/tagging_speed.py              # under a minute
    python benchmarks/tagging_speed.py --quick

Vectors are random, which is the hard case for nothing here: the work does not depend on them but for the number of
tags that are given, which is set to 1 % of the pairs. Both sides use the same threads; the clock is the process's CPU,
and the median of several rounds is told. Memory is the highest resident size above that before the work.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn.functional import normalize

from xmodal.tagging import TagScorer, calibrate_to_prior, tag_catalogue


def seconds(work: Callable[[], object], rounds: int) -> float:
    work()
    spent = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        spent.append(time.process_time() - started)
    return statistics.median(spent)


def highest_megabytes(*, anew: bool = False) -> float:
    """Highest resident size of this process (Linux), from now on if ``anew``."""
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20,000 tracks")
    options = parser.parse_args()
    tracks, tags, dim = (20_000 if options.quick else 100_000), 1_000, 512
    generator = torch.Generator().manual_seed(0)
    audio = normalize(torch.randn(tracks, dim, generator=generator), dim=1)
    vectors = normalize(torch.randn(tags, dim, generator=generator), dim=1)
    scorer = TagScorer([str(n) for n in range(tags)], lambda texts: vectors, templates=("{}",))
    fitted = calibrate_to_prior(scorer.score(audio[:5_000]), 0.01, scorer.tags, "0123456789abcdef")
    before = highest_megabytes(anew=True)
    given = tag_catalogue(audio, scorer, fitted)
    above = highest_megabytes() - before
    rounds = 3 if options.quick else 5
    ours = seconds(lambda: tag_catalogue(audio, scorer, fitted), rounds)
    bare = seconds(lambda: audio @ vectors.T, rounds)
    print(f"{tracks:,} tracks x {tags:,} tags: {len(given.track):,} given in {ours:.2f} s; bare product {bare:.2f} s")
    print(
        json.dumps(
            {
                "claim": f"{tags:,} tags x {tracks:,} tracks tagged: seconds against the bare product",
                "ours": ours,
                "peer": bare,
                "ratio": ours / bare,
                "goal": 1.5,
                "met": ours / bare <= 1.5,
            }
        )
    )
    print(
        json.dumps(
            {
                "claim": f"{tags:,} tags x {tracks:,} tracks: megabytes above the vectors",
                "ours": above,
                "peer": tracks * tags * 4 / 1e6,
                "ratio": above / (tracks * tags * 4 / 1e6),
                "goal": 1000,
                "met": above <= 1000,
            }
        )
    )


if __name__ == "__main__":
    main()
