"""The published tagging CNNs against plain functions on published names, and the real checkpoint that lies beside."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchaudio
from torch.nn import functional as F
from torch.testing import assert_close

from xmodal import audio
from xmodal.errors import ModelError
from xmodal.towers import Fcn, HarmonicCnn, Musicnn, ShortChunkCnn
from xmodal.towers.tagging_cnns import read_weights

RATE, TAGS = 16_000, 7


def norm(maps, state, name):
    return F.batch_norm(maps, *(state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")))


def conv(maps, state, name, pooling=None, activation=F.relu, **how):
    how.setdefault("padding", 1)
    maps = activation(
        norm(F.conv2d(maps, state[f"{name}.conv.weight"], state[f"{name}.conv.bias"], **how), state, f"{name}.bn")
    )
    return maps if pooling is None else F.max_pool2d(maps, pooling)


def residual(maps, state, name, stride=1, pooling=None):
    def one(maps, number, stride=1):
        weight, bias = state[f"{name}.conv_{number}.weight"], state[f"{name}.conv_{number}.bias"]
        return norm(F.conv2d(maps, weight, bias, stride=stride, padding=1), state, f"{name}.bn_{number}")

    inner = one(one(maps, 1, stride).relu(), 2)
    out = (inner + (one(maps, 3, stride) if f"{name}.conv_3.weight" in state else maps)).relu()
    return out if pooling is None else F.max_pool2d(out, pooling)


def dense(vectors, state):
    hidden = F.linear(vectors, state["dense1.weight"], state["dense1.bias"])
    return norm(hidden, state, "bn").relu()


def decibels(wave, bands):
    spec = torchaudio.transforms.MelSpectrogram(sample_rate=RATE, n_fft=512, f_min=0.0, f_max=8000.0, n_mels=bands)
    return torchaudio.transforms.AmplitudeToDB()(spec(wave))[:, None], {
        "spec.spectrogram.window": spec.spectrogram.window,
        "spec.mel_scale.fb": spec.mel_scale.fb,
    }


def fcn(state, wave):
    maps = norm(decibels(wave, 96)[0], state, "spec_bn")
    for number, pooling in enumerate([(2, 4), (2, 4), (2, 4), (3, 5), (4, 4)], start=1):
        maps = conv(maps, state, f"layer{number}", pooling)
    return maps.flatten(1)


def musicnn(state, wave):
    maps = norm(decibels(wave, 96)[0], state, "spec_bn")

    def along(series, name, padding):
        series = F.conv1d(series, state[f"{name}.conv.weight"], state[f"{name}.conv.bias"], padding=padding)
        return norm(series, state, f"{name}.bn").relu()

    series = [conv(maps, state, f"layers.{number}", padding=(0, 3)).amax(dim=2) for number in (0, 1)]
    series += [along(maps.mean(dim=2), f"layers.{number}", padding) for number, padding in ((2, 64), (3, 32), (4, 16))]
    front = torch.cat(series, dim=1)
    first = along(front, "layer1", 3)
    second = along(first, "layer2", 3) + first
    third = along(second, "layer3", 3) + second
    both = torch.cat([front, first, second, third], dim=1)
    return dense(torch.cat([both.amax(dim=2), both.mean(dim=2)], dim=1), state)


def short_chunk(state, wave):
    maps = norm(decibels(wave, 128)[0], state, "spec_bn")
    for number in range(1, 8):
        if "layer1.conv.weight" in state:
            maps = conv(maps, state, f"layer{number}", 2)
        else:
            maps = residual(maps, state, f"layer{number}", stride=2)
    return dense(maps.squeeze(2).amax(dim=2), state)


def harmonic(state, wave):
    spectrum = torchaudio.transforms.Spectrogram(n_fft=512, power=2)(wave)
    notes = 440 * 2 ** ((np.linspace(24, 88, 129)[:-1] - 69) / 12)
    centres = torch.tensor(np.concatenate([notes * (number + 1) for number in range(6)]), dtype=torch.float32)
    width = (0.1079 * centres + 24.7) / state["hstft.bw_Q"]
    bins = torch.linspace(0, 8000, 257)[:, None]
    up, down = 1 + 2 * (bins - centres) / width, 1 - 2 * (bins - centres) / width
    heard = (spectrum.transpose(1, 2) @ torch.minimum(up, down).clamp(min=0)).transpose(1, 2)
    maps = torchaudio.transforms.AmplitudeToDB()(heard.reshape(len(wave), 6, 128, -1))
    maps = conv(norm(maps, state, "hstft_bn"), state, "layer1", 2)
    for number in (2, 3, 4):
        maps = residual(maps, state, f"layer{number}", pooling=2)
    maps = conv(maps, state, "layer5", 2)
    for number in (6, 7):
        maps = residual(maps, state, f"layer{number}", pooling=(2, 3))
    return dense(maps.squeeze(2).amax(dim=2), state)


# Name, tower, reference, seconds of its training windows, and names that every published checkpoint of the kind has.
PUBLISHED = {
    "fcn": (lambda: Fcn(), fcn, 29.1, "layer5.conv.weight dense.weight spec_bn.bias"),
    "musicnn": (
        lambda: Musicnn(),
        musicnn,
        3.0,
        "layers.4.conv.weight layer3.bn.bias dense1.bias bn.weight dense2.bias",
    ),
    "musicnn-large": (lambda: Musicnn(large=True), musicnn, 3.0, "layers.0.conv.weight dense2.weight"),
    "short": (lambda: ShortChunkCnn(channels=8), short_chunk, 3.69, "layer7.conv.weight dense2.weight"),
    "short_res": (lambda: ShortChunkCnn(True, channels=8), short_chunk, 3.69, "layer7.conv_3.weight layer2.bn_2.bias"),
    "hcnn": (
        lambda: HarmonicCnn(channels=8),
        harmonic,
        5.0,
        "hstft.bw_Q hstft_bn.weight layer2.conv_2.weight dense2.bias",
    ),
}


def checkpoint(tower):
    """A random state dict with the published names: those of the tower, its front end's, and the layer for tags."""
    generator = torch.Generator().manual_seed(0)
    back = {own: name for name, own in tower._renamed.items()}
    state = {}
    for name, tensor in tower.state_dict().items():
        if name.endswith("running_var"):
            value = 0.5 + torch.rand(tensor.shape, generator=generator)
        elif tensor.dim() > 1:
            value = torch.randn(tensor.shape, generator=generator) * (2 / tensor[0].numel()) ** 0.5
        elif name == "spectrum.quality":
            value = torch.tensor([1.7])
        else:
            value = 0.2 * torch.randn(tensor.shape, generator=generator) + name.endswith("weight")
        state[back.get(name, name)] = value.to(tensor.dtype)
    for name in ("spec_bn", "hstft_bn", "bn_init"):
        if f"{name}.running_mean" in state:
            state[f"{name}.running_mean"] -= 30
            state[f"{name}.running_var"] *= 400
    state |= {name: value.clone() for name, value in tower.spectrum.published().items()}
    state[f"{tower._head}.weight"] = torch.randn(TAGS, tower.feature_dim, generator=generator)
    state[f"{tower._head}.bias"] = torch.randn(TAGS, generator=generator)
    return state


