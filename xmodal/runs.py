"""What a run was made of, and many runs side by side.

A run's folder holds ``run.json``: the command, the seed, versions, the state of the code and a fingerprint of the data,
and how the run stands. :func:`list_runs` reads it together with ``config.yaml`` and ``metrics.csv``. Everything may be
missing or half-written: a run that was killed is still a row of the table.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import yaml

from xmodal import __version__
from xmodal.errors import DataError

RUN_FILE = "run.json"
MONITOR = "validation/text_to_audio/mAP@10"
_PACKAGES = (
    "torch", "pytorch-lightning", "numpy", "safetensors", "transformers", "sentence-transformers", "soundfile", "soxr",
    "av",
)  # fmt: skip
_LOWER_IS_BETTER = ("MedR", "loss")
_GIT_SECONDS = 10


def versions() -> dict[str, str | None]:
    """Python, the platform, xmodal and the packages that shape results; None for one that is not installed."""

    def of(package: str) -> str | None:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    own = {"xmodal": __version__, "python": platform.python_version(), "platform": platform.platform()}
    return own | {package: of(package) for package in _PACKAGES}


def git_state(folder: str | Path) -> dict[str, Any] | None:
    """The commit that a folder's code stands at, and whether it was changed since; None outside of a repository.

    Returns:
        "commit", "branch", "changed" (names of changed or untracked files) and "diff_sha256", the hash of the
        changes to tracked files, by which two dirty states can be told apart; None where nothing was changed.
    """

    def ask(*words: str) -> bytes:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, check=True, timeout=_GIT_SECONDS)
        return done.stdout

    try:
        changed = [line[3:] for line in ask("status", "--porcelain").decode(errors="replace").splitlines()]
        diff = ask("diff", "HEAD")
        return {
            "commit": ask("rev-parse", "HEAD").decode().strip(),
            "branch": ask("rev-parse", "--abbrev-ref", "HEAD").decode().strip(),
            "changed": changed,
            "diff_sha256": hashlib.sha256(diff).hexdigest() if diff else None,
        }
    except (OSError, subprocess.SubprocessError):
        return None


def data_fingerprint(
    manifest: str | Path | None, files: Iterable[str | Path], of: Literal["sizes", "contents"] = "sizes"
) -> dict[str, Any]:
    """A hash by which two runs can tell whether they saw the same data.

    Args:
        manifest: The manifest's file or a folder of audio; None for data from elsewhere.
        files: The audio files.
        of: "sizes": the manifest's bytes, and the files' names and sizes: fast, and blind to a file that was changed
            and kept its size. "contents": the bytes of all files as well.

    Returns:
        "manifest" and "manifest_sha256" (None for what is no file), "files", "missing", "bytes", "files_sha256" and
        "of". The hash of the files does not depend on their order or on where the manifest's folder lies.

    Raises:
        ValueError: If ``of`` is neither of its values.
    """
    if of not in ("sizes", "contents"):
        raise ValueError(f"a fingerprint is of 'sizes' or 'contents', got {of!r}")
    digest, total, missing = hashlib.sha256(), 0, 0
    named = sorted({os.path.abspath(path) for path in files})
    if manifest is None:
        root = os.path.commonpath(named) if named else "."
    else:
        root = os.path.abspath(manifest if os.path.isdir(manifest) else os.path.dirname(manifest))
    for path in named:
        relative = os.path.relpath(path, root)
        try:
            size = os.stat(path).st_size
            content = _file_hash(path) if of == "contents" else ""
        except OSError:
            missing += 1
            continue
        total += size
        digest.update(f"{relative}\0{size}\0{content}\n".encode("utf-8", "surrogateescape"))
    return {
        "manifest": None if manifest is None else str(manifest),
        "manifest_sha256": _file_hash(manifest) if manifest is not None and os.path.isfile(manifest) else None,
        "files": len(named),
        "missing": missing,
        "bytes": total,
        "files_sha256": digest.hexdigest(),
        "of": of,
    }


def start_facts() -> dict[str, Any]:
    """This process: its command, number, machine, versions and the state of the code."""
    here = git_state(Path.cwd())
    code = git_state(Path(__file__).parent)
    return {
        "command": sys.argv,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "versions": versions(),
        "git": here,
        "git_of_xmodal": None if code == here else code,
    }


@dataclass(frozen=True)
class RunSummary:
    """One run, as far as its folder tells.

    Attributes:
        folder: The run's folder.
        name: Its path below the folder of all runs.
        status: "finished", "running", "failed", "stopped" (by hand), "killed" (its process is gone) or "unknown".
        record: What ``run.json`` holds; empty if there is none that can be read.
        config: The resolved configuration, by dotted key.
        best: The best value of each metric over the run.
        last: The last value of each metric.
    """

    folder: Path
    name: str
    status: str
    record: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    best: Mapping[str, float] = field(default_factory=dict)
    last: Mapping[str, float] = field(default_factory=dict)

    def value(self, key: str) -> Any:
        """A cell of the table: a short name, a metric (its best value), a dotted key of the config or of the record.

        None where the run does not know it.
        """
        short = {
            "run": self.name,
            "status": self.status,
            "started": _minute(self.record.get("started")),
            "minutes": self._minutes(),
            "epochs": self.record.get("epoch", _whole(self.last.get("epoch"))),
            "steps": self.record.get("step", _whole(self.last.get("step"))),
            "seed": self.record.get("seed", self.config.get("seed_everything")),
            "loss": _class_name(self.config.get("model.loss.class_path")),
            "audio": _class_name(self.config.get("model.audio.class_path")),
            "text": _class_name(self.config.get("model.text.class_path")),
            "data": (_at(self.record, "data.files_sha256") or "")[:8] or None,
            "git": self._git(),
            "doctor": self.record.get("doctor"),
        }
        for source in (short, self.best, self.config):
            if key in source:
                return source[key]
        return _at(self.record, key)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "run": self.name,
            "folder": str(self.folder),
            "status": self.status,
            "best": dict(self.best),
            "last": dict(self.last),
            "record": dict(self.record),
            "config": dict(self.config),
        }

    def _minutes(self) -> float | None:
        seconds = self.record.get("seconds")
        return round(seconds / 60, 1) if isinstance(seconds, (int, float)) else None

    def _git(self) -> str | None:
        git = self.record.get("git_of_xmodal") or self.record.get("git") or {}
        commit = git.get("commit")
        return None if commit is None else commit[:8] + ("+" if git.get("changed") else "")


def list_runs(root: str | Path) -> list[RunSummary]:
    """Every run below a folder, in the order of their names.

    Raises:
        DataError: If the folder does not exist.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root} is no folder; give the folder that holds the runs (trainer.logger's save_dir)")
    marks = {RUN_FILE, "metrics.csv", "config.yaml"}
    folders = {path.parent for mark in marks for path in root.rglob(mark)}
    # A model or a checkpoint folder inside of a run is not one.
    own = [folder for folder in folders if not any(parent in folders for parent in folder.parents)]
    return [_summary(folder, root) for folder in sorted(own, key=lambda folder: _natural(str(folder)))]


def differing(runs: Sequence[RunSummary]) -> list[str]:
    """The keys of the configuration in which runs differ, less those that differ by what a run is."""
    skipped = ("trainer.logger", "name", "runs", "config", "ckpt_path")
    known = [run for run in runs if run.config]  # a run without a configuration differs in nothing that is known
    keys = sorted({key for run in known for key in run.config if not key.startswith(skipped)})
    return [key for key in keys if len({json.dumps(run.config.get(key), sort_keys=True) for run in known}) > 1]


def sort_runs(runs: Sequence[RunSummary], key: str) -> list[RunSummary]:
    """Best first where the key is a metric, else ascending; runs that do not know it come last."""
    known = [run for run in runs if run.value(key) is not None]
    numbers = all(isinstance(run.value(key), (int, float)) for run in known)
    metric = any(key in run.best for run in known)
    known.sort(
        key=lambda run: run.value(key) if numbers else _natural(str(run.value(key))),
        reverse=metric and not _lower_is_better(key),
    )
    return known + [run for run in runs if run.value(key) is None]


def _summary(folder: Path, root: Path) -> RunSummary:
    record = _read_json(folder / RUN_FILE)
    best, last = _read_metrics(folder / "metrics.csv")
    name = folder.relative_to(root).as_posix() if folder != root else folder.name
    return RunSummary(folder, name, _status(record), record, _read_config(folder / "config.yaml"), best, last)


def _status(record: Mapping[str, Any]) -> str:
    status = str(record.get("status", "unknown"))
    if status == "running" and record.get("host") == socket.gethostname() and not _alive(record.get("pid")):
        return "killed"
    return status


def _alive(pid: Any) -> bool:
    if not isinstance(pid, int) or pid < 1:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _read_config(path: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return _flat(value) if isinstance(value, dict) else {}


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        name = f"{prefix}{key}".removesuffix(".init_args") if key == "init_args" else f"{prefix}{key}"
        if isinstance(item, Mapping) and item:
            # init_args is how YAML writes it, and says nothing: model.loss.temperature.
            flat |= _flat(item, prefix if key == "init_args" else f"{name}.")
        else:
            flat[name] = item
    return flat


def _read_metrics(path: Path) -> tuple[dict[str, float], dict[str, float]]:
    best: dict[str, float] = {}
    last: dict[str, float] = {}
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            for row in csv.DictReader(file):
                for name, text in row.items():
                    value = _number(text)
                    if name is None or value is None:  # the torn end of a file that was being written
                        continue
                    last[name] = value
                    chosen = min if _lower_is_better(name) else max
                    best[name] = value if name not in best else chosen(best[name], value)
    except (OSError, csv.Error):
        pass
    return best, last


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _lower_is_better(metric: str) -> bool:
    return metric.rpartition("/")[2].endswith(_LOWER_IS_BETTER)


def _at(record: Mapping[str, Any], dotted: str) -> Any:
    value: Any = record
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _class_name(path: Any) -> str | None:
    return None if path is None else str(path).rpartition(".")[2]


def _minute(moment: Any) -> str | None:
    return None if moment is None else str(moment)[:16].replace("T", " ")


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _natural(text: str) -> list[Any]:
    """Numbers inside of names by their value: version_2 before version_10."""
    parts: list[Any] = []
    digits = ""
    for sign in text + "\0":
        if sign.isdecimal():
            digits += sign
            continue
        if digits:
            parts.append((0, int(digits), ""))
            digits = ""
        parts.append((1, 0, sign))
    return parts


def _file_hash(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
