"""What several processes find out together, for ``test_processes.py``: one start of Python, forked into them all.

python tests/training/processes.py OUTPUT_FOLDER MANIFEST FREE_PORT
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from embedding_cases import DIM, EMBEDDING_CASES
from loss_batches import pick
from loss_cases import CASES
from plain_tower import PlainTower
from pytorch_lightning.plugins import DoublePrecision

from xmodal import losses
from xmodal.data.datasets import BatchFacts
from xmodal.data.module import AudioTextData
from xmodal.errors import AudioError
from xmodal.losses import apply_loss, needs_of
from xmodal.towers import HashedBagOfWordsTower
from xmodal.training import AlignmentModule, FullyShardedStrategy, command, config_folder, run, run_folder
from xmodal.training.contrast import Contrast, contrasts_of
from xmodal.training.draws import seeded_draws
from xmodal.training.gather import gather_rows, process_count, process_rank
from xmodal.training.local import has_local_form, local_loss
from xmodal.training.resume import next_version
from xmodal.training.sharding import local

CPU = torch.device("cpu")
Work = Callable[[Path, str], dict[str, Any]]
LIMIT = 240  # seconds of the clock after which a process that still waits says where, and ends
AUDIO_COUNTS, TEXT_COUNTS = [3, 0, 4], [4, 0, 5]  # the second process could decode nothing
MINED = {
    "miner that draws": lambda: losses.CombinedObjective(
        [losses.ContrastiveLoss(), losses.InfoNCELoss()], miner=losses.DistanceWeightedMiner(DIM)
    ),
    "triplet, streamed": lambda: losses.StreamedLoss(losses.TripletLoss(mining="all"), 2),
}


def objectives() -> dict[str, Callable[[], torch.nn.Module]]:
    """Every objective that needs no more than the vectors of a batch."""
    cases = {case.name: case.make for case in [*CASES, *EMBEDDING_CASES]} | MINED
    return {name: make for name, make in cases.items() if not needs_of(make())}


def vectors(seed: int, items: int) -> torch.Tensor:
    return torch.randn((items, DIM), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.2


def every_objective() -> dict[str, dict[str, float]]:
    """By objective the largest difference from one process, of the value and of every gradient, gathered and local."""
    audio, text = vectors(0, sum(AUDIO_COUNTS)), vectors(1, sum(TEXT_COUNTS))
    shape = len(audio), len(text)
    relevance = pick(2, *shape, [0, 0, 0, 0.5, 1])
    valid = pick(3, *shape, [0, 1, 1, 1, 1]).bool()
    rank = process_rank()
    rows = slice(sum(AUDIO_COUNTS[:rank]), sum(AUDIO_COUNTS[: rank + 1]))
    columns = slice(sum(TEXT_COUNTS[:rank]), sum(TEXT_COUNTS[: rank + 1]))
    found = {}
    for name, make in objectives().items():
        torch.manual_seed(0)
        one = make().double()
        whole = [each.clone().requires_grad_() for each in (audio, text)]
        with seeded_draws(CPU, name):
            value = apply_loss(one, *whole, relevance, valid)
        value.backward()
        wanted = [each.grad[part] for each, part in zip(whole, (rows, columns), strict=True)]
        wanted += [torch.zeros_like(each) if each.grad is None else each.grad for each in one.parameters()]
        found[name] = {}
        for form in ["gathered", "local"] if has_local_form(one) else ["gathered"]:
            torch.manual_seed(0)
            loss = make().double()
            own = [audio[rows].clone().requires_grad_(), text[columns].clone().requires_grad_()]
            if form == "gathered":
                with seeded_draws(CPU, name):
                    total = apply_loss(loss, *(gather_rows(each) for each in own), relevance, valid)
                shown = total.detach()
            else:
                all_audio, all_text = (gather_rows(each, parts=True) for each in own)
                total, shown = local_loss(
                    loss,
                    Contrast(own[0], all_text, relevance[rows], valid[rows]),
                    Contrast(all_audio, own[1], relevance[:, columns], valid[:, columns]),
                )
            total.backward()
            gradients = [each.grad / process_count() for each in own]  # the strategy's average, of one process's share
            for parameter in loss.parameters():
                average = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
                dist.all_reduce(average)
                gradients.append(average / process_count())
            differences = [(shown - value.detach()).abs().item()]
            differences += [
                (got - want).abs().max().item() for got, want in zip(gradients, wanted, strict=True) if got.numel()
            ]
            found[name][form] = max(differences)
    return found


def relevance_of_everybody(manifest: str) -> dict[str, bool]:
    """Whether the processes' batches are judged as one batch of one process is."""
    data, module = tone_data(manifest, tag_prompts=3, batch_size=4), tiny_module()
    data.prepare("fit", module.network.audio, module.network.windows)
    assert data.training_set is not None
    batches = [data.training_set.__getitems__([(index, 0) for index in keys]) for keys in ([0, 1, 2], [5], [7, 3])]
    everything = BatchFacts.joined([batch.facts for batch in batches])
    right, prompt_right, prompt_valid = data.training_set.judge(everything, everything)
    mine = batches[process_rank()]
    sides = [torch.zeros(len(part), 2) for part in (mine.features, mine.texts, mine.prompts)]
    whole = contrasts_of(mine, *sides, data.training_set.judge, local=False)
    local = contrasts_of(mine, *sides, data.training_set.judge, local=True)
    counts = [[len(getattr(batch.facts, name)) for batch in batches] for name in ("rows", "captions", "prompts")]
    own = [slice(sum(each[: process_rank()]), sum(each[: process_rank() + 1])) for each in counts]
    return {
        "captions": torch.equal(whole.captions[0].relevance, right),
        "prompts": torch.equal(whole.prompts[0].relevance, prompt_right),
        "unknown": torch.equal(whole.prompts[0].valid, prompt_valid),
        "own rows": torch.equal(local.captions[0].relevance, right[own[0]]),
        "own columns": torch.equal(local.captions[1].relevance, right[:, own[1]]),
        "own prompt columns": torch.equal(local.prompts[1].valid, prompt_valid[:, own[2]]),
        "more than the own are right": bool(right.sum() > sum(batch.relevance.sum() for batch in batches)),
    }


