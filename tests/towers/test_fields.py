"""Texts that name fields: how they are written, read, fused, drawn and found."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from xmodal.cli import main
from xmodal.data import read_tracks
from xmodal.data.fields import FieldTexts
from xmodal.data.tracks import Caption, Track
from xmodal.doctor import examine_file
from xmodal.embedder import Embedder, load
from xmodal.embeddings import Embeddings
from xmodal.errors import SpaceMismatchError
from xmodal.index import build_index
from xmodal.late import late_search, max_similarity
from xmodal.model import TwoTower
from xmodal.search import Term, query_vector
from xmodal.text import FIELDS, names_fields, parse_fields, split_lines, write_fields
from xmodal.towers import CharNgramTower, FieldsTower, HashedBagOfWordsTower, MobileCnn, SentenceTransformerTower
from xmodal.training import main as train

# -- the written rule -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("slow sad piano", {"caption": "slow sad piano"}),
        ('lyrics: "love me, tender" tags: jazz, slow', {"lyrics": "love me, tender", "tags": "jazz, slow"}),
        ("slow piano TAGS: jazz lyrics: la la", {"caption": "slow piano", "tags": "jazz", "lyrics": "la la"}),
        ('title: "a \\"b\\" \\\\ c" and more', {"title": 'a "b" \\ c', "caption": "and more"}),
        ('lyrics: "tags: none of these" artist: X', {"lyrics": "tags: none of these", "artist": "X"}),
        ("tags: a tags: b lyrics: one lyrics: two", {"tags": "a, b", "lyrics": "one\ntwo"}),
        ("tags:jazz", {"caption": "tags:jazz"}),
        ("subtags: x", {"caption": "subtags: x"}),
        ('tags: "" album: Blue', {"album": "Blue"}),
        ("tags:", {"caption": "tags:"}),
        ("mood: happy", {"caption": "mood: happy"}),
        ('lyrics: "never closed', {"lyrics": '"never closed'}),
    ],
)
def test_fields_are_read_by_the_written_rule(text, fields):
    assert parse_fields(text) == fields


def test_a_text_names_fields_or_does_not():
    assert all(map(names_fields, ("tags: jazz", 'slow LYRICS:"love"', "slow\ntitle: Blue", "album:")))
    assert not any(map(names_fields, ("slow jazz", "tags:jazz", "subtags: jazz", "mood: happy", "a:b")))


WORDS = st.text(alphabet=st.sampled_from('ab:\\" \ntagslyrics'), min_size=1).filter(str.strip)


@given(st.dictionaries(st.sampled_from(FIELDS), WORDS, min_size=1))
def test_what_is_written_is_read_again(fields):
    assert parse_fields(write_fields(fields)) == {name: fields[name].strip() for name in FIELDS if name in fields}


def test_a_caption_that_looks_like_a_field_stays_a_caption():
    assert parse_fields(write_fields({"caption": "tags: none of these"})) == {"caption": "tags: none of these"}
    assert write_fields({"caption": " slow piano "}) == "slow piano"


@given(st.text(min_size=1).filter(str.strip))
def test_every_text_has_a_field_with_words(text):
    assert all(value.strip() for value in parse_fields(text).values())
    assert parse_fields(text)


def test_lyrics_are_cut_into_groups_of_lines_that_end_with_a_verse():
    lyrics = "\n one\ntwo \nthree\n\n\nfour\nfive"
    assert split_lines(lyrics, 2) == ["one\ntwo", "three", "four\nfive"]
    assert split_lines(lyrics, 9) == ["one\ntwo\nthree", "four\nfive"]
    assert split_lines("one", 1) == ["one"]
    with pytest.raises(ValueError, match="lyrics need words"):
        split_lines(" \n ", 2)
    with pytest.raises(ValueError, match="lines must be at least 1"):
        split_lines("a", 0)


def test_unknown_and_empty_fields_are_not_written():
    with pytest.raises(ValueError, match="no field 'mood'; the fields are: caption, tags"):
        write_fields({"mood": "sad"})
    with pytest.raises(ValueError, match="at least one field needs words"):
        write_fields({"tags": " "})


# -- the tower --------------------------------------------------------------------------------------------------


def bag(**settings):
    torch.manual_seed(0)
    return FieldsTower(HashedBagOfWordsTower(buckets=500, embed_dim=16, feature_dim=12), **settings).eval()


@torch.no_grad()
def test_a_plain_text_is_the_inner_towers_own_vector():
    tower = bag()
    assert_close(tower(["slow sad piano"]), tower.text(["slow sad piano"]))


@torch.no_grad()
def test_fields_are_prompted_and_fused_by_given_weights():
    tower = bag(weights={"tags": 3.0}, prompts={"tags": "music with {}"})
    title, tags = tower.text(["a piece called Blue", "music with jazz"])
    assert_close(tower(['tags: jazz title: "Blue"']), ((3 * tags + title) / 4)[None])
    assert tower.field_weights()["tags"] == pytest.approx(3 / 8)


@torch.no_grad()
def test_a_field_of_weight_zero_counts_only_where_it_is_alone():
    tower = bag(weights={"artist": 0.0})
    assert_close(tower(["tags: jazz artist: X"]), tower.text(["jazz"]))
    assert_close(tower(["artist: X"]), tower.text(["music by X"]))


@pytest.mark.parametrize("pooling", ["mean", "max", "attention"])
@torch.no_grad()
def test_lyrics_are_read_group_by_group_and_pooled(pooling):
    tower = bag(lines=1, lyrics_pooling=pooling)
    parts = tower.text(["one", "two", "three"])
    if pooling == "mean":
        expected = parts.mean(dim=0)
    elif pooling == "max":
        expected = parts.amax(dim=0)
    else:
        expected = (tower.scorer(parts).softmax(dim=0) * parts).sum(dim=0)
    assert_close(tower(['lyrics: "one\ntwo\nthree"']), expected[None])
    assert not torch.allclose(tower(['lyrics: "one\ntwo"']), tower(['lyrics: "one"']), atol=1e-3)


def test_learned_weights_and_heads_are_trained_and_begin_as_given():
    tower = bag(learn_weights=True, heads=True, weights={"lyrics": 2.0}, lyrics_pooling="attention", lines=1)
    plain = bag(weights={"lyrics": 2.0}, lyrics_pooling="attention", lines=1)
    plain.scorer.load_state_dict(tower.scorer.state_dict())
    text = ['slow lyrics: "a\nb" tags: jazz', "title: Blue artist: X album: Y"]
    assert_close(tower(text), plain(text))
    tower(text).square().sum().backward()
    assert tower.log_weights.grad.abs().min() > 0
    for head in tower.heads.values():
        assert head.weight.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in tower.scorer.parameters())


@torch.no_grad()
def test_heads_do_not_mix_up_the_fields():
    tower = bag(heads=True)
    tower.heads["tags"].weight.mul_(2)
    assert_close(tower(["tags: jazz"]), 2 * tower.text(["jazz"]))
    assert_close(tower(["jazz"]), tower.text(["jazz"]))
    both = tower(["tags: jazz title: Blue"])
    assert_close(both, tower.text(["jazz"]) + tower.text(["a piece called Blue"]) / 2)


@torch.no_grad()
def test_a_frozen_inner_tower_is_read_once_and_combined_later(tiny_encoder):
    for heads in (0, 4):
        torch.manual_seed(0)
        inner = SentenceTransformerTower(str(tiny_encoder), max_tokens=16, chunk_overlap=4, token_heads=heads)
        tower = FieldsTower(inner, lines=1, heads=True).eval()
        assert tower.frozen
        texts = ["w1 w2", 'lyrics: "w3\nw4 w5" tags: w6', " ".join(f"w{number}" for number in range(40))]
        readings = [tower.read(tower.tokenize([text]))[0] for text in texts]
        assert_close(tower.combine(readings), tower(texts), atol=1e-5, rtol=1e-5)
        assert_close(tower(texts[:1]), inner(texts[:1]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompts": {"tags": "no slot"}}, "the prompt of tags needs exactly one"),
        ({"prompts": {"mood": "{}"}}, "there is no field 'mood'"),
        ({"weights": {"tags": -1.0}}, "weights must be 0 or more"),
        ({"weights": dict.fromkeys(FIELDS, 0.0)}, "not all 0"),
        ({"weights": {"tags": 0.0}, "learn_weights": True}, "above 0 to be learned"),
        ({"lines": 0}, "lines must be at least 1"),
        ({"lyrics_pooling": "sum"}, "lyrics_pooling must be"),
    ],
)
def test_nonsense_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        bag(**settings)


# -- the model and its identity ---------------------------------------------------------------------------------


def model(text):
    torch.manual_seed(1)
    audio = MobileCnn(sample_rate=8000, n_fft=256, hop=80, bands=16, width=0.25, feature_dim=32)
    return TwoTower(audio, text, dim=12, window_seconds=0.5)


def test_everything_about_fields_is_in_the_space_id():
    ways = [
        {},
        {"prompts": {"tags": "with {}"}},
        {"weights": {"tags": 2.0}},
        {"lines": 2},
        {"lyrics_pooling": "max"},
        {"heads": True},
    ]
    assert len({model(bag(**way)).space_id() for way in ways}) == len(ways)


def test_a_model_with_fields_around_a_pretrained_encoder_is_saved_and_loaded(tiny_encoder, tmp_path):
    made = model(FieldsTower(SentenceTransformerTower(str(tiny_encoder), max_tokens=16, chunk_overlap=4), lines=1))
    space = made.save(tmp_path / "model")
    again = load(tmp_path / "model", device="cpu")
    assert again.space_id == space
    assert (tmp_path / "model" / "text_encoder").is_dir()
    text = ['tags: w1 lyrics: "w2\nw3"']
    assert_close(torch.from_numpy(again.embed_texts(text)), made.eval().embed_text(text).detach())
    assert examine_file(tmp_path / "model").verdict == "healthy"


# -- queries ----------------------------------------------------------------------------------------------------


def test_a_query_may_name_fields_whatever_the_tower():
    fields, plain = Embedder(model(bag()), device="cpu"), Embedder(model(bag().text), device="cpu")
    query = 'slow tags: jazz lyrics: "one\ntwo\n\nthree"'
    np.testing.assert_allclose(fields.embed_queries([query]), fields.embed_texts([query]), atol=1e-6)
    caption, tags, first, second = plain.embed_texts(["slow", "jazz", "one\ntwo", "three"])
    lyrics = (first + second) / np.linalg.norm(first + second)
    expected = caption + tags + lyrics
    found = plain.embed_queries([query, "no fields"])
    np.testing.assert_allclose(found[0], expected / np.linalg.norm(expected), atol=1e-6)
    np.testing.assert_allclose(found[1:], plain.embed_texts(["no fields"]), atol=1e-6)
    np.testing.assert_allclose(query_vector(plain, [Term(query)]), found[0], atol=1e-6)


def test_lyrics_are_embedded_group_by_group():
    fields, plain = Embedder(model(bag(lines=2)), device="cpu"), Embedder(model(bag().text), device="cpu")
    groups, vectors = fields.embed_lyrics("a\nb\nc")
    assert groups == ["a\nb", "c"]
    np.testing.assert_allclose(vectors, fields.embed_texts(['lyrics: "a\nb"', "lyrics: c"]), atol=1e-6)
    groups, vectors = plain.embed_lyrics("a\nb\nc", lines=1)
    np.testing.assert_allclose(vectors, plain.embed_texts(["a", "b", "c"]), atol=1e-6)


# -- late interaction -------------------------------------------------------------------------------------------


def unit(rows, dim, seed):
    vectors = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_max_similarity_is_that_of_a_loop():
    queries, vectors = unit(3, 5, 0), unit(7, 5, 1)
    owner = np.array([2, 0, 1, 0, 2, 2, 1])
    expected = [np.mean([max(float(q @ v) for v in vectors[owner == each]) for q in queries]) for each in range(3)]
    np.testing.assert_allclose(max_similarity(queries, vectors, owner), expected, atol=1e-6)
    with pytest.raises(ValueError, match="without gaps"):
        max_similarity(queries, vectors, owner + 1)
    with pytest.raises(ValueError, match="of one dim"):
        max_similarity(queries[:0], vectors, owner)


def test_every_part_of_a_query_finds_its_own_row_of_a_track():
    """Track b has both lines, each in a row of its own; a and c have one of them, nearer."""
    axes = np.eye(4, dtype=np.float32)
    near = (0.8 * axes[:2] + 0.6 * axes[3]).astype(np.float32)
    rows = np.stack([axes[0], axes[2], near[0], near[1], axes[1], axes[2]])
    owners = ["a", "a", "b", "b", "c", "c"]
    index = build_index(
        Embeddings(
            [f"{name}#{row}" for row, name in enumerate(owners)], rows, "0" * 16, [{"track": o} for o in owners]
        ),
        "exact",
    )
    hits = late_search(index, axes[:2], 3, space_id="0" * 16)
    assert [hit.metadata["track"] for hit in hits] == ["b", "a", "c"]
    assert [hit.rank for hit in hits] == [1, 2, 3]
    assert hits[0].score == pytest.approx(0.8)
    assert hits[1].score == pytest.approx(0.5)
    assert late_search(index, axes[:1], 1, space_id="0" * 16)[0].id == "a#0"
    assert late_search(index, axes[2:3], 2, space_id="0" * 16)[0].id == "a#1", "the track's nearest row, not its first"
    with pytest.raises(SpaceMismatchError):
        late_search(index, axes[:1], 1, space_id="1" * 16)
    with pytest.raises(ValueError, match="k and depth"):
        late_search(index, axes[:1], 0, space_id="0" * 16)


def test_rows_of_no_track_stand_alone():
    axes = np.eye(3, dtype=np.float32)
    index = build_index(Embeddings(["x", "y", "z"], axes, "0" * 16, [{}, {}, {"track": "t"}]), "exact")
    hits = late_search(index, axes[:2], 3, space_id="0" * 16)
    assert [(hit.id, hit.score) for hit in hits] == [("x", 0.5), ("y", 0.5), ("z", 0.0)]


# -- from tracks to texts ---------------------------------------------------------------------------------------

TRACK = Track(
    id="t", path="t.wav", tags={"genre": ("jazz", "swing"), "mood": ("calm",)}, title="Blue", artist="X",
    captions=(Caption("a slow tune"), Caption("piano")), lyrics="one\ntwo\nthree\nfour",
)  # fmt: skip


def test_a_track_is_written_with_everything_that_is_known_of_it():
    assert parse_fields(FieldTexts().whole(TRACK).text) == {
        "caption": "a slow tune", "tags": "jazz, swing, calm", "lyrics": "one\ntwo\nthree\nfour", "title": "Blue",
        "artist": "X",
    }  # fmt: skip
    assert FieldTexts(["album"]).whole(TRACK) is None
    assert FieldTexts(["caption"]).whole(TRACK).text == "a slow tune"


def test_training_texts_leave_fields_out_and_change_with_the_draw():
    texts = FieldTexts(dropout={"title": 0.9, "lyrics": 0.5}, tag_dropout=0.5, lyrics_lines=2)
    drawn = [parse_fields(texts.draw(TRACK, random.Random(seed)).text) for seed in range(400)]
    assert all(drawn)
    share = {field: np.mean([field in each for each in drawn]) for field in FIELDS}
    assert share["artist"] == 1
    # Of five fields one is first and stays: 1/5 + 4/5 of what the dropout leaves.
    assert share["title"] == pytest.approx(0.2 + 0.8 * 0.1, abs=0.06)
    assert share["lyrics"] == pytest.approx(0.2 + 0.8 * 0.5, abs=0.08)
    assert {each["lyrics"] for each in drawn if "lyrics" in each} == {"one\ntwo", "two\nthree", "three\nfour"}
    assert {each["caption"] for each in drawn} == {"a slow tune", "piano"}
    assert len({each["tags"] for each in drawn}) > 8
    # Of three tags one stays and each of the others is left out four times in five.
    few = FieldTexts(["tags"], tag_dropout=0.8)
    named = [len(parse_fields(few.draw(TRACK, random.Random(seed)).text)["tags"].split(", ")) for seed in range(400)]
    assert np.mean(named) == pytest.approx(1 + 2 * 0.2, abs=0.08)
    assert texts.draw(TRACK, random.Random(5)) == texts.draw(TRACK, random.Random(5))


def test_nonsense_fields_and_dropouts_are_refused():
    with pytest.raises(ValueError, match="got 'mood'"):
        FieldTexts(["mood"])
    with pytest.raises(ValueError, match="got none"):
        FieldTexts([])
    with pytest.raises(ValueError, match=r"the dropout of tags must be from 0 to below 1, got 1.0"):
        FieldTexts(dropout={"tags": 1.0})
    with pytest.raises(ValueError, match="lyrics_lines"):
        FieldTexts(lyrics_lines=-1)


# -- the command line -------------------------------------------------------------------------------------------


def test_lyrics_become_rows_of_an_index_and_a_quoted_line_finds_its_track(tone_tracks, tmp_path, capsys):
    songs = {"tone00": "we sail the sea\nhome again", "tone01": "rain on glass\n\nsnow on stone", "tone02": None}
    rows = [json.loads(line) for line in tone_tracks.read_text().splitlines()]
    manifest = tmp_path / "songs.jsonl"
    kept = [
        {"id": row["id"], "path": str(tone_tracks.parent / row["path"]), "lyrics": songs[row["id"]]} for row in rows[:3]
    ]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in kept))
    assert len(read_tracks(manifest)) == 3
    model(FieldsTower(CharNgramTower(buckets=5000, embed_dim=32, feature_dim=24), lines=1)).save(tmp_path / "model")
    out = tmp_path / "lyrics.parquet"
    assert main(["embed", str(manifest), "--model", str(tmp_path / "model"), "--out", str(out), "--lyrics"]) == 0
    said = capsys.readouterr().out
    assert "2 of 3 tracks have lyrics" in said
    written = Embeddings.load(out)
    assert written.ids == ["tone00#0", "tone00#1", "tone01#0", "tone01#1"]
    assert written.metadata[2]["track"] == "tone01"
    assert written.metadata[2]["lyrics"] == "rain on glass"
    assert main(["index", "build", str(out), "--out", str(tmp_path / "index")]) == 0
    capsys.readouterr()
    for query, more in (('lyrics: "snow on stone"', ()), ('lyrics: "rain on glass\nsnow on stone"', ("--late",))):
        assert main(["search", query, "--index", str(tmp_path / "index"), "--json", *more]) == 0
        hits = json.loads(capsys.readouterr().out)["hits"]
        assert [hit["metadata"]["track"] for hit in hits] == ["tone01", "tone00"]
        assert hits[0]["score"] == pytest.approx(1, abs=1e-4)


def test_a_model_that_reads_fields_trains_from_yaml(tone_tracks, tmp_path):
    tower = {
        "class_path": "xmodal.towers.FieldsTower",
        "init_args": {
            "text": {"class_path": "xmodal.towers.CharNgramTower", "init_args": {"buckets": 500, "feature_dim": 32}},
            "learn_weights": True,
        },
    }
    sources = [{"class_path": "xmodal.data.fields.FieldTexts", "init_args": {"dropout": {"caption": 0.5}}}]
    configs = Path(__file__).resolve().parents[2] / "configs"
    words = ["--config", str(configs / "base.yaml"), "--config", str(configs / "smoke.yaml")]
    words += ["--data.manifest", str(tone_tracks), "--data.tag_fields", "[pitch,motion]"]
    words += ["--data.decode_seconds", "null"]
    words += ["--model.text", json.dumps(tower), "--data.texts", json.dumps(sources)]
    words += ["--runs", str(tmp_path), "--name", "fields", "--trainer.max_epochs", "2"]
    words += ["--trainer.accelerator", "cpu"]
    assert train(["fit", *words]) == 0
    trained = load(tmp_path / "fields" / "version_0" / "model", device="cpu")
    weights = trained.model.text.field_weights()
    assert weights["tags"] != pytest.approx(weights["album"], abs=1e-6), "the weights of fields that are there move"
    assert trained.embed_queries(["a steady tone tags: low"]).shape == (1, 32)
