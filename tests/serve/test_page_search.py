"""The page in a real browser: what is asked, what is shown, and what is said when it cannot be."""

from __future__ import annotations

import json
import re
import threading

import pytest
import soundfile
from page_served import reachable

import serve.service
from serve.deployed import deploy

PROBLEM = "application/problem+json"


def rows(page):
    """The ids of the rows, from the top."""
    return page.locator(".hit").evaluate_all("items => items.map(item => item.dataset.id)")


def answer(page, body, k=20):
    """What the server says itself, without the tracks that the query names."""
    named = {term["track"] for term in body["terms"] if "track" in term}
    told = page.request.post("/v1/search", data={"k": k + len(named), **body})
    assert told.ok, told.text()
    found = told.json()
    return {**found, "hits": [hit for hit in found["hits"] if hit["id"] not in named][:k]}


def ids(found):
    return [hit["id"] for hit in found["hits"]]


def settled(page):
    """Waits until the list belongs to the question."""
    page.wait_for_selector("#hits:not([aria-busy]) .hit")


def searched(page, what):
    """Does something that asks the server, and waits until the answer is shown."""
    with page.expect_response(lambda response: "/v1/search" in response.url and response.ok):
        what()
    settled(page)


def test_results_appear_while_typing_in_the_order_of_the_server(visit):
    page = visit()
    assert page.locator(".hit").count() == 0
    page.locator("#text").press_sequentially("a steady low tone")
    found = answer(page, {"terms": [{"text": "a steady low tone", "weight": 1}]})
    page.wait_for_function("() => document.getElementById('results-title').textContent === '“a steady low tone”'")
    settled(page)
    assert rows(page) == ids(found)
    assert page.locator(".hit-score span:last-child").first.inner_text() == f"{found['hits'][0]['score']:.2f}"
    page.wait_for_function("() => /20 tracks, and there are more/.test(document.getElementById('live').textContent)")


def test_titles_are_text_whatever_they_hold(visit):
    page = visit("#q=low")
    settled(page)
    assert re.fullmatch(r"=<i>(Low|High)</i> & (steady|pulsing), \d\d", page.locator(".hit-title").first.inner_text())
    assert page.locator(".hit i").count() == 0


def test_an_answer_to_an_older_question_is_never_shown(visit):
    page = visit()
    held = []

    def hold(route):
        if "slow" in route.request.post_data:
            held.append(route)
        else:
            route.continue_()

    page.route("**/v1/search", hold)
    page.locator("#text").fill("slow")
    page.wait_for_selector("#hits[aria-busy]", state="attached")
    with page.expect_event("requestfailed") as dropped:
        searched(page, lambda: page.locator("#text").fill("high and pulsing"))
    assert dropped.value.url.endswith("/v1/search")
    assert rows(page) == ids(answer(page, {"terms": [{"text": "high and pulsing", "weight": 1}]}))
    assert len(held) == 1


def test_an_empty_page_offers_examples_that_search(visit):
    page = visit()
    examples = page.locator(".example")
    first = examples.first.inner_text()
    assert first in page.request.get("/v1/info").json()["example_queries"]
    searched(page, examples.first.click)
    assert page.locator("#text").input_value() == first
    assert page.evaluate("document.activeElement.id") == "results-title"
    assert page.locator("#empty").is_hidden()


def test_more_tracks_are_added_below_and_each_is_there_once(visit):
    page = visit("#q=low")
    settled(page)
    searched(page, page.locator("#more").click)
    page.wait_for_function("() => document.querySelectorAll('.hit').length === 40")
    assert rows(page) == ids(answer(page, {"terms": [{"text": "low"}]}, k=40))
    assert page.evaluate("document.activeElement.closest('.hit').dataset.id") == rows(page)[20]
    assert "shown=40" in page.url
    searched(page, page.locator("#more").click)
    page.wait_for_function("() => document.querySelectorAll('.hit').length === 48")
    assert page.locator("#more").is_hidden()
    assert len(set(rows(page))) == 48


def test_more_like_this_asks_for_the_track_alone(visit):
    page = visit("#q=low")
    settled(page)
    track = rows(page)[1]
    searched(page, page.locator(".hit").nth(1).get_by_role("button", name="More like this").click)
    assert page.locator("#text").input_value() == ""
    assert page.locator(".chip").count() == 1
    assert rows(page) == ids(answer(page, {"terms": [{"track": track, "weight": 1}]}))
    assert track not in rows(page)
    assert page.locator(".chip-name").inner_text().startswith("=<i>")
    page.go_back()
    page.wait_for_function("id => document.querySelectorAll('.hit')[1]?.dataset.id === id", arg=track)
    assert page.locator("#text").input_value() == "low"


