"""The page for all eyes, ears and screens, and its rules held against those of the command line."""

from __future__ import annotations

import dataclasses
import json

import pytest
from axe_playwright_python.sync_playwright import Axe
from page_served import reachable
from test_page_player import PLAYING
from test_page_search import PROBLEM, drop, settled

from xmodal.query import parse_query

VIEWS = {"search": "#q=low&text=-0.5*pulsing", "map": "#view=map&q=low", "tags": "#view=tags", "empty": ""}


def shown(page, view):
    """Waits until a view is as it will stay."""
    if view == "search":
        settled(page)
    elif view == "map":
        page.wait_for_selector("#map-list li")
    elif view == "tags":
        page.wait_for_selector(".tag-row")
    page.wait_for_selector("#filters-fields fieldset:nth-of-type(2)", state="attached")


def findings(page):
    """What axe-core finds wrong, each with the elements it means."""
    found = [one for one in Axe().run(page).response["violations"] if one["impact"] in ("serious", "critical")]
    return {one["id"]: [node["html"] for node in one["nodes"]] for one in found}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing_serious(visit, view, scheme):
    page = visit(VIEWS[view])
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    shown(page, view)
    if view == "search":
        page.locator(".hit .play").first.click()
        page.wait_for_selector("#player:visible")
    assert findings(page) == {}


def painted(page):
    """The colours of the paper and of the letters, and of the wave that a canvas is drawn with."""
    return page.evaluate(
        """async () => {
            const { colours } = await import("/static/js/dom.js");
            const { backgroundColor, color } = getComputedStyle(document.body);
            return [backgroundColor, color, ...colours("wave")];
        }"""
    )


LIGHT = ["rgb(252, 252, 250)", "rgb(26, 29, 31)", "rgb(185, 189, 185)"]
DARK = ["rgb(19, 21, 22)", "rgb(233, 235, 232)", "rgb(85, 93, 93)"]


@pytest.mark.parametrize(("scheme", "first", "second"), [("light", LIGHT, DARK), ("dark", DARK, LIGHT)])
def test_colours_are_the_systems_until_somebody_chooses_others(visit, scheme, first, second):
    page = visit(color_scheme=scheme)
    assert painted(page) == first
    page.locator("#theme").click()
    assert painted(page) == second
    page.reload()
    assert painted(page) == second
    page.locator("#theme").click()
    assert painted(page) == first


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_where_something_went_wrong(visit, scheme):
    page = visit()
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    body = json.dumps({"status": 500, "detail": "the disk is on fire"})
    page.route("**/v1/search", lambda route: route.fulfill(status=500, content_type=PROBLEM, body=body))
    page.locator("#text").fill("low")
    page.get_by_role("alert").wait_for()
    drop(page, "empty.wav", b"")
    page.wait_for_selector("#upload .alert")
    assert findings(page) == {}
    page.complaints.clear()


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_needs_no_sideways_scrolling(visit, width):
    page = visit(VIEWS["search"], width=width, height=700)
    for view in ("search", "map", "tags"):
        page.get_by_role("link", name=view.title()).click()
        shown(page, view)
        if view == "search":
            page.locator(".hit .play").first.click()
            page.wait_for_selector("#player:visible")
            page.locator("#filters summary").click()
        assert page.evaluate("document.documentElement.scrollWidth") == width, view


def test_dark_follows_the_system_until_somebody_chooses(visit):
    page = visit("#q=low", color_scheme="dark")
    settled(page)
    paper = "() => getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(paper)
    assert max(int(part) for part in dark[4:-1].split(",")) < 40
    page.get_by_role("button", name="Light colours").click()
    light = page.evaluate(paper)
    assert min(int(part) for part in light[4:-1].split(",")) > 240
    page.reload()
    page.wait_for_selector("#text:enabled")
    assert page.evaluate(paper) == light
    page.emulate_media(color_scheme="light")
    page.get_by_role("button", name="Dark colours").click()
    assert page.evaluate(paper) == dark


def test_who_wants_no_motion_gets_none(visit):
    page = visit("#q=low")
    settled(page)
    moving = "() => getComputedStyle(document.querySelector('.hit .play')).transitionDuration"
    assert page.evaluate(moving) != "0s"
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate(moving) == "0s"


def test_the_model_and_its_space_are_named(visit):
    page = visit()
    info = page.request.get("/v1/info").json()
    said = page.locator("#model").inner_text()
    assert "48 tracks" in said
    assert info["model"] in said
    assert f"space {info['space_id']}" in said


def test_all_that_the_page_loads_is_named_in_it_and_comes_from_its_own_folder(visit):
    page = visit()
    asked = page.evaluate("performance.getEntriesByType('resource').map(entry => entry.name)")
    scripts = {url.rsplit("/", 1)[1] for url in asked if url.endswith(".js")}
    named = page.locator("script, link[rel=modulepreload]").evaluate_all(
        "all => all.map(one => (one.src || one.href).split('/').pop())"
    )
    assert scripts == set(named)
    assert len(scripts) > 20


