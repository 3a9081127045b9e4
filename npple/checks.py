"""What a model accepts: every argument is checked here, before anything is computed.

A message takes longer to make than most checks take, so in each step it is made only when needed.
Messages name the argument, what came and what was expected. Nothing is cast unless the values
stay exactly the same (targets of 0 and 1 given as integers, say).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate
from os import PathLike, fsencode, fspath
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from npple.core.base import Array, Arrays, Codes, Columns, Features, Float64, Mask, Values
from npple.core.blocks import blas_with_one_thread
from npple.core.rows import Route
from npple.core.table import Table
from npple.errors import InputError, nearest, require

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

FLOATS = tuple(map(np.dtype, ("float32", "float64", "longdouble", "complex64", "complex128",
                              "clongdouble")))
KNOWN = ", ".join(map(str, FLOATS))
MOST = np.iinfo(np.int64).max  # steps that can be counted
EXACT = 2 ** 53  # up to which float64 holds every integer


def check_dtype(what: str, dtype: DTypeLike) -> None:
    """Raise `InputError` unless the network computes in this dtype."""
    try:
        known = np.dtype(dtype) in FLOATS and dtype is not None
    except Exception:  # NumPy parses texts as Python does
        known = False
    require(known, f"{what}: {shown(dtype)}, expected one of {KNOWN}")


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is an integer; NumPy counts spans of time among its own."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.timedelta64))


def check_number(what: str, value: object, low: float = 0.0, high: float = math.inf) -> float:
    """`value` as a float, if it is a finite real number from `low` to `high`."""
    number = math.nan
    if is_whole(value) or isinstance(value, (float, np.floating)):
        with suppress(OverflowError):  # an integer beyond all floats
            number = float(value)
    bounds = f"at least {low:g}" if high == math.inf else f"{low:g} to {high:g}"
    require(math.isfinite(number) and low <= number <= high,
            f"{what} must be a finite number of {bounds}, got {shown(value)}")
    return number


def check_count(what: str, value: object, least: int = 1, most: int | None = None) -> int:
    """`value` as a plain int, if it is an integer of at least `least`, and at most `most`."""
    number = int(value) if is_whole(value) else least - 1
    bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
    require(number >= least and (most is None or number <= most),
            f"{what}: an integer {bounds} is needed, got {shown(value)}")
    return number


def check_kind(what: str, value: object, kind: type | tuple[type, ...], expected: str) -> None:
    """Raise `InputError` unless `value` is an instance of `kind`, which is called `expected`."""
    if not isinstance(value, kind):  # only then: to show a value may take long
        raise InputError(f"{what}: {expected} is needed, got {shown(value)}")


@blas_with_one_thread()
def first_not_finite(named: Mapping[str, Array | float]) -> str | None:
    """The name of the first array that is not all finite, or None.

    A sum of squares settles it for all of them at once, unless it overflows.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(sum(np.vdot(a, a).real for a in named.values())):
            return None
    return next((name for name, a in named.items() if not np.isfinite(a).all()), None)