def test_less_of_this_becomes_a_minus_chip(visit):
    page = visit("#q=low")
    settled(page)
    track = rows(page)[0]
    searched(page, page.locator(".hit").first.get_by_role("button", name="Less of this").click)
    terms = [{"text": "low", "weight": 1}, {"track": track, "weight": -0.5}]
    assert rows(page) == ids(answer(page, {"terms": terms}))
    assert page.locator(".chip.minus").count() == 1


def test_words_are_blended_with_plus_and_minus_chips_and_weights(visit):
    page = visit("#q=steady")
    settled(page)
    page.locator("#keep-plus").click()
    page.locator("#text").fill("high")
    searched(page, page.locator("#keep-minus").click)
    assert page.locator("#text").input_value() == ""
    terms = [{"text": "steady", "weight": 1}, {"text": "high", "weight": -0.5}]
    assert rows(page) == ids(answer(page, {"terms": terms}))
    assert "text=1*steady&text=-0.5*high" in page.url

    slider = page.get_by_label("Weight of high")
    slider.focus()
    searched(page, lambda: [page.keyboard.press("ArrowRight") for _ in range(4)])
    page.wait_for_function("() => location.hash.includes('-0.9*high')")
    terms[1]["weight"] = -0.9
    first = ids(answer(page, {"terms": terms}))[0]
    page.wait_for_function("first => document.querySelector('.hit').dataset.id === first", arg=first)
    assert slider.evaluate("slider => slider === document.activeElement")  # not taken away while it is dragged

    searched(page, page.get_by_label("high: less of it; change to more").click)
    terms[1]["weight"] = 1
    assert rows(page) == ids(answer(page, {"terms": terms}))
    searched(page, page.get_by_label("Remove steady").click)
    page.get_by_label("Remove high").click()
    page.wait_for_selector("#empty:visible")
    assert page.locator(".hit").count() == 0
    assert page.evaluate("document.activeElement.id") == "text"


def test_one_line_with_plus_and_minus_is_read_as_on_the_command_line(visit):
    page = visit()
    page.locator("#text").fill('2 * "steady" - 0.4 * high + low')
    searched(page, lambda: page.keyboard.press("Enter"))
    terms = [{"text": "steady", "weight": 2}, {"text": "high", "weight": -0.4}, {"text": "low", "weight": 1}]
    assert rows(page) == ids(answer(page, {"terms": terms}))
    assert page.locator(".chip-name").all_inner_texts() == ["steady", "high", "low"]


def test_a_search_of_minus_alone_says_what_is_missing(visit):
    page = visit("#text=-0.5*high")
    assert "All parts of this search are minus" in page.locator("#notice").inner_text()
    searched(page, lambda: page.locator("#text").fill("low"))
    assert page.locator("#notice").inner_text() == ""


def test_a_tag_of_a_row_joins_the_search(visit):
    page = visit("#q=tone")
    settled(page)
    tag = page.locator(".hit .tag").first
    name = tag.locator("span").first.inner_text()
    searched(page, tag.click)
    assert page.locator(".chip-name").inner_text() == name
    assert rows(page) == ids(answer(page, {"terms": [{"text": "tone"}, {"text": name}]}))


def test_filters_leave_only_what_passes_and_can_be_cleared(visit):
    page = visit("#q=tone")
    settled(page)
    pitch = page.get_by_role("group", name="pitch")
    searched(page, pitch.get_by_label("low").check)
    year = page.get_by_role("group", name="year")
    year.get_by_label("year, from").fill("1990")
    searched(page, lambda: page.keyboard.press("Tab"))
    found = answer(page, {"terms": [{"text": "tone"}], "where": ["pitch=low", "year>=1990"]})
    assert rows(page) == ids(found)
    assert len(rows(page)) == 19  # every second one of the last 38
    assert "2 in use" in page.locator("#filters summary").inner_text()
    searched(page, pitch.get_by_label("high").check)
    assert len(rows(page)) == 20
    searched(page, page.get_by_role("button", name="Clear all filters").click)
    assert not pitch.get_by_label("low").is_checked()
    assert year.get_by_label("year, from").input_value() == ""
    assert rows(page) == ids(answer(page, {"terms": [{"text": "tone"}]}))