def tiny_module(**settings: Any) -> AlignmentModule:
    torch.manual_seed(0)
    text = HashedBagOfWordsTower(buckets=50, embed_dim=8, feature_dim=8)
    settings = {"learning_rate": 1e-2, "prompt_weight": 1.0} | settings
    return AlignmentModule(
        PlainTower(), text, settings.pop("loss", losses.InfoNCELoss()), 8, window_seconds=1.0, **settings
    )


def tone_data(manifest: str, **settings: Any) -> AudioTextData:
    settings = {"tag_fields": ["pitch", "motion"], "workers": 0, "tag_prompts": 0, "cache": "none"} | settings
    return AudioTextData(manifest, evaluation_batch_size=5, decode_seconds=None, **settings)


class WithNoFiles(AudioTextData):
    """All files but one break after the first epoch, so that later batches have nothing to tell apart."""

    def setup(self, stage: str) -> None:
        super().setup(stage)
        assert self.training_set is not None
        windows, good = self.training_set.windows, self.training_set.rows[4]
        decode = windows.random_window

        def random_window(row: int, draw: float) -> Any:
            gone = self.trainer is not None and self.trainer.current_epoch > 0 and row != good
            return AudioError(self.training_set.tracks[row].path, "gone") if gone else decode(row, draw)

        windows.random_window = random_window


class WithBadFiles(AudioTextData):
    """Some files break between the first look at them and training."""

    def setup(self, stage: str) -> None:
        super().setup(stage)
        assert self.training_set is not None
        windows, bad = self.training_set.windows, set(self.training_set.rows[:9])
        decode = windows.random_window

        def random_window(row: int, draw: float) -> Any:
            return AudioError(self.training_set.tracks[row].path, "gone") if row in bad else decode(row, draw)

        windows.random_window = random_window


