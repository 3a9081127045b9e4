"""A table as people have it, as columns of text: a file, a dict, or a frame of a library."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from npple.checks import check_path, shown
from npple.errors import FileError, InputError, require
from npple.learn.census import bundled, census_split, read_census
from npple.learn.columns import CSV, Columns, Dress, Texts, read_columns
from npple.learn.kuairand import kuairand_split, read_kuairand


def columns_of(frame: object, form: str = "csv", dress: Dress = CSV) -> Mapping[str, Texts]:
    """A table as columns of text, written as a CSV file would have them; nothing is missing as "".

    Parameters
    ----------
    frame : path, dict, or anything with `columns` (pandas, polars, pyarrow)
        A path is a CSV file, or a parquet file where pandas or polars can read one. A dict is
        column -> list or array. A list in a cell stands for its values with | between them.
    form : str, optional
        "census" for a path in the census' own format; then "census" is the bundled sample, and a
        folder with both published files stands for the half of the test file to judge by.
        "kuairand" for a log of KuaiRand-Pure; a folder stands for the later of its standard logs.
    dress : Dress, optional
        How a CSV file is written down.

    Returns
    -------
    dict column -> Texts

    Raises
    ------
    FileError
        If a file cannot be read.
    InputError
        If it is no table.
    """
    if isinstance(frame, (str, os.PathLike)):
        check_path("path", frame)
        path = os.fspath(frame)
        if form == "csv" and not path.endswith(".parquet"):
            return read_columns(path, dress.names, dress.delimiter, dress.encoding)
        _refuse_unused(dress)
        if form == "census":
            if os.path.isdir(path):
                return census_split(path).test
            return bundled() if path == "census" else read_census(path)
        if form == "kuairand":
            return kuairand_split(path)[1] if os.path.isdir(path) else read_kuairand(path)
        frame = _parquet(path)
    _refuse_unused(dress)
    names: list[Any]
    if isinstance(frame, Mapping):
        names, parts = list(frame), list(frame.values())
    else:
        named = getattr(frame, "column_names", getattr(frame, "columns", None))
        require(named is not None, f"frame: {shown(frame)}, expected a path, a dict of columns, or "
                                   "a table of pandas, polars or pyarrow")
        names = [*named]  # type: ignore[misc]
        doubled = [name for name in names if names.count(name) > 1]
        require(not doubled, f"frame: column {shown(doubled[:1])} comes more than once")
        parts = [frame[name] for name in names]  # type: ignore[index]
    columns = Columns({str(name): _texts(str(name), part) for name, part in zip(names, parts)})
    lengths = {len(column): name for name, column in columns.items()}
    require(len(lengths) < 2, "frame: columns of different lengths, " + " and ".join(
        f"{length} ({shown(name)})" for length, name in sorted(lengths.items())[:2]))
    return columns


def _refuse_unused(dress: Dress) -> None:
    """Raise `InputError` for what says how a CSV file is written down."""
    for what, value, default in zip(("delimiter", "columns", "encoding"), dress, CSV):
        require(value is default or isinstance(value, str) and value == default,
                f"{what}: {shown(value)}, of no use but for a CSV file")


def _parquet(path: str) -> Any:
    """A parquet file, by the first library that is there."""
    for library in ("polars", "pandas"):
        try:
            return import_module(library).read_parquet(path)
        except ImportError:
            continue
        except Exception as error:
            raise FileError(f"{path}: {shown(error)}, expected a parquet file") from None
    raise FileError(f"{path}: polars, or pandas with pyarrow, is needed to read parquet files")


def _texts(name: str, values: Any) -> Texts:
    """A column as texts: a number as short as it can be read back, nothing for what is missing."""
    if isinstance(values, Texts):
        return values
    try:
        cells = values.tolist() if hasattr(values, "tolist") else list(values)
    except TypeError:
        cells = None
    if not isinstance(cells, list):
        raise InputError(f"column {shown(name)}: {shown(values)}, expected a list or array")
    if cells and hasattr(cells[0], "as_py"):  # pyarrow
        cells = [cell.as_py() for cell in cells]
    try:
        return Texts.of(name, list(map(_text, cells)))
    except Exception:  # of an object of another's
        raise InputError(f"column {shown(name)}: {shown(values)}, expected texts and numbers"
                         ) from None


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value.strip(" ")
    if isinstance(value, (list, tuple, np.ndarray)):  # a bag
        return "|".join(map(_text, value))
    missing = value is None or type(value).__name__ in ("NAType", "NaTType") or value != value
    if isinstance(value, (float, np.floating)) and not missing:
        number = float(value)
        return repr(number) if math.isfinite(number) else str(number)
    return "" if missing else str(value)
