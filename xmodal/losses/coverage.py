"""Which methods of the survey the losses implement, how YAML selects each, and what its tests hold it against.

``methods.csv`` has the entries of the survey of metric learning that the project follows, numbered by section, with
what is missing; every class names its entries in ``method_ids``. ``evidence.json`` says what each class is tested
against; ``tests/losses/write_methods.py`` reads that from the tests and writes it, with ``docs/methods.md``.
"""

from __future__ import annotations

import csv
import inspect
import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from xmodal import losses
from xmodal.losses.memory import CrossModalMemory
from xmodal.losses.miners import Miner

METHODS_PER_SECTION = {1: 22, 2: 19, 3: 3, 4: 15, 5: 2}
"""Entries of the sections on losses; the others are implemented where a class covers them anyway."""

BASE_CLASSES = {"BatchItems", "EmbeddingLoss", "Miner", "PairwiseLoss", "Vocabulary"}

_INFONCE = {"class_path": "xmodal.losses.InfoNCELoss"}

REQUIRED: dict[str, Any] = {
    "loss": _INFONCE,
    "losses": [_INFONCE, {"class_path": "xmodal.losses.SpreadOutRegularizer"}],
    "dim": 256,
    "features": 512,
    "heads": 8,
    "groups": 32,
    "widths": [64, 64, 128],
}
"""Examples of the arguments that have no default: a space of 256 dimensions, audio features of 512."""

SETTINGS: dict[tuple[str, str], dict[str, Any]] = {
    ("1.08", "NCALoss"): {"temperature": 0.5, "denominator": "negatives", "direction_weights": [1, 0]},
    ("1.16", "LearnedAnchors"): {
        "loss": _INFONCE | {"init_args": {"temperature": 0.05, "learn_temperature": False, "margin": 0.01}},
        "per_concept": 10,
        "spread_weight": 0.2,
    },
    ("1.20", "NCALoss"): {"temperature": 0.0556, "direction_weights": [1, 0]},
    ("6.22", "HardNegativeMiner"): {"positives": 1},
    ("6.22", "TripletLoss"): {"margin": 0.3, "mining": "batch-hard", "distance": "euclidean", "average": "all"},
    ("7.02", "InfoNCELoss"): {"temperature": 0.5, "learn_temperature": False},
    ("7.38", "TripletLoss"): {"margin": 1.0, "mining": "hard", "average": "all"},
}
"""Arguments that make a class the method of an entry, where its defaults are another."""

STANDARD: list[tuple[str, str, dict[str, Any], str]] = [
    ("CLIP's symmetric InfoNCE (ICML 2021)", "InfoNCELoss", {}, "The default of every config."),
    ("Supervised contrastive, outer form (NeurIPS 2020)", "InfoNCELoss", {"learn_temperature": False}, ""),
    ("NT-Xent (ICML 2020)", "InfoNCELoss", {"learn_temperature": False, "denominator": "own"}, ""),
    ("Decoupled contrastive (ECCV 2022)", "InfoNCELoss", {"denominator": "negatives"}, ""),
    (
        "Additive-margin soft-max, CosFace (CVPR 2018)",
        "InfoNCELoss",
        {"temperature": 0.0156, "learn_temperature": False, "margin": 0.35},
        "",
    ),
    ("Neighbourhood components (NIPS 2004), MIL-NCE (CVPR 2020)", "NCALoss", {}, ""),
    ("VSE++ (BMVC 2018)", "TripletLoss", {"margin": 0.2, "mining": "hard", "average": "all"}, ""),
    ("SigLIP (ICCV 2023)", "SigLIPLoss", {}, ""),
    ("Circle loss (CVPR 2020)", "CircleLoss", {}, ""),
    ("Smooth-AP (ECCV 2020)", "SmoothAPLoss", {}, ""),
    ("Alignment and uniformity (ICML 2020)", "AlignmentUniformityLoss", {}, ""),
    ("VICReg's variance and covariance (ICLR 2022)", "VarianceCovarianceRegularizer", {}, ""),
    ("A weighted sum, with a miner and a memory", "CombinedObjective", {}, ""),
    ("Matryoshka representations (NeurIPS 2022)", "MatryoshkaLoss", {}, "Vectors that may be cut: `--dim`."),
    ("Any loss of rows, in blocks", "StreamedLoss", {}, "The same value in less memory."),
]
"""Name, class, arguments and note of what the field uses and the survey does not list."""