def test_filters_offer_tags_first_and_values_with_the_signs_of_conditions_too(visit):
    page = visit()
    page.wait_for_selector("#filters fieldset:nth-of-type(4)")
    names = page.locator("#filters legend").all_inner_texts()
    assert [name.lower() for name in names] == ["pitch", "motion", "year", "artist", "the list"]
    artists = page.get_by_role("group", name="artist").locator("label span:first-of-type").all_inner_texts()
    assert sorted(artists) == [*(f"Artist {number}" for number in range(5)), "Me | You"]
    group = page.get_by_role("group", name="artist")
    for name, count in (("Me | You", 8), ("Artist 1", 16)):
        group.get_by_label(name).check()
        page.wait_for_function(f"() => document.getElementById('results-note').textContent === '{count} tracks'")
    assert group.get_by_label("Me | You").is_checked()
    page.reload()
    settled(page)
    assert page.locator("#results-note").inner_text() == "16 tracks"
    assert page.get_by_role("group", name="artist").get_by_label("Me | You").is_checked()


def test_filters_alone_list_the_catalogue(visit):
    page = visit("#where=pitch%3Dhigh")
    settled(page)
    assert page.locator("#results-note").inner_text() == "24 tracks"
    assert page.locator(".hit-score").count() == 0
    page.locator("#more").click()
    page.wait_for_function("() => document.querySelectorAll('.hit').length === 24")
    assert len(set(rows(page))) == 24


def test_filters_that_nothing_passes_say_so(visit):
    page = visit("#q=tone&where=year%3E%3D2500")
    page.get_by_text("No track passes all of the filters.").wait_for()
    searched(page, page.locator("#notice").get_by_role("button", name="Clear all filters").click)
    assert len(rows(page)) == 20


def drop(page, name, content):
    """Drops a file on the page as a hand would."""
    page.evaluate(
        """([name, bytes]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], name, { type: "audio/wav" }));
            const facts = { dataTransfer: data, bubbles: true, cancelable: true };
            for (const kind of ["dragenter", "dragover", "drop"])
                document.body.dispatchEvent(new DragEvent(kind, facts));
        }""",
        [name, list(content)],
    )


@pytest.fixture
def a_sound(page_settings, tmp_path):
    """A second of one of the low steady tones."""
    samples, rate = soundfile.read(f"{page_settings.index}/../04.wav")
    soundfile.write(tmp_path / "hum.wav", samples[rate : 2 * rate], rate)
    return tmp_path / "hum.wav"


def test_a_dropped_file_is_searched_by(visit, a_sound):
    page = visit()
    searched(page, lambda: drop(page, "hum.wav", a_sound.read_bytes()))
    assert page.locator(".chip-name").inner_text() == "hum.wav"
    sound = re.search(r"sound=1\*([^*&]+)\*hum.wav", page.url).group(1)
    assert rows(page) == ids(answer(page, {"terms": [{"audio": sound, "weight": 1}]}))
    assert rows(page)[0] == "tones/no 04?&"
    assert page.locator("#drop").is_hidden()


def test_a_chosen_file_is_searched_by_beside_words(visit, a_sound):
    page = visit("#q=steady")
    settled(page)
    with page.expect_file_chooser() as chooser:
        page.locator("#by-sound").click()
    searched(page, lambda: chooser.value.set_files(a_sound))
    sound = re.search(r"sound=1\*([^*&]+)\*", page.url).group(1)
    assert rows(page) == ids(answer(page, {"terms": [{"text": "steady"}, {"audio": sound}]}))


def test_a_file_that_is_no_sound_is_refused_with_the_servers_sentence(visit):
    page = visit()
    drop(page, "letter.wav", b"Dear Sir or Madam")
    alert = page.locator("#upload .alert")
    alert.wait_for()
    assert "letter.wav" in alert.inner_text()
    page.complaints.clear()  # the browser's own note that the answer was 4xx
    alert.get_by_role("button", name="Close").click()
    assert page.locator("#upload").is_hidden()


def test_a_file_that_is_too_large_is_not_even_sent(visit):
    page = visit()
    limit = page.request.get("/v1/info").json()["upload"]["max_bytes"]
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.evaluate(
        """size => {
            const file = new File(["x"], "opera.wav");
            Object.defineProperty(file, "size", { value: size });
            const data = new DataTransfer();
            const event = new DragEvent("drop", { bubbles: true, cancelable: true });
            Object.defineProperty(event, "dataTransfer", { value: { types: ["Files"], files: [file] } });
            document.body.dispatchEvent(event);
        }""",
        limit + 1,
    )
    said = page.locator("#upload .alert").inner_text()
    assert "opera.wav has" in said
    assert f"up to {round(limit / 1e6)} MB" in said
    assert asked == []


def test_a_link_to_a_sound_that_is_gone_says_so_and_goes_on_without_it(visit):
    page = visit("#q=low&sound=1*u_long_gone*hum.wav")
    page.get_by_text("hum.wav is no longer there").wait_for()
    page.complaints.clear()
    searched(page, page.get_by_role("button", name="Search without it").click)
    assert rows(page) == ids(answer(page, {"terms": [{"text": "low"}]}))
    assert "sound" not in page.url


