"""The commands that make a catalogue and search it. Each takes the parsed words and returns the exit code."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal.cli.shared import load_embedder, print_json, print_line, print_table, progress
from xmodal.errors import ModelError

if TYPE_CHECKING:  # an index can be described without loading torch
    from xmodal.embedder import Embedder
    from xmodal.export.job import Report, Source
    from xmodal.index import Index
    from xmodal.metrics.hubness import HubCorrection
    from xmodal.search import Hit


def embed(args: Namespace) -> int:
    """``xmodal embed``: audio files to vectors."""
    from xmodal.data.manifests import read_corpus
    from xmodal.export import export

    if args.out.suffix.lower() in (".csv", ".json", ".jsonl", ".npy", ".safetensors", ".tar") and not args.out.is_dir():
        raise ValueError(f"--out must name a folder, or a file ending in .parquet, got {args.out}")
    if args.lyrics:
        from xmodal.cli.lyrics import embed_lyrics

        return embed_lyrics(args, view=_view(args))
    corpus = read_corpus(args.source, audio_root=args.audio_root, tag_fields=args.tag_fields, missing="skip")
    tracks = corpus.tracks
    embedder = load_embedder(args.model, args, view=_view(args))
    try:
        with progress("embedding", len(tracks)) as advance:
            report = export(
                embedder,
                tracks,
                args.out,
                format=args.format,
                dtype=args.dtype,
                shard_rows=args.shard_rows,
                set_aside=corpus.set_aside,
                source=_source(args, embedder),
                advance=advance,
            )
    except KeyboardInterrupt:
        sys.stderr.write("xmodal: what is finished is kept; the same command goes on from there\n")
        raise
    aside = f"; {report.failed} set aside, with reasons in {report.failures}" if report.failed else ""
    if not report.rows:
        sys.stderr.write(f"xmodal: none of the {report.files} files could be embedded{aside}\n")
        return 1
    print_line(
        f"{report.files - report.failed} of {report.files} files embedded{_taken_over(report)}{aside}\n"
        f"{report.rows} vectors of {embedder.dim} dimensions, space {embedder.space_id}, in {args.out}"
    )
    return 0


def _view(args: Namespace) -> dict[str, Any]:
    pooling = "windows" if args.windows else args.pooling
    if args.windows and args.pooling not in (None, "windows"):
        raise ValueError(f"--windows keeps every window, so nothing is pooled by {args.pooling}; choose one of the two")
    said = {"pooling": pooling, "top_windows": args.top_windows, "hop_seconds": args.hop, "dim": args.dim}
    return {name: value for name, value in said.items() if value is not None}


def _source(args: Namespace, embedder: Embedder) -> Source | None:
    if args.ray is None:
        return None
    from xmodal.export.on_ray import on_ray

    return on_ray(embedder, address=None if args.ray == "local" else args.ray, trust=args.trust)


def _taken_over(report: Report) -> str:
    good = report.files - report.failed
    return f" ({report.embedded} by this run, the rest was there already)" if report.embedded < good else ""


def search(args: Namespace) -> int:
    """``xmodal search``: words, files and ids to hits."""
    import numpy as np

    from xmodal.index import load_index
    from xmodal.query import parse_query, stored_vector
    from xmodal.refine import DUPLICATE_COSINE
    from xmodal.search import Refinement, Term, combine, find_moments, query_vector, refined_search

    index = load_index(args.index)
    if args.late:
        return _search_late(index, args)
    terms = [term for words in args.words for term in parse_query(words, index, minus_weight=args.minus_weight)]
    terms += [Term(path) for path in args.audio] + [stored_vector(index, id_) for id_ in args.like]
    terms += [Term(words, -args.minus_weight) for words in args.minus]
    if not terms:
        raise ValueError('there is nothing to look for; say it in words ("slow piano"), with --audio FILE or --like ID')
    stored = [term.what for term in terms if not isinstance(term.what, str | Path)]
    embedder = None
    if len(stored) < len(terms) or args.hubs:  # rows of the index alone need no model
        embedder = load_embedder(_model_of(index, args), args, view=index.view)
    if embedder is not None:
        space_id, query = embedder.space_id, query_vector(embedder, terms)
    else:
        space_id, query = index.space_id, combine(np.stack(stored), [term.weight for term in terms])
    refinement = Refinement(
        hubs=None if embedder is None or args.hubs is None else _hub_correction(index, embedder, args),
        reciprocal=args.rerank,
        duplicates=DUPLICATE_COSINE if args.no_duplicates else None,
        known=np.stack(stored) if stored else None,
        group=args.one_per,
        most=args.most,
        balance=None if args.diverse is None else 1 - args.diverse,
    )
    one_per = None if args.all_windows else "track"
    hits = refined_search(index, query, args.k, refinement, space_id=space_id, one_per=one_per, where=args.where)
    if not args.all_windows:
        hits = find_moments(index, query, hits, None if embedder is None else embedder.model.windows.window_seconds)
    if args.m3u is not None:
        _write_playlist(hits, args.m3u)
    _show_hits(hits, space_id, args)
    if not hits and args.where:
        wanted = " and ".join(args.where)
        sys.stderr.write(f"xmodal: nothing found fulfils {wanted}; what is known: xmodal index info {args.index}\n")
    if hits and args.one_per is not None and not any(args.one_per in hit.metadata for hit in hits):
        said = f"none of these tracks has {args.one_per!r}, so none is left out"
        sys.stderr.write(f"xmodal: {said}; what is known: xmodal index info {args.index}\n")
    return 0


def _hub_correction(index: Index, embedder: Embedder, args: Namespace) -> HubCorrection:
    """Measured on the lines of a file, or on the tags that the index knows."""
    import numpy as np
    import torch

    from xmodal.metrics.hubness import HubCorrection, HubMethod

    if args.bank is not None:
        lines = [line.strip() for line in args.bank.read_text("utf-8").splitlines()]
        queries = list(dict.fromkeys(line for line in lines if line))
    else:
        queries = sorted({tag for facts in index.metadata for tag in _tag_list(facts.get("tags"))})
    if not queries:
        raise ValueError("--hubs needs queries to measure with, and the index has no tags; name some with --bank FILE")
    bank = torch.from_numpy(embedder.embed_texts(queries) @ np.asarray(index.vectors()).T)
    method: HubMethod = args.hubs.replace("-", " ")
    return HubCorrection.fit(bank, method)


def _write_playlist(hits: Sequence[Hit], path: Path) -> None:
    """Extended M3U in UTF-8: length, artist and title, and the file of each hit."""
    from xmodal.atomic import written_aside

    lines = ["#EXTM3U"]
    for hit in hits:
        facts = hit.metadata
        if not facts.get("path"):
            raise ValueError(f"the index does not say where {hit.id} lies, so there is no playlist of it")
        names = [str(facts[key]) for key in ("artist", "title") if facts.get(key)] or [Path(facts["path"]).stem]
        label = " ".join(" - ".join(names).split())
        lines += [f"#EXTINF:{round(float(facts.get('duration_seconds') or -1))},{label}", str(facts["path"])]
    with written_aside(path) as aside:
        aside.write_text("\n".join(lines) + "\n", "utf-8")


def _search_late(index: Index, args: Namespace) -> int:
    """A track is scored by each group of lines of the query against its own best row."""
    from xmodal.late import late_search
    from xmodal.text import parse_fields

    if len(args.words) != 1 or args.audio or args.like or args.minus or args.where:
        raise ValueError("--late takes one query of lines, and no --audio, --like, --minus or --where beside it")
    fields = parse_fields(args.words[0])
    if len(fields) > 1 or not fields.keys() & {"lyrics", "caption"}:
        raise ValueError(
            f"--late looks for lyrics alone, and the query names {', '.join(fields)}; leave the others out"
        )
    embedder = load_embedder(_model_of(index, args), args)
    _, parts = embedder.embed_lyrics("\n".join(fields.values()), lines=args.lines)
    _show_hits(late_search(index, parts, args.k, space_id=embedder.space_id), embedder.space_id, args)
    return 0


def _show_hits(hits: Sequence[Hit], space_id: str, args: Namespace) -> None:
    if args.json:
        print_json({"space_id": space_id, "hits": [asdict(hit) for hit in hits]})
    else:
        print_table([["#", "score", "track", "moment", "tags"], *map(_hit_row, hits)])


def _model_of(index: Index, args: Namespace) -> str:
    if args.model is not None:
        return str(args.model)
    if index.model is None:
        raise ValueError(f"{args.index} does not say which model made it; name it with --model DIR")
    if not Path(index.model).exists():
        raise ModelError(f"the model that made {args.index} is no longer at {index.model}; say where with --model DIR")
    return index.model


def _hit_row(hit: Hit) -> Sequence[str]:
    name = hit.metadata.get("title") or hit.metadata.get("path") or hit.id
    when = _clock(hit.start_seconds)
    if hit.end_seconds is not None:
        when += f"–{_clock(hit.end_seconds)}"
    return str(hit.rank), f"{hit.score:.3f}", str(name), when, _words(hit.metadata.get("tags"))


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"


def _words(tags: Any) -> str:
    return str(tags) if isinstance(tags, str) else ", ".join(_tag_list(tags))


def _tag_list(tags: Any) -> list[str]:
    if isinstance(tags, dict):  # by kind
        tags = [tag for kind in tags.values() for tag in kind]
    return [str(tag) for tag in tags] if isinstance(tags, list | tuple) else []
