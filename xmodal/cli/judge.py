"""The command that puts a model to the test. It returns the exit code."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence

import numpy as np
import torch

from xmodal.cli.shared import embed_all, load_embedder, print_json, print_line, print_table
from xmodal.cli.tags import make_scorer, vocabulary_of
from xmodal.data.datasets import evaluation_texts
from xmodal.data.manifests import read_corpus
from xmodal.data.splits import split_tracks
from xmodal.data.tracks import Track
from xmodal.embedder import Embedder
from xmodal.errors import DataError
from xmodal.evaluation import TagResult, evaluate_retrieval, evaluate_tags


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
    if not any(track.tags for track in tracks):
        return None
    scorer = make_scorer(vocabulary_of(tracks), embedder)
    labels, valid = scorer.labels([track.tags for track in tracks])
    if not ((labels & valid).any(dim=0) & (~labels & valid).any(dim=0)).any():
        return None
    return evaluate_tags(audio, scorer.vectors, labels, scorer.tags, valid=valid)
