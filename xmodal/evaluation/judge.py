"""A model, tracks and a protocol to a report with everything that is needed to reproduce and to compare it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from xmodal.audio import digest
from xmodal.data.datasets import evaluation_texts
from xmodal.data.tracks import Track
from xmodal.embedder import Embedder
from xmodal.embeddings import written_aside
from xmodal.errors import AudioError, DataError
from xmodal.evaluation.protocol import Protocol
from xmodal.evaluation.results import DirectionResult, TagResult, direction_result, evaluate_tags
from xmodal.metrics import bootstrap_interval, paired_permutation_test, rank, rank_vectors, summary
from xmodal.runs import versions
from xmodal.tagging import NULL_PROMPTS, TEMPLATES, TagScorer, Vocabulary
from xmodal.text import words_key

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Answer:
    """What a model answered to one query.

    Attributes:
        query: The text, or the track's id.
        place: Place of the best right answer.
        best: The first three answers: name, score, right or not.
        wanted: Name of the best right answer.
    """

    query: str
    place: int
    best: list[tuple[str, float, bool]]
    wanted: str


@dataclass(frozen=True)
class Report:
    """Figures by protocol, with all that they depend on.

    Attributes:
        facts: Model, ``space_id``, protocol and its hash, fingerprint of the data, versions, counts, failures.
        retrieval: Results by direction.
        tags: Result of tagging; None if it was not asked for or no tag can be judged.
        classification: "accuracy" with "interval", "chance", "labels" and "tracks"; None if it was not asked for.
        per_query: For each direction (and "classification") the "query" and each metric's value, in one order.
        answers: For each direction the best and the worst answered queries.
        tracks: The judged tracks, for players; not part of the JSON.
    """

    facts: dict[str, Any]
    retrieval: dict[str, DirectionResult]
    tags: TagResult | None
    classification: dict[str, Any] | None
    per_query: dict[str, dict[str, list[Any]]]
    answers: dict[str, dict[str, list[Answer]]]
    tracks: list[Track] = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers, ready for JSON."""
        return {
            "format_version": FORMAT_VERSION,
            **self.facts,
            "retrieval": {name: asdict(result) for name, result in self.retrieval.items()},
            "tags": None if self.tags is None else self.tags.to_dict(),
            "classification": self.classification,
            "per_query": self.per_query,
            "answers": {
                direction: {which: [asdict(each) for each in answers] for which, answers in both.items()}
                for direction, both in self.answers.items()
            },
        }

    def save(self, path: str | Path) -> None:
        """Write one JSON file; a kill at any moment leaves the old file or the new one."""
        with written_aside(path) as aside:
            aside.write_text(json.dumps(self.to_dict(), ensure_ascii=False, indent=1) + "\n", "utf-8")

    def headline(self) -> dict[str, float]:
        """The figures that one looks at first, by name."""
        figures = {}
        for direction, result in self.retrieval.items():
            for name in ("R@1", "R@10", "mAP@10"):
                if name in result.values:
                    figures[f"{direction} {name}"] = result.values[name]
        if self.tags is not None:
            figures |= {f"tags {name}": value for name, value in self.tags.values.items()}
        if self.classification is not None:
            figures["accuracy"] = self.classification["accuracy"]
        return figures

    def tables(self) -> list[list[list[str]]]:
        """Tables of text, each with its header first."""
        made = []
        if self.retrieval:
            rows = [["direction", "metric", "value", "interval", "chance", "queries", "pool"]]
            for direction, result in self.retrieval.items():
                for name, value in result.values.items():
                    low, high = result.intervals.get(name, (float("nan"), float("nan")))
                    interval = f"{low:.3f} to {high:.3f}" if low == low else ""
                    rows.append(
                        [
                            direction.replace("_", " "), name, f"{value:.4g}", interval, f"{result.chance[name]:.4g}",
                            str(result.queries), str(result.candidates),
                        ]
                    )  # fmt: skip
            made.append(rows)
        if self.classification is not None:
            known = self.classification
            low, high = known["interval"] or (float("nan"), float("nan"))
            interval = f"{low:.3f} to {high:.3f}" if low == low else ""
            rows = [["classification", "value", "interval", "chance", "labels", "tracks"]]
            counts = [str(known["labels"]), str(known["tracks"])]
            made.append([*rows, ["accuracy", f"{known['accuracy']:.4g}", interval, f"{known['chance']:.4g}", *counts]])
        if self.tags is not None:
            made.append(self.tags.table())
        return made


