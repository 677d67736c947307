"""A map of a catalogue as one HTML file that needs nothing else: hover for titles, click to play, colour as you like.

Points are tracks on two axes of their vectors, by PCA or UMAP. Audio is not inside: the page plays the files where they
lie, by a path relative to the page, so that a folder of music with its map can be moved as a whole.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
from jaxtyping import Float, Float32

from xmodal.atomic import written_aside
from xmodal.embeddings import Embeddings
from xmodal.errors import ModelError
from xmodal.plots import principal_axes

_MOST_TAGS = 200
_MOST_GROUPS = 40
_PROPERTIES = ("genre", "style", "mood", "instrument", "artist", "album", "split", "label")


def layout(
    vectors: Float[np.ndarray, "tracks dim"], method: Literal["pca", "umap"] = "pca"
) -> tuple[Float[np.ndarray, "tracks 2"], str]:
    """Two coordinates a track, from -1 to 1, and what they are in words.

    Args:
        vectors: Unit vectors.
        method: ``pca`` (the two axes of largest variance) or ``umap`` (neighbours stay neighbours; slower).

    Raises:
        ValueError: If there are fewer than two tracks, or for UMAP fewer than four.
        ModelError: If UMAP is not installed.
    """
    least = 4 if method == "umap" else 2
    if len(vectors) < least:
        raise ValueError(f"a map by {method} needs at least {least} tracks, got {len(vectors)}")
    if method == "umap":
        try:
            import umap
        except ImportError as error:
            raise ModelError("UMAP is not installed; pip install 'xmodal[map]', or use --method pca") from error
        near = min(15, len(vectors) - 1)
        points = umap.UMAP(metric="cosine", n_neighbors=near, random_state=0, n_jobs=1).fit_transform(vectors)
        said = f"UMAP of cosines, {near} neighbours"
    else:
        points, shares = principal_axes(np.asarray(vectors, np.float64))
        said = f"the two main axes of their vectors, {sum(shares):.0%} of the variance"
    points = np.asarray(points, np.float64)
    middle = (points.max(axis=0) + points.min(axis=0)) / 2
    extent = float(np.abs(points - middle).max()) or 1.0
    return (points - middle) / extent, said


def tracks_of(embeddings: Embeddings) -> Embeddings:
    """One row a track: windows of one track become their mean, the rest stays."""
    rows: dict[Any, list[int]] = {}
    for row, facts in enumerate(embeddings.metadata):
        rows.setdefault(facts.get("track") or ("row", row), []).append(row)
    if len(rows) == len(embeddings):
        return embeddings
    means = np.stack([embeddings.vectors[mine].mean(axis=0) for mine in rows.values()])
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    firsts = [mine[0] for mine in rows.values()]
    # Opposite windows cancel; then the first is as good as any.
    vectors = np.where(lengths > 1e-6, means / np.maximum(lengths, 1e-6), embeddings.vectors[firsts])
    ids = [key if isinstance(key, str) else embeddings.ids[mine[0]] for key, mine in rows.items()]
    facts_of = [
        {key: value for key, value in embeddings.metadata[first].items() if key not in ("track", "start_seconds")}
        for first in firsts
    ]
    return Embeddings(ids, vectors.astype(np.float32), embeddings.space_id, facts_of, embeddings.model)


def write_map(
    embeddings: Embeddings,
    path: str | Path,
    *,
    title: str = "xmodal map",
    method: Literal["pca", "umap"] = "pca",
    queries: Mapping[str, Float32[np.ndarray, " dim"]] | None = None,
) -> None:
    """Write the page.

    Args:
        embeddings: The tracks, or their windows.
        path: The HTML file.
        title: Shown above and as the page's name.
        method: How to make two axes of many (see :func:`layout`).
        queries: Unit vectors by their words; the map can be coloured by the cosine with each.

    Raises:
        ValueError: If there are too few tracks, or a query has another dimension.
        ModelError: If UMAP is asked for and not installed.
    """
    path = Path(path)
    tracks = tracks_of(embeddings)
    points, axes = layout(tracks.vectors, method)
    asked = []
    for text, vector in (queries or {}).items():
        if vector.shape != (tracks.dim,):
            raise ValueError(f"the query {text!r} has {vector.shape[-1]} dimensions and the tracks {tracks.dim}")
        asked.append({"text": text, "scores": [round(float(score), 4) for score in tracks.vectors @ vector]})
    tags = [tag_list(facts.get("tags")) for facts in tracks.metadata]
    common = [tag for tag, _ in Counter(tag for mine in tags for tag in mine).most_common(_MOST_TAGS)]
    content = {
        "title": title,
        "axes": axes,
        "tags": sorted(common),
        "groups": _groups(tracks.metadata),
        "queries": asked,
        "tracks": [
            {
                "x": round(float(point[0]), 4),
                "y": round(float(point[1]), 4),
                "title": name_of(id_, facts),
                "tags": mine,
                "src": _source(facts.get("path"), path.parent),
                "start": facts.get("start_seconds") or 0,
            }
            for id_, facts, mine, point in zip(tracks.ids, tracks.metadata, tags, points, strict=True)
        ],
    }
    page = (files("xmodal") / "map.html").read_text("utf-8")
    with written_aside(path) as aside:
        aside.write_text(page.replace("/*DATA*/", _in_script(content)), "utf-8")


def name_of(id_: str, facts: Mapping[str, Any]) -> str:
    """What a track is called: artist and title, else its file's name, else its id."""
    title = facts.get("title") or (Path(str(facts["path"])).stem if facts.get("path") else id_)
    return f"{facts['artist']} – {title}" if facts.get("artist") else str(title)


def tag_list(tags: Any) -> list[str]:
    """Tags as a list, also where they are kept by kind."""
    if isinstance(tags, dict):
        tags = [tag for kind in tags.values() for tag in kind]
    return [str(tag) for tag in tags] if isinstance(tags, list | tuple) else []


def _groups(metadata: Sequence[Mapping[str, Any]]) -> dict[str, list[str | None]]:
    """Properties that divide the tracks into a few groups."""
    found: dict[str, list[str | None]] = {}
    kinds = {kind for facts in metadata if isinstance(facts.get("tags"), dict) for kind in facts["tags"]}
    for key in [*_PROPERTIES, *sorted(kinds - set(_PROPERTIES))]:
        values: list[str | None] = []
        for facts in metadata:
            value = facts.get(key)
            if value is None and isinstance(facts.get("tags"), dict):
                value = facts["tags"].get(key)
            if isinstance(value, list | tuple):
                value = value[0] if value else None
            values.append(None if value is None else str(value))
        if 1 < len(set(values) - {None}) <= _MOST_GROUPS:
            found[key] = values
    return found


def _source(audio: Any, folder: Path) -> str | None:
    if not audio or "://" in str(audio):
        return str(audio) if audio else None
    try:
        relative = os.path.relpath(Path(str(audio)).resolve(), folder.resolve())
    except ValueError:  # another drive
        return Path(str(audio)).resolve().as_uri()
    return quote(Path(relative).as_posix())


def _in_script(content: Any) -> str:
    """JSON that cannot end the script element it lies in, whatever a title says."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
