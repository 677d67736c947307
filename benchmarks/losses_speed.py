"""Time and memory of the losses against pytorch-metric-learning 2.9.0, in one run on one machine.

The peer is no dependency of xmodal. In an environment of its own, from the root of the repository:

    python -m venv peer
    peer/bin/pip install --constraint constraints.txt . pytorch-metric-learning==2.9.0
    peer/bin/python benchmarks/losses_speed.py --quick      # under a minute
    peer/bin/python benchmarks/losses_speed.py              # about an hour on two cores

Without the peer it measures xmodal alone and says so; its claims are then not met.

What is measured: forward and backward from unit vectors ``[N, 512]`` and their labels (ours: their relevance), two
towers (the peer's ``ref_emb``), rows as anchors on both sides, the same arguments and, to 1e-4, the same value.
*Triplet* is the dense loss, *triplet, streamed* the same one as ``StreamedLoss`` in blocks of 64 rows: both stand
against the peer's ``TripletMarginLoss``; *NT-Xent* against ``NTXentLoss``, *tuplet margin* against
``TupletMarginLoss``, and the others against the class of their name. Alone, beyond N = 1024, every loss of rows is
streamed, as it should be used there.

Each case is a fork of one warm process. Its time is the median of the steps of 0.7 s, or the first step where that
took more than five. Its memory is the most that the tensors made in a step hold at once, the gradients of the vectors
included, by the events of PyTorch's allocator. The peer is stopped at ``--gigabytes`` of address space and at
``--seconds``, which is then reported as ``failed``.

The streamed InfoNCE of both directions is held against matrix products alone. An exact gradient takes three: scores,
and slopes times the vectors of either side. No method that holds less than all scores can do with three: the slopes
need the sums over all rows and columns, and when those are known the scores are gone, so they are made again. Its
claim is against these four; the ratio to three is printed beside it. Its memory is that of the process: the highest
resident size of the step less that of the inputs, which are the vectors and the relevance, 4.3 GB at N = 65,536.

On a machine that others use, ``--clock cpu`` counts the seconds of the process instead of those of the wall; set
``OMP_NUM_THREADS=1`` with it, since threads add up.

The last lines are JSON, one for each claim: {"claim", "ours", "peer", "ratio", "goal", "met"}. Times are seconds,
memory is megabytes (1e6 bytes); the ratio is the peer's number over ours, of the streamed loss ours over the other.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

DIM = 512
PEER = "pytorch-metric-learning"
FAMILIES = ("triplet", "triplet, streamed", "NT-Xent", "tuplet margin")
SAME_PEER = {"triplet, streamed": "triplet"}
# These average over other terms than the peer does, so that the values differ; the work is the same.
OTHER_VALUE = ("margin",)
QUICK = (*FAMILIES, "multi-similarity")
TRIPLET_BLOCK = 64


def our_losses() -> dict[str, Callable[[], Any]]:
    from xmodal import losses

    rows = {"direction_weights": (1.0, 0.0)}
    return {
        "triplet": lambda: losses.TripletLoss(0.3, mining="all", distance="squared", **rows),
        "triplet, streamed": lambda: losses.StreamedLoss(
            losses.TripletLoss(0.3, mining="all", distance="squared", **rows), TRIPLET_BLOCK
        ),
        "NT-Xent": lambda: losses.InfoNCELoss(0.2, learn_temperature=False, denominator="own", **rows),
        "tuplet margin": lambda: losses.TupletMarginLoss(16.0, **rows),
        "SupCon": lambda: losses.InfoNCELoss(0.2, learn_temperature=False, **rows),
        "contrastive": lambda: losses.ContrastiveLoss(1.0, power=1, average="active"),
        "multi-similarity": lambda: losses.MultiSimilarityLoss(**rows),
        "circle": lambda: losses.CircleLoss(0.3, scale=20.0, **rows),
        "generalized lifted": lambda: losses.GeneralizedLiftedLoss(0.4, **rows),
        "margin": lambda: losses.MarginLoss(0.2, beta=1.1),
        "intra-pair variance": lambda: losses.IntraPairVarianceLoss(0.05, 0.05),
        "NCA": lambda: losses.NCALoss(1 / 6, **rows),
        "SNR contrastive": lambda: losses.SNRContrastiveLoss(negative_margin=50.0, **rows),
        "angular": lambda: losses.AngularLoss(40.0, **rows),
    }


def peer_losses() -> dict[str, Callable[[], Any]]:
    from pytorch_metric_learning import distances, losses

    return {
        "triplet": lambda: losses.TripletMarginLoss(margin=0.3, distance=distances.LpDistance(power=2)),
        "NT-Xent": lambda: losses.NTXentLoss(temperature=0.2),
        "tuplet margin": lambda: losses.TupletMarginLoss(margin=5.73, scale=16),
        "SupCon": lambda: losses.SupConLoss(temperature=0.2),
        "contrastive": lambda: losses.ContrastiveLoss(pos_margin=0, neg_margin=1),
        "multi-similarity": lambda: losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5),
        "circle": lambda: losses.CircleLoss(m=0.3, gamma=20),
        "generalized lifted": lambda: losses.GeneralizedLiftedStructureLoss(neg_margin=0.4, pos_margin=0),
        "margin": lambda: losses.MarginLoss(margin=0.2, nu=0, beta=1.1),
        "intra-pair variance": lambda: losses.IntraPairVarianceLoss(pos_eps=0.05, neg_eps=0.05),
        "NCA": lambda: losses.NCALoss(softmax_scale=3),
        "SNR contrastive": lambda: losses.SignalToNoiseRatioContrastiveLoss(pos_margin=0, neg_margin=50),
        "angular": lambda: losses.AngularLoss(alpha=40),
    }


# -- one case, in a process of its own --------------------------------------------------------------------------------


def vectors(items: int, seed: int) -> Any:
    import torch
    from torch.nn.functional import normalize

    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn((items, DIM), generator=generator), dim=1).requires_grad_()


def step_of(side: str, name: str, items: int, positives: int) -> tuple[Callable[[], float], tuple[Any, ...]]:
    """A step from leaves: the loss of vectors and labels, and its gradient."""
    import torch

    audio, text = vectors(items, 0), vectors(items, 1)
    if side == "bare":
        return lambda: bare_products(audio.detach(), text.detach(), products=positives), ()
    from xmodal.losses import EmbeddingLoss, InfoNCELoss, StreamedLoss, apply_loss
    from xmodal.losses.combined import decomposes

    if side == "streamed":
        streamed = StreamedLoss(InfoNCELoss())
        relevance = torch.eye(items, dtype=torch.bool)
        return lambda: backward(streamed(audio, text, relevance), audio, text), (audio, text)
    labels = torch.arange(items) // positives
    if side == "peer":
        peer, others = (
            peer_losses()[SAME_PEER.get(name, name)](),
            labels.clone(),
        )  # of one tensor for both it would take the diagonal out
        return lambda: backward(peer(audio, labels, ref_emb=text, ref_labels=others), audio, text), (audio, text)
    ours = our_losses()[name]()
    if side == "alone" and not isinstance(ours, EmbeddingLoss) and decomposes(ours):
        ours = StreamedLoss(ours)
    relevance = labels[:, None] == labels[None, :]
    return lambda: backward(apply_loss(ours, audio, text, relevance), audio, text), (audio, text)


def backward(loss: Any, *leaves: Any) -> float:
    for leaf in leaves:
        leaf.grad = None
    loss.backward()
    return float(loss.detach())


def bare_products(audio: Any, text: Any, products: int) -> float:
    """The products of a two-way loss: scores (once, or twice if there are four), and slopes times either side."""
    import torch

    from xmodal.losses.two_way import tiles_of

    gradients = torch.zeros_like(audio), torch.zeros_like(text)
    tiles = list(tiles_of(None, len(audio), len(text)))
    score = torch.empty(tiles[0][0].stop, tiles[0][1][0].stop)
    for _ in range(products - 3):
        for rows, several in tiles:
            for columns in several:
                made = score[: len(audio[rows]), : len(text[columns])]
                torch.mm(audio[rows], text[columns].T, out=made)
    for rows, several in tiles:
        for columns in several:
            made = score[: len(audio[rows]), : len(text[columns])]
            slope = torch.mm(audio[rows], text[columns].T, out=made)
            gradients[0][rows].addmm_(slope, text[columns])
            gradients[1][columns].addmm_(slope.T, audio[rows])
    return 0.0


def resident_megabytes() -> float:
    """The highest resident size so far, since the last :func:`forget_peak` where the system can forget."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def forget_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # then the baseline is the highest size of the imports, and small steps look smaller than they are
        return


