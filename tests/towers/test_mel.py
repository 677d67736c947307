"""The log-mel front end against a loop over frames, against torchaudio, and at its limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import xmodal.compat  # noqa: F401  (makes torchaudio importable)

# isort: split
from torchaudio.transforms import MelSpectrogram

from xmodal.configurable import instantiate
from xmodal.towers import Cnn10, LogMel


def noise(clips, samples, loudness=0.1):
    return loudness * torch.randn(clips, samples, generator=torch.Generator().manual_seed(0))


def htk_filters(bins, bands, sample_rate, f_min, f_max):
    """Triangles that are evenly spaced and one high on the mel scale of O'Shaughnessy, as HTK draws them."""

    def mel(hz):
        return 2595 * np.log10(1 + hz / 700)

    corners = np.linspace(mel(f_min), mel(f_max), bands + 2)
    corners = 700 * (10 ** (corners / 2595) - 1)
    frequencies = np.linspace(0, sample_rate / 2, bins)
    filters = np.zeros((bins, bands))
    for band in range(bands):
        low, middle, high = corners[band : band + 3]
        for row, hz in enumerate(frequencies):
            if low < hz <= middle:
                filters[row, band] = (hz - low) / (middle - low)
            elif middle < hz < high:
                filters[row, band] = (high - hz) / (high - middle)
    return filters


