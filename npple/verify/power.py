"""How strict the gradient checks are: wrong gradients are made, and what is found is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np

from npple.checks import check_count
from npple.core.base import Array, Printed
from npple.printing import aligned
from npple.verify.cases import random_case, random_model
from npple.verify.gradcheck import (METHODS, Loss, Sides, Measured, compare_directions,
                                    compare_entries, generator, model_loss, row_of,
                                    widened)
from npple.verify.tolerances import FRACTION

PLACES = 100  # single entries that are made wrong
FOUND = 0.99  # the part of them that must be found
ERRORS = 10.0 ** np.arange(-14, 1, 0.05)  # tried, from small to large
DTYPES = ("float64", "float32", "float16")
POWER_METHODS = tuple(method for method in METHODS if method != "longdouble")


@dataclass(frozen=True)
class Cell:
    """What one method finds in gradients of one dtype.

    Attributes
    ----------
    method, dtype : str
    tolerance : float
        The largest of a tensor.
    found : float
        The smallest error of a single entry that is found in at least 99 of 100 places, relative
        to the larger of the entry and a hundredth of its tensor's largest.
    negated, zeroed, permuted : float
        The part of the tensors that are found if that is done to them.
    """

    method: str
    dtype: str
    tolerance: float
    found: float
    negated: float
    zeroed: float
    permuted: float


@dataclass(frozen=True, repr=False)
class PowerReport(Printed):
    """How strict the checks are; prints as a table.

    Attributes
    ----------
    cells : tuple of Cell
        One for each method and dtype.
    """

    cells: tuple[Cell, ...]

    def __str__(self) -> str:
        heads = ("method", "gradients", "tolerance", "found from", "negated", "zeros", "permuted")
        return aligned([heads, *(
            (cell.method, cell.dtype, f"{cell.tolerance:.1e}", f"{cell.found:.1e}",
             f"{cell.negated:.0%}", f"{cell.zeroed:.0%}", f"{cell.permuted:.0%}")
            for cell in self.cells)], range(2, 7))

    def to_list(self) -> list[dict[str, str | float]]:
        """A dict for each cell."""
        return [asdict(cell) for cell in self.cells]


def power(name: str = "ple", seed: int = 0) -> PowerReport:
    """Makes the gradients of a random case wrong in many ways, and counts what each method finds.

    What a check does not judge it does not find. The gradients are the model's own in float64,
    rounded to the dtype.

    Parameters
    ----------
    name : str
        A key of `npple.ARCHITECTURES`.
    seed : int
        Of the case, the places and the directions.

    Returns
    -------
    PowerReport

    Raises
    ------
    InputError
        For an unknown architecture.
    """
    check_count("seed", seed, 0)
    case = random_case(random_model(name, tasks=2), seed)
    loss = model_loss(case.model, case.params, *case.batch)
    exact = case.model.loss_and_grads(case.params, *case.batch)[1]
    cells = []
    for method in POWER_METHODS:
        measure, wide = METHODS[method], widened(loss, method)
        checks = {tensor: _check(wide, method, tensor, measure and measure(wide, tensor), seed)
                  for tensor in exact}
        cells += [_cell(method, dtype, checks, {tensor: g.astype(dtype)
                                                for tensor, g in exact.items()}, seed)
                  for dtype in DTYPES]
    return PowerReport(tuple(cells))


Check = Callable[[Array], Sides]


def _check(loss: Loss, method: str, name: str, known: Measured | None, seed: int) -> Check:
    """A method on one tensor as a function of the gradient it is given; it measures once."""
    if known is None:
        return lambda g: compare_directions(loss, name, g, generator(seed, name))
    return lambda g: compare_entries(loss, method, g, known)


def _fails(check: Check, g: Array) -> bool:
    """Whether a check says that a gradient is wrong."""
    row = row_of("", g, check(g), by_entry=True)
    return row.error > row.tolerance


def _cell(method: str, dtype: str, checks: dict[str, Check], grads: dict[str, Array], seed: int
          ) -> Cell:
    rng = np.random.default_rng(seed)
    found = sorted(_smallest_found(checks[name], grads[name], rng)
                   for name in _tensors(grads, rng))
    several = [name for name, g in grads.items() if np.unique(g).size > 1]

    def part(names: list[str], change: Callable[[Array], Array]) -> float:
        return float(np.mean([_fails(checks[name], change(grads[name])) for name in names]))

    return Cell(method, dtype,
                max(row_of("", g, checks[n](g), by_entry=True).tolerance for n, g in grads.items()),
                found[int(np.ceil(FOUND * PLACES)) - 1],
                part(list(grads), lambda g: -g), part(list(grads), np.zeros_like),
                part(several, lambda g: _permuted(g, rng)))


def _tensors(grads: dict[str, Array], rng: np.random.Generator) -> Iterator[str]:
    """Tensors by random, each as often as it has entries."""
    names, sizes = list(grads), np.array([g.size for g in grads.values()])
    for at in rng.choice(len(names), PLACES, p=sizes / sizes.sum()):
        yield names[at]


def _smallest_found(check: Check, g: Array, rng: np.random.Generator) -> float:
    """The smallest error in one random entry from which on the check fails; 1e9 for none."""
    at = np.unravel_index(rng.integers(g.size), g.shape)
    size = max(abs(float(g[at])), FRACTION * float(np.abs(g).max()))
    sign = rng.choice([-1, 1])

    def fails(error: float) -> bool:
        wrong = g.copy()
        wrong[at] = float(g[at]) + sign * error * size
        return _fails(check, wrong)

    low, high = -1, len(ERRORS)  # what is found from one error on is found from larger ones
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fails(ERRORS[middle]) else (middle, high)
    return float(ERRORS[high]) if high < len(ERRORS) else 1e9


def _permuted(g: Array, rng: np.random.Generator) -> Array:
    """The entries in another order that changes something."""
    while True:
        other = rng.permutation(g.ravel()).reshape(g.shape)
        if (other != g).any():
            return other
