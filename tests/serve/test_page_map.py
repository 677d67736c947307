"""The page's map and tag explorer."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from matplotlib.path import Path as MatplotlibPath
from test_page_player import PLAYING, saved
from test_page_search import answer, ids, rows, searched, settled


@pytest.fixture
def points(tabs):
    """The points as the server gives them."""
    return tabs.request.get("/v1/map").json()["points"]


def ready(page):
    page.wait_for_selector("#map:visible")
    page.wait_for_function("() => document.getElementById('map-canvas').width > 300")


def spot(page, x, y):
    """Where a point of the map is on the screen, by the page's own rule; the camera is what the address says."""
    across, down = page.evaluate(
        """async ([x, y]) => {
            const { toScreen, WHOLE } = await import("/static/js/map-geometry.js");
            const { parse } = await import("/static/js/state.js");
            const canvas = document.getElementById("map-canvas");
            const size = { width: canvas.clientWidth, height: canvas.clientHeight };
            return toScreen(parse(location.hash).camera ?? WHOLE, size, x, y);
        }""",
        [x, y],
    )
    box = page.locator("#map-canvas").bounding_box()
    return box["x"] + across, box["y"] + down


def lonely(points):
    """The point that is farthest from its nearest neighbour, and cannot be mistaken for it."""

    def room(point):
        return min(
            (point["x"] - other["x"]) ** 2 + (point["y"] - other["y"]) ** 2 for other in points if other is not point
        )

    return max(points, key=room)


def test_a_click_on_a_point_plays_its_track(visit, points):
    page = visit("#view=map")
    ready(page)
    assert page.locator("#map-note").inner_text().startswith("48 tracks")
    point = lonely(points)
    place = spot(page, point["x"], point["y"])
    page.mouse.move(*place)
    assert page.locator("#map-tip strong").inner_text() == point["title"]
    page.mouse.click(*place)
    page.wait_for_function(PLAYING)
    assert point["title"] in page.locator("#player-name").inner_text()
    page.mouse.click(*place)
    page.wait_for_function("() => document.getElementById('audio').paused")


def test_dragging_moves_the_map_and_the_wheel_keeps_what_is_under_it(visit, points):
    page = visit("#view=map")
    ready(page)
    point = lonely(points)
    before = spot(page, point["x"], point["y"])
    page.mouse.move(500, 450)
    page.mouse.down()
    page.mouse.move(540, 480, steps=3)
    page.mouse.move(560, 490, steps=3)
    page.mouse.up()
    page.wait_for_function("() => location.hash.includes('at=')")
    after = spot(page, point["x"], point["y"])
    assert (after[0] - before[0], after[1] - before[1]) == pytest.approx((60, 40), abs=1.5)
    page.mouse.move(*after)
    hash = page.evaluate("location.hash")
    page.mouse.wheel(0, -400)
    page.wait_for_function("hash => location.hash !== hash", arg=hash)
    assert spot(page, point["x"], point["y"]) == pytest.approx(after, abs=2)
    page.locator("#map-fit").click()
    assert "at=0%2C0%2C1" in page.url


def test_a_lasso_selects_lists_and_is_part_of_the_link(visit, points):
    page = visit("#view=map")
    ready(page)
    page.get_by_role("button", name="Lasso").click()
    left = [point for point in points if point["x"] < 0]
    corners = [(-0.999, 0.999), (0, 0.999), (0, -0.999), (-0.999, -0.999)]
    page.mouse.move(*spot(page, *corners[0]))
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*spot(page, *corner), steps=6)
    page.mouse.up()
    page.wait_for_function("() => location.hash.includes('lasso=')")
    shown = page.locator("#map-list-note").inner_text()
    assert abs(int(shown.split()[0]) - len(left)) <= 2  # points on the line itself
    page.wait_for_function("() => /tracks selected/.test(document.getElementById('live').textContent)")
    other = visit(page.evaluate("location.hash"))
    ready(other)
    assert other.locator("#map-list-note").inner_text() == shown
    name, text = saved(page, "#map-csv")
    table = list(csv.DictReader(io.StringIO(text)))
    assert name == "selection.csv"
    assert f"{len(table)} tracks." == shown
    assert {row["id"] for row in table} <= {point["id"] for point in points if point["x"] < 0.02}
    page.locator("#map-clear").click()
    assert page.locator("#map-list li").count() == 0
    page.go_back()
    page.wait_for_function("() => document.querySelectorAll('#map-list li').length > 5")


def test_tracks_of_a_selection_play_from_the_list_and_can_be_searched_by(visit, points):
    page = visit("#view=map")
    ready(page)
    page.locator("#map-all").click()
    assert page.locator("#map-list-note").inner_text() == "48 tracks."
    assert page.locator("#map-list li").count() == 30
    page.locator("#map-more").click()
    assert page.locator("#map-list li").count() == 48
    page.locator("#map-list .play").nth(3).click()
    page.wait_for_function(PLAYING)
    searched(page, page.locator("#map-like").click)
    assert page.locator(".chip").count() == 12
    assert page.locator("#view-search").is_visible()


