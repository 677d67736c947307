"""The map as its reader meets it: a page opened from disk in a real browser, without a network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from xmodal.embeddings import Embeddings
from xmodal.maps import write_map

TITLES = ["<b>Low</b> & slow", "High", "Between", "Apart"]
TAGS = [["calm", "low"], ["high"], ["calm"], []]


@pytest.fixture
def page(browser, tmp_path):
    """A map of four tracks, two of which can be heard, and what the page asked for and complained of."""
    for number in range(2):
        time = np.arange(8000 * 3) / 8000
        soundfile.write(tmp_path / f"track #{number}.wav", 0.1 * np.sin(2 * np.pi * 220 * (number + 1) * time), 8000)
    vectors = np.array([[1, 0, 0], [0, 1, 0], [0.6, 0.8, 0], [0, -0.6, 0.8]], np.float32)
    facts = [
        {"title": title, "tags": tags, "genre": "AB"[tags == []]} for title, tags in zip(TITLES, TAGS, strict=True)
    ]
    for number in range(2):
        facts[number]["path"] = str(tmp_path / f"track #{number}.wav")
    facts[2]["path"] = str(tmp_path / "gone.wav")
    write_map(
        Embeddings([*"abcd"], vectors, "0123456789abcdef", facts), tmp_path / "map.html", title="Mine",
        queries={"low <i>notes</i>": vectors[0]},
    )  # fmt: skip
    opened = browser.new_page(viewport={"width": 1000, "height": 700})
    opened.asked, opened.complaints = [], []
    opened.on("request", lambda request: opened.asked.append(request.url))
    opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.on("console", lambda said: opened.complaints.append(said.text) if said.type == "error" else None)
    opened.goto((tmp_path / "map.html").as_uri())
    yield opened
    opened.close()


def spot(page, number):
    """Where a track's point is on the screen."""
    x, y = page.evaluate("number => place(number)", number)
    box = page.locator("#canvas").bounding_box()
    return box["x"] + x, box["y"] + y


def colour(page, number):
    """The colour of a track's point, read off the canvas."""
    read = "number => [...context.getImageData(...place(number).map(at => at * devicePixelRatio), 1, 1).data]"
    return tuple(page.evaluate(read, number)[:3])


def test_hovering_shows_title_tags_and_score_as_text(page):
    page.mouse.move(*spot(page, 0))
    tip = page.locator("#tip")
    assert tip.is_visible()
    assert tip.inner_text().split("\n") == ["<b>Low</b> & slow", "calm, low", "1.000 low <i>notes</i>"]
    page.mouse.move(*spot(page, 3))
    assert tip.inner_text().startswith("Apart")
    page.mouse.move(2, 2)
    assert not tip.is_visible()
    assert page.complaints == []


def test_a_click_plays_the_track_and_the_next_click_another(page):
    playing = "() => { const p = document.getElementById('player'); return !p.paused && p.currentTime > 0.2 }"
    for number in (0, 1):
        page.mouse.click(*spot(page, number))
        page.wait_for_function(playing)
        source = page.evaluate("() => document.getElementById('player').currentSrc")
        assert source.endswith(f"track%20%23{number}.wav")
        assert page.locator("#now").inner_text() == TITLES[number]
    before = page.evaluate("() => document.getElementById('player').currentTime")
    page.wait_for_function(f"() => document.getElementById('player').currentTime > {before} + 0.2")
    assert page.complaints == []
    assert all(url.startswith("file:") for url in page.asked)


def test_a_file_that_is_gone_or_unknown_is_said(page):
    page.mouse.click(*spot(page, 2))
    page.wait_for_function("() => document.getElementById('now').textContent.includes('cannot be played here')")
    page.mouse.click(*spot(page, 3))
    assert page.locator("#now").inner_text() == "Apart (its file is not known)"


def test_points_take_the_colour_of_a_querys_score_of_a_tag_and_of_a_property(page):
    page.mouse.move(2, 2)
    by_score = [colour(page, number) for number in range(4)]
    data = json.loads(page.locator("#data").text_content())
    scores = data["queries"][0]["scores"]
    assert scores == [1.0, 0.0, 0.6, 0.0]
    assert by_score[1] == by_score[3] != by_score[0]
    red = [one[0] - one[2] for one in by_score]  # the ramp goes from blue to red
    assert red[0] > red[2] > red[1]

    page.select_option("#colour", label="calm")
    by_tag = [colour(page, number) for number in range(4)]
    assert by_tag[0] == by_tag[2] != by_tag[1] == by_tag[3]
    assert page.locator("#legend").inner_text().split("\n") == ["calm (2)", "without (2)"]

    page.select_option("#colour", label="genre")
    by_genre = [colour(page, number) for number in range(4)]
    assert by_genre[0] == by_genre[1] == by_genre[2] != by_genre[3]


def test_words_hide_the_others_and_keys_walk_and_play(page):
    page.fill("#filter", "calm")
    shown = page.evaluate("() => shown")
    assert shown == [True, False, True, False]
    page.fill("#filter", "")
    page.locator("#canvas").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#tip").is_visible()
    title = page.locator("#tip b").inner_text()
    page.keyboard.press("Enter")
    assert page.locator("#now").inner_text().startswith(title)


def test_a_page_that_was_moved_with_its_music_still_plays(page, browser, tmp_path):
    moved = Path(tmp_path.rename(tmp_path.with_name(tmp_path.name + "-moved")))
    again = browser.new_page(viewport={"width": 1000, "height": 700})
    again.goto((moved / "map.html").as_uri())
    again.mouse.click(*spot(again, 1))
    again.wait_for_function("() => document.getElementById('player').currentTime > 0.1")
    assert again.evaluate("() => document.getElementById('player').currentSrc").startswith(moved.as_uri())
    assert again.locator("#now").inner_text() == TITLES[1]
    again.close()
    moved.rename(tmp_path)
