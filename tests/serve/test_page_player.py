"""The page's sound: from the matching moment, by mouse and by keys, and lists as files for other players."""

from __future__ import annotations

import csv
import io
from urllib.parse import parse_qs, urlsplit

from test_page_search import answer, rows, settled

PLAYING = "() => { const a = document.getElementById('audio'); return !a.paused && a.currentTime > 0; }"


def sounding(page):
    """Waits until something is heard, and says from where: the first position that was sought."""
    page.wait_for_function(PLAYING)
    return page.wait_for_function("() => window.sought").json_value()


def listening(visit, hash):
    """A page that notes where playing was begun."""
    page = visit(hash)
    settled(page)
    page.locator("#audio").evaluate(
        "audio => audio.addEventListener('seeked', () => { window.sought = audio.currentTime; })"
    )
    return page


def late_hit(page, query):
    """The place and the facts of a hit whose moment is not at the start."""
    hits = answer(page, {"terms": [{"text": query}]})["hits"]
    return next((place, hit) for place, hit in enumerate(hits) if hit["start_seconds"] >= 1)


def test_a_track_plays_from_the_moment_that_matches(visit):
    page = listening(visit, "#q=low")
    place, hit = late_hit(page, "low")
    row = page.locator(".hit").nth(place)
    start, end = (f"0:0{int(hit[key])}" for key in ("start_seconds", "end_seconds"))
    assert row.locator(".hit-time").inner_text() == f"{start}–{end} of 0:04"
    button = row.locator(".play")
    assert button.get_attribute("aria-label") == f"Play {hit['title']} from {start}"
    button.click()
    assert abs(sounding(page) - hit["start_seconds"]) < 0.1
    assert parse_qs(urlsplit(page.evaluate("document.getElementById('audio').src")).query)["id"] == [hit["id"]]
    assert hit["title"] in page.locator("#player-name").inner_text()
    assert button.get_attribute("aria-label") == f"Pause {hit['title']}"
    button.click()
    page.wait_for_function("() => document.getElementById('audio').paused")


def test_a_click_on_the_waveform_plays_from_there(visit):
    page = listening(visit, "#q=low")
    wave = page.locator(".hit canvas").first
    page.wait_for_function("() => document.querySelector('.hit canvas').getAttribute('aria-valuemax') === '4'")
    box = wave.bounding_box()
    wave.click(position={"x": box["width"] * 0.75, "y": 10})
    assert abs(sounding(page) - 3) < 0.1
    assert page.locator(".hit").first.get_attribute("class") == "hit current"


def test_only_the_waveforms_in_sight_are_asked_for(visit):
    page = visit("#q=low", height=500)
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "/v1/waveform" in request.url else None)
    with page.expect_request("**/v1/waveform**"):  # the first row may have been there before
        page.locator("#text").fill("high")
    page.wait_for_function("() => document.title.includes('high')")
    settled(page)
    page.wait_for_function("() => document.querySelector('.hit canvas').getAttribute('aria-valuemax') === '4'")
    assert 1 <= len(asked) < 12
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    with page.expect_response("**/v1/waveform**"):
        pass


def test_space_and_arrows_play_from_anywhere(visit):
    page = listening(visit, "#q=low")
    page.locator(".hit .play").first.click()
    sounding(page)
    page.locator("#results-title").focus()
    page.keyboard.press("Space")
    page.wait_for_function("() => document.getElementById('audio').paused")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("() => document.getElementById('audio').currentTime === 0")
    page.keyboard.press("Space")
    page.wait_for_function(PLAYING)
    page.locator("#text").focus()
    page.keyboard.press("Space")  # here it is a blank
    assert page.evaluate(PLAYING)
    assert page.locator("#text").input_value() == "low "


def test_the_bar_goes_along_the_list_and_closes(visit):
    page = listening(visit, "#q=low")
    page.locator(".hit .play").first.click()
    sounding(page)
    titles = page.locator(".hit-title").all_inner_texts()
    assert page.locator("#player-back").is_disabled()
    page.locator("#player-next").click()
    page.locator("#player-name").filter(has_text=titles[1]).wait_for()
    page.wait_for_function(PLAYING)
    page.locator("#player-close").click()
    assert page.locator("#player").is_hidden()
    assert page.evaluate("document.getElementById('audio').paused")


