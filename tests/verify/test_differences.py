"""Differences that know their own error: right wherever a function bends, or not judged."""

from math import factorial

import numpy as np
import pytest

from npple.verify import differences
from npple.verify.gradcheck import gradcheck_function


def check(f, df, x):
    return gradcheck_function(lambda v: f(v["x"]).sum(), lambda v: {"x": df(v["x"])},
                              {"x": np.asarray(x, float)}, method="central-differences")


FUNCTIONS = {
    "log near 0.01": (np.log, lambda x: 1 / x, [0.01, 0.02, 0.013]),
    "log far apart": (np.log, lambda x: 1 / x, [1e-3, 0.1, 5.0]),
    "sin(100 x)": (lambda x: np.sin(100 * x), lambda x: 100 * np.cos(100 * x), [0.3, 1.2, -2.0]),
    "sin(1e4 x) at 0": (lambda x: np.sin(1e4 * x), lambda x: 1e4 * np.cos(1e4 * x), [0.0, 0.0]),
    "features of 1e6": (lambda x: np.tanh(x / 1e6), lambda x: 1e-6 / np.cosh(x / 1e6) ** 2,
                        [1e6, -2e6, 5e5]),
    "features of 1e-6": (lambda x: np.tanh(1e6 * x), lambda x: 1e6 / np.cosh(1e6 * x) ** 2,
                         [1e-6, -2e-6, 5e-7]),
    "losses of 1e12": (lambda x: 1e12 * x ** 4, lambda x: 4e12 * x ** 3, [0.4, -1.1, 2.0]),
    "losses of 1e-12": (lambda x: 1e-12 * x ** 4, lambda x: 4e-12 * x ** 3, [0.4, -1.1, 2.0]),
    "kinks near": (np.abs, np.sign, [1e-4, -1.0, 2.0]),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_right_gradients_pass_wherever_a_function_bends(name):
    report = check(*FUNCTIONS[name]).check()
    assert report.max_relative_error < 1e-8 and report.skipped == 0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_wrong_gradients_fail_wherever_a_function_bends(name):
    f, df, x = FUNCTIONS[name]
    assert check(f, lambda x: df(x) * (1 + 1e-6), x).verdict == "FAILED"


def test_an_entry_at_a_kink_is_not_judged_whatever_is_claimed():
    for claimed in (-1.0, 0.0, 0.5, 1.0):
        report = check(np.abs, lambda x, c=claimed: np.array([c, 1.0]), [0.0, 3.0])
        assert (report.checked, report.skipped, report.verdict) == (1, 1, "not judged")
        assert "there is a kink" in str(report)


def test_a_function_that_ends_nearby_is_no_error():
    check(lambda x: np.sqrt(x - 0.9999), lambda x: 0.5 / np.sqrt(x - 0.9999), [1.0, 2.0]).check()


def test_an_entry_that_nothing_depends_on_has_the_gradient_0():
    report = check(lambda x: 0 * x + 1, np.zeros_like, [1.0, 2.0]).check()
    assert report.max_relative_error == 0


def test_small_bounds_are_bounds_however_fast_a_function_bends():
    steps = differences.RATIO ** -np.arange(1, 5)[:, None] * np.ones(4000)
    k = np.linspace(0.1, 600, 4000)
    for start in (0.4, 1.3):
        f = lambda t: np.sin(k * (start + t))  # noqa: B023, E731
        value, bound = differences._extrapolated(steps, f(steps), f(-steps), f(0), 1e-16)
        told = bound < 1e-5 * k
        assert (np.abs(value - k * np.cos(start * k)) <= bound)[told].all() and told.sum() > 20
        assert (bound[:10] < 1e-8).all()


@pytest.mark.parametrize("k", [8 * np.pi, 32 * np.pi, 128 * np.pi])
def test_a_period_that_fits_powers_of_two_is_not_taken_for_a_constant(k):
    check(lambda x: np.sin(k * x), lambda x: k * np.cos(k * x), [1.0, 0.5]).check()


def test_from_far_no_slope_is_taken_that_is_outside_what_near_steps_say():
    # along hundreds of periods a wave goes nowhere
    noise = 3e-6
    def wave(at, t):
        return np.round(np.sin(20 * (1 + t)) / noise) * noise

    for size in (1.0, 100.0):
        value, bound = differences.differentiate(
            lambda at, t, s=size: wave(at, t / s), wave(0, 0.0), np.full(1, size), noise,
            lambda value, bound: bound < 0)
        assert abs(value - 20 * np.cos(20) / size) <= bound < 0.01 / size


def test_from_far_a_slope_is_taken_where_noise_hides_it_nearby():
    rng = np.random.default_rng(0)
    value, bound = differences.differentiate(
        lambda at, t: t + rng.uniform(-1e-2, 1e-2, t.shape), np.zeros(1), np.ones(1), 1e-2,
        lambda value, bound: bound < 3e-3)
    assert abs(value - 1) <= bound < 3e-3


def test_the_noise_of_a_function_is_part_of_the_bound():
    steps = 4.0 ** -np.arange(1, 5)[:, None]
    quiet, noisy = (differences._extrapolated(steps, steps, -steps, 0.0, noise)[1]
                    for noise in (0.0, 1e-3))
    assert quiet < 1e-12 and noisy == pytest.approx(2e-3 / steps[1])


def test_the_level_of_noise_is_found_under_a_smooth_function():
    t = 1e-6 * np.arange(9)
    found = [differences.noise_level(np.exp(t) + 1e-9 * np.random.default_rng(seed).normal(size=9))
             for seed in range(50)]
    assert 2e-10 < np.median(found) < 2e-9 and min(found) > 2e-11


def test_the_level_of_noise_is_the_least_that_differences_of_order_3_and_up_say():
    for seed in range(40):
        values = np.random.default_rng(seed).normal(size=9)
        said = [np.sqrt(factorial(n) ** 2 / factorial(2 * n) * np.mean(np.diff(values, n) ** 2))
                for n in range(3, 8)]
        assert differences.noise_level(values) == pytest.approx(min(said), rel=1e-12)


def test_gaps_are_those_of_kinks_alone():
    def functions(at, t):
        kinds = [np.abs(t), 3 * np.maximum(t, 0), np.exp(t), t ** 2, np.sin(300 * t),
                 0.1 * np.abs(t) + np.exp(t), np.abs(t - 0.1), np.log(t - 1)]
        return np.choose(at, kinds)

    still = np.array([0, 0, 1, 0, 0, 1, 0.1, np.nan])
    found = differences.gaps(functions, still, np.ones(8), 1e-16)
    assert found[:2] == pytest.approx([2, 3]) and found[5] == pytest.approx(0.2, rel=1e-3)
    assert not found[[2, 3, 4, 6, 7]].any()
    assert not differences.gaps(lambda at, t: 1e-3 * np.abs(t), 0.0, np.ones(1), 1e-3).any()


@pytest.mark.parametrize("value, expected", [
    ([], []), ([0.0, 0.0], [1, 1]), ([0.0, 1.0, -2048.0], [2, 2, 2048]),
    ([0.0, 0.5], [2.0 ** -11, 0.5])])
def test_the_unit_of_an_entry_is_its_size_or_a_part_of_the_largest(value, expected):
    assert differences.units(np.array(value)).tolist() == expected


def test_derivatives_have_the_precision_of_their_units():
    unit = np.ones(3, np.longdouble)
    value, _ = differences.differentiate(lambda at, t: t ** 2, np.longdouble(0), unit, 0.0,
                                         lambda value, bound: bound < 1e-3)
    assert value.dtype == np.longdouble


def test_values_that_are_not_finite_give_no_derivative():
    steps = differences.RATIO ** -np.arange(1, 5)[:, None]
    value, bound = differences._extrapolated(steps, np.nan * steps, steps, np.zeros(1), 0.0)
    assert value == 0 and bound == np.inf
