"""What is trained, how fast, and what the average of the weights is used for."""

from __future__ import annotations

import copy

import pytest
import torch
from plain_tower import PlainTower
from torch import nn
from torch.testing import assert_close

from xmodal.losses import InfoNCELoss
from xmodal.towers import HashedBagOfWordsTower, MobileCnn
from xmodal.training import AlignmentModule, TowerTuning
from xmodal.training.averaging import AveragedWeights
from xmodal.training.chunks import checkpoint_layers
from xmodal.training.optim import parameter_groups
from xmodal.training.tuning import LowRankLinear


def module_of(audio=None, **settings) -> AlignmentModule:
    torch.manual_seed(0)
    text = HashedBagOfWordsTower(buckets=50, embed_dim=8, feature_dim=8)
    return AlignmentModule(audio or PlainTower(), text, InfoNCELoss(), 8, window_seconds=1.0, **settings)


def test_a_locked_tower_is_not_trained_and_its_statistics_rest():
    tower = MobileCnn(sample_rate=8000, n_fft=256, hop=80, bands=16, width=0.1, feature_dim=8)
    module = module_of(tower, audio_tuning=TowerTuning("none"), text_tuning=TowerTuning("none")).train()
    assert not any(each.requires_grad for each in module.network.audio.parameters())
    assert not any(part.training for part in module.network.audio.modules())
    assert module.network.text.frozen
    assert all(each.requires_grad for each in module.network.audio_projection.parameters())


def test_low_rank_additions_begin_as_nothing_learn_alone_and_merge():
    plain = module_of()
    module = module_of(audio_tuning=TowerTuning("lora", lora_rank=2))
    features, frames = torch.randn(3, 16, 20), torch.full((3,), 20)
    assert_close(module.network.audio.encode(features, frames), plain.network.audio.encode(features, frames))
    trained = {name for name, each in module.network.audio.named_parameters() if each.requires_grad}
    assert {name.rpartition(".")[2] for name in trained} == {"up", "down"}
    for layer in module.modules():
        if isinstance(layer, LowRankLinear):
            nn.init.normal_(layer.up)
    exported = module.exportable()
    assert exported.state_dict().keys() == plain.network.state_dict().keys()
    assert_close(exported.audio.encode(features, frames), module.eval().network.audio.encode(features, frames))


def test_low_rank_additions_are_refused_where_there_is_nothing_to_add_to():
    with pytest.raises(ValueError, match="audio_tuning asks for LoRA on .*'query'"):
        module_of(audio_tuning=TowerTuning("lora", lora_targets=["query"]))


def test_lower_layers_learn_more_slowly():
    module = module_of(audio_tuning=TowerTuning(layer_decay=0.5, learning_rate=0.04), learning_rate=0.1)
    rate = {id(each): group["lr"] for group in parameter_groups(module) for each in group["params"]}
    lower, upper = module.network.audio.blocks
    assert rate[id(lower.weight)] == pytest.approx(0.02)
    assert rate[id(upper.weight)] == pytest.approx(0.04)
    assert rate[id(module.network.audio_projection.layers.weight)] == pytest.approx(0.1)


def test_the_average_is_that_of_a_loop_and_a_swap_is_undone_by_another():
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    average = AveragedWeights(network, 0.9)
    expected = network.weight.detach().clone()
    for step in range(20):
        with torch.no_grad():
            network.weight += 0.1
        average.update(network)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * network.weight.detach()
    live = copy.deepcopy(network.state_dict())
    average.swap(network)
    assert_close(network.weight.detach(), expected)
    average.swap(network)
    assert_close(network.state_dict(), live)


def test_what_is_trained_and_running_statistics_have_an_average_and_nothing_else_has():
    tower = MobileCnn(sample_rate=8000, n_fft=256, hop=80, bands=16, width=0.1, feature_dim=8)
    module = module_of(tower, text_tuning=TowerTuning("none"), ema_decay=0.9)
    trained = {name for name, each in module.network.named_parameters() if each.requires_grad}
    statistics = {name for name in module.network.state_dict() if name.endswith(("running_mean", "running_var"))}
    assert statistics
    assert module.averaged.values.keys() == trained | statistics
    assert not any(name.startswith("text.") for name in module.averaged.values)


def test_the_exported_model_has_the_averaged_weights():
    module = module_of(ema_decay=0.9)
    for _ in range(3):
        with torch.no_grad():
            module.network.audio_projection.layers.weight += 1.0
        module.averaged.update(module.network)
    average = module.averaged.values["audio_projection.layers.weight"]
    assert not torch.equal(average, module.network.audio_projection.layers.weight)
    assert torch.equal(module.exportable().audio_projection.layers.weight, average)


def test_checkpointed_layers_have_the_same_gradients_and_names():
    results = []
    for twice in (False, True):
        torch.manual_seed(0)
        tower = PlainTower(dropout=0.5)
        if twice:
            checkpoint_layers(tower.blocks)
        torch.manual_seed(1)
        tower.encode(torch.randn(3, 16, 20)).square().sum().backward()
        results.append({name: each.grad for name, each in tower.named_parameters()})
    assert_close(results[1], results[0], rtol=0, atol=0)


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="layer_decay"):
        TowerTuning(layer_decay=0.0)
    with pytest.raises(ValueError, match="ema_decay"):
        module_of(ema_decay=1.0)
    with pytest.raises(ValueError, match="exclude each other"):
        module_of(compile=True, gradient_checkpointing=True)