def judge(
    embedder: Embedder,
    tracks: Sequence[Track],
    protocol: Protocol,
    *,
    manifest: str | None = None,
    embed: Callable[[Embedder, Sequence[Track]], Any] | None = None,
) -> Report:
    """Run a protocol.

    Args:
        embedder: The model, looked at as the protocol's ``view`` says.
        tracks: The tracks of the protocol's split.
        protocol: The rules.
        manifest: Where the tracks are from, for the record.
        embed: Embeds tracks, their ids being their positions; for instance with a progress bar. None: without one.

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
    if not retrieval and tags is None and classification is None:
        raise DataError("the protocol asks for nothing that these tracks can answer: they have no captions and no tags")
    return Report(facts, retrieval, tags, classification, per_query, answers, kept)


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
    scorer = _scorer(embedder, vocabulary, protocol)
    labels, valid = scorer.vocabulary.labels_of_tracks(seen)
    if not ((labels & valid).any(dim=0) & (~labels & valid).any(dim=0)).any():
        return None
    # Areas of a tag's list of tracks: what null prompts take off a track differs from track to track.
    weights = torch.nn.functional.normalize(scorer.weights, dim=1)
    settings = {"confidence": protocol.confidence, "resamples": protocol.resamples, "seed": protocol.seed}
    return evaluate_tags(audio, weights, labels, scorer.tags, valid=valid, **settings)  # type: ignore[arg-type]


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


def compare_reports(first: Mapping[str, Any], second: Mapping[str, Any], *, seed: int = 0) -> list[dict[str, Any]]:
    """Paired permutation tests of two models on the same queries.

    Args:
        first: What :meth:`Report.to_dict` gave, or its file's content.
        second: Of the other model.
        seed: Of the exchanges.

    Returns:
        One row a direction and metric: "direction", "metric", "first", "second", "difference", "p_value", "queries".

    Raises:
        DataError: If protocol or data differ, so that nothing is paired.
    """
    for key, what in (("protocol_hash", "protocols"), ("data_fingerprint", "data")):
        if first[key] != second[key]:
            raise DataError(
                f"the reports have different {what} ({first[key]} and {second[key]}); judge both models in the same way"
            )
    rows = []
    for direction, ours in first["per_query"].items():
        theirs = second["per_query"].get(direction)
        if theirs is None or theirs["query"] != ours["query"]:
            raise DataError(f"the reports have different queries in {direction}; judge both models in the same way")
        groups = torch.tensor(ours["group"])
        for metric in ours:
            if metric in ("query", "group"):
                continue
            a, b = (torch.tensor(side[metric], dtype=torch.float64) for side in (ours, theirs))
            test = paired_permutation_test(a, b, groups=groups, seed=seed)
            figures = [summary({metric: values})[metric] for values in (a, b)]
            rows.append(
                {
                    "direction": direction,
                    "metric": metric,
                    "first": figures[0],
                    "second": figures[1],
                    "difference": test.difference,
                    "p_value": test.p_value,
                    "queries": len(a),
                }
            )
    return rows


def read_report(path: str | Path) -> dict[str, Any]:
    """What :meth:`Report.save` wrote.

    Raises:
        DataError: If it is no report of this format.
    """
    try:
        read: dict[str, Any] = json.loads(Path(path).read_text("utf-8"))
        if read["format_version"] != FORMAT_VERSION or "per_query" not in read:
            raise ValueError(f"it has format version {read['format_version']} and this xmodal reads {FORMAT_VERSION}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no report of xmodal evaluate: {error}") from error
    return read


def _numbers(names: Sequence[str]) -> Tensor:
    place = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([place[name] for name in names])
