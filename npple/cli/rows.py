"""The rows that commands work on: the flags that name data, and reading what they name."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING

from npple.cli.options import (Options, Parser, add_arguments, number, one_of,
                               refuse_unused)
from npple.errors import InputError, require
from npple.learn.census import GROUPS, census_roles, census_split
from npple.learn.columns import Dress, Texts
from npple.learn.frames import columns_of
from npple.learn.kuairand import is_kuairand, kuairand_roles, kuairand_split
from npple.learn.scenes import TASKS
from npple.learn.schema import FILLS, POOLS, Schema, known_enough
from npple.printing import visible

if TYPE_CHECKING:
    from npple.architectures import Inputs
    from npple.learn.dataset import Dataset
    from npple.learn.training import Run


MADE = ("synthetic", "vtr_vcr")  # data that no file holds
DRESS: dict[str, Options] = {  # how a file is written down
    "--delimiter": {"default": ",", "metavar": "C", "help": "between fields; 'tab' for tabs"},
    "--columns": {"nargs": "+", "metavar": "COLUMN", "help": "names of columns, for a file without "
                                                             "a header"},
    "--encoding": {"default": "utf-8", "metavar": "NAME", "help": "of the file's characters"},
}
TRAINED: dict[str, Options] = {
    "--checkpoint": {"required": True, "metavar": "F", "help": "from npple train"}}
UNKNOWN: dict[str, Options] = {"--allow-unknown": {
    "action": "store_true", "help": "go on if training knew no value of a whole column"}}

KINDS = {"csv": "a CSV file with column flags", "census": "Census-Income",
         "kuairand": "KuaiRand-Pure",
         "synthetic": "synthetic data", "vtr_vcr": "vtr_vcr data"}
USES = {  # flags -> the kinds of data that have a use for them
    ("--rows", "--inputs", "--tasks"): MADE,
    ("--correlation",): ("synthetic",),
    ("--dependence", "--noise", "--sharing"): ("vtr_vcr",),
    ("--task-group",): ("census", "kuairand"),
    tuple(DRESS): ("csv",),
    ("--time", "--split-by", "--bag-separator"): ("csv", "census"),
    ("--min-count", "--missing", "--raw-targets", "--bag-pool", "--embedding-width"):
        ("csv", "census", "kuairand")}


def add_data(parser: Parser, correlations: bool = False) -> None:
    """--data and what says how to read or make it; with `correlations`, several of them."""
    columns = {"nargs": "+", "default": [], "metavar": "COLUMN"}
    options: dict[str, Options] = {
        "--data": {"default": "census", "metavar": "D",
                   "help": "'census' (the bundled sample of its test file), 'synthetic', "
                           "'vtr_vcr' (videos in two scenes, made up), or a "
                           "file: Census-Income as published or, with the flags below, a CSV with "
                           "a header; a folder with both Census-Income files is split as in the "
                           "papers, one with the logs of KuaiRand-Pure by their dates"},
        "--validation": {"metavar": "F", "help": "a file in the same format (otherwise a fifth of "
                                                 "the rows is held out)"},
        "--numeric": columns | {"help": "numeric feature columns"},
        "--categorical": columns | {"help": "categorical feature columns"},
        "--bag": columns | {"help": "feature columns with several values in a field"},
        "--bag-separator": {"default": "|", "metavar": "C", "help": "between the values of a bag"},
        "--bag-pool": {"type": one_of("bag pool", POOLS), "default": "mean", "metavar": "POOL",
                       "help": "mean or sum of their embeddings"},
        "--log": columns | {"help": "numeric columns to take log(1 + x) of"},
        "--binary": columns | {"help": "label columns of 0 and 1"},
        "--regression": columns | {"help": "label columns of real numbers"},
        "--multiclass": columns | {"help": "label columns of class names"},
        "--embedding-width": number(4, "width of the embedding of a categorical or bag column"),
        "--min-count": number(2, "categories that come more seldom count as unknown"),
        "--missing": {"type": one_of("fill", FILLS), "metavar": "FILL",
                      "help": "fill missing numbers with the training rows' mean or median, or 0, "
                              "and mark them (otherwise they are an error)"},
        "--raw-targets": {"action": "store_true",
                          "help": "leave regression targets as they are (otherwise standardised)"},
        "--time": {"metavar": "COLUMN", "help": "hold out the latest fifth of the rows by it"},
        "--split-by": {"metavar": "COLUMN", "help": "keep rows with the same value together when "
                                                    "a fifth is held out"},
        "--task-group": {"type": one_of("task group", GROUPS), "default": "1", "metavar": "N",
                         "help": "of Census-Income: 1 (income, never married) or 2 (college, "
                                 "never married); of KuaiRand-Pure: 1 (long view, completion) or "
                                 "2 (click and like, too)"},
        **DRESS,
        "--rows": number(20000, "rows of synthetic and vtr_vcr data"),
        "--inputs": number(128, "width of synthetic and vtr_vcr data"),
        "--dependence": {"type": float, "nargs": "+" if correlations else None,
                         "default": [0.8] if correlations else 0.8,
                         "help": "of vtr_vcr: how much playing and completing depend on the scene, "
                                 "0 to 1"},
        "--noise": number(0.5, "of vtr_vcr: what moves completion and no feature tells, against 1"),
        "--sharing": number(0.03, "of vtr_vcr: the share of played rows that is shared"),
        "--tasks": number(2, "tasks of synthetic and vtr_vcr data (3: sharing, too)"),
        "--correlation": {"type": float, "nargs": "+" if correlations else None,
                          "default": [-0.5, 0.0, 0.5, 0.9] if correlations else 0.5,
                          "help": "task correlation p of synthetic data, -1 to 1: the "
                                  "cosine of the tasks' weight vectors"}}
    add_arguments(parser.add_argument_group("data"), options)


def roles(args: Namespace) -> Options | None:
    """What the column flags say, as `Schema.learn` takes it; None without flags."""
    require(args.data not in MADE or not args.validation,
            f"--validation: {args.data} data makes its own")
    labels = [(column, kind) for kind in ("binary", "regression", "multiclass")
              for column in getattr(args, kind)]
    tasks = dict(labels)
    for column in tasks:
        require([name for name, _ in labels].count(column) == 1,
                f"label columns: {column!r} is named twice")
    named = tasks or args.numeric or args.categorical or args.bag or args.log
    _refuse_unused(args, args.data if args.data in MADE else "csv" if named else _form(args.data))
    if not named:
        return None
    require(args.data not in ("census", *MADE),
            f"--data {args.data} knows its columns: leave out --numeric, --binary and so on")
    return {"numeric": args.numeric, "categorical": args.categorical, "bags": args.bag,
            "tasks": tasks, "log": args.log}


def _form(data: str) -> str:
    """What a file or folder without column flags is."""
    return "kuairand" if is_kuairand(data) else "census"


def _refuse_unused(args: Namespace, kind: str) -> None:
    """Raise `InputError` for a flag that data of this kind has no use for."""
    for flags, kinds in USES.items():
        if kind not in kinds:
            refuse_unused(args, f"for {KINDS[kind]}, for "
                          f"{' and '.join(KINDS[each] for each in kinds)} alone", *flags)


def load(args: Namespace, schema: Schema | None = None
         ) -> tuple[Dataset, Dataset, Inputs, dict[str, str], Schema | None]:
    """Training and validation rows, the model's inputs, its tasks, and the schema to keep.

    A `schema` that is given, from a checkpoint, is used and not learned again.
    """
    from npple import data
    from npple.learn.fitting import prepare
    named = roles(args)
    if args.data == "synthetic":
        rows = data.synthetic(args.rows, inputs=args.inputs, correlation=args.correlation,
                              tasks=args.tasks, seed=args.seed)
        tasks = dict.fromkeys(rows.targets, "regression")
        return *rows.split(0.8, args.seed), args.inputs, tasks, None
    if args.data == "vtr_vcr":
        rows = data.vtr_vcr(args.rows, args.inputs, args.dependence, args.noise, args.sharing,
                            args.seed, args.tasks)
        tasks = {task: TASKS[task] for task in rows.targets}
        return *rows.split(0.8, args.seed), args.inputs, tasks, None
    form = "csv" if named else _form(args.data)
    train, held_out = _tables(args, form)
    if not named:
        named = (census_roles(args.task_group) if form == "census" else
                 kuairand_roles(train, args.task_group))
    made = prepare(train, held_out, named, seed=args.seed,
                   time=args.time, split_by=args.split_by, min_count=args.min_count,
                   missing=args.missing, standardise=not args.raw_targets, form=form,
                   separator=args.bag_separator, pool=args.bag_pool, schema=schema)
    return (made.train, made.validation, made.schema.inputs(args.embedding_width),
            made.schema.tasks, made.schema)


def _tables(args: Namespace, form: str
            ) -> tuple[Mapping[str, Texts], Mapping[str, Texts] | None]:
    """The rows to train on, and those to validate on if files say which."""
    if form != "csv" and os.path.isdir(args.data):
        for flag in ("--validation", "--time", "--split-by"):
            require(not getattr(args, flag[2:].replace("-", "_")),
                    f"{flag}: the published files come with their own split")
        if form == "kuairand":
            return kuairand_split(args.data)
        split = census_split(args.data)
        return split.train, split.validation
    held_out = columns_of(args.validation, form, dress(args)) if args.validation else None
    return columns_of(args.data, form, dress(args)), held_out


def dress(args: Namespace) -> Dress:
    """How the files are written down, by the flags."""
    return Dress(args.delimiter, args.columns, args.encoding)


def dress_of(args: Namespace) -> Options:
    """The same, as what `npple.load` gives takes it."""
    return {"delimiter": args.delimiter, "columns": args.columns, "encoding": args.encoding}


def encode(run: Run, args: Namespace, dtype: str, labels: bool = True) -> tuple[Dataset, Schema]:
    """The rows of --data as the checkpoint's model takes them, and the schema behind it.

    What training did not know is said on standard error.
    """
    if run.schema is None:
        raise InputError(f"--checkpoint: {args.checkpoint} was trained on made-up data, which "
                         "no file holds")
    schema = Schema.from_dict(run.schema)
    columns = columns_of(args.data, schema.form, dress(args))
    for line in known_enough(schema, columns, getattr(args, "allow_unknown", True)):
        print(visible(line), file=sys.stderr)
    return schema.encode(columns, dtype, labels), schema
