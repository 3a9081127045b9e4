"""A function of others, and what a check of its gradient assumes of it: that is checked, too.

- Two calls at one point give the same bits. A small difference counts as noise.
- A call leaves its arguments as they are. Each gets copies of its own anyway.
- For complex steps: the function is analytic. Along a random direction of each tensor the complex
  step agrees with a real difference quotient, within that quotient's own bound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NoReturn, TypeAlias
from warnings import catch_warnings, simplefilter

import numpy as np

from npple.checks import check_dicts, shown
from npple.core.base import Array
from npple.errors import InputError, require
from npple.verify.differences import differentiate, noise_level, units
from npple.verify.tolerances import FRACTION, allowed, eps_of, size_of

STEP = 1e-30  # of complex steps, in parts of the entries: its square is nothing beside 1, its
           # products with tiny numbers are not yet 0
COARSE_STEP = 1e-14  # the same in dtypes coarser than float64, whose smallest numbers are larger
ROUGH = 1e-10  # a function that is no more exact, relative to its value, is told to be so
NOISE = 1e-6  # two calls that differ by more, relative to the values, are no function
KNOWN = 1e-2  # a quotient whose own bound is larger, relative to it, refutes nothing
SURE = 1e-6  # one whose bound is no larger needs no further steps, and no further direction
DIRECTIONS = 3  # else: along one of them what is not analytic may cancel
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
    difference of two calls, `unsure` by how much the complex step of each entry may be off, of
    tensors in which it may be not analytic or have kinks, `remarks` what could not be checked.
    """

    values: dict[str, Array]
    f: Function
    grad: Function
    computed_in: np.dtype[np.inexact]
    noise: float = 0.0
    wobble: float = 0.0
    unsure: Mapping[str, Array] = field(default_factory=dict)
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
        return checked({name: _array(f"grads: {name}", g) for name, g in found.items()},  # type: ignore[attr-defined] # a dict
                       self.values)


def examined(f: Function, grad: Function, x: Mapping[str, Array], complex_steps: bool,
             rng: np.random.Generator) -> tuple[FunctionLoss, dict[str, Array]]:
    """A function whose premises hold, and its claimed gradient; `InputError` where one does not."""
    loss = FunctionLoss(dict(x), f, grad, np.dtype(np.float64))
    wide = loss.cast(np.float64)
    first, second = (_number(_widened(loss, wide)) for _ in range(2))
    require(first.dtype.kind != "c", f"f: a real number is needed, got {first}")
    require(np.isfinite(first), f"f: its value at x is {first}: it has no gradient there")
    claimed = loss.gradient()
    wobble = _wobble("f", "its value", first, second)
    if first.dtype.kind == "f":
        loss = replace(loss, computed_in=first.dtype)
    eps = eps_of(loss.computed_in)
    loss = replace(loss, noise=max(eps * abs(float(first)), abs(float(first) - float(second)),
                                   4 * _noise_near(wide, rng)))
    unsure = {name: found for name in x if complex_steps and (
        found := _analytic(loss.cast(np.float64), name, claimed[name], float(first), rng))}
    loss = replace(loss, unsure={name: doubt for name, (_, doubt) in unsure.items()},
                   remarks=tuple(remark for remark, _ in unsure.values()))
    if eps > ROUGH or loss.noise > ROUGH * abs(first) > 0:
        coarse = (f"computes in {loss.computed_in}" if eps > ROUGH
                  else f"is exact to {loss.noise / abs(float(first)):.0e} of its value alone")
        loss = replace(loss, remarks=(*loss.remarks,
                                      f"f {coarse}: to be judged more finely, {WIDER}"))
    again = loss.gradient()  # now that f was called elsewhere
    for name in x:
        wobble = max(wobble, _wobble("grad", f"the gradient of {name!r}", claimed[name],
                                     again[name]))
    return replace(loss, wobble=wobble), claimed


def checked(grads: Mapping[str, Array], values: Mapping[str, Array]) -> dict[str, Array]:
    """Gradients by name, each of real floats and of the shape of its value."""
    for name, value in values.items():
        g = grads.get(name)
        require(isinstance(g, np.ndarray) and g.shape == value.shape and g.dtype.kind == "f",
                f"grads: {name}: an array of real floats of shape {value.shape} is needed, got "
                + (f"{g.dtype} {g.shape}" if isinstance(g, np.ndarray) else type(g).__name__)
                + "; zeros where nothing depends on it" * (g is None))
    return {name: np.asarray(grads[name]) for name in values}


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
        after = own[name]
        require(after.shape == value.shape, f"{what} changes its argument {name!r}: its shape "
                f"{value.shape} became {after.shape}; let it work on a copy")
        if after.tobytes() != value.tobytes():
            moved = (after != value) | (np.signbit(after) != np.signbit(value))
            at = np.flatnonzero(moved)[0]
            raise InputError(f"{what} changes its argument {name!r}: {value.flat[at]} became "
                             f"{after.flat[at]} at entry {at}; let it work on a copy")
    return result


def _widened(loss: FunctionLoss, wide: FunctionLoss) -> object:
    """The result of f for arguments in float64 at least."""
    try:
        return _call("f", wide.f, wide.values)
    except InputError:
        raise
    except Exception as error:
        _call("f", loss.f, loss.values)  # fails here too if the mistake is another
        raise InputError(f"f takes no arguments in float64 ({type(error).__name__}: {error}); "
                         f"{WIDER}") from error


