"""The command line: ``xmodal data | embed | index | search | tag | serve | evaluate | doctor | runs | train | demo``.

What may be said is in :mod:`xmodal.cli.parsers`; what a command needs is imported when it runs, so that ``--help``
comes at once.
An error that is the input's fault is one sentence on the error stream and exit code 2, a stop by hand is 130.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from xmodal.cli.parsers import make_parser
from xmodal.errors import XmodalError

_TAG_ACTIONS = ("fit", "enrol", "forget", "undo")
# Their words after the command belong to a parser of their own.
_HANDED_ON = {"train": "xmodal.training", "demo": "xmodal.demo", "serve": "serve.__main__"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The words after ``xmodal``; None for those of the process.

    Returns:
        The exit code: 0 done, 1 not one file could be embedded or the doctor found an illness, 2 the input was refused,
        130 stopped by hand, 141 nobody reads the output.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a title that the terminal cannot show must not end a search
            stream.reconfigure(errors="backslashreplace")
    parser = make_parser()
    words = list(sys.argv[1:] if argv is None else argv)
    if len(words) > 1 and words[0] == "tag" and words[1] in _TAG_ACTIONS:
        words[:2] = [f"tag {words[1]}"]  # "xmodal tag FILE" came first; a file of such a name is ./fit
    args, rest = parser.parse_known_args(words)
    if rest and args.command not in _HANDED_ON:
        parser.error(f"unknown argument {rest[0]!r}; see: xmodal {args.command} --help")
    try:
        if args.command in _HANDED_ON:
            code = import_module(_HANDED_ON[args.command]).main(rest)
        else:
            code = getattr(import_module(f"xmodal.cli.{args.module}"), args.run)(args)
        sys.stdout.flush()  # here, where a reader that has gone can still be caught
    except BrokenPipeError:
        # Python flushes once more on its way out; that must not fail as well.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        sys.stderr.write("xmodal: stopped\n")
        return 130
    except (XmodalError, ValueError, OSError) as error:
        if args.debug:
            raise
        sys.stderr.write(f"xmodal: {' '.join(str(error).split())}\n")
        return 2
    return int(code or 0)
