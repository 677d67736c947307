"""Every objective trains the demo's model from YAML, with the same music, steps and seeds.

    python benchmarks/losses_train.py --corpus corpora/losses --out losses.jsonl
    python benchmarks/losses_train.py --corpus corpora/losses --out losses.jsonl --quick    # three losses, a few steps

The first run composes the corpus (it needs ``xmodal[demo]``). One process loads the encoder, every window's log-mel
and what the encoder says of every text; each objective and seed is a fork of it, which trains ``configs/base.yaml``
with ``configs/demo.yaml`` and the objective's own lines, smaller: a tower of half the width, frames of 60 ms, batches
of 64, one caption a track and 32 prompts, no validation. It is judged on the held-out clips as it is after the last
step. Its row goes into ``--out``; rows that are there are not trained again, so a run that was stopped goes on, and a
further call prints the table, with ``--markdown`` as it stands in docs/results.md; ``--table`` does that alone.

Seconds a step are processor time of one thread, which other programs hardly disturb; memory is the highest resident
size less that of the warm process.

Arguments are the classes' defaults, with ``--grid`` some others too. Miners and terms beside a loss stand in a
``CombinedObjective``: a term with weight 0.1 beside ``InfoNCELoss``, a miner with the loss of its paper.

The budget is small and the same for all, and no loss has its learning rate tuned: the table says that an objective
trains, what a step of it costs and what to expect before tuning; not which objective is best.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

GRID: dict[str, list[dict[str, Any]]] = {
    "InfoNCELoss": [{"temperature": 0.05}, {"temperature": 0.1}, {"temperature": 0.2}],
    "SigLIPLoss": [{"bias": -4.0}, {"bias": -4.0, "temperature": 0.05}, {"bias": -6.0, "temperature": 0.05}],
    "TripletLoss": [
        {"margin": 0.2},
        {"margin": 0.3},
        {"mining": "all", "margin": 0.2},
        {"mining": "hard", "margin": 0.2},
    ],
    "ContrastiveLoss": [{"margin": 1.2}, {"margin": 1.4}, {"distance": "cosine", "margin": 0.8}],
    "BlackboxRankLoss": [{"step": 4.0}, {"step": 20.0}, {"step": 100.0}],
    "MultiSimilarityLoss": [{"base": 0.2}, {"base": 0.1, "beta": 20.0}],
    "ProxyGraphLoss": [{"dim": 256, "neighbours": 0.5}],
    "CircleLoss": [{"scale": 32.0}, {"margin": 0.4, "scale": 32.0}],
}
"""Other arguments than the defaults, for --grid."""

QUICK = ("InfoNCELoss", "TripletLoss", "InfoNCELoss + SpreadOutRegularizer")
FIGURES = {
    "text→audio R@10": "test/text_to_audio/R@10",
    "mAP@10": "test/text_to_audio/mAP@10",
    "audio→text R@10": "test/audio_to_text/R@10",
    "mAP@10 ": "test/audio_to_text/mAP@10",
}
PARTNERS: dict[str, dict[str, Any]] = {
    "DistanceBinMiner": {"class_path": "xmodal.losses.MarginLoss"},
    "DistanceWeightedMiner": {"class_path": "xmodal.losses.MarginLoss"},
    "HardNegativeMiner": {"class_path": "xmodal.losses.TripletLoss", "init_args": {"mining": "all"}},
    "HardPairMiner": {"class_path": "xmodal.losses.ContrastiveLoss"},
    "MultiSimilarityMiner": {"class_path": "xmodal.losses.MultiSimilarityLoss"},
    "OnlineSoftMiner": {"class_path": "xmodal.losses.ContrastiveLoss", "init_args": {"margin": 1.2}},
}
INFONCE = {"class_path": "xmodal.losses.InfoNCELoss"}
SMALLER = {"hop": 960, "width": 0.5}
SMALLER_BATCH = {"batch_size": 64, "evaluation_batch_size": 128, "training_captions": 1, "tag_prompts": 32}


def objectives() -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Configs of the objectives that a batch of captions can train, and the others with the reason."""
    from xmodal import losses
    from xmodal.losses.coverage import example_config, is_added, public_classes

    configs, left_out = {"InfoNCELoss": INFONCE}, {}
    for name in public_classes():
        config, kind = example_config(name), getattr(losses, name)
        if issubclass(kind, losses.CrossModalMemory):
            configs[f"InfoNCELoss + {name}"] = combined([INFONCE], memory=config)
        elif name == "CombinedObjective":
            left_out[name] = "is what the rows with a + are"
        elif issubclass(kind, losses.Miner):
            partner = PARTNERS.get(name, INFONCE)
            configs[f"{partner['class_path'].rpartition('.')[2]} + {name}"] = combined([partner], miner=config)
        elif is_added(name) or name == "HighOrderLoss":  # which is a regulariser by its paper's own word
            configs[f"InfoNCELoss + {name}"] = combined([INFONCE, config], weights=[1.0, 0.1])
        else:
            configs[name] = config
    return configs, left_out


