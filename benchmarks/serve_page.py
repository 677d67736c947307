"""The page in a headless Chromium: first paint, a question to shown tracks, fifty rows, and a map of 20,000 points.

    python benchmarks/serve_page.py --quick                   # 10,000 tracks: about a minute
    python benchmarks/serve_page.py --keep made               # 100,000 tracks x 512, shared with serve_load.py

The catalogue is that of serve_load.py (MiniLM texts, made vectors in a FAISS graph), served by one process on the same
machine as the browser. All times are of the page's own clock. "Question to tracks" runs from the request that the
page sends to the frame's layout with the new rows in it; the pause of 70 ms after the last key, in which the page
waits for another one, is told beside it and is in the second figure. Texts are distinct, so that no cache of queries
helps. First paint is of a browser that has never seen the page.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright
from serve_load import make, server
from serve_load_client import text

PAINT_GOAL, ANSWER_GOAL, ROWS_GOAL, FRAME_GOAL = 1000.0, 150.0, 30.0, 33.0  # milliseconds

ASK = """async words => {
    const box = document.getElementById("text"), list = document.getElementById("hits");
    performance.clearResourceTimings();
    const shown = new Promise(done => {
        const watch = new MutationObserver(() => {
            if (!list.children.length) return;
            list.getBoundingClientRect();  // makes the layout happen, and waits for it
            watch.disconnect();
            done(performance.now());
        });
        watch.observe(list, { childList: true });
    });
    const typed = performance.now();
    box.value = words;
    box.dispatchEvent(new InputEvent("input", { bubbles: true }));
    const end = await shown;
    // An entry may be told a moment after its answer.
    let asked;
    while (!(asked = performance.getEntriesByType("resource").find(entry => entry.name.endsWith("/v1/search"))))
        await new Promise(done => setTimeout(done, 5));
    return [end - asked.startTime, end - typed];
}"""

ROWS = """async () => {
    const { Row } = await import("/static/js/hit.js");
    const body = JSON.stringify({ terms: [{ text: "calm piano" }], k: 50 });
    const headers = { "Content-Type": "application/json" };
    const { hits } = await (await fetch("/v1/search", { method: "POST", headers, body })).json();
    const list = document.getElementById("hits"), spent = [], nothing = () => {};
    const listeners = { onPlay: nothing, onLike: nothing, onBlend: nothing, onLess: nothing, onTag: nothing };
    for (let round = 0; round < 15; round++) {
        list.replaceChildren();
        list.getBoundingClientRect();
        const started = performance.now();
        list.append(...hits.map(hit => new Row(hit, listeners).item));
        list.getBoundingClientRect();
        spent.push(performance.now() - started);
    }
    return [hits.length, ...spent];
}"""

FRAMES = """async () => {
    const canvas = document.getElementById("map-canvas"), spent = [];
    const { MapCanvas } = await import("/static/js/map-canvas.js");
    const nothing = () => {};
    const listeners = { onMove: nothing, onHover: nothing, onChoose: nothing, onLasso: nothing, onSelectAll: nothing };
    const map = new MapCanvas(canvas, listeners);
    map.setPoints(Float32Array.from({ length: 40_000 }, () => 2 * Math.random() - 1));
    map.colours = Array.from({ length: 20_000 }, (_, at) => ["#0b6b5d", "#c2410c", "#2563b8", ""][at % 4]);
    for (let round = 0; round < 15; round++) {
        await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
        const started = performance.now();
        map.drawNow();
        canvas.getContext("2d").getImageData(0, 0, 1, 1);  // drawing is only asked for before this
        spent.push(performance.now() - started);
    }
    return spent;
}"""


def first_paint(browser: Browser, address: str) -> float:
    """Milliseconds from the address to the first words on the screen, of a browser without a cache."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("#text:enabled")
    found = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    context.close()
    return float(found)


def measured(address: str, questions: int) -> dict[str, list[float]]:
    """All figures of a page, in milliseconds."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        raise SystemExit("no Chromium is installed (Debian: apt-get install chromium)")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        found: dict[str, list[float]] = {"paint": [first_paint(browser, address) for _ in range(5)]}
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(address)
        page.wait_for_selector("#text:enabled")
        pairs = [page.evaluate(ASK, text(10_000_000 + number)) for number in range(questions + 3)][3:]
        found["answer"], found["typed"] = [list(one) for one in zip(*pairs, strict=True)]
        rows, *found["rows"] = page.evaluate(ROWS)
        assert rows == 50, f"50 hits were asked for, got {rows}"
        page.get_by_role("link", name="Map").click()
        page.wait_for_selector("#map:visible")
        found["frame"] = page.evaluate(FRAMES)
        browser.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10,000 tracks and fewer questions")
    parser.add_argument("--keep", type=Path, help="where the model and the index are kept")
    args = parser.parse_args()
    tracks = 10_000 if args.quick else 100_000
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.keep or Path(temporary)) / f"serve-{tracks}"
        if not (folder / "index").is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            make(folder, tracks)
        with server(folder, []) as (port, _, _):
            found = measured(f"http://127.0.0.1:{port}/", 20 if args.quick else 60)
    print(f"{'milliseconds':44} {'median':>8} {'p95':>8}")
    names = {
        "paint": "first paint, nothing cached",
        "answer": f"question to tracks, {tracks:,} tracks",
        "typed": "last key to tracks, with the pause of 70",
        "rows": "50 rows, with their layout",
        "frame": "a frame of a map of 20,000 points",
    }
    middle = {key: statistics.median(values) for key, values in found.items()}
    for key, name in names.items():
        p95 = sorted(found[key])[int(0.95 * (len(found[key]) - 1))]
        print(f"{name:44} {middle[key]:8.1f} {p95:8.1f}")
    goals = {"paint": PAINT_GOAL, "answer": ANSWER_GOAL, "typed": ANSWER_GOAL, "rows": ROWS_GOAL, "frame": FRAME_GOAL}
    for key, goal in goals.items():
        claim: dict[str, Any] = {"claim": f"{names[key]}, ms (median)", "ours": round(middle[key], 1), "peer": None}
        print(json.dumps({**claim, "ratio": None, "goal": goal, "met": middle[key] < goal}))


if __name__ == "__main__":
    main()
