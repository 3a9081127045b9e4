"""Gradient checks whose only excuse is rounding: every entry, against methods that share no trick.

A check holds the gradient that the backward pass returns against one found from the loss alone.
The error of an entry with the two values a and b is, in every method,

    |a - b| / max(|a|, |b|, floor)        floor = 1e-2 · the largest |a| or |b| of the tensor

so an entry that is small because large terms cancel is not judged finer than they are rounded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from zlib import crc32

import numpy as np

from npple.checks import (check_array, check_choice, check_count, check_dicts, check_noise,
                          check_number, check_params, check_weights, check_x, is_plain, shown)
from npple.kinds import check_targets
from npple.errors import CheckFailed, require
from npple.core.passes import backward, forward, joint_loss, penalty_forward
from npple.network import Network

FRACTION = 1e-2  # of the tensor's largest entry: the floor of the error measure
STEP = 1e-30  # of complex steps: its square is nothing beside 1, its products with tiny numbers are
           # not yet 0
DIRECTIONS = 4  # a tensor, by the directional method
CHUNK = 2**24  # bytes of tensors that perturbed copies evaluated together may take


# The report -------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Row:
    """The result for one tensor.

    Attributes
    ----------
    name : str
    shape : tuple of int
    checked, skipped : int
        Entries judged, and those that differences cannot judge, their steps crossing a kink.
    error : float
        The largest, relative to max(|analytic|, |numeric|, 1e-2 · the tensor's largest entry).
    index : tuple of int
        Where it is; by the directional method the number of the direction.
    analytic, numeric : float
        The two values there; by the directional method derivatives along the direction.
    """

    name: str
    shape: tuple[int, ...]
    checked: int
    skipped: int
    error: float
    index: tuple[int, ...]
    analytic: float
    numeric: float

    def __str__(self):
        index = ", ".join(map(str, self.index))
        return (f"{self.name}[{index}]: relative error {self.error:.3g}, "
                f"analytic {self.analytic:.17g}, numeric {self.numeric:.17g}")


@dataclass(frozen=True)
class GradcheckReport:
    """What a gradient check found; prints as an aligned table.

    Attributes
    ----------
    method : str
    tolerance : float
        The largest error that passes.
    rows : tuple of Row
        One a tensor.
    """

    method: str
    tolerance: float
    rows: tuple[Row, ...]

    @property
    def max_relative_error(self):
        """The largest error of all tensors."""
        return float(np.max([row.error for row in self.rows]))

    @property
    def passed(self):
        """Whether no error exceeds the tolerance."""
        return self.max_relative_error <= self.tolerance

    @property
    def worst(self):
        """The row with the largest error."""
        return self.rows[int(np.argmax([row.error for row in self.rows]))]

    @property
    def checked(self):
        """How many entries were judged."""
        return sum(row.checked for row in self.rows)

    @property
    def skipped(self):
        """How many entries were left out, their steps crossing a kink."""
        return sum(row.skipped for row in self.rows)

    def check(self):
        """Asserts that the check passed.

        Returns
        -------
        GradcheckReport
            Itself.

        Raises
        ------
        CheckFailed
            An AssertionError, naming the worst entry.
        """
        if not self.passed:
            raise CheckFailed(f"{self.method}: {self.worst} exceeds {self.tolerance:.3g}")
        return self

    def __str__(self):
        lines = [("tensor", "shape", "checked", "skipped", "error", "at", "analytic", "numeric")]
        lines += [(row.name, "×".join(map(str, row.shape)), str(row.checked), str(row.skipped),
                   f"{row.error:.1e}", ",".join(map(str, row.index)), f"{row.analytic:.6e}",
                   f"{row.numeric:.6e}") for row in self.rows]
        widths = [max(map(len, column)) for column in zip(*lines)]
        table = ["  ".join(cell.ljust(width) if i in (0, 1, 5) else cell.rjust(width)
                           for i, (cell, width) in enumerate(zip(line, widths))).rstrip()
                 for line in lines]
        return "\n".join([*table, f"{self.method}: {self.checked} checked, {self.skipped} skipped, "
                          f"largest error {self.max_relative_error:.1e}, tolerance "
                          f"{self.tolerance:.1e}: {'passed' if self.passed else 'FAILED'}"])


# The checks -------------------------------------------------------------------------------------

def gradcheck(model, params, x, targets, masks=None, weights=None, noise=None, *,
              method="complex-step", inputs=False, grads=None, tolerance=None, executor=None,
              seed=0):
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
            (L(theta + h e_j) - L(theta - h e_j)) / 2h in extended precision, Richardson
            extrapolation from h, h/2 and h/4; entries whose steps cross a kink (of relu, of a
            clipped routing variable) are skipped.
        "longdouble"
            The same backward pass in extended precision: what is left is the rounding of the
            first.
    inputs : bool
        Whether to check the gradient of the features, too: `x`, or `x/column`.
    grads : dict of ndarray, optional
        The gradients to check (from another implementation, say); by default the model's own.
    tolerance : float, optional
        The largest error that passes; by default 1e-12, with differences 1e-8, and as many times
        more as the dtype of `params` is coarser than float64.
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
    require(type(inputs) is bool, f"inputs: True or False is needed, got {shown(inputs)}")
    loss = _ModelLoss.of(model, params, x, targets, masks, weights, noise)
    names = [name for name, value in loss.values.items()
             if name in params or inputs and value.dtype.kind == "f"]
    if grads is None:
        grads = loss.gradient()
    return _check(loss, names, grads, method, tolerance, executor, seed)


def gradcheck_function(f, grad, x, *, method="complex-step", tolerance=None, executor=None, seed=0):
    """Checks somebody else's gradient of a real function of named arrays.

    Parameters
    ----------
    f : callable
        dict of ndarray -> a number. For the complex-step methods it must accept complex arrays and
        be analytic: no `abs`, `conj`, comparison of complex numbers.
    grad : callable
        dict of ndarray -> dict of ndarray, df/dx by name.
    x : dict of ndarray
        Where: arrays of real floats. `f` gets them as they are or in float64 if that is wider,
        by the complex-step methods as complex numbers, for "longdouble" in that.
    method : str
        One of those of `gradcheck`; no entries are skipped here.
    tolerance : float, optional
        The largest error that passes; by default that of `gradcheck`.
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
        shapes, a result of `f` that is real where it must be complex.
    """
    for what, function in (("f", f), ("grad", grad)):
        require(callable(function), f"{what}: a function is needed, got {shown(function)}")
    require(isinstance(x, dict) and x, f"x: a dict of arrays is needed, got {shown(x)}")
    for name, value in x.items():
        require(isinstance(name, str), f"x: names are texts, got {shown(name)}")
        require(is_plain(value) and value.dtype.kind == "f" and value.size,
                f"x: {shown(name)}: an array of real floats is needed, got {shown(value)}")
    loss = _FunctionLoss(dict(x), f, grad)
    return _check(loss, list(x), loss.gradient(), method, tolerance, executor, seed)


def hessian_vector(model, params, vector, x, targets, masks=None, weights=None, noise=None):
    """H v, the Hessian of the joint loss times a vector, exact to rounding.

    The imaginary part of the backward pass on theta + i h v, divided by h (Squire & Trapp's step
    on the gradient); costs about as much as two backward passes.

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
        does not fit them.

    References
    ----------
    Squire and Trapp, "Using complex variables to estimate derivatives of real functions", SIAM
    Review 40, 1998.
    """
    loss = _ModelLoss.of(model, params, x, targets, masks, weights, noise).cast(np.float64)
    check_dicts(vector=vector)
    along = {}
    for name, p in params.items():
        v = check_array(f"vector: {name}", vector.get(name))
        require(v.shape == p.shape and v.dtype.kind in "iuf",
                f"vector: {name}: an array of shape {p.shape} is needed, got {shown(v)}")
        dtype = loss.values[name].dtype
        require(np.result_type(v, dtype) == dtype, f"vector: {name}: {v.dtype} is wider than "
                f"{dtype}, which is computed in: convert with .astype")
        along[name] = loss.values[name] + 1j * STEP * v
    grads = replace(loss, values=loss.values | along).gradient()
    return {name: (grads[name].imag / STEP).astype(p.dtype) for name, p in params.items()}


def demonstrate(name, tasks=3, levels=2, *, method="complex-step", executor=None, seed=0):
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
class _Loss:
    """A loss as a function of the arrays `values`, and its gradient."""

    values: dict

    def cast(self, dtype):
        """The same loss of the same values, in `dtype` where that is the more precise."""
        return replace(self, values=_cast(self.values, dtype))

    @cached_property
    def extended_gradient(self):
        return self.cast(np.longdouble).gradient()


@dataclass(frozen=True)
class _ModelLoss(_Loss):
    """A model's loss as a function of parameters and features by name."""

    model: Network
    targets: dict
    masks: dict
    weights: dict
    noise: dict

    widest = np.longdouble  # the precision of differences

    @classmethod
    def of(cls, model, params, x, targets, masks, weights, noise):
        """From the arguments of a user, which are checked here."""
        dtype = check_params(model.table, params)
        require(dtype.kind == "f", f"params: real parameters are needed, got {dtype}")
        x, rows = check_x(model.table, x, dtype)
        targets, masks = check_targets(model.table, targets, masks, rows, dtype)
        weights, noise = check_weights(model.table, weights), check_noise(model.table, noise, dtype)
        x = {f"x/{name}": column for name, column in x.items()} if isinstance(x, dict) else {"x": x}
        return cls(params | x, model, targets, masks, weights, noise)

    def cast(self, dtype):
        return replace(super().cast(dtype), noise=_cast(self.noise, dtype))

    def __call__(self, name, copies):
        """The losses (copies,) with `name` replaced by each of its copies, and the caches."""
        params, x = self._arguments(self.values | {name: copies})
        trace = forward(self.model.table, params, x, self.noise)
        loss, _ = joint_loss(trace, self.targets, self.masks, self.weights)
        loss = loss + penalty_forward(self.model.table, params)[0]
        return np.broadcast_to(loss, len(copies)), trace.caches

    def gradient(self):
        """dL/d(value) by name: the model's own for parameters, from `backward` for features."""
        params, x = self._arguments(self.values)
        batch = self.targets, self.masks, self.weights
        trace = forward(self.model.table, params, x, self.noise)
        found = {name: np.zeros_like(value) for name, value in self.values.items()}
        found |= backward(trace, joint_loss(trace, *batch)[1])
        if "input" in found:
            found["x"] = found["input"]  # what a matrix is called here
        _, grads = self.model.loss_and_grads(params, x, *batch, self.noise)
        return {name: found[name] for name in self.values} | grads

    def _arguments(self, values):
        """Parameters and features as the network takes them."""
        inputs = self.model.table.inputs
        x = (values["x"] if isinstance(inputs, int)
             else {name: values[f"x/{name}"] for name, _ in inputs})
        return {name: values[name] for name in self.model.shapes}, x


@dataclass(frozen=True)
class _FunctionLoss(_Loss):
    """Somebody's function of named values, copy by copy, and their gradient."""

    f: object
    grad: object

    widest = np.float64  # many a function refuses longdouble

    def __call__(self, name, copies):
        values = {other: value.astype(copies.dtype) for other, value in self.values.items()}
        losses = np.array([self.f(values | {name: copy}) for copy in copies])
        require(losses.shape == (len(copies),),
                f"f: one number is needed, got an array of shape {losses.shape[1:]}")
        require(copies.dtype.kind != "c" or losses.dtype.kind == "c",
                "f: real result for complex arrays; use method='central-differences'")
        return losses, ()

    def gradient(self):
        return self.grad(self.values)


def _cast(values, dtype):
    """The floats among the values in `dtype` where it is the more precise; codes as they are."""
    return {name: value.astype(np.result_type(value, dtype), copy=False)
            if value.dtype.kind == "f" else value for name, value in values.items()}


# The methods ------------------------------------------------------------------------------------
# Each takes (loss, name, analytic gradient, rng) and returns the values to compare, analytic and
# numeric, which of them to skip, and the floor of the error measure.

def _complex_step(loss, name, analytic, rng):
    """Im L(theta + i h e_j) / h for each j."""
    numeric, skipped = _each_entry(loss.cast(np.float64), name, np.array([1j * STEP]),
                                   lambda losses: losses[0].imag / STEP)
    return analytic, numeric, skipped, _floor(analytic, numeric)


def _central_differences(loss, name, analytic, rng):
    """D(h) = (L(+h) - L(-h)) / 2h; (64 D(h/4) - 20 D(h/2) + D(h)) / 45 is exact to O(h⁶)."""
    loss = loss.cast(loss.widest)
    eps = np.finfo(loss.values[name].dtype).eps
    steps = eps ** (1 / 7) / np.array([1, 2, 4], eps.dtype)  # rounding eps / h meets h⁶

    def extrapolate(losses):  # (6, entries) -> (entries,)
        differences = (losses[:3] - losses[3:]) / (2 * steps[:, None])
        return np.array([1, -20, 64], eps.dtype) @ differences / 45

    numeric, skipped = _each_entry(loss, name, np.concatenate([steps, -steps]), extrapolate)
    return analytic, numeric, skipped, _floor(analytic, numeric)


def _directional(loss, name, analytic, rng):
    """Im L(theta + i h v) / h against g·v along directions v in which every entry counts alike.

    v_j = r_j G / max(|g_j|, 1e-2 G), G the largest |g_j|, r_j in ±[1/2, 1): an entry off by the
    relative error e moves g·v by at least e G / 2. The floor is the norm of (g_j v_j).
    """
    shape = (DIRECTIONS, *analytic.shape)
    r = rng.uniform(0.5, 1, shape) * rng.choice([-1, 1], shape)
    size = np.where(np.isfinite(analytic), np.abs(analytic), 0)
    v = r * size.max() / np.maximum(size, FRACTION * size.max()) if size.any() else r
    terms = (v * analytic).reshape(DIRECTIONS, -1)
    loss = loss.cast(np.float64)
    numeric = loss(name, loss.values[name] + 1j * STEP * v)[0].imag / STEP
    floor = np.sqrt((terms ** 2).sum(axis=1))
    return terms.sum(axis=1), numeric, np.zeros(DIRECTIONS, bool), floor


def _longdouble(loss, name, analytic, rng):
    """The gradient of the same backward pass in extended precision."""
    numeric = loss.extended_gradient[name]
    return analytic, numeric, np.zeros(analytic.shape, bool), _floor(analytic, numeric)


METHODS = {  # the method and the largest error that passes in float64
    "complex-step": (_complex_step, 1e-12),
    "directional": (_directional, 1e-12),
    "central-differences": (_central_differences, 1e-8),
    "longdouble": (_longdouble, 1e-12),
}


def _each_entry(loss, name, steps, combine):
    """The derivative by each entry, and whether a step in it crosses a kink.

    `combine` takes the losses (s, entries) at the `steps` (s,) and returns derivatives (entries,).
    Entries above 1 take steps as many times larger.
    """
    value = loss.values[name]
    scale = np.maximum(np.abs(value.ravel()), 1)
    numeric = np.empty(value.size, value.dtype)
    skipped = np.zeros(value.size, bool)
    _, caches = loss(name, value[None])
    size = value.size + sum(array.size for array in _arrays(caches))
    chunk = max(1, CHUNK // (size * steps.itemsize * len(steps)))
    for start in range(0, value.size, chunk):
        entries = np.arange(start, min(start + chunk, value.size))
        copies = np.zeros((len(steps), len(entries), value.size), steps.dtype) + value.ravel()
        copies[:, entries - start, entries] += steps[:, None] * scale[entries]
        losses, moved = loss(name, copies.reshape(-1, *value.shape))
        numeric[entries] = combine(losses.reshape(len(steps), -1))
        skipped[entries] = _crossed(caches, moved, len(steps))
    return (numeric / scale).reshape(value.shape), skipped.reshape(value.shape)


def _crossed(caches, moved, steps):
    """For which entries the steps lie on both sides of a kink.

    The side that a value is on stands in the caches as a boolean: the backward pass needs it.
    Arrays that the entries do not reach have no axis of copies.
    """
    crossed = np.zeros(1, bool)
    for still, array in zip(_arrays(caches), _arrays(moved)):
        if array.dtype == bool and array.shape != still.shape and steps > 1:
            side = array.reshape(steps, len(array) // steps, -1)
            crossed = crossed | (side != side[0]).any(axis=(0, 2))
    return crossed


def _arrays(cache):
    """All arrays in nested dictionaries, lists and tuples, always in the same order."""
    if isinstance(cache, np.ndarray):
        yield cache
    elif isinstance(cache, (dict, list, tuple)):
        for part in cache.values() if isinstance(cache, dict) else cache:
            yield from _arrays(part)


def _floor(analytic, numeric):
    """The floor of the error measure: a small fraction of the tensor's largest entry."""
    return FRACTION * np.maximum(np.abs(analytic).max(), np.abs(numeric).max())


def _row(loss, method, seed, name, analytic):
    """Runs one method on one tensor."""
    rng = np.random.default_rng([seed, crc32(name.encode(errors="surrogatepass"))])
    ours, theirs, skipped, floor = METHODS[method][0](loss, name, analytic, rng)
    larger = np.maximum(np.maximum(np.abs(ours), np.abs(theirs)), floor)
    error = np.abs(ours - theirs) / np.where(larger == 0, 1, larger)
    error = np.where(skipped, 0, error)
    at = np.unravel_index(np.argmax(error), error.shape)
    return Row(name, analytic.shape, analytic.size - int(skipped.sum()), int(skipped.sum()),
               float(error[at]), tuple(map(int, at)), float(ours[at]), float(theirs[at]))


def _check(loss, names, grads, method, tolerance, executor, seed):
    """Runs a method on every tensor."""
    check_choice("method", method, METHODS)
    check_count("seed", seed, 0)
    check_dicts(grads=grads)
    grads = {name: np.asarray(g) if isinstance(g, np.generic) else g for name, g in grads.items()}
    if tolerance is not None:
        tolerance = check_number("tolerance", tolerance)
    for name in names:
        shape, g = loss.values[name].shape, grads.get(name)
        require(isinstance(g, np.ndarray) and g.shape == shape and g.dtype.kind == "f",
                f"grads: {name}: an array of real floats of shape {shape} is needed, got "
                + (f"{g.dtype} {g.shape}" if isinstance(g, np.ndarray) else type(g).__name__))
    if tolerance is None:
        coarser = max(np.finfo(grads[name].dtype).eps for name in names) / np.finfo(float).eps
        tolerance = METHODS[method][1] * max(1.0, float(coarser))
    run = partial(_row, loss, method, seed)
    rows = (map if executor is None else executor.map)(run, names, [grads[n] for n in names])
    return GradcheckReport(method, tolerance, tuple(rows))
