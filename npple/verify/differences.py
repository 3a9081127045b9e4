"""Derivatives by real differences that say how far off they may be.

Central differences at steps h, h/r, h/r², ... are extrapolated to h = 0 (Richardson 1911). The
bound of each result is made of what the last extrapolation changed, of the rounding of the values,
and of the second difference extrapolated alike: (f(h) + f(-h) - 2 f(0)) / h goes to 0 with h unless
there is a kink. The best of all results is taken, over steps of nine decades around the unit.
"""

from __future__ import annotations

from collections.abc import Callable
from math import factorial

import numpy as np

from npple.core.base import Array, Codes, Mask

RATIO = 1 + 8 ** 0.5  # r, irrational: a function whose period fits all steps would look constant
# Its powers, times the unit, that are taken as steps: a row is tried where none before it did.
FAR = (3, 2, 1, 0)
LADDERS = ((-1, -2, -3, -4), (-4, -5, -6, -7), (-7, -8, -9, -10), FAR, (-10, -11, -12, -13))
SIDES = (-4, -8)  # those at which slopes to both sides are compared


def differentiate(f: Callable[[Codes, Array], Array], still: Array, unit: Array, noise: float,
                  enough: Callable[[Array, Array], Mask]) -> tuple[Array, Array]:
    """The derivatives at 0 of n functions of a number, and a bound of the error of each.

    f takes which of the functions (m,) and steps (k, m) and returns values (k, m); `still` is f(0),
    the same for all; unit (n,); noise is how exact values are. Once `enough` says of the
    derivatives and bounds (n,) that they are good, no further steps are taken.
    """
    value, bound = np.zeros(unit.shape, unit.dtype), np.full(unit.shape, np.inf)
    with np.errstate(all="ignore"):  # far steps may leave the domain of f: they are no use then
        for ladder in LADDERS:
            at = np.flatnonzero(~enough(value, bound))
            if at.size:
                steps = unit[at] * (unit.dtype.type(RATIO) ** np.array(ladder))[:, None]
                found, error = _extrapolated(steps, f(at, steps), f(at, -steps), still, noise)
                better = error < bound[at]
                if ladder is FAR:  # what is periodic has no slope from far: nearer steps decide
                    better &= np.abs(found - value[at]) <= bound[at]
                value[at[better]], bound[at[better]] = found[better], error[better]
    return value, bound


def _extrapolated(steps: Array, plus: Array, minus: Array, still: Array, noise: float
                  ) -> tuple[Array, Array]:
    """The best derivatives (m,) and their bounds, from values (k, m) at shrinking steps (k, m)."""
    slope, kink = (plus - minus) / (2 * steps), (plus - still + (minus - still)) / steps
    values, bounds = [], []
    for order in range(1, len(steps)):
        finer, coarser = slope[1:], slope[:-1]
        slope = finer + (finer - coarser) / (RATIO ** (2 * order) - 1)
        kink = kink[1:] + (kink[1:] - kink[:-1]) / (RATIO ** (2 * order - 1) - 1)
        changed = np.maximum(np.abs(slope - finer), np.abs(slope - coarser) / RATIO)
        values.append(slope)
        bounds.append(changed + np.abs(kink) + 2 * noise / steps[order:])
    value, bound = np.concatenate(values), np.concatenate(bounds)
    bound = np.where(np.isfinite(value) & np.isfinite(bound), bound, np.inf)
    best = bound.argmin(axis=0), np.arange(bound.shape[1])
    return np.where(np.isfinite(value[best]), value[best], 0), bound[best]


def gaps(f: Callable[[Codes, Array], Array], still: Array, unit: Array, noise: float) -> Array:
    """By how much the slopes to both sides of 0 differ, of n functions as `differentiate` takes.

    0 where no kink is seen: of a smooth function they differ the less the smaller the steps.
    """
    steps = unit * (unit.dtype.type(RATIO) ** np.array(SIDES))[:, None]
    at = np.arange(unit.size)
    with np.errstate(all="ignore"):
        wide, narrow = np.abs(f(at, steps) - still + (f(at, -steps) - still)) / steps
    return np.where(narrow > np.maximum(wide / 2, 8 * noise / steps[1]), narrow, 0)


def units(value: Array) -> Array:
    """The size of each entry, as a first guess of what the function bends on."""
    size = np.abs(value)
    largest = size.max(initial=0)
    return np.maximum(size, largest / 1024) if largest else np.ones_like(size)


def noise_level(values: Array) -> float:
    """How exact a function is, from its values at equally spaced near points (Moré & Wild 2011).

    Differences of high order leave nothing of a smooth function, and of noise a known part.
    """
    levels = []
    for order in range(1, len(values) - 1):
        values = np.diff(values)
        scale = factorial(order) ** 2 / factorial(2 * order)
        levels.append(float(np.sqrt(scale * np.mean(values ** 2))))
    return min(levels[2:])
