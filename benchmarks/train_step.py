"""A training step through Lightning and this project against the same towers in others' training loops.

    python benchmarks/train_step.py [--quick]
    python benchmarks/train_step.py --device cuda [--quick]

The bare loop is a step as open_clip writes one: two encoders, unit vectors, a learned scale, cross-entropy of rows and
columns, AdamW. The other peer is sentence-transformers' trainer with its symmetric MultipleNegativesRankingLoss, the
same loss at a fixed scale (compared on the first batch); it needs the package accelerate, without which it is left out.
All see the same random log-mels and texts, which lie on the device already, from the same weights, with torch's fused
AdamW, without clipping or logging; they take turns, and medians are compared: by the clock, and on a CPU also by
processor time, which tells more on a machine in use.

On a CPU it is float32, eager, unless ``--precision`` and ``--compile`` say otherwise; on a GPU float32 and bf16-mixed,
eager and compiled. The arithmetic of a step is counted by torch (matrix products and convolutions of the plain step,
forwards and backwards) and set beside the card's peak, if that is in ``PEAK_TFLOPS`` or said by ``--peak-tflops``.

The second part makes steps of a large batch (4,096 on a GPU) with GradCache, and without where that fits, and says the
highest memory of both.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import statistics
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode
from train_step_large import large_step
from train_step_sides import BareStep, Setting, Step, bare, make_batches, ours, sentence_transformers

from xmodal.data.datasets import PairBatch


@dataclass(frozen=True)
class Peak:
    """Dense tensor-core peak of a card in TFLOP/s, from NVIDIA's data sheet of it (half of what it says for sparse)."""

    bfloat16: float
    tf32: float


# By torch.cuda.get_device_name. Data sheets: H100, H200, A100, A10, L4, L40S at nvidia.com/data-center; GeForce: the
# white papers of Ampere GA102 and Ada.
PEAK_TFLOPS = {
    "NVIDIA H100 80GB HBM3": Peak(989.4, 494.7),
    "NVIDIA H100 PCIe": Peak(756.5, 378.0),
    "NVIDIA H100 NVL": Peak(835.5, 417.5),
    "NVIDIA H200": Peak(989.4, 494.7),
    "NVIDIA H200 NVL": Peak(835.5, 417.5),
    "NVIDIA A100-SXM4-40GB": Peak(312.0, 156.0),
    "NVIDIA A100-SXM4-80GB": Peak(312.0, 156.0),
    "NVIDIA A100-PCIE-40GB": Peak(312.0, 156.0),
    "NVIDIA A100 80GB PCIe": Peak(312.0, 156.0),
    "NVIDIA A10": Peak(125.0, 62.5),
    "NVIDIA L4": Peak(121.0, 60.0),
    "NVIDIA L40S": Peak(362.0, 183.0),
    "NVIDIA GeForce RTX 3090": Peak(71.0, 35.6),
    "NVIDIA GeForce RTX 4090": Peak(165.2, 82.6),
}

Side = Callable[[Sequence[PairBatch], Setting], list[Step]]
PEERS: dict[str, tuple[str, Side]] = {
    "bare": ("a bare PyTorch loop", bare),
    "trainer": ("sentence-transformers' trainer", sentence_transformers),
}


def peak_tflops(card: str, precision: str) -> float | None:
    """What the card can do at most in this precision; None where it is not known.

    float32 is set beside TF32, in which cuDNN computes convolutions unless told otherwise.
    """
    peak = PEAK_TFLOPS.get(card)
    return None if peak is None else peak.bfloat16 if precision == "bf16-mixed" else peak.tf32


def flops_of_step(batch: PairBatch, device: str) -> int:
    """Floating-point operations of a plain step, a multiplication with its addition counted as two."""
    step = BareStep(Setting(device, "32", compiled=False))
    with FlopCounterMode(display=False) as counter:
        step(batch)
    return int(counter.get_total_flops())


