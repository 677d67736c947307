"""Zero-shot tags: prompts become one vector a tag, scores are cosines, and what is unknown is not judged."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from random_vectors import unit
from torch.nn.functional import normalize

from xmodal.evaluation import evaluate_tags
from xmodal.metrics import roc_auc_per_tag
from xmodal.tagging import TEMPLATES, TagScorer
from xmodal.text import ANY_PROMPTS

DIM = 24
TAGS = {"instrument": ["flute", "upright bass"], "mood": ["calm", "sad"], "mode": ["major key"], "odd kind": ["rain"]}


def vector_of(text):
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])
    return normalize(torch.randn(DIM, generator=torch.Generator().manual_seed(seed)), dim=0)


def embed_texts(texts):
    return torch.stack([vector_of(text) for text in texts])


# -- vectors of tags ----------------------------------------------------------------------------------------------


def test_a_tag_s_vector_is_the_normalised_mean_of_its_prompts():
    scorer = TagScorer(TAGS, embed_texts)
    assert scorer.tags == ["flute", "upright bass", "calm", "sad", "major key", "rain"]
    assert scorer.kinds == ["instrument", "instrument", "mood", "mood", "mode", "odd kind"]
    for tag, kind, vector in zip(scorer.tags, scorer.kinds, scorer.vectors, strict=True):
        prompts = [template.replace("{}", tag) for template in TEMPLATES.get(kind, ANY_PROMPTS)]
        torch.testing.assert_close(vector, normalize(embed_texts(prompts).mean(dim=0), dim=0))


def test_plain_names_get_the_prompts_for_any_sound():
    seen = []
    TagScorer(["rain"], lambda texts: (seen.extend(texts), embed_texts(texts))[1])
    assert seen == ["rain", "the sound of rain", "a recording of rain", "audio with rain"]


def test_all_prompts_are_embedded_in_one_call():
    calls = []
    TagScorer(TAGS, lambda texts: (calls.append(len(texts)), embed_texts(texts))[1])
    assert len(calls) == 1


@pytest.mark.parametrize("tags", [["flute", "rain"], {"instrument": ["flute"], "sound": ["rain"]}])
def test_one_list_of_templates_serves_every_kind(tags):
    scorer = TagScorer(tags, embed_texts, templates=["hear {} now", "{}"])
    expected = normalize(embed_texts(["hear rain now", "rain"]).mean(dim=0), dim=0)
    torch.testing.assert_close(scorer.vectors[1], expected)


def test_templates_by_kind_replace_the_usual_ones():
    scorer = TagScorer({"mood": ["calm"]}, embed_texts, templates={"mood": ["feeling {}"]})
    torch.testing.assert_close(scorer.vectors[0], vector_of("feeling calm"))


def test_every_template_reads_with_one_tag():
    assert all(template.count("{}") == 1 for group in TEMPLATES.values() for template in group)
    assert {"instrument", "genre", "mood", "tempo", "mode", "density", "vocals"} <= TEMPLATES.keys()


# -- scores -------------------------------------------------------------------------------------------------------


def test_scores_are_cosines():
    scorer, audio = TagScorer(TAGS, embed_texts), unit(5, DIM)
    torch.testing.assert_close(scorer.score(audio), torch.cosine_similarity(audio[:, None], scorer.vectors, dim=2))
    assert torch.equal(scorer.score(audio.numpy()), scorer.score(audio))


def test_an_embedder_that_gives_numpy_serves_as_well():
    numpy_scorer = TagScorer(TAGS, lambda texts: embed_texts(texts).numpy())
    assert torch.equal(numpy_scorer.vectors, TagScorer(TAGS, embed_texts).vectors)


def test_tags_are_ranked_from_the_nearest_down():
    scorer = TagScorer(TAGS, embed_texts)
    ranked = scorer.rank_tags(normalize(scorer.vectors[3] + 0.3 * scorer.vectors[0], dim=0))
    assert [tag for tag, _ in ranked[:2]] == ["sad", "flute"]
    assert len(ranked) == 6
    assert [score for _, score in ranked] == sorted((score for _, score in ranked), reverse=True)
    track = unit(1, DIM)[0]
    scores = dict(zip(scorer.tags, scorer.score(track[None])[0].tolist(), strict=True))
    assert dict(scorer.rank_tags(track)) == pytest.approx(scores)
    assert scorer.rank_tags(track, top=2) == scorer.rank_tags(track)[:2]


def test_one_kind_can_be_ranked_by_itself():
    scorer, track = TagScorer(TAGS, embed_texts), unit(1, DIM)[0]
    assert scorer.rank_tags(track, kind="mood") == [
        pair for pair in scorer.rank_tags(track) if pair[0] in ("calm", "sad")
    ]
    assert scorer.rank_tags(track, kind="mode")[0][0] == "major key"


def test_a_reference_catalogue_is_subtracted_tag_by_tag():
    reference, audio = unit(50, DIM, 1), unit(7, DIM, 2)
    plain, corrected = TagScorer(TAGS, embed_texts), TagScorer(TAGS, embed_texts, reference=reference)
    torch.testing.assert_close(corrected.score(audio), (audio - reference.mean(dim=0)) @ plain.vectors.T)
    torch.testing.assert_close(corrected.score(reference).mean(dim=0), torch.zeros(6), atol=1e-6, rtol=0)


def test_a_reference_changes_the_tags_of_a_track_but_not_the_tracks_of_a_tag():
    """A word that is near all audio wins on every track, until the catalogue's mean is taken away."""
    common = vector_of("music")
    near_all = normalize(vector_of("flute") + 3 * common, dim=0)
    audio = normalize(unit(30, DIM, 3) + 1.5 * common, dim=1)

    def embed(texts):
        return torch.stack([near_all if text == "flute" else vector_of(text) for text in texts])

    tags = ["flute", "rain", "sad", "calm"]
    plain, corrected = (TagScorer(tags, embed, templates=["{}"], reference=r) for r in (None, audio))
    assert all(plain.rank_tags(track)[0][0] == "flute" for track in audio)
    assert len({corrected.rank_tags(track)[0][0] for track in audio}) > 2
    labels = torch.rand(30, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    torch.testing.assert_close(
        roc_auc_per_tag(plain.score(audio), labels), roc_auc_per_tag(corrected.score(audio), labels)
    )


def test_shares_compare_the_tags_of_one_kind():
    scorer, audio = TagScorer(TAGS, embed_texts), unit(4, DIM)
    shares = scorer.shares(audio, "instrument", temperature=0.2)
    expected = np.exp(scorer.score(audio)[:, :2].numpy() / 0.2)
    np.testing.assert_allclose(shares.numpy(), expected / expected.sum(axis=1, keepdims=True), rtol=1e-5)
    assert scorer.shares(audio).shape == (4, 6)
    assert scorer.shares(audio, temperature=1e-3).max(dim=1).values.min() > scorer.shares(audio).max(dim=1).values.max()


# -- labels -------------------------------------------------------------------------------------------------------


def test_a_track_without_tags_of_a_kind_says_nothing_about_that_kind():
    scorer = TagScorer({"instrument": ["flute", "piano"], "mood": ["calm"]}, embed_texts)
    labels, valid = scorer.labels([{"instrument": ("Flute", "violin")}, {"mood": ("sad",), "instrument": ()}, {}])
    assert labels.tolist() == [[True, False, False], [False, False, False], [False, False, False]]
    assert valid.tolist() == [[True, True, False], [False, False, True], [False, False, False]]


def test_a_word_counts_only_in_its_own_kind():
    scorer = TagScorer({"mood": ["dark"]}, embed_texts)
    labels, valid = scorer.labels([{"timbre": ("dark",)}, {"timbre": ("dark",), "mood": ("calm",)}])
    assert labels.tolist() == [[False], [False]]
    assert valid.tolist() == [[False], [True]]


def test_tags_without_a_kind_are_looked_for_in_all_kinds():
    labels, valid = TagScorer(["flute", "calm"], embed_texts).labels([{"instrument": ("flute",)}, {"x": ("calm",)}, {}])
    assert labels.tolist() == [[True, False], [False, True], [False, False]]
    assert valid.tolist() == [[True, True], [True, True], [False, False]]


def test_labels_and_vectors_go_straight_into_an_evaluation():
    scorer = TagScorer({"instrument": ["flute", "piano"], "mood": ["calm", "sad"]}, embed_texts)
    played = [{"instrument": (name,), "mood": ("calm",)} for name in ("flute", "piano") for _ in range(4)]
    audio = normalize(scorer.vectors[[0] * 4 + [1] * 4] + 0.5 * unit(8, DIM), dim=1)
    labels, valid = scorer.labels(played)
    result = evaluate_tags(audio, scorer.vectors, labels, scorer.tags, valid=valid)
    assert result.left_out == ["calm", "sad"]
    assert result.values["ROC-AUC"] > 0.9


# -- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ([], "at least one tag, got none"),
        ({"mood": []}, "at least one tag, got none"),
        (["Piano", "flute", "piano "], "named once, got 'Piano' and 'piano '"),
        ({"genre": ["dark"], "mood": ["dark"]}, "named once, got 'dark' and 'dark'"),
        (["flute", " "], "a tag must have a visible character, got ' '"),
        ("flute", "a list of names, got the text 'flute'"),
        ({"mood": "calm"}, "a list of names, got the text 'calm'"),
    ],
)
def test_a_vocabulary_that_is_none_is_refused(tags, message):
    with pytest.raises(ValueError, match=message):
        TagScorer(tags, embed_texts)


