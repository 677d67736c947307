"""The command that draws a catalogue. It takes the parsed words and returns the exit code."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from xmodal.cli.shared import load_embedder, print_line
from xmodal.embeddings import Embeddings
from xmodal.errors import SpaceMismatchError


def draw_map(args: Namespace) -> int:
    """``xmodal map``: vectors to an interactive page, a similarity heat map, a sheet of nearest neighbours."""
    from xmodal.maps import name_of, tracks_of, write_map

    embeddings = _read(args.source)
    queries = {}
    if args.query:
        model = args.model or embeddings.model
        if model is None:
            raise ValueError(f"{args.source} does not say which model made it; name it with --model DIR")
        embedder = load_embedder(str(model), args, view=embeddings.view)
        if embedder.space_id != embeddings.space_id:
            raise SpaceMismatchError(
                f"{args.source} is of space {embeddings.space_id} and {model} makes {embedder.space_id}; name the "
                f"model that made it with --model DIR, or make it again with: xmodal embed AUDIO --model {model}"
            )
        queries = dict(zip(args.query, embedder.embed_queries(args.query), strict=True))
    title = args.title or Path(args.source).stem
    write_map(embeddings, args.out, title=title, method=args.method, queries=queries)
    print_line(f"{args.out}: open it in a browser")
    tracks = tracks_of(embeddings)
    names = [name_of(id_, facts) for id_, facts in zip(tracks.ids, tracks.metadata, strict=True)]
    if args.similarity is not None:
        from xmodal.plots import plot_similarity

        shown = _evenly(len(tracks), args.most)
        vectors, labels = tracks.vectors[shown], [names[row][:32] for row in shown]
        plot_similarity(vectors @ vectors.T, labels, labels, args.similarity, title=title)
        print_line(f"{args.similarity}: cosines of {len(shown)} of {len(tracks)} tracks")
    if args.neighbours is not None:
        from xmodal.plots import plot_neighbours

        shown = _evenly(len(tracks), min(args.most, 12))
        paths = [facts.get("path") for facts in tracks.metadata]
        plot_neighbours(tracks.vectors, names, paths, shown, args.neighbours, title=title)
        print_line(f"{args.neighbours}: the nearest neighbours of {len(shown)} tracks")
    return 0


def _evenly(count: int, most: int) -> list[int]:
    """At most so many places, spread evenly."""
    most = min(count, most)
    return [count * place // most for place in range(most)]


def _read(source: Path) -> Embeddings:
    if source.is_dir():
        from xmodal.index import load_index

        return load_index(source).export()
    return Embeddings.load(source)
