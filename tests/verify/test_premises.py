"""What a check assumes of a function is checked: refusals name it, both values and the way out."""

import math
import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy import special

import npple
from npple.errors import InputError
from npple.verify import premises
from npple.verify.gradcheck import gradcheck_function, model_loss

W = {"w": np.random.default_rng(0).normal(size=5)}
each_method = pytest.mark.parametrize("method", ["complex-step", "directional"])


def square(v):
    return (v["w"] ** 2).sum()


def twice(v):
    return {"w": 2 * v["w"]}


NOT_ANALYTIC = {  # f beside the square of which 2 w is the gradient
    "abs": lambda w: 0.1 * np.abs(w).sum(), "norm": lambda w: np.linalg.norm(w),
    "vdot": lambda w: np.vdot(w, w), "std": lambda w: w.std(), "var": lambda w: w.var(),
    "real": lambda w: w.real.sum(), "conj": lambda w: (w * w.conj()).sum(),
    "float": lambda w: np.exp(w).real.astype(float).sum(),
    "abs at a kink": lambda w: np.abs(w - w[0].real).sum()}


@each_method
@pytest.mark.parametrize("name", NOT_ANALYTIC)
def test_a_function_that_is_not_analytic_is_refused(name, method):
    with pytest.raises(InputError, match=r"f is not analytic in 'w': along a random direction the "
                       r"complex step gives -?\d.*, a real difference quotient -?\d.* ± \d.*; use "
                       "method='central-differences'"):
        gradcheck_function(lambda v: square(v) + NOT_ANALYTIC[name](v["w"]), twice, W,
                           method=method)


@each_method
def test_a_function_that_gives_a_real_result_for_complex_arrays_is_refused(method):
    with pytest.raises(InputError, match="f is not analytic in 'w': it gives a real result for "
                                         r"complex arrays, -?\d\S+; use method='central"):
        gradcheck_function(lambda v: sum(math.erf(a.real) for a in v["w"]), twice, W, method=method)


def test_differences_need_no_analytic_function():
    gradcheck_function(lambda v: np.abs(v["w"]).sum(), lambda v: {"w": np.sign(v["w"])}, W,
                       method="central-differences").check()


@each_method
@pytest.mark.parametrize("f", [lambda w: special.gammainc(2.0, w ** 2).sum(),
                               lambda w: np.cbrt(w).sum(), lambda w: np.arctan2(w, 1).sum()],
                         ids=["gammainc", "cbrt", "arctan2"])
def test_a_function_that_takes_no_complex_numbers_is_refused(f, method):
    with pytest.raises(InputError, match=r"f takes no complex numbers in 'w' \(TypeError: .*use "
                                         "method='central-differences'"):
        gradcheck_function(lambda v: f(v["w"]), twice, W, method=method)


@each_method
def test_a_kink_that_is_near_takes_smaller_steps(method):
    near = {"w": np.array([1e-5, -0.7, 1.3])}
    report = gradcheck_function(lambda v: (np.where(v["w"].real > 0, 1, 2) * v["w"]).sum(),
                                lambda v: {"w": np.where(v["w"] > 0, 1.0, 2.0)}, near,
                                method=method).check()
    assert not report.remarks


@each_method
@pytest.mark.parametrize("claimed, verdict", [("right", "not judged"), ("negated", "FAILED")])
def test_what_rounding_hides_is_not_held_against_a_gradient(method, claimed, verdict):
    """`std` is not analytic, and its part is as small as what the quotients leave open."""
    def f(v):
        value = 1e3 + (v["w"] ** 3).sum() + 0.01 * v["w"].std()
        return value.astype(np.complex64 if value.dtype.kind == "c" else np.float32)

    def grad(v):
        w = v["w"]
        g = 3 * w ** 2 + 0.01 * (w - w.mean()) / w.size / w.std()
        return {"w": g if claimed == "right" else -g}

    report = gradcheck_function(f, grad, {"w": np.array([0.3, -0.7, 1.1, 0.05])}, method=method)
    assert report.verdict == verdict
    assert "premise not checked" in str(report)
    assert ("whether f is analytic could not be checked" in str(report)) == (
        claimed == "right" or method == "complex-step")


