"""A candidate's tensors: taken from a dictionary, a file or a folder, and compared one by one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from npple.archive import FilePath
from npple.checks import check_path
from npple.core.base import Array
from npple.errors import FileError, require
from npple.oracle.rounding import FLOOR, UNITS

SMALLEST = {"float64": 2.0**-1074, "float32": 2.0**-149, "float16": 2.0**-24,
            "bfloat16": 2.0**-133}  # the smallest positive number: what underflow may cost


@dataclass(frozen=True)
class TensorRow:
    """One tensor compared.

    Attributes
    ----------
    name : str
    error : float
        The largest difference, relative to the largest expected entry; infinite with a fault.
    tolerance : float
        The error that rounding excuses.
    index : tuple of int
        Where the largest difference is.
    got, expected : float or None
        The two values there.
    fault : str
        What else is wrong, the shape or an entry that is not finite; empty where nothing is.
    precision : str
        What the tensor was computed in, as far as is known.
    """

    name: str
    error: float
    tolerance: float
    index: tuple[int, ...] = ()
    got: float | None = None
    expected: float | None = None
    fault: str = ""
    precision: str = "float64"

    @property
    def passed(self) -> bool:
        """Whether there is no fault and rounding excuses the error."""
        return not self.fault and self.error <= self.tolerance

    @property
    def excess(self) -> float:
        """The error in units of the tolerance."""
        if self.fault or self.error > 0 == self.tolerance:
            return float("inf")
        return self.error / self.tolerance if self.error else 0.0


def compare(name: str, got: Array, expected: Array, tolerance: float, precision: str) -> TensorRow:
    """One `TensorRow`.

    Parameters
    ----------
    name : str
    got, expected : ndarray
    tolerance : float
        Relative to the largest expected entry.
    precision : str
        Of the candidate: underflow in it is forgiven.
    """
    if got.shape != expected.shape:
        return TensorRow(name, float("inf"), tolerance, precision=precision,
                         fault=f"shape {got.shape}, expected {expected.shape}")
    got, expected = got.astype(np.float64), expected.astype(np.float64)
    if not np.isfinite(got).all():
        index = tuple(map(int, np.argwhere(~np.isfinite(got))[0]))
        return TensorRow(name, float("inf"), tolerance, index, None, float(expected[index]),
                         f"{got[index]} at {index}", precision)
    error = np.abs(got - expected)
    index = tuple(map(int, np.unravel_index(np.argmax(error), error.shape)))
    largest = float(np.abs(expected).max())
    if largest:
        tolerance += FLOOR * SMALLEST[precision] / largest
    return TensorRow(name, float(error[index]) / (largest or 1.0), tolerance, index,
                     float(got[index]), float(expected[index]), precision=precision)


def read_results(path: FilePath) -> dict[str, Any]:
    """The named arrays of an `.npz` file, or of the `.npy` files in a folder and its subfolders.

    Parameters
    ----------
    path : str or path
        The file or the folder.

    Returns
    -------
    dict of ndarray
        By name: in a folder the path of the file within it, without `.npy`.

    Raises
    ------
    InputError
        If `path` is no path.
    FileError
        If there is nothing to read at `path`, or it cannot be read.
    """
    check_path("path", path)
    path, arrays, name = Path(path), {}, None
    try:
        if path.is_dir():
            for file in sorted(path.rglob("*.npy")):
                name = file.relative_to(path).with_suffix("").as_posix()
                arrays[name] = np.load(file, allow_pickle=False)
        else:
            file = np.load(path, allow_pickle=False)
            require(isinstance(file, np.lib.npyio.NpzFile), "a single array, which has no name")
            with file:
                for name in (n for n in file.files if n != "meta.json"):
                    arrays[name] = file[name]
    except Exception as error:  # zipfile and numpy document no complete list
        reason = " ".join(str(error).split()) or type(error).__name__
        where = f"{name}: " if name else ""
        raise FileError(f"{path}: no results file (.npz) or folder of .npy: {where}{reason}") \
            from error
    if not arrays:
        raise FileError(f"{path}: no results: holds no arrays")
    return arrays


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
    for step in ("detach", "cpu"):
        value = getattr(value, step, lambda value=value: value)()
    precision = str(getattr(value, "dtype", "")).rpartition(".")[2]
    if precision == "bfloat16":  # NumPy has none of its own
        value = value.float() if hasattr(value, "float") else value.astype(np.float32)
    try:
        array = np.asarray(value)
    except Exception as error:
        require(False, f"{name}: not an array: {error}")
    require(array.dtype.kind in "biuf",
            f"{name}: real numbers are needed, got dtype {array.dtype}")
    return array, precision if precision in UNITS else "float64"
