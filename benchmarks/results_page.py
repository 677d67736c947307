"""Tables of ``make results`` and where they stand in docs/results.md.

A block of the page stands between ``<!-- results: NAME -->`` and ``<!-- /results: NAME -->``; everything else is prose
that no command touches.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from typing import Any

import torch

from xmodal.metrics import bootstrap_interval

DIRECTIONS = {"text_to_audio": "text→audio", "audio_to_text": "audio→text"}
FIGURES = ("R@1", "R@5", "R@10", "mAP@10", "MedR")
OURS, RIDGE, RANDOM = "xmodal", "ridge on mel statistics", "random projection"


def put(page: str, name: str, body: str) -> str:
    """The page with another block.

    Raises:
        ValueError: If the page has no such block.
    """
    begin, end = f"<!-- results: {name} -->", f"<!-- /results: {name} -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"the page needs one block {begin} … {end}")
    return re.sub(re.escape(begin) + ".*?" + re.escape(end), lambda _: f"{begin}\n{body}\n{end}", page, flags=re.S)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text as Markdown, the header first; the first column is words, the others are figures."""
    rule = "|---|" + "---:|" * (len(rows[0]) - 1)
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], rule, *lines[1:]])


def figure(value: float | None, name: str = "") -> str:
    if value is None or value != value:
        return ""
    return f"{value:.1f}" if name in ("MedR", "MR1") else f"{value:.3f}"


def with_interval(value: float, interval: Sequence[float] | None, name: str = "") -> str:
    if interval is None:
        return figure(value, name)
    return f"{figure(value, name)} ({figure(interval[0], name)}–{figure(interval[1], name)})"


def pooled(runs: Sequence[dict[str, Any]], method: str, direction: str) -> dict[str, tuple[float, Any]]:
    """Figures of the queries of all runs (folds), with 95 % intervals over queries, whole groups at a time."""
    found: dict[str, tuple[float, Any]] = {}
    own = [run["methods"][method]["per_query"][direction] for run in runs]
    # A group's number holds within its fold; a group of one fold is never one of another.
    groups = [(fold, group) for fold, each in enumerate(own) for group in each["group"]]
    number = {group: at for at, group in enumerate(dict.fromkeys(groups))}
    group = torch.tensor([number[each] for each in groups])
    for name in own[0]:
        if name in ("query", "group") or not all(name in each for each in own):
            continue
        values = torch.tensor([value for each in own for value in each[name]], dtype=torch.float64)
        statistic = "median" if name == "MedR" else "mean"
        middle = statistics.median(values.tolist()) if name == "MedR" else float(values.mean())
        interval = None
        if len(number) > 1:
            interval = bootstrap_interval(values, statistic=statistic, groups=group)
        found[name] = (middle, interval)
    return found


def real_set_table(runs: Sequence[dict[str, Any]]) -> str:
    """One published set: all methods by the same protocol; several folds are pooled."""
    methods = [name for name in (OURS, RIDGE, RANDOM) if name in runs[0]["methods"]]
    first = [run["methods"][OURS] for run in runs]
    rows = [["", f"{OURS} (95 %)", *methods[1:], "chance"]]
    for direction, title in DIRECTIONS.items():
        by_method = {method: pooled(runs, method, direction) for method in methods}
        for name in FIGURES:
            if name in by_method[OURS]:
                chance = statistics.fmean(each["retrieval"][direction]["chance"][name] for each in first)
                others = [figure(by_method[method][name][0], name) for method in methods[1:]]
                rows.append(
                    [f"{title} {name}", with_interval(*by_method[OURS][name], name), *others, figure(chance, name)]
                )
    for name, title in (("ROC-AUC", "tags ROC-AUC"), ("PR-AUC", "tags mAP")):
        cells = [_tags(runs, method, name) for method in methods]
        chance = statistics.fmean(each["tags"]["chance"][name] for each in first)
        rows.append([title, with_interval(*cells[0]), *(figure(value) for value, _ in cells[1:]), figure(chance)])
    accuracy = {method: pooled(runs, method, "classification")["accuracy"] for method in methods}
    chance = statistics.fmean(each["classification"]["chance"] for each in first)
    others = [figure(accuracy[method][0]) for method in methods[1:]]
    rows.append(["accuracy by words", with_interval(*accuracy[OURS]), *others, figure(chance)])
    for name, title in (("linear", "accuracy by linear probe"), ("knn", "accuracy by nearest neighbours")):
        ours = [run["probes"][name]["values"]["accuracy"] for run in runs]
        peer = [run["probes"]["linear on mel statistics"]["values"]["accuracy"] for run in runs]
        chance = statistics.fmean(run["probes"][name]["chance"]["accuracy"] for run in runs)
        shown = f"{figure(statistics.fmean(peer))} (its own probe)" if name == "linear" else ""
        rest = [""] * (len(methods) - 2)
        rows.append([title, figure(statistics.fmean(ours)), shown, *rest, figure(chance)])
    return f"{_pools(runs)}\n\n{table(rows)}"


