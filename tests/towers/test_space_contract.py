"""What every model promises of its space, over every tower and importer: one name for whatever shapes a vector.

Each tower of the list stands in a model beside a small tower for the other side.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from published_models import published
from sound_files import write_noises
from tower_cases import AUDIO_TOWERS, FRONT, RATE, TEXT_TOWERS, TEXTS, sounds, trained
from write_spaces import GOLDEN, golden_models

from xmodal.configurable import instantiate
from xmodal.embedder import Embedder
from xmodal.errors import ModelError, SpaceMismatchError
from xmodal.importers import import_clap
from xmodal.index import build_index
from xmodal.model import TwoTower
from xmodal.towers import HashedBagOfWordsTower, MobileCnn

DIM, LIMIT = 256, 1e-6
AUDIO = [f"audio {name}" for name in AUDIO_TOWERS]
TEXT = [f"text {name}" for name in TEXT_TOWERS]
MODELS = [*AUDIO, *TEXT, "import clap", "import clap-fusion"]


@functools.cache
def made(name, encoder):
    """The model of a name; not to be changed."""
    kind, _, name = name.partition(" ")
    if kind == "import":
        return import_clap(published(name))
    torch.manual_seed(0)
    audio = copy.deepcopy(trained(name)) if kind == "audio" else MobileCnn(**FRONT, width=0.125, feature_dim=24)
    bag = HashedBagOfWordsTower(buckets=500, embed_dim=16, feature_dim=12)
    text = TEXT_TOWERS[name](encoder) if kind == "text" else bag
    return TwoTower(audio, text, dim=DIM, window_seconds=1.0).eval()


@pytest.fixture(params=MODELS)
def model(request, tiny_encoder):
    return made(request.param, tiny_encoder)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files shorter than a window, of one, and of several; stereo, of another rate, silent."""
    kinds = [(0.05, 8000, 1), (1.0, 16000, 2), (2.3, 8000, 1), (1.4, 22050, 1)]
    return write_noises(tmp_path_factory.mktemp("files"), kinds, silent=3)


def vectors(model):
    """What the model says of a few clips, one of them short, and of a few texts."""
    with torch.no_grad():
        clips = sounds(3, 1.0)
        return model.embed_audio(clips, torch.tensor([RATE, RATE, 3000])), model.embed_text(TEXTS[:4] + TEXTS[5:])


def differ(before, after):
    """Whether two answers of :func:`vectors` differ by more than rounding."""
    pairs = zip(before, after, strict=True)
    return any(one.shape != two.shape or (one - two).abs().max() > 1e-5 for one, two in pairs)


# -- the embedding contract, from files on -----------------------------------------------------------------------


