"""What a gradient check says: its table, its remarks, and what it raises."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from npple.errors import CheckFailed, InputError
from npple.verify.gradcheck import GradcheckReport, GradientRow, gradcheck_function

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