def _array(what: str, value: object) -> Array:
    """A copy of the array that a tensor of any framework is; other things as they are."""
    if hasattr(value, "detach"):
        value = value.detach()
    try:  # a buffer of its owner, or one that the next call fills
        return np.asarray(value).copy() if hasattr(value, "__array__") else value  # type: ignore[return-value] # what is no array is refused by name later
    except Exception as error:  # a tensor of a kind that NumPy does not know
        hint = f"; {WIDER}" * ("bfloat" in str(error).lower())
        raise InputError(f"{what}: {type(error).__name__}: {error}{hint}") from error


def _number(value: object) -> Array:
    """What f returned as an array of no axes."""
    number = np.asarray(_array("f", value))
    require(number.shape == (), f"f: one number is needed, got an array of shape {number.shape}")
    require(number.dtype.kind in "biufc", "f: a number of a float type is needed, got "
            + (f"{number.dtype}; {WIDER}" if number.dtype.kind == "V" else shown(value)))
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

    Where f rounds, near points give equal values: then the line is made longer, and the values
    are no more exact than the smallest distance of two.
    """
    line = {name: rng.uniform(0.5, 1, value.shape) * units(value)
            for name, value in loss.values.items()}
    seen: set[float] = set()
    with np.errstate(all="ignore"):
        for step in (1e-11, 1e-8, 1e-6, 1e-4, 1e-2):
            values = np.array([_number(loss.f({name: value + k * step * line[name] for name, value
                                               in loss.values.items()})) for k in range(9)])
            rounds, seen = bool(seen), seen | set(values.tolist())
            if len(np.unique(values)) > 4:
                break
        level = noise_level(values.astype(np.longdouble))
        if rounds and len(seen) > 1:
            level = max(level, float(np.diff(sorted(seen)).min()) / 4)
    return level if np.isfinite(level) else 0.0


def step_of(computed_in: np.dtype[np.inexact]) -> float:
    """How large a complex step is, in parts of the entries."""
    return COARSE_STEP if eps_of(computed_in) > np.finfo(np.float64).eps else STEP


def _analytic(loss: FunctionLoss, name: str, claimed: Array, still: float,
              rng: np.random.Generator) -> tuple[str, Array] | None:
    """None if complex steps in a tensor are derivatives; or why that cannot be told, and what the
    complex step of each entry may be off by."""
    value = loss.values[name]
    where, unsure = "", _unsure(loss, name, claimed, np.ones(value.shape), still, rng)
    if unsure and value.any() and not value.all():  # many a kink is at 0
        elsewhere = _unsure(loss, name, claimed, value != 0, still, rng)
        if elsewhere is None:
            where, unsure = " where it is 0", (unsure[0], np.zeros(value.shape))
    return unsure and (f"premise not checked: that f is analytic in {name!r}{where}: {unsure[0]}",
                       unsure[1])


def _unsure(loss: FunctionLoss, name: str, claimed: Array, among: Array, still: float,
            rng: np.random.Generator) -> tuple[str, Array] | None:
    """None if real differences along directions `among` some entries confirm the complex step; or
    what both find, and what the complex step of each entry may be off by."""
    value, found, doubt = loss.values[name], "", np.zeros(claimed.shape)
    for _ in range(DIRECTIONS):
        v = even_direction(claimed, (), rng) * among
        v = v / np.max(np.abs(v) / units(value))
        step = _complex_step(loss, name, v)
        quotient, bound = _quotient(loss, name, v, still, abs(step))
        apart, size = abs(step - quotient), max(abs(step), abs(quotient))
        if apart > 2 * bound + allowed(loss.computed_in) * size and bound <= KNOWN * size:
            _refuse(name, f"along a random direction the complex step gives {step:.6g}, a real "
                          f"difference quotient {quotient:.6g} ± {bound:.1g}")
        if bound <= SURE * size or step == quotient == 0:
            return None
        if bound > allowed(loss.computed_in) / 2 * size:
            found = (f"real differences find {quotient:.3g} ± {bound:.1g}, the complex step "
                     f"{step:.3g}")
        with np.errstate(divide="ignore"):
            doubt = np.maximum(doubt, (apart + bound) / np.abs(v))
    return (found, doubt) if found else None


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


def _complex_step(loss: FunctionLoss, name: str, v: Array) -> float:
    """The derivative along v, which is of the size of the entries, by a complex step."""
    step = step_of(loss.computed_in)
    try:
        with np.errstate(all="ignore"), catch_warnings():
            simplefilter("ignore")  # that an imaginary part is dropped: that is found by its effect
            result = loss(name, (loss.values[name] + 1j * step * v)[None])[0]
    except InputError:
        raise
    except Exception as error:  # f works at real arrays, as was seen
        raise NoComplexStep(f"f takes no complex numbers in {name!r} ({type(error).__name__}: "
                         f"{error}); use method='central-differences'") from error
    if result.dtype.kind != "c":
        _refuse(name, f"it gives a real result for complex arrays, {shown(result.item())}")
    if eps_of(result.dtype) > eps_of(loss.computed_in):
        raise NoComplexStep(f"f computes in {result.dtype} for complex arrays in {name!r}, in "
                            f"{loss.computed_in} for real ones; use method='central-differences'")
    if not np.isfinite(result.imag):
        _refuse(name, f"along a random direction the complex step gives {result.imag}")
    return float(result.imag / step)


def _refuse(name: str, why: str) -> NoReturn:
    raise NoComplexStep(f"f is not analytic in {name!r}: {why}; use method='central-differences'")