def fit(folder: Path, manifest: str, processes: int, **settings: Any) -> dict[str, Any]:
    """Weights after two epochs and the last validation's metrics, on one process or on all that are here."""
    data_class = settings.pop("data", AudioTextData)
    prompts = settings.pop("tag_prompts", 0)
    validation = settings.pop("validation", True)
    sharded = settings.pop("sharded", False) and processes > 1
    if isinstance(settings.get("loss"), FunctionType):
        settings["loss"] = settings["loss"]()
    module = tiny_module(**settings)
    data = data_class(
        manifest,
        tag_fields=["pitch", "motion"],
        workers=0,
        cache="none",
        decode_seconds=None,  # a process to decode in would be started by each, and costs more than what they learn
        tag_prompts=prompts,
        evaluation_batch_size=5,
        batch_size=12 // processes,
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=processes,
        strategy=FullyShardedStrategy() if sharded else "ddp" if processes > 1 else "auto",
        plugins=[DoublePrecision()],  # Lightning refuses the word for it beside a strategy that splits weights
        max_epochs=2,
        logger=False,
        limit_val_batches=None if validation else 0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )
    trainer.fit(module, datamodule=data)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return {"weights": trainer.strategy.lightning_module_state_dict(), "metrics": metrics, "held": held(trainer)}


def held(trainer: pl.Trainer) -> tuple[int, int]:
    """Bytes of weights and of the optimiser's moments that this process holds, and those of the whole network."""
    module, states = trainer.lightning_module, trainer.optimizers[0].state
    tensors = [each for each in module.parameters() if each.requires_grad]
    tensors += [states[each][name] for each in tensors for name in ("exp_avg", "exp_avg_sq")]
    return sum(local(each).nbytes for each in tensors), sum(each.numel() * each.element_size() for each in tensors)


FITS: dict[str, dict[str, Any]] = {
    "plain": {},
    "local": {"local_loss": True},
    "chunks": {"chunk_size": 2},
    "streamed": {"loss": losses.StreamedLoss(losses.InfoNCELoss(), 3)},
    "bad files": {"data": WithBadFiles},
    "no files": {"data": WithNoFiles},
    "sharded": {"sharded": True},
    "sharded, checkpointed": {"sharded": True, "gradient_checkpointing": True},
    "sharded, chunks, bad files": {"sharded": True, "chunk_size": 1, "data": WithBadFiles},
    "sharded, no files": {"sharded": True, "data": WithNoFiles},
}
# What looks beyond the vectors of a batch: a memory and its keys, the vocabulary, the features before the projection.
# The memory holds two batches, so that it is what it is whatever the order of the rows within one.
NEEDS: dict[str, dict[str, Any]] = {
    "memory and keys": {"loss": lambda: remembering(losses.InfoNCELoss()), "key_momentum": 0.5},
    "anchors in a graph": {"loss": lambda: losses.ProxyGraphLoss(8, per_concept=2, neighbours=0.5)},
    "groups of concepts": {"loss": lambda: losses.MetaClassLoss(2, 4)},
    "head on features": {"loss": lambda: losses.InterclassHead(8, 8, width=4, clusters=2)},
    "several": {
        "loss": lambda: remembering(
            losses.LearnedAnchors(losses.SigLIPLoss(), 8), losses.JointRepresentationRegularizer(2)
        )
    },
}


def remembering(*parts: torch.nn.Module) -> losses.CombinedObjective:
    return losses.CombinedObjective(list(parts), memory=losses.CrossModalMemory(8, size=24))


