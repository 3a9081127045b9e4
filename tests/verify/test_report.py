"""What a gradient check says: its table, its remarks, and what it raises."""

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

import npple
from npple.core.passes import forward
from npple.errors import CheckFailed, InputError
from npple.verify.cases import random_case, random_model
from npple.verify.gradcheck import (METHODS, GradcheckReport, GradientRow, Sides,
                                    compare_directions, compare_entries, demonstrate,
                                    gradcheck, gradcheck_function, hessian_vector, row_of)
from npple.verify.premises import FunctionLoss, even_direction, step_of
from npple.verify.tolerances import by_difference, by_direction, by_entry

gradcheck_module = sys.modules["npple.verify.gradcheck"]  # npple.verify has a function of that name
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


# Everything that is handed over is used -----------------------------------------------------------

ROUTED = npple.snr_trans(3, {"a": "binary"}, levels=1, experts=2, expert_units=(3,))


def routed(seed):
    case = random_case(ROUTED)
    return case, ROUTED.noise(np.random.default_rng(seed))


def test_routing_noise_is_part_of_the_loss_that_is_checked():
    case, noise = routed(1)
    _, other = routed(2)
    _, grads = ROUTED.loss_and_grads(case.params, *case.batch[:4], noise)
    data = case.params, *case.batch[:4]
    assert npple.gradcheck(ROUTED, *data, noise, grads=grads).passed
    assert not npple.gradcheck(ROUTED, *data, other, grads=grads).passed
    assert not npple.gradcheck(ROUTED, *data, grads=grads).passed


def test_a_hessian_vector_product_is_of_the_loss_with_its_noise():
    case, noise = routed(1)
    v = {name: np.ones_like(p) for name, p in case.params.items()}
    along = hessian_vector(ROUTED, case.params, v, *case.batch[:4], noise)
    h, (plus, minus) = 1e-5, ({name: p + sign * 1e-5 for name, p in case.params.items()}
                              for sign in (1, -1))
    for name in case.params:
        quotient = (ROUTED.loss_and_grads(plus, *case.batch[:4], noise)[1][name]
                    - ROUTED.loss_and_grads(minus, *case.batch[:4], noise)[1][name]) / (2 * h)
        np.testing.assert_allclose(along[name], quotient, atol=1e-6 * (1 + np.abs(quotient).max()))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "float32"])
def test_a_vector_may_be_of_integers_or_of_a_narrower_dtype(dtype):
    case = random_case(npple.cgc(2, {"a": "binary"}, expert_units=(2,)))
    ones = {name: np.ones(p.shape) for name, p in case.params.items()}
    narrow = {name: v.astype(dtype) for name, v in ones.items()}
    wide, found = (hessian_vector(case.model, case.params, v, *case.batch) for v in (ones, narrow))
    for name in wide:
        assert found[name].dtype == wide[name].dtype
        np.testing.assert_array_equal(found[name], wide[name])


@pytest.mark.parametrize("dtype", ["bool", "complex128", "U1"])
def test_a_vector_of_no_real_numbers_is_refused(dtype):
    case = random_case(npple.cgc(2, {"a": "binary"}, expert_units=(2,)))
    v = {name: np.ones(p.shape).astype(dtype) for name, p in case.params.items()}
    with pytest.raises(InputError, match="^vector: "):
        hessian_vector(case.model, case.params, v, *case.batch)


class Counting:
    """An executor that notes what it was given."""

    def __init__(self):
        self.names = []

    def map(self, run, names, grads):
        self.names += names
        return map(run, names, grads)


def test_the_executor_is_the_one_that_was_given():
    case = random_case(npple.cgc(2, {"a": "binary"}, expert_units=(2,)))
    for check in (lambda e: npple.gradcheck(case.model, case.params, *case.batch, executor=e),
                  lambda e: demonstrate("cgc", 1, executor=e)):
        executor = Counting()
        assert check(executor).passed and executor.names


def test_the_seed_is_0_unless_another_is_given():
    case = random_case(npple.cgc(2, {"a": "binary"}, expert_units=(2,)))
    errors = [[row.analytic for row in npple.gradcheck(
        case.model, case.params, *case.batch, method="directional", **seed).rows]
        for seed in ({}, {"seed": 0}, {"seed": 1})]
    assert errors[0] == errors[1] != errors[2]


# Why a tensor is not judged -----------------------------------------------------------------------

def one(f, df, at, **options):
    """The row of a check of a function of one number."""
    return npple.gradcheck_function(
        lambda v: f(v["x"][0]), lambda v: {"x": np.array([df(v["x"][0])])}, {"x": np.array([at])},
        **options).rows[0]