ELSEWHERE: dict[str, list[tuple[str, str]]] = {
    "1.17": [("xmodal.towers.CurvilinearHead", "metric: {class_path: xmodal.towers.CurvilinearHead}")],
    "2.01": [("xmodal.towers.OrderStatisticsPool", "pooling: {class_path: xmodal.towers.OrderStatisticsPool}")],
    "2.15": [("xmodal.metrics.rho_spectrum", "")],
    "2.17": [("xmodal.metrics.map_at_r", "")],
    "4.02": [
        (
            "xmodal.towers.DepthEnsemble",
            "audio: {class_path: xmodal.towers.DepthEnsemble, "
            "init_args: {tower: {class_path: xmodal.towers.MobileCnn}}}",
        )
    ],
    "4.06": [
        (
            "xmodal.towers.AttentionEnsemblePool",
            "pooling: {class_path: xmodal.towers.AttentionEnsemblePool, init_args: {learners: 8}}",
        )
    ],
    "Momentum encoder for a memory's keys (CVPR 2020, NeurIPS 2021)": [
        ("xmodal.training.momentum.MomentumEncoder", "key_momentum: 0.995")
    ],
    "CSLS (ICLR 2018)": [("xmodal.metrics.csls", "")],
    "Inverted soft-max (ICLR 2017)": [("xmodal.metrics.inverted_softmax", "")],
    "Querybank norm (CVPR 2022)": [("xmodal.metrics.querybank_norm", "")],
}
"""What stands outside of this package: its path and its line of YAML under ``model:``, empty for a function."""

NOTES_ELSEWHERE = {
    "Momentum encoder for a memory's keys (CVPR 2020, NeurIPS 2021)": "The loss must have a memory.",
    "CSLS (ICLR 2018)": "A correction of scores for hubs, measured on a bank of queries.",
    "Inverted soft-max (ICLR 2017)": "Likewise.",
    "Querybank norm (CVPR 2022)": "Likewise, only where a hub would win.",
}


@dataclass(frozen=True)
class Choice:
    """A class as one method.

    Attributes:
        name: The class.
        config: Its ``class_path`` and the arguments that a config must have.
        tested_against: Oracles, or the test modules that hold its tests; empty if it is not tested.
        line: The line of YAML of what is no objective; None for an objective.
    """

    name: str
    config: dict[str, Any]
    tested_against: tuple[str, ...]
    line: str | None = None

    @property
    def yaml(self) -> str:
        """The line of YAML that selects it; empty for a function."""
        if self.line is not None:
            return self.line
        import yaml

        body = yaml.safe_dump(self.config, default_flow_style=True, sort_keys=False, width=10_000).strip()
        kind = getattr(losses, self.name)
        if is_added(self.name):
            return f"- {body}"
        if issubclass(kind, Miner):
            return f"miner: {body}"
        return f"memory: {body}" if issubclass(kind, CrossModalMemory) else f"loss: {body}"

    @property
    def brief(self) -> str:
        """The class and its arguments, for a narrow column."""
        if self.line is not None:
            return self.config["class_path"].removeprefix("xmodal.")
        key, _, body = self.yaml.partition(" ")
        where = {"loss:": "", "-": " (beside a loss)"}.get(key, f" ({key[:-1]})")
        arguments = body.partition("init_args: ")[2].removesuffix("}").replace("class_path: xmodal.losses.", "")
        return f"{self.name}{where} {arguments}".strip()


@dataclass(frozen=True)
class Method:
    """An entry of the survey, or a standard piece without a number.

    Attributes:
        id: ``section.number``; empty for a standard piece.
        name: Name and source.
        choices: The classes that implement it; none if it is not here.
        note: What is missing, why, or what it is for.
    """

    id: str
    name: str
    choices: tuple[Choice, ...]
    note: str

    @property
    def tested(self) -> bool:
        """All of its classes are tested, and there is one."""
        return bool(self.choices) and all(choice.tested_against for choice in self.choices)

    def as_json(self) -> dict[str, Any]:
        """The entry as plain values."""
        return {
            "id": self.id or None,
            "method": self.name,
            "classes": [
                {"class_path": choice.config["class_path"], "yaml": choice.yaml, "oracle": list(choice.tested_against)}
                for choice in self.choices
            ],
            "tested": self.tested,
            "note": self.note,
        }


def example_config(name: str, settings: dict[str, Any] | None = None) -> dict[str, Any]:
    """The shortest config of a class: the settings, and examples of the arguments that have no default."""
    kind = getattr(losses, name)
    arguments: dict[str, Any] = {}
    if kind.__init__ is not Miner.__init__:  # a miner without a constructor of its own takes nothing
        parameters = inspect.signature(kind.__init__).parameters.values()
        needed = [each.name for each in parameters if each.name != "self" and each.default is each.empty]
        arguments = {each: REQUIRED[each] for each in needed}
    arguments |= settings or {}
    config: dict[str, Any] = {"class_path": f"xmodal.losses.{name}"}
    return config | {"init_args": arguments} if arguments else config


def is_added(name: str) -> bool:
    """Whether a class is a term beside a loss and trains nothing useful alone."""
    return name.endswith(("Regularizer", "Head", "Heads", "Consistency")) or name == "IntraPairVarianceLoss"


