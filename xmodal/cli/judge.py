"""The commands that put words to files and a model to the test. Each returns the exit code."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xmodal.audio import find_audio
from xmodal.cli.shared import embed_all, load_embedder, print_json, print_line, print_table
from xmodal.data.datasets import evaluation_texts
from xmodal.data.manifests import read_corpus
from xmodal.data.splits import split_tracks
from xmodal.data.tracks import Track, tag_matrices
from xmodal.embedder import Embedder
from xmodal.embeddings import Embeddings
from xmodal.errors import DataError, SpaceMismatchError
from xmodal.evaluation import TagResult, evaluate_retrieval, evaluate_tags
from xmodal.tagging import TagScorer
from xmodal.text import words_key

# Names by kind; those under None are looked for in tags of every kind.
ByKind = dict[Any, list[str]]


def tag(args: Namespace) -> int:
    """``xmodal tag``: files to the words of a vocabulary that are nearest to them."""
    vocabulary = read_vocabulary(args.tags)
    files = [path for given in args.files for path in (find_audio(given) if given.is_dir() else [given])]
    reference = None if args.reference is None else Embeddings.load(args.reference)
    embedder = load_embedder(args.model, args)
    if reference is not None and reference.space_id != embedder.space_id:
        raise SpaceMismatchError(
            f"{args.reference} holds vectors of space {reference.space_id} but the model makes those of space "
            f"{embedder.space_id}; make it again with: xmodal embed AUDIO --model {args.model} --out {args.reference}"
        )
    scorer = _scorer(vocabulary, embedder, reference)
    rows = embed_all(embedder, files).embeddings
    best = {
        str(files[int(id_)]): scorer.rank_tags(vector, top=args.k)
        for id_, vector in zip(rows.ids, rows.vectors, strict=True)
    }
    if args.json:
        listed = {path: [{"tag": name, "score": score} for name, score in tags] for path, tags in best.items()}
        print_json([{"path": path, "tags": tags} for path, tags in listed.items()])
    elif best:
        lines = {path: ", ".join(f"{name} {score:.3f}" for name, score in tags) for path, tags in best.items()}
        print_table([["file", "tags"], *lines.items()])
    return 0 if best else 1


def read_vocabulary(given: str) -> ByKind:
    """Read tags by kind from ``a, b`` or from a text file, where a line is ``a, b`` or ``mood: a, b``.

    Raises:
        OSError: If ``given`` ends in .txt and there is no such file.
    """
    path = Path(given)
    if path.suffix != ".txt" and not path.is_file():
        return {None: _names(given)}
    tags: ByKind = {}
    for line in path.read_text("utf-8").splitlines():
        before, colon, after = line.partition(":")
        kind, names = (before.strip(), after) if colon else (None, line)
        tags.setdefault(kind, []).extend(_names(names))
    return tags


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _scorer(vocabulary: ByKind, embedder: Embedder, reference: Embeddings | None = None) -> TagScorer:
    return TagScorer(vocabulary, embedder.embed_texts, reference=None if reference is None else reference.vectors)


def evaluate(args: Namespace) -> int:
    """``xmodal evaluate``: how well a model finds and tags the tracks of a manifest."""
    corpus = read_corpus(args.manifest, audio_root=args.audio_root, tag_fields=args.tag_fields, missing="skip")
    every = corpus.tracks
    tracks = every if args.split == "all" else split_tracks(every)[args.split]
    if not tracks:
        raise DataError(f"{args.manifest} has no tracks in its {args.split} split; choose another with --split, or all")
    embedder = load_embedder(args.model, args)
    result = embed_all(embedder, tracks)
    kept, audio = [tracks[int(id_)] for id_ in result.embeddings.ids], result.embeddings.vectors
    if not kept:
        return 1
    texts, relevance = evaluation_texts(kept, args.captions)
    # What was recorded together, and the captions of one track, are no independent evidence.
    names = [track.group or track.id for track in kept]
    groups = torch.tensor([names.index(name) for name in names])
    retrieval = evaluate_retrieval(
        audio,
        embedder.embed_texts(texts),
        relevance,
        without_right="leave_out",  # a track of which the manifest says nothing is still a wrong answer to others
        audio_groups=groups,
        text_groups=groups[relevance.int().argmax(dim=0)],
    )
    tags = _evaluate_tags(embedder, audio, kept)
    if args.json:
        facts = {"model": str(args.model), "space_id": embedder.space_id, "manifest": str(args.manifest)}
        failures = [{"path": one.path, "reason": one.reason} for one in corpus.set_aside]
        failures += [{"path": str(failure.path), "reason": failure.reason} for failure in result.failures]
        counts = {"split": args.split, "tracks": len(kept), "texts": len(texts), "failures": failures}
        print_json(
            {**facts, **counts, "retrieval": retrieval.to_dict(), "tags": None if tags is None else tags.to_dict()}
        )
        return 0
    print_line(f"{len(kept)} of {len(tracks)} tracks, {len(texts)} texts, space {embedder.space_id}\n")
    print_table(retrieval.table())
    if tags is not None:
        print_line("")
        print_table(tags.table())
    return 0


def _evaluate_tags(embedder: Embedder, audio: np.ndarray, tracks: Sequence[Track]) -> TagResult | None:
    """Judge the tags that the tracks have; None if no tag tells two of them apart."""
    kinds: dict[str, dict[str, str]] = {}  # for each word its kinds, and its spelling there
    for track in tracks:
        for kind, names in track.tags.items():
            for name in names:
                kinds.setdefault(words_key(name), {}).setdefault(kind, name)
    vocabulary: ByKind = {}
    for spelt in kinds.values():
        kind, name = next(iter(spelt.items()))
        vocabulary.setdefault(kind if len(spelt) == 1 else None, []).append(name)
    if not vocabulary:
        return None
    scorer = _scorer(vocabulary, embedder)
    labels, valid = tag_matrices(tracks, list(zip(scorer.kinds, scorer.tags, strict=True)))
    if not ((labels & valid).any(dim=0) & (~labels & valid).any(dim=0)).any():
        return None
    return evaluate_tags(audio, scorer.vectors, labels, scorer.tags, valid=valid)