def test_the_map_works_with_keys_alone(visit, points):
    page = visit("#view=map")
    ready(page)
    page.locator("#map-colour").focus()
    for _ in range(6):
        page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.id") == "map-canvas"
    for key in ("+", "+", "ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
    page.wait_for_function("() => /In the middle: =<i>/.test(document.getElementById('live').textContent)")
    said = page.locator("#live").inner_text().removeprefix("In the middle: ").split(" by ")[0]
    page.keyboard.press("Enter")
    page.wait_for_function(PLAYING)
    assert said in page.locator("#player-name").inner_text()
    page.keyboard.press("s")
    page.wait_for_function("() => location.hash.includes('lasso=')")
    assert 0 < int(page.locator("#map-list-note").inner_text().split()[0]) < 48


def test_the_hits_of_the_search_are_listed_beside_the_map_and_play_from_their_moment(visit):
    page = visit("#view=map&q=low")
    ready(page)
    page.wait_for_selector("#map-list li:nth-child(20)")
    assert page.locator("#map-list-title").inner_text() == "Found by the search"
    found = answer(page, {"terms": [{"text": "low"}]})["hits"]
    assert page.locator("#map-list .pick-name span:first-child").all_inner_texts() == [hit["title"] for hit in found]


def test_colours_follow_a_kind_of_tag_and_the_legend_looks_at_one_alone(visit):
    page = visit("#view=map")
    ready(page)
    page.locator("#map-colour").select_option("kind:pitch")
    assert page.locator("#map-legend button").all_inner_texts() == ["high\n24", "low\n24"]
    assert "colour=kind%3Apitch" in page.url
    low = page.locator("#map-legend").get_by_role("button", name="low")
    picture = "() => document.getElementById('map-canvas').toDataURL()"
    before = page.evaluate(picture)
    low.click()
    assert low.get_attribute("aria-pressed") == "true"
    assert page.evaluate("document.activeElement.title") == "Show only low"
    page.wait_for_function(f"before => ({picture})() !== before", arg=before)


def test_two_fingers_zoom_the_map(visit):
    page = visit("#view=map", has_touch=True, width=390, height=844)
    ready(page)
    page.locator("#map-canvas").scroll_into_view_if_needed()
    box = page.locator("#map-canvas").bounding_box()
    x, y = box["x"] + 150, box["y"] + 150
    hand = page.context.new_cdp_session(page)

    def touch(kind, *at):
        touches = [{"x": across, "y": down, "id": number} for number, (across, down) in enumerate(at)]
        hand.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

    touch("touchStart", (x - 20, y), (x + 20, y))
    for spread in (30, 50, 80):
        touch("touchMove", (x - spread, y), (x + spread, y))
    touch("touchEnd")
    page.wait_for_function("() => location.hash.includes('at=')")
    zoom = float(page.url.split("at=")[1].split("%2C")[2].split("&")[0])
    assert zoom == pytest.approx(4, rel=0.1)


def test_a_map_that_does_not_come_can_be_tried_again(visit):
    page = visit()
    page.route("**/v1/map", lambda route: route.abort("connectionrefused"))
    page.get_by_role("link", name="Map").click()
    page.get_by_text("The map did not come").wait_for()
    assert page.locator("#map").is_hidden()
    page.complaints.clear()
    page.unroute("**/v1/map")
    page.get_by_role("button", name="Try again").click()
    ready(page)
    assert page.get_by_text("The map did not come").count() == 0
    assert page.locator("#map-note").inner_text().startswith("48 tracks")


def test_tags_are_counted_found_and_lead_to_what_sounds_like_them(visit):
    page = visit("#view=tags")
    page.wait_for_selector("#tags:visible")
    assert page.locator(".tag-row").count() == 4
    assert (
        page.locator(".tag-group h3").all_inner_texts() == ["Pitch 2", "Motion 2"]
        or page.locator(".tag-group h3").count() == 2
    )
    page.get_by_label("Find a tag").fill("LOW")
    page.wait_for_function("() => document.querySelectorAll('.tag-row').length === 1")
    searched(page, page.locator(".tag-name").click)
    assert page.locator("#text").input_value() == "low"
    assert rows(page) == ids(answer(page, {"terms": [{"text": "low"}]}))
    page.go_back()
    assert page.locator("#view-tags").is_visible()


def test_the_number_beside_a_tag_leaves_only_its_tracks(visit):
    page = visit("#view=tags")
    page.get_by_role("button", name="Only the 24 tracks with high").click()
    settled(page)
    assert page.locator("#results-note").inner_text() == "24 tracks"
    assert page.get_by_role("group", name="pitch").get_by_label("high").is_checked()


def test_a_lasso_with_bays_holds_what_matplotlib_says_it_holds(visit):
    corners = [[-0.9, -0.8], [0.8, -0.7], [0.1, 0.05], [0.9, 0.75], [-0.7, 0.9], [-0.15, 0.1]]
    places = np.random.default_rng(0).uniform(-1, 1, (400, 2))
    script = """async ([corners, places]) => {
        const { inside } = await import("/static/js/map-geometry.js");
        return places.map(([x, y]) => inside(corners, x, y));
    }"""
    held = visit().evaluate(script, [corners, places.tolist()])
    assert held == MatplotlibPath(corners).contains_points(places).tolist()
