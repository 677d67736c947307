"""How the server is set: flags before the environment before a file before the defaults.

A field of :class:`Settings` is at once a flag (``--time-limit-seconds``), an environment variable
(``XMODAL_SERVE_TIME_LIMIT_SECONDS``) and a key of the file (``time_limit_seconds``) that ``--config`` or
``XMODAL_SERVE_CONFIG`` names, TOML or YAML. A name that is none of them is refused.
"""

from __future__ import annotations

import argparse
import difflib
import math
import tomllib
import types
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from xmodal.errors import DataError

PREFIX = "XMODAL_SERVE_"


def _said(help: str, *, least: float | None = None) -> dict[str, Any]:
    return {"help": help, "least": least}


@dataclass(frozen=True)
class Settings:
    """What may be said of a server; each field's help says what it means."""

    index: str | None = field(
        default=None, metadata=_said("the index folder, or a collection's address (default: that of the demo)")
    )
    model: str | None = field(default=None, metadata=_said("the model folder (default: the one that made the index)"))
    demo: Path = field(
        default=Path("demo"), metadata=_said("without --index: the demo's folder, made first if it is not there")
    )
    library: tuple[str, ...] = field(
        default=(), metadata=_said("folders from which audio may be played (default: those of the index)")
    )
    tags: str | None = field(
        default=None, metadata=_said('the vocabulary: "a, b" or a file (default: the tags that the tracks have)')
    )
    calibration: Path | None = field(
        default=None,
        metadata=_said("what xmodal tag fit wrote (default: calibration.json in the model folder or the index folder)"),
    )
    host: str = field(default="127.0.0.1", metadata=_said("the address to listen on; 0.0.0.0 is all of this machine's"))
    port: int = field(default=8000, metadata=_said("the port; 0 takes a free one", least=0))
    device: str | None = field(
        default=None, metadata=_said("cpu, cuda, mps ... (default: the first accelerator, else the CPU)")
    )
    trust: bool = field(default=False, metadata=_said("let the model name classes from outside xmodal"))
    mmap: bool = field(
        default=True, metadata=_said("leave the index's vectors in their files, shared with other processes")
    )
    watch: bool = field(default=True, metadata=_said("reload by itself when another index was swapped into the folder"))

    max_batch: int = field(default=32, metadata=_said("texts that share one pass of the model", least=1))
    max_audio_batch: int = field(default=8, metadata=_said("windows of audio that share one pass", least=1))
    max_wait_ms: float = field(
        default=4.0,
        metadata=_said(
            "how long a text waits for others before its batch starts, while requests come together", least=0
        ),
    )
    queue: int = field(
        default=512, metadata=_said("texts that may wait; beyond that requests are answered 429", least=1)
    )
    time_limit_seconds: float = field(
        default=30.0, metadata=_said("what a request may take before it is answered 504", least=0.001)
    )
    text_cache: int = field(default=10_000, metadata=_said("vectors of texts that are remembered", least=0))
    threads: int = field(default=0, metadata=_said("threads that search; 0 is one a core", least=0))
    drain_delay_seconds: float = field(
        default=0.0,
        metadata=_said(
            "after SIGTERM: how long to go on listening while /ready says no, for a balancer to notice", least=0
        ),
    )
    drain_seconds: float = field(
        default=30.0, metadata=_said("after that: how long running requests may take to finish", least=0)
    )

    max_hits: int = field(
        default=1000, metadata=_said("the longest list of hits, tracks or points of one answer", least=1)
    )
    max_text: int = field(default=2000, metadata=_said("characters of one text or query", least=1))
    max_texts: int = field(default=256, metadata=_said("texts of one request", least=1))
    max_terms: int = field(default=32, metadata=_said("terms of one query, and conditions of one filter", least=1))
    map_points: int = field(
        default=20_000, metadata=_said("points of the map, spread evenly over the catalogue", least=2)
    )
    upload_max_bytes: int = field(default=50 * 2**20, metadata=_said("bytes of an uploaded file", least=1))
    upload_max_seconds: float = field(default=900.0, metadata=_said("seconds of audio of an uploaded file", least=0.01))
    uploads: int = field(default=256, metadata=_said("uploads whose vectors are kept, the oldest goes first", least=1))
    upload_keep_seconds: float = field(
        default=3600.0, metadata=_said("how long an upload may be used in queries", least=1)
    )
    decoders: int = field(default=2, metadata=_said("processes that decode audio", least=1))
    decode_seconds: float = field(default=30.0, metadata=_said("what decoding one file may take", least=0.1))

    decoder_megabytes: int = field(default=1024, metadata=_said("memory that decoding one file may take", least=16))
    temporary: Path | None = field(
        default=None, metadata=_said("the folder for uploads while they are read (default: the system's)")
    )
    json_max_bytes: int = field(default=2**20, metadata=_said("bytes of a body that is no upload", least=1))
    bytes_in_flight: int = field(
        default=512 * 2**20, metadata=_said("bytes of all bodies under way together, and of uploads on disk", least=1)
    )
    body_seconds: float = field(
        default=20.0, metadata=_said("how long any body may take to come; after that 8 KiB a second", least=0.01)
    )
    head_seconds: float = field(
        default=15.0, metadata=_said("how long the head of a request may take to come", least=0.01)
    )
    connections: int = field(
        default=2048, metadata=_said("connections at a time; beyond that requests are answered 503", least=1)
    )

    token: tuple[str, ...] = field(
        default=(),
        metadata=_said("clients' tokens: TOKEN, NAME:TOKEN or NAME:sha256:HEX; without one everybody may ask"),
    )
    admin_token: str | None = field(
        default=None, metadata=_said("token for reload (default: only from this machine, if no token is set)")
    )
    rate_limit_per_minute: int = field(
        default=0, metadata=_said("requests of one client a minute; 0 is no limit", least=0)
    )
    fetch_host: tuple[str, ...] = field(
        default=(),
        metadata=_said(
            "hosts from which sounds may be fetched by URL: cdn.example, cdn.example:8443, or store.internal=10.0.0.5 "
            "for one without a public address; without one nothing is fetched"
        ),
    )
    fetch_seconds: float = field(default=20.0, metadata=_said("what fetching one sound may take", least=0.1))
    host_name: tuple[str, ...] = field(
        default=(), metadata=_said("names that the server answers to, besides those of this machine")
    )
    origin: tuple[str, ...] = field(
        default=(), metadata=_said("origins whose pages may use the server, such as https://music.example")
    )
    log_format: str = field(default="text", metadata=_said("text or json"))
    log_level: str = field(default="info", metadata=_said("debug, info, warning or error"))

    def check(self) -> Settings:
        """This, or a ValueError that says which value is out of range."""
        for one in fields(self):
            value, least = getattr(self, one.name), one.metadata["least"]
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{one.name} must be a finite number, got {value}")
            if least is not None and value < least:
                raise ValueError(f"{one.name} must be at least {least:g}, got {value}")
        if not self.port < 65536:
            raise ValueError(f"port must be below 65536, got {self.port}")
        if self.log_format not in ("text", "json"):
            raise ValueError(f"log_format must be text or json, got {self.log_format!r}")
        if self.log_level not in ("debug", "info", "warning", "error"):
            raise ValueError(f"log_level must be debug, info, warning or error, got {self.log_level!r}")
        if self.bytes_in_flight < max(self.json_max_bytes, self.upload_max_bytes):
            raise ValueError(
                f"bytes_in_flight={self.bytes_in_flight} is less than one body may have "
                f"({max(self.json_max_bytes, self.upload_max_bytes)}); no such body could ever be received"
            )
        return self


