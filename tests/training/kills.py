"""Runs that are killed and go on, for ``test_kills.py``: one start of Python, forked into every run.

PYTHONPATH=.:tests/training python tests/training/kills.py OUTPUT_FOLDER MANIFEST
"""

from __future__ import annotations

import logging
import os
import random
import select
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from plain_tower import PlainTower

from xmodal import losses
from xmodal.data.module import AudioTextData
from xmodal.towers import HashedBagOfWordsTower
from xmodal.training import AlignmentModule, Checkpoints, CsvCurves, checkpoints

SCENARIOS: dict[str, dict[str, Any]] = {
    "steps": {"checkpoints": {"every_n_steps": 2}, "trainer": {"max_epochs": 6}},
    "validations": {"checkpoints": {"every_n_steps": 2}, "trainer": {"max_epochs": 6, "val_check_interval": 2}},
    "accumulated": {
        "checkpoints": {"every_n_steps": 1},
        "trainer": {"max_steps": 14, "max_epochs": None, "accumulate_grad_batches": 2},
    },
}
KILLS = {"steps": 10, "validations": 7, "accumulated": 7}


def module() -> AlignmentModule:
    """Everything that has a state: dropout, a memory, a miner that draws, a momentum encoder, an average."""
    torch.manual_seed(0)
    memory = losses.CrossModalMemory(8, 12)
    loss = losses.CombinedObjective(
        [losses.InfoNCELoss(), losses.ContrastiveLoss()], miner=losses.DistanceWeightedMiner(8), memory=memory
    )
    text = HashedBagOfWordsTower(buckets=50, embed_dim=8, feature_dim=8)
    settings = {"ema_decay": 0.9, "key_momentum": 0.9, "dropout": 0.2, "text_hidden": 6, "learning_rate": 1e-2}
    return AlignmentModule(PlainTower(dropout=0.3), text, loss, 8, window_seconds=1.0, **settings)


def prepared(manifest: str) -> AudioTextData:
    data = AudioTextData(
        manifest, tag_fields=["pitch", "motion"], workers=0, batch_size=5, tag_prompts=3, evaluation_batch_size=5
    )
    network = module().network
    data.prepare("fit", network.audio, network.windows)
    return data


class Pulse(pl.Callback):
    """A byte for each step."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe

    def on_train_batch_start(self, *arguments: Any) -> None:
        os.write(self.pipe, b".")


def train(folder: Path, data: AudioTextData, scenario: str, pipe: int, kill_at: int | None) -> None:
    """A run from its last good checkpoint to its end, or to the nth place where a file is written."""
    start, _ = checkpoints.last_good(folder / "runs" / "run" / "version_0" / "checkpoints")
    if kill_at is not None:
        _kill_at(kill_at)
    options = {"accelerator": "cpu", "num_sanity_val_steps": 0, "enable_progress_bar": False, "log_every_n_steps": 1}
    pl.seed_everything(3, verbose=False)
    trainer = pl.Trainer(
        logger=CsvCurves(str(folder / "runs"), "run", 0),
        callbacks=[Pulse(pipe), Checkpoints(**SCENARIOS[scenario]["checkpoints"])],
        enable_model_summary=False,
        use_distributed_sampler=False,
        **options,
        **SCENARIOS[scenario]["trainer"],
    )
    trainer.fit(module(), datamodule=data, ckpt_path=start)


def _kill_at(moment: int) -> None:
    """SIGKILL at the nth of the places where a file is written or gets its name, before, within or after it."""
    count = 0
    replace, save = os.replace, torch.save

    def reached() -> bool:
        nonlocal count
        count += 1
        return count == moment

    def killing_replace(*arguments: Any) -> None:
        if reached():
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*arguments)
        if reached():
            os.kill(os.getpid(), signal.SIGKILL)

    def killing_save(checkpoint: Any, file: Any) -> None:
        if reached():
            file.write(b"half of it")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        save(checkpoint, file)

    os.replace, torch.save = killing_replace, killing_save


def fork(folder: Path, data: AudioTextData, scenario: str, kill_at: int | None = None) -> tuple[int, int]:
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    status = 1
    try:
        train(folder, data, scenario, writer, kill_at)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def interrupted(folder: Path, data: AudioTextData, scenario: str, rng: random.Random) -> int:
    """Kill and go on until nothing is left to kill; how many were killed."""
    killed = 0
    while True:
        at_a_file = killed % 3 == 2  # a third of the kills at files, where moments are short
        patience = rng.randint(1, 3 if scenario == "steps" else 6)
        child, pulse = fork(folder, data, scenario, rng.randint(2, 14) if at_a_file else None)
        if killed < KILLS[scenario] and not at_a_file:
            beats = 0
            while beats < patience and select.select([pulse], [], [], 60)[0]:
                beat = os.read(pulse, 1)
                if not beat:
                    break
                beats += 1
            time.sleep(rng.uniform(0, 0.03))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(pulse)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            killed += 1
            continue
        assert os.WEXITSTATUS(status) == 0, "a resumed run failed"
        return killed


def main(folder: Path, manifest: str) -> None:
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    data = prepared(manifest)
    seed = random.randrange(2**32)
    sys.stdout.write(f"moments of the kills are drawn from seed {seed}\n")
    sys.stdout.flush()
    for scenario in SCENARIOS:
        whole, broken = folder / scenario / "whole", folder / scenario / "broken"
        child, pulse = fork(whole, data, scenario)
        assert os.waitpid(child, 0)[1] == 0
        os.close(pulse)
        killed = interrupted(broken, data, scenario, random.Random(f"{seed}/{scenario}"))
        (broken / "killed").write_text(str(killed))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
