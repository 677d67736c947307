"""The commands that make, change, move and compare indexes. Each takes the parsed words and returns the exit code."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal.cli.shared import load_embedder, print_json, print_line, print_table, progress
from xmodal.errors import SpaceMismatchError

if TYPE_CHECKING:  # an index can be described without loading torch
    from xmodal.embeddings import Embeddings
    from xmodal.index import Index

_MOVED_ROWS = 5_000


def index_build(args: Namespace) -> int:
    """``xmodal index build``: vectors to an index."""
    from xmodal.embeddings import Embeddings

    embeddings = Embeddings.load(args.embeddings)
    index = _built(embeddings, args)
    if args.out is not None:
        index.save(args.out)
    _say(index, args.out or args.engine)
    index.close()
    return 0


def _built(embeddings: Embeddings, args: Namespace) -> Index:
    from xmodal.index import build_index
    from xmodal.index.engines import kind_of_address

    if args.engine is None:
        if args.out is None:
            raise ValueError("say where the index goes: --out DIR, or --engine URL for a database")
        return build_index(embeddings, args.kind)
    if args.kind != "auto":
        raise ValueError(f"--kind {args.kind} is for an index in files; a database has its own")
    kind = kind_of_address(args.engine)
    if kind is None:
        raise ValueError(
            f"--engine needs an address such as milvus://host:19530 or postgresql://host/db, got {args.engine}"
        )
    from xmodal.index.database import split_address

    url, collection = split_address(args.engine)
    with progress("sending", len(embeddings)) as advance:
        first = _slice(embeddings, 0)
        index = build_index(first, kind, url=url, collection=collection)
        advance(len(first))
        for start in range(_MOVED_ROWS, len(embeddings), _MOVED_ROWS):
            part = _slice(embeddings, start)
            index.add(part)
            advance(len(part))
    return index


def _slice(embeddings: Embeddings, start: int) -> Embeddings:
    from xmodal.embeddings import Embeddings

    part = slice(start, start + _MOVED_ROWS)
    return Embeddings(
        embeddings.ids[part],
        embeddings.vectors[part],
        embeddings.space_id,
        embeddings.metadata[part],
        embeddings.model,
        embeddings.view,
    )


def index_info(args: Namespace) -> int:
    """``xmodal index info``: what an index holds."""
    from xmodal.index import load_index

    index = load_index(args.index, mmap=True)
    if args.ids:
        for id_ in index.ids:
            print_line(id_)
        return 0
    facts = {
        "kind": index.kind,
        "count": len(index),
        "dim": index.dim,
        "space_id": index.space_id,
        "model": index.model,
        "view": index.view,
        "settings": index.settings,
        "metadata": sorted({key for row in index.metadata for key in row}),
    }
    if args.json:
        print_json(facts)
        return 0
    for name, value in facts.items():
        print_line(f"{name:10}{', '.join(value) if isinstance(value, list) else value}")
    index.close()
    return 0


def index_change(args: Namespace) -> int:
    """``xmodal index add | update``: more vectors, or newer ones, into an index."""
    from xmodal.embeddings import Embeddings
    from xmodal.index import load_index

    index = load_index(args.index)
    embeddings = Embeddings.load(args.embeddings)
    before = len(index)
    if args.action == "add":
        index.add(embeddings)
    else:
        index.update(embeddings)
        gone = sorted({*index.ids} - {*embeddings.ids}) if args.prune else []
        if gone:
            index.remove(gone)
    _save(index, args.index)
    print_line(f"{before} vectors before, {len(index)} now, in {args.index}")
    index.close()
    return 0


def index_remove(args: Namespace) -> int:
    """``xmodal index remove``: forget some ids."""
    from xmodal.index import load_index

    index = load_index(args.index)
    before = len(index)
    if not (args.ids or args.where):
        raise ValueError("say what to remove: ids, or --where CONDITION")
    chosen = index.ids_of(index.select(args.where)) if args.where else []
    ids = list(dict.fromkeys([*args.ids, *chosen]))
    index.remove(ids)
    _save(index, args.index)
    print_line(f"{before} vectors before, {len(index)} now, in {args.index}")
    index.close()
    return 0


def index_move(args: Namespace) -> int:
    """``xmodal index move``: the rows of one index into another engine."""
    from xmodal.index import load_index

    source = load_index(args.index, mmap=True)
    index = _built(source.export(), args)
    if args.out is not None:
        index.save(args.out)
    _say(index, args.out or args.engine)
    source.close()
    index.close()
    return 0


def index_swap(args: Namespace) -> int:
    """``xmodal index swap``: a new index in place of the one that is searched."""
    from xmodal.index import load_index
    from xmodal.index.engines import kind_of_address
    from xmodal.index.swap import swap_in

    for place in (args.new, args.live):
        if kind_of_address(place) is not None:
            raise ValueError(
                f"folders are swapped, and {place} is the address of a collection; write a folder that points to it "
                "with: xmodal index build VECTORS --engine ADDRESS --out DIR"
            )
    swap_in(args.new, args.live)
    _say(load_index(args.live, mmap=True), args.live)
    return 0


def index_compare(args: Namespace) -> int:
    """``xmodal index compare``: how far two indexes agree."""
    from xmodal.index import load_index
    from xmodal.index.compare import compare

    first, second = load_index(args.first, mmap=True), load_index(args.second, mmap=True)
    texts = None
    if args.texts is not None:
        words = [line.strip() for line in args.texts.read_text("utf-8").splitlines() if line.strip()]
        if not words:
            raise ValueError(f"{args.texts} holds no text; write one query a line")
        vectors = [
            _text_vectors(index, place, words, args) for index, place in ((first, args.first), (second, args.second))
        ]
        texts = (words, vectors[0], vectors[1])
    found = compare(first, second, k=args.k, queries=args.queries, texts=texts)
    worst = found.worst(args.worst)
    if args.json:
        print_json(
            {
                "k": found.k,
                "shared": found.shared,
                "only_first": found.only_first,
                "only_second": found.only_second,
                "queries": len(found.answers),
                "overlap": found.overlap,
                "rank_correlation": found.correlation,
                "worst": [
                    {"query": one.query, "overlap": one.overlap, "rank_correlation": one.correlation} for one in worst
                ],
            }
        )
        return 0
    print_line(
        f"{found.shared} ids in both, {found.only_first} only in {args.first}, {found.only_second} only in "
        f"{args.second}\noverlap@{found.k} {found.overlap:.3f}, rank correlation {found.correlation:.3f}, over "
        f"{len(found.answers)} queries"
    )
    print_table(
        [
            ["worst query", "overlap", "correlation"],
            *([one.query, f"{one.overlap:.2f}", f"{one.correlation:.2f}"] for one in worst),
        ]
    )
    return 0


def _text_vectors(index: Index, place: str, words: list[str], args: Namespace) -> Any:
    if index.model is None or not Path(index.model).exists():
        raise ValueError(
            f"{place} was made by a model that is not at {index.model}, so it cannot be asked in words; put the model "
            "there, or compare without --texts"
        )
    embedder = load_embedder(index.model, args, view=index.view)
    if embedder.space_id != index.space_id:
        raise SpaceMismatchError(
            f"{place} holds vectors of space {index.space_id} but the model at {index.model} now makes those of "
            f"{embedder.space_id}; make them again with: xmodal embed AUDIO --model {index.model} --out FILE.parquet, "
            "then xmodal index build FILE.parquet --out DIR"
        )
    return embedder.embed_queries(words)


def _save(index: Index, place: str) -> None:
    from xmodal.index.engines import kind_of_address

    if kind_of_address(place) is None:
        index.save(place)


def _say(index: Index, place: Any) -> None:
    print_line(f"{len(index)} vectors of {index.dim} dimensions, space {index.space_id}, kind {index.kind}, in {place}")
