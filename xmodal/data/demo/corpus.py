"""Builds the demo corpus: a folder of clips with tags, captions and splits, made on the spot.

Layout::

    folder/corpus.json         the recipe: seed, seconds, sample rate, version of the composer
    folder/manifest.jsonl      one track a line, when all clips are there
    folder/audio/clip-00000.wav ...
    folder/.building.jsonl     rows of the clips that are finished, while others are not

A clip is written aside and renamed, then its row is added to ``.building.jsonl``: a build that was killed goes on
where it was. Everything in the folder depends on the recipe and the number of clips alone; the order in which
workers finish does not matter.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from xmodal.data.demo.clips import EXTRA_FIELDS, Recipe, Renderer, clip_path, serve
from xmodal.data.demo.render import render
from xmodal.data.manifests import write_tracks
from xmodal.data.tracks import Caption, Track
from xmodal.errors import DataError

COMPOSER_VERSION = 2
"""Raised when the same seed no longer gives the same corpus."""

_START_LIMIT_SECONDS = 120.0
_MOST_ATTEMPTS = 5
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CorpusReport:
    """What :func:`build_corpus` did.

    Attributes:
        manifest: The manifest of the corpus.
        clips: Clips in it.
        made: Clips that this call made; the others were there.
        recomposed: Clips of this call whose first compositions could not be rendered, and why.
    """

    manifest: Path
    clips: int
    made: int
    recomposed: Mapping[int, str]


def build_corpus(
    folder: str | Path,
    clips: int = 4000,
    seed: int = 0,
    seconds: float = 6.0,
    sample_rate: int = 16_000,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
    *,
    time_limit_seconds: float = 20.0,
    renderer: Renderer = render,
) -> CorpusReport:
    """Make the corpus, or finish one that was begun. With a larger ``clips`` it makes a finished one larger.

    Args:
        folder: Where the corpus is, or will be.
        clips: Number of clips, at least 20, the smallest number with all three splits in proportion.
        seed: The same seed gives the same bytes.
        seconds: Length of a clip, from 2 to 60.
        sample_rate: In Hz, from 16,000 to 48,000.
        workers: Processes.
        progress: Called with the clips that are there and all clips, after each clip.
        time_limit_seconds: A clip that takes longer is given up, composed anew with its next seed, and reported.
        renderer: From a composition and a sample rate to samples; importable by the workers.

    Raises:
        ValueError: If an argument is out of range.
        DataError: If the folder holds a corpus of another recipe, or a clip could not be rendered in five attempts.
    """
    if clips < 20:
        raise ValueError(f"clips must be at least 20, so that every split gets its share, got {clips}")
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    if not 2.0 <= seconds <= 60.0:
        raise ValueError(f"seconds must be from 2 to 60, got {seconds}")
    if not 16_000 <= sample_rate <= 48_000:
        raise ValueError(f"sample_rate must be from 16000 to 48000 Hz, got {sample_rate}")
    folder = Path(folder)
    recipe = Recipe(seed, seconds, sample_rate)
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    _settle_recipe(folder, recipe)
    journal = folder / ".building.jsonl"
    manifest = folder / "manifest.jsonl"
    rows = {
        clip: row
        for clip, row in (*_rows_of(manifest), *_rows_of(journal))
        if clip < clips and _is_whole(folder, recipe, clip)
    }
    missing = [clip for clip in range(clips) if clip not in rows]
    team = _Team(folder, recipe, renderer, time_limit_seconds, deque((clip, 0) for clip in missing))
    with journal.open("a", encoding="utf-8") as lines:
        # A line that a killed build left unfinished must not swallow the next one.
        lines.write("\n")
        for clip, row in team.run(min(workers, len(missing))):
            rows[clip] = row
            lines.write(json.dumps(row) + "\n")
            lines.flush()
            if progress is not None:
                progress(len(rows), clips)
    write_tracks([_track(folder, clip, rows[clip]) for clip in range(clips)], manifest)
    journal.unlink()
    return CorpusReport(manifest, clips, len(missing), dict(sorted(team.recomposed.items())))


def _settle_recipe(folder: Path, recipe: Recipe) -> None:
    """Write the recipe of a new corpus; refuse to mix it with another."""
    path = folder / "corpus.json"
    wanted = {**asdict(recipe), "composer_version": COMPOSER_VERSION}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        aside = path.with_name(f".{path.name}.part")
        aside.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
        os.replace(aside, path)
        return
    except ValueError as error:
        raise DataError(
            f"{path} is no recipe of a corpus ({error}); choose another folder, or delete this one"
        ) from error
    if found != wanted:
        raise DataError(
            f"{folder} holds a corpus made with {found}, and one with {wanted} was asked for; "
            "choose another folder, or delete this one"
        )


def _rows_of(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a manifest or a journal, by clip; an unfinished line is as if it were not there."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            row = json.loads(line)
            yield int(row["id"].removeprefix("clip-")), row
        except (ValueError, TypeError, KeyError):
            continue


def _is_whole(folder: Path, recipe: Recipe, clip: int) -> bool:
    path = folder / clip_path(clip)
    return path.is_file() and path.stat().st_size == recipe.file_bytes


def _track(folder: Path, clip: int, row: Mapping[str, Any]) -> Track:
    return Track(
        id=row["id"],
        path=folder / clip_path(clip),
        tags={kind: tuple(names) for kind, names in row["tags"].items()},
        captions=tuple(Caption(caption["text"], frozenset(caption["requires"])) for caption in row["captions"]),
        split=row["split"],
        extra={name: row[name] for name in EXTRA_FIELDS},
    )


@dataclass
class _Worker:
    process: Any
    connection: Connection
    deadline: float
    task: tuple[int, int] | None = None


@dataclass
class _Team:
    """Worker processes, each under a time limit: one that hangs or dies is replaced, and its clip composed anew."""

    folder: Path
    recipe: Recipe
    renderer: Renderer
    time_limit_seconds: float
    tasks: deque[tuple[int, int]]
    recomposed: dict[int, str] = field(default_factory=dict)

    def run(self, size: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Make all clips; gives each one's number and row, in the order in which they are finished."""
        workers: list[_Worker] = []
        try:
            workers += [self._hire() for _ in range(size)]
            while workers:
                patience = max(0.0, min(worker.deadline for worker in workers) - time.monotonic())
                ready = set(wait([worker.connection for worker in workers], timeout=patience))
                for worker in list(workers):
                    if worker.connection in ready:
                        result = self._hear(worker)
                    elif time.monotonic() > worker.deadline:
                        result = f"took longer than {self.time_limit_seconds:g} s"
                    else:
                        continue
                    if isinstance(result, str):
                        _dismiss(worker)
                        workers.remove(worker)
                        self._give_up(worker, result)
                        workers.append(self._hire())
                        continue
                    if result is not None:
                        yield result
                    if not self._assign(worker):
                        workers.remove(worker)
                        _dismiss(worker)
        finally:
            for worker in workers:
                _dismiss(worker)

    def _hire(self) -> _Worker:
        context = _context()
        ours, theirs = context.Pipe()
        process = context.Process(
            target=serve,
            args=(theirs, self.folder, self.recipe, self.renderer, self.time_limit_seconds),
            daemon=True,
            name="xmodal-demo-clip",
        )
        process.start()
        theirs.close()
        return _Worker(process, ours, time.monotonic() + _START_LIMIT_SECONDS)

    def _assign(self, worker: _Worker) -> bool:
        """Hand the next clip to a worker; False when there is none."""
        if not self.tasks:
            return False
        worker.task = self.tasks.popleft()
        worker.deadline = time.monotonic() + self.time_limit_seconds
        worker.connection.send(worker.task)
        return True

    def _hear(self, worker: _Worker) -> tuple[int, dict[str, Any]] | str | None:
        """A finished clip, or why there is none; None from a worker that has just started."""
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join(timeout=5)
            return f"ended its process (exit status {worker.process.exitcode})"
        if message is None:
            return None
        clip, result = message
        if isinstance(result, Exception):
            raise result
        return clip, result

    def _give_up(self, worker: _Worker, reason: str) -> None:
        if worker.task is None:
            raise DataError(f"a worker process for the demo corpus could not start: it {reason}")
        clip, attempt = worker.task
        seed = self.recipe.composition_seed(clip, attempt)
        if attempt + 1 == _MOST_ATTEMPTS:
            raise DataError(
                f"clip {clip} could not be rendered in {_MOST_ATTEMPTS} attempts: the last one, of composition seed "
                f"{seed}, {reason}; give more time_limit_seconds on a slow machine"
            )
        self.recomposed[clip] = f"composition seed {seed} {reason}"
        _logger.warning("demo corpus: clip %d is composed anew: %s", clip, self.recomposed[clip])
        self.tasks.appendleft((clip, attempt + 1))


def _dismiss(worker: _Worker) -> None:
    """End a worker now; files that it was writing lie aside, so none is left half-written under its name."""
    worker.process.kill()
    worker.process.join()
    worker.connection.close()


def _context() -> Any:
    """Processes forked from a clean server that has imported the worker's module once; spawned ones elsewhere."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["xmodal.data.demo.clips"])
        return context
    return multiprocessing.get_context("spawn")
