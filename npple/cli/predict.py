"""`npple predict`: a checkpoint's predictions for the rows of a file."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING

from npple.cli.options import Commands, add_arguments, command, show
from npple.cli.rows import DRESS, UNKNOWN, encode
from npple.core.base import Array

if TYPE_CHECKING:
    from npple.learn.schema import Schema


def add(commands: Commands) -> None:
    """The command and its arguments."""
    parser = command(commands, "predict", run, "predict with a trained model",
                     "npple predict --checkpoint run/checkpoint.npz --data new.csv --out p.csv")
    add_arguments(parser, {
        "--checkpoint": {"required": True, "metavar": "F", "help": "from npple train"},
        "--data": {"required": True, "metavar": "D",
                   "help": "rows in the format of the training data; labels are not needed"},
        **DRESS, **UNKNOWN,
        "--out": {"required": True, "metavar": "F",
                  "help": "CSV to write: one row per row of the data, in its order"}})


def run(args: Namespace) -> None:
    """Predict and write the file."""
    from npple.learn.training import Run, predict
    trained = Run.load(args.checkpoint)
    rows, schema = encode(trained, args, trained.dtype, labels=False)
    predictions = schema.own_units(predict(trained.model, trained.best, rows))
    _write(args.out, predictions, schema)
    show(args, lambda: {"rows": len(rows), "tasks": list(predictions), "out": args.out},
         f"{len(rows):,} rows, {', '.join(predictions)}: {args.out}")


def _write(path: str, predictions: Mapping[str, Array], schema: Schema) -> None:
    """A CSV with a header: a column a task, or a column a class, named task=class."""
    import csv
    import io

    from npple.archive import replacing
    columns = {}
    for task, values in predictions.items():
        if values.ndim == 1:
            columns[task] = values
        else:
            names = schema.classes[task]
            columns |= {f"{task}={name}": values[:, k] for k, name in enumerate(names)}
    with replacing(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*(values.tolist() for values in columns.values())))
        text.detach()
