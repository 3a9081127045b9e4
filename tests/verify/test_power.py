"""How strict the checks are is measured, printed, and held here cell by cell."""

import numpy as np
import pytest

from npple.verify import gradcheck as _  # noqa: F401
from npple.verify import power
from npple.verify.power import POWER_METHODS, power as measure

EXTENDED = np.finfo(np.longdouble).eps < 1e-18


@pytest.fixture(scope="module")
def cells():
    return {(cell.method, cell.dtype): cell for cell in measure().cells}


@pytest.mark.slow
@pytest.mark.parametrize("method", POWER_METHODS)
@pytest.mark.parametrize("dtype, bound", [("float64", 1e-9), ("float32", 1e-3), ("float16", 1e-1)])
def test_an_error_of_one_entry_is_found_from_a_bound_on(cells, method, dtype, bound):
    if (method, dtype) == ("central-differences", "float64") and not EXTENDED:
        bound = 1e-7
    assert cells[method, dtype].found <= bound


@pytest.mark.slow
@pytest.mark.parametrize("method", POWER_METHODS)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_negation_zeros_and_permutation_are_always_found(cells, method, dtype):
    cell = cells[method, dtype]
    assert cell.negated == cell.zeroed == cell.permuted == 1


@pytest.mark.parametrize("method", POWER_METHODS)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_nothing_smaller_than_the_tolerance_would_need_is_claimed(cells, method, dtype):
    cell = cells[method, dtype]
    assert cell.found > cell.tolerance / 3  # directions of many entries allow less


def test_longdouble_takes_no_part():
    assert "longdouble" not in POWER_METHODS


def test_what_is_not_judged_is_not_found():
    def blind(g):
        unknown = np.full(g.shape, np.inf)
        return power.Sides(g, g, unknown, 1.0, 1e-12, np.zeros(g.shape, bool))

    rng = np.random.default_rng(0)
    assert power._smallest_found(blind, np.ones(3), rng) == 1e9


def test_a_weaker_check_is_seen(monkeypatch):
    monkeypatch.setattr(power, "compare_entries", lambda loss, method, g, known:
                        power.Sides(g, *known[:2], 0.0, 1e-5, known[2]))
    monkeypatch.setattr(power, "POWER_METHODS", ("complex-step",))
    assert measure().cells[0].found > 1e-9
