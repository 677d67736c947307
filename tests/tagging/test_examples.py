"""Enrolled tags: a prototype and a text, weighed on one scale; kept in a file and taken out again."""

from __future__ import annotations

import pytest
import torch
from random_vectors import unit
from torch.nn.functional import normalize

from xmodal.errors import ModelError, SpaceMismatchError
from xmodal.metrics import pr_auc
from xmodal.tagging import EnrolledTags, TagScorer, enrol, with_enrolled

SPACE = "0123456789abcdef"
DIM = 12


def embed_texts(texts):
    return torch.cat([unit(1, DIM, sum(text.encode())) for text in texts])


def standard(values, over):
    return (values - over.mean()) / over.std(correction=0)


def test_the_score_is_the_weighted_sum_of_both_on_one_scale():
    text, catalogue, tracks = unit(1, DIM, 1)[0], unit(40, DIM, 2), unit(9, DIM, 3)
    examples = normalize(unit(3, DIM, 0) + 0.4 * text, dim=1)
    tag = enrol("bells", examples, text, reference=catalogue, prior=5)
    prototype = normalize(examples.mean(0), dim=0)
    above = sum(float(a @ text > b @ text) for a in examples for b in catalogue) / (3 * 40)
    assert 0.5 < above < 1  # or the name would count for nothing, or fully
    share = 3 / (3 + 5 * (2 * above - 1))
    expected = (1 - share) * standard(tracks @ text, catalogue @ text)
    expected += share * standard(tracks @ prototype, catalogue @ prototype)
    deviation = (catalogue @ text).std(correction=0)
    torch.testing.assert_close((tracks @ tag.weights - tag.offset) / deviation, expected)
    assert abs(float((catalogue @ tag.weights - tag.offset).mean())) < 1e-6


def test_many_examples_outweigh_the_text_and_a_heavy_prior_the_examples():
    text, catalogue = unit(1, DIM, 1)[0], unit(40, DIM, 2)
    examples = normalize(unit(1, DIM, 0) + text, dim=1).expand(20, -1)
    tracks = unit(200, DIM, 3)
    for prior, winner in ((0.0, examples[0]), (1e6, text)):
        tag = enrol("bells", examples, text, reference=catalogue, prior=prior)
        scores = tracks @ tag.weights
        assert bool((scores.argsort() == (tracks @ winner).argsort()).float().mean() > 0.95)