def test_a_token_is_asked_for_once_and_then_also_opens_the_sound(visit, page_settings):
    with reachable(dataclasses.replace(page_settings, token=("open-sesame-open-sesame-open-sesame",))) as address:
        page = visit(base=address, ready=False)
        dialog = page.get_by_role("dialog", name="This catalogue asks for a token")
        dialog.get_by_label("Token").fill("wrong")
        page.keyboard.press("Enter")
        dialog.get_by_text("The server did not take that token.").wait_for()
        assert findings(page) == {}
        dialog.get_by_label("Token").fill("open-sesame-open-sesame-open-sesame")
        page.keyboard.press("Enter")
        page.locator("#text").fill("low")
        settled(page)
        page.locator(".hit .play").first.click()
        page.wait_for_function(PLAYING)
        page.complaints.clear()  # the browser's own notes of the two 401
        page.reload()
        page.wait_for_selector("#text:enabled")
        assert dialog.count() == 0
        page.close()  # before its server


def test_without_a_token_the_page_says_what_the_server_wants(visit, page_settings):
    with reachable(dataclasses.replace(page_settings, token=("open-sesame-open-sesame-open-sesame",))) as address:
        page = visit(base=address, ready=False)
        page.get_by_role("button", name="Cancel").click()
        page.get_by_role("alert").get_by_text("token").wait_for()
        assert page.locator("#text").is_disabled()
        assert page.get_by_role("dialog").count() == 0
        page.complaints.clear()
        page.get_by_role("button", name="Try again").click()
        dialog = page.get_by_role("dialog")
        dialog.wait_for()
        # Nobody has given a token yet that could have been refused.
        assert page.locator("#token-note").inner_text().startswith("Whoever runs the server can give you one.")
        page.complaints.clear()
        page.close()


LINES = [
    "slow sad piano", '"strings" - "drums"', "2 * a + .5 * b - 3* c", "a-b", "a -b", "x + y-z - w", '"a + b" - c',
    "  a   +   b ", "2*a", "a * b", "1.5 *  two words - 0.1 * c d", "Größe + 音楽", '"quoted" and not', "1 + 2",
    '2 * "" ',
]  # fmt: skip


def read_by_page(page, lines):
    """Kind, value and weight of each term of each line."""
    script = """async lines => {
        const { parseLine } = await import("/static/js/query.js");
        return lines.map(line => parseLine(line).map(({ kind, value, weight }) => [kind, value, weight]));
    }"""
    return page.evaluate(script, lines)


def test_the_box_reads_a_line_as_the_command_line_does(visit):
    def read(line):
        try:
            return [["text", term.what, pytest.approx(term.weight)] for term in parse_query(line)]
        except ValueError:
            return []  # while somebody types, what is not finished is left out

    assert read_by_page(visit(), LINES) == [read(line) for line in LINES]


def test_a_line_that_is_being_typed_is_never_an_error(visit):
    line = '2 * "slow strings" - id:clip-1 + 0.5 * drums'
    page = visit()
    read = read_by_page(page, [line[:length] for length in range(len(line) + 1)])
    assert read[0] == []
    assert read[len('2 * "slow str')] == [["text", "2 *  slow str", 1]]
    assert read[-1] == [["text", "slow strings", 2], ["track", "clip-1", -0.5], ["text", "drums", 0.5]]
    assert read_by_page(page, ["a − b"]) == [[["text", "a", 1], ["text", "b", -0.5]]]  # the page's own minus sign


def test_a_state_survives_its_address_and_a_broken_address_is_a_page(visit):
    page = visit()
    state = {
        "view": "map", "text": "a + b & c=#?%", "where": ["genre=rock|jazz & soul", "year>=1990"],
        "terms": [
            {"kind": "text", "value": "no * drums", "weight": -0.5},
            {"kind": "track", "value": "a/b c*d&e", "weight": 1},
            {"kind": "sound", "value": "u_1", "weight": 2.5, "label": "my *sound*.mp3"},
        ],
        "varied": True, "oneEach": True, "shown": 60, "camera": {"x": 0.125, "y": -0.5, "zoom": 3},
        "colour": "kind:mood", "lasso": [[0, 0.5], [1, 1], [0.25, -1]],
    }  # fmt: skip
    script = "async state => { const s = await import('/static/js/state.js'); return s.parse(s.write(state)); }"
    assert page.evaluate(script, state) == state
    broken = "#q=%E0%A4%A&view=nowhere&text=1*&track=x&sound=0*&shown=many&at=1,2&lasso=a;b&where=&what=ever"
    read = page.evaluate("async hash => (await import('/static/js/state.js')).parse(hash)", broken)
    blank = page.evaluate("async () => (await import('/static/js/state.js')).blank()")
    assert {**read, "text": ""} == blank
