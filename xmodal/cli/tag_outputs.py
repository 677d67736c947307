"""What tagging gives besides its list: tables, curves over time, pictures of reasons, tags in the files themselves."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from xmodal.atomic import written_aside
from xmodal.embedder import Embedder
from xmodal.errors import AudioError
from xmodal.tagging import Calibration, TagScorer

_CURVES = 12  # in a picture; the JSON beside it has all


def tags_line(tags: Sequence[Mapping[str, Any]]) -> str:
    """The tags of one file on a line: with probabilities where there are some, and a question mark where unsure."""
    if not tags:
        return "(none is likely)"
    shown = [
        f"{entry['tag']} {entry['probability']:.2f}{'' if entry['sure'] else '?'}"
        if "probability" in entry
        else f"{entry['tag']} {entry['score']:.3f}"
        for entry in tags
    ]
    return ", ".join(shown)


def print_csv(found: Sequence[Mapping[str, Any]]) -> None:
    """A row for each tag of each file."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["path", "tag", "kind", "score", "probability", "sure"])
    for row in found:
        for entry in row["tags"]:
            known = [entry["tag"], entry["kind"] or "", entry["score"]]
            writer.writerow([row["path"], *known, entry.get("probability", ""), entry.get("sure", "")])


def write_curves(
    embedder: Embedder,
    scorer: TagScorer,
    calibration: Calibration | None,
    paths: Sequence[Path],
    found: Sequence[Mapping[str, Any]],
    folder: Path,
) -> None:
    """For each file how its tags rise and fall over time: a picture, and all of it as JSON beside it."""
    from xmodal.tag_plots import plot_tag_curves

    for position, outcome in embedder.iterate_windows(paths):
        names = [entry["tag"] for entry in found[position]["tags"]]
        if isinstance(outcome, AudioError) or not names:
            continue
        columns = [scorer.tags.index(name) for name in names]
        score = scorer.score(outcome.vectors)
        values = (score if calibration is None else calibration.probabilities(score))[:, columns].numpy()
        unit = "score" if calibration is None else "probability"
        stem = _stem(folder, paths[position], position)
        curves = {
            "path": str(paths[position]),
            "start_seconds": list(outcome.start_seconds),
            "window_seconds": embedder.model.windows.window_seconds,
            unit: {name: values[:, place].tolist() for place, name in enumerate(names)},
        }
        with written_aside(stem.with_suffix(".json")) as aside:
            aside.write_text(json.dumps(curves, indent=1, ensure_ascii=False) + "\n", "utf-8")
        plot_tag_curves(
            values[:, :_CURVES],
            outcome.start_seconds,
            embedder.model.windows.window_seconds,
            names[:_CURVES],
            stem.with_suffix(".png"),
            title=paths[position].name,
            unit=unit,
        )
    sys.stderr.write(f"xmodal: curves are in {folder}\n")


def write_reasons(
    embedder: Embedder, scorer: TagScorer, paths: Sequence[Path], found: Sequence[Mapping[str, Any]], folder: Path
) -> None:
    """For each file a picture of where in time and pitch its first tag was heard."""
    from xmodal.tag_plots import plot_reasons
    from xmodal.tagging.why import explain

    for position, row in enumerate(found):
        for entry in row["tags"][:1]:
            reasons = explain(embedder, paths[position], scorer.weights[scorer.tags.index(entry["tag"])])
            path = _stem(folder, paths[position], position).with_suffix(".why.png")
            plot_reasons(
                reasons,
                path,
                title=f"why {entry['tag']!r}: {paths[position].name}",
                window_seconds=embedder.model.windows.window_seconds,
            )
    sys.stderr.write(f"xmodal: pictures of the reasons are in {folder}\n")


def _stem(folder: Path, path: Path, position: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    # Two files of one name in different folders must not overwrite each other's.
    name = re.sub(r"[^\w-]+", "_", path.stem)[:80]
    return folder / f"{position:04d}-{name}"


def write_into_files(paths: Sequence[Path], found: Sequence[Mapping[str, Any]], undo: Path | None) -> int:
    """Write the sure tags into the files themselves, and what was there before into ``undo``. Gives the exit code."""
    from xmodal.tagging.write import write_tags

    record = undo or Path(f"xmodal-undo-{datetime.now(UTC):%Y%m%d-%H%M%S}.jsonl")
    written, refused = 0, 0
    for path, row in zip(paths, found, strict=True):
        by_kind: dict[str | None, list[str]] = {}
        for entry in row["tags"]:
            if entry["sure"]:
                by_kind.setdefault(entry["kind"], []).append(entry["tag"])
        if not by_kind:
            continue
        try:
            write_tags(path, by_kind, record)
            written += 1
        except (AudioError, OSError) as error:
            sys.stderr.write(f"xmodal: not written: {error}\n")
            refused += 1
    if written:
        sys.stderr.write(f"xmodal: tags written into {written} files; take it back with: xmodal tag undo {record}\n")
    return 1 if refused and not written else 0