def test_a_name_counts_as_far_as_it_finds_the_examples():
    text, catalogue, tracks = unit(1, DIM, 1)[0], unit(40, DIM, 2), unit(50, DIM, 3)
    by_name = catalogue[(catalogue @ text).argsort()]

    def shares_of(shown):
        tag = enrol("bells", shown, text, reference=catalogue, prior=4)
        both = torch.stack(
            [standard(tracks @ v, catalogue @ v) for v in (text, normalize(shown.mean(0), dim=0))], dim=1
        )
        z = (tracks @ tag.weights - tag.offset) / (catalogue @ text).std(correction=0)
        return torch.linalg.lstsq(both, z[:, None]).solution[:, 0]

    torch.testing.assert_close(shares_of(normalize(text + 0.1 * unit(4, DIM, 5), dim=1)).sum(), torch.tensor(1.0))
    torch.testing.assert_close(shares_of(normalize(text + 0.5 * unit(4, DIM, 5), dim=1)), torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(shares_of(by_name[:4]), torch.tensor([0.0, 1.0]))  # the last that the name would find
    same, text = torch.eye(DIM)[:1], normalize(torch.eye(DIM)[:1] + torch.eye(DIM)[1:2], dim=1)[0]
    tag = enrol("bells", same, text, reference=same.expand(4, -1), prior=4)  # an equal score counts half
    torch.testing.assert_close(tag.weights, same[0])


def test_without_a_text_the_examples_say_it_all():
    examples, catalogue, tracks = unit(2, DIM, 0), unit(40, DIM, 2), unit(9, DIM, 3)
    prototype = normalize(examples.mean(0), dim=0)
    tag = enrol("bells", examples, reference=catalogue)
    torch.testing.assert_close(tracks @ tag.weights - tag.offset, tracks @ prototype - (catalogue @ prototype).mean())


def test_without_a_reference_unit_vectors_are_weighed():
    examples, text = unit(4, DIM, 0), unit(1, DIM, 1)[0]
    tag = enrol("bells", examples, text, prior=4)
    expected = normalize(0.5 * text + 0.5 * normalize(examples.mean(0), dim=0), dim=0)
    torch.testing.assert_close(tag.weights, expected)
    assert tag.offset == 0


def test_examples_find_what_a_word_does_not_know():
    """A cluster in the audio that no text points at is found after eight examples."""
    centre = unit(1, DIM, 7)
    tracks = normalize(torch.cat([centre * 0.9 + unit(30, DIM, 8) * 0.5, unit(270, DIM, 9)]), dim=1)
    labels = (torch.arange(300) < 30)[:, None]
    scorer = TagScorer(["bells"], embed_texts)
    before = pr_auc(scorer.score(tracks[8:]), labels[8:])
    tag = enrol("bells", tracks[:8], scorer.vectors[0], reference=tracks)
    after = pr_auc(with_enrolled(scorer, EnrolledTags(SPACE).with_tag(tag)).score(tracks[8:]), labels[8:])
    assert before < 0.3 < 0.7 < after


def test_an_enrolled_tag_joins_the_others_or_replaces_its_word():
    scorer = TagScorer({"mood": ["calm", "sad"]}, embed_texts, reference=unit(30, DIM, 4))
    tracks = unit(5, DIM, 5)
    known = (
        EnrolledTags(SPACE)
        .with_tag(enrol("Sad", unit(2, DIM, 0), kind="mood"))
        .with_tag(enrol("bells", unit(2, DIM, 1)))
    )
    both = with_enrolled(scorer, known)
    assert both.tags == ["calm", "sad", "bells"]
    assert both.kinds == ["mood", "mood", None]
    torch.testing.assert_close(both.score(tracks)[:, 0], scorer.score(tracks)[:, 0])
    torch.testing.assert_close(both.score(tracks)[:, 1], tracks @ known.tags["sad"].weights)
    torch.testing.assert_close(both.score(tracks)[:, 2], tracks @ known.tags["bells"].weights)
    assert scorer.tags == ["calm", "sad"]
    assert both.vectors.shape == (3, DIM)


def test_tags_are_kept_in_a_file_and_taken_out_again(tmp_path):
    path = tmp_path / "mine.json"
    tag = enrol("bells", unit(2, DIM, 1), reference=unit(9, DIM, 2), kind="instrument", example_ids=["a.wav", "b.wav"])
    EnrolledTags(SPACE).with_tag(tag).with_tag(enrol("rain", unit(1, DIM, 3))).save(path)
    back = EnrolledTags.load(path, SPACE)
    assert list(back.tags) == ["bells", "rain"]
    torch.testing.assert_close(back.tags["bells"].weights, tag.weights, atol=0, rtol=0)
    assert back.tags["bells"].offset == tag.offset
    assert (back.tags["bells"].kind, back.tags["bells"].examples) == ("instrument", ("a.wav", "b.wav"))
    assert list(back.without("BELLS").tags) == ["rain"]
    with pytest.raises(ValueError, match="'bell' is not enrolled; the enrolled tags are: bells, rain"):
        back.without("bell")


def test_a_file_of_another_space_or_none_at_all_is_refused(tmp_path):
    path = tmp_path / "mine.json"
    EnrolledTags(SPACE).save(path)
    with pytest.raises(SpaceMismatchError, match=r"0123456789abcdef.*other.*xmodal tag enrol"):
        EnrolledTags.load(path, "other")
    for text in ("", "{}", '{"format_version": 1, "space_id": "", "tags": [1]}'):
        path.write_text(text)
        with pytest.raises(ModelError, match=r"mine\.json holds no enrolled tags"):
            EnrolledTags.load(path, SPACE)
    path.write_text('{"format_version": 2}')
    with pytest.raises(ModelError, match="format version 2 but this xmodal reads 1"):
        EnrolledTags.load(path, SPACE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"examples": torch.zeros(0, DIM)}, "at least one example"),
        ({"name": " "}, "visible character"),
        ({"prior": -1.0}, "at least 0"),
        ({"reference": unit(1, DIM, 0)}, "at least 2 tracks"),
    ],
)
def test_what_cannot_be_enrolled_is_refused(change, message):
    given = {"name": "bells", "examples": unit(2, DIM, 0), **change}
    with pytest.raises(ValueError, match=message):
        enrol(given.pop("name"), given.pop("examples"), **given)


def test_a_tag_of_another_dimension_is_refused():
    scorer = TagScorer(["calm"], embed_texts)
    with pytest.raises(ValueError, match="'bells' must be of dimension 12"):
        scorer.with_rows([("bells", None, torch.zeros(3), 0.0)])
