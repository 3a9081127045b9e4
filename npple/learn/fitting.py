"""From a table to training rows: split first, learn from the training rows alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from npple.checks import check_kind, check_texts, shown
from npple.core.base import Codes, Values
from npple.errors import require
from npple.learn.columns import Texts, absent
from npple.learn.dataset import Dataset, split_rows
from npple.learn.schema import Schema

HELD_OUT = 0.2  # of the rows, where no validation table is given
DRAWN = 0.01  # of the training rows in which a category counts as unknown


class Prepared(NamedTuple):
    """Rows to train on, rows to validate on, and the schema that was learned from the former."""

    train: Dataset
    validation: Dataset
    schema: Schema


def prepare(columns: Mapping[str, Texts], held_out: Mapping[str, Texts] | None,
            roles: Mapping[str, Any], *, seed: int = 0, time: str | None = None,
            split_by: str | None = None, min_count: int = 2, missing: str | None = None,
            standardise: bool = True, form: str = "csv", separator: str = "|", pool: str = "mean",
            schema: Schema | None = None) -> Prepared:
    """Split a table, learn a schema from the training rows, and encode both parts.

    Parameters
    ----------
    columns : dict column -> Texts
    held_out : dict column -> Texts or None
        A table to validate on; without one, a fifth of the rows is held out.
    roles : dict
        `numeric`, `categorical`, `bags`, `tasks` and `log`, as `Schema.learn` takes them.
    seed : int, optional
        Of what is held out, and of which categories count as unknown in training.
    time, split_by : str, optional
        The column by which the latest rows are held out; whose values stay together.
    min_count, missing, standardise, form, separator, pool
        As `Schema.learn` takes them.
    schema : Schema, optional
        One that was learned before, from the same rows.

    Returns
    -------
    Prepared

    Raises
    ------
    InputError
        If the table cannot be used so.
    """
    require(not (time and split_by), "--time and --split-by: choose one of them")
    require(held_out is None or not (time or split_by),
            "--time and --split-by hold rows out, expected no --validation with them")
    check_kind("tasks", roles["tasks"], dict, "a dict of column and kind")
    roles = {"log": (), "bags": (), **roles}
    named = [*roles["tasks"], *(name for role in ("numeric", "categorical", "bags", "log")
                                for name in check_texts(role, roles[role]))]
    for option, column in (("time", time), ("split_by", split_by)):
        require(column is None or isinstance(column, str),
                f"{option}: {shown(column)}, expected a column")
    absent(columns, [*named, *filter(None, (time, split_by))])
    count = len(next(iter(columns.values())))
    train: Codes = np.arange(count)
    rest: Codes = train[:0]
    if held_out is None:
        train, rest = split_rows(count, 1 - HELD_OUT, seed,
                                 _times(time, columns[time]) if time else None,
                                 columns[split_by].numbers if split_by else None)
    if schema:
        known = [*schema.numeric], [*schema.categorical], [*schema.bags], [*schema.tasks]
        asked = tuple([*roles[role]] for role in ("numeric", "categorical", "bags", "tasks"))
        require(known == asked, "--resume: was started with another choice of columns: "
                                  f"{shown(known)}, now {shown(asked)}")
    if schema is None or schema.drawn:  # without: of npple 0.1.0, which learned otherwise
        learned = Schema.learn(columns, **roles, rows=train, min_count=min_count, missing=missing,
                               standardise=standardise, form=form, drawn=DRAWN,
                               separator=separator, pool=pool)
        require(schema in (None, learned),
                "--resume: the rows or how they are read differ from what the run was started "
                "with, expected the same data, --log, --min-count, --missing, --raw-targets and "
                "options of bags")
        schema = learned
    rows = schema.encode(columns)
    validation = schema.encode(held_out) if held_out is not None else rows.take(rest)
    return Prepared(schema.with_unknown(rows.take(train), seed), validation, schema)


def _times(name: str, texts: Sequence[str]) -> Values:
    """The order of moments: as numbers if all are, else as texts such as 2024-05-06."""
    words = Texts.of(name, texts).distinct
    require("" not in words[0], f"column {name!r}: a row has no time, expected one in each")
    try:
        return np.array([float(word) for word in words[0]])[words[1]]
    except ValueError:
        return np.array(words[0])[words[1]]