@pytest.mark.parametrize("power", [1.0, 2.0])
@pytest.mark.parametrize("samples", [4000, 3999, 100])
def test_features_are_those_of_a_loop_over_frames(power, samples):
    front_end = LogMel(8000, n_fft=256, hop=100, bands=20, f_min=50.0, f_max=3000.0, power=power, floor_db=-60.0)
    wave = noise(1, samples)[0].double().numpy()
    padded = np.pad(wave, (128, 128 + 256))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(256) / 256)
    filters = htk_filters(129, 20, 8000, 50, 3000)
    expected = []
    for frame in range(1 + samples // 100):
        amplitude = np.abs(np.fft.rfft(padded[frame * 100 : frame * 100 + 256] * window))
        relative = (amplitude / (window.sum() / 2)) ** power  # 1 for a sine of amplitude 1 on the bin's centre
        decibels = 20 / power * np.log10(np.maximum(relative @ filters, 1e-30))
        expected.append((np.maximum(decibels, -60) + 40) / 20)
    found = front_end(torch.from_numpy(wave).float()[None])[0]
    np.testing.assert_allclose(found.T, np.array(expected), atol=2e-4)


@pytest.mark.parametrize(("scale", "norm"), [("htk", None), ("slaney", "slaney"), ("htk", "slaney")])
def test_features_are_torchaudios_in_decibels(scale, norm):
    front_end = LogMel(16_000, 512, 160, 40, f_min=30.0, mel_scale=scale, unit_area=norm is not None, floor_db=-200.0)
    wave = noise(2, 8000)
    reference = MelSpectrogram(
        16_000, 512, hop_length=160, f_min=30, n_mels=40, pad_mode="constant", norm=norm, mel_scale=scale
    )
    expected = (10 * reference(wave).log10() - 20 * math.log10(128) + 40) / 20
    torch.testing.assert_close(front_end(wave), expected, atol=1e-4, rtol=0)


def test_panns_hears_the_published_decibels():
    tower = Cnn10()
    wave = noise(1, 32_000)
    reference = MelSpectrogram(
        32_000, 1024, hop_length=320, f_min=50, f_max=14_000, n_mels=64, norm="slaney", mel_scale="slaney"
    )
    expected = 10 * reference(wave).clamp(min=1e-10).log10()
    # Inside, where neither zeros nor the mirror image beyond the ends are in the window.
    torch.testing.assert_close(tower.features(wave)[..., 2:-2], expected[..., 2:-2], atol=1e-3, rtol=0)
    assert torch.allclose(tower.features(torch.zeros(1, 320)), torch.tensor(-100.0))


def test_the_normalisation_is_two_constants():
    front_end = LogMel(8000, 256, 80, 20)
    silence = front_end(torch.zeros(2, 800))
    assert torch.allclose(silence, torch.tensor(-2.0))
    sine = torch.sin(2 * torch.pi * 1000 * torch.arange(8000) / 8000)[None]
    assert front_end(sine).amax() == pytest.approx(2.0, abs=0.2)
    halved = front_end(sine)[:, :, 5:-5].amax() - front_end(sine / 2)[:, :, 5:-5].amax()
    assert halved == pytest.approx(20 * math.log10(2) / 20, abs=1e-4)
    quiet_beside_loud = front_end(torch.cat([noise(1, 8000, 0.001), sine * 1e3]))
    assert torch.equal(quiet_beside_loud[:1], front_end(noise(1, 8000, 0.001)))


@settings(deadline=None, max_examples=30)
@given(samples=st.integers(1, 3000), hop=st.integers(1, 256))
def test_the_frame_count_follows_its_rule(samples, hop):
    front_end = LogMel(8000, 256, hop, 20)
    assert front_end(torch.zeros(1, samples)).shape == (1, 20, 1 + samples // hop)
    assert front_end.frames(torch.tensor([samples])).tolist() == [1 + samples // hop]


@settings(deadline=None, max_examples=20)
@given(samples=st.integers(1, 2000), padding=st.integers(0, 2000))
def test_zeros_at_the_end_change_no_frame_of_the_clip(samples, padding):
    front_end = LogMel(8000, 256, 100, 20)
    wave = noise(1, samples)
    alone = front_end(wave)
    padded = front_end(torch.nn.functional.pad(wave, (0, padding)))
    torch.testing.assert_close(padded[..., : alone.shape[-1]], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("change", [torch.nn.Module.half, torch.nn.Module.bfloat16, torch.nn.Module.double])
def test_features_stay_float32_whatever_the_module_or_the_autocast(change):
    front_end = LogMel(8000, 256, 80, 20)
    wave = noise(1, 2000)
    expected = front_end(wave)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(front_end(wave), expected)
    changed = change(torch.nn.Sequential(front_end))[0]
    found = changed(wave.double())
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_the_front_end_has_no_weights_and_is_made_again_from_its_config():
    front_end = LogMel(8000, 256, 80, 20, power=1.0)
    assert front_end.state_dict() == {}
    assert list(front_end.parameters()) == []
    again = instantiate(front_end.config)
    assert again.identity() == front_end.identity()
    assert torch.equal(again(noise(1, 500)), front_end(noise(1, 500)))
    assert LogMel(8000).identity() == LogMel(8000, f_max=4000.0).identity()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"f_max": 4001.0}, r"Nyquist frequency of 4000\.0 Hz at 8000 samples a second, got 4001\.0"),
        ({"f_min": 4000.0}, r"f_min must be from 0 to f_max \(4000\.0 Hz\), got 4000\.0"),
        ({"f_min": -1.0}, "f_min must be from 0"),
        ({"bands": 128}, r"\d+ of 128 bands lie between two bins of an n_fft of 256"),
        ({"hop": 257}, r"hop must not exceed n_fft \(256\)"),
        ({"hop": 0}, "hop must be at least 1, got 0"),
        ({"n_fft": 0}, "n_fft must be at least 1"),
        ({"power": 0.0}, r"power and std_db must be positive, got power=0\.0"),
        ({"std_db": -1.0}, "power and std_db must be positive"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LogMel(**({"sample_rate": 8000, "n_fft": 256, "hop": 80, "bands": 20} | settings))


@pytest.mark.parametrize(
    "wave", [torch.zeros(800), torch.zeros(1, 2, 800), torch.zeros(1, 0), torch.zeros(1, 800, dtype=torch.int16)]
)
def test_what_is_no_batch_of_mono_samples_is_refused(wave):
    with pytest.raises(ValueError, match=r"floating-point samples \[clips, samples\] in \[-1, 1\], got torch\."):
        LogMel(8000, 256, 80, 20)(wave)


def test_a_real_recording_uses_the_range_of_the_features(shared_audio):
    import soundfile

    path = next(iter(sorted((shared_audio / "esc10").glob("*.ogg"))))
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    features = LogMel(rate, 2048, 882, 64)(torch.from_numpy(samples.mean(axis=1))[None])
    assert features.isfinite().all()
    assert -2.0 <= features.min() < features.max() < 3.0
    assert features.std() > 0.2
