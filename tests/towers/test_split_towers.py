"""Every tower whose weights are split over processes (FSDP2) says and learns what it does with whole ones.

One process is enough for that: split weights are another kind of tensor, which fails wherever it was not put together.
``tests/training/test_processes.py`` has several.
"""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.strategies import FSDPStrategy, ModelParallelStrategy
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from tower_cases import AUDIO_TOWERS, TEXT_TOWERS, TEXTS, sounds

from xmodal.errors import ModelError
from xmodal.losses import InfoNCELoss
from xmodal.model import TwoTower
from xmodal.towers import HashedBagOfWordsTower, MobileCnn
from xmodal.training import AlignmentModule, FullyShardedStrategy, TowerTuning
from xmodal.training.sharding import ShardedNetwork, clip_gradients, total_norm, whole
from xmodal.training.strategy import split_weights
from xmodal.training.tuning import apply_tuning


@pytest.fixture(scope="module")
def mesh():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def small_text():
    return HashedBagOfWordsTower(buckets=50, embed_dim=8, feature_dim=8)


def small_audio():
    return MobileCnn(sample_rate=8000, n_fft=256, hop=80, bands=16, width=0.125, feature_dim=8)


def learnt(network, encode):
    """Vectors of a training step, and the gradients of all that is trained."""
    torch.manual_seed(0)
    vectors = encode(network.train())
    weights = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(1))
    (vectors * weights).sum().backward()
    gradients = {name: each.grad for name, each in network.named_parameters() if each.grad is not None}
    return vectors.detach(), {name: whole(gradient) for name, gradient in gradients.items()}


def assert_same_when_split(network, encode, mesh):
    plain = copy.deepcopy(network)
    sharded = ShardedNetwork(network, mesh)
    (vectors, gradients), (wanted, wanted_gradients) = (learnt(each, encode) for each in (network, plain))
    torch.testing.assert_close(vectors, wanted, rtol=1e-4, atol=1e-5)
    assert gradients.keys() == wanted_gradients.keys()
    for name, value in wanted_gradients.items():
        torch.testing.assert_close(gradients[name], value, rtol=1e-4, atol=1e-4)
    again = sharded.whole()
    assert again.identity() == plain.identity()
    assert again.config == plain.config
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value)


def assert_split(tower):
    for name, each in tower.named_parameters():
        assert isinstance(each, DTensor) == (each.ndim > 0 and not tower.frozen), name


@pytest.mark.parametrize("name", AUDIO_TOWERS)
def test_a_split_audio_tower_learns_what_a_whole_one_does(name, mesh, monkeypatch):
    torch.manual_seed(0)
    tower = AUDIO_TOWERS[name]()
    rate = tower.sample_rate
    clips = torch.nn.functional.interpolate(sounds(4, 1.5)[:, None], size=round(1.5 * rate))[:, 0]
    features = tower.features(clips)
    network = TwoTower(tower, small_text(), 8, window_seconds=1.5)
    if not any(type(module).__module__.startswith("transformers") for module in tower.modules()):
        # With few clips batch normalisation blows up the rounding of another layout, in which dropout draws otherwise.
        network, features = network.double(), features.double()
        monkeypatch.setattr(torch.nn.functional, "dropout", lambda values, *_, **__: values)
    assert_same_when_split(network, lambda network: network.project_audio(features), mesh)
    assert_split(network.audio)


@pytest.mark.parametrize("name", TEXT_TOWERS)
def test_a_split_text_tower_learns_what_a_whole_one_does(name, mesh, tiny_encoder):
    torch.manual_seed(0)
    network = TwoTower(small_audio(), TEXT_TOWERS[name](tiny_encoder), 8, text_hidden=8, window_seconds=1.0)
    texts = TEXTS[:4]
    assert_same_when_split(
        network, lambda network: network.project_text(network.text.encode(network.text.tokenize(texts))), mesh
    )
    assert_split(network.text)


def test_low_rank_additions_are_split_with_the_layers_that_they_are_added_to(mesh, tiny_encoder):
    torch.manual_seed(0)
    text = TEXT_TOWERS["trainable"](tiny_encoder)
    apply_tuning(text, TowerTuning(train="lora", lora_rank=2), "text")
    network = TwoTower(small_audio(), text, 8, window_seconds=1.0)
    assert_same_when_split(
        network, lambda network: network.project_text(network.text.encode(network.text.tokenize(TEXTS[:3]))), mesh
    )
    assert sum(each.requires_grad for each in network.text.parameters()) > 0
    assert_split(network.text)


def test_gradients_in_parts_and_whole_ones_are_clipped_as_one_vector(mesh):
    torch.manual_seed(0)
    network = TwoTower(small_audio(), small_text(), 8, window_seconds=1.0)
    plain = copy.deepcopy(network)
    ShardedNetwork(network, mesh)
    scales = [torch.nn.Parameter(torch.tensor(2.0)) for _ in range(2)]
    both = []
    for each, scale in zip((network, plain), scales, strict=True):
        learnt(each, lambda network: network.embed_text(["a b", "c"]) * 3)
        scale.grad = torch.tensor(5.0)
        both.append([*each.parameters(), scale])
    norm = total_norm([each.grad for each in both[0] if each.grad is not None])
    torch.testing.assert_close(norm, torch.nn.utils.clip_grad_norm_(both[1], 0.5))
    clip_gradients(both[0], 0.5, by_value=False)
    for split, wanted in zip(*both, strict=True):
        if wanted.grad is not None:
            torch.testing.assert_close(whole(split.grad), wanted.grad)
    torch.nn.utils.clip_grad_value_(both[1], 0.01)
    clip_gradients(both[0], 0.01, by_value=True)
    for split, wanted in zip(*both, strict=True):
        if wanted.grad is not None:
            torch.testing.assert_close(whole(split.grad), wanted.grad)


def shares_statistics():
    """The strategy of a trainer that was told ``sync_batchnorm``."""
    return pl.Trainer(
        accelerator="cpu",
        strategy=FullyShardedStrategy(),
        sync_batchnorm=True,
        logger=False,
        enable_checkpointing=False,
    ).strategy


@pytest.mark.parametrize(
    ("strategy", "settings", "said"),
    [
        (ModelParallelStrategy, {}, "ModelParallelStrategy splits weights .* use --trainer.strategy xmodal"),
        (FSDPStrategy, {}, "FSDPStrategy splits weights"),
        (FullyShardedStrategy, {"key_encoder": object()}, "key_momentum keeps .* use ddp"),
        (FullyShardedStrategy, {"compiles": True}, "compile takes .* use ddp"),
        (shares_statistics, {}, "sync_batchnorm replaces layers .* use ddp"),
    ],
)
def test_what_cannot_be_split_is_refused_in_a_sentence(strategy, settings, said):
    settings = {"key_encoder": None, "compiles": False} | settings
    module = SimpleNamespace(trainer=SimpleNamespace(strategy=strategy()), **settings)
    with pytest.raises(ModelError, match=said):
        split_weights(module)


def test_other_strategies_leave_weights_whole():
    module = AlignmentModule(small_audio(), small_text(), InfoNCELoss(), 8, window_seconds=1.0)
    module.trainer = SimpleNamespace(strategy=object())
    module.configure_model()
    assert module.sharded is None
