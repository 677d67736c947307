"""A report as one HTML file: figures, pictures, and the best and worst answers with players. It opens offline."""

from __future__ import annotations

import base64
import html
import io
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
from matplotlib.figure import Figure

from xmodal.atomic import written_aside
from xmodal.audio import load
from xmodal.data.tracks import Track
from xmodal.errors import AudioError
from xmodal.evaluation import Answer, Report
from xmodal.plots import HUES, write_png

_PREVIEW_SECONDS, _PREVIEW_HZ = 8.0, 22050
_STYLE = """
:root { color-scheme: light dark; --ink: #1f2430; --faint: #6a7078; --line: #d9dce1; --good: #1c7f4d; --bad: #b3382c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaee; --faint: #a2a8b2; --line: #3a3f48; --good: #67c796;
  --bad: #f0897d; } body { background: #16181d; } img { background: white; border-radius: 6px; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); max-width: 68rem; margin: 2rem auto;
  padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; display: block;
  overflow-x: auto; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--faint); font-weight: 500; } .good { color: var(--good); } .bad { color: var(--bad); }
small, .faint { color: var(--faint); } audio { height: 2rem; max-width: 16rem; } img { max-width: 100%; }
"""


def write_report_page(report: Report, path: str | Path) -> None:
    """Write the page; a kill at any moment leaves the old file or the new one.

    Players hold the first eight seconds of a track, so that the page needs no other file. A track that cannot be
    decoded has none.
    """
    players = _Players({track.id: track for track in report.tracks})
    facts = report.facts
    protocol = facts["protocol"]
    parts = [
        f"<h1>{html.escape(protocol['name'])}</h1>",
        f"<p class=faint>{html.escape(protocol['about'])}</p>" if protocol["about"] else "",
        _facts(report),
    ]
    parts += map(_table, report.tables())
    if report.per_query:
        parts += ["<h2>Where the right answers stand</h2>", _places(report)]
    if report.classification is not None:
        parts += [
            "<h2>Accuracy by label</h2>",
            _bars(report.classification["by label"], "accuracy", report.classification["chance"]),
        ]
    if report.tags is not None:
        areas = {tag: figures["ROC-AUC"] for tag, figures in report.tags.per_tag.items()}
        parts += ["<h2>Tags</h2>", _bars(areas, "ROC-AUC", 0.5)]
    for direction, both in report.answers.items():
        for which in ("worst", "best"):
            parts.append(f"<h2>{which.capitalize()} answers, {html.escape(direction.replace('_', ' '))}</h2>")
            parts.append(_answers(both[which], players, text_queries=direction == "text_to_audio"))
    if facts["failures"]:
        rows = [["set aside", "reason"], *([each["path"], each["reason"]] for each in facts["failures"])]
        parts += ["<h2>Files that were set aside</h2>", _table(rows)]
    title = html.escape(f"{protocol['name']}: {facts['space_id']}")
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><main>{''.join(parts)}</main></body></html>\n"
    )
    with written_aside(path) as aside:
        aside.write_text(page, "utf-8")


def _facts(report: Report) -> str:
    facts = report.facts
    known = {
        "model": facts["model"],
        "space": facts["space_id"],
        "manifest": facts["manifest"],
        "tracks": facts["tracks"],
        "data fingerprint": facts["data_fingerprint"],
        "protocol hash": facts["protocol_hash"],
        "versions": ", ".join(f"{name} {version}" for name, version in facts["versions"].items() if version),
    }
    rules = {name: value for name, value in facts["protocol"].items() if name not in ("name", "about")}
    rows = [[str(name), "" if value is None else str(value)] for name, value in known.items()]
    rules_text = "; ".join(f"{name}: {_plain(value)}" for name, value in rules.items() if value not in (None, {}, ()))
    return _table([["what", "value"], *rows, ["protocol", rules_text]])


