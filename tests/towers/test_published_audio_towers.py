"""The layers of PANNs and of the short-chunk ResNet against their papers."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from xmodal.errors import ModelError
from xmodal.towers import Cnn10, Cnn14, MeanPool, MobileCnn, ShortChunkResNet
from xmodal.towers.base import only_if_padded

AUDIOSET_CLASSES = 527


def weights_in(module):
    return sum(weight.numel() for weight in module.parameters())


def published_panns(channels, bands=64):
    """A random state dict with the names and shapes of the published checkpoints; maps are [time, bands]."""
    generator = torch.Generator().manual_seed(0)
    pool = torch.randn(10_007, generator=generator)

    def randn(*shape):  # 80 million numbers are drawn in seconds but repeated in a moment
        size = torch.Size(shape).numel()
        return pool.repeat(-(-size // len(pool)))[:size].reshape(shape)

    def normalisation(name, size):
        return {
            f"{name}.weight": 0.5 + torch.rand(size, generator=generator),
            f"{name}.bias": torch.rand(size, generator=generator) - 0.3,
            f"{name}.running_mean": torch.randn(size, generator=generator),
            f"{name}.running_var": 0.5 + torch.rand(size, generator=generator),
            f"{name}.num_batches_tracked": torch.tensor(3),
        }

    state = normalisation("bn0", bands)
    state["bn0.running_mean"] -= 40
    state["bn0.running_var"] *= 100
    before = 1
    for number, after in enumerate(channels, start=1):
        for half, size in ((1, before), (2, after)):
            scale = (2 / (9 * size)) ** 0.5
            name = f"conv_block{number}"
            state[f"{name}.conv{half}.weight"] = scale * randn(after, size, 3, 3)
            state |= normalisation(f"{name}.bn{half}", after)
        before = after
    state["fc1.weight"] = randn(before, before) / before**0.5
    state["fc1.bias"] = torch.randn(before, generator=generator)
    state["fc_audioset.weight"] = torch.zeros(AUDIOSET_CLASSES, before)
    state["fc_audioset.bias"] = torch.zeros(AUDIOSET_CLASSES)
    return state | {"spectrogram_extractor.stft.conv_real.weight": torch.zeros(513, 1, 1024)}


def panns_by_the_paper(state, decibels, blocks, halvings):
    """Table 1 of the paper in plain functions, on [clips, 1, time, bands]."""

    def normalise(maps, name):
        return F.batch_norm(
            maps,
            *(state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")),
        )

    maps = normalise(decibels, "bn0").transpose(1, 2)[:, None]
    for number in range(1, blocks + 1):
        for half in (1, 2):
            name = f"conv_block{number}"
            maps = F.conv2d(maps, state[f"{name}.conv{half}.weight"], padding=1)
            maps = F.relu(normalise(maps, f"{name}.bn{half}"))
        if number <= halvings:
            maps = F.avg_pool2d(maps, 2)
    series = maps.mean(dim=3)
    return F.relu(F.linear(series.amax(dim=2) + series.mean(dim=2), state["fc1.weight"], state["fc1.bias"]))


@torch.no_grad()
def test_cnn10_computes_what_the_paper_says_from_published_weights():
    tower = Cnn10().eval()
    state = published_panns((64, 128, 256, 512))
    tower.load_published(state)
    features = tower.features(0.1 * torch.randn(2, 16_000, generator=torch.Generator().manual_seed(0)))
    expected = panns_by_the_paper(state, features, blocks=4, halvings=4)
    assert expected.std() > 0.1
    torch.testing.assert_close(tower.encode(features), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_cnn14_computes_what_the_paper_says_and_is_as_large():
    tower = Cnn14().eval()
    assert weights_in(tower) + AUDIOSET_CLASSES * (2048 + 1) == 80_753_615  # table 12
    state = published_panns((64, 128, 256, 512, 1024, 2048))
    tower.load_published(state)
    clips = 0.1 * torch.randn(2, 12_000, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([12_000, 11_000])
    expected = panns_by_the_paper(state, tower.features(clips[:1]), blocks=6, halvings=5)
    found = tower(clips, lengths)
    torch.testing.assert_close(found[:1], expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found[1:], tower(clips[1:, :11_000]), atol=1e-4, rtol=1e-4)


def test_cnn10_is_as_large_as_the_paper_says():
    assert weights_in(Cnn10()) + AUDIOSET_CLASSES * (512 + 1) == 5_219_279  # table 12


def test_weights_of_another_network_are_refused_by_name():
    state = published_panns((64, 128, 256, 512))
    del state["fc1.bias"]
    with pytest.raises(ModelError, match=r"missing \{'fc1.bias'\}"):
        Cnn10().load_published(state)
    with pytest.raises(ModelError, match="not those of this network"):
        Cnn10().load_published(published_panns((64, 128, 256, 512), bands=128))
    with pytest.raises(ModelError, match=r"unexpected \['blocks\.4\.conv1\.weight'"):
        Cnn10().load_published(published_panns((64, 128, 256, 512, 512)))
    Cnn10(pooling=MeanPool()).load_published(published_panns((64, 128, 256, 512)))


def test_too_few_bands_for_the_halvings_are_refused():
    with pytest.raises(ValueError, match="5 halvings need at least 32 bands, got 16"):
        Cnn14(bands=16)


class PublishedResidualBlock(nn.Module):
    """The strided residual block of Won et al. with the layers in the order of their paper."""

    def __init__(self, before, after):
        super().__init__()
        self.conv_1, self.bn_1 = nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after)
        self.conv_2, self.bn_2 = nn.Conv2d(after, after, 3, padding=1), nn.BatchNorm2d(after)
        self.conv_3, self.bn_3 = nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after)

    def forward(self, maps):
        out = self.bn_2(self.conv_2(self.bn_1(self.conv_1(maps)).relu()))
        return (self.bn_3(self.conv_3(maps)) + out).relu()


@torch.no_grad()
def test_the_short_chunk_resnet_computes_what_the_paper_says():
    tower = ShortChunkResNet(channels=8).eval()
    sizes = [(1, 8), (8, 8), (8, 16), (16, 16), (16, 16), (16, 16), (16, 32)]
    blocks = nn.Sequential(*(PublishedResidualBlock(*pair) for pair in sizes)).eval()
    blocks.load_state_dict(tower.blocks.state_dict())
    features = tower.features(0.1 * torch.randn(2, 59_049, generator=torch.Generator().manual_seed(0)))
    maps = blocks(tower.spec_bn(features[:, None]))
    assert maps.shape == (2, 32, 1, 2), "3.69 seconds are two steps of one band after seven halvings"
    torch.testing.assert_close(tower.encode(features), maps.amax(dim=(2, 3)), atol=1e-5, rtol=1e-4)


def test_the_short_chunk_resnet_is_as_large_as_the_paper_says():
    tagging_head = 512 * 512 + 512 + 2 * 512 + 512 * 50 + 50
    assert round((weights_in(ShortChunkResNet()) + tagging_head) / 1e6, 1) == 12.1
    assert ShortChunkResNet().feature_dim == 512


@pytest.mark.parametrize("width", [0.25, 1.0, 1.5])
def test_width_scales_the_mobile_cnn(width):
    tower = MobileCnn(width=width)
    assert [block[0].out_channels for block in tower.blocks] == [round(size * width) for size in (32, 64, 128, 256)]
    assert tower.feature_dim == 512


@pytest.mark.parametrize("settings", [{"width": 0.0}, {"feature_dim": 0}])
def test_a_mobile_cnn_without_channels_is_refused(settings):
    with pytest.raises(ValueError, match="width and feature_dim must be positive"):
        MobileCnn(**settings)


def test_masks_are_made_only_where_a_clip_is_padded():
    full, short = torch.tensor([7, 7]), torch.tensor([7, 6])
    assert only_if_padded(None, 7) is None
    assert only_if_padded(full, 7) is None
    assert only_if_padded(short, 7) is short
    assert only_if_padded(full, 8) is full


@torch.no_grad()
@pytest.mark.parametrize(
    "tower", [MobileCnn(width=0.25), ShortChunkResNet(channels=4), Cnn10()], ids=lambda t: type(t).__name__
)
def test_an_audio_tower_can_be_exported_with_its_front_end(tower):
    wave, lengths = 0.1 * torch.randn(2, 16_000), torch.tensor([16_000, 9_000])
    exported = torch.export.export(tower.eval(), (wave, lengths)).module()
    torch.testing.assert_close(exported(wave, lengths), tower(wave, lengths))
    other = torch.tensor([5_000, 16_000])
    torch.testing.assert_close(exported(wave, other), tower(wave, other))
