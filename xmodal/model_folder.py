"""How a model lies on disk: what its folder says of itself, where its assets are, and the card that goes with it.

The folder's files are listed in :mod:`xmodal.model`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xmodal import __version__
from xmodal.errors import ModelError

FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


def read_description(folder: str | Path) -> dict[str, Any]:
    """What a model folder says of itself (format version, ``space_id``, configs), without loading weights.

    Raises:
        ModelError: If there is no readable ``config.json`` of a known format.
    """
    path = Path(folder) / CONFIG_FILE
    try:
        description = json.loads(path.read_text())
    except FileNotFoundError:
        raise ModelError(f"{folder} is not a model folder: it has no {CONFIG_FILE}") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    version = description.get("format_version") if isinstance(description, dict) else None
    if not isinstance(version, int) or not isinstance(description.get("model"), dict):
        raise ModelError(f"{path} is not the config of an xmodal model")
    if version > FORMAT_VERSION:
        raise ModelError(
            f"{path} has format version {version} but this xmodal ({__version__}) reads up to {FORMAT_VERSION}; "
            "update with: pip install --upgrade xmodal"
        )
    return description


def argument_place(config: dict[str, Any], dotted: str) -> tuple[dict[str, Any], str]:
    """Where a constructor argument stands in a config: "text.model" is that of a tower inside of a tower."""
    *inside, last = dotted.split(".")
    arguments: dict[str, Any] = config["init_args"]
    for name in inside:
        arguments = arguments[name]["init_args"]
    return arguments, last


def sync(folder: Path) -> None:
    """Flush every file of a folder to the disk, so that a rename cannot outrun the contents."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def swap_in(aside: Path, folder: Path) -> None:
    """Give the finished folder its name; an older model there is put back if that fails."""
    if not folder.exists():
        aside.rename(folder)
        return
    retired = folder.with_name(f".{folder.name}-retired-{os.getpid()}")
    folder.rename(retired)
    try:
        aside.rename(folder)
    except OSError:
        retired.rename(folder)
        raise
    shutil.rmtree(retired)


def model_card(facts: Mapping[str, object], about: str | None) -> str:
    """The README.md of a model folder, in the form that the Hugging Face Hub reads.

    Args:
        facts: The rows of its table.
        about: Markdown about the training and its figures; None for none.
    """
    table = "\n".join(
        f"| {name} | {value} |" for name, value in {**facts, "made with": f"xmodal {__version__}"}.items()
    )
    usage = (
        "```python\nimport xmodal\n\nembedder = xmodal.load('path/to/this/folder')\n"
        "vectors = embedder.embed_texts(['slow sad piano'])\n```"
    )
    parts = [
        "---\nlibrary_name: xmodal\npipeline_tag: feature-extraction\ntags: [audio, music, text, retrieval]\n---",
        "# Audio–text embedding model",
        f"| | |\n|---|---|\n{table}",
        "Cosines of two vectors compare audio with audio, text with text and audio with text. "
        "Vectors of another space mean nothing beside these.",
        usage,
    ]
    if about:
        parts.append(about.strip())
    return "\n\n".join(parts) + "\n"
