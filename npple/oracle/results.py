"""A candidate's tensors, compared one by one."""

from dataclasses import dataclass

import numpy as np

from npple.core.base import Array
from npple.oracle.rounding import FLOOR

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
            return np.inf
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
        return TensorRow(name, np.inf, tolerance, precision=precision,
                         fault=f"shape {got.shape}, expected {expected.shape}")
    got, expected = got.astype(np.float64), expected.astype(np.float64)
    if not np.isfinite(got).all():
        index = tuple(map(int, np.argwhere(~np.isfinite(got))[0]))
        return TensorRow(name, np.inf, tolerance, index, None, float(expected[index]),
                         f"{got[index]} at {index}", precision)
    error = np.abs(got - expected)
    index = tuple(map(int, np.unravel_index(np.argmax(error), error.shape)))
    largest = float(np.abs(expected).max())
    if largest:
        tolerance += FLOOR * SMALLEST[precision] / largest
    return TensorRow(name, float(error[index]) / (largest or 1.0), tolerance, index,
                     float(got[index]), float(expected[index]), precision=precision)