def test_what_cannot_be_checked_is_said():
    # every direction moves the point off its kink
    x = {"w": np.array([1.0, -1.0])}
    report = gradcheck_function(lambda v: np.where(v["w"].sum().real > 0, 3, 2) * v["w"].sum(),
                                lambda v: {"w": np.full(2, 2.0)}, x)
    assert "premise not checked: that f is analytic in 'w'" in str(report)


@each_method
@pytest.mark.parametrize("x", [[0.0, 1.0, -2.0], [0.0, 0.0, 0.0]])
def test_at_a_kink_complex_steps_take_one_side_and_are_no_judge(x, method):
    def f(v):
        return np.where(v["w"].real > 0, v["w"], -v["w"]).sum()

    report = gradcheck_function(f, lambda v: {"w": np.sign(v["w"])}, {"w": np.array(x)},
                                method=method)
    assert report.verdict == "not judged" and "there is a kink" in str(report)
    assert f"analytic in 'w'{' where it is 0' * any(x)}: real differences find" in str(report)
    if method == "complex-step":
        assert report.skipped == x.count(0)


def test_a_kink_at_zero_hides_no_function_that_is_not_analytic():
    with pytest.raises(InputError, match="f is not analytic in 'w'"):
        gradcheck_function(lambda v: square(v) + np.abs(v["w"]).sum(), twice,
                           {"w": np.array([0.0, 1.0, -2.0])})


@pytest.mark.parametrize("method", ["complex-step", "central-differences"])
def test_a_function_that_is_not_deterministic_is_refused(method):
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match=r"f is not deterministic: two calls at one point give \d.*"
                                         r" and \d.* for its value; fix what it draws"):
        gradcheck_function(lambda v: square(v) * (1 + 1e-5 * rng.normal()), twice, W, method=method)


def test_a_gradient_that_depends_on_the_calls_before_is_refused():
    last = {}

    def f(v):
        last["w"] = v["w"].real
        return square(v)

    with pytest.raises(InputError, match="grad is not deterministic: .* for the gradient of 'w'"):
        gradcheck_function(f, lambda v: {"w": 2 * last["w"]}, W)


def test_small_differences_count_as_noise():
    rng = np.random.default_rng(0)

    def noisy(v):
        return square(v) * (1 + 1e-8 * rng.normal())

    for method in ("complex-step", "directional", "central-differences"):
        assert gradcheck_function(noisy, twice, W, method=method).verdict == "not judged"
    gradcheck_function(noisy, twice, W, method="central-differences", tolerance=1e-3).check()


@pytest.mark.parametrize("which", ["f", "grad"])
def test_a_function_that_changes_its_argument_is_refused(which):
    def changing(function):
        def changed(v):
            v["w"] += 1
            return function(v)
        return changed

    f, grad = changing(square) if which == "f" else square, twice
    with pytest.raises(InputError, match=rf"{which} changes its argument 'w': \S+ became \S+ at "
                                         "entry 0; let it work on a copy"):
        gradcheck_function(f, changing(grad) if which == "grad" else grad, W)


def test_a_changed_sign_of_zero_and_a_changed_shape_are_seen():
    zeros = {"w": np.zeros(3)}
    with pytest.raises(InputError, match="f changes its argument 'w': 0.0 became -0.0 at entry 0"):
        gradcheck_function(lambda v: np.negative(v["w"], out=v["w"]).sum(), twice, zeros)

    def reshapes(v):
        v["w"].shape = (3, 1)
        return v["w"].sum()

    with warnings.catch_warnings():  # NumPy will forbid it
        warnings.simplefilter("ignore")
        with pytest.raises(InputError, match=r"'w': its shape \(3,\) became \(3, 1\); let it work"):
            gradcheck_function(reshapes, twice, zeros)