def check_choice(what: str, value: object, choices: Iterable[str]) -> None:
    """Raise `InputError` unless `value` is one of the texts `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(nearest(what, value, choices) if isinstance(value, str) else
                         f"{what}: {shown(value)}, expected one of {', '.join(choices)}")


def check_dicts(**given: object) -> None:
    """Raise `InputError` unless each argument is a dict."""
    for what, value in given.items():
        check_kind(what, value, dict, "a dict")


def check_path(what: str, value: object) -> None:
    """Raise `InputError` unless `value` can name a file or folder."""
    check_kind(what, value, (str, PathLike), "a path")
    try:
        path = fspath(value)  # type: ignore[call-overload]  # of that kind, as was just seen
        good = isinstance(path, str) and b"\0" not in fsencode(path)
    except (TypeError, UnicodeEncodeError):
        good = False
    require(good, f"{what}: {shown(value)}, expected a path of text, without a NUL or surrogates")


def check_texts(what: str, values: object) -> list[str]:
    """A sequence, or any iterable, of texts as a list."""
    many = isinstance(values, Iterable) and not isinstance(values, (str, np.ndarray))
    texts: list[Any] = list(values) if many else [None]  # type: ignore[call-overload]  # many
    if not all(isinstance(text, str) for text in texts):  # only then: to show them may take long
        raise InputError(f"{what}: {shown(values)}, expected a sequence of texts")
    return texts


def check_step(params: Arrays, grads: Arrays, state: Mapping[str, Array | Codes],
               names: Iterable[str], moments: Sequence[str] = ()) -> None:
    """What one step of an optimizer takes: for each of `names` arrays of one shape and dtype.

    `params`, `grads` and `state` are dictionaries; `moments` are the prefixes of the arrays that
    the state must hold for each parameter, beside the count `t/name`.
    """
    for name, g in grads.items():  # all of them: clipping takes the norm of all
        _check_floats("grads", name, g)
    for name in names:
        p = _check_floats("params", name, params.get(name))
        _check_like("grads", name, grads.get(name), p)
        for moment in moments:
            _check_like("state", f"{moment}/{name}", state.get(f"{moment}/{name}"), p)
        if ("v" in moments and p.dtype.kind == "f"
                and np.asarray(state[f"v/{name}"]).min(initial=0) < 0):
            raise InputError(f"state: v/{shown(name)}: below 0, expected what a step before gave")
        count: object = state.get(f"t/{name}") if moments else np.int64(0)
        if not (isinstance(count, (np.ndarray, np.integer)) and count.shape == ()
                and count.dtype.kind in "iu" and 0 <= count < MOST):
            raise InputError(f"state: t/{shown(name)}: a count below {MOST} is needed, got "
                             f"{_shape(count)} {count}")


def _check_floats(what: str, name: str, array: object) -> Array:
    if not is_plain(array) or array.dtype.kind not in "fc":
        raise InputError(f"{what}: {shown(name)}: an array of floats is needed, "
                         f"got {_shape(array)}")
    return array


def _check_like(what: str, name: str, array: object, p: Array) -> None:
    if array is None:
        raise InputError(f"{what}: missing {shown(name)}")
    if not is_plain(array) or array.shape != p.shape or array.dtype != p.dtype:
        raise InputError(f"{what}: {shown(name)}: {_shape(array)}, expected {_shape(p)}")


def check_params(table: Table, params: Arrays) -> np.dtype[np.inexact]:
    """The common dtype of the parameters, if their names and shapes are the table's."""
    require(isinstance(params, dict), f"params: a dict of arrays is needed, got {_kind(params)}")
    missing, extra = table.shapes.keys() - params.keys(), params.keys() - table.shapes.keys()
    require(not missing, f"params: missing {_list(missing)}")
    require(not extra, f"params: not of this model: {_list(extra)}")
    dtypes: dict[np.dtype[np.inexact], str] = {}
    for name, shape in table.shapes.items():
        array = params[name]
        if not is_plain(array):
            raise InputError(f"params: {name}: an array is needed, got {_kind(array)}")
        if array.shape != shape:
            raise InputError(f"params: {name}: shape {array.shape}, expected {shape}")
        dtypes.setdefault(array.dtype, name)
    if len(dtypes) > 1:
        found = ", ".join(f"{dtype} ({name})" for dtype, name in dtypes.items())
        raise InputError(f"params: one dtype is needed, got {found}")
    dtype, = dtypes
    check_dtype("params", dtype)
    return dtype