def limit_address_space(gigabytes: float) -> None:
    statm = Path("/proc/self/statm")
    if statm.exists():
        now = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + int(gigabytes * 1e9), resource.getrlimit(resource.RLIMIT_AS)[1]))


def most_tensor_megabytes(step: Callable[[], float]) -> tuple[float, float]:
    """A step's value, and the most that tensors which it made held at once, by the allocator's own events."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        value = step()
    assert record.profiler is not None
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return value, most / 1e6


def measure(side: str, name: str, items: int, positives: int, gigabytes: float, clock: str) -> dict[str, Any]:
    now = time.process_time if clock == "cpu" else time.perf_counter
    if side != "bare":
        step_of(side, name, 16, positives)[0]()
    step, leaves = step_of(side, name, items, positives)
    limit_address_space(gigabytes)
    forget_peak()
    before, begun = resident_megabytes(), now()
    if side in ("streamed", "bare"):  # minutes: one step is all, and what its process takes is what counts
        value = step()
        return {"seconds": now() - begun, "megabytes": resident_megabytes() - before, "value": value}
    value, peak = most_tensor_megabytes(step)
    seconds = [now() - begun]
    if seconds[0] < 5:  # the first one has loaded code and written events
        step()
        seconds = []
        while sum(seconds) < 0.7 and len(seconds) < 20:
            for leaf in leaves:
                leaf.grad = None
            begun = now()
            step()
            seconds.append(now() - begun)
    return {"seconds": statistics.median(seconds), "megabytes": peak, "value": value}


def run_case(side: str, name: str, items: int, positives: int, options: argparse.Namespace) -> dict[str, Any]:
    """A case in a fork of this process, which has imported everything and computed nothing."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def work() -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the profiler says when it begins
        os.dup2(1, 2)
        try:
            result = measure(side, name, items, positives, options.gigabytes, options.clock)
        except (RuntimeError, MemoryError) as error:
            if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
                raise
            result = {"failed": f"more than {options.gigabytes:g} GB"}
        theirs.send(result)

    process = context.Process(target=work)
    process.start()
    theirs.close()
    try:
        if not ours.poll(options.seconds if side == "peer" else None):
            process.kill()
            return {"failed": f"more than {options.seconds:g} s"}
        return ours.recv()
    except EOFError:
        process.join()
        if process.exitcode is None or process.exitcode >= 0:
            raise SystemExit(f"{side} {name}, N = {items}, ended with code {process.exitcode}") from None
        return {"failed": f"killed by signal {-process.exitcode}"}
    finally:
        process.join()


