"""Gradient checks whose only excuse is rounding: every entry, against methods that share no trick.

A check holds the gradient that the backward pass returns against one found from the loss alone. How
far a right gradient may be off is in `tolerances`, what is assumed of a function of others in
`premises`, how real differences know their own error in `differences`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, ClassVar, TypeAlias, cast
from zlib import crc32

import numpy as np

from npple.checks import (check_array, check_choice, check_count, check_dicts, check_kind,
                          check_noise, check_number, check_params, check_weights, check_x, is_plain,
                          shown)
from npple.core.base import (Array, Arrays, Cache, Codes, Columns, Features, Mask, Masks, Printed,
                              Targets)
from npple.core.blocks import blas_with_one_thread
from npple.core.passes import backward, forward, joint_loss, penalty_forward
from npple.errors import CheckFailed, require
from npple.kinds import check_targets
from npple.network import Network
from npple.printing import aligned
from npple.verify.differences import differentiate, gaps, units
from npple.verify.premises import (STEP, Function, FunctionLoss, checked, even_direction, examined,
                                   step_of)
from npple.verify.tolerances import (DIGITS, FRACTION, JUDGED, LIMIT, by_difference, by_direction,
                                     by_entry, eps_of, size_of)

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["METHODS", "GradcheckReport", "GradientRow", "demonstrate", "gradcheck",
           "gradcheck_function", "hessian_vector"]

DIRECTIONS = 4  # a tensor, by the directional method
RESOLVED = 256  # times noise / unit: the bound of a difference that is 0 at the first steps
SEEN = 1e-10  # times loss / unit: the same for exact losses at smaller steps, where a kink is near
CHUNK = 2**24  # bytes of tensors that perturbed copies evaluated together may take


# The report -------------------------------------------------------------------------------------

@dataclass(frozen=True)
class GradientRow:
    """The result for one tensor.

    Attributes
    ----------
    name : str
    shape : tuple of int
    checked, skipped : int
        Entries judged, and those that could not be.
    error : float
        The largest, relative to max(|analytic|, |numeric|, 1e-2 · the tensor's largest entry).
    index : tuple of int
        Where it is; by the directional method the number of the direction.
    analytic, numeric : float
        The two values there; by the directional method derivatives along the direction.
    tolerance : float
        The largest error that passes.
    reason : str
        Why entries were not judged; empty if all were.
    """

    name: str
    shape: tuple[int, ...]
    checked: int
    skipped: int
    error: float
    index: tuple[int, ...]
    analytic: float
    numeric: float
    tolerance: float
    reason: str

    @property
    def enough(self) -> bool:
        """Whether nine tenths of the entries were judged."""
        return self.checked >= JUDGED * (self.checked + self.skipped)

    def __str__(self) -> str:
        index = ", ".join(map(str, self.index))
        return (f"{self.name}[{index}]: relative error {self.error:.3g}, "
                f"analytic {self.analytic:.17g}, numeric {self.numeric:.17g}")


@dataclass(frozen=True, repr=False)
class GradcheckReport(Printed):
    """What a gradient check found; prints as an aligned table.

    Attributes
    ----------
    method : str
    rows : tuple of GradientRow
        One a tensor.
    remarks : tuple of str
        Premises that could not be checked.
    """

    method: str
    rows: tuple[GradientRow, ...]
    remarks: tuple[str, ...] = ()

    @property
    def tolerance(self) -> float:
        """The largest tolerance of a tensor; each is judged by its own."""
        return max(row.tolerance for row in self.rows)

    @property
    def max_relative_error(self) -> float:
        """The largest error of all tensors."""
        return max(row.error for row in self.rows)

    @property
    def verdict(self) -> str:
        """"passed", "FAILED", "not judged" if too few entries were, or "no verdict".

        By the method "longdouble" there is none: a wrong formula is as wrong in more digits.
        """
        if self.method == "longdouble":
            return "no verdict"
        if any(row.error > row.tolerance for row in self.rows):
            return "FAILED"
        return "passed" if all(row.enough for row in self.rows) else "not judged"

    @property
    def passed(self) -> bool | None:
        """Whether no error exceeds its tolerance and nine tenths of each tensor were judged.

        None by the method "longdouble", which gives no verdict.
        """
        return None if self.verdict == "no verdict" else self.verdict == "passed"

    @property
    def worst(self) -> GradientRow:
        """The row whose error is the most times its tolerance."""
        return max(self.rows, key=lambda row: row.error / row.tolerance if row.tolerance
                   else np.inf * (row.error > 0))

    @property
    def checked(self) -> int:
        """How many entries were judged."""
        return sum(row.checked for row in self.rows)

    @property
    def skipped(self) -> int:
        """How many entries could not be judged."""
        return sum(row.skipped for row in self.rows)

    @property
    def unjudged(self) -> list[str]:
        """A line for each tensor that has entries which were not judged, with the reason."""
        return [f"{row.name}: {row.skipped} of {row.checked + row.skipped} not judged: {row.reason}"
                for row in self.rows if row.skipped]

    def check(self) -> GradcheckReport:
        """Asserts that the check passed.

        Returns
        -------
        GradcheckReport
            Itself.

        Raises
        ------
        CheckFailed
            An AssertionError, naming the worst entry, or what was not judged.
        """
        if self.verdict == "no verdict":
            raise CheckFailed(f"{self.method} measures rounding and gives no verdict on a formula: "
                              f"{self.worst}")
        if self.verdict == "FAILED":
            raise CheckFailed(f"{self.method}: {self.worst} exceeds {self.worst.tolerance:.3g}")
        if self.verdict == "not judged":
            raise CheckFailed(f"{self.method}: " + "; ".join([*self.unjudged, *self.remarks]))
        return self

    def __str__(self) -> str:
        lines = [("tensor", "shape", "checked", "not judged", "error", "tolerance", "at",
                  "analytic", "numeric")]
        lines += [(row.name, "×".join(map(str, row.shape)), str(row.checked), str(row.skipped),
                   f"{row.error:.1e}", f"{row.tolerance:.1e}", ",".join(map(str, row.index)),
                   f"{row.analytic:.6e}", f"{row.numeric:.6e}") for row in self.rows]
        found = f"error {self.max_relative_error:.1e}, tolerance up to {self.tolerance:.1e}"
        if self.verdict == "FAILED":  # another tensor may be further off, and may be allowed to
            found = (f"error {self.worst.error:.1e}, tolerance {self.worst.tolerance:.1e}, in "
                     f"{self.worst.name}")
        summary = (f"{self.method}: {self.checked} checked, {self.skipped} not judged, largest "
                   f"{found}: {self.verdict}")
        if self.verdict == "no verdict":
            summary = (f"{self.method}: the same formula in extended precision: what differs, at "
                       f"most {self.max_relative_error:.1e}, is rounding; no verdict on the "
                       "formula")
        table = aligned(lines, (2, 3, 4, 5, 7, 8))
        return "\n".join([table, *self.unjudged, *self.remarks, summary])


# The checks -------------------------------------------------------------------------------------

def gradcheck(model: Network, params: Arrays, x: Array | Columns, targets: Columns,
              masks: Masks | None = None, weights: Mapping[str, float] | None = None,
              noise: Arrays | None = None, *, method: str = "complex-step", inputs: bool = False,
              grads: Arrays | None = None, tolerance: float | None = None,
              executor: Executor | None = None, seed: int = 0) -> GradcheckReport:
    """Checks the gradient of a model's loss, penalties included, against the loss alone.

    Parameters
    ----------
    model : npple.network.Network
    params : dict of ndarray
        Real, as from `model.init`.
    x : ndarray (batch, width), or dict of ndarray (batch,)
        Features in the precision of the parameters, categorical columns as integer codes.
    targets : dict of ndarray (batch,)
        By task: 0 or 1 for "binary", real for "regression", classes from 0 for "multiclass:K".
    masks : dict of bool ndarray (batch,), optional
        By task: False for rows outside its sample space. Tasks not named have all rows.
    weights : dict of float, optional
        The weight of each task's loss; 1 by default.
    noise : dict of ndarray, optional
        As from `model.noise`, for models with routing variables; none by default.
    method : str
        "complex-step"
            Im L(theta + i h e_j) / h for every entry by itself, h = 1e-30: nothing cancels
            (Squire & Trapp 1998). The default.
        "directional"
            The same along 4 random directions a tensor, in which every entry counts alike; for
            large models.
        "central-differences"
            (L(theta + h e_j) - L(theta - h e_j)) / 2h in extended precision, extrapolated to
            h = 0. Each entry has steps of its own, and a bound of what they leave; an entry
            whose bound is too large (at a kink of relu, say) is not judged.
        "longdouble"
            The same backward pass in extended precision: measures rounding and gives no verdict,
            for a wrong formula is wrong in every precision.
    inputs : bool
        Whether to check the gradient of the features, too: `x`, or `x/column`.
    grads : dict of ndarray, optional
        The gradients to check (from another implementation, say); by default the model's own.
    tolerance : float, optional
        The largest error that passes. By default each tensor has its own, from the dtype of its
        gradient: 1e-12 in float64, 5e-4 in float32; docs/checking-gradients.md derives it.
    executor : concurrent.futures.Executor, optional
        Maps over the tensors.
    seed : int
        Of the random directions.

    Returns
    -------
    GradcheckReport

    Raises
    ------
    InputError
        For arguments that `model.loss_and_grads` refuses, an unknown method, complex parameters.
    """
    check_choice("method", method, METHODS)
    check_count("seed", seed, 0)
    require(type(inputs) is bool, f"inputs: True or False is needed, got {shown(inputs)}")
    loss = model_loss(model, params, x, targets, masks, weights, noise)
    names = [name for name, value in loss.values.items()
             if name in params or inputs and value.dtype.kind == "f"]
    if grads is None:
        grads = loss.gradient()
    return _check(loss, names, grads, method, tolerance, executor, seed)


def gradcheck_function(f: Function, grad: Function, x: Arrays, *, method: str = "complex-step",
                       tolerance: float | None = None, executor: Executor | None = None,
                       seed: int = 0) -> GradcheckReport:
    """Checks somebody else's gradient of a real function of named arrays.

    What the check assumes of `f` and `grad` is checked, too: that they depend on their argument
    alone and leave it as it is, and for complex steps that `f` is analytic.

    Parameters
    ----------
    f : callable
        dict of ndarray -> a number, whose dtype says what it is computed in. For the complex-step
        methods it must accept complex arrays and be analytic: no `abs`, `conj`, `.real`.
    grad : callable
        dict of ndarray -> dict of ndarray, df/dx by name.
    x : dict of ndarray
        Where: arrays of real floats. `f` gets them as they are or in float64 if that is wider,
        by the complex-step methods as complex numbers, for "longdouble" in that.
    method : str
        One of those of `gradcheck`; differences are in float64 here.
    tolerance : float, optional
        The largest error that passes. By default each array has its own, from the dtype of its
        gradient or of the value of `f`, whichever is coarser.
    executor : concurrent.futures.Executor, optional
        Maps over the arrays.
    seed : int
        Of the random directions.

    Returns
    -------
    GradcheckReport

    Raises
    ------
    InputError
        For an unknown method, arrays that are not real floats, gradients of the wrong names or
        shapes, and premises that do not hold: `f` or `grad` is not deterministic, changes its
        argument, is not analytic.
    """
    check_choice("method", method, METHODS)
    check_count("seed", seed, 0)
    for what, function in (("f", f), ("grad", grad)):
        require(callable(function), f"{what}: a function is needed, got {shown(function)}")
    require(isinstance(x, dict) and x, f"x: a dict of arrays is needed, got {shown(x)}")
    for name, value in x.items():
        require(isinstance(name, str), f"x: names are texts, got {shown(name)}")
        require(is_plain(value) and value.dtype.kind == "f",
                f"x: {shown(name)}: an array of real floats is needed, got {shown(value)}")
        require(value.size, f"x: {shown(name)}: it is empty: nothing to check, leave it out")
        require(np.isfinite(value).all(), f"x: {shown(name)}: not finite")
    loss, grads = examined(f, grad, x, method in ("complex-step", "directional"),
                           generator(seed, ""))
    return _check(loss, list(x), grads, method, tolerance, executor, seed)


def hessian_vector(model: Network, params: Arrays, vector: Arrays, x: Array | Columns,
                   targets: Columns, masks: Masks | None = None,
                   weights: Mapping[str, float] | None = None, noise: Arrays | None = None
                   ) -> dict[str, Array]:
    """H v, the Hessian of the joint loss times a vector, exact to rounding.

    The imaginary part of the backward pass on theta + i h v / s, times s / h (Squire & Trapp's step
    on the gradient), s the power of 2 that makes the largest entry of v about 1. Costs about as
    much as two backward passes.

    Parameters
    ----------
    model : npple.network.Network
    params : dict of ndarray
        Real, as from `model.init`.
    vector : dict of ndarray
        v: names and shapes of `params`.
    x : ndarray (batch, width), or dict of ndarray (batch,)
        Features in the precision of the parameters, categorical columns as integer codes.
    targets : dict of ndarray (batch,)
        By task: 0 or 1 for "binary", real for "regression", classes from 0 for "multiclass:K".
    masks : dict of bool ndarray (batch,), optional
        By task: False for rows outside its sample space. Tasks not named have all rows.
    weights : dict of float, optional
        The weight of each task's loss; 1 by default.
    noise : dict of ndarray, optional
        As from `model.noise`, for models with routing variables; none by default.

    Returns
    -------
    dict of ndarray
        Names, shapes and dtype of `params`.

    Raises
    ------
    InputError
        For arguments that `model.loss_and_grads` refuses, complex parameters, or a vector that
        does not fit them or is not finite.

    References
    ----------
    Squire and Trapp, "Using complex variables to estimate derivatives of real functions", SIAM
    Review 40, 1998.
    """
    loss = model_loss(model, params, x, targets, masks, weights, noise).cast(np.float64)
    check_dicts(vector=vector)
    v = {name: check_array(f"vector: {name}", vector.get(name)) for name in params}
    for name, p in params.items():
        require(v[name].shape == p.shape and v[name].dtype.kind in "iuf",
                f"vector: {name}: an array of shape {p.shape} is needed, got {shown(v[name])}")
        dtype = loss.values[name].dtype
        require(np.result_type(v[name], dtype) == dtype, f"vector: {name}: {v[name].dtype} is "
                f"wider than {dtype}, which is computed in: convert with .astype")
        v[name] = v[name].astype(dtype)
        require(np.isfinite(v[name]).all(), f"vector: {name}: not finite")
    _, power = np.frexp(max(np.abs(along).max(initial=0) for along in v.values()))
    steps = {name: loss.values[name] + 1j * STEP * np.ldexp(along, -power)
             for name, along in v.items()}
    grads = replace(loss, values=loss.values | steps).gradient()
    return {name: np.ldexp(grads[name].imag / STEP, power).astype(p.dtype)
            for name, p in params.items()}


def demonstrate(name: str, tasks: int | Mapping[str, str] = 3, levels: int = 2, *,
                method: str = "complex-step", executor: Executor | None = None, seed: int = 0
                ) -> GradcheckReport:
    """`gradcheck` of an architecture on a random case: parameters, features and data from a seed.

    Parameters
    ----------
    name : str
        A key of `npple.ARCHITECTURES`.
    tasks : int or dict of str
        The number of tasks (their kinds take turns), or task -> kind.
    levels : int
        Extraction levels, for the architectures that have them.
    method : str
        One of those of `gradcheck`.
    executor : concurrent.futures.Executor, optional
        Maps over the tensors.
    seed : int
        Of the case and of the random directions.

    Returns
    -------
    GradcheckReport

    Raises
    ------
    InputError
        For an unknown architecture or method, or numbers out of their range.
    """
    from npple.verify.cases import random_case, random_model
    case = random_case(random_model(name, tasks, levels), seed)
    return gradcheck(case.model, case.params, *case.batch, method=method, executor=executor,
                     seed=seed)


# What is checked: a loss of named values --------------------------------------------------------

@dataclass(frozen=True)
class ModelLoss:
    """A model's loss as a function of parameters and features by name."""

    values: dict[str, Array]  # and codes
    model: Network
    targets: Targets
    masks: Masks
    weights: Mapping[str, float]
    noises: Arrays

    widest = np.longdouble  # the precision of differences
    wobble = 0.0  # npple's tables keep the premises of every method: the tests hold that
    unsure: ClassVar[Mapping[str, Array]] = {}
    remarks = ()

    def cast(self, dtype: type[np.floating]) -> ModelLoss:
        """The same loss of the same values, in `dtype` where that is the more precise."""
        return replace(self, values=_cast(self.values, dtype), noises=_cast(self.noises, dtype))

    @cached_property
    def extended_gradient(self) -> dict[str, Array]:
        """The gradient of the same backward pass in extended precision."""
        return self.cast(np.longdouble).gradient()

    @cached_property
    def computed_in(self) -> np.dtype[np.inexact]:
        """The dtype of the loss by differences."""
        return np.dtype(self.widest)

    @cached_property
    def noise(self) -> float:
        """How exact the loss is, by differences."""
        loss = self.cast(self.widest)
        name = next(iter(self.model.shapes))
        return float(np.finfo(self.widest).eps * np.abs(loss(name, loss.values[name][None])[0]))

    @cached_property
    def footprint(self) -> int:
        """How many numbers the intermediates of a copy take."""
        params, x = self._arguments(self.values)
        caches = forward(self.model.table, params, x, self.noises).caches
        return sum(array.size for array in _arrays(caches))

    @blas_with_one_thread()
    def __call__(self, name: str, copies: Array) -> Array:
        """The losses (copies,) with `name` replaced by each of its copies."""
        params, x = self._arguments(self.values | {name: copies})
        trace = forward(self.model.table, params, x, self.noises)
        loss, _ = joint_loss(trace, self.targets, self.masks, self.weights)
        loss = loss + penalty_forward(self.model.table, params)[0]
        return np.broadcast_to(loss, len(copies))

    @blas_with_one_thread()
    def gradient(self) -> dict[str, Array]:
        """dL/d(value) by name: the model's own for parameters, from `backward` for features."""
        params, x = self._arguments(self.values)
        batch = self.targets, self.masks, self.weights
        trace = forward(self.model.table, params, x, self.noises)
        found = {name: np.zeros_like(value) for name, value in self.values.items()}
        found |= backward(trace, joint_loss(trace, *batch)[1])
        if "input" in found:
            found["x"] = found["input"]  # what a matrix is called here
        _, grads = self.model.loss_and_grads(params, x, *batch, self.noises)
        return {name: found[name] for name in self.values} | grads

    def _arguments(self, values: Arrays) -> tuple[Arrays, Features]:
        """Parameters and features as the network takes them."""
        inputs = self.model.table.inputs
        x = (values["x"] if isinstance(inputs, int)
             else {name: values[f"x/{name}"] for name, _ in inputs})
        return {name: values[name] for name in self.model.shapes}, x


def model_loss(model: Network, params: Arrays, x: Array | Columns, targets: Columns,
               masks: Masks | None = None, weights: Mapping[str, float] | None = None,
               noise: Arrays | None = None) -> ModelLoss:
    """From the arguments of a user, which are checked here."""
    check_kind("model", model, Network, "a Network")
    dtype = check_params(model.table, params)
    require(dtype.kind == "f", f"params: real parameters are needed, got {dtype}")
    x, rows = check_x(model.table, x, dtype)
    targets, masks = check_targets(model.table, targets, masks, rows, dtype)
    weights, noise = check_weights(model.table, weights), check_noise(model.table, noise, dtype)
    columns = {f"x/{n}": column for n, column in x.items()} if isinstance(x, dict) else {"x": x}
    return ModelLoss({**params, **cast(Arrays, columns)}, model, targets, masks, weights, noise)


def _cast(values: Arrays, dtype: type[np.floating]
          ) -> dict[str, Array]:
    """The floats among the values in `dtype` where it is the more precise; codes as they are."""
    return {name: value.astype(np.result_type(value, dtype), copy=False)
            if value.dtype.kind == "f" else value for name, value in values.items()}


def _arrays(cache: Cache) -> Iterator[Array]:
    """All arrays in nested dictionaries, lists and tuples."""
    if isinstance(cache, np.ndarray):
        yield cache
    elif isinstance(cache, (dict, list, tuple)):
        for part in cache.values() if isinstance(cache, dict) else cache:
            yield from _arrays(part)


Loss: TypeAlias = ModelLoss | FunctionLoss


# The methods ------------------------------------------------------------------------------------
# Those by entry measure (loss, name) -> the derivatives by each entry, bounds of their errors, and
# where the loss does not move at all.

Measured: TypeAlias = tuple[Array, Array, Mask]


def widened(loss: Loss, method: str) -> Loss:
    """The loss at values as precise as a method needs them, once for all tensors."""
    if method == "longdouble":
        return loss
    return loss.cast(loss.widest if method == "central-differences" else np.float64)


def _complex_step(loss: Loss, name: str) -> Measured:
    """Im L(theta + i h e_j) / h for each j."""
    shape = loss.values[name].shape
    every = np.arange(loss.values[name].size)
    unit = units(loss.values[name].ravel())
    steps = step_of(loss.computed_in) * unit
    numeric = _moved(loss, name, every, 1j * steps[None])[0].imag / steps
    bound = _gaps(loss, name, partial(_moved, loss, name), unit)
    return numeric.reshape(shape), bound.reshape(shape), np.zeros(shape, bool)


def _gaps(loss: Loss, name: str, f: Callable[[Codes, Array], Array], unit: Array) -> Array:
    """By how much complex steps may be off: at a kink they take one side."""
    if name not in loss.unsure:
        return np.zeros_like(unit)
    return gaps(f, loss(name, loss.values[name][None])[0], unit, loss.noise)


def _central_differences(loss: Loss, name: str) -> Measured:
    """Differences extrapolated to a step of 0, which bound their own errors."""
    value, digits = loss.values[name], DIGITS * eps_of(loss.computed_in) ** 0.5

    def enough(found: Array, bound: Array) -> Mask:
        sure = np.maximum(np.abs(found) - bound, 0)
        larger = np.maximum(sure, FRACTION * sure.max(initial=0))
        return (bound <= digits / 4 * larger) & (larger > 0)

    unit, here = units(value.ravel()), loss(name, value[None])[0]
    numeric, bound = differentiate(partial(_moved, loss, name), here, unit, loss.noise, enough)
    still = (numeric == 0) & (bound <= max(RESOLVED * loss.noise, SEEN * abs(here)) / unit)
    return (numeric.reshape(value.shape), bound.reshape(value.shape), still.reshape(value.shape))


def _longdouble(loss: Loss, name: str) -> Measured:
    """The gradient of the same backward pass in extended precision."""
    numeric = loss.extended_gradient[name]
    return numeric, np.zeros(numeric.shape), np.zeros(numeric.shape, bool)


METHODS: dict[str, Callable[[Loss, str], Measured] | None] = {
    "complex-step": _complex_step, "directional": None, "central-differences": _central_differences,
    "longdouble": _longdouble}


def _moved(loss: Loss, name: str, entries: Codes, steps: Array) -> Array:
    """The losses with one entry each moved by a step: entries (m,), steps (k, m) -> (k, m)."""
    value, count = loss.values[name], len(steps)
    moved = np.empty(steps.shape, steps.dtype)
    size = value.size + loss.footprint
    chunk = max(1, CHUNK // (size * steps.itemsize * count))
    for start in range(0, len(entries), chunk):
        some = entries[start:start + chunk]
        copies = np.zeros((count, len(some), value.size), steps.dtype) + value.ravel()
        copies[:, np.arange(len(some)), some] += steps[:, start:start + chunk]
        losses = loss(name, copies.reshape(-1, *value.shape))
        moved[:, start:start + chunk] = losses.reshape(count, -1)
    return moved


@dataclass(frozen=True)
class Sides:
    """Two sides of a check of one tensor: equally many values, and what is allowed between them."""

    ours: Array
    theirs: Array
    bound: Array  # of the error of theirs
    floor: float | Array
    tolerance: float
    still: Mask  # where theirs is 0 as far as can be seen
    doubt: float | Array = 0.0  # a difference up to that may be theirs: complex steps, unchecked

    @cached_property
    def larger(self) -> Array:
        """What errors are relative to."""
        sizes = [np.where(np.isfinite(side), np.abs(side), 0) for side in (self.ours, self.theirs)]
        return np.maximum(np.maximum(*sizes), self.floor)

    @cached_property
    def judged(self) -> Mask:
        """Where theirs is known to half the tolerance, or both are 0 as far as can be seen."""
        known = (self.bound <= self.tolerance / 2 * self.larger) & ~self.open
        return known | self.still & (self.ours == 0) | ~np.isfinite(self.ours)

    @cached_property
    def open(self) -> Mask:
        """Where they differ, and nobody knows whose fault it is."""
        off = np.abs(self.ours - self.theirs)
        return (off > self.tolerance * self.larger) & (off <= self.doubt)

    @cached_property
    def error(self) -> Array:
        """The errors of the entries that are judged, 0 for the others."""
        larger = np.where(self.larger == 0, 1, self.larger)
        error = np.abs(self.ours - self.theirs) / larger
        return np.where(self.judged, np.where(np.isnan(error), np.inf, error), 0)


def compare_entries(loss: Loss, method: str, analytic: Array, measured: Measured,
                    tolerance: float | None = None) -> Sides:
    """Each entry against its derivative."""
    numeric, bound, still = measured
    sure = np.maximum(np.abs(numeric) - bound, 0)
    floor = FRACTION * max(size_of(analytic), size_of(sure))
    by_differences = method == "central-differences"
    if tolerance is None:
        tolerance = (by_difference(analytic.dtype, loss.computed_in, floor) if by_differences
                     else by_entry(analytic.dtype, loss.computed_in, floor))
    bound = bound + 10 * loss.wobble * size_of(sure)
    return Sides(analytic, numeric, bound, floor, tolerance, still)


def compare_directions(loss: Loss, name: str, analytic: Array, rng: np.random.Generator,
                       tolerance: float | None = None) -> Sides:
    """Im L(theta + i h v) / h against g·v along directions v in which every entry counts alike."""
    v = even_direction(analytic, (DIRECTIONS,), rng)
    value = loss.values[name]
    unit = 1 / np.max(np.abs(v) / units(value), axis=tuple(range(1, v.ndim)))
    step = step_of(loss.computed_in) * unit.min()
    numeric = loss(name, value + 1j * step * v).imag / step
    with np.errstate(all="ignore"):  # of gradients that are not finite, which fail
        terms = (v * analytic).reshape(DIRECTIONS, -1)
        ours = terms.sum(axis=1)
    floor = np.hypot.reduce(np.where(np.isfinite(terms), terms, 0), axis=1)
    if tolerance is None:
        tolerance = by_direction(analytic.dtype, loss.computed_in, float(floor.min()), v[0])

    def along(at: Codes, t: Array) -> Array:
        moved = value + t.reshape(*t.shape, *(1,) * value.ndim) * v[at]
        return loss(name, moved.reshape(-1, *value.shape)).reshape(t.shape)

    bound = 10 * loss.wobble * floor + _gaps(loss, name, along, unit)
    still = np.zeros(DIRECTIONS, bool)
    doubt = np.hypot.reduce((v * loss.unsure.get(name, 0.0)).reshape(DIRECTIONS, -1), axis=1)
    return Sides(ours, numeric, bound, floor, tolerance, still, doubt)


def _row(loss: Loss, method: str, seed: int, tolerance: float | None, name: str, analytic: Array
         ) -> GradientRow:
    """Runs one method on one tensor."""
    measure = METHODS[method]
    if measure is None:
        both = compare_directions(loss, name, analytic, generator(seed, name), tolerance)
    else:
        both = replace(compare_entries(loss, method, analytic, measure(loss, name), tolerance),
                       doubt=loss.unsure.get(name, 0.0))
    return row_of(name, analytic, both, by_entry=measure is not None,
                  given=tolerance is not None)


def row_of(name: str, analytic: Array, both: Sides, by_entry: bool, given: bool = False
           ) -> GradientRow:
    """The result for one tensor from its comparison."""
    error, judged, reason = both.error, both.judged, ""
    if not given and both.tolerance > LIMIT:
        judged, error = np.zeros_like(judged), np.zeros_like(error)
        reason = (f"{analytic.dtype} is too coarse for gradients of at most "
                  f"{size_of(analytic):.1e}; use a wider dtype, or scale the loss")
    elif not judged.all():
        reason = _why(both, np.argmin(judged))
    at = np.unravel_index(np.argmax(error), error.shape)
    checked = int(judged.sum()) if by_entry else analytic.size * bool(judged.all())
    return GradientRow(name, analytic.shape, checked, analytic.size - checked, float(error[at]),
                       tuple(map(int, at)), float(both.ours[at]), float(both.theirs[at]),
                       both.tolerance if given else min(both.tolerance, LIMIT), reason)


def _why(both: Sides, first: np.intp) -> str:
    """Why an entry is not judged."""
    bound, needed = both.bound.flat[first], both.tolerance / 2 * both.larger.flat[first]
    if not np.isfinite(bound):
        return "the loss is not finite at any step around it"
    if bound <= needed:
        return (f"the gradient is {both.ours.flat[first]:.6g}, the complex step "
                f"{both.theirs.flat[first]:.6g}, and whether f is analytic could not be checked; "
                "use method='central-differences'")
    return (f"the derivative is known to ± {bound:.1g} at best, to judge it takes {needed:.1g}: "
            "there is a kink, or the loss is too coarse or not deterministic")


def generator(seed: int, name: str) -> np.random.Generator:
    """What a tensor's random directions are drawn with."""
    return np.random.default_rng([seed, crc32(name.encode(errors="surrogatepass"))])


def _check(loss: Loss, names: Sequence[str], grads: Arrays, method: str, tolerance: float | None,
           executor: Executor | None, seed: int) -> GradcheckReport:
    """Runs a method on every tensor."""
    check_dicts(grads=grads)
    grads = {name: np.asarray(g) if isinstance(g, np.generic) else g for name, g in grads.items()}
    if tolerance is not None:
        tolerance = check_number("tolerance", tolerance)
    grads = checked(grads, {name: loss.values[name] for name in names})
    run = partial(_row, widened(loss, method), method, seed, tolerance)
    rows = (map if executor is None else executor.map)(run, names, [grads[n] for n in names])
    return GradcheckReport(method, tuple(rows), loss.remarks)