@pytest.mark.parametrize(
    "templates", [["music"], ["{} and {}"], {"mood": ["the mood"]}, {"mood": ["{}"], "unused": ["nothing"]}]
)
def test_a_template_without_one_place_for_the_tag_is_refused(templates):
    with pytest.raises(ValueError, match="a prompt template needs exactly one {}"):
        TagScorer({"mood": ["calm"]}, embed_texts, templates=templates)


@pytest.mark.parametrize("templates", [[], {"mood": []}])
def test_no_templates_at_all_are_refused(templates):
    with pytest.raises(ValueError, match="templates must not be empty"):
        TagScorer({"mood": ["calm"]}, embed_texts, templates=templates)


def test_an_embedder_that_breaks_its_contract_is_refused():
    with pytest.raises(ValueError, match="prompts' vectors must be finite and of length 1"):
        TagScorer(["calm"], lambda texts: 2 * embed_texts(texts))
    with pytest.raises(ValueError, match="a vector for each of 4 prompts, got 3"):
        TagScorer(["calm"], lambda texts: embed_texts(texts)[:3])


def test_tracks_of_another_space_or_length_are_refused():
    scorer = TagScorer(TAGS, embed_texts)
    with pytest.raises(ValueError, match="got vectors of 8 and 24 dimensions; embed both with one model"):
        scorer.score(normalize(torch.ones(2, 8), dim=1))
    with pytest.raises(ValueError, match="audio must be finite and of length 1"):
        scorer.score(torch.zeros(2, DIM))


def test_questions_without_an_answer_are_refused():
    scorer, track = TagScorer(TAGS, embed_texts), unit(1, DIM)[0]
    with pytest.raises(ValueError, match="no tag of kind 'tempo'; .* are: instrument, mode, mood, odd kind"):
        scorer.rank_tags(track, kind="tempo")
    with pytest.raises(ValueError, match="top must be at least 1, got 0"):
        scorer.rank_tags(track, top=0)
    with pytest.raises(ValueError, match=r"temperature must be positive, got 0\.0"):
        scorer.shares(track[None], temperature=0.0)