# -- the table and the claims -----------------------------------------------------------------------------------------


def line(*cells: str) -> None:
    widths = (20, 7, 4, 10, 10, 8, 10, 10, 8)
    print(
        " ".join(
            f"{cell:<{w}}" if not i else f"{cell:>{w}}" for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
        )
    )


def figures(result: dict[str, Any]) -> tuple[str, str]:
    if "failed" in result:
        return "failed", result["failed"].removeprefix("more than ")
    return f"{result['seconds']:.4f}", f"{result['megabytes']:.1f}"


def over(ours: dict[str, Any], peer: dict[str, Any] | None, what: str) -> float | None:
    """The peer's number over ours; None where there is none."""
    if peer is None or "failed" in peer or "failed" in ours:
        return None
    return peer[what] / max(ours[what], 0.1 if what == "megabytes" else 1e-9)


def compare(
    name: str, items: int, positives: int, options: argparse.Namespace, peer: dict[str, Any] | None
) -> dict[str, Any]:
    ours = run_case("ours" if items <= 1024 else "alone", name, items, positives, options)
    faster, smaller = over(ours, peer, "seconds"), over(ours, peer, "megabytes")
    ratios = ["" if ratio is None else f"{ratio:.1f}x" for ratio in (faster, smaller)]
    peer_cells = ("", "") if peer is None else figures(peer)
    own = figures(ours)
    line(name, str(items), str(positives), own[0], peer_cells[0], ratios[0], own[1], peer_cells[1], ratios[1])
    if faster is not None and peer is not None and name not in OTHER_VALUE:
        difference = abs(ours["value"] - peer["value"]) / max(abs(peer["value"]), 1e-6)
        if difference > 1e-4:
            print(f"  values differ: ours {ours['value']:.6g}, {PEER} {peer['value']:.6g}")
    return {"ours": ours, "peer": peer, "seconds": faster, "megabytes": smaller}


def claim(text: str, ours: Any, peer: Any, ratio: float | None, goal: str, met: bool) -> None:
    short = {
        key: round(value, 5) if isinstance(value, float) else value
        for key, value in (("ours", ours), ("peer", peer), ("ratio", ratio))
    }
    print(json.dumps({"claim": text, **short, "goal": goal, "met": met}))