def test_what_is_given_is_not_changed_even_so():
    before = W["w"].copy()

    def f(v):
        v["w"] *= 2
        return v["w"].sum()

    with pytest.raises(InputError):
        gradcheck_function(f, twice, W)
    assert (W["w"] == before).all()


@pytest.mark.parametrize("value, message", [
    (np.nan, "f: its value at x is nan"), (np.ones(1), r"f: one number is needed.*\(1,\)"),
    (1j, "f: a real number is needed"), ("1", "f: a number of a float type is needed, got '1'$"),
    (None, "f: a number of a float type is needed, got None$"),
    (np.zeros((), "V2"), r"f: a number of a float type is needed, got \|V2; let it compute in")])
def test_a_value_that_is_no_number_is_refused(value, message):
    with pytest.raises(InputError, match=message):
        gradcheck_function(lambda v: value, twice, W)


def test_the_checks_of_the_premises_call_a_function_little():
    calls = []

    def f(v):
        calls.append(v["w"].dtype)
        return (v["w"] ** 2).sum() if len(v) == 1 else 0

    gradcheck_function(f, twice, {"w": np.ones(2000)}).check()
    assert len(calls) - 2000 < 25


def test_the_checks_of_the_premises_are_a_tenth_of_a_check_of_a_model():
    # the model of tests/benchmarks/jobs.py: 25 tensors of 2,362 entries
    model = npple.ple(12, {"a": "binary", "b": "regression"}, levels=2, task_experts=2,
                      shared_experts=2, expert_units=(12,), tower_units=(8,))
    rng, calls = np.random.default_rng(0), []
    x, params = rng.normal(size=(8, 12)), model.init(seed=0)
    loss = model_loss(model, params, x, {"a": np.arange(8) % 2, "b": rng.normal(size=8)})

    def f(v):
        calls.append(v)
        name = next(iter(v))
        return replace(loss, values=loss.values | v)(name, v[name][None])[0]

    premises.examined(f, lambda v: loss.gradient(), params, True, rng)
    assert len(calls) < 0.1 * (len(calls) + sum(p.size for p in params.values()))


def test_a_coarse_function_is_told_how_to_compute_more_finely():
    report = gradcheck_function(lambda v: np.float32((v["w"] ** 2).sum()), twice, W,
                                method="central-differences")
    assert "f computes in float32" in str(report) and "jax_enable_x64" in str(report)


def test_a_function_that_hides_its_dtype_is_told_so_too():
    def hides(v):
        return 1e3 * float((v["w"].astype(np.float32) ** 2).sum())

    report = gradcheck_function(hides, twice, W, method="central-differences")
    assert not report.passed
    assert re.search(r"f is exact to \de-0[78] of its value alone: to be judged .*jax", str(report))
    assert gradcheck_function(square, twice, W).remarks == ()


def test_noise_is_found_where_a_function_rounds_what_it_gets():
    loss = premises.FunctionLoss(W, lambda v: float(np.float32(v["w"][0]) ** 2), twice,
                                 np.dtype(float))
    level = premises._noise_near(loss, np.random.default_rng(0))
    assert 1e-10 < level / W["w"][0] ** 2 < 1e-6


@each_method
def test_a_complex_step_that_is_not_finite_is_none(method):
    # the square of an infinite complex number is none
    x = {"w": np.array([0.3, 800.0, -1.0])}
    with np.errstate(all="ignore"), pytest.raises(InputError, match="f is not analytic in 'w': "
                                                  "along .* the complex step gives nan; use"):
        gradcheck_function(lambda v: (1 / np.cosh(v["w"]) ** 2).sum(), twice, x, method=method)


@each_method
@pytest.mark.parametrize("size", [1e-40, 1e-12, 1e12, 1e40])
def test_complex_steps_are_parts_of_what_they_step_from(size, method):
    x = {"w": size * np.array([1.0, 3.0])}
    report = gradcheck_function(lambda v: np.log(v["w"]).sum(), lambda v: {"w": 1 / v["w"]}, x,
                                method=method).check()
    assert not report.remarks


def test_a_complex_step_is_nothing_beside_an_entry_much_smaller_than_the_others():
    x = {"w": np.array([1e-20, 1.0])}
    gradcheck_function(lambda v: np.log(v["w"]).sum(), lambda v: {"w": 1 / v["w"]}, x).check()


@pytest.mark.parametrize("f", [lambda w: 3.0, lambda w: 1e6 * w.sum()], ids=["constant", "steep"])
def test_a_quotient_that_is_known_well_takes_eight_calls(f):
    calls = []
    loss = premises.FunctionLoss(W, lambda v: calls.append(v) or f(v["w"]), twice, np.dtype(float))
    premises._quotient(loss, "w", np.ones(5), float(f(W["w"])), 0.0)
    assert len(calls) == 8


@each_method
def test_a_complex_step_warns_of_nothing(method):
    def f(v):
        w = v["w"]
        return (w ** 2).sum() * (np.multiply(np.inf, 0.0) if w.dtype.kind == "c" else 1)

    with pytest.raises(InputError, match="the complex step gives nan"):
        gradcheck_function(f, twice, W, method=method)


@pytest.mark.parametrize("step, quotient, bound, told", [
    (1.0, 1 + 1.9e-3, 1e-3, "remark"), (1.0, 1 + 2.1e-3, 1e-3, "refused"),
    (1.0, 1.0, 1e-6, "none"), (1.0, 1.0, 1.1e-6, "remark"),
    (1.0, 1 + 0.9e-12, 0.0, "none"), (1.0, 1 + 2e-12, 0.0, "refused"),
    (1e3, 1e3 + 5e-10, 0.0, "none"), (1.0, -1.0, 0.01, "refused"), (1e3, -1e3, 10.0, "refused"),
    (1.0, 1.0, 0.01, "remark"), (1.0, -1.0, 0.011, "remark"), (1.0, 1.0, 0.011, "remark"),
    (0.0, 0.0, 1.0, "none"), (0.0, 0.0, 0.0, "none")])
def test_a_quotient_tells_as_much_as_its_bound_lets_it(monkeypatch, step, quotient, bound, told):
    monkeypatch.setattr(premises, "_complex_step", lambda *_: step)
    monkeypatch.setattr(premises, "_quotient", lambda *_: (quotient, bound))
    loss, rng = premises.FunctionLoss(W, square, twice, np.dtype(float)), np.random.default_rng(0)
    if told == "refused":
        with pytest.raises(InputError, match="f is not analytic"):
            premises._analytic(loss, "w", W["w"], 1.0, rng)
    else:
        assert bool(premises._analytic(loss, "w", W["w"], 1.0, rng)) == (told == "remark")


HALF = premises.allowed(np.dtype(np.float32)) / 2


@pytest.mark.parametrize("bound, told", [(0.9 * HALF, False), (HALF, False), (1.1 * HALF, True)])
def test_of_a_coarse_function_a_quotient_tells_what_half_the_tolerance_asks(monkeypatch, bound,
                                                                            told):
    monkeypatch.setattr(premises, "_complex_step", lambda *_: 1.0)
    monkeypatch.setattr(premises, "_quotient", lambda *_: (1.0, bound))
    loss = premises.FunctionLoss(W, square, twice, np.dtype(np.float32))
    found = premises._analytic(loss, "w", W["w"], 1.0, np.random.default_rng(0))
    assert (found is not None) == told


