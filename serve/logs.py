"""Structured logs: one JSON object a line, with the time, the level, what happened, and facts about it.

What people send (tokens, queries, uploads, file names) is never a fact. What an exception says may quote it, so its
message is written at level DEBUG alone, and its type and the places in the code always.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import IO, Any

LOGGER = logging.getLogger("serve")
_FACTS = "facts"


class JsonLines(logging.Formatter):
    """Log records as JSON objects, each on a line of its own whatever is in it."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as one line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, _FACTS, {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line |= _described(record.exc_info[1], with_message=LOGGER.isEnabledFor(logging.DEBUG))
        return json.dumps(line, default=str)


class Lines(logging.Formatter):
    """The same facts for people who watch a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as one line."""
        when = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        facts: dict[str, Any] = dict(getattr(record, _FACTS, {}))
        if record.exc_info and record.exc_info[1] is not None:
            facts |= _described(record.exc_info[1], with_message=LOGGER.isEnabledFor(logging.DEBUG))
        said = " ".join(f"{name}={value}" for name, value in facts.items())
        line = f"{when} {record.levelname.lower()} {record.getMessage()} {said}".rstrip()
        return line.encode("unicode_escape").decode("ascii")


def configure(level: str = "info", *, form: str = "json", stream: IO[str] | None = None) -> None:
    """Write the server's own log and that of uvicorn line by line, instead of what they wrote to before.

    Args:
        level: "debug", "info", "warning" or "error".
        form: "json" or "text".
        stream: Where to; by default standard error.

    Raises:
        ValueError: If there is no such level or form.
    """
    if level not in ("debug", "info", "warning", "error"):
        raise ValueError(f"the log level must be debug, info, warning or error, got {level!r}")
    if form not in ("json", "text"):
        raise ValueError(f"the log's form must be json or text, got {form!r}")
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else Lines())
    for name in (LOGGER.name, "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler] if name != "uvicorn.error" else []
        logger.propagate = name == "uvicorn.error"
        logger.setLevel(level.upper())
    # Its lines carry the query string; the line of each request is serve.observed's.
    access = logging.getLogger("uvicorn.access")
    access.handlers, access.propagate = [], False


def log(event: str, facts: Mapping[str, Any] | None = None, *, level: int = logging.INFO) -> None:
    """Write one line.

    Args:
        event: What happened: a few words that stay the same, so that lines can be counted.
        facts: JSON-able, and nothing that a client has sent.
        level: Of the standard library's logging.
    """
    LOGGER.log(level, "%s", event, extra={_FACTS: dict(facts or {})})


def log_error(event: str, error: BaseException, facts: Mapping[str, Any] | None = None) -> None:
    """Write that something failed which should not have: with the error's type and the places that it came through."""
    LOGGER.error("%s", event, exc_info=error, extra={_FACTS: dict(facts or {})})


def _described(error: BaseException, *, with_message: bool) -> dict[str, Any]:
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{os.path.basename(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames[-12:]]
    described: dict[str, Any] = {"error": type(error).__name__, "at": places}
    return described | {"message": str(error)} if with_message else described
