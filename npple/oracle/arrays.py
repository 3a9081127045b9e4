"""A candidate's values as arrays, each with what it was computed in."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from npple.core.base import Array
from npple.errors import require
from npple.oracle.rounding import UNITS


def as_arrays(results: Mapping[str, Any], what: str = "candidate"
              ) -> tuple[dict[str, Array], dict[str, str]]:
    """A candidate's results as real arrays, and what each was computed in.

    Tensors of other libraries are taken by duck typing (`detach`, `cpu`, `__array__`).

    Raises
    ------
    InputError
        For anything that is no mapping from names to real numbers.
    """
    require(isinstance(results, Mapping),
            f"{what}: a dict of arrays by name is needed, got {type(results).__name__}")
    arrays, precisions = {}, {}
    for name, value in results.items():
        require(isinstance(name, str), f"{what}: names are text, got {name!r}")
        arrays[name], precisions[name] = _real(f"{what}: {name}", value)
    return arrays, precisions


def _real(name: str, value: Any) -> tuple[Array, str]:
    """One array, and its precision; float64 for integers, in which small ones are exact."""
    require(not isinstance(value, np.ma.MaskedArray),
            f"{name}: real numbers are needed, got a masked array; fill it first")
    for step in ("detach", "cpu"):
        value = getattr(value, step, lambda value=value: value)()
    dtype = getattr(value, "dtype", "")
    precision = str(getattr(dtype, "name", dtype)).rpartition(".")[2]  # TensorFlow's have a name
    if precision == "bfloat16":  # NumPy has none of its own
        value = value.float() if hasattr(value, "float") else value.astype(np.float32)
    try:
        array = np.asarray(value)
    except Exception as error:
        require(False, f"{name}: not an array: {error}")
    require(array.dtype.kind in "biuf",
            f"{name}: real numbers are needed, got dtype {array.dtype}")
    return array, precision if precision in UNITS else "float64"
