"""What every tower promises, over every tower."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from jsonargparse import ArgumentError, ArgumentParser
from torch import nn
from tower_cases import (
    AUDIO_TOWERS,
    AUGMENTED_TOWERS,
    FRONT,
    LYRIC,
    RATE,
    TEXT_TOWERS,
    TEXTS,
    assert_same_vectors,
    sounds,
    trained,
)

from xmodal.configurable import instantiate
from xmodal.errors import ModelError
from xmodal.towers import (
    AudioTower,
    HashedBagOfWordsTower,
    MobileCnn,
    ShortChunkResNet,
    SpecAugment,
    TextTower,
)
from xmodal.towers.folding import folded


@pytest.fixture(params=AUDIO_TOWERS)
def audio_tower(request):
    return copy.deepcopy(trained(request.param))


def normalisations(tower):
    return [module for module in tower.modules() if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))]


@pytest.fixture(params=TEXT_TOWERS)
def text_tower(request, tiny_encoder):
    torch.manual_seed(0)
    return TEXT_TOWERS[request.param](tiny_encoder).eval()


# -- audio ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_clip_embeds_the_same_alone_in_a_batch_and_in_any_order(audio_tower):
    clips = sounds(5, 1.0)
    together = audio_tower(clips)
    assert together.shape == (5, audio_tower.feature_dim)
    assert_same_vectors(torch.cat([audio_tower(clip[None]) for clip in clips]), together)
    assert_same_vectors(audio_tower(clips.flip(0)).flip(0), together)
    assert (together[0] - together[1]).norm() > 1e-3 * together[0].norm(), "all clips look alike"


@torch.no_grad()
@pytest.mark.parametrize("padding", ["zeros", "noise"])
def test_padding_is_not_heard(audio_tower, padding):
    clips = sounds(8, 1.5)
    lengths = torch.tensor([12000, 11999, 8065, 6400, 4096, 2049, 129, 1])
    padded = clips.clone()
    if padding == "zeros":
        for row, length in enumerate(lengths):
            padded[row, length:] = 0
    found = audio_tower(padded, lengths)
    alone = torch.cat([audio_tower(clip[None, :length]) for clip, length in zip(clips, lengths, strict=True)])
    assert_same_vectors(found, alone)


@torch.no_grad()
def test_saying_that_everything_is_valid_changes_nothing(audio_tower):
    clips = sounds(3, 1.0)
    assert_same_vectors(audio_tower(clips, torch.tensor([RATE, RATE, RATE])), audio_tower(clips))


@torch.no_grad()
def test_encoding_stored_features_is_the_same_as_listening(audio_tower):
    clips, lengths = sounds(3, 1.0), torch.tensor([8000, 5000, 300])
    features = torch.stack([audio_tower.features(clip[None, :])[0] for clip in clips])
    assert features.shape[2] == int(audio_tower.valid_frames(torch.tensor([RATE])))
    trimmed = [audio_tower.features(clip[None, :length])[0] for clip, length in zip(clips, lengths, strict=True)]
    stored = torch.nn.utils.rnn.pad_sequence([part.T for part in trimmed], batch_first=True).transpose(1, 2)
    found = audio_tower.encode(stored, audio_tower.valid_frames(lengths))
    assert_same_vectors(found, audio_tower(clips, lengths))


@torch.no_grad()
@pytest.mark.parametrize("loudness", [0.0, 1e-8, 1.0, 1e4])
@pytest.mark.parametrize("samples", [1, 127, RATE])
def test_silence_din_and_the_shortest_clip_have_finite_vectors(audio_tower, loudness, samples):
    vectors = audio_tower(torch.full((2, samples), loudness))
    assert vectors.shape == (2, audio_tower.feature_dim)
    assert vectors.isfinite().all()
    assert vectors.norm(dim=1).min() > 0


def test_a_clip_without_a_valid_sample_is_refused(audio_tower):
    with pytest.raises(ValueError, match=r"at least one valid sample, got \[8000, 0\]"):
        audio_tower(sounds(2, 1.0), torch.tensor([8000, 0]))
    with pytest.raises(ValueError, match=r"at least one valid frame; clips \[1\] have none"):
        audio_tower.encode(audio_tower.features(sounds(2, 1.0)), torch.tensor([10, 0]))


@pytest.mark.parametrize("lengths", [None, torch.tensor([8000, 8000, 4000, 1000])], ids=["full", "padded"])
def test_gradients_reach_every_weight_of_an_audio_tower(audio_tower, lengths):
    audio_tower.train()
    vectors = audio_tower(sounds(4, 1.0), lengths)
    trained = {name: weight for name, weight in audio_tower.named_parameters() if weight.requires_grad}
    assert bool(trained) != audio_tower.frozen
    if trained:
        (vectors * torch.randn(vectors.shape)).sum().backward()
    unreached = [name for name, weight in trained.items() if weight.grad is None or not weight.grad.any()]
    assert unreached == []


@torch.no_grad()
def test_an_audio_tower_is_made_again_from_its_config_and_weights(audio_tower):
    config = json.loads(json.dumps(audio_tower.config))
    again = instantiate(config).eval()
    again.load_state_dict(audio_tower.state_dict(), strict=True)
    clips = sounds(2, 0.5)
    assert torch.equal(again(clips), audio_tower(clips))
    assert again.identity() == json.loads(json.dumps(audio_tower.identity()))


@torch.no_grad()
def test_a_folded_tower_hears_what_the_plain_one_hears_and_leaves_it_alone(audio_tower):
    clips, lengths = sounds(4, 1.0), torch.tensor([8000, 5000, 4096, 300])
    weights = {name: tensor.clone() for name, tensor in audio_tower.state_dict().items()}
    plain = audio_tower(clips, lengths)
    other = folded(audio_tower)
    assert_same_vectors(other(clips, lengths), plain)
    assert torch.equal(audio_tower(clips, lengths), plain)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in audio_tower.state_dict().items())


def test_every_normalisation_behind_a_convolution_is_folded():
    # What is left stands before the first convolution, or behind a linear layer.
    expected = {"MobileCnn": 0, "ShortChunkResNet": 1, "Cnn10": 1, "Fcn": 1, "Musicnn": 2, "ShortChunkCnn": 2}
    expected |= {"HarmonicCnn": 2, "DepthEnsemble": len(normalisations(trained("DepthEnsemble"))) - 5}
    left = {name: len(normalisations(folded(trained(name)))) for name in expected}
    assert left == expected


@torch.no_grad()
@pytest.mark.parametrize("name", AUGMENTED_TOWERS)
def test_only_training_draws_random_numbers(name):
    tower = AUDIO_TOWERS[name](augment=SpecAugment()).eval()
    tower.load_state_dict(trained(name).state_dict())
    clips = sounds(2, 1.0)
    state = torch.get_rng_state()
    first = tower(clips)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(tower(clips), first)
    assert_same_vectors(tower(clips), first)

    features = tower.features(clips)
    for module in tower.modules():  # leaves SpecAugment as the only difference between the two modes
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.Dropout)):
            module.train = lambda mode=True, module=module: module
    tower.train()
    torch.manual_seed(1)
    augmented = tower.encode(features)
    assert (augmented - first).norm() > 1e-3 * first.norm()
    torch.manual_seed(1)
    assert torch.equal(tower.encode(features), augmented)


def test_the_identity_names_the_front_end_and_the_pooling():
    tower = AUDIO_TOWERS["ShortChunkResNet"]()
    others = [
        ShortChunkResNet(**(FRONT | {"hop": 100}), channels=8),
        ShortChunkResNet(**FRONT, channels=8, f_min=40.0),
        AUDIO_TOWERS["ShortChunkResNet-mean"](),
        AUDIO_TOWERS["Cnn10"](),
    ]
    identities = {json.dumps(other.identity(), sort_keys=True) for other in [tower, *others]}
    assert len(identities) == 5


@torch.no_grad()
@pytest.mark.parametrize("name", ["MobileCnn", "ShortChunkResNet", "Cnn10"])
def test_an_audio_tower_runs_in_half_precision_where_it_should(name):
    tower = trained(name)
    clips = sounds(3, 1.0)
    exact = tower(clips, torch.tensor([8000, 8000, 2000]))
    with torch.autocast("cpu", torch.bfloat16):
        assert tower.features(clips).dtype == torch.float32
        assert torch.equal(tower.features(clips), tower.features(clips.double()))
        rough = tower(clips, torch.tensor([8000, 8000, 2000]))
    assert torch.nn.functional.cosine_similarity(rough.float(), exact).min() > 0.98


# -- text -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_text_embeds_the_same_alone_in_a_batch_and_in_any_order(text_tower):
    together = text_tower(TEXTS)
    assert together.shape == (len(TEXTS), text_tower.feature_dim)
    assert_same_vectors(torch.cat([text_tower([text]) for text in TEXTS]), together)
    assert_same_vectors(text_tower(TEXTS[::-1]).flip(0), together)


@torch.no_grad()
@pytest.mark.parametrize("position", [0, 1000, 1998])
# A maximum over chunks reads every word too, but keeps only the largest values.
@pytest.mark.parametrize("text_tower", [name for name in TEXT_TOWERS if name != "frozen-max"], indirect=True)
def test_every_word_of_a_long_lyric_counts(text_tower, position):
    words = LYRIC.split()
    words[position] = "w0" if words[position] != "w0" else "w5"
    vectors = text_tower([LYRIC, " ".join(words)])
    assert (vectors[0] - vectors[1]).norm() > 1e-5 * vectors[0].norm()


def test_chunks_name_their_text(text_tower):
    batch = text_tower.tokenize(TEXTS)
    assert batch.count == len(TEXTS)
    assert sorted(set(batch.owner.tolist())) == list(range(len(TEXTS)))
    assert batch.owner.tolist() == sorted(batch.owner.tolist())
    assert all(len(tensor) == len(batch.owner) for tensor in batch.inputs.values())
    moved = batch.to("meta")
    assert moved.owner.device.type == "meta"
    assert {tensor.device.type for tensor in moved.inputs.values()} == {"meta"}
    assert batch.owner.device.type == "cpu"


@pytest.mark.parametrize("blank", ["", "  \n\t"])
def test_a_blank_text_is_refused(text_tower, blank):
    with pytest.raises(ValueError, match="text 1 is blank"):
        text_tower.tokenize(["w1", blank])


def test_no_text_and_a_bare_string_are_refused(text_tower):
    with pytest.raises(ValueError, match="at least one text"):
        text_tower.tokenize([])
    with pytest.raises(TypeError, match="must be a list of strings, got the single string 'w1'"):
        text_tower.tokenize("w1")


def test_gradients_reach_every_weight_of_a_text_tower_that_is_not_frozen(text_tower):
    text_tower.train()
    vectors = text_tower(TEXTS[:4] + TEXTS[5:])
    trained = {name: weight for name, weight in text_tower.named_parameters() if weight.requires_grad}
    if text_tower.frozen:
        assert not any(name.startswith(text_tower.asset_prefixes) for name in trained)
    assert vectors.requires_grad == bool(trained)
    if trained:
        (vectors * torch.randn(vectors.shape)).sum().backward()
    unreached = [
        name
        for name, weight in trained.items()
        if "pooler" not in name and (weight.grad is None or not weight.grad.any())  # BERT's own pooler is not used
    ]
    # The same number added to every score of a head leaves its softmax as it was.
    assert [name for name in unreached if name != "token_head.scores.bias"] == []


@torch.no_grad()
def test_encoding_is_reading_and_combining(text_tower):
    batch = text_tower.tokenize(TEXTS)
    readings = text_tower.read(batch)
    assert len(readings) == len(TEXTS)
    assert_same_vectors(text_tower.combine(readings), text_tower.encode(batch))
    one_by_one = [text_tower.read(text_tower.tokenize([text]))[0] for text in TEXTS]
    assert_same_vectors(text_tower.combine(one_by_one[::-1]).flip(0), text_tower.encode(batch))


@torch.no_grad()
def test_a_text_tower_is_made_again_from_its_config_its_assets_and_its_weights(text_tower, tmp_path):
    for weight in text_tower.parameters():  # as if trained, so that the weights must come from what was written
        weight.mul_(1.1)
    expected = text_tower(TEXTS)
    assets = text_tower.save_assets(tmp_path)
    kept = {
        name: tensor
        for name, tensor in text_tower.state_dict().items()
        if not name.startswith(text_tower.asset_prefixes or ("no prefix",))
    }
    config = json.loads(json.dumps(text_tower.config))
    for name, value in assets.items():
        assert not value.startswith("/")
        *inside, last = name.split(".")  # "text.model" is an argument of a tower inside of the tower
        place = config["init_args"]
        for each in inside:
            place = place[each]["init_args"]
        place[last] = str(tmp_path / value)
    again = instantiate(config).eval()
    report = again.load_state_dict(kept, strict=False)
    assert not report.unexpected_keys
    assert all(name.startswith(text_tower.asset_prefixes) for name in report.missing_keys)
    assert torch.equal(again(TEXTS), expected)
    assert again.identity() == json.loads(json.dumps(text_tower.identity()))


@torch.no_grad()
def test_a_text_tower_in_evaluation_mode_draws_no_random_numbers(text_tower):
    state = torch.get_rng_state()
    first = text_tower(TEXTS)
    assert torch.equal(text_tower(TEXTS), first)
    assert torch.equal(torch.get_rng_state(), state)


# -- configs ----------------------------------------------------------------------------------------------------


def test_yaml_names_towers_and_their_parts_by_class_path():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--audio", type=AudioTower)
    parser.add_argument("--text", type=TextTower)
    pooling = {"class_path": "xmodal.towers.AttentionPool", "init_args": {"hidden": 7}}
    config = parser.parse_object(
        {
            "audio": {
                "class_path": "xmodal.towers.MobileCnn",
                "init_args": {
                    "width": 0.25,
                    "pooling": pooling,
                    "augment": {"class_path": "xmodal.towers.SpecAugment"},
                },
            },
            "text": {"class_path": "xmodal.towers.HashedBagOfWordsTower"},
        }
    )
    made = parser.instantiate(config)
    assert isinstance(made.audio, MobileCnn)
    assert made.audio.pooling.hidden == 7
    assert isinstance(made.audio.augment, SpecAugment)
    assert isinstance(made.text, HashedBagOfWordsTower)
    with pytest.raises(ArgumentError, match="widht"):
        parser.parse_object({"audio": {"class_path": "xmodal.towers.MobileCnn", "init_args": {"widht": 1}}})


def test_an_unknown_tower_is_answered_by_name():
    import xmodal.towers

    with pytest.raises(AttributeError, match="no attribute 'MobilCnn'; it has AstTower, Attention.*, AudioTower"):
        _ = xmodal.towers.MobilCnn
    with pytest.raises(ModelError, match=r"xmodal\.towers\.MobilCnn, which does not exist"):
        instantiate({"class_path": "xmodal.towers.MobilCnn"})
    assert all(hasattr(xmodal.towers, name) for name in xmodal.towers.__all__)
