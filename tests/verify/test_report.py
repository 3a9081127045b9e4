"""What a gradient check says: its table, its remarks, and what it raises."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from npple.errors import CheckFailed, InputError
from npple.verify.cases import random_case, random_model
from npple.verify.gradcheck import (GradcheckReport, GradientRow, demonstrate, gradcheck,
                                    gradcheck_function, hessian_vector)

RIGHT = GradientRow("a", (2, 3), 6, 0, 1e-15, (1, 2), 0.5, 0.5, 1e-12, "")
COARSE = GradientRow("long", (4,), 1, 3, 0.0, (0,), -2.0, -2.0, 0.1, "a kink")
LATE = GradientRow("late", (1,), 0, 1, 0.0, (0,), 1.0, 1.0, 0.1, "too coarse")


def test_a_report_prints_a_line_for_each_tensor_then_what_was_not_judged_then_the_verdict():
    assert str(GradcheckReport("directional", (RIGHT, COARSE), ("a remark",))) == """\
tensor  shape  checked  not judged    error  tolerance  at        analytic        numeric
a       2×3          6           0  1.0e-15    1.0e-12  1,2   5.000000e-01   5.000000e-01
long    4            1           3  0.0e+00    1.0e-01  0    -2.000000e+00  -2.000000e+00
long: 3 of 4 not judged: a kink
a remark
directional: 7 checked, 3 not judged, largest error 1.0e-15, tolerance up to 1.0e-01: not judged"""


def test_what_is_not_judged_is_raised_with_all_reasons():
    with pytest.raises(CheckFailed, match="^directional: long: 3 of 4 not judged: a kink; "
                       "late: 1 of 1 not judged: too coarse; a remark$"):
        GradcheckReport("directional", (COARSE, LATE), ("a remark",)).check()


def square(v):
    return (v["w"] ** 2).sum()


def twice(v):
    return {"w": 2 * v["w"]}


def test_an_executor_maps_over_the_tensors():
    class Counting(ThreadPoolExecutor):
        def map(self, *arguments):
            used.append(1)
            return super().map(*arguments)

    used = []
    with Counting(1) as executor:
        gradcheck_function(square, twice, {"w": np.ones(2)}, executor=executor).check()
    assert used == [1]


def test_a_gradient_of_one_number_may_be_a_scalar():
    gradcheck_function(square, lambda v: {"w": np.float64(2 * v["w"])},
                       {"w": np.array(3.0)}).check()


def test_a_tolerance_is_a_number_and_is_what_counts():
    with pytest.raises(InputError, match="^tolerance must be a finite number"):
        gradcheck_function(square, twice, {"w": np.ones(2)}, tolerance=np.nan)
    for method in ("complex-step", "directional", "central-differences"):
        report = gradcheck_function(square, lambda v: {"w": 2.2 * v["w"]}, {"w": np.ones(2)},
                                    method=method, tolerance=0.5)
        assert report.check().tolerance == 0.5


@pytest.mark.parametrize("changed, message", [
    ({"method": "exact"}, "method: 'exact', "), ({"seed": -1}, "seed: an integer .*, got -1"),
    ({"f": 3}, "f: a function is needed, got 3"),
    ({"grad": 4}, "grad: a function is needed, got 4"),
    ({"x": 5}, "x: a dict of arrays is needed, got 5"),
    ({"x": {}}, "x: a dict of arrays is needed, got {}"),
    ({"x": {6: np.ones(2)}}, "x: names are texts, got 6"),
    ({"x": {"w": 7}}, "x: 'w': an array of real floats is needed, got 7")])
def test_what_is_no_function_of_named_arrays_is_refused_by_name(changed, message):
    given = {"f": square, "grad": twice, "x": {"w": np.ones(2)}} | changed
    with pytest.raises(InputError, match=f"^{message}"):
        gradcheck_function(given.pop("f"), given.pop("grad"), given.pop("x"), **given)


@pytest.mark.parametrize("changed, message", [
    ({"seed": -1}, "seed: an integer .*, got -1"), ({"inputs": 2}, "inputs: True or .*, got 2")])
def test_options_of_the_check_of_a_model_are_refused_by_name(changed, message):
    case = random_case(random_model("mmoe", 1))
    with pytest.raises(InputError, match=f"^{message}"):
        gradcheck(case.model, case.params, *case.batch, **changed)


def test_a_demonstration_is_the_check_of_a_random_case():
    for options in ({}, {"method": "directional", "seed": 3}):
        case = random_case(random_model("snr_aver", 3, 2), options.get("seed", 0))
        assert demonstrate("snr_aver", **options) == gradcheck(case.model, case.params,
                                                               *case.batch, **options)
    deep = demonstrate("snr_aver", 2, 1)
    assert {row.name.split("/")[0] for row in deep.rows} == {"embedding", "level1", "tower"}


def test_a_name_may_hold_anything_that_a_text_can():
    x = {"\ud800": np.ones(2)}
    gradcheck_function(lambda v: (v["\ud800"] ** 2).sum(), lambda v: {"\ud800": 2 * v["\ud800"]}, x,
                       method="directional").check()


VECTORS = {
    "short": (lambda p: np.ones(3), r"an array of shape \(6, 3\) is needed, got .* float64 \(3,\)"),
    "none": (lambda p: 7, r"an array of shape \(6, 3\) is needed, got an array int64 \(\)"),
    "complex": (lambda p: p + 1j, r"an array of shape \(6, 3\) is needed, got an array complex128"),
    "not finite": (lambda p: np.full_like(p, np.nan), "not finite$")}


@pytest.mark.parametrize("wrong", VECTORS)
def test_a_vector_that_does_not_fit_is_refused_by_name(wrong):
    case = random_case(random_model("mmoe", 1))
    name = next(iter(case.params))  # embedding/country
    made, message = VECTORS[wrong]
    vector = case.params | {name: made(case.params[name])}
    with pytest.raises(InputError, match=f"^vector: {name}: {message}"):
        hessian_vector(case.model, case.params, vector, *case.batch)


@pytest.mark.skipif(np.longdouble(0).dtype == np.float64, reason="longdouble is float64 here")
def test_a_vector_wider_than_what_is_computed_in_is_refused():
    case = random_case(random_model("mmoe", 1))
    vector = {name: p.astype(np.longdouble) for name, p in case.params.items()}
    with pytest.raises(InputError, match="^vector: .*: .* is wider than float64, which is computed "
                       "in: convert with .astype$"):
        hessian_vector(case.model, case.params, vector, *case.batch)
