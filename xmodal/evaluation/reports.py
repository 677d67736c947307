"""What a judgement found: its tables, its file, and two of them side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from xmodal.atomic import written_aside
from xmodal.data.tracks import Track
from xmodal.errors import DataError
from xmodal.evaluation.results import DirectionResult, TagResult, interval_text
from xmodal.metrics import paired_permutation_test, summary

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
        zero_shot: What :func:`xmodal.evaluation.judge_unseen` says; None without ``unseen`` tags.
        alike: What :func:`xmodal.evaluation.judge_alike` says; None if it was not asked for.
        triplets: What :func:`xmodal.evaluation.judge_votes` says; None without votes.
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
    zero_shot: dict[str, Any] | None = None
    alike: dict[str, Any] | None = None
    triplets: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers, ready for JSON."""
        return {
            "format_version": FORMAT_VERSION,
            **self.facts,
            "retrieval": {name: asdict(result) for name, result in self.retrieval.items()},
            "tags": None if self.tags is None else self.tags.to_dict(),
            "classification": self.classification,
            "zero_shot": self.zero_shot,
            "alike": self.alike,
            "triplets": self.triplets,
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
        if self.zero_shot is not None and "B and C" in self.zero_shot:
            figures["unseen tags mAP"] = self.zero_shot["B and C"]["zero-shot"]["mAP"]
        if self.alike is not None:
            figures["alike MAP"] = self.alike["values"]["MAP"]
        if self.triplets is not None:
            figures["triplets"] = self.triplets["agreement"]
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
        if self.zero_shot is not None:
            made.append(_unseen_table(self.zero_shot))
        if self.alike is not None:
            known = self.alike
            apart = "" if known["exclude"] is None else f", never of one {known['exclude']}"
            rows = [[f"alike by {known['by']}{apart}", "value", "interval", "labels", "queries", "tracks"]]
            counts = [str(known[name]) for name in ("labels", "queries", "tracks")]
            for name, value in known["values"].items():
                rows.append([name, f"{value:.4g}", interval_text(known["intervals"].get(name)), *counts])
            made.append(rows)
        if self.triplets is not None:
            known = self.triplets
            rows = [["people's triplets", "value", "interval", "chance", "triplets", "without agreement"]]
            counts = [str(known["triplets"]), str(known["without agreement"])]
            made.append(
                [*rows, ["agreement", f"{known['agreement']:.4g}", interval_text(known["interval"]), "0.5", *counts]]
            )
        if self.tags is not None:
            made.append(self.tags.table())
        return made


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


def _unseen_table(found: Mapping[str, Any]) -> list[list[str]]:
    ways = [(tracks, way) for tracks in ("C", "B and C", "all") for way in found.get(tracks, {})]
    heads = [f"{tracks}: among {'unseen' if way == 'zero-shot' else 'all'}" for tracks, way in ways]
    rows = [[f"unseen tags: {len(found['unseen'])}", *heads]]
    for name in (
        "ROC-AUC",
        "mAP",
        "hit@1",
        "hit@5",
        "P@5",
        "mAP seen",
        "mAP unseen",
        "harmonic mean",
        "tags",
        "tracks",
    ):
        values = [found[tracks][way].get(name) for tracks, way in ways]
        if any(value is not None for value in values):
            rows.append([name, *("" if value is None else f"{value:.4g}" for value in values)])
    return rows
