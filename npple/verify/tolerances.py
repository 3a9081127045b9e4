"""What a gradient check allows: how far a right gradient may be off, in the check's own measure.

    error = |a - b| / max(|a|, |b|, floor)    floor = 1e-2 · the largest |a| or |b| of the tensor

so an entry that is small because large terms cancel is not judged finer than they are rounded. A
gradient is right if it is within RIGHT eps of the exact one by this measure, or within the smallest
number of its dtype; docs/checking-gradients.md derives the tolerances from that.
"""

from __future__ import annotations

from typing import cast

import numpy as np

from npple.core.base import Array

FRACTION = 1e-2  # of the tensor's largest entry: the floor of the error measure
RIGHT = 1e-12 / float(np.finfo(np.float64).eps)  # eps, about 4500: 5e-4 in float32
RIGHT_FLOAT16 = RIGHT / 100  # which has no room for more: 4 %
DIGITS = 2.5  # times the root of eps: what is asked of differences
LIMIT = 0.1  # a tensor whose tolerance were larger is not judged
JUDGED = 0.9  # the part of each tensor's entries that a passing check has judged


def eps_of(dtype: np.dtype[np.inexact]) -> float:
    """The distance from 1 to the next number of a dtype."""
    return float(np.finfo(cast(np.dtype[np.floating], dtype)).eps)


def size_of(entries: Array) -> float:
    """The largest of entries by its absolute value, among those that are finite."""
    return float(np.max(np.abs(entries), where=np.isfinite(entries), initial=0))


def allowed(*dtypes: np.dtype[np.inexact]) -> float:
    """The error of a right gradient, of whose dtype and the function's the coarser counts."""
    kinds = (*dtypes, np.dtype(np.float64))
    return max((RIGHT_FLOAT16 if kind == np.float16 else RIGHT) * eps_of(kind)
               for kind in kinds)


def by_entry(dtype: np.dtype[np.inexact], computed_in: np.dtype[np.inexact], floor: float
             ) -> float:
    """The tolerance for entries one by one."""
    return allowed(dtype, computed_in) + _smallest(dtype, 1.0, floor)


def by_difference(dtype: np.dtype[np.inexact], computed_in: np.dtype[np.inexact], floor: float
                  ) -> float:
    """The same against differences, which find half of the digits of a value."""
    digits = DIGITS * eps_of(computed_in) ** 0.5
    return max(allowed(dtype), digits) + _smallest(dtype, 1.0, floor)


def by_direction(dtype: np.dtype[np.inexact], computed_in: np.dtype[np.inexact], floor: float,
                 v: Array) -> float:
    """The tolerance for derivatives along a direction v, in which n entries count alike.

    Signs are random, so the errors of n entries add up as sqrt(n) do, and the norm of n entries
    grows as sqrt(n): what single ill-conditioned entries are allowed counts sqrt(n) times less.
    """
    averaged = allowed(dtype, computed_in) / np.sqrt(max(1, v.size / 2))
    return float(averaged) + _smallest(dtype, float(np.sqrt((v ** 2).sum())), floor)


def _smallest(dtype: np.dtype[np.inexact], factor: float, floor: float) -> float:
    """What an error of the smallest number of a dtype in each entry is by the measure."""
    smallest = np.finfo(cast(np.dtype[np.floating], dtype)).smallest_subnormal
    return float(smallest) * factor / floor if floor else 0.0
