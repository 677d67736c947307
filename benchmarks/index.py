"""Searches a second and recall of every engine, what xmodal adds to FAISS, and peers, in one run.

    python benchmarks/index.py --quick                            # 10,000 x 256: under a minute
    python benchmarks/index.py                                    # 100,000 x 512: ten minutes on two cores
    python benchmarks/index.py --rows 1000000 --folder DIR --only hnsw   # again until it is built
    python benchmarks/index.py --only pgvector,milvus             # some of the engines
    python benchmarks/index.py --folder DIR --build-only          # now build, and measure later on a quiet machine

The vectors are clustered, as music is: tracks scatter around as many centres as the root of their number. Recall@10 is
against comparing all rows. "batch" is all queries at once on all cores, "one" a query at a time. flat, hnsw and ivf are
xmodal's (``auto`` takes hnsw at these sizes), pgvector and milvus are xmodal's engines on servers from wheels; usearch,
LanceDB and sentence-transformers' ``semantic_search`` are peers. What is not installed is left out.

Each engine is built in a process of its own that is stopped after ``--limit`` seconds, and measured in another. A graph
of xmodal's that is not finished then is saved, and the next call goes on with it. Vectors, what is built, and what
was measured stay in ``--folder`` and are not made again; vectors are read from their file as they are needed. The
overhead is xmodal's time over that of the same FAISS index asked directly with the same parameters: the median of turns
in which both take part.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from xmodal.embeddings import Embeddings
from xmodal.index import Index, build_index, load_index
from xmodal.index.base import walk_breadth
from xmodal.index.faiss import HnswIndex

SPACE, K, PART = "0123456789abcdef", 10, 50_000
OURS, SERVERS, PEERS = ("flat", "hnsw", "ivf"), ("pgvector", "milvus"), ("usearch", "LanceDB", "semantic_search")
Search = Callable[[np.ndarray], np.ndarray]


def clustered(rows: int, queries: int, dim: int, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The same vectors each time, made a part at a time in files of a folder, and mapped."""
    places = [folder / "vectors.npy", folder / f"queries-{queries}.npy"]
    if not all(place.exists() for place in places):
        rng = np.random.default_rng(0)
        centres = rng.standard_normal((round(rows**0.5), dim), dtype=np.float32)
        for place, count in zip(places, (rows, queries), strict=True):
            aside = place.with_name(f".{place.name}")
            made = np.lib.format.open_memmap(aside, "w+", np.float32, (count, dim))
            near = rng.integers(len(centres), size=count)
            for start in range(0, count, PART):
                part = centres[near[start : start + PART]]
                part += 1.2 * rng.standard_normal(part.shape, dtype=np.float32)
                made[start : start + PART] = part / np.linalg.norm(part, axis=1, keepdims=True)
            made.flush()
            aside.replace(place)
    vectors, asked = (np.load(place, mmap_mode="c") for place in places)
    return vectors, asked


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([len({*a} & {*b}) / K for a, b in zip(found.tolist(), truth.tolist(), strict=True)]))


def rate(search: Callable[[np.ndarray], object], queries: np.ndarray, seconds: float = 2.0) -> float:
    done, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        search(queries)
        done += len(queries)
    return done / (time.perf_counter() - begun)


def one_by_one(search: Callable[[np.ndarray], object], queries: np.ndarray, seconds: float = 1.0) -> float:
    done, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        search(queries[done % len(queries)][None])
        done += 1
    return done / (time.perf_counter() - begun)