def test_at_a_kink_it_says_how_well_the_derivative_is_known_and_how_well_it_must_be():
    row = one(np.abs, lambda x: 1.0, 0.0, method="central-differences")
    known, needed = re.search(r"is known to ± (\S+) at best, to judge it takes (\S+): there is a "
                              r"kink, or the loss is too coarse or not deterministic$",
                              row.reason).groups()
    assert row.checked == 0 and float(known) > float(needed)
    assert float(needed) == pytest.approx(row.tolerance / 2, rel=0.1)


def test_a_loss_that_is_finite_nowhere_around_says_so():
    row = one(lambda x: np.where(x == 1.0, 1.0, np.nan)[()], lambda x: 0.0, 1.0,
              method="central-differences")
    assert row.reason == "the loss is not finite at any step around it" and row.checked == 0


def test_a_tolerance_of_exactly_a_tenth_judges():
    sides = Sides(np.ones(1), np.ones(1), np.zeros(1), 1.0, 0.1, np.zeros(1, bool))
    row = row_of("x", np.ones(1), sides, by_entry=True)
    assert row.checked == 1 and row.reason == "" and row.tolerance == 0.1
    coarse = row_of("x", np.ones(1), replace(sides, tolerance=0.11), by_entry=True)
    assert coarse.checked == 0 and coarse.tolerance == 0.1 and "too coarse" in coarse.reason
    given = row_of("x", np.ones(1), replace(sides, tolerance=0.11), by_entry=True, given=True)
    assert given.checked == 1 and given.tolerance == 0.11


def test_what_cannot_be_told_from_0_is_no_measure_of_the_others():
    """An entry known to ±1 does not raise the floor by which the others are judged."""
    loss = FunctionLoss({"x": np.zeros(2)}, None, None, np.dtype(np.float64))
    measured = np.array([1e-3, 0.5]), np.array([0.0, 1.0]), np.zeros(2, bool)
    sides = compare_entries(loss, "complex-step", np.array([1e-3, 0.0]), measured)
    assert sides.floor == 1e-2 * 1e-3


def test_gradients_that_are_no_arrays_are_refused_with_their_type():
    case = random_case(npple.cgc(2, {"a": "binary"}, expert_units=(2,)))
    grads = {name: p.tolist() for name, p in case.params.items()}
    with pytest.raises(InputError, match=r"^grads: .* got list$"):
        npple.gradcheck(case.model, case.params, *case.batch, grads=grads)


def test_what_nobody_can_tell_names_both_values_and_the_way_out():
    sides = Sides(np.array([1.0, 1.5]), np.array([1.0, 2.25]), np.zeros(2), 1.0, 1e-12,
                  np.zeros(2, bool), doubt=np.array([0.0, 5.0]))
    row = row_of("x", np.array([1.0, 1.5]), sides, by_entry=True)
    assert (row.checked, row.skipped, row.error) == (1, 1, 0.0)
    assert row.reason == ("the gradient is 1.5, the complex step 2.25, and whether f is analytic "
                          "could not be checked; use method='central-differences'")


def wobbling(wobble):
    """A sum of two numbers whose calls differ by a part."""
    return FunctionLoss({"x": np.ones(2)}, lambda v: v["x"].sum(), None, np.dtype(np.float64),
                        wobble=wobble)


@pytest.mark.parametrize("wobble", [0.0, 1e-7])
def test_ten_times_what_two_calls_differ_by_is_unknown(wobble):
    measured = np.array([3.0, -4.0]), np.array([0.5, 0.0]), np.zeros(2, bool)
    sides = compare_entries(wobbling(wobble), "complex-step", np.ones(2), measured)
    np.testing.assert_allclose(sides.bound, np.array([0.5, 0]) + 10 * wobble * 4.0, rtol=1e-12)
    along = compare_directions(wobbling(wobble), "x", np.ones(2), np.random.default_rng(0))
    np.testing.assert_allclose(along.bound, 10 * wobble * along.floor, rtol=1e-12)


def test_a_direction_is_measured_by_the_norm_of_its_terms():
    sides = compare_directions(wobbling(0.0), "x", np.array([1.0, 1.0]), np.random.default_rng(0))
    assert sides.ours.shape == sides.theirs.shape == sides.floor.shape == (4,)
    np.testing.assert_allclose(sides.ours, sides.theirs, atol=1e-15)
    assert np.all(sides.floor >= np.abs(sides.ours) / np.sqrt(2) * (1 - 1e-12))
    given = compare_directions(wobbling(0.0), "x", np.ones(2), np.random.default_rng(0), 0.25)
    assert given.tolerance == 0.25 and sides.tolerance < 1e-10