def implemented() -> dict[str, list[str]]:
    """Names of the public classes that implement each entry."""
    found: dict[str, list[str]] = {}
    for name in public_classes():
        for method in getattr(getattr(losses, name), "method_ids", ()):
            found.setdefault(method, []).append(name)
    return dict(sorted(found.items()))


def public_classes() -> list[str]:
    """Names of the objectives, miners and memories that a config can name."""
    return [n for n in losses.__all__ if inspect.isclass(getattr(losses, n)) and n not in BASE_CLASSES]


def methods() -> list[Method]:
    """The entries of the survey in its order, then the standard pieces."""
    folder = files("xmodal.losses")
    evidence = json.loads(folder.joinpath("evidence.json").read_text(encoding="utf-8"))

    def choice(name: str, settings: dict[str, Any]) -> Choice:
        return Choice(name, example_config(name, settings), tuple(evidence.get(name, ())))

    def elsewhere(key: str) -> tuple[Choice, ...]:
        return tuple(
            Choice(
                path.rpartition(".")[2], {"class_path": path}, tuple(evidence.get(path.rpartition(".")[2], ())), line
            )
            for path, line in ELSEWHERE.get(key, ())
        )

    classes = implemented()
    entries = [
        Method(
            row["id"],
            row["method"],
            tuple(choice(name, SETTINGS.get((row["id"], name), {})) for name in classes.get(row["id"], ()))
            + elsewhere(row["id"]),
            row["note"],
        )
        for row in csv.DictReader(folder.joinpath("methods.csv").read_text(encoding="utf-8").splitlines())
    ]
    standard = [Method("", name, (choice(kind, args),), note) for name, kind, args, note in STANDARD]
    return entries + standard + [Method("", name, elsewhere(name), note) for name, note in NOTES_ELSEWHERE.items()]


def in_survey(method: Method) -> bool:
    """Whether an entry belongs to the sections that are covered as a whole."""
    return bool(method.id) and int(method.id.split(".")[0]) in METHODS_PER_SECTION


def page() -> str:
    """``docs/methods.md``."""
    entries = methods()
    survey = [method for method in entries if in_survey(method)]
    others = [method for method in entries if not in_survey(method)]
    here = [method for method in survey if method.choices]
    tested = sum(method.tested for method in here)
    return "\n".join(
        [
            "# Methods",
            "",
            "<!-- Written by tests/losses/write_methods.py from the code; do not edit. -->",
            "",
            f"Of the {len(survey)} methods in sections 1 to 5 of the survey of deep metric learning that the project "
            f"follows, {len(here)} are implemented and {tested} are tested; the others have a reason. "
            "`xmodal methods` prints this page.",
            "",
            "* **YAML**: a line `loss: …`, `metric: …` or `audio: …` stands under `model:`, `pooling: …` among the "
            "`init_args` of an audio tower; `miner: …`, `memory: …` and items `- …` of the list "
            "`losses:` are `init_args` of `xmodal.losses.CombinedObjective` ([how to](howto-loss.md)). Arguments that "
            "are not named have the defaults of the class; `dim` must be that of the model.",
            "* **Graded**: what a relevance between 0 and 1 means. *threshold*: above 0 is right, however much; *soft "
            "target*: the share or probability that the pair should get; *weight*: how much the pair counts; *target "
            "distance*: how far apart the pair should be; *by part*: as the loss inside has it.",
            "* **Oracle**: what the tests hold the value against. *loops*: the formula as plain loops; "
            "*pytorch-metric-learning*: recorded values of that library; a file of `tests/losses`: tests of its own.",
            "* Losses and miners are also run through the contract of their kind, such as degenerate batches and the "
            "config and back.",
            "",
            "## Sections 1 to 5",
            "",
            *_table(survey),
            "",
            "## Of other sections, and standard pieces",
            "",
            *_table(others),
            "",
        ]
    )


def _graded(choice: Choice) -> str:
    return "–" if choice.line is not None else getattr(getattr(losses, choice.name), "graded", "–")


def _table(entries: list[Method]) -> list[str]:
    lines = ["| id | method | class | YAML | graded | oracle | tested | note |", "|---|---|---|---|---|---|---|---|"]
    for method in entries:
        cells = [
            method.id or "–",
            method.name,
            "<br>".join(f"`{choice.name}`" for choice in method.choices) or "–",
            "<br>".join(f"`{choice.yaml}`" if choice.yaml else "–" for choice in method.choices) or "–",
            "<br>".join(_graded(choice) for choice in method.choices) or "–",
            "<br>".join(", ".join(choice.tested_against) or "–" for choice in method.choices) or "–",
            "yes" if method.tested else "no",
            method.note,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines
