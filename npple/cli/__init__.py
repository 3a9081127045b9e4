"""The command line: what `npple COMMAND` does, from its arguments to what it prints.

Each command is one file: `add` for its arguments, `run` for what it does. Results go to standard
output, as text or with --json as one JSON object; progress and errors go to standard error. Exit
status: 0 passed, 1 a check failed, 2 bad usage or input, 130, 143 or 129
ended by Ctrl-C, SIGTERM or SIGHUP.
"""

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import TextIO

from npple import NppleError, __version__
from npple.cli import (abtest, claims, clicklog, compare, draw, evaluate, gradcheck, isolation,
                       oracle, predict, train)
from npple.cli.options import Parser
from npple.learn.interruption import ending_tidily
from npple.printing import visible


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    for name in ("stdout", "stderr"):  # closed: no file that is written may get its number
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):  # a terminal may lack a character
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    command = "npple"
    try:
        with ending_tidily():
            args = _parser().parse_args(arguments)
            command = f"npple {args.command}"
            status = args.run(args) or 0
            sys.stdout.flush()
        return status
    except (NppleError, MemoryError) as error:
        what = "out of memory: " if isinstance(error, MemoryError) else ""
        return _say(f"{command}: error: {what}{' '.join(str(error).split())}", 2)
    except KeyboardInterrupt:
        return _say(f"{command}: interrupted", 130)
    except BrokenPipeError:  # the reader of our output has gone: `npple ... | head`
        _give_up(sys.stdout)
        return 0
    except OSError as error:  # a full disk behind what is printed
        _give_up(sys.stdout)
        return _say(f"{command}: error: {error.filename or 'printing'}: "
                    f"{error.strerror or error}", 2)


def _say(line: str, status: int) -> int:
    """The status, after a line on standard error if that can be written to."""
    try:
        print(visible(line), file=sys.stderr, flush=True)
    except OSError:
        _give_up(sys.stderr)
    return status


def _give_up(stream: TextIO) -> None:
    """What is still to be written to the stream goes nowhere."""
    with contextlib.suppress(OSError):  # no file can be opened
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _parser() -> Parser:
    parser = Parser(prog="npple",
                    description="Progressive Layered Extraction and its relatives, by hand.")
    parser.add_argument("--version", action="version", version=f"npple {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (train, predict, evaluate, gradcheck, isolation, oracle, abtest, compare, claims,
                    draw, clicklog):
        command.add(commands)
    return parser