def variations() -> dict[str, dict[str, Any]]:
    """The losses of the grid, named by their arguments."""
    return {
        f"{name} {', '.join(f'{key} {value}' for key, value in arguments.items())}": {
            "class_path": f"xmodal.losses.{name}",
            "init_args": arguments,
        }
        for name, of_loss in GRID.items()
        for arguments in of_loss
    }


def combined(losses: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"class_path": "xmodal.losses.CombinedObjective", "init_args": {"losses": losses, **more}}


# -- one objective and seed, in a process of its own ------------------------------------------------------------------


class StepClock(pl.Callback):
    """Processor seconds of each training step: forward, backward and update, without the loader."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._begun = 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        self._begun = time.process_time()

    def on_train_batch_end(self, *_: Any) -> None:
        self.seconds.append(time.process_time() - self._begun)


class SharedReadings(pl.Callback):
    """Hands the texts that were read once to a module that would read them again."""

    def on_fit_start(self, _trainer: pl.Trainer, pl_module: Any) -> None:
        pl_module._readings.known |= SHARED.readings


@dataclass
class Shared:
    """What every run needs and none changes; made once, and inherited by the processes that train."""

    windows: dict[str, Any] = field(default_factory=dict)
    readings: dict[str, Any] = field(default_factory=dict)


SHARED = Shared()


def warm_up(manifest: str) -> None:
    """Load the encoder, every window's log-mel and what the encoder says of every text that may be drawn."""
    import torch

    torch.set_num_threads(1)  # before the first parallel loop: processes are forked from here
    from xmodal.data.module import AudioTextData
    from xmodal.model import TwoTower
    from xmodal.text import tag_prompts
    from xmodal.towers import MobileCnn, SentenceTransformerTower, sentence_transformer

    sentence_transformer._load = functools.cache(sentence_transformer._load)
    settings = objective_config(INFONCE, 0, manifest, 1)["model"]
    audio = MobileCnn(**{k: v for k, v in settings["audio"]["init_args"].items() if k != "augment"})
    text = SentenceTransformerTower(**settings["text"]["init_args"])
    network = TwoTower(audio, text, settings["dim"], window_seconds=settings["window_seconds"])
    data = AudioTextData(manifest, workers=0)
    data.splits = data.read()
    for split in data.splits:
        SHARED.windows[split] = data._windows(split, audio, network.windows, None)
    AudioTextData._windows = lambda _self, split, *_: SHARED.windows[split]
    tracks = [track for of_split in data.splits.values() for track in of_split]
    words = {caption.text for track in tracks for caption in track.captions}
    words |= {p for track in tracks for kind, tags in track.tags.items() for t in tags for p in tag_prompts(t, kind)}
    unread = sorted(words, key=len)
    for first in range(0, len(unread), 128):
        chunk = unread[first : first + 128]
        read = text.read(text.tokenize(chunk), half=True)
        SHARED.readings |= {each: reading.half() for each, reading in zip(chunk, read, strict=True)}


