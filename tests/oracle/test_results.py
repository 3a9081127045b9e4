"""One tensor compared: the whole row that comes of it; a candidate's isolation matrix."""

import functools
import math

import numpy as np
import pytest

import npple
from npple import oracle
from npple.oracle.results import SMALLEST, TensorRow, compare
from npple.oracle.rounding import UNITS
from npple.oracle.separation import separation


def test_the_largest_difference_is_told_relative_to_the_largest_entry_expected():
    expected = np.array([[1.0, -4.0], [2.0, 0.0]])
    got = expected + np.array([[0.5, 0.0], [-1.0, 0.25]])
    row = compare("t", got, expected, 0.125, "float64")
    tolerance = 0.125 + 16 * 2.0**-1074 / 4
    assert row == TensorRow("t", 0.25, tolerance, (1, 0), 1.0, 2.0, "", "float64")


def test_the_difference_from_zeros_is_told_as_it_is():
    row = compare("t", np.array([0.0, 3.0]), np.zeros(2), 0.5, "float16")
    assert row == TensorRow("t", 3.0, 0.5, (1,), 3.0, 0.0, "", "float16")


@pytest.mark.parametrize("precision", UNITS)
def test_what_underflows_is_forgiven_in_each_precision(precision):
    row = compare("t", np.zeros(2), np.array([0.0, 0.25]), 0.0, precision)
    assert row.tolerance == 16 * SMALLEST[precision] / 0.25


def test_another_shape_is_a_fault_that_names_both():
    row = compare("t", np.zeros((2, 1)), np.zeros(2), 0.5, "bfloat16")
    assert row == TensorRow("t", math.inf, 0.5, (), None, None, "shape (2, 1), expected (2,)",
                            "bfloat16")


@pytest.mark.parametrize("value, word", [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_the_first_entry_that_is_not_finite_is_a_fault(value, word):
    got = np.array([[0.0, 1.0], [value, np.nan]], np.float32)
    row = compare("t", got, np.array([[9.0, 1.0], [7.0, 2.0]]), 0.5, "float32")
    assert row == TensorRow("t", math.inf, 0.5, (1, 0), None, 7.0, f"{word} at (1, 0)", "float32")


@pytest.mark.parametrize("error, tolerance, fault, passed, excess", [
    (0.5, 0.5, "", True, 1.0), (0.75, 0.5, "", False, 1.5), (0.25, 0.5, "", True, 0.5),
    (0.0, 0.0, "", True, 0.0), (1e-9, 0.0, "", False, math.inf), (0.0, 0.5, "", True, 0.0),
    (0.0, 0.5, "shape", False, math.inf)])
def test_a_row_passes_up_to_its_tolerance_and_counts_its_error_in_it(error, tolerance, fault,
                                                                     passed, excess):
    row = TensorRow("t", error, tolerance, fault=fault)
    assert (row.passed, row.excess) == (passed, excess)


# Isolation --------------------------------------------------------------------------------------

@functools.cache
def vectors():
    return oracle.make_vectors(npple.cgc(2, {"a": "binary", "b": "regression"}, task_experts=1,
                                         shared_experts=1, expert_units=(2,), tower_units=()))


def test_isolation_as_text_has_the_models_word_where_it_differs():
    given = dict(vectors().expected)
    for name in ("weight", "bias"):
        leaks = f"grad[a]/tower/b/layer1/{name}"
        given[leaks] = given[leaks] + 1
    del given["grad[b]/level1/a/experts/layer1/bias"]
    found = separation(vectors(), given)
    assert found.differing == (("a", "tower/b"),)
    assert found.matrix["b"]["level1/a/experts"] == "not given"
    assert found.expected == separation(vectors(), vectors().expected).matrix
    assert str(found) == """\
                       a                   b
level1/a/experts       reached             not given
level1/b/experts       isolated            reached
level1/shared/experts  reached             reached
level1/a/gate          reached             isolated
level1/b/gate          isolated            reached
tower/a                reached             isolated
tower/b                reached (isolated)  reached
1 cell differs from the model's, whose word is in brackets"""


def test_isolation_as_text_counts_the_cells():
    given = dict(vectors().expected)
    assert str(separation(vectors(), given)).endswith("\nno cell differs from the model's")
    for name in ("level1/a/gate/layer1/weight", "level1/b/gate/layer1/weight"):
        for task in "ab":
            given[f"grad[{task}]/{name}"] = np.ones((2, 2))
    assert str(separation(vectors(), given)).endswith(
        "\n2 cells differ from the model's, whose word is in brackets")


def test_one_gradient_that_is_not_zero_makes_a_group_reached_though_others_are_missing():
    given = dict(vectors().expected)
    del given["grad[a]/tower/a/layer1/bias"]
    assert separation(vectors(), given).matrix["a"]["tower/a"] == "reached"
