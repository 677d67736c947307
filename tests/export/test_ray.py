"""The same export on a Ray cluster of two workers gives the same rows. Ray weighs 240 MB, so CI may be without it."""

from __future__ import annotations

import numpy as np
import pytest

from xmodal.data.manifests import read_tracks
from xmodal.embedder import Embedder
from xmodal.embeddings import Embeddings
from xmodal.export import export


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")
def test_two_workers_of_a_cluster_give_the_rows_of_one_machine(embedder, tones, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'xmodal[ray]'")
    from xmodal.export.on_ray import on_ray

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
    embedder = Embedder(embedder.model, device="cpu", source=embedder.source, view={"pooling": "windows"})
    tracks = read_tracks(tones(tmp_path / "audio", 20, {5}))
    here = export(embedder, tracks, tmp_path / "here.parquet")
    try:
        there = export(embedder, tracks, tmp_path / "there.parquet", source=on_ray(embedder, actors=2))
    finally:
        ray.shutdown()
    assert (there.rows, there.failed, there.embedded) == (here.rows, here.failed, here.embedded)
    first, second = Embeddings.load(tmp_path / "here.parquet"), Embeddings.load(tmp_path / "there.parquet")
    assert (first.ids, first.metadata) == (second.ids, second.metadata)
    np.testing.assert_allclose(first.vectors, second.vectors, atol=1e-6)
    assert there.failures.read_text() == here.failures.read_text()


def test_a_model_that_lies_nowhere_cannot_be_sent(embedder):
    pytest.importorskip("ray", reason="ray is not installed: pip install 'xmodal[ray]'")
    from xmodal.export.on_ray import on_ray

    with pytest.raises(ValueError, match="needs a model folder that all machines see"):
        on_ray(Embedder(embedder.model, device="cpu"))