def claims_at(items: int, results: dict[tuple[str, int, int], dict[str, Any]]) -> None:
    for (name, at, positives), result in results.items():
        if at != items:
            continue
        head = name in FAMILIES
        for what, goal in (("seconds", 20.0 if head else 1.0), ("megabytes", 50.0 if head else 1.0)):
            ours, peer, ratio = result["ours"], result["peer"], result[what]
            words = "no slower" if what == "seconds" else "no more memory"
            if head:
                words = f"at least {goal:g} times {'faster' if what == 'seconds' else 'less memory'}"
            claim(
                f"{name}, N = {items}, {positives} positives a row: {words} than {PEER}",
                ours.get(what, ours.get("failed")),
                None if peer is None else peer.get(what, peer.get("failed")),
                ratio,
                f">= {goal:g}",
                ratio is not None and ratio >= goal,
            )


def streamed(items: int, options: argparse.Namespace) -> None:
    name = f"streamed InfoNCE, N = {items}"
    ours = run_case("streamed", "InfoNCE", items, 1, options)
    three, four = (run_case("bare", "InfoNCE", items, products, options) for products in (3, 4))
    if "failed" in ours or "failed" in three or "failed" in four:
        claim(name, ours.get("failed"), four.get("failed"), None, "<= 1.25", False)
        return
    ratio = ours["seconds"] / four["seconds"]
    print(
        f"{name}: {ours['seconds']:.1f} s, {ours['megabytes']:.0f} MB; four products {four['seconds']:.1f} s, "
        f"three {three['seconds']:.1f} s (ratio {ours['seconds'] / three['seconds']:.2f})"
    )
    text = f"{name}: time against the four matrix products of a streamed gradient"
    claim(text, ours["seconds"], four["seconds"], ratio, "<= 1.25", ratio <= 1.25)
    text = f"{name}: megabytes above its inputs"
    claim(text, ours["megabytes"], None, ours["megabytes"] / 1000, "<= 1000", ours["megabytes"] <= 1000)


def import_all(peer_there: bool) -> None:
    """Everything that a case needs, so that a fork has it; nothing is computed, which would start threads."""
    import torch  # noqa: F401

    our_losses()
    if peer_there:
        peer_losses()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="four losses at N = 256, under a minute")
    parser.add_argument("--only", nargs="+", metavar="LOSS", help="these losses alone")
    parser.add_argument("--sizes", nargs="+", type=int, help="N beside the peer (default 128 256 512 1024)")
    parser.add_argument("--alone", nargs="*", type=int, help="N of xmodal alone (default 2048 4096 8192 16384)")
    parser.add_argument("--streamed", type=int, default=65_536, help="N of the streamed loss; 0 leaves it out")
    parser.add_argument("--gigabytes", type=float, default=16.0, help="address space of a case (default 16)")
    parser.add_argument("--seconds", type=float, default=300.0, help="time of a case of the peer (default 300)")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="what counts as time (default wall)")
    options = parser.parse_args()

    peer_there = importlib.util.find_spec("pytorch_metric_learning") is not None
    names = options.only or (list(QUICK) if options.quick else list(our_losses()))
    sizes = options.sizes or ([256] if options.quick else [128, 256, 512, 1024])
    alone = options.alone if options.alone is not None else [] if options.quick else [2048, 4096, 8192, 16384]
    judged = 512 if 512 in sizes else sizes[-1]
    with_peer = f"{PEER} {importlib.metadata.version(PEER)}" if peer_there else f"{PEER} is not installed: ours alone"
    torch_version = importlib.metadata.version("torch")
    print(f"torch {torch_version}, {platform.machine()}, {options.clock} time, D = {DIM}; {with_peer}")
    line("loss", "N", "pos", "ours s", "peer s", "", "ours MB", "peer MB", "")
    import_all(peer_there)
    results: dict[tuple[str, int, int], dict[str, Any]] = {}
    for name in names:
        for positives in [4] if options.quick else [1, 4]:
            goes_on = peer_there
            for items in sizes:
                same = results.get((SAME_PEER.get(name, ""), items, positives))
                if same is not None:
                    peer = same["peer"]
                else:
                    peer = run_case("peer", name, items, positives, options) if goes_on else None
                results[name, items, positives] = compare(name, items, positives, options, peer)
                goes_on = goes_on and peer is not None and "failed" not in peer  # and so it does at every larger N
    for name in names:
        for positives in [1, 4] if name not in SAME_PEER else []:
            for items in alone:
                compare(name, items, positives, options, None)
    claims_at(judged, results)
    if options.streamed and not options.quick:
        streamed(options.streamed, options)


if __name__ == "__main__":
    main()
