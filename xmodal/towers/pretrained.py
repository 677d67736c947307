"""Encoders of the transformers library, from a local folder or the Hugging Face Hub, loaded strictly.

A folder is never looked up on the network, and a Hub id only if it is not in the local cache. Code that comes with a
model is never run, and weights are read as safetensors, or by torch's restricted unpickler where a repository has
nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import xmodal.compat  # noqa: F401  (transformers imports torchaudio where that is installed)
from xmodal.errors import ModelError

_BROKEN = (OSError, ValueError, KeyError, RuntimeError, TypeError)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without the progress bars and notes that transformers prints while it reads weights."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def read_config(source: str, file: str = "config.json") -> dict[str, Any]:
    """A JSON file of a model's folder or Hub repository.

    Raises:
        ModelError: If the model or the file cannot be found or read.
    """
    from transformers.utils.hub import cached_file

    try:
        path = cached_file(_place(source), file, local_files_only=True)
    except _BROKEN:
        path = None
    try:
        if path is None:
            path = cached_file(_place(source), file, local_files_only=Path(_place(source)).is_dir())
        said = json.loads(Path(str(path)).read_text("utf-8"))
    except _BROKEN as error:
        raise ModelError(
            f"{source}: no readable {file} on disk or on the Hugging Face Hub ({_first(error)})"
        ) from error
    if not isinstance(said, dict):
        raise ModelError(f"{source}: {file} is not the config of a model")
    return said


def load_encoder(
    source: str,
    class_name: str,
    *,
    kinds: Sequence[str],
    config: Any = None,
    ignore: Sequence[str] = (),
    optional: Sequence[str] = (),
) -> Any:
    """A model of transformers in evaluation mode, float32, with all of its weights.

    Args:
        source: A folder or a Hub id.
        class_name: Of a model class of transformers.
        kinds: The ``model_type`` that the source's config may name.
        config: Replaces the one of the source.
        ignore: Beginnings of the names of weights that may be there without being used, such as a classifier's.
        optional: Beginnings of the names of weights that may be absent, because they do nothing in inference.

    Raises:
        ModelError: If it cannot be found or loaded, or a weight is missing, unknown or of another shape.
    """
    import transformers

    kind = read_config(source).get("model_type")
    if kind not in kinds:
        raise ModelError(f"{source}: its model_type must be one of {', '.join(kinds)}, got {kind!r}")
    cls = getattr(transformers, class_name)
    place = _place(source)
    more: dict[str, Any] = {} if config is None else {"config": config}

    def load(offline: bool) -> tuple[Any, dict[str, Any]]:
        with quiet_transformers():
            loaded: tuple[Any, dict[str, Any]] = cls.from_pretrained(
                place,
                local_files_only=offline,
                dtype=torch.float32,
                output_loading_info=True,
                trust_remote_code=False,
                **more,
            )
            return loaded

    try:
        try:
            model, report = load(offline=True)
        except _BROKEN:
            if Path(place).is_dir():
                raise
            model, report = load(offline=False)  # not in the local cache: the user named a Hub id
    except _BROKEN as error:
        raise ModelError(f"{source}: not a {class_name} that transformers can load ({_first(error)})") from error
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(tuple(optional)))
    unknown = sorted(name for name in report["unexpected_keys"] if not name.startswith(tuple(ignore)))
    wrong = sorted(str(name) for name in report.get("mismatched_keys", ()))
    if missing or unknown or wrong:
        raise ModelError(
            f"{source}: the weights are not those of a {class_name}: missing {missing[:3]}, unknown {unknown[:3]}, "
            f"of another shape {wrong[:3]}"
        )
    return model.eval()


def load_part(source: str, class_name: str) -> Any:
    """A tokenizer or feature extractor of transformers, from a folder or Hub id (ModelError if that fails)."""
    import transformers

    cls = getattr(transformers, class_name)
    place = _place(source)
    try:
        try:
            with quiet_transformers():
                return cls.from_pretrained(place, local_files_only=True, trust_remote_code=False)
        except _BROKEN:
            if Path(place).is_dir():
                raise
            with quiet_transformers():
                return cls.from_pretrained(place, local_files_only=False, trust_remote_code=False)
    except _BROKEN as error:
        raise ModelError(f"{source}: it has no {class_name} that transformers can load ({_first(error)})") from error


def make_config(class_name: str, settings: dict[str, Any]) -> Any:
    """A config object of transformers from plain settings."""
    import transformers

    return getattr(transformers, class_name).from_dict(settings)


def _place(source: str) -> str:
    folder = Path(source).expanduser()
    if folder.is_dir():
        return str(folder)
    if folder.is_absolute() or source.startswith((".", "~")) or source.count("/") > 1:
        raise ModelError(f"{source}: there is no such folder; give the folder of a model or a Hugging Face Hub id")
    return source


def _first(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