def test_an_entry_that_is_not_finite_counts_as_0_in_the_measure():
    loss = FunctionLoss({"x": np.ones(3)}, lambda v: v["x"].sum(), None, np.dtype(np.float64))
    g = np.array([3.0, -np.inf, 4.0])
    with np.errstate(invalid="ignore"):
        floor = compare_directions(loss, "x", g, np.random.default_rng(0)).floor
    v = even_direction(g, (4,), np.random.default_rng(0))
    np.testing.assert_allclose(floor, np.hypot(3 * v[:, 0], 4 * v[:, 2]), rtol=1e-14)


def test_the_tolerance_of_directions_is_that_of_the_smallest_measure():
    loss = FunctionLoss({"x": np.ones(2)}, lambda v: v["x"].sum(), None, np.dtype(np.float64))
    g = np.array([1e-6, 3e-6], np.float16)
    sides = compare_directions(loss, "x", g, np.random.default_rng(0))
    v = even_direction(g, (4,), np.random.default_rng(0))
    assert sides.tolerance == by_direction(g.dtype, loss.computed_in, sides.floor.min(), v[0])
    assert np.ptp(sides.floor) > 0 and np.ptp(np.hypot.reduce(v, axis=1)) > 0


def test_at_a_kink_a_direction_is_off_by_what_the_slopes_to_both_sides_differ_by():
    """Of slopes 3 and 1 along each entry: twice the sum of a direction's sizes."""
    x, g = np.array([[1.0, 2.0, -4.0], [0.5, 1.0, 8.0]]), np.full((2, 3), 2.0)
    loss = FunctionLoss({"x": x}, lambda v: (np.where(v["x"].real > x, 3, 1) * (v["x"] - x)).sum(),
                        None, np.dtype(np.float64), unsure={"x": np.ones(x.shape)})
    sides = compare_directions(loss, "x", g, np.random.default_rng(0))
    v = even_direction(g, (4,), np.random.default_rng(0))
    np.testing.assert_allclose(sides.bound, 2 * np.abs(v).sum(axis=(1, 2)), rtol=1e-9)


def test_along_a_direction_no_entry_moves_by_more_than_the_step_of_its_size():
    x, steps = np.array([[1.0, 2.0, -4.0], [0.5, 1.0, 8.0]]), []
    loss = FunctionLoss({"x": x}, lambda v: steps.append(v["x"].imag) or v["x"].sum(), None,
                        np.dtype(np.float64))
    compare_directions(loss, "x", np.full((2, 3), 2.0), np.random.default_rng(0))
    largest = [np.max(np.abs(step) / np.abs(x)) for step in steps]
    assert len(steps) == 4
    assert max(largest) / step_of(loss.computed_in) == pytest.approx(1, rel=1e-12)


def test_a_tensor_without_entries_judged_reports_the_first_entry():
    sides = Sides(np.array([2.0, 3.0]), np.array([2.0, 3.0]), np.full(2, np.inf), 1.0, 1e-12,
                  np.zeros(2, bool))
    row = row_of("x", np.ones(2), sides, by_entry=True)
    assert (row.checked, row.skipped, row.error, row.index) == (0, 2, 0.0, (0,))
    assert (row.analytic, row.numeric) == (2.0, 2.0)
    along = row_of("x", np.ones((5, 3)), sides, by_entry=False)
    assert (along.checked, along.skipped, along.shape) == (0, 15, (5, 3))


def test_a_number_for_a_gradient_of_more_entries_is_refused_with_its_dtype():
    case = random_case(npple.cgc(2, {"a": "binary"}, expert_units=(2,)))
    grads = {name: np.float32(1) for name in case.params}
    with pytest.raises(InputError, match=r"^grads: .* is needed, got .*float32 \(\)$"):
        npple.gradcheck(case.model, case.params, *case.batch, grads=grads)


def test_what_is_known_just_well_enough_is_nobodys_fault_either():
    tolerance, larger = 1 / 16, 2.0
    sides = Sides(np.array([1.0]), np.array([2.0]), np.array([tolerance / 2 * larger]), 1.0,
                  tolerance, np.zeros(1, bool), doubt=5.0)
    assert row_of("x", np.ones(1), sides, by_entry=True).reason.startswith(
        "the gradient is 1, the complex step 2, and ")