def test_a_file_that_cannot_be_played_says_so(visit):
    page = visit("#q=low")
    settled(page)
    page.route("**/v1/audio**", lambda route: route.fulfill(status=404, body=""))
    page.locator(".hit .play").first.click()
    page.wait_for_function("() => { const a = document.getElementById('audio'); return a.error && a.paused; }")
    title = page.locator(".hit-title").first.inner_text()
    why = "its file is missing, or in a format that this browser does not know"
    sentence = f"{title} cannot be played: {why}."
    page.wait_for_function("said => document.getElementById('live').textContent === said", arg=sentence)
    assert page.locator("#player-name.wrong").inner_text() == sentence
    page.complaints.clear()
    page.unroute("**/v1/audio**")
    page.locator(".hit .play").nth(1).click()
    sounding_title = page.locator(".hit-title").nth(1).inner_text()
    page.wait_for_function(PLAYING)
    assert page.locator("#player-name:not(.wrong)").inner_text().startswith(sounding_title)


def focused(page):
    """What has the focus, as a screen reader would name it."""
    return page.locator(":focus").evaluate("at => at.getAttribute('aria-label') || at.textContent.trim() || at.id")


def tab_to(page, name, most=40):
    """Presses Tab until something of this name has the focus."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if name in focused(page):
            return
    raise AssertionError(f"Tab does not lead to {name!r}")


def test_everything_can_be_done_with_keys_alone(visit):
    page = visit()
    assert page.evaluate("document.activeElement.id") == "text"
    page.keyboard.type("low")
    settled(page)
    page.keyboard.press("ArrowDown")  # from the box to the tracks
    titles = page.locator(".hit-title").all_inner_texts()
    assert focused(page).startswith(f"Play {titles[0]}")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    assert focused(page).startswith(f"Play {titles[1]}")
    page.keyboard.press("Enter")
    page.wait_for_function(PLAYING)
    page.keyboard.press("Tab")
    assert focused(page) == f"Position in {titles[1]}"
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")  # the same thing of the next row
    assert focused(page) == f"Position in {titles[2]}"
    tab_to(page, "Less of this")
    with page.expect_response("**/v1/search"):
        page.keyboard.press("Enter")
    page.wait_for_selector(".chip.minus")
    assert page.evaluate("document.activeElement.id") == "results-title"
    # All rows together are one stop: what comes after the list is near.
    page.locator(".hit .play").first.focus()
    tab_to(page, "More tracks", most=12)
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.closest('.hit') !== null")  # back into the list


def test_the_first_key_offers_to_skip_to_the_tracks(visit):
    page = visit("#q=low")
    settled(page)
    for _ in range(6):  # theme, three views, the name, and before them all:
        page.keyboard.press("Shift+Tab")
    assert focused(page) == "Skip to the tracks"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    assert page.url.endswith("#q=low")


def saved(page, button):
    with page.expect_download() as download:
        page.locator(button).click()
    with open(download.value.path(), newline="", encoding="utf-8") as file:
        return download.value.suggested_filename, file.read()


def test_the_list_is_saved_as_a_playlist_that_plays_from_the_moment(visit, page_server):
    page = visit("#q=low")
    settled(page)
    name, text = saved(page, "#export-m3u")
    hits = answer(page, {"terms": [{"text": "low"}]})["hits"]
    lines = text.splitlines()
    assert name == "tracks.m3u8"
    assert lines[0] == "#EXTM3U"
    assert [line for line in lines if line.startswith("#EXTINF")] == [
        f"#EXTINF:4,{hit['artist']} - {hit['title']}" for hit in hits
    ]
    addresses = [line for line in lines if not line.startswith("#")]
    assert [parse_qs(urlsplit(line).query)["id"][0] for line in addresses] == rows(page)
    assert page.request.get(addresses[0]).headers["content-type"].startswith("audio/")
    late = [hit["start_seconds"] for hit in hits if hit["start_seconds"]]
    assert [float(line.split("=")[1]) for line in lines if line.startswith("#EXTVLCOPT:start-time")] == late


def test_the_list_is_saved_as_a_table_that_no_spreadsheet_runs(visit):
    page = visit("#q=low")
    settled(page)
    name, text = saved(page, "#export-csv")
    hits = answer(page, {"terms": [{"text": "low"}]})["hits"]
    table = list(csv.DictReader(io.StringIO(text)))
    assert name == "tracks.csv"
    assert [row["id"] for row in table] == rows(page)
    for place, (row, hit) in enumerate(zip(table, hits, strict=True)):
        assert row["title"] == f"'{hit['title']}"  # it begins with an equals sign
        assert row["artist"] == hit["artist"]
        assert float(row["score"]) == hit["score"]
        assert (int(row["rank"]), float(row["start_seconds"])) == (place + 1, hit["start_seconds"])
        assert row["tags"] == "; ".join(tag["name"] for tag in hit["tags"])
