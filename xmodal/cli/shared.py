"""What several commands need: the model, progress, and how results are written."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from xmodal.errors import AudioError

if TYPE_CHECKING:  # an index can be described without loading torch
    from pathlib import Path

    from xmodal.data.tracks import Track
    from xmodal.embedder import Embedder, FilesResult

_REPORTED = 10
_SAID_EVERY_SECONDS = 60.0  # where there is no bar: a log of a night's job stays readable


def load_embedder(model: str, args: Namespace, *, view: Mapping[str, Any] | None = None) -> Embedder:
    """Load the model as the options say, looked at as ``view`` says.

    Raises:
        ValueError: If the device is not there.
        ModelError: If the folder is no model.
    """
    import torch

    from xmodal.embedder import load

    if args.device is not None:
        try:
            torch.empty(0, device=args.device)
        except (RuntimeError, AssertionError) as error:  # both are how torch says that a device is not there
            reason = str(error).splitlines()[0]
            raise ValueError(f"--device {args.device} cannot be used here: {reason}") from error
    return load(
        model, device=args.device, trust=args.trust, view=view, batch_size=args.batch_size, workers=args.workers
    )


def embed_all(embedder: Embedder, files: Sequence[Path | Track]) -> FilesResult:
    """Embed files with a progress bar; the ids are their positions. Says which files failed on the error stream."""
    # Ids of our own, because nothing is wrong with naming a file twice.
    ids = [str(position) for position in range(len(files))]
    with progress("embedding", len(files)) as advance:
        result = embedder.embed_files(files, ids=ids, progress=lambda done: advance(1))
    _report(result.failures)
    return result


def _report(failures: Sequence[AudioError]) -> None:
    for failure in failures[:_REPORTED]:
        sys.stderr.write(f"xmodal: set aside: {failure}\n")
    if len(failures) > _REPORTED:
        sys.stderr.write(f"xmodal: and {len(failures) - _REPORTED} more were set aside\n")


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[..., None]]:
    """Show how far, how fast and how long still on the error stream: a bar in a terminal, else a line a minute.

    The function given out moves it on.

    Args:
        what: What is going on.
        total: How much there is to do; None if that is only known later, and is then the function's second argument.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    console = _console(stderr=True)
    begun: float | None = None
    said = time.monotonic()
    done = before = 0
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total, rate="")

        def advance(count: int, total: int | None = total) -> None:
            nonlocal begun, before, done, said
            done += count
            now = time.monotonic()
            if begun is None:  # what an earlier run did comes first and at once, and says nothing of the speed
                begun, before = now, done
            rate = (done - before) / max(now - begun, 1e-3)
            bar.update(task, advance=count, total=total, rate=f"{rate:.1f}/s")
            if not console.is_terminal and now - said >= _SAID_EVERY_SECONDS and total is not None:
                left = timedelta(seconds=round((total - done) / max(rate, 1e-9)))
                sys.stderr.write(f"xmodal: {what}: {done} of {total}, {rate:.1f} a second, {left} left\n")
                said = now

        yield advance


def print_line(text: str) -> None:
    """Write a line of text to the output."""
    sys.stdout.write(f"{text}\n")


def print_json(value: Any) -> None:
    """Write a value as JSON to the output."""
    print_line(json.dumps(value, ensure_ascii=False, indent=2))


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Write rows of text, the header first, as a table that fits the terminal."""
    table = Table(box=None, pad_edge=False)
    for heading in rows[0]:
        table.add_column(heading, overflow="fold")  # a path that is cut short is of no use
    for row in rows[1:]:
        table.add_row(*row)
    _console().print(table)


def _console(*, stderr: bool = False) -> Console:
    # A title is shown as it is: [brackets] are no markup and :colons: no pictures.
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)
