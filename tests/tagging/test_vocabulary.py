"""Vocabularies: other names, parents and translations; and the files that they are read from."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from xmodal.errors import DataError
from xmodal.tagging import Tag, TagScorer, Vocabulary, read_vocabulary

YAML = """
genre:
  electronic:
  techno: {synonyms: [tekno], parent: electronic, definition: repetitive electronic dance music}
  minimal techno: {parent: techno}
instrument:
  violin: {synonyms: [fiddle], translations: {de: [Geige, Violine], fr: [violon]}}
mood: [calm, sad]
"""


def embed_texts(texts):
    """A unit vector a text; which one depends on the text alone."""
    rows = [torch.randn(16, generator=torch.Generator().manual_seed(sum(text.encode()))) for text in texts]
    return normalize(torch.stack(rows), dim=1)


@pytest.fixture
def vocabulary(tmp_path):
    (tmp_path / "tags.yaml").write_text(YAML)
    return read_vocabulary(tmp_path / "tags.yaml")


def test_yaml_holds_names_by_kind_with_what_is_known_of_them(vocabulary):
    assert vocabulary.names == ["electronic", "techno", "minimal techno", "violin", "calm", "sad"]
    assert vocabulary.kinds == ["genre"] * 3 + ["instrument", "mood", "mood"]
    assert vocabulary[1] == Tag("techno", "genre", ("tekno",), "repetitive electronic dance music", "electronic")
    assert vocabulary[3].translations == {"de": ("Geige", "Violine"), "fr": ("violon",)}
    assert [vocabulary.column(name) for name in ("Fiddle", "TEKNO", "calm", "jazz")] == [3, 1, 4, None]


def test_text_files_hold_lines_of_names_with_or_without_a_kind(tmp_path):
    (tmp_path / "tags.txt").write_text("mood: calm, sad\n\nrain, wind\n")
    vocabulary = read_vocabulary(tmp_path / "tags.txt")
    assert list(zip(vocabulary.names, vocabulary.kinds, strict=True)) == [
        ("calm", "mood"), ("sad", "mood"), ("rain", None), ("wind", None),
    ]  # fmt: skip
    assert read_vocabulary("calm, sad").names == ["calm", "sad"]


def test_a_yaml_list_is_names_without_a_kind(tmp_path):
    (tmp_path / "tags.yml").write_text("[rain, wind]")
    assert list(read_vocabulary(tmp_path / "tags.yml")) == [Tag("rain"), Tag("wind")]


def test_every_name_of_a_tag_and_its_definition_weigh_the_same(vocabulary):
    scorer = TagScorer(vocabulary, embed_texts, templates=("{}", "a {} piece"), languages=["de"])
    techno = [embed_texts([name, f"a {name} piece"]).mean(0) for name in ("techno", "tekno")]
    techno.append(embed_texts(["repetitive electronic dance music"])[0])
    expected = normalize(torch.stack([normalize(part, dim=0) for part in techno]).mean(0), dim=0)
    torch.testing.assert_close(scorer.vectors[1], expected)
    violin = [embed_texts([name, f"a {name} piece"]).mean(0) for name in ("violin", "fiddle")]
    violin += list(embed_texts(["Geige", "Violine"]))
    expected = normalize(torch.stack([normalize(part, dim=0) for part in violin]).mean(0), dim=0)
    torch.testing.assert_close(scorer.vectors[3], expected)


def test_a_null_prompt_is_subtracted_and_changes_the_order_of_tracks_but_not_of_tags(vocabulary):
    tracks = normalize(torch.randn(30, 16, generator=torch.Generator().manual_seed(1)), dim=1)
    plain = TagScorer(vocabulary, embed_texts)
    corrected = TagScorer(vocabulary, embed_texts, null_prompts=["music", "a sound"])
    null = normalize(embed_texts(["music", "a sound"]).mean(0), dim=0)
    torch.testing.assert_close(corrected.score(tracks), plain.score(tracks) - (tracks @ null)[:, None])
    torch.testing.assert_close(corrected.vectors, plain.vectors)
    assert bool((corrected.score(tracks).argsort(1) == plain.score(tracks).argsort(1)).all())
    assert not bool((corrected.score(tracks).argsort(0) == plain.score(tracks).argsort(0)).all())


def test_a_tag_s_probability_is_at_least_that_of_everything_below_it(vocabulary):
    probability = torch.tensor([[0.1, 0.2, 0.7, 0.5, 0.3, 0.2], [0.9, 0.2, 0.1, 0.5, 0.3, 0.2]])
    raised = vocabulary.with_parents(probability)
    torch.testing.assert_close(raised, torch.tensor([[0.7, 0.7, 0.7, 0.5, 0.3, 0.2], [0.9, 0.2, 0.1, 0.5, 0.3, 0.2]]))
    flat = Vocabulary(["a", "b"])
    assert flat.with_parents(probability[:, :2]) is not None
    torch.testing.assert_close(flat.with_parents(probability[:, :2]), probability[:, :2])


def test_labels_count_synonyms_and_what_a_narrower_tag_implies(vocabulary):
    labels, valid = vocabulary.labels([{"genre": ("Minimal Techno",)}, {"instrument": ("fiddle",)}, {"mood": ("sad",)}])
    assert labels.int().tolist() == [[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 1]]
    assert valid.int().tolist() == [[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 1, 1]]
    across = Vocabulary([Tag("dance", "mood"), Tag("techno", "genre", parent="dance")])
    labels, valid = across.labels([{"genre": ("techno",)}, {"genre": ("jazz",)}])
    assert labels.int().tolist() == [[1, 1], [0, 0]]
    assert valid.int().tolist() == [[1, 1], [0, 1]]  # the parent's kind is unknown, but what implies it is known


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("genre: {techno: {parent: house}}", "has the parent 'house', which is no tag"),
        ("genre: {a: {parent: b}, b: {parent: a}}", "among its own parents"),
        ("genre: {a: {synonyms: [b]}, b: }", "every tag must be named once, got 'a' and 'b'"),
        ("genre: {a: {synonym: [b]}}", "may have synonyms, definition, parent, translations"),
        ("genre: {a: {synonyms: b}}", "synonyms of 'a' must be a list"),
        ("genre: {a: [b]}", "may have"),
        ("genre: jazz", "'genre' must hold a list of names"),
        ("3", "names by kind"),
        ("[", "tags.yaml is not a vocabulary"),
        ("{}", "at least one tag"),
    ],
)
def test_a_file_that_is_no_vocabulary_is_refused_with_its_reason(tmp_path, text, message):
    (tmp_path / "tags.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        read_vocabulary(tmp_path / "tags.yaml")


def test_a_file_that_is_not_there_is_not_taken_for_a_tag():
    with pytest.raises(FileNotFoundError):
        read_vocabulary("nowhere/tags.yaml")


def test_a_language_without_translations_is_refused(vocabulary):
    with pytest.raises(ValueError, match="no tag has a translation for the language 'it'"):
        TagScorer(vocabulary, embed_texts, languages=["it"])
