"""``xmodal embed --lyrics``: the lyrics of tracks to vectors, one for each group of lines."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xmodal.cli.shared import load_embedder, print_line, progress
from xmodal.data.manifests import read_corpus
from xmodal.data.tracks import track_metadata
from xmodal.embeddings import Embeddings
from xmodal.errors import DataError


def embed_lyrics(args: Namespace, *, view: Mapping[str, Any] | None = None) -> int:
    """Rows of one track share ``metadata["track"]``; ``line`` is the number of the group's first line, from 0."""
    if args.windows:
        raise ValueError("--lyrics and --windows are two kinds of rows; make a file of each")
    tracks = read_corpus(args.source, audio_root=args.audio_root, tag_fields=args.tag_fields, missing="skip").tracks
    sung = [track for track in tracks if track.lyrics]
    if not sung:
        raise DataError(f"none of the {len(tracks)} tracks of {args.source} has lyrics; the column is called lyrics")
    embedder = load_embedder(args.model, args, view=view)
    ids, vectors, metadata = [], [], []
    with progress("embedding", len(sung)) as advance:
        for track in sung:
            groups, rows = embedder.embed_lyrics(str(track.lyrics), lines=args.lines)
            facts = {key: value for key, value in track_metadata(track).items() if not key.endswith("_seconds")}
            line = 0
            for group in groups:
                ids.append(f"{track.id}#{line}")
                metadata.append({**facts, "track": track.id, "line": line, "lyrics": group})
                line += len(group.splitlines())
            vectors.append(rows)
            advance(1)
    Embeddings(
        ids, np.concatenate(vectors), embedder.space_id, metadata, str(Path(str(embedder.source)).resolve())
    ).save(args.out)
    print_line(
        f"{len(sung)} of {len(tracks)} tracks have lyrics\n"
        f"{len(ids)} vectors of {embedder.dim} dimensions, space {embedder.space_id}, in {args.out}"
    )
    return 0
