"""A model, tracks and a protocol to a report with everything that is needed to reproduce and to compare it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from xmodal.audio import digest
from xmodal.data.datasets import evaluation_texts
from xmodal.data.tracks import Track
from xmodal.embedder import Embedder
from xmodal.errors import AudioError, DataError
from xmodal.evaluation.protocol import Protocol
from xmodal.evaluation.reports import Answer, Report
from xmodal.evaluation.results import DirectionResult, TagResult, direction_result, evaluate_tags
from xmodal.evaluation.similarity import Vote, judge_alike, judge_votes
from xmodal.evaluation.zero_shot import judge_unseen
from xmodal.metrics import bootstrap_interval, rank, rank_vectors
from xmodal.runs import versions
from xmodal.tagging import NULL_PROMPTS, TEMPLATES, TagScorer, Vocabulary
from xmodal.text import words_key


def judge(
    embedder: Embedder,
    tracks: Sequence[Track],
    protocol: Protocol,
    *,
    manifest: str | None = None,
    embed: Callable[[Embedder, Sequence[Track]], Any] | None = None,
    votes: Sequence[Vote] | None = None,
) -> Report:
    """Run a protocol.

    Args:
        embedder: The model, looked at as the protocol's ``view`` says.
        tracks: The tracks of the protocol's split.
        protocol: The rules.
        manifest: Where the tracks are from, for the record.
        embed: Embeds tracks, their ids being their positions; for instance with a progress bar. None: without one.
        votes: What people said of triplets of the tracks.

    Raises:
        DataError: If no track can be embedded, or there is nothing to ask for.
    """
    chosen = protocol.judged(tracks)
    if embed is None:
        result = embedder.embed_files(chosen, ids=[str(row) for row in range(len(chosen))])
    else:
        result = embed(embedder, chosen)
    kept = [chosen[int(id_)] for id_ in result.embeddings.ids]
    if not kept:
        raise DataError("not one of the tracks could be embedded; the reasons are on the error stream")
    audio = torch.from_numpy(result.embeddings.vectors)
    asks = any(track.captions or track.tags for track in kept)
    texts, relevance = evaluation_texts(kept) if asks else ([], torch.zeros(len(kept), 0, dtype=torch.bool))
    retrieval, per_query, answers = _retrieval(embedder, audio, kept, texts, relevance, protocol)
    tags = _tags(embedder, audio, kept, protocol) if "tags" in protocol.directions else None
    classification = None
    if protocol.classify is not None:
        classification, own = _classify(embedder, audio, kept, protocol)
        per_query["classification"] = own
    zero_shot = None if protocol.unseen is None else _unseen(embedder, audio, kept, protocol)
    alike = triplets = None
    bootstrap = {"confidence": protocol.confidence, "resamples": protocol.resamples, "seed": protocol.seed}
    if protocol.alike is not None:
        groups = _numbers([protocol.group_of(track) for track in kept])
        settings: dict[str, Any] = {"exclude": protocol.alike_exclude, "ks": protocol.ks, "groups": groups}
        alike, per_query["alike"] = judge_alike(audio, kept, protocol.alike, bootstrap=bootstrap, **settings)
    if votes is not None:
        triplets = judge_votes(
            audio,
            [track.id for track in kept],
            votes,
            agreement=protocol.agreement,
            at_least=protocol.votes,
            confidence=protocol.confidence,
            seed=protocol.seed,
        )
    facts = {
        "model": embedder.source,
        "space_id": embedder.space_id,
        "protocol": asdict(protocol),
        "protocol_hash": protocol.hash(),
        "manifest": manifest,
        "data_fingerprint": data_fingerprint(kept),
        "versions": versions(),
        "split": protocol.split,
        "tracks": len(kept),
        "texts": len(texts),
        "failures": [{"path": str(each.path), "reason": each.reason} for each in result.failures],
    }
    if not retrieval and all(each is None for each in (tags, classification, zero_shot, alike, triplets)):
        raise DataError("the protocol asks for nothing that these tracks can answer: they have no captions and no tags")
    return Report(facts, retrieval, tags, classification, per_query, answers, kept, zero_shot, alike, triplets)


def data_fingerprint(tracks: Sequence[Track]) -> str:
    """16 hex digits over what the tracks are: ids, audio content, parts, captions and tags. Paths take no part."""
    total = hashlib.sha256()
    for track in sorted(tracks, key=lambda track: track.id):
        try:
            content = digest(track.path)
        except AudioError:
            content = ""
        tags = {kind: list(names) for kind, names in track.tags.items()}
        captions = [[c.text, sorted(c.requires or ())] for c in track.captions]
        absent = {kind: list(names) for kind, names in track.absent.items()}
        known = [track.id, content, track.start_seconds, track.end_seconds, captions, tags, absent]
        total.update(json.dumps(known, sort_keys=True).encode())
    return total.hexdigest()[:16]


def _retrieval(
    embedder: Embedder,
    audio: Tensor,
    tracks: Sequence[Track],
    texts: Sequence[str],
    relevance: Bool[Tensor, "tracks texts"],
    protocol: Protocol,
) -> tuple[dict[str, DirectionResult], dict[str, dict[str, list[Any]]], dict[str, dict[str, list[Answer]]]]:
    wanted: list[str] = [name for name in protocol.directions if name != "tags"]
    if not wanted or not texts:
        return {}, {}, {}
    words = torch.from_numpy(np.asarray(embedder.embed_texts(texts)))
    groups = _numbers([protocol.group_of(track) for track in tracks])
    ids = [track.id for track in tracks]
    bootstrap = {"confidence": protocol.confidence, "resamples": protocol.resamples, "seed": protocol.seed}
    sides = {
        "text_to_audio": (words, audio, relevance.T, texts, ids, groups[relevance.int().argmax(dim=0)]),
        "audio_to_text": (audio, words, relevance, ids, texts, groups),
    }
    results: dict[str, DirectionResult] = {}
    per_query: dict[str, dict[str, list[Any]]] = {}
    answers: dict[str, dict[str, list[Answer]]] = {}
    for name in wanted:
        queries, candidates, right, asked, names, group = sides[name]
        ranking = rank_vectors(queries, candidates, right, without_right="leave_out", ties=protocol.ties)
        results[name] = direction_result(ranking, len(queries), protocol.ks, group, bootstrap)
        fitting = [k for k in protocol.ks if k <= ranking.candidates] or list(protocol.ks)
        rows = ranking.rows.tolist()
        values = {metric: value.tolist() for metric, value in ranking.values(fitting).items()}
        per_query[name] = {"query": [asked[row] for row in rows], "group": group[ranking.rows].tolist(), **values}
        order = ranking.first_place().argsort(stable=True).tolist()
        worst = order[::-1][:12]
        answers[name] = {
            which: [
                _answer(int(ranking.first_place()[at]), rows[at], queries, candidates, right, asked, names)
                for at in chosen
            ]
            for which, chosen in (("best", order[:6]), ("worst", worst))
        }
    return results, per_query, answers


def _answer(
    place: int,
    row: int,
    queries: Tensor,
    candidates: Tensor,
    right: Bool[Tensor, "queries candidates"],
    asked: Sequence[str],
    names: Sequence[str],
) -> Answer:
    score = candidates @ queries[row]
    first = score.argsort(descending=True, stable=True)[:3].tolist()
    wanted = int(score.masked_fill(~right[row], -torch.inf).argmax())
    return Answer(
        asked[row], place, [(names[at], float(score[at]), bool(right[row, at])) for at in first], names[wanted]
    )


def _scorer(embedder: Embedder, vocabulary: Vocabulary, protocol: Protocol) -> TagScorer:
    templates = TEMPLATES if protocol.prompts is None else {**TEMPLATES, **protocol.prompts}
    null = NULL_PROMPTS if protocol.null_prompts else ()
    return TagScorer(vocabulary, embedder.embed_texts, templates=templates, null_prompts=null)


def _tags(
    embedder: Embedder, audio: Float[Tensor, "tracks dim"], tracks: Sequence[Track], protocol: Protocol
) -> TagResult | None:
    made = _labelled(embedder, tracks, protocol)
    if made is None:
        return None
    scorer, labels, valid = made
    if not ((labels & valid).any(dim=0) & (~labels & valid).any(dim=0)).any():
        return None
    # Areas of a tag's list of tracks: what null prompts take off a track differs from track to track.
    weights = torch.nn.functional.normalize(scorer.weights, dim=1)
    settings = {"confidence": protocol.confidence, "resamples": protocol.resamples, "seed": protocol.seed}
    return evaluate_tags(audio, weights, labels, scorer.tags, valid=valid, **settings)  # type: ignore[arg-type]


def _labelled(
    embedder: Embedder, tracks: Sequence[Track], protocol: Protocol
) -> tuple[TagScorer, Bool[Tensor, "tracks tags"], Bool[Tensor, "tracks tags"]] | None:
    """The tags of the protocol's kinds, embedded, and what the tracks say of them; None if there is none."""
    kinds = protocol.tag_kinds
    seen = [
        replace(
            track,
            tags={kind: names for kind, names in track.tags.items() if kinds is None or kind in kinds},
            absent={kind: names for kind, names in track.absent.items() if kinds is None or kind in kinds},
        )
        for track in tracks
    ]
    vocabulary = vocabulary_of(seen)
    if vocabulary is None:
        return None
    return _scorer(embedder, vocabulary, protocol), *vocabulary.labels_of_tracks(seen)