class StopAfter(pl.Callback):
    """Ends a run early, as somebody would by hand."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.global_step == self.steps


def by_yaml(
    folder: Path, manifest: str, processes: int, name: str, *more: str, stop: int | None = None
) -> dict[str, Any]:
    """As :func:`fit`, through the command line and its YAML."""
    configs = [word for name in ("base.yaml", "smoke.yaml") for word in ("--config", str(config_folder() / name))]
    words = ["fit", *configs, "--data.manifest", manifest, "--data.tag_fields", "[pitch,motion]"]
    words += ["--runs", str(folder), "--name", name, "--model.audio", "plain_tower.PlainTower"]
    words += ["--trainer.accelerator", "cpu", "--trainer.devices", str(processes), "--trainer.precision", "null"]
    words += ["--trainer.plugins+", "pytorch_lightning.plugins.DoublePrecision"]
    words += ["--data.batch_size", str(12 // processes), "--data.tag_prompts", "0", "--model.ema_decay", "0.9"]
    words += ["--data.decode_seconds", "null", "--trainer.gradient_clip_val", "0.05", *more]
    cli = run(words, callbacks=[] if stop is None else [StopAfter(stop)])
    return {
        "weights": cli.trainer.strategy.lightning_module_state_dict(),
        "average": cli.model.averaged.state_dict()["values"],
        "metrics": {name: float(value) for name, value in cli.trainer.callback_metrics.items()},
        "folder": str(run_folder(cli.trainer)),
    }


DDP = ("--trainer.strategy", "ddp")
SHARDED = ("--trainer.strategy", "xmodal.training.FullyShardedStrategy")


def one_process(folder: Path, manifest: str) -> dict[str, Any]:
    alone = {name: FITS[name] for name in ("plain", "bad files", "no files")} | NEEDS
    found = {name: fit(folder, manifest, 1, validation=name in FITS, **settings) for name, settings in alone.items()}
    return found | {"by YAML": by_yaml(folder, manifest, 1, "alone")}


def many_processes(folder: Path, manifest: str) -> dict[str, Any]:
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=count)
    found: dict[str, Any] = {"objectives": every_objective(), "relevance": relevance_of_everybody(manifest)}
    dist.destroy_process_group()
    for name, settings in (FITS | NEEDS).items():
        found[name] = fit(folder, manifest, 3, validation=name in FITS, **settings)
    # As if other runs of the name began while these processes started.
    command.next_version = lambda _: 7 + rank
    found["by YAML"] = by_yaml(folder, manifest, 3, "ddp", *DDP)
    command.next_version = next_version
    by_yaml(folder, manifest, 3, "sharded", *SHARDED, stop=2)
    for name, sharded in (("with prompts", False), ("with prompts, sharded", True)):
        found[name] = fit(folder, manifest, 3, tag_prompts=3, local_loss=True, sharded=sharded)
    return found


def resumed(folder: Path, manifest: str) -> dict[str, Any]:
    """One process goes on where the sharded run stopped."""
    stopped = str(folder / "copy" / "version_0")
    return {"resumed by YAML": by_yaml(folder, manifest, 1, "copy", "--resume", stopped)}


def resumed_in_many(folder: Path, manifest: str) -> dict[str, Any]:
    """Several go on, sharded."""
    stopped = str(folder / "sharded" / "version_0")
    return {"resumed by YAML": by_yaml(folder, manifest, 3, "sharded", *SHARDED, "--resume", stopped)}


def warm_up(folder: Path, manifest: str) -> None:
    """Load here, once, what a run of the command line loads when it begins and ends, and not in every process."""
    for late in ("xmodal.doctor.pictures", "torch.utils.tensorboard"):
        importlib.import_module(late)
    configs = [word for name in ("base.yaml", "smoke.yaml") for word in ("--config", str(config_folder() / name))]
    command.build([*configs, "--data.manifest", manifest, "--runs", str(folder), "--trainer.accelerator", "cpu"])


def main(folder: Path, manifest: str) -> int:
    torch.set_num_threads(1)
    warm_up(folder, manifest)
    if together(folder, manifest, one_process, many_processes, ""):
        return 1
    shutil.copytree(folder / "sharded", folder / "copy")
    return together(folder, manifest, resumed, resumed_in_many, " resumed")


def together(folder: Path, manifest: str, single: Work, many: Work, suffix: str) -> int:
    """Do one kind of work in a process of its own and another in three that know of one another, all at once."""
    count = 3
    children = []
    for rank in range(-1, count):
        child = os.fork()
        if child:
            children.append(child)
            continue
        status = 1
        faulthandler.dump_traceback_later(LIMIT, exit=True)
        try:
            if rank < 0:
                torch.save(single(folder, manifest), folder / f"single{suffix}.pt")
            else:
                # What torchrun sets; Lightning takes its place among the processes from it.
                place = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": count}
                place |= {"LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "test"}
                os.environ |= {name: str(value) for name, value in place.items()} | {"MASTER_PORT": sys.argv[3]}
                torch.save(many(folder, manifest), folder / f"rank{rank}{suffix}.pt")
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    # One that fails leaves the others waiting for it: the first failure ends them all.
    failed = 0
    while children:
        child, status = os.wait()
        children.remove(child)
        if status:
            failed = 1
            for other in children:
                os.kill(other, 9)
    return failed


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