def read_settings(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Settings from flags, environment and file.

    Raises:
        ValueError: If a name is unknown or a value is out of range.
        DataError: If the file cannot be read.
        SystemExit: After ``--help`` or a wrong flag, as argparse does.
    """
    said = vars(_parser().parse_args(argv))
    config = said.pop("config") or environ.get(f"{PREFIX}CONFIG")
    known = {one.name: one for one in fields(Settings)}
    values: dict[str, Any] = {}
    if config is not None:
        for name, value in _file(Path(config)).items():
            _refuse_unknown(name, known, config)
            values[name] = _from_file(known[name], value, config)
    for variable, text in environ.items():
        if variable.startswith(PREFIX) and variable != f"{PREFIX}CONFIG":
            name = variable.removeprefix(PREFIX).lower()
            _refuse_unknown(name, known, "the environment", variable)
            values[name] = _from_text(known[name], text.split(",") if _many(known[name]) else [text], variable)
    for name, texts in said.items():
        if texts is not None:
            values[name] = _from_text(known[name], texts, f"--{name.replace('_', '-')}")
    return Settings(**values).check()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="xmodal serve",
        description="Search and tag a catalogue in the browser and over HTTP. Each flag may also stand in the file "
        f"that --config names, and in the environment ({PREFIX}PORT=8080).",
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="settings as TOML or YAML")
    for one in fields(Settings):
        flag, help = f"--{one.name.replace('_', '-')}", one.metadata["help"]
        if one.default not in (None, (), False, True):
            help += f" (default {one.default})"
        if _plain(one) is bool:
            parser.add_argument(flag, nargs="?", const=["true"], type=lambda text: [text], metavar="no", help=help)
        elif _many(one):
            parser.add_argument(flag, action="append", metavar=one.name.upper(), help=f"{help}; may be repeated")
        else:
            parser.add_argument(flag, nargs=1, metavar=one.name.upper(), help=help)
    return parser


def _file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
        read = tomllib.loads(text) if path.suffix.lower() == ".toml" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path}: the settings cannot be read ({' '.join(str(error).split())})") from error
    if not isinstance(read or {}, dict):
        raise DataError(f"{path}: settings are names with values, such as port: 8080")
    return {str(name): value for name, value in (read or {}).items()}


def _refuse_unknown(name: str, known: Mapping[str, Any], place: str, shown: str | None = None) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]}?" if near else "; see: xmodal serve --help"
        raise ValueError(f"{place} sets {shown or name!r}, which is no setting{hint}")


def _from_text(one: Field[Any], texts: Sequence[str], place: str) -> Any:
    if _many(one):
        return tuple(text.strip() for text in texts if text.strip())
    plain, text = _plain(one), texts[0]
    if plain is bool:
        found = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(text.lower())
        if found is None:
            raise ValueError(f"{place} must be yes or no, got {text!r}")
        return found
    try:
        return plain(text)
    except ValueError:
        what = "a whole number" if plain is int else "a number"
        raise ValueError(f"{place} must be {what}, got {text!r}") from None


def _from_file(one: Field[Any], value: Any, place: str) -> Any:
    plain = _plain(one)
    if _many(one):
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
    elif plain is Path and isinstance(value, str):
        return Path(value)
    elif plain is float and type(value) in (int, float):
        return float(value)
    elif type(value) is plain:
        return value
    what = {bool: "true or false", int: "a whole number", float: "a number"}.get(plain, "text")
    what = "a list of texts" if _many(one) else what
    raise ValueError(f"{place}: {one.name} must be {what}, got {value!r}")


_HINTS = get_type_hints(Settings)


def _plain(one: Field[Any]) -> Any:
    """The type of a setting, without None."""
    hint = _HINTS[one.name]
    if isinstance(hint, types.UnionType):
        hint = next(part for part in get_args(hint) if part is not types.NoneType)
    return hint


def _many(one: Field[Any]) -> bool:
    return get_origin(_HINTS[one.name]) is tuple