def test_what_a_direction_leaves_out_stays_open(monkeypatch):
    monkeypatch.setattr(premises, "_complex_step", lambda *_: 1.0)
    monkeypatch.setattr(premises, "_quotient", lambda *_: (1.0, 0.5))
    w = np.array([0.0, 1.0, 2.0])
    loss = premises.FunctionLoss({"w": w}, square, twice, np.dtype(float))
    _, doubt = premises._unsure(loss, "w", w, w != 0, 1.0, np.random.default_rng(0))
    assert np.isfinite(doubt).tolist() == [False, True, True]


@each_method
@pytest.mark.parametrize("loss, size", [(1e-12, 1e6), (1e-12, 1e-6), (1e12, 1e6), (1e12, 1e-6)])
def test_complex_steps_in_float32_end_in_no_zeros(loss, size, method):
    def f(v):
        kind = np.complex64 if v["w"].dtype.kind == "c" else np.float32
        return kind(loss) * (v["w"].astype(kind) / kind(size)) ** 3 @ np.ones(2, kind)

    x = {"w": size * np.array([0.5, 1.25])}
    report = gradcheck_function(f, lambda v: {"w": 3 * loss / size ** 3 * v["w"] ** 2}, x,
                                method=method).check()
    assert report.max_relative_error < 1e-6


def test_a_function_coarser_for_complex_arrays_is_refused():
    def f(v):
        w = v["w"]
        return (w.astype(np.complex64 if w.dtype.kind == "c" else w.dtype) ** 2).sum()

    with pytest.raises(InputError, match="f computes in complex64 for complex arrays in 'w', in "
                       "float64 for real ones; use method='central-differences'"):
        gradcheck_function(f, twice, W)


@pytest.mark.parametrize("method", ["complex-step", "directional", "central-differences"])
def test_a_function_may_fill_the_same_buffer_in_each_call(method):
    buffers = {"f": np.zeros(()), "c": np.zeros((), complex)}

    def f(v):
        return np.sum(v["w"] ** 2, out=buffers[v["w"].dtype.kind])

    gradcheck_function(f, twice, W, method=method).check()
    assert gradcheck_function(f, lambda v: {"w": 0 * v["w"]}, W, method=method).verdict == "FAILED"


def test_a_gradient_that_adds_to_what_was_is_refused():
    held = np.zeros(5)

    def accumulating(v):
        held[...] += 2 * v["w"]
        return {"w": held}

    with pytest.raises(InputError, match="grad is not deterministic"):
        gradcheck_function(square, accumulating, W)


def test_a_function_that_takes_its_own_precision_alone_is_told_how_to_widen_it():
    def single(v):
        if v["w"].dtype != np.float32:
            raise RuntimeError("expected Float, got Double")
        return (v["w"] ** 2).sum()

    x = {"w": W["w"].astype(np.float32)}
    with pytest.raises(InputError, match=r"f takes no arguments in float64 \(RuntimeError: "
                       r"expected Float, got Double\); let it compute in float64: in PyTorch"):
        gradcheck_function(single, twice, x)
    with pytest.raises(KeyError, match="q"):
        gradcheck_function(lambda v: v["q"], twice, x)

    def writes_too(v):
        v["w"] *= 2
        return single(v)

    with pytest.raises(InputError, match="^f changes its argument 'w'"):
        gradcheck_function(writes_too, twice, x)


@pytest.mark.parametrize("given, message", [
    (None, r"grads: w: an array of real floats of shape \(5,\) is needed, got NoneType; zeros "
           "where nothing depends on it$"),
    (np.zeros((5, 1)), r"needed, got float64 \(5, 1\)$"),
    (np.zeros(5, object), r"needed, got object \(5,\)$"), ([1.0] * 5, "needed, got list$")])
def test_a_gradient_that_is_no_array_of_the_right_kind_is_refused(given, message):
    for method in ("complex-step", "central-differences"):
        with pytest.raises(InputError, match=message):
            gradcheck_function(square, lambda v: {"w": given}, W, method=method)


@pytest.mark.parametrize("x, message", [(np.zeros(0), "x: 'w': it is empty: nothing to check"),
                                        (np.array([1, np.inf]), "x: 'w': not finite$")])
def test_points_that_are_none_are_refused(x, message):
    with pytest.raises(InputError, match=message):
        gradcheck_function(square, twice, {"w": x})


# The parts, each alone --------------------------------------------------------------------------

def test_along_an_even_direction_every_entry_counts_alike():
    g = np.array([0.0, 1e-3, 1.0, -2.0, np.nan])
    v = premises.even_direction(g, (200,), np.random.default_rng(0))
    r = v * np.maximum(np.abs(np.nan_to_num(g)), 0.02) / 2  # 2 is the largest
    assert r.shape == (200, 5) and (0.5 <= np.abs(r)).all() and (np.abs(r) < 1).all()
    assert len(np.unique(r)) == 1000 and 400 < (r > 0).sum() < 600


def test_along_a_gradient_of_zeros_a_direction_is_even_too():
    v = premises.even_direction(np.zeros(3, np.float16), (99,), np.random.default_rng(0))
    assert v.dtype == np.float64 and v.shape == (99, 3)
    assert (0.5 <= np.abs(v)).all() and (np.abs(v) < 1).all()


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_two_calls_may_differ_by_a_millionth_of_their_size(size):
    first = np.array([size, 0.1 * size])
    def wobble(apart):
        return premises._wobble("f", "it", first, first + np.array([0, apart * size]))
    assert wobble(0.0) == 0 and wobble(9e-7) == pytest.approx(9e-7, rel=1e-6)
    with pytest.raises(InputError, match="f is not deterministic: two calls at one point give "
                       r"\S+ and \S+ for it; fix what it draws at random \(a seed, no dropout\), "
                       "and let it depend on its arguments alone, not on calls before$"):
        wobble(1.1e-6)


def test_a_millionth_itself_counts_as_noise():
    assert premises._wobble("f", "it", np.array([0, 1.0]), np.array([1e-6, 1])) == 1e-6


def test_values_that_are_true_and_false_by_turns_are_refused():
    turns = iter([True, False])
    with pytest.raises(InputError, match="f is not deterministic"):
        gradcheck_function(lambda v: next(turns), twice, W)


def test_calls_that_give_other_shapes_are_not_compared():
    assert premises._wobble("f", "it", np.zeros(2), np.ones(3)) == 0


def test_a_cast_widens_and_never_narrows():
    x = {"a": np.ones(2, np.float32), "b": np.ones(2, np.longdouble)}
    wide = premises.FunctionLoss(x, square, twice, np.dtype(float)).cast(np.float64).values
    assert [a.dtype for a in wide.values()] == [np.float64, np.longdouble]
    assert wide["b"] is x["b"]
    extended = premises.FunctionLoss(x, square, twice, np.dtype(float)).cast(np.longdouble).values
    assert [a.dtype for a in extended.values()] == [np.longdouble] * 2


def test_what_has_a_graph_is_detached_before_it_becomes_an_array():
    class Tensor:
        def detach(self):
            return np.float32(3)

        def __array__(self, *_):
            raise RuntimeError("detach me")

    assert premises._number(Tensor()) == 3 and premises._number(Tensor()).dtype == np.float32


def test_a_tensor_that_numpy_does_not_know_is_refused_with_its_own_words():
    message = "no BFloat16"

    class Tensor:
        def __array__(self, *_):
            raise TypeError(message)

    with pytest.raises(InputError, match="^f: TypeError: no BFloat16; let it compute in float64"):
        premises._number(Tensor())
    message = "Use Tensor.to_dense() first."
    with pytest.raises(InputError, match=r"^grads: w: TypeError: Use Tensor.to_dense\(\) first.$"):
        gradcheck_function(square, lambda v: {"w": Tensor()}, W)


