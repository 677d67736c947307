"""``xmodal serve`` and ``python -m serve``: from words on the command line to a server that listens."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

from serve.settings import Settings, read_settings
from xmodal.errors import ModelError


def main(args: Sequence[str] | None = None) -> int:
    """Serve until stopped; returns the exit code.

    Raises:
        XmodalError: If the settings' file, the demo or the libraries are not there.
        ValueError: If a setting is refused, or the address cannot be had.
    """
    settings = read_settings(sys.argv[1:] if args is None else args, os.environ)
    try:
        from serve.server import run
    except ImportError as error:
        raise ModelError(f"{error.name} is not installed; pip install 'xmodal[serve]'") from error
    if settings.index is None:
        settings = with_demo(settings)
    return asyncio.run(run(settings))


def with_demo(settings: Settings) -> Settings:
    """The settings for the demo's catalogue, which is made first if it is not there.

    Raises:
        ModelError: If the demo cannot be made.
    """
    folder = settings.demo
    if not (folder / "index" / "index.json").is_file():
        sys.stdout.write(f"No index was named, so the demo is made in {folder} first; it takes some minutes.\n")
        sys.stdout.flush()
        # In a process of its own: what training took of memory is given back before serving begins.
        code = "import sys; from xmodal.cli import main; sys.exit(main())"
        words = [sys.executable, "-c", code, "demo", "--keep", str(folder)]
        ended = subprocess.run(words, check=False).returncode
        if ended or not (folder / "index" / "index.json").is_file():
            raise ModelError(f"the demo could not be made (exit code {ended}); name an index with --index DIR")
    model = settings.model or (str(folder / "model") if (folder / "model").is_dir() else None)
    return replace(settings, index=str(folder / "index"), model=model)


if __name__ == "__main__":
    from xmodal.cli import main as command

    raise SystemExit(command(["serve", *sys.argv[1:]]))  # its errors are one sentence
