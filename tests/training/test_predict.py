"""``predict`` gives the vectors that the exported model gives."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from plain_tower import PlainTower
from trainers import quiet_trainer

from xmodal.data.module import AudioTextData
from xmodal.embedder import Embedder
from xmodal.embeddings import Embeddings
from xmodal.export import export
from xmodal.losses import InfoNCELoss
from xmodal.towers import HashedBagOfWordsTower
from xmodal.training import AlignmentModule, WritePredictions
from xmodal.training.retrieval import pool_windows


@pytest.fixture
def predicted(tone_tracks, tmp_path, request):
    """What predict wrote, what the exported model writes, and the model."""
    torch.manual_seed(0)
    text = HashedBagOfWordsTower(buckets=50, embed_dim=8, feature_dim=8)
    windows = {"window_seconds": 0.5, "last_window": "pad", "top_windows": 2, "pooling": request.param}
    module = AlignmentModule(PlainTower(), text, InfoNCELoss(), 8, **windows)
    trainer = quiet_trainer(tmp_path, WritePredictions())
    data = AudioTextData(
        str(tone_tracks), tag_fields=["pitch"], workers=0, decode_seconds=None, evaluation_batch_size=7
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are using a custom batch sampler")
        trainer.predict(module, datamodule=data, return_predictions=False)
    model = module.exportable()
    tracks = [track for split in data.read().values() for track in split]
    export(Embedder(model, device="cpu"), tracks, tmp_path / "exported.parquet")
    return Embeddings.load(tmp_path / "embeddings.parquet"), Embeddings.load(tmp_path / "exported.parquet"), model


@pytest.mark.parametrize("predicted", ["mean", "energy", "top_k", "windows"], indirect=True)
def test_predict_gives_what_the_exported_model_gives(predicted):
    found, exported, model = predicted
    assert found.space_id == exported.space_id == model.space_id()
    places = {name: place for place, name in enumerate(found.ids)}
    assert places.keys() == set(exported.ids)
    order = [places[name] for name in exported.ids]
    np.testing.assert_allclose(found.vectors[order], exported.vectors, atol=2e-6)
    for own, other in zip((found.metadata[place] for place in order), exported.metadata, strict=True):
        assert own.items() <= other.items()


def test_every_rule_of_pooling_has_a_vector_of_its_own():
    vectors = torch.nn.functional.normalize(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    rows, shares = torch.zeros(5, dtype=torch.long), torch.tensor([1.0, 1.0, 1.0, 1.0, 0.2])
    energies = torch.tensor([9.0, 1.0, 1.0, 2.0, 0.1])
    made = [
        pool_windows(vectors, rows, 1, shares=shares, energies=energies, pooling=pooling, top_windows=2)
        for pooling in ("mean", "energy", "top_k")
    ]
    made.append(pool_windows(vectors, rows, 1))
    for place, one in enumerate(made):
        for other in made[place + 1 :]:
            assert (one - other).abs().max() > 1e-2


def test_unknown_energies_weigh_as_the_mean_does():
    vectors = torch.eye(3)
    rows, nan = torch.tensor([0, 0, 2]), torch.full((3,), torch.nan)
    made = pool_windows(vectors, rows, 3, energies=nan, pooling="energy")
    torch.testing.assert_close(made, pool_windows(vectors, rows, 3))
    assert not made[1].any()