def check_x(table: Table, x: Array | Columns, dtype: np.dtype[np.inexact]) -> tuple[Features, int]:
    """The input as the network takes it and its number of rows; its floats match `dtype`."""
    real = np.zeros(0, dtype).real.dtype
    if isinstance(table.inputs, int):
        x = check_array("x", x)
        require(x.ndim == 2 and x.shape[1] == table.inputs,
                f"x: shape {x.shape}, expected (batch, {table.inputs})")
        _check_features("x", x, real)
        return x, len(x)
    if not isinstance(x, dict):
        raise InputError(f"x: a dict of columns is needed, got {_kind(x)}")
    columns = dict(table.inputs)
    missing, extra = columns.keys() - x.keys(), x.keys() - columns.keys()
    require(not missing, f"x: missing columns {_list(missing)}")
    require(not extra, f"x: columns that the model does not read: {_list(extra)}")
    arrays = {name: check_array(f"x: {name!r}", x[name]) for name in columns}
    rows = len(first) if (first := arrays[next(iter(columns))]).ndim else 0
    for name, array in arrays.items():
        kind = columns[name]
        bag = not isinstance(kind, str) and len(kind) == 3
        fits = array.ndim == 1 + bag and len(array) == rows and array.size >= rows
        if not fits:
            raise InputError(f"x: {name!r}: shape {array.shape}, expected "
                             f"{f'({rows}, longest bag)' if bag else (rows,)}")
        if isinstance(kind, str):
            _check_features(f"x: {name!r}", array, real)
        else:
            _check_codes(f"x: {name!r}", array, -1 if bag else 0, kind[0])
    return arrays, rows


def check_weights(table: Table, weights: Mapping[str, float] | None) -> dict[str, float]:
    """The weight of each task as a float; 1 for all where `weights` is None."""
    if weights is None:
        return dict.fromkeys(table.tasks, 1.0)
    require(isinstance(weights, dict), f"weights: a dict by task is needed, got {_kind(weights)}")
    require(weights.keys() == table.tasks.keys(),
            f"weights: one for each task is needed ({_list(table.tasks)}; 0 leaves a task out), "
            f"got {_list(weights)}")
    return {task: check_number(f"weights: {task!r}", weights[task]) for task in table.tasks}


def check_noise(table: Table, noise: Arrays | None, dtype: np.dtype[np.inexact]) -> Arrays:
    """The noise of each `Route` of the table, or {} for none."""
    if noise is None:
        return {}
    require(isinstance(noise, dict), f"noise: a dict of arrays is needed, got {_kind(noise)}")
    if not noise:
        return {}
    shapes = {row.name: (row.count(table),) for row in table.rows if isinstance(row, Route)}
    require(noise.keys() == shapes.keys(),
            f"noise: a dict of arrays for {_list(shapes)} is needed, got {_list(noise)}")
    real = np.zeros(0, dtype).real.dtype
    noise = {name: check_array(f"noise: {name}", u) for name, u in noise.items()}
    for name, u in noise.items():
        require(u.shape == shapes[name] and u.dtype == real,
                f"noise: {name}: {u.dtype} {u.shape}, expected {real} {shapes[name]}")
        require(((0 < u) & (u < 1)).all(), f"noise: {name}: must lie strictly between 0 and 1")
    return noise


def _check_features(what: str, x: Values, real: np.dtype[np.floating]) -> None:
    require(x.size, f"{what}: no rows, expected at least one")
    if x.dtype != real:
        raise InputError(f"{what}: dtype {x.dtype}, expected {real} as the parameters: convert "
                         "with .astype")
    with np.errstate(over="ignore", invalid="ignore"):
        finite = np.isfinite(x.sum()) or np.isfinite(x).all()  # a finite sum settles it quickly
    if not finite:
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(x))[0])
        raise InputError(f"{what}: {x[at]} at row {at[0]}; features must be finite")


def _check_codes(what: str, codes: Values, least: int, size: int) -> None:
    require(codes.size, f"{what}: no rows, expected at least one")
    if codes.dtype.kind not in "iu":
        raise InputError(f"{what}: dtype {codes.dtype}, expected integer codes")
    low, high = codes.min(), codes.max()
    if low < least or high >= size:
        raise InputError(f"{what}: codes from {low} to {high}, expected {least} to {size - 1}"
                         f"{' (-1 for none)' if least else ''}")


