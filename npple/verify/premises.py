"""A function of others, and what a check of its gradient assumes of it: that is checked, too.

- Two calls at one point give the same bits. A small difference counts as noise.
- A call leaves its arguments as they are. Each gets copies of its own anyway.
- For complex steps: the function is analytic. Along a random direction of each tensor the complex
  step agrees with a real difference quotient, within that quotient's own bound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NoReturn, TypeAlias
from warnings import catch_warnings, simplefilter

import numpy as np

from npple.checks import check_dicts, shown
from npple.core.base import Array
from npple.errors import InputError, require
from npple.verify.differences import differentiate, noise_level, units
from npple.verify.tolerances import FRACTION, allowed, eps_of, size_of

STEP = 1e-30  # of complex steps: its square is nothing beside 1, its products with tiny numbers are
           # not yet 0
NOISE = 1e-6  # two calls that differ by more, relative to the values, are no function
KNOWN = 1e-2  # a quotient whose own bound is larger, relative to it, tells nothing
SURE = 1e-6  # one whose bound is no larger needs no further steps
NEAR = 1 / 16  # the unit of steps along a direction, in parts of the entries: few kinks are nearer
Function: TypeAlias = Callable[[dict[str, Array]], object]
WIDER = ("let it compute in float64: in PyTorch .double() and torch.float64 data, in JAX "
         "jax.config.update('jax_enable_x64', True), in TensorFlow tf.float64")


class NoComplexStep(InputError):
    """A function that complex steps cannot differentiate: differences can."""


@dataclass(frozen=True)
class FunctionLoss:
    """Somebody's function of named values, copy by copy, and their gradient.

    `computed_in` is the dtype of its values, `noise` how exact they are, `wobble` the relative
    difference of two calls, `remarks` what could not be checked.
    """

    values: dict[str, Array]
    f: Function
    grad: Function
    computed_in: np.dtype[np.inexact]
    noise: float = 0.0
    wobble: float = 0.0
    remarks: tuple[str, ...] = ()

    widest = np.float64  # many a function refuses longdouble
    footprint = 0  # copies are evaluated one by one

    def cast(self, dtype: type[np.floating]) -> FunctionLoss:
        """The same function at the same values, in `dtype` where that is the more precise."""
        return replace(self, values={name: value.astype(np.result_type(value, dtype), copy=False)
                                     for name, value in self.values.items()})

    @cached_property
    def extended_gradient(self) -> dict[str, Array]:
        """The claimed gradient in extended precision."""
        return self.cast(np.longdouble).gradient()

    def __call__(self, name: str, copies: Array) -> Array:
        """The values (copies,) with `name` replaced by each of its copies."""
        return np.array([_number(self.f({other: (copy if other == name else value).astype(
            copies.dtype) for other, value in self.values.items()})) for copy in copies])

    def gradient(self) -> dict[str, Array]:
        """df/d(value) by name, as claimed."""
        found = _call("grad", self.grad, self.values)
        check_dicts(grads=found)
        return {name: _array(g) for name, g in found.items()}  # type: ignore[attr-defined] # a dict


def examined(f: Function, grad: Function, x: Mapping[str, Array], complex_steps: bool,
             rng: np.random.Generator) -> tuple[FunctionLoss, dict[str, Array]]:
    """A function whose premises hold, and its claimed gradient; `InputError` where one does not."""
    loss = FunctionLoss(dict(x), f, grad, np.dtype(np.float64))
    wide = loss.cast(np.float64)
    first, second = (_number(_call("f", f, wide.values)) for _ in range(2))
    require(first.dtype.kind != "c", f"f: a real number is needed, got {first}")
    require(np.isfinite(first), f"f: its value at x is {first}: it has no gradient there")
    claimed = loss.gradient()
    wobble = _wobble("f", "its value", first, second)
    if first.dtype.kind == "f":
        loss = replace(loss, computed_in=first.dtype)
    eps = eps_of(loss.computed_in)
    loss = replace(loss, noise=max(eps * abs(float(first)), abs(float(first) - float(second)),
                                   4 * _noise_near(wide, rng)))
    remarks = [_analytic(loss.cast(np.float64), name, claimed.get(name), float(first), rng)
               for name in x if complex_steps]
    if eps > np.finfo(np.float64).eps:
        remarks.append(f"f computes in {loss.computed_in}: to be judged more finely, {WIDER}")
    loss = replace(loss, remarks=tuple(filter(None, remarks)))
    again = loss.gradient()  # now that f was called elsewhere
    for name in x:
        if isinstance(claimed.get(name), np.ndarray) and isinstance(again.get(name), np.ndarray):
            wobble = max(wobble, _wobble("grad", f"the gradient of {name!r}", claimed[name],
                                         again[name]))
    return replace(loss, wobble=wobble), claimed


def even_direction(gradient: Array, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Random directions v (*shape, like the gradient g) in which every entry counts alike.

    v_j = r_j G / max(|g_j|, 1e-2 G), G the largest |g_j|, r_j in ±[1/2, 1): an entry off by the
    relative error e moves g·v by at least e G / 2.
    """
    shape = (*shape, *gradient.shape)
    r = rng.uniform(0.5, 1, shape) * rng.choice([-1, 1], shape)
    g = np.where(np.isfinite(gradient), np.abs(gradient), 0).astype(np.float64)
    return r * g.max() / np.maximum(g, FRACTION * g.max()) if g.any() else r