def raw_search(index: Index) -> Callable[[np.ndarray], object]:
    """The FAISS index inside, asked as :mod:`xmodal.index` asks it."""
    from xmodal.index.faiss import faiss

    if index.kind == "flat":
        return lambda queries: index._index.search(queries, K)
    if index.kind == "hnsw":
        chosen = faiss.SearchParametersHNSW(efSearch=index.ef_search or walk_breadth(len(index)))
        return lambda queries: index._graph.search(queries, K, params=chosen)
    lists = index._codes.nlist
    inner = faiss.SearchParametersIVF(nprobe=min(lists, max(8, lists // 32)))
    factor = {"int8": max(4, 40 / K), "pq": max(16, 256 / K)}[index.codes]
    chosen = faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=inner)
    whole = faiss.IndexRefine(index._codes, index._exact)
    return lambda queries: whole.search(queries, K, params=chosen)


def overhead(mine: Callable[[np.ndarray], object], raw: Callable[[np.ndarray], object], queries: np.ndarray) -> float:
    """Median of our time over FAISS's, turn by turn, so that a busy machine slows both."""
    begun = time.perf_counter()
    raw(queries)
    queries = queries[: max(1, round(len(queries) * min(1.0, 0.5 / (time.perf_counter() - begun))))]
    ratios = []
    for turn in range(15):
        times = {}
        for search in (mine, raw) if turn % 2 else (raw, mine):
            begun = time.perf_counter()
            search(queries)
            times[search] = time.perf_counter() - begun
        ratios.append(times[mine] / times[raw])
    return statistics.median(ratios)


def grow(vectors: np.ndarray, place: Path, limit: float) -> dict[str, Any]:
    """Add to the graph in a folder, or to an empty one, until it is whole or the time is up, and save it."""
    begun = time.perf_counter()
    index = load_index(place) if (place / "index.json").exists() else HnswIndex(SPACE, vectors.shape[1])
    opened, busy = time.perf_counter() - begun, 0.0
    while len(index) < len(vectors) and opened + busy < limit:
        rows = range(len(index), min(len(index) + 5_000, len(vectors)))
        used = time.perf_counter()
        index.add(Embeddings([str(row) for row in rows], vectors[rows.start : rows.stop], SPACE))
        busy += time.perf_counter() - used
    index.save(place)
    return {"build_seconds": round(busy, 1), "rows": len(index)}


def build(name: str, vectors: np.ndarray, place: Path) -> None:
    """Make the index of an engine in a folder that is empty."""
    if name == "usearch":
        from usearch.index import Index as Usearch

        # The same graph as hnsw's: links, and how many candidates are looked at when it is built and asked.
        index = Usearch(
            ndim=vectors.shape[1], metric="ip", dtype="f32", connectivity=32, expansion_add=80, expansion_search=64
        )
        index.add(np.arange(len(vectors)), vectors)
        index.save(str(place / "index.usearch"))
    elif name == "LanceDB":
        import lancedb
        import pyarrow as pa

        lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        table = lancedb.connect(place).create_table("rows", pa.table({"row": np.arange(len(vectors)), "vector": lists}))
        table.create_index("vector", config=lancedb.index.IvfPq(distance_type="dot"))
    elif name == "semantic_search":
        import_semantic_search()  # there is nothing to build
    else:
        embeddings = Embeddings([str(row) for row in range(len(vectors))], vectors, SPACE)
        if name in OURS:
            build_index(embeddings, name).save(place)
        else:
            with server(name, place) as url:
                kind = "postgres" if name == "pgvector" else name
                build_index(embeddings, kind, url=url, collection="bench").close()


@contextmanager
def opened(name: str, vectors: np.ndarray, place: Path) -> Iterator[tuple[Search, Index | None]]:
    """What :func:`build` made, ready to be asked; and the index, if it is xmodal's."""
    if name == "usearch":
        from usearch.index import Index as Usearch

        other = Usearch.restore(str(place / "index.usearch"))
        other.expansion_search = walk_breadth(len(other))  # as hnsw
        yield lambda asked: np.asarray(other.search(asked, K).keys).reshape(len(asked), K), None
    elif name == "LanceDB":
        import lancedb

        table = lancedb.connect(place).open_table("rows")

        def lance(asked: np.ndarray) -> np.ndarray:
            found = []
            for query in asked:
                hits = table.search(query).distance_type("dot").nprobes(20).refine_factor(50).limit(K).to_arrow()
                found.append((hits["row"].to_pylist() + [-1] * K)[:K])
            return np.array(found)

        yield lance, None
    elif name == "semantic_search":
        import torch

        dot_score, semantic_search = import_semantic_search()
        corpus = torch.from_numpy(vectors)

        def semantic(asked: np.ndarray) -> np.ndarray:
            hits = semantic_search(torch.from_numpy(asked), corpus, top_k=K, score_function=dot_score)
            return np.array([[hit["corpus_id"] for hit in found] for found in hits])

        yield semantic, None
    else:
        with nullcontext(str(place)) if name in OURS else server(name, place) as where:
            index = load_index(where if name in OURS else f"{where}{'&' if '?' in where else '?'}collection=bench")

            def mine(asked: np.ndarray) -> np.ndarray:
                return index.search(asked, K, space_id=SPACE)[1]

            yield mine, index
            index.close()


def import_semantic_search() -> tuple[Any, Any]:
    import xmodal.compat  # noqa: F401  (sentence_transformers imports torchaudio)

    # isort: split
    from sentence_transformers.util import dot_score, semantic_search

    return dot_score, semantic_search


@contextmanager
def server(name: str, place: Path) -> Iterator[str]:
    """The address of a database in a folder."""
    if name == "milvus":
        yield f"milvus://{place}/bench.db"
        return
    import pgserver

    place.chmod(0o755)  # started by root, PostgreSQL becomes another user
    running = pgserver.get_server(place / "data", cleanup_mode="stop")
    # The server's 64 MB hold a sixth of the graph of 100,000 rows; the rest would be linked row by row.
    yield f"{running.get_uri()}&options=-c%20maintenance_work_mem%3D1GB"
    running.cleanup()


def built(name: str, vectors: np.ndarray, place: Path, told: Any, limit: float) -> None:
    begun = time.perf_counter()
    if name == "hnsw":
        told.send(grow(vectors, place, limit))
        return
    try:
        build(name, vectors, place)
    except ImportError as error:
        told.send({"note": f"{error.name} is not installed"})
    else:
        told.send({"build_seconds": round(time.perf_counter() - begun, 1)})


def measured(name: str, vectors: np.ndarray, place: Path, told: Any, queries: np.ndarray, truth: np.ndarray) -> None:
    with opened(name, vectors, place) as (search, index):
        line = {"recall": round(recall(search(queries), truth), 4), "one": round(one_by_one(search, queries), 1)}
        line["batch"] = round(rate(search, queries if line["one"] > 200 else queries[:50]), 1)
        if name in OURS and index is not None:
            line["overhead"] = round(overhead(search, raw_search(index), queries), 4)
        told.send(line)


def true_rows(vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The nearest rows, every row compared, a part at a time."""
    scores, rows = [], []
    for start in range(0, len(vectors), 100_000):
        part = queries @ vectors[start : start + 100_000].T
        best = np.argpartition(-part, K, axis=1)[:, :K]
        scores.append(np.take_along_axis(part, best, axis=1))
        rows.append(best + start)
    together = np.concatenate(scores, axis=1)
    return np.take_along_axis(np.concatenate(rows, axis=1), np.argsort(-together, axis=1)[:, :K], axis=1)


def run(what: Callable[..., None], limit: float, *given: Any) -> dict[str, Any]:
    """A step in a process of its own, which takes its memory away with it."""
    fork = multiprocessing.get_context("fork")
    mine, theirs = fork.Pipe()
    process = fork.Process(target=what, args=(*given[:3], theirs, *given[3:]))
    process.start()
    theirs.close()
    try:
        return mine.recv() if mine.poll(limit) else {"note": f"not done within {limit:g} s"}
    except EOFError:
        return {"note": "failed"}
    finally:
        process.join(10)
        process.terminate()
        process.join()


def claims_of(lines: dict[str, dict[str, Any]], size: str) -> list[dict[str, Any]]:
    claims = []
    for name in OURS:
        if "overhead" in lines.get(name, {}):
            ratio = lines[name]["overhead"]
            claims.append(claim(f"{size}, {name}: time over FAISS's own", ratio, 1.0, ratio, 1.05, ratio <= 1.05))
    good = [lines[name] for name in OURS if lines.get(name, {}).get("recall", 0) >= 0.95]
    for name in (*PEERS, *SERVERS):
        other = lines.get(name, {})
        for how in ("batch", "one"):
            if good and how in other:
                best = max(good, key=lambda line: line[how])
                what = f"{size}, {how} QPS of {best['engine']} (recall {best['recall']:.3f}) beside {name}"
                ratio = best[how] / other[how]
                claims.append(
                    claim(f"{what} (recall {other['recall']:.3f})", best[how], other[how], ratio, 1.0, ratio >= 1)
                )
    return claims


def claim(what: str, ours: float, peer: float, ratio: float, goal: float, met: bool) -> dict[str, Any]:
    return {"claim": what, "ours": ours, "peer": peer, "ratio": round(ratio, 3), "goal": goal, "met": bool(met)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--dim", type=int)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--only", default=",".join((*OURS, *PEERS, *SERVERS)), help="engines, with commas")
    parser.add_argument("--limit", type=float, default=420.0, help="seconds that a build may take")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where indexes and results are kept")
    parser.add_argument("--build-only", action="store_true", help="leave measuring to a later call")
    args = parser.parse_args()
    rows, dim = args.rows or (10_000 if args.quick else 100_000), args.dim or (256 if args.quick else 512)
    asked = args.only.split(",")
    if unknown := {*asked} - {*OURS, *PEERS, *SERVERS}:
        parser.error(f"no engine {', '.join(unknown)}; there are {', '.join((*OURS, *PEERS, *SERVERS))}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = Path(args.folder or temporary) / f"{rows}x{dim}"
        folder.mkdir(parents=True, exist_ok=True)
        for one in compared(asked, rows, dim, args, folder):
            print(json.dumps(one))


def compared(asked: list[str], rows: int, dim: int, args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    size = f"{rows:,} x {dim}"
    lines = {path.stem: {"engine": path.stem, **json.loads(path.read_text())} for path in folder.glob("*.json")}
    threads = os.environ.get("OMP_NUM_THREADS", "as many as cores")
    print(f"{size}, k = {K}, {len(os.sched_getaffinity(0))} cores, threads: {threads}")
    print(f"  {'engine':16} {'build s':>10} {'batch QPS':>10} {'one QPS':>10} {'recall@10':>9} {'/ FAISS':>8}")
    if any(name not in lines or not {"note", "one"} & lines[name].keys() for name in asked):
        vectors, queries = clustered(rows, args.queries, dim, folder)
        known = folder / f"truth-{args.queries}.npy"
        if not known.exists():
            np.save(known, true_rows(vectors, queries))
        truth = np.load(known)
    for name in asked:
        place = folder / name
        before = lines.get(name, {})
        if not before or before.get("rows", rows) < rows:
            if not before:
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir()
            # A graph stops by itself, and needs the time to be saved.
            line = run(built, args.limit + 60 * (name == "hnsw"), name, vectors, place, args.limit)
            if "rows" in before and "note" in line:
                raise SystemExit(f"{name} stands at {before['rows']:,} rows, but this time: {line['note']}")
            lines[name] = line | {
                "build_seconds": round(line.get("build_seconds", 0) + before.get("build_seconds", 0), 1)
            }
        line = lines[name]
        whole = line.get("rows", rows) == rows
        if whole and not args.build_only and not {"note", "one"} & line.keys():
            line |= run(measured, args.limit, name, vectors, place, queries, truth)
        if "not installed" not in line.get("note", ""):
            (folder / f"{name}.json").write_text(json.dumps(line))
        line["engine"] = name
        show(line)
    return claims_of(lines, size)


def show(line: dict[str, Any]) -> None:
    if "one" not in line:
        rows = f"{line['rows']:,} rows " if "rows" in line else ""
        said = line.get("note") or f"{rows}built in {line['build_seconds']:.1f} s"
        print(f"  {line['engine']:16} {said}", flush=True)
        return
    beside = f"{line['overhead']:8.3f}" if "overhead" in line else ""
    print(
        f"  {line['engine']:16} {line['build_seconds']:10.1f} {line['batch']:10,.0f} {line['one']:10,.0f} "
        f"{line['recall']:9.4f} {beside}",
        flush=True,
    )


if __name__ == "__main__":
    main()
