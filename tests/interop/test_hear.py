"""What HEAR's validator asks of a model, and what the vectors must mean."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_model
from torch.testing import assert_close

from xmodal.embedder import Embedder
from xmodal.errors import ModelError
from xmodal.interop import hear


@pytest.fixture(scope="module", params=[8_000, 22_050])
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hear") / "model"
    tiny_model(request.param).save(folder)
    return hear.load_model(str(folder), device="cpu")


def clips(model, seconds, sounds=2):
    time = torch.arange(round(seconds * model.sample_rate)) / model.sample_rate
    pitch = torch.tensor([[200.0], [900.0], [1500.0]])[:sounds]
    return 0.4 * torch.sin(2 * torch.pi * pitch * time) + 0.01 * torch.randn(sounds, len(time))


def test_the_model_says_its_rate_and_sizes(model):
    assert isinstance(model, torch.nn.Module)
    assert model.sample_rate in hear.SAMPLE_RATES_HZ
    assert model.sample_rate >= model.model.sample_rate
    assert isinstance(model.scene_embedding_size, int)
    assert isinstance(model.timestamp_embedding_size, int)


@pytest.mark.parametrize("seconds", [0.001, 1.0, 2.13])
@pytest.mark.parametrize("sounds", [1, 3])
def test_shapes_types_and_times_are_those_that_hear_asks_for(model, seconds, sounds):
    audio = clips(model, seconds, sounds)
    scenes = hear.get_scene_embeddings(audio, model)
    assert scenes.shape == (sounds, model.scene_embedding_size)
    vectors, times = hear.get_timestamp_embeddings(audio, model)
    assert vectors.shape == (sounds, times.shape[1], model.timestamp_embedding_size)
    assert times.shape[0] == sounds
    assert scenes.dtype == vectors.dtype == times.dtype == torch.float32
    assert scenes.isfinite().all()
    assert vectors.isfinite().all()
    assert not scenes.requires_grad
    assert (times == times[0]).all(), "all clips have the same length, and so the same timestamps"
    assert times[0, 0] == 0.0
    assert times.max() <= 1000 * seconds + 1e-3
    steps = times[0].diff()
    assert_close(steps, torch.full_like(steps, 50.0))


def test_a_clip_has_the_same_vectors_alone_and_in_a_batch(model):
    audio = clips(model, 1.3, 3)
    together, times = hear.get_timestamp_embeddings(audio, model)
    alone, _ = hear.get_timestamp_embeddings(audio[1:2], model)
    assert_close(alone[0], together[1], atol=2e-6, rtol=0)
    assert_close(
        hear.get_scene_embeddings(audio[1:2], model)[0], hear.get_scene_embeddings(audio, model)[1], atol=2e-6, rtol=0
    )
    assert len(times[0]) == 27


def test_a_scene_is_what_xmodal_embeds(tmp_path):
    import soundfile

    tiny_model(16_000).save(tmp_path / "m")
    model = hear.load_model(str(tmp_path / "m"), device="cpu")
    audio = clips(model, 1.7, 1)
    soundfile.write(tmp_path / "a.wav", audio[0].numpy(), 16_000, subtype="FLOAT")
    expected = Embedder(tiny_model(16_000), device="cpu").embed_files([tmp_path / "a.wav"]).embeddings.vectors
    assert_close(hear.get_scene_embeddings(audio, model).numpy(), expected, atol=2e-6, rtol=0)


def test_a_timestamp_hears_what_is_around_it(model):
    rate = model.sample_rate
    low, high = clips(model, 2.0)
    audio = torch.cat([low[:rate], high[rate : 2 * rate]])[None]
    vectors, times = hear.get_timestamp_embeddings(audio, model)
    pure, _ = hear.get_timestamp_embeddings(torch.stack([low, high]), model)
    middle = int((times[0] == 1000).nonzero())
    early, late = vectors[0, middle - 10], vectors[0, middle + 10]
    assert early @ pure[0, middle - 10] > early @ pure[1, middle - 10]
    assert late @ pure[1, middle + 10] > late @ pure[0, middle + 10]


def test_what_hear_cannot_serve_is_refused(model):
    with pytest.raises(ModelError, match="which model: hear-validator"):
        hear.load_model()
    with pytest.raises(ValueError, match=r"float samples \[sounds, samples\], got torch.int16 \[1, 10\]"):
        hear.get_scene_embeddings(torch.zeros(1, 10, dtype=torch.int16), model)
    with pytest.raises(ModelError, match="at most 48000 Hz, and this model wants 96000"):
        hear.HearModel(tiny_model(96_000))
