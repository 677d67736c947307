from __future__ import annotations

import itertools
import random
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmodal.text import (
    ANY_PROMPTS,
    PROMPTS,
    captions_from_tags,
    normalise_text,
    prompts_for,
    render,
    tag_prompts,
    words_key,
)

MUSIC = {"instrument": ("flute", "piano"), "mood": ("calm",), "genre": ("folk",), "tempo": ("slow",)}

tag_sets = st.dictionaries(
    st.sampled_from(["instrument", "mood", "label", "Genre"]),
    st.lists(st.sampled_from(["flute", "drum kit", "calm", "dog bark", "folk"]), max_size=4, unique=True),
)


@given(st.text())
def test_normal_forms_are_reached_in_one_step(text: str) -> None:
    assert normalise_text(normalise_text(text)) == normalise_text(text)
    assert words_key(words_key(text)) == words_key(text)
    assert words_key(normalise_text(text)) == words_key(text)


@pytest.mark.parametrize(
    ("text", "normal", "key"),
    [
        ("  A\tcalm \n tune ", "A calm tune", "a calm tune"),
        ("ﬂute", "flute", "flute"),
        ("ＤＲＵＭＳ", "DRUMS", "drums"),
        ("cafe\u0301", "café", "café"),
        ("Straße", "Straße", "strasse"),
        ("㎒", "MHz", "mhz"),
    ],
)
def test_the_same_words_have_one_form(text: str, normal: str, key: str) -> None:
    assert normalise_text(text) == normal
    assert words_key(text) == key


def test_different_words_stay_different() -> None:
    assert words_key("piano") != words_key("pianos")
    assert words_key("hip-hop") != words_key("hip hop")


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{title}", "Dawn"),
        ("{title}[ by {artist}]", "Dawn"),
        ("{title}[, {mood} music]", "Dawn, calm, sad music"),
        ("[{artist}: ]{title}[ ({year})]", "Dawn (1979)"),
        ("[{title} by {artist}]", ""),
        ("[by hand]", "by hand"),
        ("plain", "plain"),
        ("{quoted}", "{title} [x]"),
    ],
)
def test_a_template_is_filled_and_its_optional_parts_left_out(template: str, text: str) -> None:
    fields = {"title": " Dawn ", "artist": None, "mood": ["calm", "", "sad"], "year": 1979, "quoted": "{title} [x]"}
    assert render(fields, template) == text


def test_a_missing_field_is_refused_and_the_others_named() -> None:
    with pytest.raises(ValueError, match=r"needs the field 'artist', and the fields there are: title, year;"):
        render({"title": "Dawn", "year": 1979, "artist": "", "mood": []}, "{title} by {artist}")


@pytest.mark.parametrize("template", ["{title", "title}", "[{title}", "{title}]", "[a [b]]", "{{title}}"])
def test_an_open_bracket_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="must close and not nest"):
        render({"title": "Dawn"}, template)


@pytest.mark.parametrize("template", [*itertools.chain(*PROMPTS.values()), *ANY_PROMPTS])
def test_every_prompt_has_one_slot_and_no_article_before_it(template: str) -> None:
    assert template.count("{}") == 1
    assert not re.search(r"\ban? \{\}", template)


def test_the_kind_of_a_tag_chooses_its_prompts() -> None:
    assert prompts_for("Moods") == PROMPTS["mood"]
    assert prompts_for("style") == PROMPTS["genre"]
    assert prompts_for(None) == prompts_for("label") == ANY_PROMPTS
    assert prompts_for("label", {"label": ["I hear {}"]}) == ("I hear {}",)
    assert tag_prompts("sad", "mood")[:2] == ("sad", "sad music")


def test_a_prompt_without_a_slot_is_refused() -> None:
    with pytest.raises(ValueError, match="exactly one {}, got 'sad music'"):
        tag_prompts("sad", "mood", {"mood": ["{} music", "sad music"]})


@given(tag_sets, st.integers(0, 99), st.integers(1, 4), st.sampled_from([0.0, 0.5, 0.9]), st.integers(1, 5))
def test_a_text_names_the_tags_it_says_it_names(
    tags: dict[str, list[str]], seed: int, count: int, dropout: float, most: int
) -> None:
    known = {name for names in tags.values() for name in names}
    texts = captions_from_tags(tags, random.Random(seed), count=count, dropout=dropout, max_tags=most)
    assert texts == captions_from_tags(tags, random.Random(seed), count=count, dropout=dropout, max_tags=most)
    assert bool(texts) == bool(known)
    assert len({words_key(text) for text, _ in texts}) == len(texts) <= count
    for text, named in texts:
        assert 1 <= len(named) == len(set(named)) <= most
        assert {name for name in known if re.search(rf"\b{name}\b", text)} == set(named)
        if dropout == 0:
            assert len(named) == min(most, len(known))


def test_tags_are_dropped_and_shuffled_evenly() -> None:
    rng = random.Random(0)
    texts = [captions_from_tags({"x": "abc"}, rng, dropout=0.5)[0] for _ in range(3000)]
    named = Counter(name for text in texts for name in text.tags)
    # One of three always stays, each of the others stays half the time: 1/3 + 2/3 * 1/2.
    assert all(count / 3000 == pytest.approx(2 / 3, abs=0.03) for count in named.values())
    orders = Counter(text.tags for text in texts if len(text.tags) == 3)
    assert set(orders) == set(itertools.permutations("abc"))


def test_musical_tags_also_become_sentences() -> None:
    rng = random.Random(3)
    texts = {captions_from_tags(MUSIC, rng, dropout=0)[0].text for _ in range(100)}
    assert "slow calm folk music with flute and piano" in texts
    assert "slow calm folk music with piano and flute" in texts
    assert any("," in text for text in texts)


def test_three_instruments_are_listed_as_people_do() -> None:
    rng = random.Random(0)
    texts = {captions_from_tags({"instruments": ["a", "b", "c"]}, rng, dropout=0)[0].text for _ in range(100)}
    assert "music with a, b and c" in texts


def test_sounds_that_are_no_music_are_not_called_music() -> None:
    rng = random.Random(0)
    texts = {captions_from_tags({"label": ["dog bark", "rain"]}, rng)[0].text for _ in range(200)}
    assert texts == {
        "dog bark, rain",
        "rain, dog bark",
        *tag_prompts("rain", "label"),
        *tag_prompts("dog bark", "label"),
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0}, "count=0"),
        ({"max_tags": 0}, "max_tags=0"),
        ({"dropout": 1.0}, "got 1.0"),
        ({"dropout": -1}, "-1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        captions_from_tags(MUSIC, random.Random(0), **settings)