def test_noise_is_looked_for_on_a_line_of_ever_longer_steps_while_values_stay_equal():
    x, seen = {"w": np.array([1.0, -4.0, 0.0])}, []

    def constant(v):
        seen.append(v["w"])
        return 2.0

    loss = premises.FunctionLoss(x, constant, twice, np.dtype(float))
    assert premises._noise_near(loss, np.random.default_rng(0)) == 0
    moved = (np.array(seen) - x["w"]).reshape(5, 9, 3)
    ks = np.arange(9)[:, None]
    for at, step in zip(moved, (1e-11, 1e-8, 1e-6, 1e-4, 1e-2)):
        line = at[8] / 8 / step / [1, 4, 4 / 1024]  # in parts of the units
        assert (0.49 < line).all() and (line < 1.01).all()
        np.testing.assert_allclose(at, at[8] * ks / 8, atol=1e-15)


@pytest.mark.parametrize("seed", range(20))
def test_a_function_that_rounds_its_value_is_as_exact_as_its_values_lie_apart(seed):
    # along the line they may be as far from each other as nine points of a straight line
    loss = premises.FunctionLoss(W, lambda v: np.round(1e7 * v["w"].sum()) / 1e7, twice,
                                 np.dtype(float))
    level = premises._noise_near(loss, np.random.default_rng(seed))
    assert 0.24e-7 < level < 4e-7


@pytest.mark.parametrize("steps, lines", [([0, 0, 1, 1, 2, 2, 3, 3, 4], 1),
                                          ([0, 0, 1, 1, 2, 2, 3, 3, 3], 5)])
def test_a_line_is_long_enough_if_its_values_are_five_at_least(steps, lines):
    seen = []

    def staircase(v):
        seen.append(v)
        return float(steps[(len(seen) - 1) % 9])

    loss = premises.FunctionLoss(W, staircase, twice, np.dtype(float))
    premises._noise_near(loss, np.random.default_rng(0))
    assert len(seen) == 9 * lines


def test_two_values_say_how_far_apart_values_lie():
    seen = []

    def changes_once(v):
        seen.append(v)
        return 1.0 + (len(seen) > 36)

    loss = premises.FunctionLoss(W, changes_once, twice, np.dtype(float))
    assert premises._noise_near(loss, np.random.default_rng(0)) == 0.25


def test_a_line_that_leaves_the_domain_of_a_function_warns_of_nothing():
    edge = {"w": np.array([1 - 1e-13])}
    loss = premises.FunctionLoss(edge, lambda v: np.sqrt(1 - v["w"][0]), twice, np.dtype(float))
    assert premises._noise_near(loss, np.random.default_rng(0)) == 0


def test_where_no_noise_can_be_told_there_is_none():
    loss = premises.FunctionLoss(W, lambda v: np.nan, twice, np.dtype(float))
    assert premises._noise_near(loss, np.random.default_rng(0)) == 0


def test_a_function_is_as_exact_as_its_dtype_its_calls_and_its_neighbourhood_say():
    def noise_of(f):
        return premises.examined(f, twice, W, False, np.random.default_rng(0))[0].noise

    calls = iter(range(10 ** 6))
    assert noise_of(lambda v: 3.0) == 3 * 2.0 ** -52
    assert noise_of(lambda v: np.float32(3)) == 3 * 2.0 ** -23
    assert noise_of(lambda v: 3 + 1e-7 * (next(calls) == 1)) == pytest.approx(1e-7, rel=1e-6)
    noisy = premises.FunctionLoss(W, lambda v: np.sin(1e12 * v["w"].sum()), twice, np.dtype(float))
    near = premises._noise_near(noisy, np.random.default_rng(0))
    assert noise_of(noisy.f) == 4 * near > 0
    rough = noise_of(lambda v: 3 + 1e-10 * np.sin(1e12 * v["w"].sum()))
    assert 4e-11 < rough < 4e-9
