"""Where training texts come from."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from xmodal.data import Caption, Track
from xmodal.data.kept import CachedWindowSet
from xmodal.data.texts import CaptionText, FieldText, TagText, draw_texts
from xmodal.data.windows import WindowSet

TRACK = Track(
    id="a",
    path="a.wav",
    tags={"instrument": ("piano", "flute"), "mood": ("calm",)},
    captions=(Caption("First. Second! Third?", frozenset({"calm"})), Caption("a single one")),
    title="Rain",
    artist="Someone",
)
BARE = Track(id="b", path="b.wav")
SOURCES = [CaptionText(), CaptionText(0.5), TagText(), FieldText(["{title}[ by {artist}]"], 0.5)]


def draws(source, track=TRACK, count=200):
    return [source.draw(track, random.Random(seed)) for seed in range(count)]


@pytest.mark.parametrize("source", SOURCES, ids=lambda one: type(one).__name__)
def test_a_source_repeats_itself_by_the_chance_it_is_given_and_says_nothing_of_a_bare_track(source):
    assert draws(source) == draws(source)
    assert len(set(draws(source))) > 1
    assert set(draws(source, BARE, 5)) == {None}


def test_captions_are_chosen_evenly_and_know_their_tags():
    counted = Counter(caption.text for caption in draws(CaptionText(), count=1000))
    assert set(counted) == {"First. Second! Third?", "a single one"}
    assert 400 < counted["a single one"] < 600
    assert {caption.requires for caption in draws(CaptionText())} == {frozenset({"calm"}), None}


def test_sentences_are_dropped_but_never_all_and_a_shorter_caption_does_not_claim_the_tags_of_the_whole():
    drawn = draws(CaptionText(0.5), count=500)
    texts = {caption.text for caption in drawn}
    assert {"First.", "Second!", "Third?", "First. Third?", "First. Second! Third?", "a single one"} <= texts
    for caption in drawn:
        assert caption.requires == (frozenset({"calm"}) if caption.text == "First. Second! Third?" else None)


def test_tags_are_dropped_shuffled_and_worded_anew():
    texts = {caption.text for caption in draws(TagText(0.5))}
    assert {"piano, flute", "flute, piano"} <= texts
    assert any("piano" in text and "flute" not in text and "calm" not in text for text in texts)
    assert all(caption.requires for caption in draws(TagText()))
    assert {caption.requires for caption in draws(TagText(kinds=["mood"]))} == {frozenset({"calm"})}
    alone = {caption.text for caption in draws(TagText(kinds=["mood"], templates={"mood": ["feels {}"]}))}
    assert alone == {"feels calm"}
    all_named = draws(TagText(0.0))
    assert {caption.requires for caption in all_named} == {frozenset({"piano", "flute", "calm"})}
    assert max(len(caption.requires) for caption in draws(TagText(0.0, max_tags=2))) == 2


def test_optional_fields_are_dropped_and_needed_ones_are_not():
    counted = Counter(caption.text for caption in draws(FieldText(["{title}[ by {artist}]"], 0.25), count=1000))
    assert set(counted) == {"Rain by Someone", "Rain"}
    assert 200 < counted["Rain"] < 300
    assert {c.text for c in draws(FieldText(["{title}[ by {artist}]", "{artist}"]))} == {"Rain by Someone", "Someone"}
    untitled = Track(id="c", path="c.wav", artist="Someone")
    assert FieldText(["{title}[ by {artist}]"]).draw(untitled, random.Random(0)) is None
    assert {c.text for c in draws(FieldText(["{title}, {title}[ {title}]"], 0.9))} == {"Rain, Rain Rain"}


def test_sources_are_asked_by_weight_and_those_without_words_are_passed_over():
    def kinds(track, sources, count=600):
        drawn = [draw_texts(track, sources, 1, random.Random(seed))[0].text for seed in range(count)]
        return Counter("field" if text == "Someone" else "caption" for text in drawn)

    counted = kinds(TRACK, [CaptionText(weight=3.0), FieldText(["{artist}"])])
    assert 0.2 < counted["field"] / 600 < 0.3
    captionless = Track(id="c", path="c.wav", artist="Someone")
    assert kinds(captionless, [CaptionText(weight=1000.0), FieldText(["{artist}"])]) == {"field": 600}
    assert draw_texts(BARE, SOURCES, 3, random.Random(0)) == []


def test_the_texts_of_a_draw_are_different_and_as_many_as_there_are():
    texts = draw_texts(TRACK, [CaptionText()], 5, random.Random(0))
    assert sorted(text.text for text in texts) == ["First. Second! Third?", "a single one"]
    assert len(draw_texts(TRACK, [TagText()], 4, random.Random(1))) == 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CaptionText(weight=0.0), "weight must be positive"),
        (lambda: CaptionText(1.0), "sentence_dropout must be from 0 to below 1"),
        (lambda: TagText(dropout=-0.1), "dropout must be from 0"),
        (lambda: TagText(max_tags=0), "max_tags must be at least 1"),
        (lambda: TagText(templates={"mood": ["no slot"]}), "exactly one {}"),
        (lambda: FieldText([]), "at least one template"),
        (lambda: FieldText(["{title"]), "must close"),
    ],
)
def test_settings_out_of_range_are_refused_when_they_are_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_training_set_draws_from_its_sources_and_trains_on_what_they_can_describe(tone_tracks):
    from xmodal.audio import WindowPolicy
    from xmodal.data.datasets import TrainingSet
    from xmodal.towers import MobileCnn

    file = tone_tracks.parent / "00.wav"
    described = Track(id="d", path=file, title="Rain", artist="Someone")
    tower = MobileCnn(sample_rate=8000, n_fft=256, hop=80, bands=16, width=0.25, feature_dim=8)
    tracks = [described, Track(id="e", path=file, captions=(Caption("words"),)), Track(id="f", path=file)]
    windows = CachedWindowSet(WindowSet(tracks, tower, WindowPolicy(1.0)), workers=0)
    pairs = TrainingSet(windows, texts=[FieldText(["{title}[ by {artist}]"], 0.5)])
    assert pairs.rows == [0]
    assert {pairs.__getitems__([(0, epoch)]).texts[0] for epoch in range(12)} == {"Rain", "Rain by Someone"}
    both = TrainingSet(windows, texts=[FieldText(["{title}"]), CaptionText()], first_caption=True, captions=2)
    assert both.rows == [0, 1]
    assert both.__getitems__([(0, 0), (1, 0)]).texts == ["Rain", "words"]
