"""The SLURM recipe of docs/howto-train.md: every task finds its place, and a requeued job goes on by ``--resume``."""

from __future__ import annotations

import signal
import warnings

import pytest
from pytorch_lightning.plugins.environments import SLURMEnvironment
from pytorch_lightning.utilities import rank_zero_only

from xmodal.training import config_folder
from xmodal.training.command import build

RECIPE = "{class_path: pytorch_lightning.plugins.environments.SLURMEnvironment, init_args: {auto_requeue: false}}"


@pytest.mark.parametrize(("node", "local"), [(0, 1), (1, 0)])
def test_a_task_of_slurm_finds_its_place_and_leaves_requeueing_to_the_job(monkeypatch, tone_tracks, node, local):
    # What srun sets in the second and the third of two tasks on each of two nodes.
    job = {"JOB_ID": 12345, "JOB_NAME": "train", "NTASKS": 4, "NTASKS_PER_NODE": 2, "NNODES": 2, "NODELIST": "n[1-2]"}
    place = {"PROCID": 2 * node + local, "LOCALID": local, "NODEID": node}
    for name, value in (job | place).items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert SLURMEnvironment.detect()
    monkeypatch.setattr(rank_zero_only, "rank", 0)  # set by a trainer for good: later runs would not write as the third
    configs = [word for name in ("base.yaml", "smoke.yaml") for word in ("--config", str(config_folder() / name))]
    words = [*configs, "--data.manifest", str(tone_tracks), "--trainer.accelerator", "cpu", "--trainer.logger", "false"]
    words += ["--trainer.devices", "2", "--trainer.num_nodes", "2", "--trainer.strategy", "ddp"]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The `srun` command is available")
        trainer = build([*words, "--trainer.callbacks", "[]", "--trainer.plugins+", RECIPE]).trainer
    environment = trainer.strategy.cluster_environment
    assert isinstance(environment, SLURMEnvironment)
    assert environment.creates_processes_externally
    assert (trainer.world_size, trainer.global_rank, trainer.local_rank) == (4, 2 * node + local, local)
    assert trainer.is_global_zero is False
    assert environment.main_address == "n1"
    before = signal.getsignal(signal.SIGUSR1)
    trainer._signal_connector.register_signal_handlers()
    try:
        assert signal.getsignal(signal.SIGUSR1) is before  # Lightning would save a checkpoint of its own and requeue
    finally:
        trainer._signal_connector.teardown()