def taken(f, noise):
    """What differences find of a function of one number at 1, and how often they call it."""
    calls = []

    def counting(v):
        calls.append(1)
        return f(v["x"][0])

    loss = FunctionLoss({"x": np.ones(1)}, counting, None, np.dtype(np.float64), noise=noise)
    return METHODS["central-differences"](loss, "x"), len(calls)


FIRST, EVERY = 1 + 2 * 4, 1 + 5 * 2 * 4  # calls: at x, and at four steps to both sides a ladder


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_no_further_steps_are_taken_once_differences_are_good_to_half_the_digits(size):
    (numeric, bound, still), calls = taken(lambda x: size * x ** 3, size * 1e-16)
    assert calls == FIRST
    assert abs(numeric - 3 * size) <= bound <= 1e-8 * size and not still


@pytest.mark.parametrize("part, good", [(0.85, True), (1.15, False)])
def test_differences_are_good_at_a_quarter_of_what_is_asked(part, good):
    """Of a line, noise alone is unknown: 2 noise / step at the largest step that counts."""
    quarter = 2.5 * np.finfo(float).eps ** 0.5 / 4
    step = (1 + 8 ** 0.5) ** -2
    _, calls = taken(lambda x: x, part * quarter * step / 2)
    assert (calls == FIRST) is good


def test_a_slope_of_0_is_sought_at_all_steps():
    assert taken(lambda x: 2.0, 0.0)[1] == EVERY


def test_how_still_a_loss_is_counts_by_the_size_of_the_entry():
    loss = FunctionLoss({"x": np.full(1, 1e-3)}, lambda v: 0.0, None, np.dtype(np.float64),
                        noise=1e-16)
    numeric, bound, still = METHODS["central-differences"](loss, "x")
    assert numeric == 0 < bound and still


@pytest.mark.parametrize("size", [1e-15, 1.0, 1e15])
def test_further_steps_are_taken_whatever_the_size_of_the_gradient(size):
    gradcheck_function(lambda v: size * np.sin(100 * v["x"]).sum(),
                       lambda v: {"x": size * 100 * np.cos(100 * v["x"])},
                       {"x": np.array([0.3, 1.7])}, method="central-differences").check()


def test_a_tensor_without_entries_has_no_derivatives():
    loss = FunctionLoss({"x": np.zeros(0)}, lambda v: v["x"].sum(), None, np.dtype(np.float64))
    assert [part.size for part in METHODS["central-differences"](loss, "x")] == [0, 0, 0]


# Copies that are evaluated together ---------------------------------------------------------------

class Sized:
    """A loss that keeps how many copies it is given at a time."""

    def __init__(self, footprint):
        self.values, self.footprint, self.calls = {"x": np.zeros(6)}, footprint, []

    def __call__(self, name, copies):
        self.calls.append(len(copies))
        return copies.sum(axis=1)


@pytest.mark.parametrize("size, calls", [(3, [3, 3]), (4, [4, 2]), (1, [1] * 6), (0.5, [1] * 6)])
def test_no_more_copies_are_evaluated_together_than_memory_is_meant_for(monkeypatch, size, calls):
    loss = Sized(footprint=10)
    monkeypatch.setattr(gradcheck_module, "CHUNK", int(size * (6 + 10) * 8))
    moved = gradcheck_module._moved(loss, "x", np.arange(6), np.arange(6.0)[None])
    assert loss.calls == calls and np.array_equal(moved, np.arange(6.0)[None])


def test_the_footprint_of_a_copy_is_the_size_of_all_that_is_kept_for_the_way_back():
    case = random_case(npple.cgc(2, {"a": "binary"}, expert_units=(2,)))
    loss = gradcheck_module.model_loss(case.model, case.params, *case.batch)
    caches = forward(case.model.table, case.params, case.x, {}).caches
    kept = []

    def look(part):
        if isinstance(part, np.ndarray):
            kept.append(part.size)
        elif isinstance(part, dict):
            look([*part.values()])
        elif isinstance(part, (list, tuple)):
            [look(each) for each in part]

    look(caches)
    assert loss.footprint == sum(kept) > 0


# Hessian-vector products ------------------------------------------------------------------------

def curved(dtype=np.float64):
    case = random_case(npple.cgc(2, {"a": "binary", "b": "regression"}, expert_units=(2,)))
    params = {name: p.astype(dtype) for name, p in case.params.items()}
    x = case.x.astype(dtype)
    rng = np.random.default_rng(1)
    vector = {name: rng.normal(size=p.shape) for name, p in params.items()}
    targets = {task: y.astype(dtype) for task, y in case.targets.items()}
    return case.model, params, vector, x, targets


