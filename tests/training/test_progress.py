"""How far a run is, said where nobody looks at a bar."""

from __future__ import annotations

import logging
import re
import sys

import pytest
from plain_tower import PlainTower
from trainers import quiet_trainer

from xmodal.data.module import AudioTextData
from xmodal.losses import InfoNCELoss
from xmodal.towers import HashedBagOfWordsTower
from xmodal.training import AlignmentModule, TrainingProgress, show_log
from xmodal.training import progress as progress_module
from xmodal.training.progress import duration


def lines_of(folder, manifest, capsys, monkeypatch, every=1, **settings):
    monkeypatch.setattr(progress_module, "_AT_LEAST_SECONDS", settings.pop("at_least", 0.0))
    text = HashedBagOfWordsTower(buckets=50, embed_dim=8, feature_dim=8)
    module = AlignmentModule(PlainTower(), text, InfoNCELoss(), 8, window_seconds=1.0)
    data = AudioTextData(
        str(manifest), tag_fields=["pitch"], workers=0, decode_seconds=None, batch_size=8, tag_prompts=0
    )
    shown = TrainingProgress(**settings)
    validated = {"check_val_every_n_epoch": every}
    quiet_trainer(folder, shown, max_epochs=3, enable_progress_bar=True, **validated).fit(module, datamodule=data)
    return capsys.readouterr().out.splitlines()


def test_a_file_gets_a_line_an_epoch_with_steps_metrics_and_time(tone_tracks, tmp_path, capsys, monkeypatch):
    lines = lines_of(tmp_path, tone_tracks, capsys, monkeypatch)
    assert len(lines) == 3
    for epoch, line in enumerate(lines, start=1):
        assert line.startswith(f"  epoch {epoch} of 3 · step {3 * epoch} of 9 · train/loss ")
        assert re.search(r"validation/text_to_audio/mAP@10 [01]\.\d{3} · \d+ s", line)
        assert (" to go" in line) == (epoch < 3)
        assert "v_num" not in line


def test_what_validation_found_is_said_once(tone_tracks, tmp_path, capsys, monkeypatch):
    lines = lines_of(tmp_path, tone_tracks, capsys, monkeypatch, every=2)
    assert ["validation/" in line for line in lines] == [False, True, False]
    assert all(" · train/loss " in line for line in lines)


def test_short_epochs_share_a_line_and_the_last_has_one(tone_tracks, tmp_path, capsys, monkeypatch):
    lines = lines_of(tmp_path, tone_tracks, capsys, monkeypatch, at_least=1000.0)
    assert [line[:14] for line in lines] == ["  epoch 3 of 3"]


def test_a_long_epoch_says_where_it_is(tone_tracks, tmp_path, capsys, monkeypatch):
    lines = lines_of(tmp_path, tone_tracks, capsys, monkeypatch, at_least=1000.0, seconds=0.0)
    assert [int(re.search(r"step (\d+) of 9", line)[1]) for line in lines] == [*range(1, 10), 9]


def test_in_a_terminal_there_is_the_bar_and_no_line(monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    progress = TrainingProgress()
    assert progress.is_enabled
    assert not progress.writes_lines
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    piped = TrainingProgress()
    piped.enable()  # Lightning does so after it has looked for a rate
    assert piped.is_disabled


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (89, "89 s"), (600, "10 min"), (5400, "1 h 30 min"), (90061, "25 h 01 min")]
)
def test_times_are_said_shortly(seconds, said):
    assert duration(seconds) == said


def test_advertisements_are_left_out_of_the_log_and_news_are_not(caplog):
    show_log()
    log = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    with caplog.at_level(logging.INFO):
        log.addHandler(caplog.handler)
        try:
            log.info("💡 Tip: For seamless cloud logging, try installing litlogger")
            log.info("GPU available: False, used: False")
        finally:
            log.removeHandler(caplog.handler)
    assert {record.getMessage() for record in caplog.records} == {"GPU available: False, used: False"}