def compare(setting: Setting, data: list[PairBatch], peers: Sequence[str], rounds: int) -> dict[str, tuple[float, ...]]:
    """Median seconds of a step by side, by the clock and of processor time."""
    sides: dict[str, Side] = {"ours": ours, **{name: PEERS[name][1] for name in peers}}
    found: dict[str, list[Step]] = {name: [] for name in sides}
    for train in sides.values():
        train(data[:2], setting)
    for _ in range(rounds):
        for name, train in sides.items():
            found[name] += train(data, setting)
    return {name: tuple(statistics.median(each) for each in zip(*steps, strict=True)) for name, steps in found.items()}


def step_claims(setting: Setting, medians: dict[str, tuple[float, ...]], size: int) -> list[dict[str, object]]:
    """Beside the bare loop an overhead, beside another trainer the samples a second."""
    claims: list[dict[str, object]] = []
    for clock, unit in enumerate(("by the clock", "in processor time")[: 1 if setting.device == "cuda" else 2]):
        mine = medians["ours"][clock]
        for name, (what, _) in PEERS.items():
            if name not in medians:
                continue
            theirs = medians[name][clock]
            print(
                f"{setting}, median step {unit}: ours {1000 * mine:.1f} ms ({size / mine:.0f} samples/s), "
                f"{what} {1000 * theirs:.1f} ms ({size / theirs:.0f} samples/s)"
            )
            if name == "bare":
                title = f"step overhead over {what}, {setting}, {unit}"
                claims.append(claim(title, round(1000 * mine, 2), round(1000 * theirs, 2), mine / theirs, 1.05, "most"))
            else:
                title = f"samples a second beside {what}, {setting}, {unit}"
                claims.append(claim(title, round(size / mine, 1), round(size / theirs, 1), theirs / mine, 1.0, "least"))
    return claims


def peak_claim(setting: Setting, seconds: float, flops: int, given: float | None) -> list[dict[str, object]]:
    """The share of the card's peak, where that is known."""
    made = flops / seconds / 1e12
    card = torch.cuda.get_device_name() if setting.device == "cuda" else "this processor"
    peak = given or peak_tflops(card, setting.precision)
    if peak is None:
        print(f"{setting}: {made:.3f} TFLOP/s; the peak of {card} is not known here, say it with --peak-tflops")
        return []
    print(f"{setting}: {made:.3f} TFLOP/s of {peak:g} at most ({card}), {made / peak:.1%}")
    return [claim(f"TFLOP/s of the peak, {setting}", round(made, 3), peak, made / peak, None, "least")]


def large_claims(setting: Setting, size: int, chunk: int) -> list[dict[str, object]]:
    """A large batch with GradCache beside the card's memory, and beside the same batch without."""
    threads = torch.get_num_threads()
    cached = large_step(setting, size, chunk, threads)
    print(f"batch {size}, {setting}, GradCache by {chunk}: {cached}")
    whole = large_step(setting, size, None, threads)
    print(f"batch {size}, {setting}, without GradCache: {whole}")
    claims = []
    if setting.device == "cuda":
        there = torch.cuda.get_device_properties(0).total_memory
        title = f"memory of a batch of {size} with GradCache, GB, beside the card's"
        claims.append(memory_claim(title, cached.peak_bytes, there, 1.0))
    title = f"memory of a batch of {size} with GradCache, GB, beside the same without"
    claims.append(memory_claim(title, cached.peak_bytes, whole.peak_bytes, None))
    return claims


def memory_claim(title: str, ours: int | None, peer: int | None, goal: float | None) -> dict[str, object]:
    ratio = None if ours is None or peer is None else ours / peer
    gigabytes = [None if each is None else round(each / 1e9, 3) for each in (ours, peer)]
    return claim(title, *gigabytes, ratio, goal, "most")


