"""Objects that remember how they were made, so that a model folder can make them again.

A config is ``{"class_path": "xmodal.towers.MobileCnn", "init_args": {...}}``, the form that LightningCLI reads
from YAML. :class:`Configurable` records it from the constructor's own signature, so no tower or loss has to
write it down twice. :func:`instantiate` goes the other way and names only classes of xmodal unless told to
trust the file: a config from a stranger must not be able to import what it likes.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xmodal.errors import ModelError


class Configurable:
    """Mix-in that records the arguments of the outermost constructor as ``self.config``."""

    _init_args: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" not in cls.__dict__:
            return
        original = cls.__init__
        signature = inspect.signature(original)

        @functools.wraps(original)
        def recording_init(self: Any, *args: Any, **kwargs: Any) -> None:
            if "_init_args" not in self.__dict__:  # a parent's constructor must not overwrite the child's record
                bound = signature.bind(self, *args, **kwargs)
                bound.apply_defaults()
                arguments = dict(bound.arguments)
                arguments.pop("self", None)
                # object.__setattr__: nn.Module's own __setattr__ is not usable before its constructor ran.
                object.__setattr__(self, "_init_args", arguments)
            original(self, *args, **kwargs)

        cls.__init__ = recording_init  # type: ignore[method-assign]

    @property
    def config(self) -> dict[str, Any]:
        """The ``class_path`` and ``init_args`` from which :func:`instantiate` makes an equal object."""
        return {
            "class_path": _public_path(type(self)),
            "init_args": {name: _plain(value) for name, value in getattr(self, "_init_args", {}).items()},
        }


def _public_path(cls: type) -> str:
    """The shortest path that users import the class by: a file inside a package may be renamed, its package not."""
    package = cls.__module__.rpartition(".")[0]
    if getattr(sys.modules.get(package), cls.__name__, None) is cls:
        return f"{package}.{cls.__qualname__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def _plain(value: Any) -> Any:
    if isinstance(value, Configurable):
        return value.config
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a constructor argument of type {type(value).__name__} cannot be written to a config")


def instantiate(config: Mapping[str, Any], *, trust: bool = False) -> Any:
    """Make the object that a config describes, and the objects inside it.

    Args:
        config: ``{"class_path": ..., "init_args": {...}}``; nested configs among the arguments are made first.
        trust: Allow classes from outside the package ``xmodal``.

    Raises:
        ModelError: If the class is not one of xmodal's and ``trust`` is off, does not exist, or refuses an argument.
    """
    class_path = str(config["class_path"])
    module_name, _, class_name = class_path.rpartition(".")
    if not trust and module_name.split(".")[0] != "xmodal":
        raise ModelError(
            f"the config names {class_path}, which is not a class of xmodal; load with trust=True (--trust) "
            "only if you know who wrote the file"
        )
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ModelError(f"the config names {class_path}, which does not exist in this version ({error})") from error
    if not (inspect.isclass(cls) and (trust or issubclass(cls, Configurable))):
        raise ModelError(f"the config names {class_path}, which is not a tower, projection, pooling or loss")
    arguments = {name: _made(value, trust) for name, value in dict(config.get("init_args") or {}).items()}
    try:
        return cls(**arguments)
    except TypeError as error:
        raise ModelError(f"{class_path} refuses the config's arguments: {error}") from error


def _made(value: Any, trust: bool) -> Any:
    if isinstance(value, Mapping) and "class_path" in value:
        return instantiate(value, trust=trust)
    if isinstance(value, list):
        return [_made(item, trust) for item in value]
    return value
