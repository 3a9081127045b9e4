"""`npple clicklog`: a made-up click log, to try things on."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable

from npple.cli.files import check_apart, check_file
from npple.cli.options import Commands, add_arguments, command, number, show


def add(commands: Commands) -> None:
    """The command and its arguments."""
    parser = command(commands, "clicklog", run, "make up a click log to try things on",
                     "npple clicklog --rows 20000 --out log.csv --later later.csv")
    add_arguments(parser, {
        "--rows": number(20_000, "videos shown"),
        "--seed": number(0, "of everything"),
        "--out": {"required": True, "metavar": "F", "help": "CSV to write"},
        "--later": {"metavar": "F", "help": "write the latest fifth of the rows here instead"}})


def run(args: Namespace) -> None:
    """Make it up and write it."""
    from npple.learn.clicklog import click_log
    check_file("--out", args.out)
    check_file("--later", args.later)
    check_apart("--out", args.out, "--later", args.later)
    log = click_log(args.rows, args.seed)
    lines = [",".join(log), *map(",".join, zip(*log.values()))]
    stop = 1 + args.rows * 4 // 5 if args.later else len(lines)
    written = {args.out: lines[:stop]}
    if args.later:
        written[args.later] = [lines[0], *lines[stop:]]
    for path, part in written.items():
        _write(path, part)
    rows = {path: len(part) - 1 for path, part in written.items()}
    show(args, lambda: {"rows": rows, "columns": [*log]},
         "\n".join(f"{count:,} rows: {path}" for path, count in rows.items()))


def _write(path: str, lines: Iterable[str]) -> None:
    from npple.archive import replacing
    with replacing(path) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())