def objective_config(loss: dict[str, Any], seed: int, manifest: str, steps: int) -> dict[str, Any]:
    """The lines over ``configs/base.yaml``: those of ``configs/demo.yaml``, smaller, with the objective."""
    import yaml

    from xmodal.training import config_folder

    config = yaml.safe_load((config_folder() / "demo.yaml").read_text(encoding="utf-8"))
    config["model"]["audio"]["init_args"] |= SMALLER
    if "AttentionConsistency" in json.dumps(loss):
        config["model"]["audio"]["init_args"]["pooling"] = {"class_path": "xmodal.towers.AttentionPool"}
    config["model"]["centred"] = True  # losses with a margin do not leave the cone in so few steps without
    config["model"]["loss"] = loss  # in its place: arguments of the loss that stood there must not stay
    config["data"] |= {"manifest": manifest, "seed": seed, "workers": 0, "cache": "memory"} | SMALLER_BATCH
    config["seed_everything"] = seed
    config["trainer"] |= {
        "max_steps": steps,
        "max_epochs": -1,
        "limit_val_batches": 0,
        "logger": False,
        "callbacks": [{"class_path": "losses_train.StepClock"}, {"class_path": "losses_train.SharedReadings"}],
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return config


def train(loss: dict[str, Any], seed: int, manifest: str, steps: int) -> dict[str, Any]:
    import yaml

    from xmodal.training import config_folder, run

    config = objective_config(loss, seed, manifest, steps)
    forget_peak()
    before = resident_megabytes()
    with tempfile.TemporaryDirectory() as folder:
        config["trainer"]["default_root_dir"] = folder
        path = Path(folder) / "objective.yaml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        cli = run(["fit", "--config", str(config_folder() / "base.yaml"), "--config", str(path)])
        clock = next(each for each in cli.trainer.callbacks if isinstance(each, StepClock))
        peak = resident_megabytes() - before
        figures = cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)[0]
    return {
        "figures": {name: figures[key] for name, key in FIGURES.items()},
        "held_out": len(cli.datamodule.read()["test"]),
        "seconds_a_step": statistics.median(clock.seconds[1:] or clock.seconds),
        "peak_megabytes": peak,
    }


