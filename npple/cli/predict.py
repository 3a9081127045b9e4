"""`npple predict`: a checkpoint's predictions for the rows of a file."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from npple.cli.files import check_file
from npple.cli.options import Commands, add_arguments, command, show
from npple.cli.rows import DRESS, TRAINED, UNKNOWN, dress
from npple.core.base import Array
from npple.errors import require
from npple.printing import csv_name, one_line, visible


def add(commands: Commands) -> None:
    """The command and its arguments."""
    parser = command(commands, "predict", run, "predict with a trained model",
                     "npple predict --checkpoint run/checkpoint.npz --data new.csv --out p.csv")
    add_arguments(parser, {
        **TRAINED,
        "--data": {"required": True, "metavar": "D",
                   "help": "rows in the format of the training data; labels are not needed"},
        **DRESS, **UNKNOWN,
        "--out": {"required": True, "metavar": "F",
                  "help": "CSV to write: one row per row of the data, in its order"}})


def run(args: Namespace) -> None:
    """Predict, write the file, and say of what."""
    from npple.learn.frames import columns_of
    from npple.learn.schema import known_enough
    from npple.learn.trained import load
    check_file("--out", args.out, {"--checkpoint": args.checkpoint, "--data": args.data})
    trained = load(args.checkpoint)
    schema = trained.schema
    table = columns_of(args.data, schema.form, dress(args))
    for line in known_enough(schema, table, args.allow_unknown):
        print(visible(line), file=sys.stderr)
    predictions = trained.predict(table, accept_unknown=True)
    _write(args.out, predictions, trained.output_names())
    used = [*schema.numeric, *schema.categorical, *schema.bags]
    said = {"rows": len(table[used[0]]), "tasks": [*predictions], "columns": used,
            "left_out": [name for name in table if name not in used], "out": args.out}
    show(args, lambda: said, _text(said))


def _text(said: Mapping[str, Any]) -> str:
    lines = [f"{said['rows']:,} rows, {', '.join(said['tasks'])}: {said['out']}",
             f"from {_list(said['columns'])}"]
    if said["left_out"]:
        lines.append(f"not from {_list(said['left_out'])}")
    return "\n".join(lines)


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(map(one_line, names[:20])) + more


def _write(path: str, predictions: Mapping[str, Array], names: Mapping[str, Sequence[str]]) -> None:
    """A CSV with a header: a column a task, or a column a class, named task=class."""
    import csv
    import io

    from npple.archive import replacing
    columns = [values.reshape(len(values), -1) for values in predictions.values()]
    header = [csv_name(name) for task in predictions for name in names[task]]
    require(len({*header}) == len(header), f"--out: two columns would be called alike: {header}")
    with replacing(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([cell for row in rows for cell in row]
                         for rows in zip(*(values.tolist() for values in columns)))
        text.detach()
