"""The first process alone writes a run's files, and must not wait for the others to say where."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytorch_lightning as pl

from xmodal.training import CsvCurves, run_folder
from xmodal.training.resume import next_version, versions


@pytest.mark.parametrize("logged", [True, False])
def test_the_folder_of_a_run_is_known_without_the_other_processes(tmp_path, monkeypatch, logged):
    logger = CsvCurves(str(tmp_path), "name", 3) if logged else False
    options = {"enable_progress_bar": False, "enable_checkpointing": False, "accelerator": "cpu"}
    trainer = pl.Trainer(logger=logger, default_root_dir=tmp_path, **options)
    wanted = Path(trainer.log_dir)
    monkeypatch.setattr(trainer.strategy, "broadcast", lambda *_: pytest.fail("it asked all processes"))
    assert run_folder(trainer) == wanted == (tmp_path / "name" / "version_3" if logged else tmp_path)


def test_runs_are_counted_and_not_sorted_by_letter(tmp_path):
    for name in ("version_9", "version_10", "version_2", "version_x", "other"):
        (tmp_path / name).mkdir()
    assert [folder.name for folder in versions(tmp_path)] == ["version_10", "version_9", "version_2"]
    assert next_version(tmp_path) == 11
    assert next_version(tmp_path / "none") == 0