def train_apart(name: str, loss: dict[str, Any], seed: int, manifest: Path, steps: int) -> dict[str, Any]:
    """Train in a fork of this warm process."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def work() -> None:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            try:
                result = train(loss, seed, str(manifest), steps)
            except BaseException as error:  # whatever it was, it is this objective's result
                result = {"failed": (str(error) or type(error).__name__).strip().splitlines()[-1]}
        theirs.send(result | {"seconds": time.process_time()})

    process = context.Process(target=work)
    process.start()
    theirs.close()
    try:
        result = ours.recv()
    except EOFError:
        process.join()
        result = {"failed": f"ended with code {process.exitcode}"}
    process.join()
    return result


def resident_megabytes() -> float:
    """The highest resident size since the last :func:`forget_peak`."""
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


# -- all of them ------------------------------------------------------------------------------------------------------


def read_rows(path: Path) -> dict[tuple[str, int, int, int], dict[str, Any]]:
    """What is finished; of rows with the same key the last."""
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {(row["objective"], row["seed"], row["steps"], row["clips"]): row for row in rows if "failed" not in row}


def spread(values: list[float], digits: int) -> str:
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def print_rows(rows: list[list[str]], *, markdown: bool = False) -> None:
    if markdown:
        for row in (rows[0], ["---", *["---:"] * (len(rows[0]) - 1)], *rows[1:]):
            print(f"| {' | '.join(cell.strip() for cell in row)} |")
        return
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def print_table(rows: list[dict[str, Any]], *, markdown: bool = False) -> None:
    by_objective: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_objective.setdefault(row["objective"], []).append(row)
    table = [["objective", "seeds", *FIGURES, "s a step", "peak MB"]]
    order = sorted(by_objective, key=lambda n: -statistics.mean(r["figures"]["mAP@10"] for r in by_objective[n]))
    for name in order:
        runs = by_objective[name]
        table.append(
            [
                name,
                str(len(runs)),
                *(spread([row["figures"][figure] for row in runs], 3) for figure in FIGURES),
                spread([row["seconds_a_step"] for row in runs], 2),
                spread([row["peak_megabytes"] for row in runs], 0),
            ]
        )
    print_rows(table, markdown=markdown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, help="the corpus, or where to compose it")
    parser.add_argument("--out", type=Path, help="the file of rows, .jsonl")
    parser.add_argument("--clips", type=int, help="clips of the corpus (default 1000; quick: 60)")
    parser.add_argument("--steps", type=int, help="steps of training (default 60; quick: 3)")
    parser.add_argument("--seeds", type=int, help="seeds an objective (default 3; quick: 1)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these objectives alone")
    parser.add_argument("--grid", action="store_true", help="other arguments of some losses, beside their defaults")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--table", action="store_true", help="train nothing: print the rows that are there")
    parser.add_argument("--quick", action="store_true", help="three objectives, a few steps: to see that it works")
    options = parser.parse_args()
    if options.corpus is None or options.out is None:
        parser.error("--corpus and --out are needed")

    clips = options.clips or (60 if options.quick else 1000)
    steps = options.steps or (3 if options.quick else 60)
    seeds = options.seeds or (1 if options.quick else 3)
    configs, left_out = objectives()
    if options.grid:
        configs |= variations()
    sys.modules["losses_train"] = sys.modules[__name__]  # the callbacks' class_path, and not a second copy of them
    chosen = [*GRID, *variations()] if options.grid else list(QUICK) if options.quick else list(configs)
    names = options.only or chosen
    unknown = sorted(set(names) - set(configs))
    if unknown:
        parser.error(f"no objective is called {unknown[0]!r}; there are: {', '.join(configs)}")

    from xmodal.data.demo import build_corpus

    done = read_rows(options.out)
    if options.table:
        print_table([row for key, row in done.items() if key[2:] == (steps, clips)], markdown=options.markdown)
        return
    manifest = build_corpus(options.corpus, clips=clips).manifest
    options.out.parent.mkdir(parents=True, exist_ok=True)
    failed = []
    for seed in range(seeds):
        for name in names:
            key = (name, seed, steps, clips)
            if key in done:
                continue
            if not SHARED.windows:
                warm_up(str(manifest))
            print(f"{name}, seed {seed}", end=": ", flush=True)
            result = train_apart(name, configs[name], seed, manifest, steps)
            row = {"objective": name, "seed": seed, "steps": steps, "clips": clips, "loss": configs[name], **result}
            with options.out.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(row) + "\n")
            print(row.get("failed") or f"mAP@10 {row['figures']['mAP@10']:.3f}, {row['seconds']:.1f} s", flush=True)
            if "failed" in row:
                failed.append(f"{name}, seed {seed}: {row['failed']}")
            else:
                done[key] = row
    rows = [row for key, row in done.items() if key[0] in names and key[1] < seeds and key[2:] == (steps, clips)]
    if rows:
        held_out = rows[0]["held_out"]
        print(f"\n{clips} clips, {held_out} held out (chance R@10 {min(1.0, 10 / held_out):.3f}), {steps} steps")
        print_table(rows, markdown=options.markdown)
    if options.only is None and not options.quick:
        for name, reason in left_out.items():
            print(f"left out: {name} {reason}")
    for line in failed:
        print(f"failed: {line}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