@pytest.mark.parametrize("size", [1e-300, 1e-30, 1e30])
def test_a_product_is_as_exact_for_vectors_of_any_size(size):
    model, params, vector, x, targets = curved()
    plain = hessian_vector(model, params, vector, x, targets)
    scaled = hessian_vector(model, params, {n: size * v for n, v in vector.items()}, x, targets)
    for name, h in plain.items():
        np.testing.assert_allclose(scaled[name] / size, h, rtol=1e-12, atol=1e-14)


def test_rows_outside_a_sample_space_bend_nothing():
    model, params, vector, x, targets = curved()
    mask = np.arange(len(x)) % 2 == 0
    found = hessian_vector(model, params, vector, x, targets, {"a": mask, "b": mask})
    kept = {task: y[mask] for task, y in targets.items()}
    for name, h in hessian_vector(model, params, vector, x[mask], kept).items():
        np.testing.assert_allclose(found[name], h, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_a_product_has_the_dtype_of_the_parameters(dtype):
    model, params, vector, x, targets = curved(dtype)
    found = hessian_vector(model, params, vector, x, targets)
    assert {h.dtype for h in found.values()} == {np.dtype(dtype)}


def test_a_vector_is_taken_to_the_last_digit():
    model, params, vector, x, targets = curved(np.longdouble)
    ones = {name: np.ones(p.shape, np.longdouble) for name, p in params.items()}
    more = {name: v + np.finfo(np.longdouble).eps for name, v in ones.items()}
    one, other = (hessian_vector(model, params, v, x, targets) for v in (ones, more))
    assert any((h != other[name]).any() for name, h in one.items())


@pytest.mark.parametrize("part", [None, "text", [[1.0], [2.0, 3.0]]])
def test_a_vector_without_an_array_is_refused_by_its_name(part):
    model, params, vector, x, targets = curved()
    vector["tower/a/layer1/bias"] = part
    with pytest.raises(InputError, match="^vector: tower/a/layer1/bias: "):
        hessian_vector(model, params, vector, x, targets)


# What is checked --------------------------------------------------------------------------------

@pytest.mark.parametrize("given, method, dtype", [
    (np.float32, "complex-step", np.float64), (np.float32, "directional", np.float64),
    (np.float32, "central-differences", np.longdouble), (np.float32, "longdouble", np.float32),
    (np.longdouble, "complex-step", np.longdouble)])
def test_a_method_computes_as_precisely_as_it_needs(given, method, dtype):
    model, params, _, x, targets = curved(given)
    loss = gradcheck_module.widened(gradcheck_module.model_loss(model, params, x, targets), method)
    assert {value.dtype for value in loss.values.values()} == {np.dtype(dtype)}


def test_noise_is_widened_with_the_values():
    noise = {name: np.float32(u) for name, u in ROUTED.noise(np.random.default_rng(0)).items()}
    case = random_case(ROUTED)
    params = {name: p.astype(np.float32) for name, p in case.params.items()}
    targets = {task: y.astype(np.float32) for task, y in case.targets.items()}
    loss = gradcheck_module.model_loss(ROUTED, params, case.x.astype(np.float32), targets,
                                       noise=noise).cast(np.longdouble)
    assert noise and {u.dtype for u in loss.noises.values()} == {np.dtype(np.longdouble)}


def test_functions_of_others_are_checked_in_float64_by_differences():
    loss = FunctionLoss({"x": np.ones(2, np.float32)}, lambda v: v["x"].sum(), None,
                        np.dtype(np.float64))
    for method in ("complex-step", "directional", "central-differences"):
        assert gradcheck_module.widened(loss, method).values["x"].dtype == np.float64


@pytest.mark.parametrize("method, tolerance_of", [
    ("complex-step", by_entry), ("central-differences", by_difference)])
def test_the_tolerance_of_entries_is_that_of_their_measure(method, tolerance_of):
    g = np.array([1e-6, 3e-6], np.float16)
    measured = g.astype(float), np.zeros(2), np.zeros(2, bool)
    sides = compare_entries(wobbling(0.0), method, g, measured)
    assert sides.tolerance == tolerance_of(g.dtype, np.dtype(np.float64), sides.floor)
    assert sides.tolerance > tolerance_of(g.dtype, np.dtype(np.float64), 1.0)


def test_a_model_that_is_none_is_refused_by_what_is_needed():
    with pytest.raises(InputError, match="^model: a Network is needed, got "):
        gradcheck("ple", {}, np.ones((2, 2)), {})
