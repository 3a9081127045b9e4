"""What a check allows follows from what it checks: each tensor's own dtype and size."""

import numpy as np
import pytest

import npple
from npple.errors import CheckFailed
from npple.verify import tolerances
from npple.verify.cases import random_case, random_model
from npple.verify.gradcheck import gradcheck_function
from npple.verify.tolerances import RIGHT
from strategies import DTYPES

METHODS = ("complex-step", "directional", "central-differences")
each_method = pytest.mark.parametrize("method", METHODS)


def cubes(gradient, x, method, **options):
    """The report on a gradient of the sum of the cubes of all values."""
    return gradcheck_function(lambda v: sum((a ** 3).sum() for a in v.values()), gradient, x,
                              method=method, **options)


def squares(v, factor=1.0):
    return {name: (factor * 3 * a.astype(float) ** 2).astype(a.dtype) for name, a in v.items()}


def point(dtype, size=6, seed=0):
    return np.random.default_rng(seed).uniform(0.5, 1.5, size).astype(dtype)


@each_method
@pytest.mark.parametrize("dtype, most", [("float64", 1e-7), ("float32", 1e-3), ("float16", 0.1)])
def test_no_tolerance_allows_what_is_clearly_wrong(method, dtype, most):
    assert cubes(squares, {"x": point(dtype)}, method).check().tolerance < most


@each_method
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("factor", [-1.0, 0.0, 0.8, 1.3])
def test_a_wrong_gradient_of_any_dtype_fails(method, dtype, factor):
    report = cubes(lambda v: squares(v, factor), {"x": point(dtype)}, method)
    assert report.verdict == "FAILED"


@each_method
def test_a_coarse_tensor_does_not_loosen_another(method):
    x = {"fine": point("float64"), "coarse": point("float16")}
    report = cubes(lambda v: squares(v) | {"fine": squares(v, 1.00001)["fine"]}, x, method)
    assert [row.error > row.tolerance for row in report.rows] == [True, False]


@each_method
def test_gradients_too_small_for_their_dtype_are_not_judged(method):
    x = {"x": np.full(4, 3e-4, np.float16)}
    report = cubes(squares, x, method)  # 3e-7 is 5 times the smallest number of float16
    assert report.verdict == "not judged" and report.rows[0].skipped == 4
    with pytest.raises(CheckFailed, match="float16 is too coarse for gradients of at most 3.0e-07"):
        report.check()


@pytest.mark.parametrize("size, tolerance", [(1.0, 0.0442), (2.0 ** -6, 0.0521)])
def test_the_smallest_number_of_a_dtype_is_allowed_beside_its_eps(size, tolerance):
    # of entries of 3 size²: 2^-24 against a hundredth of them
    report = cubes(squares, {"x": np.full(3, size, np.float16)}, "complex-step").check()
    assert report.tolerance == pytest.approx(0.04398 + 2.0 ** -24 / (0.03 * size ** 2), rel=1e-3)
    assert report.tolerance == pytest.approx(tolerance, rel=0.01)


def test_directions_allow_less_the_more_entries_they_sum():
    rows = cubes(squares, {"one": point(float, 1), "many": point(float, 200)}, "directional").rows
    assert [row.tolerance for row in rows] == [1e-12, pytest.approx(1e-13, abs=0)]


@each_method
def test_the_precision_that_a_function_computes_in_counts(method):
    x = {"x": point(float)}
    report = gradcheck_function(
        lambda v: (v["x"].astype("c8" if v["x"].dtype.kind == "c" else "f4") ** 2).sum(),
        lambda v: {"x": 2 * v["x"]}, x, method=method)
    assert 3e-4 < report.tolerance < 1e-3 and report.verdict == "passed"


def test_a_tolerance_that_is_given_holds_for_all_tensors():
    report = cubes(squares, {"a": point("float16"), "b": point(float)}, "complex-step",
                   tolerance=0.5)
    assert {row.tolerance for row in report.rows} == {0.5}


@pytest.mark.parametrize("part, verdict", [(0.9, "passed"), (0.8, "not judged")])
def test_nine_tenths_of_a_tensor_must_be_judged(part, verdict):
    x = np.r_[np.ones(round(10 * part)), np.zeros(10 - round(10 * part))]  # kinks at 0
    report = gradcheck_function(lambda v: np.abs(v["x"]).sum(), lambda v: {"x": np.sign(v["x"])},
                                {"x": x}, method="central-differences")
    assert (report.verdict, report.passed) == (verdict, verdict == "passed")
    assert f"x: {round(10 - 10 * part)} of 10 not judged" in str(report)


@pytest.mark.parametrize("dtype", DTYPES[:2])
@pytest.mark.parametrize("method", METHODS)
def test_a_models_gradients_negated_zero_or_random_fail(dtype, method):
    case = random_case(random_model("mmoe", 2), dtype=dtype)
    rng = np.random.default_rng(0)
    _, own = case.model.loss_and_grads(case.params, *case.batch)
    for change in (np.negative, np.zeros_like,
                   lambda g: np.abs(g).max() * rng.normal(size=g.shape).astype(dtype)):
        report = npple.gradcheck(case.model, case.params, *case.batch, method=method,
                                 grads={name: change(g) for name, g in own.items()})
        assert all(row.error > row.tolerance for row in report.rows)


def test_the_smallest_number_of_a_dtype_is_allowed_along_a_direction():
    # a single entry: an error of 2^-24 in g is one of 2^-24 / g along any direction
    report = cubes(squares, {"x": np.full(1, 2.0 ** -9, np.float16)}, "directional").check()
    assert report.tolerance == pytest.approx(0.04398 + 2.0 ** -24 / (3 * 2.0 ** -18), rel=1e-3)


def test_tolerances_are_those_of_the_page():
    half, single, double = map(np.dtype, ("float16", "float32", "float64"))
    eps, least = 2.0 ** -10, 2.0 ** -24  # of float16
    assert tolerances.by_entry(half, double, 0.5) == pytest.approx(RIGHT / 100 * eps + 2 * least)
    assert tolerances.by_entry(single, single, 0.0) == pytest.approx(RIGHT * 2.0 ** -23)
    assert tolerances.by_difference(half, single, 0.5) == pytest.approx(
        RIGHT / 100 * eps + 2 * least, rel=1e-9)
    assert tolerances.by_difference(half, half, 2.0 ** -20) == pytest.approx(
        2.5 * eps ** 0.5 + least * 2.0 ** 20, rel=1e-9)
    assert tolerances.by_direction(half, double, 0.5, np.full(8, 2.0)) == pytest.approx(
        RIGHT / 100 * eps / 2 + 2 * least * 32 ** 0.5, rel=1e-9)
    assert tolerances.by_direction(double, double, 1.0, np.ones(3)) == pytest.approx(
        1e-12 / 1.5 ** 0.5, rel=1e-9)
