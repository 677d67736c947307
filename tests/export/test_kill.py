"""An export that is killed at any moment loses no row, writes none twice, and leaves nothing half-written."""

from __future__ import annotations

import os
import random
import signal
import time

import numpy as np
import pytest
import torch

from xmodal.data.manifests import read_tracks
from xmodal.embeddings import Embeddings
from xmodal.export import export, job

KILLS = 36


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("out", ["out.parquet", "out"])
def test_no_kill_loses_a_row_doubles_one_or_leaves_half_a_file(embedder, tones, tmp_path, monkeypatch, out):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a forked child must not wait for its parent's threads
    monkeypatch.setattr(job, "PART_PIECES", 3)
    tracks = read_tracks(tones(tmp_path / "audio", 40, {5, 23}))
    try:
        begun = time.monotonic()
        whole = export(embedder, tracks, tmp_path / "whole.parquet")
        usual = time.monotonic() - begun
        expected = Embeddings.load(tmp_path / "whole.parquet")
        rng, finished, started_again = random.Random(0), 0, 0
        for _ in range(KILLS // 2):
            child = os.fork()
            if not child:
                try:
                    export(embedder, tracks, tmp_path / out, shard_rows=7)
                    os._exit(0)
                finally:
                    os._exit(1)
            time.sleep(rng.uniform(0, usual))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            finished += os.WIFEXITED(status)
            assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0
            check_nothing_is_half_written(tmp_path, out, expected)
            if finished and not started_again % 3:  # from the beginning again, so that all its moments are met
                for path in tracks[started_again].path.parent.parent.glob(f"{out}*"):
                    if path.is_file():
                        path.unlink()
            started_again += bool(finished)
        report = export(embedder, tracks, tmp_path / out, shard_rows=7)
        assert (report.rows, report.failed) == (whole.rows, whole.failed) == (38, 2)
        found = Embeddings.load(tmp_path / out)
        assert (found.ids, found.metadata) == (expected.ids, expected.metadata)
        np.testing.assert_allclose(found.vectors, expected.vectors, atol=1e-6)
        left = {path.name for path in tmp_path.iterdir()} - {"audio", "whole.parquet", "whole.parquet.failures.jsonl"}
        assert left == {out, f"{out}.failures.jsonl"}
    finally:
        torch.set_num_threads(threads)


def check_nothing_is_half_written(folder, out, expected):
    if (folder / out / "embeddings.json" if out == "out" else folder / out).exists():
        assert Embeddings.load(folder / out).ids == expected.ids
    for part in folder.glob(f".{out}.parts/*/part-*.arrow"):
        import pyarrow.ipc

        pyarrow.ipc.open_file(str(part)).read_all()
