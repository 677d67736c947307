from __future__ import annotations

import pytest
import torch
from published_models import published
from torch import nn
from torch.nn.utils import parametrizations

from xmodal.towers import ClapAudioTower
from xmodal.towers.clap import WindowAttention
from xmodal.towers.folding import folded


class Pair(nn.Module):
    folds = (("conv", "norm"),)

    def __init__(self, conv, norm):
        super().__init__()
        self.conv, self.norm = conv, norm

    def forward(self, maps):
        return self.norm(self.conv(maps))


def pair(dims=2, bias=True, affine=True):
    torch.manual_seed(0)
    conv, norm = ((nn.Conv1d, nn.BatchNorm1d), (nn.Conv2d, nn.BatchNorm2d))[dims - 1]
    made = Pair(conv(4, 6, 3, padding=1, stride=2, groups=2, bias=bias), norm(6, affine=affine, eps=1e-3))
    with torch.no_grad():
        made.norm.running_mean.normal_(0, 2)
        made.norm.running_var.uniform_(0.01, 4)
        if affine:
            made.norm.weight.normal_()
            made.norm.bias.normal_()
    return made.eval()


@torch.no_grad()
@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_one_convolution_does_the_work_of_both(dims, bias, affine):
    made = pair(dims, bias, affine)
    maps = torch.randn(3, 4, *[9] * dims)
    other = folded(made)
    assert isinstance(other.norm, nn.Identity)
    assert not isinstance(made.norm, nn.Identity)
    torch.testing.assert_close(other(maps), made(maps), atol=1e-5, rtol=1e-5)


def test_a_folded_weight_lies_in_memory_as_the_plain_one_did():
    made = pair().to(memory_format=torch.channels_last)
    assert folded(made).conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_what_was_not_folded_is_shared_and_nothing_to_fold_gives_the_same_module():
    other = nn.Sequential(nn.Linear(3, 3), pair())
    found = folded(other)
    assert [mine is its for mine, its in zip(found, other, strict=True)] == [True, False]
    plain = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)).eval()  # lists no pairs: who else hears [0] is unknown
    assert folded(plain) is plain


def untracked(made):
    made.norm = nn.BatchNorm2d(6, track_running_stats=False).eval()


@pytest.mark.parametrize(
    "change",
    [
        lambda made: made.norm.train(),
        lambda made: made.double(),
        lambda made: made.conv.register_forward_hook(lambda *_: None),
        lambda made: made.norm.register_forward_pre_hook(lambda *_: None),
        lambda made: parametrizations.weight_norm(made.conv),
        untracked,
    ],
    ids=["training", "double precision", "hook", "hook before", "parametrised", "without averages"],
)
def test_a_pair_with_something_special_about_it_is_left_alone(change):
    made = pair()
    change(made)
    assert folded(made) is made


@torch.no_grad()
@pytest.mark.parametrize("masked", [False, True])
def test_the_fused_attention_of_windows_is_that_of_transformers(masked):
    from transformers import ClapAudioConfig
    from transformers.models.clap.modeling_clap import ClapAudioSelfAttention

    torch.manual_seed(0)
    original = ClapAudioSelfAttention(ClapAudioConfig(), 24, 3, 4).eval()
    for weight in original.parameters():
        weight.normal_(std=0.2)
    tokens = torch.randn(3 * 5, 16, 24)  # three clips of five windows, five masks
    mask = torch.where(torch.rand(5, 16, 16) < 0.3, -100.0, 0.0) if masked else None
    other = WindowAttention(original)
    torch.testing.assert_close(other(tokens, mask)[0], original(tokens, mask)[0], atol=2e-6, rtol=1e-5)
    with pytest.raises(ValueError, match="keeps no weights"):
        other(tokens, mask, True)


@torch.no_grad()
def test_an_imported_clap_embeds_alike_with_the_fused_attention():
    tower = ClapAudioTower(published("clap")).eval()
    other = folded(tower)
    assert [type(module).__name__ for module in other.modules()].count("WindowAttention") == 2
    assert not any(isinstance(module, WindowAttention) for module in tower.modules())
    clips = 0.3 * torch.randn(3, 9_000)
    torch.testing.assert_close(other(clips), tower(clips), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "change", [lambda made: made.train(), lambda made: made.register_forward_hook(lambda *_: None)]
)
def test_attention_with_something_special_about_it_is_left_alone(change):
    tower = ClapAudioTower(published("clap")).eval()
    special = [module for module in tower.modules() if type(module).__name__ == "ClapAudioSelfAttention"]
    change(special[0])
    kept = [module for module in folded(tower).modules() if type(module).__name__ == "ClapAudioSelfAttention"]
    assert kept == special[:1]