def check_mask(task: str, mask: Mask | None, rows: int) -> Mask | None:
    """The sample space of a task as a plain array (rows,) of bool, or None for all rows."""
    if mask is None:
        return None
    mask = check_array(f"masks: {task!r}", mask)
    require(mask.dtype == bool, f"masks: {task!r}: dtype {mask.dtype}, expected bool")
    require(mask.shape == (rows,), f"masks: {task!r}: shape {mask.shape}, expected ({rows},)")
    return mask


def check_columns(what: str, given: Mapping[str, object], tasks: Mapping[str, str],
                  all_of_them: bool = False) -> None:
    """Raise `InputError` unless `given` is a dict by task, of `all_of_them` or some."""
    require(isinstance(given, dict), f"{what}: a dict by task is needed, got {_kind(given)}")
    extra = given.keys() - tasks.keys()
    require(not extra, f"{what}: no such task: {_list(extra)}, expected {_list(tasks)}")
    missing = tasks.keys() - given.keys() if all_of_them else ()
    require(not missing, f"{what}: missing {_list(missing)}")


def check_array(what: str, value: object) -> NDArray[Any]:
    """`value` as a plain array, if it can be one."""
    require(not isinstance(value, _masked()),
            f"{what}: a masked array, expected a plain one: its mask would be lost")
    try:
        return np.asarray(value)
    except Exception as error:  # an object may turn itself into an array, and fail in any way
        raise InputError(f"{what}: not an array: {shown(str(error))}") from None


def check_reals(what: str, value: object) -> Float64:
    """`value` in float64, if it is an array of real numbers; what is beyond becomes infinite."""
    array = check_array(what, value)
    require(array.dtype.kind in "biuf", f"{what}: dtype {array.dtype}, expected real numbers")
    require(array.dtype.kind not in "iu" or array.size == 0
            or -EXACT <= array.min() <= array.max() <= EXACT,
            f"{what}: integers beyond 2^53, which float64 cannot tell apart, expected smaller ones")
    with np.errstate(over="ignore"):
        return array.astype(np.float64)


def is_plain(value: object) -> TypeGuard[NDArray[Any]]:
    """Whether a value is an array whose operators mean the usual."""
    return type(value) is np.ndarray or (
        isinstance(value, np.ndarray) and not isinstance(value, (np.matrix, *_masked())))


def _masked() -> tuple[type, ...]:
    """The type of masked arrays, if its module was loaded: it takes as long as all of npple."""
    module = sys.modules.get("numpy.ma")
    return (module.MaskedArray,) if module else ()


def shown(value: object) -> str:
    """A value as an error message shows it: one line, its start is enough; of a path its end."""
    if isinstance(value, np.ndarray):
        return f"an array {value.dtype} {value.shape}"
    try:
        text = " ".join(repr(value).split())
    except Exception:  # of an object of another's, or an integer too long to print
        text = f"a {type(value).__name__}"
    if len(text) <= 80:
        return text
    return text[:20] + "..." + text[-57:] if isinstance(value, (str, PathLike)) \
        and "/" in text else text[:77] + "..."


def named(name: object) -> str:
    """A name of another's as an error message shows it: plain, of a long one start and end."""
    text = repr(name)[1:-1] if isinstance(name, str) else shown(name)
    return text if len(text) <= 60 else f"{text[:20]}...{text[-37:]}"


def few(names: Iterable[object]) -> str:
    """Names for a message: the first, and what else 60 characters hold."""
    each = [named(name) for name in names]
    ends = [end + 2 * i for i, end in enumerate(accumulate(map(len, each)))]
    count = max(1, sum(end <= 60 for end in ends))
    more = f" and {len(each) - count} more" if len(each) > count else ""
    return ", ".join(each[:count]) + more


def _shape(value: object) -> str:
    return f"{value.dtype} {value.shape}" if is_plain(value) else _kind(value)


def _kind(value: object) -> str:
    return type(value).__name__


def _list(names: Iterable[str]) -> str:
    """Names for a message, the first few of many."""
    names = sorted(map(shown, names))
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more or "none"