def music(seconds, clips=2):
    time = torch.arange(round(seconds * RATE)) / RATE
    wave = 0.3 * torch.sin(2 * torch.pi * torch.tensor([[220.0], [700.0]])[:clips] * time * (1 + 0.02 * time))
    return wave + 0.02 * torch.randn(wave.shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.filterwarnings(
    "ignore:At least one mel filterbank has all zero values"
)  # torchaudio's own, in the reference
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_checkpoint_gives_the_published_vectors_and_tags(name):
    make, reference, seconds, names = PUBLISHED[name]
    tower = make()
    state = checkpoint(tower)
    assert set(names.split()) <= set(state)
    tags = tower.load_published(state)
    wave = music(seconds)
    expected = reference(state, wave)
    found = tower.eval()(wave)
    assert (expected[0] - expected[1]).norm() > 1e-2 * expected[0].norm(), "the clips sound alike"
    assert_close(found, expected, atol=1e-3, rtol=1e-3)
    head = tower._head
    assert_close(tags(found), F.linear(expected, state[f"{head}.weight"], state[f"{head}.bias"]), atol=1e-2, rtol=1e-3)


def test_the_spectrum_that_lies_in_a_checkpoint_must_be_ours():
    tower = Musicnn()
    state = checkpoint(tower)
    expected = decibels(music(1.0), 96)[1]
    assert {name: tensor.shape for name, tensor in expected.items()} == {
        name: state[name].shape for name in ("spec.spectrogram.window", "spec.mel_scale.fb")
    }
    assert_close(state["spec.mel_scale.fb"], expected["spec.mel_scale.fb"])
    state["spec.mel_scale.fb"] = torchaudio.functional.melscale_fbanks(257, 30.0, 8000.0, 96, RATE)
    with pytest.raises(ModelError, match=r"spec\.mel_scale\.fb is of another spectrogram than that of Musicnn"):
        tower.load_published(state)


def test_a_checkpoint_of_another_network_is_refused_by_name(tmp_path):
    state = checkpoint(ShortChunkCnn(channels=8))
    with pytest.raises(ModelError, match="no layer dense2 from 200 features"):
        Musicnn().load_published(state)
    del state["layer3.bn.bias"]
    with pytest.raises(ModelError, match=r"not those of ShortChunkCnn: .*Missing key.*layer3\.bn\.bias"):
        ShortChunkCnn(channels=8).load_published(state)
    (tmp_path / "x.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(ModelError, match=r"x\.pth: no readable checkpoint .*state dict"):
        Fcn(weights=str(tmp_path / "x.pth"))
    torch.save({"epoch": 3, "model": {}}, tmp_path / "whole.pth")
    with pytest.raises(ModelError, match=r"whole\.pth: it holds no state dict"):
        read_weights(tmp_path / "whole.pth")


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("was-run"),))