def _tags(runs: Sequence[dict[str, Any]], method: str, name: str) -> tuple[float, Any]:
    """Mean over tags of each tag's mean over folds, and the interval over tags."""
    areas: dict[str, list[float]] = {}
    for run in runs:
        for tag, known in run["methods"][method]["tags"]["per_tag"].items():
            areas.setdefault(tag, []).append(known[name])
    return over_tags([statistics.fmean(values) for values in areas.values()])


def over_tags(values: Sequence[float]) -> tuple[float, Any]:
    """Mean and its 95 % interval over the choice of tags."""
    interval = bootstrap_interval(torch.tensor(values, dtype=torch.float64)) if len(values) > 1 else None
    return statistics.fmean(values), interval


def _pools(runs: Sequence[dict[str, Any]]) -> str:
    reports = [run["methods"][OURS] for run in runs]

    def said(values: list[int]) -> str:
        return str(values[0]) if len(set(values)) == 1 else f"{min(values)} to {max(values)}"

    parts = []
    for direction, title in DIRECTIONS.items():
        results = [report["retrieval"][direction] for report in reports]
        queries, pool = ([each[key] for each in results] for key in ("queries", "candidates"))
        parts.append(f"{title}: {said(queries)} queries over a pool of {said(pool)}")
    labels = said([report["classification"]["labels"] for report in reports])
    folds = f"{len(runs)} folds pooled, each of a model of its own; " if len(runs) > 1 else ""
    trained = said([run["training_tracks"] for run in runs])
    tracks = said([report["tracks"] for report in reports])
    return f"{folds}{tracks} held-out tracks, {labels} labels, {trained} training tracks. {'; '.join(parts)}."


def demo_table(found: dict[str, Any]) -> str:
    """The demo corpus, from what ``xmodal demo`` wrote and what was judged on its model since."""
    methods = list(found["retrieval"])
    rows = [["", f"{OURS} (95 %)", *methods[1:], "chance"]]
    ours = found["retrieval"][OURS]
    for direction, title in DIRECTIONS.items():
        for name in FIGURES:
            cell = with_interval(ours[direction]["values"][name], ours[direction]["intervals"].get(name), name)
            others = [figure(found["retrieval"][method][direction]["values"][name], name) for method in methods[1:]]
            rows.append([f"{title} {name}", cell, *others, figure(ours[direction]["chance"][name], name)])
    for key, title in (("tags", "tags by their own names"), ("tags_in_held_out_words", "tags in held-out words")):
        for name, shown in (("ROC-AUC", "ROC-AUC"), ("PR-AUC", "mAP")):
            of_ours = found[key][OURS]
            cell = with_interval(of_ours["values"][name], of_ours["intervals"].get(name))
            others = [figure(found[key][method]["values"][name]) for method in methods[1:]]
            rows.append([f"{title}, {shown}", cell, *others, figure(of_ours["chance"][name])])
    strange = found["unseen words"]
    for name, shown in (("ROC-AUC", "ROC-AUC"), ("PR-AUC", "mAP")):
        cell = with_interval(strange["values"][name], strange["intervals"].get(name))
        blank = [""] * (len(methods) - 1)
        rows.append([f"{len(strange['per_tag'])} words of no caption, {shown}", cell, *blank,
                     figure(strange["chance"][name])])  # fmt: skip
    for kind, known in found["classification"].items():
        blank = [""] * (len(methods) - 1)
        rows.append([f"{kind}: accuracy by words", with_interval(known["accuracy"], known["interval"]), *blank,
                     figure(known["chance"])])  # fmt: skip
        probe = found["probes"][kind]
        rows.append([f"{kind}: accuracy by linear probe", figure(probe["values"]["accuracy"]), *blank,
                     figure(probe["chance"]["accuracy"])])  # fmt: skip
    pools = [
        f"{title}: {ours[direction]['queries']} queries over a pool of {ours[direction]['candidates']}"
        for direction, title in DIRECTIONS.items()
    ]
    return f"{'; '.join(pools)}.\n\n{table(rows)}"


