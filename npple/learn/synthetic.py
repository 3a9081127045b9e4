"""Regression tasks whose relatedness is a number one chooses: the data of the MMoE paper."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from npple.checks import is_whole, shown
from npple.core.base import Float64
from npple.core.blocks import blas_with_one_thread
from npple.errors import InputError, require
from npple.learn.dataset import Dataset, check_floating, streams

if TYPE_CHECKING:
    from numpy.typing import DTypeLike


@blas_with_one_thread()
def synthetic(rows: int, inputs: int = 512, correlation: float = 0.5, tasks: int = 2,
              sines: int = 10, noise: float = 0.1, scale: float = 1.0, seed: int = 0,
              dtype: DTypeLike = np.float32) -> Dataset:
    """Draw rows of the synthetic regression tasks "task1", "task2", ...

    With x ~ N(0, I) and the vectors w_k of `weights`,
    `y_k = w_k.x + sum_i sin(alpha_i w_k.x + beta_i) + N(0, noise^2)`,
    where alpha and beta are standard normal and the same for all tasks. What correlation the labels
    then have is another number: `label_correlations` measures it.

    Parameters
    ----------
    rows, inputs, tasks, sines : int
        How many rows n, features, tasks and sine terms.
    correlation : float
        The task correlation p: the cosine between the weight vectors of any two tasks.
    noise : float
        The standard deviation of the noise.
    scale : float
        The length c of the weight vectors.
    seed : int
        The same seed gives the same functions, and the same first rows, whatever `rows` is.
    dtype : floating dtype, optional
        Of features and targets. They are drawn in float64, so it changes nothing but rounding.

    Returns
    -------
    Dataset
        x (n, inputs), targets (n,) for each task, no masks.

    Raises
    ------
    InputError
        If an argument is out of its range; the message says which range.

    References
    ----------
    Ma et al., KDD 2018, section 3.2; Tang et al., RecSys 2020, uses inputs=512, sines=10,
    scale=1.
    """
    _check_count("rows", rows, 1)
    _check_number("noise", noise, 0.0, math.inf)
    dtype = check_floating(dtype)
    w = weights(inputs, correlation, tasks, scale, seed)  # (tasks, inputs)
    with _fitting_memory(rows=rows, inputs=inputs, tasks=tasks, sines=sines):
        alpha, beta = _waves(sines, seed)
        random_x, random_noise = streams(seed, 4)[2:]
        x = random_x.standard_normal((rows, inputs))
        projected = x @ w.T  # (n, tasks)
        y = projected + noise * random_noise.standard_normal((rows, tasks))
        for a, b in zip(alpha, beta):
            y += np.sin(a * projected + b)
        largest = np.finfo(dtype).max
        require(np.abs(y).max() <= largest, f"noise, scale: targets too large for {dtype}")
        targets = {f"task{k + 1}": y[:, k].astype(dtype) for k in range(tasks)}
        return Dataset(x.astype(dtype, copy=False), targets, {})


@blas_with_one_thread()
def weights(inputs: int = 512, correlation: float = 0.5, tasks: int = 2, scale: float = 1.0,
            seed: int = 0) -> Float64:
    """The weight vectors behind `synthetic` with the same arguments.

    With orthonormal u_1, u_2, ... drawn at random, `w_1 = c u_1` and
    `w_2 = c (p u_1 + sqrt(1 - p^2) u_2)`. Further vectors continue this: each has the length c
    and the cosine p with all before it. That exists only for p >= -1 / (tasks - 1).

    Parameters
    ----------
    inputs, tasks : int
        How many features and tasks.
    correlation : float
        The task correlation p: the cosine between any two of the vectors.
    scale : float
        Their length c.
    seed : int
        The same seed gives the same vectors.

    Returns
    -------
    (tasks, inputs) array
        float64, one weight vector in each row.

    Raises
    ------
    InputError
        If an argument is out of its range; the message says which range.

    References
    ----------
    Ma et al., KDD 2018, equations 2 to 4.
    """
    _check_count("tasks", tasks, 1)
    _check_count("inputs", inputs, tasks)
    _check_number("correlation", correlation, -1 / max(tasks - 1, 1), 1.0)
    _check_number("scale", scale, 0.0, math.inf)
    random = streams(seed, 4)[0]
    with _fitting_memory(inputs=inputs, tasks=tasks):
        q, r = np.linalg.qr(random.standard_normal((inputs, tasks)))
        u = (q * np.sign(np.diag(r))).T  # (tasks, inputs); the signs make it unique
        return scale * _mixture(correlation, tasks) @ u


def label_correlations(data: Dataset) -> dict[str, float | None]:
    """Pearson's correlation of the labels of any two tasks, over the rows that have both.

    It is measured, and not the task correlation p of `synthetic`, which is a cosine of weights: at
    p = 0.9 the labels' is about 0.5.

    Parameters
    ----------
    data : Dataset

    Returns
    -------
    dict of float or None
        "task1, task2" -> the correlation, None where a label is the same in all rows. Tasks whose
        labels are numbers of classes have none.
    """
    def two(first: str, second: str) -> float | None:
        both = data.masks.get(first, True) & data.masks.get(second, np.ones(len(data), bool))
        a, b = (data.targets[task][both].astype(np.float64) for task in (first, second))
        if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
            return None
        return float(np.corrcoef(a, b)[0, 1])

    tasks = [task for task, y in data.targets.items() if y.dtype.kind in "fb" or y.max() < 2]
    return {f"{a}, {b}": two(a, b) for a, b in combinations(tasks, 2)}


def correlations_text(found: Mapping[str, float | None]) -> str:
    """What `label_correlations` found, in words.

    Parameters
    ----------
    found : dict of float or None

    Returns
    -------
    str
        "label correlation 0.53", or the range of several; empty where there is none.
    """
    known = [value for value in found.values() if value is not None]
    ends = dict.fromkeys(f"{end(known):.2f}" for end in (min, max) if known)
    return f"label correlation {' to '.join(ends)}" if ends else ""


def _mixture(p: float, tasks: int) -> Float64:
    """The lower triangle L (tasks, tasks) for which L L^T has ones on its diagonal, p elsewhere.

    All entries below the diagonal in one column are equal, so one pass over the columns does
    it; unlike a library's Cholesky it also does p = 1 and p = -1 / (tasks - 1).
    """
    mixture = np.zeros((tasks, tasks))
    used = 0.0  # the squared length that the columns so far take of each later row
    for k in range(tasks):
        own = math.sqrt(max(1.0 - used, 0.0))
        mixture[k, k] = own
        mixture[k + 1 :, k] = (p - used) / own if own else 0.0
        used += mixture[-1, k] ** 2
    return mixture


def _waves(sines: int, seed: int) -> tuple[Float64, Float64]:
    """The alpha and beta (sines,) of the sine terms."""
    _check_count("sines", sines, 0)
    alpha, beta = streams(seed, 4)[1].standard_normal((sines, 2)).T
    return alpha, beta


def _check_count(name: str, value: Any, least: int) -> None:
    require(is_whole(value) and value >= least,
            f"{name} is {shown(value)}, expected an integer of at least {least}")


def _check_number(name: str, value: Any, low: float, high: float) -> None:
    number = is_whole(value) or isinstance(value, (float, np.floating))
    fits = number and low <= value <= high and abs(value) <= sys.float_info.max
    require(fits, f"{name} is {shown(value)}, expected a number from {low} to {high}")


@contextlib.contextmanager
def _fitting_memory(**sizes: int) -> Iterator[None]:
    """Refuse sizes of arrays that no memory holds, which NumPy says in two ways."""
    try:
        yield
    except (MemoryError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        given = ", ".join(f"{name} {shown(size)}" for name, size in sizes.items())
        raise InputError(f"{given}: more than the memory holds") from None