def _plain(value: object) -> str:
    """A rule as a person would write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {_plain(one)}" for key, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _table(rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in rows[0])
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows[1:])
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _answers(answers: Iterable[Answer], players: _Players, *, text_queries: bool) -> str:
    rows = []
    for answer in answers:
        named = []
        for name, score, right in answer.best:
            label = f"<span class={'good' if right else 'bad'}>{html.escape(name)}</span> <small>{score:.3f}</small>"
            named.append(label + (players.of(name) if text_queries else ""))
        asked = html.escape(answer.query) + ("" if text_queries else players.of(answer.query))
        wanted = html.escape(answer.wanted) + (players.of(answer.wanted) if text_queries else "")
        rows.append(f"<tr><td>{asked}</td><td>{answer.place}</td><td>{wanted}</td><td>{'<br>'.join(named)}</td></tr>")
    head = "<tr><th>asked</th><th>place</th><th>right answer</th><th>first three</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"


class _Players:
    """Players of tracks, each made once."""

    def __init__(self, tracks: dict[str, Track]) -> None:
        self._tracks = tracks
        self._made: dict[str, str] = {}

    def of(self, name: str) -> str:
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, name: str) -> str:
        track = self._tracks.get(name)
        if track is None:
            return ""
        start = track.start_seconds
        seconds = min(_PREVIEW_SECONDS, (track.end_seconds or float("inf")) - start)
        try:
            samples = load(track.path, _PREVIEW_HZ, start_seconds=start, duration_seconds=seconds)
        except AudioError as error:
            return f" <small>no player: {html.escape(error.reason)}</small>"
        written = io.BytesIO()
        soundfile.write(written, samples, _PREVIEW_HZ, format="OGG", subtype="VORBIS")
        data = base64.b64encode(written.getvalue()).decode()
        title = html.escape(track.title or name, quote=True)
        return f' <audio controls preload=none aria-label="{title}" src="data:audio/ogg;base64,{data}"></audio>'


def _places(report: Report) -> str:
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.add_subplot()
    longest = max((result.candidates for result in report.retrieval.values()), default=1)
    for number, (direction, values) in enumerate(report.per_query.items()):
        if "MedR" not in values:
            continue
        places = np.sort(np.asarray(values["MedR"]))
        shares = np.arange(1, len(places) + 1) / len(places)
        at, last = np.unique(places, return_index=True)  # of equal places the highest share counts
        shares = np.append(shares[np.append(last[1:], len(places)) - 1], 1.0)
        axes.step(
            np.append(at, longest), shares, where="post", color=HUES[number], label=direction.replace("_", " "),
            marker="o", markersize=3, markevery=range(len(at)),
        )  # fmt: skip
    axes.set_xscale("log")
    ticks = [base * 10**power for power in range(7) for base in (1, 2, 5) if base * 10**power <= longest]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel="place of the first right answer, or better", ylabel="share of queries", ylim=(0, 1.04))
    axes.grid(color="#e7e9ec")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return _picture(figure, "share of queries whose first right answer stands at a place or better")


def _bars(values: dict[str, float], unit: str, chance: float, most: int = 60) -> str:
    ordered = sorted(values.items(), key=lambda item: -item[1])
    shown = ordered if len(ordered) <= most else ordered[: most // 2] + ordered[-most // 2 :]
    figure = Figure(figsize=(8, 0.8 + 0.2 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    names, heights = zip(*shown, strict=True)
    axes.barh(range(len(shown)), heights, color=HUES[0])
    axes.axvline(chance, color="#8a8f98", linestyle="--", linewidth=1, label="chance")
    axes.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)
    axes.set_yticks(range(len(shown)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel=unit, xlim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    note = "" if len(shown) == len(ordered) else f"<p class=faint>The best and worst {most // 2} of {len(ordered)}.</p>"
    return note + _picture(figure, f"{unit} of each label")


def _picture(figure: Figure, alt: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        write_png(figure, path)
        data = base64.b64encode(path.read_bytes()).decode()
    return f'<p><img alt="{html.escape(alt, quote=True)}" src="data:image/png;base64,{data}"></p>'
