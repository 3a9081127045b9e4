"""A candidate's values as arrays, each with what it was computed in."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from npple.checks import named
from npple.core.base import AnyArray, Array
from npple.errors import InputError, require
from npple.oracle.rounding import UNITS


def as_arrays(results: Mapping[str, Any], what: str = "candidate"
              ) -> tuple[dict[str, Array], dict[str, str]]:
    """A candidate's results as real arrays, and what each was computed in.

    Tensors of other libraries are taken by duck typing, see `as_numpy`.

    Raises
    ------
    InputError
        For anything that is no mapping from names to real numbers.
    """
    require(isinstance(results, Mapping),
            f"{what}: a dict of arrays by name is needed, got {type(results).__name__}")
    arrays, precisions = {}, {}
    for name, value in results.items():
        require(isinstance(name, str) and name.isprintable(),
                f"{what}: names are printable text, got {name!r:.80}")
        arrays[name], precisions[name] = _real(f"{what}: {named(name)}", value)
    return arrays, precisions


def _real(name: str, value: Any) -> tuple[Array, str]:
    """One array, and its precision; float64 for integers, in which small ones are exact."""
    require(not isinstance(value, np.ma.MaskedArray),
            f"{name}: real numbers are needed, got a masked array; fill it first")
    sparse = getattr(value, "is_sparse", False)  # PyTorch; of Paddle a method
    sparse = sparse() if callable(sparse) else sparse
    require(not sparse and not hasattr(value, "toarray"),
            f"{name}: a dense array is needed, got a sparse {type(value).__name__}; "
            "make it dense first (.toarray(), .to_dense())")
    dtype = getattr(value, "dtype", "")
    precision = str(getattr(dtype, "name", dtype)).rpartition(".")[2]  # TensorFlow's have a name
    array = as_numpy(name, value)
    precision = precision or array.dtype.name
    if array.dtype.name == "bfloat16":  # of ml_dtypes, as TensorFlow and JAX have it
        array = array.astype(np.float32)
    kind = "" if hasattr(value, "dtype") else f", of a {type(value).__name__}"
    require(array.dtype.kind in "biuf",
            f"{name}: real numbers are needed, got dtype {array.dtype}{kind}")
    return array, precision if precision in UNITS else "float64"


def as_numpy(name: str, value: Any) -> AnyArray:
    """The array of any library as NumPy's, in its own dtype where NumPy has that.

    Raises
    ------
    InputError
        For what cannot be one.
    """
    try:
        for step in ("detach", "cpu"):
            value = getattr(value, step, lambda value=value: value)()
        if str(getattr(value, "dtype", "")).endswith("bfloat16") and hasattr(value, "float"):
            value = value.float()  # of PyTorch, which NumPy has not
        foreign = hasattr(value, "__dlpack__") and not hasattr(value, "__array__")
        return np.from_dlpack(value) if foreign else np.asarray(value)
    except Exception as error:  # of a library of another's
        raise InputError(f"{name}: not an array: {error}") from error