def _unseen(
    embedder: Embedder, audio: Float[Tensor, "tracks dim"], tracks: Sequence[Track], protocol: Protocol
) -> dict[str, Any]:
    made = _labelled(embedder, tracks, protocol)
    if made is None:
        raise DataError("the protocol names unseen tags, and the tracks have no tags")
    scorer, labels, valid = made
    return judge_unseen(scorer.score(audio), labels, valid, scorer.tags, protocol.unseen or ())


def _classify(
    embedder: Embedder, audio: Float[Tensor, "tracks dim"], tracks: Sequence[Track], protocol: Protocol
) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    kind = str(protocol.classify)
    named = [track.tags.get(kind, ()) for track in tracks]
    rows = [row for row, names in enumerate(named) if len(names) == 1]
    if not rows:
        raise DataError(f"no track has exactly one tag of kind {kind!r}, so there is nothing to classify")
    labels = sorted({words_key(named[row][0]): named[row][0] for row in rows}.values())
    scorer = _scorer(embedder, Vocabulary({kind: labels}), protocol)
    right, _ = scorer.labels([{kind: named[row]} for row in rows])
    hit = rank(scorer.score(audio[rows]), right, ties=protocol.ties).hit(1)
    groups = _numbers([protocol.group_of(tracks[row]) for row in rows])
    interval = None
    if len(groups.unique()) > 1:
        interval = bootstrap_interval(
            hit, groups=groups, confidence=protocol.confidence, resamples=protocol.resamples, seed=protocol.seed
        )
    figures = {
        "accuracy": float(hit.mean()),
        "interval": interval,
        "chance": 1 / len(labels),
        "labels": len(labels),
        "tracks": len(rows),
        "by label": {label: float(hit[right[:, column]].mean()) for column, label in enumerate(labels)},
    }
    queries = [tracks[row].id for row in rows]
    return figures, {"query": queries, "group": groups.tolist(), "accuracy": hit.tolist()}


def vocabulary_of(tracks: Sequence[Track]) -> Vocabulary | None:
    """The tags that tracks have, each once; one that is of several kinds is looked for in all of them. None: no tag."""
    kinds: dict[str, dict[str, str]] = {}  # for each word its kinds, and its spelling there
    for track in tracks:
        for kind, names in track.tags.items():
            for name in names:
                kinds.setdefault(words_key(name), {}).setdefault(kind, name)
    by_kind: dict[str | None, list[str]] = {}
    for spelt in kinds.values():
        kind, name = next(iter(spelt.items()))
        by_kind.setdefault(kind if len(spelt) == 1 else None, []).append(name)
    return Vocabulary(by_kind) if by_kind else None


def _numbers(names: Sequence[str]) -> Tensor:
    place = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([place[name] for name in names])
