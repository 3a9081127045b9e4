"""How far rounding alone may take each tensor: Monte Carlo arithmetic on the reference itself.

The same forward, backward and Adam run in float64 on arrays that perturb every result of every
operation, and every term of every sum, at random by up to `SAFETY` unit roundoffs (Parker 1997,
"Monte Carlo Arithmetic"). The largest deviation over some copies is what a correct program in that
precision may show, whatever its order of summation and whichever of the usual formulas it takes.
"""

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from npple.core.base import Float64
from npple.oracle.deviant_rows import Textbook, deviant_gate, with_rows
from npple.oracle.flow import compute
from npple.oracle.variant import Variant, each_column
from npple.routing import Gate
from npple.verify.cases import Case

Tolerances: TypeAlias = dict[str, tuple[float, ...]]  # by name, a number a precision
UNITS = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
SAFETY = 8  # unit roundoffs that one operation may be off by
FLOOR = 16  # unit roundoffs, of a tensor's largest entry, that are always forgiven
COPIES = 8  # random runs a precision
EXACT = {"maximum", "negative", "absolute"}  # operations that do not round
NEAR_ONE = {"exp", "ndtr"}  # what the usual formulas take from 1: 1 - y², 1 + erf(z), p - y
PRODUCTS = {"multiply", "square"}
SMALLEST = 2.0**-24  # the smallest number of float16: the other precisions do not underflow here
POOL = 2**20  # random numbers, taken from a random place on
FINE = 2.0**-34  # stands for float64, whose own unit roundoff cannot be seen in float64: the
                 # deviations are linear in it, and scaled back


def tolerances(variant: Variant, case: Case, precisions: Collection[str] = tuple(UNITS),
               wanted: Collection[str] | None = None) -> Tolerances:
    """The deviation from the exact value that each precision excuses.

    Parameters
    ----------
    variant : npple.oracle.variant.Variant
    case : npple.verify.cases.Case
        In float64, from `npple.oracle.variant.cast`.
    precisions : sequence of str
        Keys of `UNITS`, finest first: none excuses less than a finer one.
    wanted : collection of str, optional
        As for `npple.oracle.variant.compute`.

    Returns
    -------
    dict of tuple of float
        Name -> one number a precision: relative to the largest entry of the tensor.
    """
    noise = np.array([max(UNITS[p], FINE) for p in precisions])
    scale = np.array([UNITS[p] for p in precisions]) / noise
    floor = FLOOR * np.array([UNITS[p] for p in precisions])
    exact = compute(variant, case, wanted)
    perturbed = compute(textbook(variant), noisy_case(case, noise), wanted)
    found = {}
    with np.errstate(all="ignore"):
        for (name, y), (_, noisy) in zip(exact, perturbed):
            largest = np.abs(y).max()
            error = np.abs(noisy.view(np.ndarray) - y).reshape(len(noise), -1).max(axis=1)
            least = floor / min(largest, 1) if name.startswith("loss") else floor
            allowed = np.maximum.accumulate(np.maximum(scale * error / largest, least))
            found[name] = tuple(allowed.tolist() if largest else [0.0] * len(noise))
    return found


def textbook(variant: Variant) -> Variant:
    """The variant with textbook gates in the place of the paper's."""
    def change(row: Any) -> Any:
        if type(row) is Gate:
            return Textbook(**vars(row))
        softmax = isinstance(row, Gate) and getattr(row, "squash", "") == "softmax"
        return deviant_gate(row, squash="textbook") if softmax else row
    return replace(variant, table=with_rows(variant.table, change))


def noisy_case(case: Case, units: Float64, safety: float = SAFETY) -> Case:
    """The case with `COPIES` copies a unit roundoff of all its floats, stacked in front."""
    copies = noisy(units, safety)
    return replace(case, params={name: copies(p) for name, p in case.params.items()},
                   x=each_column(case.x, copies),
                   gradients={name: copies(g) for name, g in case.gradients.items()})


@cache
def _pool() -> tuple[Float64, Any]:
    """Random numbers, drawn once for all runs, and the state of their generator after them."""
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, POOL), rng.bit_generator.state


def noisy(units: Float64, safety: float = SAFETY) -> Callable[[Any], Any]:
    """Turns an array into copies, stacked in front, whose every operation is off at random.

    `COPIES` of them for each unit roundoff, of which an operation may be off by `safety`.
    """
    amplitude = safety * np.repeat(units, COPIES)
    rng = np.random.default_rng(0)
    pool, rng.bit_generator.state = _pool()
    coarse = np.repeat(units == UNITS["float16"], COPIES)

    def shake(array: Any) -> Any:
        """array (copies, ...) times 1 + amplitude · [-1, 1)."""
        start = rng.integers(POOL // 2)
        noise = pool[start:start + array.size]
        noise = (noise.reshape(array.shape) if noise.size == array.size
                 else np.resize(noise, array.shape))
        noise = noise * amplitude.reshape(-1, *(1,) * (array.ndim - 1))
        noise *= array
        noise += array
        return noise

    def rounded(operation: str, result: Any) -> Any:
        """The result of an operation as a rounding one could have it."""
        if operation in NEAR_ONE:
            return shake(result + 1) - 1
        if operation in EXACT:
            return result
        shaken = shake(result)
        if operation in PRODUCTS and coarse.any():  # what underflows is off by a smallest number
            start = result.size % (POOL // 2)
            small = np.resize(pool[start:start + result.size], result.shape)[coarse]
            lost = shaken[coarse] + SMALLEST * small
            shaken[coarse] = np.where(lost * result[coarse] > 0, lost, 0.0)
        return shaken

    class Noisy(np.ndarray):
        """An array whose every operation is off by random roundings."""

        def __array_ufunc__(self, ufunc: Any, method: Any, *inputs: Any, out: Any = None,
                            **options: Any) -> Any:
            arrays = [np.asarray(array) for array in inputs]
            if ufunc is np.matmul or ufunc is np.add and method != "__call__":
                arrays[0] = shake(arrays[0])  # the terms of a sum
            result = np.asarray(getattr(ufunc, method)(*arrays, **options))
            if result.dtype.kind == "f":
                result = rounded(ufunc.__name__, result).view(Noisy)
            if out is None:
                return result
            out[0][...] = result
            return out[0]

        def __array_function__(self, function: Any, types: Any, inputs: Any, options: Any) -> Any:
            result = super().__array_function__(function, types, inputs, options)
            return result.view(Noisy) if isinstance(result, np.ndarray) else result

    def copies(array: Any) -> Any:
        if array.dtype.kind != "f":
            return array
        return np.broadcast_to(array, (len(amplitude), *array.shape)).view(Noisy)

    return copies
