"""Bad files are set aside: counted, said and written down, and the run goes on without them and without stand-ins."""

from __future__ import annotations

import json
import logging
import shutil

import pytest
import pytorch_lightning as pl
import torch
from decoder_traps import set_traps
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from trainers import quiet_trainer

from xmodal.audio import WindowPolicy
from xmodal.data.module import AudioTextData
from xmodal.data.setaside import SetAside
from xmodal.errors import AudioError
from xmodal.towers import MobileCnn


class Listener(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.network = nn.Module()
        self.network.audio = MobileCnn(sample_rate=8000, n_fft=256, hop=80, bands=16, width=0.25, feature_dim=8)
        self.network.windows = WindowPolicy(1.0)
        self.weight = nn.Parameter(torch.zeros(()))
        self.heard = []

    def training_step(self, batch, _index):
        self.heard += [caption.text for caption in batch.facts.captions]
        assert len(batch.features) + len(batch.failures) == 4
        return self.weight * 1.0

    def validation_step(self, _batch, _index):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def corpus(tone_tracks, tmp_path, monkeypatch):
    """Eight training tones: one hangs its decoder, one crashes it, one breaks after it was probed."""
    # Opening is harmless (the file can be probed), reading samples is not.
    set_traps(tmp_path, monkeypatch, "read")
    names = ["a", "hang", "b", "crash", "c", "breaks", "d", "e"]
    rows = []
    for number, name in enumerate([*names, "judged"]):
        shutil.copy(tone_tracks.parent / f"{number:02d}.wav", tmp_path / f"{name}.wav")
        split = "validation" if name == "judged" else "train"
        rows.append({"path": f"{name}.wav", "caption": f"tone {name}", "split": split})
    (tmp_path / "tones.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "tones.jsonl"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_with_files_that_hang_crash_and_break_goes_on_and_names_them(corpus, tmp_path, caplog, workers):
    data = AudioTextData(
        str(corpus), batch_size=4, workers=workers, cache="none", decode_seconds=1.0, tag_prompts=0, validation=0.0
    )
    listener = Listener()
    trainer = quiet_trainer(
        tmp_path,
        max_epochs=2,
        logger=CSVLogger(tmp_path / "runs"),
        log_every_n_steps=1,
        limit_val_batches=0,
        use_distributed_sampler=False,
    )
    prepare = data.prepare

    def then_break(*args, **kwargs):
        prepare(*args, **kwargs)
        (corpus.parent / "breaks.wav").write_bytes(b"broken since")

    data.prepare = then_break
    with caplog.at_level(logging.WARNING):
        trainer.fit(listener, datamodule=data)
    good = {f"tone {name}" for name in "abcde"}
    assert sorted(listener.heard) == sorted([*good, *good])
    (report,) = (tmp_path / "runs").rglob("set_aside.jsonl")
    rows = [json.loads(line) for line in report.read_text().splitlines()]
    assert {row["path"].rpartition("/")[2]: row["split"] for row in rows} == dict.fromkeys(
        ["hang.wav", "crash.wav", "breaks.wav"], "train"
    )
    assert len(rows) == 3, "once each, not once an epoch"
    reasons = {row["path"].rpartition("/")[2]: row["reason"] for row in rows}
    assert "not decoded within 1 s" in reasons["hang.wav"]
    assert "SIGSEGV" in reasons["crash.wav"]
    assert f"3 files were set aside: neither trained nor judged on; the list with the reasons is {report}" in (
        caplog.text
    )


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_filling_a_cache_sets_them_aside_too(corpus, tmp_path, caplog, cache):
    data = AudioTextData(
        str(corpus), batch_size=4, workers=0, cache=cache, cache_folder=str(tmp_path / "cache"), decode_seconds=1.0
    )
    with caplog.at_level(logging.WARNING):
        data.prepare("fit", Listener().network.audio, WindowPolicy(1.0))
    assert {path.name for path in data.set_aside.reasons} == {"hang.wav", "crash.wav"}
    assert "2 files of the train split are set aside" in caplog.text
    assert len(data.training_set) == 6


def test_files_are_written_as_they_are_found_each_once(tmp_path):
    found = SetAside()
    found.add([AudioError("a.wav", "is empty")], "train")
    assert found.summary() == "1 file was set aside: neither trained nor judged on"
    found.write_to(tmp_path / "run" / "set_aside.jsonl")
    found.add([AudioError("a.wav", "is empty"), AudioError("ü.wav", "is cut short")], "validation")
    rows = [json.loads(line) for line in (tmp_path / "run" / "set_aside.jsonl").read_text().splitlines()]
    assert rows == [
        {"path": "a.wav", "reason": "is empty", "split": "train"},
        {"path": "ü.wav", "reason": "is cut short", "split": "validation"},
    ]
    assert SetAside().summary() is None
