"""Chunks that are encoded twice: the gradients of plain autograd, with dropout, augmentation and running statistics."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from plain_tower import PlainTower
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from xmodal.data.datasets import PairBatch
from xmodal.losses import InfoNCELoss, StreamedLoss
from xmodal.towers import HashedBagOfWordsTower, MobileCnn, SpecAugment
from xmodal.training import AlignmentModule
from xmodal.training.chunks import in_chunks

CPU = torch.device("cpu")


def batch_of(tracks: int, bands: int = 16) -> PairBatch:
    generator = torch.Generator().manual_seed(5)
    return PairBatch(
        features=torch.randn((tracks, bands, 60), generator=generator),
        valid_frames=torch.full((tracks,), 60),
        texts=[f"text number {number}" for number in range(tracks)],
        relevance=torch.eye(tracks, dtype=torch.bool),
        prompts=["low", "high", "loud"],
        prompt_relevance=torch.arange(tracks)[:, None] % 3 == torch.arange(3),
        prompt_valid=torch.ones(tracks, 3, dtype=torch.bool),
        failures=[],
    )


def module_of(audio, **settings) -> AlignmentModule:
    torch.manual_seed(0)
    text = HashedBagOfWordsTower(buckets=50, embed_dim=8, feature_dim=8)
    module = AlignmentModule(audio(), text, settings.pop("loss", InfoNCELoss()), 8, window_seconds=1.0, **settings)
    module.log = lambda *args, **kwargs: None  # no trainer
    return module


def gradients(module: AlignmentModule, batch: PairBatch, monkeypatch) -> dict[str, torch.Tensor]:
    trainer = type("NoTrainer", (), {"datamodule": None, "precision": "32-true"})()
    monkeypatch.setattr(AlignmentModule, "trainer", trainer)
    monkeypatch.setattr(AlignmentModule, "current_epoch", 0)
    torch.manual_seed(7)
    loss = module.training_step(batch, 0)
    loss.backward()
    return {"loss": loss.detach()} | {name: each.grad for name, each in module.named_parameters()}


@pytest.mark.parametrize("size", [1, 3, 5, 8, 100])
@pytest.mark.parametrize("loss", [InfoNCELoss, lambda: StreamedLoss(InfoNCELoss(), 3)], ids=["whole", "streamed"])
def test_any_chunk_size_gives_the_loss_and_gradients_of_the_whole_batch(size, loss, monkeypatch):
    wanted = gradients(module_of(PlainTower, loss=loss()), batch_of(8), monkeypatch)
    found = gradients(module_of(PlainTower, loss=loss(), chunk_size=size), batch_of(8), monkeypatch)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


class Noise(nn.Module):
    """Draws from every generator, as augmentation may."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5), nn.BatchNorm1d(6), nn.Linear(6, 3))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        drawn = random.random() + float(np.random.random()) + torch.rand(values.shape[1])
        return self.layer(values * drawn)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_the_second_pass_draws_what_the_first_drew_and_statistics_learn_once(momentum):
    def pieces(network: Noise, values: torch.Tensor, twice: bool) -> torch.Tensor:
        torch.manual_seed(3), random.seed(3), np.random.seed(3)
        if twice:
            (rows,) = in_chunks(lambda part: (network(part),), values, size=4, modules=network, device=CPU)
            return rows
        return torch.cat([network(part) for part in values.split(4)])

    results = []
    values = torch.randn(10, 6, generator=torch.Generator().manual_seed(1))
    for twice in (False, True):
        torch.manual_seed(0)
        network = Noise()
        network.layer[2].momentum = momentum
        pieces(network, values, twice).square().sum().backward()
        after = [torch.rand(3), torch.tensor(random.random()), torch.tensor(np.random.random())]
        results.append([*(each.grad for each in network.parameters()), *network.buffers(), *after])
        assert network.layer[2].momentum == momentum
    for plain, chunked in zip(*results, strict=True):
        assert torch.equal(plain, chunked)


def test_a_convolutional_tower_with_augmentation_learns_the_same_in_chunks_as_plain_autograd_in_chunks(monkeypatch):
    def tower() -> MobileCnn:
        return MobileCnn(sample_rate=8000, n_fft=256, hop=80, bands=16, width=0.1, feature_dim=8, augment=SpecAugment())

    chunked = module_of(tower, chunk_size=4, dropout=0.3, text_hidden=6)
    found = gradients(chunked, batch_of(8), monkeypatch)
    plain = module_of(tower, chunk_size=4, dropout=0.3, text_hidden=6)
    # The same chunks and draws, with their activations kept.
    monkeypatch.setattr("xmodal.training.chunks.encode_twice", lambda encode, *items, modules, device: encode(*items))
    for name, value in gradients(plain, batch_of(8), monkeypatch).items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
    norms = [module for module in chunked.modules() if isinstance(module, _BatchNorm)]
    assert {int(module.num_batches_tracked) for module in norms} == {2}
    for one, other in zip(chunked.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_chunk_size_below_one_is_refused():
    with pytest.raises(ValueError, match="chunk_size must be at least 1"):
        module_of(PlainTower, chunk_size=0)


def test_a_loss_that_looks_at_the_whole_batch_has_no_local_form():
    from xmodal.losses import HistogramLoss

    with pytest.raises(ValueError, match="HistogramLoss looks at the whole batch at once, so it has no local form"):
        module_of(PlainTower, loss=HistogramLoss(), local_loss=True)