def test_no_code_of_a_checkpoint_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Evil()}, "evil.pth")
    with pytest.raises(ModelError, match=r"evil\.pth: no readable checkpoint"):
        read_weights("evil.pth")
    assert not Path("was-run").exists()


@torch.no_grad()
def test_a_checkpoint_named_in_a_config_is_loaded_and_no_longer_needed_once_saved(tmp_path):
    from xmodal.model import TwoTower
    from xmodal.towers import HashedBagOfWordsTower

    source = ShortChunkCnn(channels=8)
    torch.save(checkpoint(source), tmp_path / "best_model.pth")
    tower = ShortChunkCnn(channels=8, weights=str(tmp_path / "best_model.pth"))
    text = HashedBagOfWordsTower(buckets=100, embed_dim=8, feature_dim=8)
    model = TwoTower(tower, text, dim=6, window_seconds=3.69).eval()
    model.save(tmp_path / "model")
    (tmp_path / "best_model.pth").unlink()
    again = TwoTower.load(tmp_path / "model")
    assert torch.equal(again.embed_audio(music(3.69)), model.embed_audio(music(3.69)))


@torch.no_grad()
def test_the_real_mtg_jamendo_checkpoint_hears_what_its_tags_say(shared_audio):
    weights = shared_audio.parent / "weights"
    if not (weights / "mtg_jamendo_moodtheme_vgg.pth").is_file():
        pytest.skip("the published checkpoint is not beside this checkout (shared/weights)")
    tower = Fcn(jamendo=True, weights=str(weights / "mtg_jamendo_moodtheme_vgg.pth")).eval()
    head = Fcn(jamendo=True).load_published(weights / "mtg_jamendo_moodtheme_vgg.pth")
    names = [str(name).removeprefix("mood/theme---") for name in np.load(weights / "mtg_jamendo_tag_list.npy")[127:]]
    assert head.out_features == len(names) == 56
    rows = [json.loads(line) for line in (shared_audio / "ccmusic.jsonl").read_text().splitlines()]
    moods = {row["id"]: row for row in rows if row.get("mood")}
    chosen = ["km_meatballparade", "km_merrygoslower", "km_thatchedvillagers", "km_sneakysnitch"]
    waves = [audio.load(shared_audio.parent / moods[name]["path"], 12_000)[:349_200] for name in chosen]
    length = min(map(len, waves))
    batch = torch.from_numpy(np.stack([wave[:length] for wave in waves]))
    maps = tower.spectrum(batch)
    assert maps.shape[1:] == (1, 96, 1366)
    # The spectrogram must be what the first normalisation was trained for, within the loudness of other music.
    assert abs(maps.mean() - tower.spec_bn.running_mean) < 8
    assert 0.7 < maps.std() / tower.spec_bn.running_var.sqrt() < 1.4
    odds = head(tower(batch)).sigmoid()
    happy, dark = odds[:, names.index("happy")], odds[:, names.index("dark")]
    assert happy[:3].min() > 3 * happy[3], "three bright tunes and a mysterious one"
    assert dark[3] > 2 * dark[:3].max()
