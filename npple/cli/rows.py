"""The rows that commands work on: the flags that name data, and reading what they name."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from npple.checks import check_choice
from npple.cli.options import Options, Parser, add_arguments, number
from npple.errors import InputError, require

if TYPE_CHECKING:
    from npple.architectures import Inputs
    from npple.data import Dataset, Schema
    from npple.learn.training import Run


def add_data(parser: Parser, correlations: bool = False) -> None:
    """--data and what says how to read or make it; with `correlations`, several of them."""
    columns = {"nargs": "+", "default": [], "metavar": "COLUMN"}
    add_arguments(parser.add_argument_group("data"), {
        "--data": {"default": "census", "metavar": "D",
                   "help": "'census' (the bundled sample), 'synthetic', or a file: Census-Income "
                           "as published or, with the flags below, a CSV with a header"},
        "--validation": {"metavar": "F", "help": "a file in the same format (otherwise a fifth of "
                                                 "the rows is held out)"},
        "--numeric": columns | {"help": "numeric feature columns"},
        "--categorical": columns | {"help": "categorical feature columns"},
        "--log": columns | {"help": "numeric columns to take log(1 + x) of"},
        "--binary": columns | {"help": "label columns of 0 and 1"},
        "--regression": columns | {"help": "label columns of real numbers"},
        "--multiclass": columns | {"help": "label columns of class names"},
        "--embedding-width": number(4, "width of each categorical column's embedding"),
        "--rows": number(20000, "rows of synthetic data"),
        "--inputs": number(128, "width of synthetic data"),
        "--tasks": number(2, "tasks of synthetic data"),
        "--correlation": {"type": float, "nargs": "+" if correlations else None,
                          "default": [-0.5, 0.0, 0.5, 0.9] if correlations else 0.5,
                          "help": "task correlation p of synthetic data, -1 to 1: the "
                                  "cosine of the tasks' weight vectors"}})


def roles(args: Namespace) -> Options | None:
    """What the column flags say, as `Schema.learn` takes it; None without flags."""
    require(args.data != "synthetic" or not args.validation,
            "--validation: synthetic data makes its own")
    labels = [(column, kind) for kind in ("binary", "regression", "multiclass")
              for column in getattr(args, kind)]
    tasks = dict(labels)
    for column in tasks:
        require([name for name, _ in labels].count(column) == 1,
                f"label columns: {column!r} is named twice")
    if not (tasks or args.numeric or args.categorical or args.log):
        return None
    require(args.data not in ("census", "synthetic"),
            f"--data {args.data} knows its columns: leave out --numeric, --binary and so on")
    return {"numeric": args.numeric, "categorical": args.categorical, "tasks": tasks,
            "log": args.log}


def load(args: Namespace) -> tuple[Dataset, Dataset, Inputs, dict[str, str], Options | None]:
    """Training and validation rows, the model's inputs, its tasks, and the schema to keep."""
    from npple import data
    from npple.learn import census
    named = roles(args)
    if args.data == "synthetic":
        rows = data.synthetic(args.rows, inputs=args.inputs, correlation=args.correlation,
                              tasks=args.tasks, seed=args.seed)
        tasks = dict.fromkeys(rows.targets, "regression")
        return *rows.split(0.8, args.seed), args.inputs, tasks, None
    form, read = ("csv", data.read_columns) if named else ("census", data.read_census)
    columns = data.bundled() if args.data == "census" else read(args.data)
    named = named or census.ROLES
    for column in [name for names in named.values() for name in names]:
        check_choice("column", column, columns)
    schema = data.Schema.learn(columns, **named)
    rows = schema.encode(columns)
    train, validation = ((rows, schema.encode(read(args.validation))) if args.validation
                         else rows.split(0.8, args.seed))
    kept = {"form": form, **schema.to_dict()}
    return train, validation, schema.inputs(args.embedding_width), schema.tasks, kept


def encode(run: Run, args: Namespace, dtype: str, labels: bool = True) -> tuple[Dataset, Schema]:
    """The rows of --data as the checkpoint's model takes them, and the schema behind it."""
    from npple import data
    if run.schema is None:
        raise InputError(f"--checkpoint: {args.checkpoint} was trained on synthetic data, which "
                         "no file holds")
    content = dict(run.schema)
    read = data.read_census if content.pop("form", None) == "census" else data.read_columns
    columns = data.bundled() if args.data == "census" else read(args.data)
    schema = data.Schema.from_dict(content)
    return schema.encode(columns, dtype, labels), schema