@pytest.mark.parametrize("name", [*AUDIO, "import clap", "import clap-fusion"])
def test_a_file_has_one_vector_alone_in_a_batch_in_any_order_and_on_any_number_of_threads(name, files, tiny_encoder):
    model = made(name, tiny_encoder)
    alone = {path: Embedder(model, device="cpu", batch_size=1, workers=1).embed_files([path]) for path in files}
    for batch_size, workers, order in ((3, 1, files), (64, 2, files[::-1])):
        found = Embedder(model, device="cpu", batch_size=batch_size, workers=workers).embed_files(order)
        assert not found.failures
        for path, vector in zip(order, found.embeddings.vectors, strict=True):
            np.testing.assert_allclose(vector, alone[path].embeddings.vectors[0], atol=LIMIT, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("name", [*TEXT, "import clap"])
def test_a_text_has_one_vector_alone_in_a_batch_and_in_any_order(name, tiny_encoder):
    model = made(name, tiny_encoder)
    together = model.embed_text(TEXTS)
    torch.testing.assert_close(torch.cat([model.embed_text([text]) for text in TEXTS]), together, atol=LIMIT, rtol=0)
    torch.testing.assert_close(model.embed_text(TEXTS[::-1]).flip(0), together, atol=LIMIT, rtol=0)


# -- identity ----------------------------------------------------------------------------------------------------


def test_a_space_has_the_same_name_each_time_in_a_copy_and_in_training_mode(model):
    name = model.space_id()
    assert re.fullmatch("[0-9a-f]{16}", name)
    vectors(model)  # embedding leaves traces in tokenizers and caches
    again = copy.deepcopy(model).train()
    assert (model.space_id(), again.space_id(), again.bfloat16().float().train().dim) == (name, name, model.dim)


def test_spaces_have_the_names_that_they_had_when_they_were_first_written():
    assert {name: model.space_id() for name, model in golden_models().items()} == json.loads(GOLDEN.read_text())


def test_no_two_models_of_the_list_share_a_space(tiny_encoder):
    names = [made(name, tiny_encoder).space_id() for name in MODELS]
    alike = {name for name in names if names.count(name) > 1}
    assert not alike, [name for name, space in zip(MODELS, names, strict=True) if space in alike]


def test_the_smallest_change_of_any_weight_is_another_space(model):
    model = copy.deepcopy(model)
    name = model.space_id()
    for weight, tensor in model.state_dict().items():
        if weight.endswith("num_batches_tracked"):  # counts steps, shapes nothing
            tensor += 1
            assert model.space_id() == name, weight
            continue
        last = (-1,) * tensor.dim()
        before = tensor[last].clone()
        tensor[last] = before + 1 if not before.is_floating_point() else torch.nextafter(before, before + 1)
        assert model.space_id() != name, weight
        tensor[last] = before
    assert model.space_id() == name


def test_windows_pooling_dimensions_and_normalisation_are_part_of_the_name(model):
    arguments = {**model.config["init_args"], "audio": model.audio, "text": model.text}
    hop = model.windows.window_seconds / 2
    changes = [
        {"window_seconds": hop},
        {"hop_seconds": hop},
        {"last_window": "pad"},
        {"last_window": "drop"},
        {"pooling": "energy"},
        {"pooling": "top_k"},
        {"pooling": "top_k", "top_windows": 5},
        {"pooling": "windows"},
        {"keep_dim": model.dim // 2},
        {"centred": True},
    ]
    names = [model.space_id()]
    for change in changes:
        other = TwoTower(**{**arguments, **change})
        other.load_state_dict(model.state_dict(), strict="centred" not in change)
        names.append(other.space_id())
    assert len(set(names)) == len(names)
    assert model.identity()["normalisation"] == "l2"


def alternatives(name, value, others):
    """Other values of a setting that keep to its type."""
    if name in others:
        return others[name]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, max(1, value // 2), 2 * value]
    if isinstance(value, float):
        return [value * 1.25, value + 1.0, value / 2]
    return []


CHOICES = {
    "mel_scale": ["slaney"],
    "f_max": [3500.0],
    "f_min": [40.0],
    "pooling": [{"class_path": f"xmodal.towers.{one}"} for one in ("MeanPool", "MaxPool", "OrderStatisticsPool")],
    "chunk_pooling": ["max"],
    "lyrics_pooling": ["mean", "max"],
    "dropout": [],
}


@pytest.mark.parametrize("name", [*AUDIO, *TEXT])
def test_a_setting_of_a_tower_that_moves_a_vector_renames_the_space(name, tiny_encoder):
    model = made(name, tiny_encoder)
    side = name.split()[0]
    config = json.loads(json.dumps(model.config))
    before, space = vectors(model), model.space_id()
    moved = []
    for argument, value in list(config["init_args"][side]["init_args"].items()):
        for other in alternatives(argument, value, CHOICES):
            changed = copy.deepcopy(config)
            changed["init_args"][side]["init_args"][argument] = other
            try:
                variant = instantiate(changed).eval()
                variant.load_state_dict(model.state_dict(), strict=True)
                after = vectors(variant)
            except (ValueError, RuntimeError, ModelError):  # not a network that these weights fit
                continue
            if any(
                one.shape != two.shape or (one - two).abs().max() > 1e-5 for one, two in zip(before, after, strict=True)
            ):
                moved.append(argument)
                assert variant.space_id() != space, f"{argument}={other!r}"
    if name in {"audio MobileCnn", "audio ShortChunkResNet", "audio Cnn10"}:
        assert {"hop", "f_min", "f_max"} <= set(moved)


# Settings of the folders that others publish: files beside the weights, of which each could move a vector.
IMPORTED = {
    "clap": ("import clap", ["config.json", "preprocessor_config.json"]),
    "clap-fusion": ("import clap-fusion", ["preprocessor_config.json"]),
    "ast": ("audio Ast", ["config.json", "preprocessor_config.json"]),
    "mert": ("audio Mert", ["config.json", "preprocessor_config.json"]),
    "wav2vec2": ("audio Wav2Vec2-attention", ["config.json", "preprocessor_config.json"]),
    "bert": ("text trainable", ["config.json"]),
}
SPOKEN = {"hidden_act": "relu", "projection_hidden_act": "gelu", "feat_extract_activation": "relu"}


def settings_of(said, path=()):
    """Every number, flag and list of numbers in a config, with where it stands."""
    for key, value in said.items():
        if isinstance(value, dict):
            yield from settings_of(value, (*path, key))
        elif key in SPOKEN:
            yield (*path, key), [SPOKEN[key]]
        elif isinstance(value, int | float):
            yield (*path, key), alternatives(key, value, {})[:1]
        elif isinstance(value, list) and value and all(type(one) is int for one in value):
            yield (*path, key), [[max(1, one // 2) for one in value]]


@pytest.mark.parametrize("kind", IMPORTED)
@pytest.mark.filterwarnings("ignore")
def test_a_setting_in_the_files_of_an_imported_model_that_moves_a_vector_renames_the_space(
    kind, tiny_encoder, tmp_path
):
    name, described = IMPORTED[kind]
    model = made(name, tiny_encoder)
    before, space = vectors(model), model.space_id()
    source = tiny_encoder if kind == "bert" else published(kind)
    side = "text" if kind == "bert" else "audio"
    folder = Path(shutil.copytree(source, tmp_path / kind))
    moved, unnamed = [], []
    for file in described:
        whole = json.loads((folder / file).read_text())
        for path, others in settings_of(whole):
            for other in others:
                changed = copy.deepcopy(whole)
                *inside, last = path
                place = changed
                for key in inside:
                    place = place[key]
                place[last] = other
                (folder / file).write_text(json.dumps(changed))
                try:
                    if kind.startswith("clap"):
                        variant = import_clap(str(folder))
                    else:
                        config = json.loads(json.dumps(model.config))
                        config["init_args"][side]["init_args"]["model"] = str(folder)
                        variant = instantiate(config).eval()
                        own = model.state_dict()
                        rest = {key: own[key] for key in own if not key.startswith(f"{side}.encoder.")}
                        variant.load_state_dict({**variant.state_dict(), **rest})
                    after = vectors(variant)
                except Exception:  # not a model that transformers can make or run
                    continue
                if any(
                    one.shape != two.shape or (one - two).abs().max() > 1e-5
                    for one, two in zip(before, after, strict=True)
                ):
                    moved.append(".".join(path))
                    if variant.space_id() == space:
                        unnamed.append(f"{file}: {'.'.join(path)}={other!r}")
        (folder / file).write_text(json.dumps(whole))
    assert not unnamed
    assert moved


# -- on disk -----------------------------------------------------------------------------------------------------


def test_a_saved_model_is_loaded_with_the_same_vectors_and_space_wherever_its_folder_lies(model, files, tmp_path):
    name = model.save(tmp_path / "first")
    shutil.move(tmp_path / "first", tmp_path / "second")
    again = TwoTower.load(tmp_path / "second")
    assert name == model.space_id() == again.space_id()
    for one, two in zip(vectors(again), vectors(model), strict=True):
        assert torch.equal(one, two)
    viewed = again.viewed({"pooling": "energy", "dim": model.dim // 2})
    viewed.save(tmp_path / "third")
    assert TwoTower.load(tmp_path / "third").space_id() == viewed.space_id() != name
    description = json.loads((tmp_path / "second" / "config.json").read_text())
    description["model"]["init_args"]["last_window"] = "pad"
    (tmp_path / "second" / "config.json").write_text(json.dumps(description))
    with pytest.raises(ModelError, match=f"says it is space {name} but its files make [0-9a-f]{{16}}"):
        TwoTower.load(tmp_path / "second")


def test_a_loaded_model_has_the_same_space_in_another_process(tiny_encoder, tmp_path):
    made("text fields-frozen", tiny_encoder).save(tmp_path / "one")
    made("audio Mert", tiny_encoder).save(tmp_path / "two")
    code = "import sys, xmodal; print(*(xmodal.load(folder, device='cpu').space_id for folder in sys.argv[1:]))"
    said = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "one", tmp_path / "two"],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": "7"},
    )  # fmt: skip
    assert said.stdout.split() == [made(name, tiny_encoder).space_id() for name in ("text fields-frozen", "audio Mert")]


# -- a mismatch --------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_vectors_of_a_model_that_changed_are_refused_with_both_names_and_what_to_do(model, files):
    embedder = Embedder(model, device="cpu")
    found = embedder.embed_files(files[1:3]).embeddings
    index = build_index(found)
    assert index.search(embedder.embed_texts(["w1"]), 1, space_id=embedder.space_id)[1].shape == (1, 1)
    changed = copy.deepcopy(model)
    next(weight for name, weight in changed.named_parameters() if "projection" in name).mul_(1.001)
    for other in (changed, model.viewed({"pooling": "energy"})):
        asked = Embedder(other, device="cpu")
        both = f"space {index.space_id}.* but .* of space {asked.space_id}.*xmodal embed .*xmodal index build"
        with pytest.raises(SpaceMismatchError, match=both):
            index.search(asked.embed_texts(["w1"]), 1, space_id=asked.space_id)
        with pytest.raises(SpaceMismatchError, match=both):
            index.update(asked.embed_files(files[1:2]).embeddings)
    assert len(index) == 2