def test_a_shared_link_shows_the_same_to_somebody_else(visit):
    page = visit("#q=steady")
    settled(page)
    searched(page, page.locator(".hit").nth(2).get_by_role("button", name="Blend in").click)
    searched(page, page.get_by_role("group", name="pitch").get_by_label("high").check)
    other = visit(page.evaluate("location.hash"))
    settled(other)
    assert rows(other) == rows(page)
    assert other.locator("#text").input_value() == "steady"
    other.wait_for_function("() => document.querySelector('.chip-name').textContent.startsWith('=<i>')")
    assert other.get_by_role("group", name="pitch").get_by_label("high").is_checked()


def test_typing_is_one_step_of_the_back_button(visit):
    page = visit("#q=low")
    settled(page)
    searched(page, lambda: page.locator("#text").press_sequentially(" and steady"))
    page.wait_for_function("() => location.hash === '#q=low+and+steady'")
    searched(page, page.go_back)
    assert page.locator("#text").input_value() == "low"
    searched(page, page.go_forward)
    assert page.locator("#text").input_value() == "low and steady"


def test_a_server_error_shows_its_sentence_and_can_be_tried_again(visit):
    page = visit()
    body = json.dumps({"type": "urn:xmodal:problem:internal", "status": 500, "detail": "the disk is on fire"})
    page.route("**/v1/search", lambda route: route.fulfill(status=500, content_type=PROBLEM, body=body))
    page.locator("#text").fill("low")
    alert = page.get_by_role("alert")
    alert.get_by_text("The disk is on fire.").wait_for()
    assert page.locator(".hit").count() == 0
    page.complaints.clear()
    page.unroute("**/v1/search")
    searched(page, alert.get_by_role("button", name="Try again").click)
    assert page.get_by_role("alert").count() == 0
    assert len(rows(page)) == 20


def test_a_server_that_is_gone_is_said_to_be_gone(visit):
    page = visit()
    page.route("**/v1/search", lambda route: route.abort("connectionrefused"))
    page.locator("#text").fill("low")
    page.get_by_role("alert").get_by_text("The server does not answer.").wait_for()
    assert page.locator(".hit").count() == 0
    page.complaints.clear()
    page.unroute("**/v1/search")
    searched(page, page.get_by_role("button", name="Try again").click)
    assert page.get_by_role("alert").count() == 0
    assert rows(page) == ids(answer(page, {"terms": [{"text": "low"}]}))


def test_the_page_waits_for_a_server_that_loads(visit, page_settings, monkeypatch):
    loaded = threading.Event()
    monkeypatch.setattr(serve.service, "deploy", lambda *rest, **named: loaded.wait(60) and deploy(*rest, **named))
    with reachable(page_settings, ready=False) as address:
        page = visit(base=address, ready=False)
        page.get_by_text("goes on by itself in 2 seconds").wait_for()
        assert page.locator("#text").is_disabled()
        loaded.set()
        page.wait_for_selector("#text:enabled")
        assert page.locator("#notice").inner_text() == ""
    page.complaints.clear()  # the browser's own of each 503


def test_a_server_that_loads_for_long_is_asked_for_as_long_as_it_says_so(visit):
    page = visit()
    asked = []

    def loading(route):
        asked.append(route)
        body = json.dumps({"type": "urn:xmodal:problem:loading", "status": 503, "detail": "it is being loaded"})
        if len(asked) > 12:
            route.continue_()
        else:
            route.fulfill(status=503, content_type=PROBLEM, headers={"Retry-After": "0"}, body=body)

    page.route("**/v1/info", loading)
    page.reload()
    page.wait_for_selector("#text:enabled")
    page.complaints.clear()
    assert len(asked) == 13


def test_a_busy_server_is_asked_again_after_the_time_it_named(visit):
    page = visit()
    page.clock.install()
    asked = []

    def busy_once(route):
        asked.append(route)
        if len(asked) > 1:
            route.continue_()
            return
        body = json.dumps({"status": 429, "detail": "the queue is full"})
        route.fulfill(status=429, content_type=PROBLEM, headers={"Retry-After": "7"}, body=body)

    page.route("**/v1/search", busy_once)
    page.locator("#text").fill("low")
    page.clock.run_for(200)
    page.get_by_text("goes on by itself in 7 seconds").wait_for()
    page.complaints.clear()
    page.clock.run_for(6500)
    assert len(asked) == 1
    searched(page, lambda: page.clock.run_for(600))
    assert len(asked) == 2
    assert page.locator("#notice").inner_text() == ""