def _call(what: str, function: Function, values: Mapping[str, Array]) -> object:
    """The result of a function, which must leave its arguments as they are."""
    own = {name: value.copy() for name, value in values.items()}
    result = function(dict(own))
    for name, value in values.items():
        if own[name].tobytes() != value.tobytes():
            at = np.flatnonzero(own[name].ravel() != value.ravel())[0]
            raise InputError(f"{what} changes its argument {name!r}: {value.flat[at]} became "
                             f"{own[name].flat[at]} at entry {at}; let it work on a copy")
    return result


def _array(value: object) -> Array:
    """The array that a tensor of any framework is; other things as they are."""
    if hasattr(value, "detach"):
        value = value.detach()
    return np.asarray(value) if hasattr(value, "__array__") else value  # type: ignore[return-value] # what is no array is refused by name later


def _number(value: object) -> Array:
    """What f returned as an array of no axes."""
    try:
        number = np.asarray(_array(value))
    except Exception as error:  # a tensor of a dtype that NumPy does not know
        require(False, f"f: {type(error).__name__}: {error}; {WIDER}")
    require(number.shape == (), f"f: one number is needed, got an array of shape {number.shape}")
    require(number.dtype.kind in "biufc",
            f"f: a number of a float type is needed, got {number.dtype}; {WIDER}")
    return number


def _wobble(what: str, whose: str, first: Array, second: Array) -> float:
    """The relative difference of two calls at one point, which must be small."""
    if first.shape != second.shape or first.tobytes() == second.tobytes():
        return 0.0
    size = max(size_of(first), size_of(second))
    apart = np.abs(np.subtract(first, second, dtype=np.float64))
    at = np.unravel_index(np.argmax(apart), apart.shape)
    require(apart[at] <= NOISE * size, f"{what} is not deterministic: two calls at one point give "
            f"{first[at]} and {second[at]} for {whose}; fix what it draws at random (a seed, no "
            "dropout), and let it depend on its arguments alone, not on calls before")
    return float(apart[at] / size)


def _noise_near(loss: FunctionLoss, rng: np.random.Generator) -> float:
    """How exact f is near x, from nine values on a line so short that f is smooth along it.

    Where f rounds what it gets, near points give equal values; then the line is made longer.
    """
    line = {name: rng.uniform(0.5, 1, value.shape) * units(value)
            for name, value in loss.values.items()}
    with np.errstate(all="ignore"):
        for step in (1e-8, 1e-6, 1e-4, 1e-2):
            values = np.array([_number(loss.f({name: value + k * step * line[name] for name, value
                                               in loss.values.items()})) for k in range(9)])
            if len(np.unique(values)) > 4:
                break
    level = noise_level(values.astype(np.longdouble))
    return level if np.isfinite(level) else 0.0


def _analytic(loss: FunctionLoss, name: str, claimed: Array | None, still: float,
              rng: np.random.Generator) -> str | None:
    """None if complex steps in a tensor are derivatives, or why that cannot be told."""
    value = loss.values[name]
    fits = claimed if isinstance(claimed, np.ndarray) and claimed.shape == value.shape else value
    even = even_direction(fits, (), rng)
    for among in (np.ones(value.shape), value != 0):  # many a kink is at 0
        v = even * among
        v = v / (np.max(np.abs(v) / units(value)) or 1)
        step = _complex_step(loss, name, value + 1j * STEP * v)
        quotient, bound = _quotient(loss, name, v, still, abs(step))
        apart, size = abs(step - quotient), max(abs(step), abs(quotient))
        if apart > 2 * bound + allowed(loss.computed_in) * size and bound <= KNOWN * size:
            _refuse(name, f"along a random direction the complex step gives {step:.6g}, a real "
                          f"difference quotient {quotient:.6g} ± {bound:.1g}")
        if bound <= KNOWN * size or step == quotient == 0:
            return None
    return (f"premise not checked: that f is analytic in {name!r}: real differences find "
            f"{quotient:.3g} ± {bound:.1g}, the complex step {step:.3g}")


def _quotient(loss: FunctionLoss, name: str, v: Array, still: float, size: float
              ) -> tuple[float, float]:
    """The derivative along v by real differences, and its bound."""
    value = loss.values[name]

    def along(_: object, t: Array) -> Array:
        return loss(name, value + t.reshape(-1, *(1,) * value.ndim) * v).reshape(t.shape)

    found, bound = differentiate(
        along, np.array(still), np.full(1, NEAR), loss.noise,
        lambda found, bound: bound <= SURE * np.maximum(np.abs(found), size))
    return float(found[0]), float(bound[0])


def _complex_step(loss: FunctionLoss, name: str, moved: Array) -> float:
    try:
        with np.errstate(all="ignore"), catch_warnings():
            simplefilter("ignore")  # that an imaginary part is dropped: that is found by its effect
            result = loss(name, moved[None])[0]
    except InputError:
        raise
    except Exception as error:  # f works at real arrays, as was seen
        raise NoComplexStep(f"f takes no complex numbers in {name!r} ({type(error).__name__}: "
                         f"{error}); use method='central-differences'") from error
    if result.dtype.kind != "c":
        _refuse(name, f"it gives a real result for complex arrays, {shown(result.item())}")
    return float(result.imag / STEP)


def _refuse(name: str, why: str) -> NoReturn:
    raise NoComplexStep(f"f is not analytic in {name!r}: {why}; use method='central-differences'")
