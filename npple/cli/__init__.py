"""The command line: what `npple COMMAND` does, from its arguments to what it prints.

Each command is one file: `add` for its arguments, `run` for what it does. Results go to standard
output, as text or with --json as one JSON object; progress and errors go to standard error. Exit
status: 0 passed, 1 a check failed, 2 bad usage or input, 130 or 143 ended by Ctrl-C or SIGTERM.
"""

import os
import sys
from collections.abc import Sequence

from npple import NppleError, __version__
from npple.cli import abtest, compare, draw, gradcheck, isolation, oracle, predict, train
from npple.cli.options import Parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    args = _parser().parse_args(arguments)
    try:
        return args.run(args) or 0
    except (NppleError, MemoryError) as error:
        what = "out of memory: " if isinstance(error, MemoryError) else ""
        print(f"npple {args.command}: error: {what}{' '.join(str(error).split())}",
              file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"npple {args.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone: `npple ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> Parser:
    parser = Parser(prog="npple",
                    description="Progressive Layered Extraction and its relatives, by hand.")
    parser.add_argument("--version", action="version", version=f"npple {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (train, predict, gradcheck, isolation, oracle, abtest, compare, draw):
        command.add(commands)
    return parser