def claim(
    name: str, ours: float | None, peer: float | None, ratio: float | None, goal: float | None, kind: str
) -> dict[str, object]:
    """One line of the report; ``kind`` says whether the goal is the ``most`` or the ``least`` that is wanted."""
    met = None
    if goal is not None:
        met = ratio is not None and (ratio <= goal if kind == "most" else ratio >= goal)
    rounded = None if ratio is None else round(ratio, 4)
    return {"claim": name, "ours": ours, "peer": peer, "ratio": rounded, "goal": goal, "met": met}


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller batches and fewer steps")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["32", "bf16-mixed"], action="append", help="may be given twice")
    parser.add_argument("--compile", choices=["no", "yes", "both"], help="on a GPU: both")
    parser.add_argument("--batch", type=int, help="of the steps that are compared")
    parser.add_argument("--steps", type=int, help="of each side in each round")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--large-batch", type=int, help="0: leave out that part")
    parser.add_argument("--chunk", type=int, help="items that GradCache encodes at a time")
    parser.add_argument("--peak-tflops", type=float, help="what the card can do at most, in the precision given")
    options = parser.parse_args(words)
    gpu, quick = options.device == "cuda", options.quick
    if gpu:
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # several would be trained on together by one of the sides
        if not torch.cuda.is_available():
            raise SystemExit(
                "--device cuda needs a GPU that torch can see, and there is none; leave it out for the CPU"
            )
        if torch.cuda.device_count() > 1:
            raise SystemExit("one card is measured; say which with CUDA_VISIBLE_DEVICES=0")
    precisions = options.precision or (["32", "bf16-mixed"] if gpu else ["32"])
    if options.peak_tflops and len(set(precisions)) > 1:
        raise SystemExit("--peak-tflops is of one precision; say which with --precision")
    compiled = {"no": [False], "yes": [True], "both": [False, True]}[options.compile or ("both" if gpu else "no")]
    size = options.batch or ((128 if quick else 512) if gpu else (32 if quick else 128))
    steps = options.steps or ((40 if quick else 110) if gpu else (6 if quick else 15))
    warnings.simplefilter("ignore")
    every, skipped = (10, 10) if gpu else (1, 3 if any(compiled) else 1)
    if steps < every + skipped:
        raise SystemExit(f"--steps must be at least {every + skipped}: the first {skipped} are not counted")
    settings = [
        Setting(options.device, *each, every=every, skipped=skipped) for each in itertools.product(precisions, compiled)
    ]
    peers = [name for name in options.peers if name == "bare" or importlib.util.find_spec("accelerate")]
    if len(peers) < len(options.peers):
        print("sentence-transformers' trainer needs the package accelerate, which is not here: left out")
    where = torch.cuda.get_device_name() if gpu else f"{torch.get_num_threads()} threads, CPU"
    print(f"batch {size}, {where}, torch {torch.__version__}")
    claims: list[dict[str, object]] = []
    different = make_batches(min(steps, 15), size, options.device)
    flops = flops_of_step(different[0], options.device)
    print(f"{flops / size / 1e9:.3f} GFLOP a sample, forwards and backwards")
    data = list(itertools.islice(itertools.cycle(different), steps))
    for setting in settings:
        medians = compare(setting, data, peers, options.rounds or (2 if quick else 3))
        claims += step_claims(setting, medians, size)
        claims += peak_claim(setting, medians["ours"][0], flops, options.peak_tflops)
    large = (
        ((1024 if quick else 4096) if gpu else (256 if quick else 512))
        if options.large_batch is None
        else options.large_batch
    )
    if large:
        del different, data
        if gpu:
            torch.cuda.empty_cache()
        # In the precision that training has unless told otherwise.
        setting = Setting(options.device, "bf16-mixed", compiled=False)
        claims += large_claims(setting, large, options.chunk or (256 if gpu else 64))
    for line in claims:
        print(json.dumps(line))


if __name__ == "__main__":
    main()