def unseen_table(found: dict[str, Any]) -> str:
    """Tags that training has seen and tags that it has not, of one model of all public sets."""
    methods = list(found["methods"])
    ours = found["methods"][OURS]
    unseen = set(ours["zero_shot"]["unseen"])
    rows = [["all test tracks", f"{OURS} (95 %)", *methods[1:], "chance"]]
    for seen, title in ((True, "seen tags"), (False, "unseen tags")):
        names = [tag for tag in ours["tags"]["per_tag"] if (tag not in unseen) == seen]
        for name, shown in (("ROC-AUC", "ROC-AUC"), ("PR-AUC", "mAP")):
            per_method = [[found["methods"][m]["tags"]["per_tag"][tag][name] for tag in names] for m in methods]
            chance = 0.5
            if name == "PR-AUC":
                chance = statistics.fmean(ours["tags"]["per_tag"][tag]["PR-AUC chance"] for tag in names)
            others = [figure(statistics.fmean(values)) for values in per_method[1:]]
            rows.append([f"{len(names)} {title}, {shown}", with_interval(*over_tags(per_method[0])), *others,
                         figure(chance)])  # fmt: skip
    per_tag = ours["tags"]["per_tag"]
    tags = [["unseen tag", "positives", "ROC-AUC", "mAP", "mAP by chance"]]
    for tag in sorted(unseen & set(per_tag), key=lambda tag: -per_tag[tag]["ROC-AUC"]):
        known = per_tag[tag]
        tags.append([tag, str(known["positives"]), *(figure(known[n]) for n in ("ROC-AUC", "PR-AUC", "PR-AUC chance"))])
    published = [["tracks", "candidates", *methods]]
    sets = ["C", "B and C", "all"] if ours["zero_shot"]["tracks"]["B"] else ["C", "all"]
    for tracks in sets:
        for way in ours["zero_shot"].get(tracks, {}):
            for name in ("hit@1", "hit@3", "mAP unseen", "harmonic mean"):
                values = [found["methods"][method]["zero_shot"][tracks][way].get(name) for method in methods]
                if values[0] is not None:
                    among = "unseen tags" if way == "zero-shot" else "all tags"
                    published.append([f"{tracks}: {name}", among, *map(figure, values)])
    counts = ", ".join(f"{name}: {count}" for name, count in ours["zero_shot"]["tracks"].items())
    trained = f"{found['training_tracks']} training tracks of A, {found['epochs']} epochs"
    return f"{trained}; test tracks by set: {counts}.\n\n{table(rows)}\n\n{table(tags)}\n\n{table(published)}"


def family_table(rows: Sequence[dict[str, Any]]) -> str:
    """Each family's best objective by text→audio mAP@10, of those with two seeds or more where it has one."""
    by_objective: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if "failed" not in row:
            by_objective.setdefault(row["objective"], []).append(row)
    families: dict[str, list[str]] = {}
    for name, runs in by_objective.items():
        families.setdefault(_family(runs[0]["loss"]), []).append(name)
    lines = [["family", "objectives", "best", "seeds", "text→audio R@10", "mAP@10", "audio→text R@10", "mAP@10"]]
    best: dict[str, str] = {}
    for family, names in families.items():
        able = [name for name in names if len(by_objective[name]) > 1] or names
        best[family] = max(able, key=lambda name: _mean(by_objective[name], "mAP@10"))
    for family in sorted(best, key=lambda family: -_mean(by_objective[best[family]], "mAP@10")):
        runs = by_objective[best[family]]
        cells = [_spread([run["figures"][name] for run in runs]) for name in
                 ("text→audio R@10", "mAP@10", "audio→text R@10", "mAP@10 ")]  # fmt: skip
        lines.append([family, str(len(families[family])), best[family], str(len(runs)), *cells])
    first = next(iter(by_objective.values()))[0]
    chance = min(1.0, 10 / first["held_out"])
    head = f"{first['clips']} clips, {first['held_out']} of them held out (chance R@10 {chance:.3f}), "
    return f"{head}{first['steps']} steps.\n\n{table(lines)}"


def _family(loss: dict[str, Any]) -> str:
    """The file that the objective is in; of a combination that of what stands beside its first loss."""
    from xmodal import losses

    given = loss.get("init_args", {})
    if loss["class_path"].endswith("CombinedObjective"):
        beside = given.get("miner") or given.get("memory") or given["losses"][-1]
        return _family(beside)
    kind = getattr(losses, loss["class_path"].rpartition(".")[2])
    return str(kind.__module__).rpartition(".")[2]


def _mean(runs: Sequence[dict[str, Any]], name: str) -> float:
    return statistics.fmean(run["figures"][name] for run in runs)


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.3f}"
    return f"{mean} ± {statistics.stdev(values):.3f}" if len(values) > 1 else mean
